"""Tests of CloudWatch Logs: answers are read by botocore's own parser, or by boto3 as a whole."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from miniλ.billing import BOOKS
from miniλ.gateway.aws import logs
from miniλ.model import Invoked, Response
from miniλ.store.logbook import Logbook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    """Return the answer as botocore reads it: an error is in "Error"."""
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
    found = ask(book, operation, body, **parameters)["Error"]
    return f"{found['Code']}: {found['Message']}"


def printed(answer: Any) -> list[str]:
    """Return what the functions printed, without what Lambda prints around it."""
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


# Groups


def test_groups_are_described(book: Logbook) -> None:
    """As on AWS, by name; a function that never ran has none."""
    groups = ask(book, "DescribeLogGroups")["logGroups"]

    assert ["/aws/lambda/adder", GROUP] == [group["logGroupName"] for group in groups]
    stored = groups[1].pop("storedBytes")
    assert stored > 0
    assert {
        "logGroupName": GROUP,
        "creationTime": NOON_MS - 2000,
        "metricFilterCount": 0,
        "arn": f"{ARN}{GROUP}:*",
        "logGroupArn": f"{ARN}{GROUP}",
        "logGroupClass": "STANDARD",
    } == groups[1]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"logGroupNamePrefix": "/aws/lambda/h"}, [GROUP]),
        ({"logGroupNamePrefix": "lambda"}, []),
        ({"logGroupNamePattern": "ell"}, [GROUP]),
        ({"logGroupNamePattern": "Hell"}, []),
        ({"logGroupNamePattern": ""}, ["/aws/lambda/adder", GROUP]),
        ({"logGroupIdentifiers": [GROUP]}, [GROUP]),
        ({"logGroupIdentifiers": [f"{ARN}/aws/lambda/adder", "x"]}, ["/aws/lambda/adder"]),
        ({"logGroupClass": "STANDARD"}, ["/aws/lambda/adder", GROUP]),
        ({"logGroupClass": "DELIVERY"}, []),
        ({"limit": 50, "includeLinkedAccounts": False}, ["/aws/lambda/adder", GROUP]),
    ],
)
def test_groups_are_chosen(book: Logbook, choice: dict[str, Any], names: list[str]) -> None:
    """By prefix, by a part of the name, by name or ARN, by class."""
    groups = ask(book, "DescribeLogGroups", **choice)["logGroups"]

    assert names == [group["logGroupName"] for group in groups]


def test_groups_come_in_pages(book: Logbook) -> None:
    """The last page has no token."""
    first = ask(book, "DescribeLogGroups", limit=1)
    second = ask(book, "DescribeLogGroups", limit=1, nextToken=first["nextToken"])

    assert [["/aws/lambda/adder"], [GROUP]] == [
        [group["logGroupName"] for group in page["logGroups"]] for page in (first, second)
    ]
    assert "nextToken" not in second


# Streams


def test_streams_are_described(book: Logbook) -> None:
    """As on AWS, by name or ARN of the group."""
    by_name = ask(book, "DescribeLogStreams", logGroupName=GROUP)
    by_arn = ask(book, "DescribeLogStreams", logGroupIdentifier=f"{ARN}{GROUP}")

    assert by_name == by_arn
    assert [STREAM, OTHER] == [stream["logStreamName"] for stream in by_name["logStreams"]]
    assert {
        "logStreamName": STREAM,
        "creationTime": NOON_MS - 2000,
        "firstEventTimestamp": NOON_MS - 2000,
        "lastEventTimestamp": NOON_MS + 20_000,
        "lastIngestionTime": NOON_MS + 20_000,
        "arn": f"{ARN}{GROUP}:log-stream:{STREAM}",
        "storedBytes": 0,
    } == by_name["logStreams"][0]


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ({"descending": True}, [OTHER, STREAM]),
        ({"orderBy": "LogStreamName", "descending": False}, [STREAM, OTHER]),
        ({"orderBy": "LastEventTime"}, [OTHER, STREAM]),
        ({"orderBy": "LastEventTime", "descending": True}, [STREAM, OTHER]),
        ({"logStreamNamePrefix": OTHER[:21]}, [OTHER]),
        ({"logStreamNamePrefix": "2027"}, []),
    ],
)
def test_streams_are_ordered(book: Logbook, choice: dict[str, Any], names: list[str]) -> None:
    """By name or by their last event, either way, and in pages of one."""
    streams = ask(book, "DescribeLogStreams", logGroupName=GROUP, **choice)["logStreams"]
    paged: list[str] = []
    more: dict[str, Any] = {}
    while len(paged) <= len(names):
        page = ask(book, "DescribeLogStreams", logGroupName=GROUP, limit=1, **choice, **more)
        paged += [stream["logStreamName"] for stream in page["logStreams"]]
        if "nextToken" not in page:
            break
        more = {"nextToken": page["nextToken"]}

    assert names == [stream["logStreamName"] for stream in streams] == paged


# GetLogEvents


def get(book: Logbook, **parameters: Any) -> Any:
    """Ask for events of the first worker's stream."""
    return ask(book, "GetLogEvents", logGroupName=GROUP, logStreamName=STREAM, **parameters)


