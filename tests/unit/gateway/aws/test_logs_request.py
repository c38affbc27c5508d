"""Tests of the parameters of CloudWatch Logs: the values that are refused, and the messages."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.gateway.aws import logs
from miniλ.store.logbook import Logbook
from tests.unit.gateway.aws.logbooks import ACCOUNT, ARN, GROUP, REGION, STREAM, ask, book, error

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["book"]  # fixtures


# Refusals


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("DescribeLogStreams", {}),
        ("GetLogEvents", {"logStreamName": STREAM}),
        ("FilterLogEvents", {}),
        ("ListTagsLogGroup", {}),
    ],
)
@pytest.mark.parametrize("name", ["/aws/lambda/idle", "x", "/aws/lambda/../hello"])
def test_a_group_that_is_not_there(
    book: Logbook, operation: str, parameters: dict[str, Any], name: str
) -> None:
    """A function that never ran has no group, though it exists."""
    missing = "ResourceNotFoundException: The specified log group does not exist."

    assert missing == error(book, operation, logGroupName=name, **parameters)
    if operation != "ListTagsLogGroup":
        other = ARN.replace(ACCOUNT, "999999999999") + GROUP
        assert missing == error(book, operation, logGroupIdentifier=other, **parameters)


def test_a_stream_that_is_not_there(book: Logbook) -> None:
    """A missing stream is an error, and not an empty page."""
    missing = "ResourceNotFoundException: The specified log stream does not exist."
    names = [STREAM, "x"]

    assert missing == error(book, "GetLogEvents", logGroupName=GROUP, logStreamName="x")
    assert missing == error(book, "FilterLogEvents", logGroupName=GROUP, logStreamNames=names)


WRONG = "InvalidParameterException: 1 validation error detected: Value"
FAILED = "failed to satisfy constraint: Member must"


@pytest.mark.parametrize(
    ("operation", "parameters", "message"),
    [
        ("DescribeLogStreams", {}, f"{WRONG} null at 'logGroupName' {FAILED} not be null"),
        (
            "GetLogEvents",
            {"logGroupName": GROUP},
            f"{WRONG} null at 'logStreamName' {FAILED} not be null",
        ),
        (
            "ListTagsForResource",
            {},
            f"{WRONG} null at 'resourceArn' {FAILED} not be null",
        ),
        (
            "DescribeLogGroups",
            {"limit": 51},
            f"{WRONG} '51' at 'limit' {FAILED} have value less than or equal to 50",
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "limit": 10_001},
            f"{WRONG} '10001' at 'limit' {FAILED} have value less than or equal to 10000",
        ),
        (
            "GetLogEvents",
            {"logGroupName": GROUP, "logStreamName": STREAM, "limit": 0},
            f"{WRONG} '0' at 'limit' {FAILED} have value greater than or equal to 1",
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "startTime": -1},
            f"{WRONG} '-1' at 'startTime' {FAILED} have value greater than or equal to 0",
        ),
        (
            "FilterLogEvents",
            {"logGroupName": ""},
            f"{WRONG} '' at 'logGroupName' {FAILED} have length greater than or equal to 1",
        ),
        (
            "DescribeLogGroups",
            {"logGroupNamePrefix": "x" * 513},
            (
                f"{WRONG} '{'x' * 513}' at 'logGroupNamePrefix' {FAILED} "
                "have length less than or equal to 512"
            ),
        ),
        (
            "FilterLogEvents",
            {"logGroupName": "a b"},
            (
                f"{WRONG} 'a b' at 'logGroupName' {FAILED} "
                r"satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+"
            ),
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "logStreamNamePrefix": "a:b"},
            (
                f"{WRONG} 'a:b' at 'logStreamNamePrefix' {FAILED} "
                "satisfy regular expression pattern: [^:*]*"
            ),
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "logStreamNames": []},
            f"{WRONG} '[]' at 'logStreamNames' {FAILED} have length between 1 and 100",
        ),
        (
            "DescribeLogStreams",
            {"logGroupName": GROUP, "orderBy": "Size"},
            (
                f"{WRONG} 'Size' at 'orderBy' {FAILED} "
                "satisfy enum value set: [LogStreamName, LastEventTime]"
            ),
        ),
        (
            "DescribeLogStreams",
            {"logGroupName": GROUP, "orderBy": "LastEventTime", "logStreamNamePrefix": "x"},
            "InvalidParameterException: Cannot order by LastEventTime with a logStreamNamePrefix.",
        ),
        (
            "DescribeLogGroups",
            {"logGroupNamePrefix": "x", "logGroupNamePattern": "x"},
            (
                "InvalidParameterException: LogGroup name prefix and LogGroup name pattern are "
                "mutually exclusive parameters."
            ),
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "logStreamNames": [STREAM], "logStreamNamePrefix": "2"},
            (
                "InvalidParameterException: logStreamNames and logStreamNamePrefix cannot both be "
                "given: leave one of them out."
            ),
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "logGroupIdentifier": GROUP},
            (
                "InvalidParameterException: logGroupName and logGroupIdentifier cannot both be "
                "given: leave one of them out."
            ),
        ),
        (
            "FilterLogEvents",
            {"logGroupName": GROUP, "filterPattern": "[a, b]"},
            (
                "InvalidParameterException: Invalid filter pattern '[a, b]': patterns of columns, "
                "[...], are not supported here; use terms or { $.key = value }."
            ),
        ),
    ],
)
def test_parameters_that_cannot_be(
    book: Logbook, operation: str, parameters: dict[str, Any], message: str
) -> None:
    """The message names the parameter, its value and its constraint."""
    assert message == error(book, operation, **parameters)


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("DescribeLogGroups", {}),
        ("DescribeLogStreams", {"logGroupName": GROUP}),
        ("GetLogEvents", {"logGroupName": GROUP, "logStreamName": STREAM}),
        ("FilterLogEvents", {"logGroupName": GROUP}),
    ],
)
@pytest.mark.parametrize(
    "token", ["x", "12", "f/", "f/12", "g/" + "0" * 56, "x:y", "9" * 30 + ":y"]
)
def test_foreign_tokens_are_refused(
    book: Logbook, operation: str, parameters: dict[str, Any], token: str
) -> None:
    """A token that we did not make is refused."""
    assert "InvalidParameterException: The specified nextToken is invalid." == error(
        book, operation, nextToken=token, **parameters
    )


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"limit": "5"}',
        b'{"limit": 1.5}',
        b'{"logGroupNamePrefix": "\xff"}',
        b'{"logStreamNames": "x"}',
        b'{"startTime": 9223372036854775808}',
        b'{"x":' + b"[" * 100_000,
    ],
)
def test_a_body_that_is_none(book: Logbook, body: bytes) -> None:
    """A body that is not JSON, or has a wrong type, is a SerializationException."""
    assert error(book, "DescribeLogGroups", body).startswith("SerializationException: ")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"limit":null,"other":1}'])
def test_a_body_without_parameters(book: Logbook, body: bytes) -> None:
    """An empty body has no parameters; unknown ones are ignored."""
    assert 2 == len(ask(book, "DescribeLogGroups", body)["logGroups"])


def test_a_disk_that_cannot_be_read_is_our_fault(tmp_path: Path) -> None:
    """A disk error is ours: status 500, and clients retry."""
    (tmp_path / "hello.jsonl").mkdir()
    status, body = asyncio.run(
        logs.answer(
            Logbook(tmp_path),
            [],
            "Logs_20140328.DescribeLogGroups",
            b"",
            region=REGION,
            account=ACCOUNT,
        )
    )

    assert (500, "ServiceUnavailableException") == (status, json.loads(body)["__type"])
