"""Tests of the filter patterns: which messages they match, and which patterns are refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniλ.errors import InvalidParameterValue
from miniλ.gateway.aws import filter_patterns

PLAIN = "[ERROR] code=404 not found at /v1/items by 'anna'\n"
DOCUMENT = (
    json.dumps(
        {
            "level": "ERROR",
            "message": 'a "quoted" word',
            "status": 404,
            "ratio": 0.5,
            "big": 123456789012345678901234567890,
            "ok": False,
            "nothing": None,
            "path": "/v1/items/7",
            "user": {"name": "anna", "log-in": 1},
            "tags": ["a", {"b": "c"}],
        }
    )
    + "\n"
)


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("", True),
        ("  ", True),
        ("ERROR", True),
        ("error", False),
        ("ERROR found", True),
        ("ERROR lost", False),
        ('"not found"', True),
        ('"found not"', False),
        ("not found", True),
        ("found not", True),
        ("?WARN ?ERROR", True),
        ("?WARN ?INFO", False),
        ('?WARN ?"not found"', True),
        ("ERROR -404", False),
        ("ERROR -500", True),
        ("-500", True),
        ('-"not found"', False),
        # With another term beside it, "?" does not count.
        ("?WARN ERROR", True),
        ("?ERROR WARN", False),
        ("?WARN -500", True),
        ("code=404", True),
        ("'anna'", True),
        (r'"\"x\""', False),
    ],
)
def test_terms(pattern: str, matches: bool) -> None:  # noqa: FBT001 - a case
    """All terms, one of those with "?", none of those with "-"; a phrase has quotes."""
    assert matches == filter_patterns.parse(pattern)(PLAIN)


def test_a_quote_may_be_in_quotes() -> None:
    """With a backslash before it."""
    assert filter_patterns.parse(r'"say \"no\" \\"')('I say "no" \\ to it')


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ('{ $.level = "ERROR" }', True),
        ('{$.level="ERROR"}', True),
        ("{ $.level = ERROR }", True),
        ('{ $.level = "error" }', False),
        ('{ $.level != "INFO" }', True),
        ('{ $.level != "ERROR" }', False),
        (r'{ $.message = "a \"quoted\" word" }', True),
        ("{ $.status = 404 }", True),
        ("{ $.status = 404.0 }", True),
        ('{ $.status = "404" }', True),
        ('{ $.status = "404.0" }', False),
        ("{ $.status != 404 }", False),
        ("{ $.status > 400 }", True),
        ("{ $.status >= 404 }", True),
        ("{ $.status < 404 }", False),
        ("{ $.status <= 404 }", True),
        ("{ $.ratio = 5e-1 }", True),
        ("{ $.big > 1 }", True),
        ('{ $.big = "1234*" }', True),
        ("{ $.level > 1 }", False),
        ("{ $.level = 1 }", False),
        ("{ $.level != 1 }", False),
        ("{ $.ok = false }", True),
        ("{ $.ok = 0 }", False),
        ("{ $.user.name = anna }", True),
        ("{ $.user.log-in = 1 }", True),
        ("{ $.tags[0] = a }", True),
        ("{ $.tags[1].b = c }", True),
        # An absent value, an object and a list are neither equal nor different.
        ("{ $.tags[2] = a }", False),
        ("{ $.tags[2] != a }", False),
        ("{ $.missing != a }", False),
        ("{ $.user != a }", False),
        ("{ $.nothing != a }", False),
        ("{ $.level.deeper != a }", False),
        ("{ $.level[0] = E }", False),
        ("{ $.user[0] != E }", False),
        ("{ $.tags.a != E }", False),
        # Wildcards.
        ('{ $.path = "/v1/*" }', True),
        ('{ $.path = "*items*" }', True),
        ('{ $.path = "*/7" }', True),
        ('{ $.path = "/v1/*/7" }', True),
        ('{ $.path = "*" }', True),
        ('{ $.path = "/v2/*" }', False),
        ('{ $.path = "/v1/*/8" }', False),
        ('{ $.path = "*s*i*" }', False),
        ('{ $.path = "*s*s*" }', False),
        ('{ $.path = "*s/7*7" }', False),
        ('{ $.path = "/v1/items/7*7" }', False),
        ('{ $.path != "/v1/*" }', False),
        ('{ $.path = "/v1/items/*/items/7" }', False),
        # Both, either, and parentheses.
        ("{ $.level = ERROR && $.status = 404 }", True),
        ("{ $.level = ERROR && $.status = 500 }", False),
        ("{ $.level = INFO || $.status = 404 }", True),
        ("{ $.level = INFO || $.status = 500 }", False),
        ("{ $.level = ERROR || $.level = INFO && $.status = 500 }", True),
        ("{ ($.level = ERROR || $.level = INFO) && $.status = 500 }", False),
        ("{ (($.level = ERROR)) }", True),
    ],
)
def test_conditions(pattern: str, matches: bool) -> None:  # noqa: FBT001 - a case
    """A selector finds a value, which is compared as a string with wildcards or as a number."""
    assert matches == filter_patterns.parse(pattern)(DOCUMENT)


@pytest.mark.parametrize("message", [PLAIN, "", "[]\n", "1", '{"level": "ERROR"', "[" * 100_000])
def test_a_message_that_is_no_json_has_no_values(message: str) -> None:
    """A line of plain text, or of JSON that is cut short, matches no condition."""
    assert not filter_patterns.parse("{ $.level != INFO }")(message)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("[ip, user]", "patterns of columns, [...], are not supported here"),
        ("%re%", "regular expressions, %...%, are not supported here"),
        ("ERROR -%re%", "regular expressions, %...%, are not supported here"),
        ("{ $.a = %re% }", "regular expressions, %...%, are not supported here"),
        ("{ $.a IS NULL }", "the words IS, NOT and EXISTS are not supported here"),
        ("{ $.a not exists }", "the words IS, NOT and EXISTS are not supported here"),
        ('"open', "a quote is not closed in '\"open'"),
        ('{ $.a = "open }', "it cannot be read from ' \"open }' on"),
        ("{", "expected selector, got 'its end'"),
        ("{}", "expected selector, got '}'"),
        ("{ $.a = 1", "expected }, got 'its end'"),
        ("{ $.a = 1 } x", "nothing can follow '}', got 'x'"),
        ("{ $.a }", "expected operator, got '}'"),
        ("{ $.a = }", "expected word, got '}'"),
        ("{ selector = 1 }", "expected selector, got 'selector'"),
        ('{ "}" = 1 }', "expected selector, got '\"}\"'"),
        ("{ $ = 1 }", "expected selector, got '$'"),
        ("{ a = 1 }", "expected selector, got 'a'"),
        ("{ ($.a = 1 }", "expected ), got '}'"),
        ("{ $.a = 1 && }", "expected selector, got '}'"),
        ("{ $.a = 1 $.b = 2 }", "expected }, got '$.b'"),
        ("{ $.a > x }", "> compares numbers, got 'x'"),
        ('{ $.a > "1" }', "> compares numbers, got '\"1\"'"),
        ("{ $.a = & }", "it cannot be read from ' & }' on"),
        ("{ " + "(" * 500, "more than 50 parentheses in each other"),
    ],
)
def test_patterns_that_cannot_be(pattern: str, why: str) -> None:
    """The message has the pattern and the problem."""
    with pytest.raises(InvalidParameterValue) as refused:
        filter_patterns.parse(pattern)

    assert str(refused.value).startswith(f"Invalid filter pattern {pattern!r}: {why}")


@settings(deadline=None, database=None, max_examples=300)
@given(
    pattern=st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from([*'{}()$."?-*%[]1a ', "$.a", "&&", "||", "!=", ">", '"x"', "=", "\\"]),
            max_size=20,
        ).map("".join),
    ),
    message=st.sampled_from([PLAIN, DOCUMENT, '{"a": "x"}', '{"a": 1}']),
)
def test_any_pattern_is_one_or_is_refused(pattern: str, message: str) -> None:
    """Any text from a client matches, does not match, or is refused."""
    try:
        matches = filter_patterns.parse(pattern)
    except InvalidParameterValue:
        return

    assert matches(message) in {True, False}


def test_wildcards_without_end_are_no_work() -> None:
    """A pattern full of wildcards passes over a large message once."""
    message = json.dumps({"a": "a" * 1_000_000})

    assert filter_patterns.parse('{ $.a = "' + "*a" * 500 + '*b" }')(message) is False
    assert filter_patterns.parse('{ $.a = "' + "*a" * 500 + '" }')(message) is True