def test_a_stream_is_read(book: Logbook) -> None:
    """Its events in order, with the time of the invocation's start, and that of its answer."""
    answer = get(book)

    assert ["one", "three"] == printed(answer)
    assert {"timestamp": NOON_MS - 2000, "message": "one\n", "ingestionTime": NOON_MS} == answer[
        "events"
    ][1]
    assert 8 == len(answer["events"])


def test_a_stream_is_read_from_its_end(book: Logbook) -> None:
    """Unless somebody asks for its head: the last two, in order."""
    assert ["END", "REPORT"] == [
        event["message"].split()[0] for event in get(book, limit=2)["events"]
    ]
    assert ["START", "one"] == [
        event["message"].split()[0] for event in get(book, limit=2, startFromHead=True)["events"]
    ]


def test_the_end_time_is_not_included(book: Logbook) -> None:
    """From the start time to before the end time."""
    assert 2 == len(get(book, endTime=NOON_MS)["events"])
    assert 4 == len(get(book, endTime=NOON_MS + 1)["events"])
    assert 6 == len(get(book, startTime=NOON_MS)["events"])


def test_a_reader_that_is_at_the_end_is_given_its_own_token(book: Logbook) -> None:
    """Forward until the token does not change, and then what is new."""
    read: list[str] = []
    more: dict[str, Any] = {}
    for _ in range(10):
        answer = get(book, startFromHead=True, limit=3, **more)
        read += [event["message"] for event in answer["events"]]
        if more.get("nextToken") == answer["nextForwardToken"]:
            break
        more = {"nextToken": answer["nextForwardToken"]}
    assert read == [event["message"] for event in get(book)["events"]]
    assert [] == answer["events"]

    note(book, "four\n", NOON + 40)
    assert ["four"] == printed(get(book, startFromHead=True, **more))


def test_a_stream_is_read_backward(book: Logbook) -> None:
    """Backward from its end until the token does not change."""
    read: list[str] = []
    more: dict[str, Any] = {}
    for _ in range(10):
        answer = get(book, limit=3, **more)
        read = [event["message"] for event in answer["events"]] + read
        if more.get("nextToken") == answer["nextBackwardToken"]:
            break
        more = {"nextToken": answer["nextBackwardToken"]}

    assert read == [event["message"] for event in get(book)["events"]]
    assert [] == answer["events"]


def test_a_reader_may_turn_around(book: Logbook) -> None:
    """What is before a page and what is after it are next to it."""
    everything = get(book)["events"]
    middle = get(book, startFromHead=True, limit=3)
    middle = get(book, startFromHead=True, limit=3, nextToken=middle["nextForwardToken"])
    before = get(book, nextToken=middle["nextBackwardToken"])
    after = get(book, startFromHead=True, nextToken=middle["nextForwardToken"])

    assert everything == before["events"] + middle["events"] + after["events"]
    at_end = get(book, startFromHead=True, nextToken=after["nextForwardToken"])
    assert everything == get(book, nextToken=at_end["nextBackwardToken"])["events"]


def test_a_time_without_events_has_tokens(book: Logbook) -> None:
    """They are never null: who waits for events after a time is given them when they are there."""
    empty = get(book, startTime=NOON_MS + 30_000, startFromHead=True)
    assert [] == empty["events"]
    assert [] == get(book, nextToken=empty["nextForwardToken"], startFromHead=True)["events"]

    note(book, "four\n", NOON + 40)
    assert ["four"] == printed(get(book, nextToken=empty["nextForwardToken"], startFromHead=True))


def test_a_page_has_a_megabyte(book: Logbook) -> None:
    """Or one event that is larger: every page goes on."""
    note(book, "x" * 700_000 + "\n" + "y" * 700_000 + "\n" + "é" * 600_000 + "\n", NOON + 40)
    pages = []
    more: dict[str, Any] = {"startTime": NOON_MS + 38_000}
    while True:
        answer = get(book, startFromHead=True, **more)
        if not answer["events"]:
            break
        pages.append([event["message"][0] for event in answer["events"]])
        more = {"nextToken": answer["nextForwardToken"]}

    assert [["S", "x"], ["y"], ["é"], ["E", "R"]] == pages


