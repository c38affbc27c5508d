"""Filter patterns of CloudWatch Logs: a pattern becomes a predicate on messages.

    ERROR "not found"            each of these is in the message; case matters
    ?ERROR ?WARN                 at least one of these is
    ERROR -EXPECTED              the first is, the second is not
    { $.level = "ERROR" }        the message is JSON, and has this value there
    { ($.ms >= 100 && $.path = "/v1/*") || $.level != INFO }

Rule: a pattern comes from a client and a message from a function. Matching costs one pass over the
message for each term, for any pattern and message: neither is ever a regular expression.

Patterns of columns (`[ip, user]`), regular expressions (`%re%`) and the words IS, EXISTS and NOT
are refused by name. Source: CloudWatch Logs user guide, "Filter pattern syntax".
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Callable

    Matches: TypeAlias = Callable[[str], bool]
    Condition: TypeAlias = Callable[[Any], bool]

# Nested parentheses: far below the recursion limit of Python.
MAX_DEPTH = 50

_TERM = re.compile(r'\s*([?-]?)("(?:[^"\\]|\\.)*"|[^\s"]+)')
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<mark>\|\||&&|[(){}])
      | (?P<selector>\$(?:\.[\w-]+|\[\d+\])+)
      | (?P<operator>!=|<=|>=|=|<|>)
      | (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<word>[^\s(){}"=<>!&|]+)
    )""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_decode = msgspec.json.Decoder().decode


def parse(pattern: str) -> Matches:
    """Return the predicate of a pattern: does a message match? Raises `InvalidParameterValue`."""
    text = pattern.strip()
    if text.startswith("["):
        raise _unsupported(pattern, "patterns of columns, [...],")
    if text.startswith("{"):
        condition = _Parser(pattern, text).whole()
        return lambda message: _holds(condition, message)
    return _terms(pattern, text)


def _invalid(pattern: str, why: str) -> InvalidParameterValue:
    return InvalidParameterValue(f"Invalid filter pattern {pattern!r}: {why}.")


def _unsupported(pattern: str, what: str) -> InvalidParameterValue:
    return _invalid(pattern, f"{what} are not supported here; use terms or {{ $.key = value }}")


# Terms


def _terms(pattern: str, text: str) -> Matches:
    all_of: list[str] = []
    one_of: list[str] = []
    none_of: list[str] = []
    place = 0
    while place < len(text):
        match = _TERM.match(text, place)
        if match is None:
            raise _invalid(pattern, f"a quote is not closed in {text[place:]!r}")
        sign, term = match.groups()
        if term.startswith("%"):
            raise _unsupported(pattern, "regular expressions, %...%,")
        {"": all_of, "?": one_of, "-": none_of}[sign].append(_unquoted(term))
        place = match.end()
    # As on AWS, terms with "?" count only if the pattern has no others.
    if all_of or none_of:
        one_of = []

    def matches(message: str) -> bool:
        return (
            all(term in message for term in all_of)
            and not any(term in message for term in none_of)
            and (not one_of or any(term in message for term in one_of))
        )

    return matches


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


# JSON


def _holds(condition: Condition, message: str) -> bool:
    try:
        document = _decode(message)
    except (msgspec.DecodeError, RecursionError):
        return False
    return condition(document)


class _Parser:
    """A parser of `{ condition }`, by recursive descent: "&&" binds closer than "||"."""

    def __init__(self, pattern: str, text: str) -> None:
        self._pattern = pattern
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise _invalid(pattern, f"it cannot be read from {text[place:]!r} on")
            kind = match.lastgroup or ""
            self._tokens.append((kind, match[kind]))
            place = match.end()
        self._tokens.reverse()

    def whole(self) -> Condition:
        self._take("{")
        condition = self._either(0)
        self._take("}")
        if self._tokens:
            raise _invalid(self._pattern, f"nothing can follow '}}', got {self._tokens[-1][1]!r}")
        return condition

    def _next(self) -> str:
        return self._tokens[-1][1] if self._tokens else ""

    def _take(self, expected: str) -> str:
        """Take the next token, which must be this mark or of this kind; return its text."""
        kind, text = self._tokens.pop() if self._tokens else ("end", "")
        if expected != (text if kind == "mark" else kind):
            raise _invalid(self._pattern, f"expected {expected}, got {text or 'its end'!r}")
        return text

    def _either(self, depth: int) -> Condition:
        if depth > MAX_DEPTH:
            raise _invalid(self._pattern, f"more than {MAX_DEPTH} parentheses in each other")
        conditions = [self._both(depth)]
        while self._next() == "||":
            self._take("||")
            conditions.append(self._both(depth))
        return lambda document: any(condition(document) for condition in conditions)

    def _both(self, depth: int) -> Condition:
        conditions = [self._one(depth)]
        while self._next() == "&&":
            self._take("&&")
            conditions.append(self._one(depth))
        return lambda document: all(condition(document) for condition in conditions)

    def _one(self, depth: int) -> Condition:
        if self._next() == "(":
            self._take("(")
            condition = self._either(depth + 1)
            self._take(")")
            return condition
        steps = [key or int(index) for key, index in _STEP.findall(self._take("selector"))]
        if self._next().upper() in {"IS", "NOT", "EXISTS"}:
            raise _unsupported(self._pattern, "the words IS, NOT and EXISTS")
        sign = self._take("operator")
        quoted = bool(self._tokens) and self._tokens[-1][0] == "text"
        value = self._take("text" if quoted else "word")
        if value.startswith("%"):
            raise _unsupported(self._pattern, "regular expressions, %...%,")
        number = _number(value)
        if number is None and sign not in {"=", "!="}:
            raise _invalid(self._pattern, f"{sign} compares numbers, got {value!r}")
        text = _unquoted(value)
        compare = _COMPARE[sign]

        def holds(document: Any) -> bool:  # noqa: ANN401 - any JSON
            actual = _at(document, steps)
            # An absent value, an object and a list are neither equal to a value nor different.
            if actual is None or isinstance(actual, dict | list):
                return False
            if number is not None:
                is_number = isinstance(actual, int | float) and not isinstance(actual, bool)
                return is_number and compare(actual, number)
            return _fits(_text(actual), text) == (sign == "=")

        return holds


def _number(word: str) -> int | float | None:
    try:
        value = _decode(word)
    except msgspec.DecodeError:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def _at(document: Any, steps: list[str | int]) -> Any:  # noqa: ANN401 - see `holds`
    for step in steps:
        if isinstance(document, dict):
            document = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return None
    return document


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _fits(text: str, glob: str) -> bool:
    """Return whether a text matches a glob, in which "*" stands for any text."""
    first, *middle = glob.split("*")
    if not middle:
        return text == glob
    last = middle.pop()
    if not (text.startswith(first) and text.endswith(last)):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return place <= end
