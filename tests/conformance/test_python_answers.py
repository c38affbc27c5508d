"""What a Python function may answer, byte for byte: JSON as AWS's client writes it."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING

import pytest
from contract import EVALUATE, failure_of

if TYPE_CHECKING:
    from contract import Ask


MAX_RESPONSE = 6_291_556


ENCODED = {
    "None": b"null",
    "True": b"true",
    "'text'": b'"text"',
    "[1, 2.5, 'a']": b'[1, 2.5, "a"]',
    "{'a': [1, 2], 'b': None}": b'{"a": [1, 2], "b": null}',
    "(1, 2)": b"[1, 2]",
    "float('nan')": b"NaN",
    "[float('inf'), -float('inf')]": b"[Infinity, -Infinity]",
    "10**30": b"1000000000000000000000000000000",
    "[1e22, -0.0, 0.1]": b"[1e+22, -0.0, 0.1]",
    "decimal.Decimal('0.10')": b"0.10",
    "{'price': [decimal.Decimal('1E+400')]}": b'{"price": [1E+400]}',
    "decimal.Decimal('-NaN')": b"NaN",
    "{1: 1, 1.5: 2, False: 3, None: 4}": b'{"1": 1, "1.5": 2, "false": 3, "null": 4}',
    "b'raw \\xff bytes'": b"raw \xff bytes",
    "b''": b"",
    "'</script>\\x7f\\n'": None,
}


@pytest.mark.parametrize("expression", ENCODED)
def test_an_answer_is_encoded_as_awss_client_does(ask: Ask, expression: str) -> None:
    """Byte for byte: spaces, numbers, keys, and bytes at the top as they are."""
    [response] = ask(EVALUATE, expression)
    assert not response.is_failure
    expected = ENCODED[expression]
    if expected is None:
        expected = json.dumps(eval(expression)).encode()
        if sys.version_info >= (3, 12):
            expected = json.dumps(eval(expression), ensure_ascii=False).encode()
    assert response.body == expected


def test_nan_reaches_the_embedding_app(ask: Ask) -> None:
    """Response.payload decodes NaN and Infinity, which Python's client sends and JSON lacks."""
    [response] = ask(EVALUATE, "[float('nan'), float('inf')]")
    nan, infinity = response.payload
    assert math.isnan(nan)
    assert infinity == math.inf


UNENCODABLE = {
    "{'a': b'x'}": "Object of type bytes is not JSON serializable",
    "[bytearray(b'x')]": "Object of type bytearray is not JSON serializable",
    "{1, 2}": "Object of type set is not JSON serializable",
    "gen()": "Object of type generator is not JSON serializable",
    "object()": "Object of type object is not JSON serializable",
    "cyclic()": "Circular reference detected",
    "deep(100_000)": "maximum recursion depth exceeded",
    "{(1, 2): 3}": "keys must be str, int, float, bool or None, not tuple",
    "1 + 2j": "Object of type complex is not JSON serializable",
}


@pytest.mark.parametrize("expression", UNENCODABLE)
def test_an_answer_that_is_not_json_is_a_marshal_error(ask: Ask, expression: str) -> None:
    """Runtime.MarshalError with the cause, and the worker goes on."""
    bad, well = ask(EVALUATE, expression, "6 * 7")
    failure = failure_of(bad)
    assert failure.error_type == "Runtime.MarshalError"
    assert failure.error_message.startswith("Unable to marshal response: ")
    assert UNENCODABLE[expression] in failure.error_message
    assert failure.request_id == bad.request_id
    assert failure.stack_trace == []
    assert well.payload == 42
    assert well.report.worker_id == bad.report.worker_id


def test_marshalling_is_the_same_under_every_python(ask: Ask, runtime: str) -> None:
    """Depth, sets, decimals and NaN end the same way whichever json module encodes them."""
    bad, deep, good = ask(
        EVALUATE,
        "{1, 2}",
        "deep(100_000)",
        "[decimal.Decimal('0.10'), float('nan'), {2: None}]",
        memory_size=1769,
        runtime=runtime,
    )
    for response in (bad, deep):
        assert failure_of(response).error_type == "Runtime.MarshalError"
    assert good.body == b'[0.10, NaN, {"2": null}]'


def test_non_ascii_is_escaped_below_python_312(ask: Ask, runtime: str) -> None:
    """AWS's client sends é as six ASCII characters up to 3.11, from 3.12 on as itself."""
    [response] = ask(EVALUATE, "{'é': 'λ 😀'}", runtime=runtime)
    if int(runtime.split(".")[1]) < 12:
        assert response.body == rb'{"\u00e9": "\u03bb \ud83d\ude00"}'
    else:
        assert response.body == '{"é": "λ 😀"}'.encode()
    assert response.payload == {"é": "λ 😀"}


def test_half_a_character_is_an_answer_below_python_312(ask: Ask, runtime: str) -> None:
    """A lone surrogate can be escaped; as itself it has no UTF-8, and is a MarshalError."""
    half, well = ask(EVALUATE, r"'\ud800'", "6 * 7", runtime=runtime)
    if int(runtime.split(".")[1]) < 12:
        assert half.body == rb'"\ud800"'
    else:
        assert failure_of(half).error_type == "Runtime.MarshalError"
    assert well.payload == 42
    assert well.report.worker_id == half.report.worker_id


def test_events_arrive_as_they_were_given(ask: Ask) -> None:
    """Any JSON value is an event, with its characters, its numbers and its depth."""
    events = [
        None,
        0,
        "",
        "é😀\x00",
        [1, [2, [3]]],
        {"a": {"b": None}},
        2**53 + 1,
        1.5,
        False,
    ]
    source = """
        def handler(event, context):
            return [type(event).__name__, event]
        """
    answers = [response.payload for response in ask(source, *events)]
    assert [answer[1] for answer in answers] == events
    assert [answer[0] for answer in answers] == [type(event).__name__ for event in events]


def test_an_answer_may_be_6291556_bytes(ask: Ask) -> None:
    """6 MB and 100 bytes pass; one more is Function.ResponseSizeTooLarge, as Lambda's."""
    source = """
        def handler(event, context):
            return b"x" * event
        """
    at, over, after = ask(source, MAX_RESPONSE, MAX_RESPONSE + 1, 2, memory_size=512)
    assert len(at.body) == MAX_RESPONSE
    assert not at.is_failure
    assert over.is_failure
    assert json.loads(over.body) == {
        "errorMessage": (
            "Response payload size exceeded maximum allowed payload size (6291556 bytes)."
        ),
        "errorType": "Function.ResponseSizeTooLarge",
    }
    assert after.body == b"xx"
    assert after.report.worker_id == at.report.worker_id


def test_the_size_of_an_answer_is_that_of_its_json(ask: Ask) -> None:
    """The quotes around a string count."""
    source = """
        def handler(event, context):
            return "x" * event
        """
    at, over = ask(source, MAX_RESPONSE - 2, MAX_RESPONSE - 1, memory_size=512)
    assert len(at.body) == MAX_RESPONSE
    assert failure_of(over).error_type == "Function.ResponseSizeTooLarge"