# FilterLogEvents


def test_a_group_is_searched(book: Logbook) -> None:
    """Its workers are interleaved, with ids and without streams that were searched."""
    answer = ask(book, "FilterLogEvents", logGroupName=GROUP, interleaved=True)

    assert ["one", "two", "three"] == printed(answer)
    assert [] == answer["searchedLogStreams"]
    assert "nextToken" not in answer
    ids = [event.pop("eventId") for event in answer["events"]]
    assert ids == sorted(set(ids))
    assert {56} == {len(id_) for id_ in ids}
    assert {
        "logStreamName": OTHER,
        "timestamp": NOON_MS + 8000,
        "message": "two\n",
        "ingestionTime": NOON_MS + 10_000,
    } == answer["events"][5]


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"logStreamNames": [OTHER]}, ["two"]),
        ({"logStreamNames": [STREAM, OTHER]}, ["one", "two", "three"]),
        ({"logStreamNamePrefix": "2026/01/31/[$LATEST]1"}, ["one", "three"]),
        ({"logStreamNamePrefix": "2027"}, []),
        ({"startTime": NOON_MS + 8000}, ["two", "three"]),
        ({"startTime": NOON_MS + 8001}, ["three"]),
        ({"endTime": NOON_MS + 8000}, ["one", "two"]),
        ({"endTime": NOON_MS + 7999}, ["one"]),
        ({"startTime": 0, "endTime": 0}, []),
        ({"filterPattern": "o -one"}, ["two"]),
        ({"filterPattern": ""}, ["one", "two", "three"]),
        ({"startFromHead": False}, ["three", "two", "one"]),
        ({"startFromHead": True}, ["one", "two", "three"]),
    ],
)
def test_what_is_found(book: Logbook, choice: dict[str, Any], found: list[str]) -> None:
    """By stream, by time (the end is included, unlike in GetLogEvents), by pattern; both ways."""
    answer = ask(book, "FilterLogEvents", logGroupName=GROUP, **choice)

    assert found == printed(answer)


@pytest.mark.parametrize("head", [True, False])
def test_what_is_found_comes_in_pages(book: Logbook, head: bool) -> None:  # noqa: FBT001 - a case
    """No event is missing or twice; the token keeps its way, whatever the request says."""
    whole = ask(book, "FilterLogEvents", logGroupName=GROUP, startFromHead=head)["events"]
    paged = []
    more: dict[str, Any] = {"startFromHead": head}
    while True:
        page = ask(book, "FilterLogEvents", logGroupName=GROUP, limit=5, **more)
        assert len(page["events"]) <= 5
        paged += page["events"]
        if "nextToken" not in page:
            break
        more = {"nextToken": page["nextToken"]}

    assert whole == paged
    assert 12 == len(whole)


def test_a_follower_misses_nothing_and_sees_nothing_twice(book: Logbook) -> None:
    """As `aws logs tail --follow` does it: from the newest time it saw, but for ids it saw then."""
    seen: list[str] = []
    known: set[tuple[int, str]] = set()
    start = NOON_MS - 60_000

    def poll() -> None:
        nonlocal start, known
        more: dict[str, Any] = {}
        while True:
            page = ask(
                book,
                "FilterLogEvents",
                logGroupName=GROUP,
                interleaved=True,
                startTime=start,
                limit=3,
                **more,
            )
            for event in page["events"]:
                if (event["timestamp"], event["eventId"]) not in known:
                    known.add((event["timestamp"], event["eventId"]))
                    seen.append(event["message"])
            if "nextToken" not in page:
                break
            more = {"nextToken": page["nextToken"]}
        start = max(timestamp for timestamp, _ in known)
        known = {(timestamp, id_) for timestamp, id_ in known if timestamp == start}

    poll()
    poll()
    note(book, "four\n", NOON + 20, seconds=0.0)  # in the millisecond of the last one's end
    poll()
    note(book, "five\n", NOON + 40)
    poll()
    poll()

    whole = ask(book, "FilterLogEvents", logGroupName=GROUP)["events"]
    assert [event["message"] for event in whole] == seen


# Tags, and what would change something


def test_a_group_has_no_tags(book: Logbook) -> None:
    """Asked for by ARN or by name."""
    assert {"tags": {}} == ask(book, "ListTagsForResource", resourceArn=f"{ARN}{GROUP}")
    assert {"tags": {}} == ask(book, "ListTagsForResource", resourceArn=f"{ARN}{GROUP}:*")
    assert {"tags": {}} == ask(book, "ListTagsLogGroup", logGroupName=GROUP)


