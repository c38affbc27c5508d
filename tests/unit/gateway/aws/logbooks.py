"""A logbook with invocations, and requests of CloudWatch Logs to it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from miniλ.billing import BOOKS
from miniλ.gateway.aws import logs
from miniλ.model import Invoked, Response
from miniλ.store.logbook import Logbook

MODEL = ServiceModel(Loader().load_service_model("logs", "service-2"), "logs")
ACCOUNT, REGION = "123456789012", "eu-central-1"
ARN = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:"
W1, W2 = "1" * 32, "2" * 32
# 2026-01-31T12:00:00Z
NOON = 1769860800.0
NOON_MS = 1769860800000
GROUP = "/aws/lambda/hello"
STREAM, OTHER = f"2026/01/31/[$LATEST]{W1}", f"2026/01/31/[$LATEST]{W2}"


def note(
    book: Logbook,
    printed: str,
    at: float = NOON,
    *,
    seconds: float = 2.0,
    function: str = "hello",
    worker: str = W1,
) -> None:
    """Note an invocation that printed something."""
    invoked = Invoked(
        ended=1.0,
        function=function,
        request_id="8f5ab0a2-0000-4000-8000-000000000001",
        seconds=seconds,
        init_seconds=None,
        memory_size_mb=128,
        peak=33 << 20,
        worker_id=worker,
        limits={},
        cold=False,
        failed=False,
        book=BOOKS["2025"],
    )
    stream = f"2026/01/31/[$LATEST]{worker}"
    book.note(Response(b"null", invoked, printed.encode()), stream, at)


def ask(book: Logbook, operation: str, body: bytes | None = None, **parameters: Any) -> Any:
    """Return the answer, parsed by botocore: an error is in "Error"."""
    status, answer = asyncio.run(
        logs.answer(
            book,
            ["hello", "idle"],
            f"Logs_20140328.{operation}",
            json.dumps(parameters).encode() if body is None else body,
            region=REGION,
            account=ACCOUNT,
        )
    )
    known = operation in MODEL.operation_names
    shape = MODEL.operation_model(operation).output_shape if known else None
    response = {"status_code": status, "headers": {}, "body": answer}
    parsed = create_parser("json").parse(response, shape)
    assert (status == 200) == ("Error" not in parsed)
    del parsed["ResponseMetadata"]
    return parsed


def error(book: Logbook, operation: str, body: bytes | None = None, **parameters: Any) -> str:
    """Return "Code: message" of a request that is refused."""
    error_document = ask(book, operation, body, **parameters)["Error"]
    return f"{error_document['Code']}: {error_document['Message']}"


def printed(answer: Any) -> list[str]:
    """Return the messages that functions printed, without START, END and REPORT."""
    around = ("START ", "END ", "REPORT ")
    return [
        event["message"].rstrip("\n")
        for event in answer["events"]
        if not event["message"].startswith(around)
    ]


@pytest.fixture
def book() -> Logbook:
    """Return a logbook with two workers of a function, and another function."""
    book = Logbook()
    note(book, "one\n")
    note(book, "two\n", NOON + 10, worker=W2)
    note(book, "three\n", NOON + 20)
    note(book, "sum\n", NOON + 30, function="adder")
    return book
