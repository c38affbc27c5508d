"""Tests of destinations: the record and the dead letter, byte for byte as Lambda sends them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from miniλ.billing import BOOKS
from miniλ.events import destinations
from miniλ.model import Invoked, Response

if TYPE_CHECKING:
    from miniλ.events.destinations import Condition

ID = "e4b46cbf-b738-xmpl-8880-a18cdf61200e"
ARN = "arn:aws:lambda:us-east-2:123456789012:function:my-function"
# 2019-11-14T18:16:05.568Z, the example of the developer guide.
AT = 1573755365.568


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: AT)


def response(body: bytes = b"null", *, failed: bool = False, version: str = "$LATEST") -> Response:
    """Return what an invocation answered."""
    invoked = Invoked(
        ended=1.0,
        function="my-function",
        request_id=ID,
        seconds=1.0,
        init_seconds=None,
        memory_size_mb=128,
        peak=1,
        worker_id="w1",
        limits={},
        cold=False,
        failed=failed,
        book=BOOKS["2025"],
    )
    return Response(body, invoked, b"", executed_version=version)


FAILURE = b'{"errorMessage": "KeyError: \'x\'", "errorType": "KeyError", "stackTrace": ["a\\n"]}'


# The record of a destination


def test_a_record_of_a_failure() -> None:
    """Members in Lambda's order: the request, then the response with its functionError."""
    record = destinations.record(
        ID,
        f"{ARN}:$LATEST",
        "RetriesExhausted",
        3,
        b'{"ORDER_IDS":["x"]}',
        response(FAILURE, failed=True),
    )

    assert (
        b'{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z",'
        b'"requestContext":{"requestId":"e4b46cbf-b738-xmpl-8880-a18cdf61200e",'
        b'"functionArn":"arn:aws:lambda:us-east-2:123456789012:function:my-function:$LATEST",'
        b'"condition":"RetriesExhausted","approximateInvokeCount":3},'
        b'"requestPayload":{"ORDER_IDS":["x"]},'
        b'"responseContext":{"statusCode":200,"executedVersion":"$LATEST",'
        b'"functionError":"Unhandled"},"responsePayload":' + FAILURE + b"}"
    ) == record


def test_a_record_of_a_success() -> None:
    """Without functionError, and with the version that ran, not the qualifier of the caller."""
    record = destinations.record(
        ID, f"{ARN}:prod", "Success", 1, b"1", response(b'{"ok":true}', version="7")
    )

    assert (
        b'{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z",'
        b'"requestContext":{"requestId":"e4b46cbf-b738-xmpl-8880-a18cdf61200e",'
        b'"functionArn":"arn:aws:lambda:us-east-2:123456789012:function:my-function:prod",'
        b'"condition":"Success","approximateInvokeCount":1},"requestPayload":1,'
        b'"responseContext":{"statusCode":200,"executedVersion":"7"},'
        b'"responsePayload":{"ok":true}}'
    ) == record


@pytest.mark.parametrize("condition", ["EventAgeExceeded", "ZeroReservedConcurrency"])
def test_a_record_of_what_never_ran(condition: Condition) -> None:
    """The record ends with the request: there is no response."""
    record = destinations.record(ID, f"{ARN}:$LATEST", condition, 0, b"null", None)

    assert (
        b'{"version":"1.0","timestamp":"2019-11-14T18:16:05.568Z",'
        b'"requestContext":{"requestId":"e4b46cbf-b738-xmpl-8880-a18cdf61200e",'
        b'"functionArn":"arn:aws:lambda:us-east-2:123456789012:function:my-function:$LATEST",'
        b'"condition":"' + condition.encode() + b'","approximateInvokeCount":0},'
        b'"requestPayload":null}'
    ) == record


@pytest.mark.parametrize(
    "text",
    [b"1.0", b"1e400", b"123456789012345678901234567890", b'"\\u03bb \xce\xbb"', b'{"a": 1,"a":2}'],
)
def test_payloads_are_not_touched(text: bytes) -> None:
    """Numbers, escapes, spaces and members stay as they came, in both."""
    record = destinations.record(ID, ARN, "Success", 1, text, response(text))

    assert b'},"requestPayload":' + text + b',"responseContext":' in record
    assert record.endswith(b'},"responsePayload":' + text + b"}")