def test_a_group_that_is_there_cannot_be_made(book: Logbook) -> None:
    """Nor that of a function which exists: it is there with the first invocation."""
    exists = "ResourceAlreadyExistsException: The specified log group already exists"

    assert exists == error(book, "CreateLogGroup", logGroupName="/aws/lambda/idle")
    assert exists == error(book, "CreateLogGroup", logGroupName="/aws/lambda/adder")


@pytest.mark.parametrize(
    "operation",
    ["PutRetentionPolicy", "DeleteLogGroup", "TagResource", "PutLogEvents", "UntagLogGroup"],
)
def test_logs_are_read_only(book: Logbook, operation: str) -> None:
    """An operation that would change something says why it does not."""
    assert (
        f"InvalidOperationException: {operation} is not possible: "
        "logs are read-only here, functions alone write them."
    ) == error(book, operation, logGroupName=GROUP)
    assert error(book, "CreateLogGroup", logGroupName="mine").startswith(
        "InvalidOperationException: CreateLogGroup is not possible"
    )


@pytest.mark.parametrize("operation", ["StartQuery", "Describe", "", "describeloggroups", "x" * 99])
def test_another_operation_is_unknown(book: Logbook, operation: str) -> None:
    """And the answer names those that there are."""
    assert error(book, operation).startswith(
        f"UnknownOperationException: There is no operation 'Logs_20140328.{operation}' here. "
        "There are: DescribeLogGroups, "
    )


@pytest.mark.parametrize(
    "target", ["", "DescribeLogGroups", "Lambda.DescribeLogGroups", "TagResource"]
)
def test_another_service_is_unknown(book: Logbook, target: str) -> None:
    """The target has to be whole."""
    status, body = asyncio.run(logs.answer(book, [], target, b"{}", region=REGION, account=ACCOUNT))

    assert (400, "UnknownOperationException") == (status, json.loads(body)["__type"])


# What is refused


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
    """Is said, not answered with nothing."""
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
    """The answer names the parameter, its value and what it must be."""
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
def test_tokens_of_somebody_else(
    book: Logbook, operation: str, parameters: dict[str, Any], token: str
) -> None:
    """A token is one that we gave."""
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
    """What is not JSON, or of another type, is a SerializationException."""
    assert error(book, "DescribeLogGroups", body).startswith("SerializationException: ")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"limit":null,"other":1}'])
def test_a_body_without_parameters(book: Logbook, body: bytes) -> None:
    """Is one; what we do not know changes nothing."""
    assert 2 == len(ask(book, "DescribeLogGroups", body)["logGroups"])


def test_a_disk_that_cannot_be_read_is_our_fault(tmp_path: Path) -> None:
    """A client may try again."""
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


# The whole of boto3, but for the wire


@pytest.fixture
def client(book: Logbook) -> Iterator[Any]:
    """Yield a client whose requests are answered there and then."""
    client = boto3.client(
        "logs",
        region_name=REGION,
        aws_access_key_id="minilambda",
        aws_secret_access_key="minilambda",
        endpoint_url="http://localhost:1",
        config=Config(retries={"total_max_attempts": 1}),
    )

    def answer(request: Any, **_: Any) -> AWSResponse:
        status, body = asyncio.run(
            logs.answer(
                book,
                [],
                request.headers["X-Amz-Target"].decode(),
                request.body,
                region=REGION,
                account=ACCOUNT,
            )
        )
        response = AWSResponse(request.url, status, {}, None)
        response._content = body
        return response

    client.meta.events.register("before-send.cloudwatch-logs", answer)
    yield client
    client.close()


def test_boto3_pages_through_it(client: Any) -> None:
    """Its paginators come to an end."""
    found = {
        name: sum(
            len(page[key])
            for page in client.get_paginator(name).paginate(
                PaginationConfig={"PageSize": 1}, **choice
            )
        )
        for name, key, choice in (
            ("describe_log_groups", "logGroups", {}),
            ("describe_log_streams", "logStreams", {"logGroupName": GROUP}),
            ("filter_log_events", "events", {"logGroupName": GROUP, "filterPattern": "REPORT"}),
        )
    }

    assert {"describe_log_groups": 2, "describe_log_streams": 2, "filter_log_events": 3} == found


def test_boto3_raises_its_own_exceptions(client: Any) -> None:
    """Who catches ResourceNotFoundException on AWS catches it here."""
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="log group"):
        client.get_log_events(logGroupName="x", logStreamName="y")
    with pytest.raises(client.exceptions.InvalidParameterException, match="nextToken"):
        client.describe_log_groups(nextToken="x")
    with pytest.raises(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=GROUP)
    with pytest.raises(client.exceptions.InvalidOperationException, match="read-only"):
        client.put_retention_policy(logGroupName=GROUP, retentionInDays=1)
