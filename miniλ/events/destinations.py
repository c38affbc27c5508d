"""Records of ended asynchronous events, in Lambda's words. Pure.

Source: Lambda developer guide, "Capturing records of Lambda asynchronous invocations" (the record
of a destination, and the message of a dead-letter queue); examples as the service sends them.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from miniλ.model import LATEST

if TYPE_CHECKING:
    from miniλ.model import Response

# How an event ends: the first is a success, the others are failures.
Condition: TypeAlias = Literal[
    "Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency"
]
# Bytes: Lambda cuts the message of a dead letter (developer guide, "Dead-letter queues").
MAX_MESSAGE = 1024


def record(
    request_id: str,
    arn: str,
    condition: Condition,
    attempts: int,
    payload: bytes,
    response: Response | None,
) -> bytes:
    """Return the JSON document that a destination gets.

    `arn` is the function's, qualified; `attempts` is the number of invocations; `response` is the
    last one's, None if there was none.
    """
    document: dict[str, Any] = {
        "version": "1.0",
        "timestamp": _timestamp(time.time()),
        "requestContext": {
            "requestId": request_id,
            "functionArn": arn,
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "requestPayload": msgspec.Raw(payload),
    }
    if response is not None:
        context: dict[str, Any] = {
            "statusCode": 200,
            "executedVersion": response.executed_version or LATEST,
        }
        if response.is_failure:
            context["functionError"] = "Unhandled"
        document["responseContext"] = context
        document["responsePayload"] = _json(response.body or b"null")
    return msgspec.json.encode(document)


def dead_letter(request_id: str, payload: bytes, response: Response | None, why: str) -> bytes:
    """Return the message for a dead-letter queue, as the parameters of SQS's SendMessage."""
    failure = None if response is None else response.failure
    message = why if failure is None else failure.error_message
    attributes = {
        "RequestID": ("String", request_id),
        # The HTTP status of the invocation, which is 200 for a failure too.
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", _cut(message) or "-"),
    }
    document = {
        "MessageBody": payload.decode(errors="replace"),
        "MessageAttributes": {
            name: {"DataType": kind, "StringValue": value}
            for name, (kind, value) in attributes.items()
        },
    }
    return msgspec.json.encode(document)


def _json(payload: bytes) -> object:
    """Return a payload as it came; as a string if it is no JSON, which a function may send."""
    try:
        json.loads(payload.decode())
    except (ValueError, RecursionError):
        return payload.decode(errors="replace")
    return msgspec.Raw(payload)


def _cut(message: str) -> str:
    return message.encode(errors="replace")[:MAX_MESSAGE].decode(errors="ignore")


def _timestamp(seconds: float) -> str:
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{int(seconds % 1 * 1000):03d}Z", time.gmtime(seconds))