@pytest.mark.parametrize("body", [b"NaN", b'{"x": [Infinity, -Infinity]}'])
def test_a_response_that_is_only_nearly_json_is_not_touched(body: bytes) -> None:
    """The payload of a function's answer is in the record as it was."""
    record = destinations.record(ID, ARN, "Success", 1, b"{}", response(body))

    assert record.endswith(b'"responsePayload":' + body + b"}")


def test_a_response_without_a_body_is_null() -> None:
    """The record stays JSON."""
    record = destinations.record(ID, ARN, "Success", 1, b"{}", response(b"", version=""))

    document = msgspec.json.decode(record)
    assert None is document["responsePayload"]
    assert "$LATEST" == document["responseContext"]["executedVersion"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (AT, "2019-11-14T18:16:05.568Z"),
        (1767225599.9999, "2025-12-31T23:59:59.999Z"),
        (1767225600.0, "2026-01-01T00:00:00.000Z"),
        (1767225600.0078, "2026-01-01T00:00:00.007Z"),
    ],
)
def test_a_timestamp_has_three_digits(
    monkeypatch: pytest.MonkeyPatch, seconds: float, expected: str
) -> None:
    """In UTC, and never rounded up into the next second."""
    monkeypatch.setattr(time, "time", lambda: seconds)
    record = destinations.record(ID, ARN, "Success", 1, b"{}", None)

    assert expected == msgspec.json.decode(record)["timestamp"]


# The dead letter


def test_a_dead_letter() -> None:
    """The event itself is the body; how it ended is in the attributes of SQS's SendMessage."""
    letter = destinations.dead_letter(
        ID, b'{"n": 1.0, "\xce\xbb": "\\u03bb"}', response(FAILURE, failed=True), "RetriesExhausted"
    )

    assert (
        b'{"MessageBody":"{\\"n\\": 1.0, \\"\xce\xbb\\": \\"\\\\u03bb\\"}","MessageAttributes":{'
        b'"RequestID":{"DataType":"String","StringValue":"e4b46cbf-b738-xmpl-8880-a18cdf61200e"},'
        b'"ErrorCode":{"DataType":"Number","StringValue":"200"},'
        b'"ErrorMessage":{"DataType":"String","StringValue":"KeyError: \'x\'"}}}'
    ) == letter


def message(letter: bytes) -> str:
    """Return the error message of a dead letter."""
    expected = msgspec.json.decode(letter)["MessageAttributes"]["ErrorMessage"]["StringValue"]
    assert isinstance(expected, str)
    return expected


@pytest.mark.parametrize("answer", [None, response(b"{}")])
def test_a_dead_letter_of_what_did_not_fail_says_why(answer: Response | None) -> None:
    """Where the function gave no error message, the condition is the message."""
    letter = destinations.dead_letter(ID, b"{}", answer, "EventAgeExceeded")

    assert "EventAgeExceeded" == message(letter)


@pytest.mark.parametrize(("size", "kept"), [(1023, 1023), (1024, 1024), (1025, 1024)])
def test_the_message_of_a_dead_letter_is_cut(size: int, kept: int) -> None:
    """As Lambda cuts it: its beginning is kept."""
    expected = ("0123456789" * 103)[:size]
    body = msgspec.json.encode({"errorType": "E", "errorMessage": expected})
    letter = destinations.dead_letter(ID, b"{}", response(body, failed=True), "RetriesExhausted")

    assert expected[:kept] == message(letter)


def test_the_message_of_a_dead_letter_is_never_empty() -> None:
    """SQS refuses an attribute without a value, and the letter with it."""
    body = b'{"errorType":"E","errorMessage":""}'
    letter = destinations.dead_letter(ID, b"{}", response(body, failed=True), "RetriesExhausted")

    assert "-" == message(letter)


@pytest.mark.parametrize("body", [b"\xff\xfe", b"plain text", b"[" * 100_000])
def test_an_answer_that_is_no_json_is_a_string(body: bytes) -> None:
    """The record is JSON all the same, and its destination can read it."""
    expected = destinations.record("id", "arn", "Success", 1, b"{}", response(body))

    assert body.decode(errors="replace") == msgspec.json.decode(expected)["responsePayload"]
