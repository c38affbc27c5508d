"""Tests of CloudWatch Logs: botocore's parser reads the answers, or boto3 as a whole."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config

from miniλ.gateway.aws import logs
from tests.unit.gateway.aws.logbooks import (
    ACCOUNT,
    ARN,
    GROUP,
    NOON,
    NOON_MS,
    OTHER,
    REGION,
    STREAM,
    ask,
    book,
    error,
    note,
    printed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from miniλ.store.logbook import Logbook

__all__ = ["book"]  # fixtures


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
    """Its events in order, with the times of the invocation's start and answer."""
    answer = get(book)

    assert ["one", "three"] == printed(answer)
    assert {"timestamp": NOON_MS - 2000, "message": "one\n", "ingestionTime": NOON_MS} == answer[
        "events"
    ][1]
    assert 8 == len(answer["events"])


def test_a_stream_is_read_from_its_end(book: Logbook) -> None:
    """Without startFromHead: the last two events, in order."""
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
    """Forward until the token does not change; later, events that are new."""
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
    """Both tokens of a page lead to its neighbours."""
    everything = get(book)["events"]
    middle = get(book, startFromHead=True, limit=3)
    middle = get(book, startFromHead=True, limit=3, nextToken=middle["nextForwardToken"])
    before = get(book, nextToken=middle["nextBackwardToken"])
    after = get(book, startFromHead=True, nextToken=middle["nextForwardToken"])

    assert everything == before["events"] + middle["events"] + after["events"]
    at_end = get(book, startFromHead=True, nextToken=after["nextForwardToken"])
    assert everything == get(book, nextToken=at_end["nextBackwardToken"])["events"]


def test_a_time_without_events_has_tokens(book: Logbook) -> None:
    """Tokens are never null: a reader gets events that come after its time with them."""
    empty = get(book, startTime=NOON_MS + 30_000, startFromHead=True)
    assert [] == empty["events"]
    assert [] == get(book, nextToken=empty["nextForwardToken"], startFromHead=True)["events"]

    note(book, "four\n", NOON + 40)
    assert ["four"] == printed(get(book, nextToken=empty["nextForwardToken"], startFromHead=True))


def test_a_page_has_a_megabyte(book: Logbook) -> None:
    """A page has at least one event, also a larger one."""
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
    """Events of its workers are interleaved, and have ids; searchedLogStreams is empty."""
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
    ("choice", "expected"),
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
def test_events_are_chosen(book: Logbook, choice: dict[str, Any], expected: list[str]) -> None:
    """By stream, by time (the end is included, unlike in GetLogEvents), by pattern; both ways."""
    answer = ask(book, "FilterLogEvents", logGroupName=GROUP, **choice)

    assert expected == printed(answer)


@pytest.mark.parametrize("head", [True, False])
def test_chosen_events_come_in_pages(book: Logbook, head: bool) -> None:  # noqa: FBT001 - a case
    """No event is missing or twice; the direction is the token's, and not the request's."""
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
    """As `aws logs tail --follow` reads: from the newest time it saw, without the ids it saw."""
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


# Tags, and operations that would change something


def test_a_group_has_no_tags(book: Logbook) -> None:
    """By ARN and by name."""
    assert {"tags": {}} == ask(book, "ListTagsForResource", resourceArn=f"{ARN}{GROUP}")
    assert {"tags": {}} == ask(book, "ListTagsForResource", resourceArn=f"{ARN}{GROUP}:*")
    assert {"tags": {}} == ask(book, "ListTagsLogGroup", logGroupName=GROUP)


def test_a_group_that_is_there_cannot_be_made(book: Logbook) -> None:
    """A group that exists, or of an existing function, is a conflict."""
    exists = "ResourceAlreadyExistsException: The specified log group already exists"

    assert exists == error(book, "CreateLogGroup", logGroupName="/aws/lambda/idle")
    assert exists == error(book, "CreateLogGroup", logGroupName="/aws/lambda/adder")


@pytest.mark.parametrize(
    "operation",
    ["PutRetentionPolicy", "DeleteLogGroup", "TagResource", "PutLogEvents", "UntagLogGroup"],
)
def test_logs_are_read_only(book: Logbook, operation: str) -> None:
    """An operation that would change something is refused with the reason."""
    assert (
        f"InvalidOperationException: {operation} is not possible: "
        "logs are read-only here, functions alone write them."
    ) == error(book, operation, logGroupName=GROUP)
    assert error(book, "CreateLogGroup", logGroupName="mine").startswith(
        "InvalidOperationException: CreateLogGroup is not possible"
    )


@pytest.mark.parametrize("operation", ["StartQuery", "Describe", "", "describeloggroups", "x" * 99])
def test_another_operation_is_unknown(book: Logbook, operation: str) -> None:
    """The message names the operations that exist."""
    assert error(book, operation).startswith(
        f"UnknownOperationException: There is no operation 'Logs_20140328.{operation}' here. "
        "There are: DescribeLogGroups, "
    )


@pytest.mark.parametrize(
    "target", ["", "DescribeLogGroups", "Lambda.DescribeLogGroups", "TagResource"]
)
def test_another_service_is_unknown(book: Logbook, target: str) -> None:
    """The target must have the prefix of CloudWatch Logs."""
    status, body = asyncio.run(logs.answer(book, [], target, b"{}", region=REGION, account=ACCOUNT))

    assert (400, "UnknownOperationException") == (status, json.loads(body)["__type"])


# boto3, without the network


@pytest.fixture
def client(book: Logbook) -> Iterator[Any]:
    """Yield a client whose requests are answered without a network."""
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
    """Its paginators end."""
    counts = {
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

    assert {"describe_log_groups": 2, "describe_log_streams": 2, "filter_log_events": 3} == counts


def test_boto3_raises_its_own_exceptions(client: Any) -> None:
    """The errors have the exception classes that they have on AWS."""
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="log group"):
        client.get_log_events(logGroupName="x", logStreamName="y")
    with pytest.raises(client.exceptions.InvalidParameterException, match="nextToken"):
        client.describe_log_groups(nextToken="x")
    with pytest.raises(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=GROUP)
    with pytest.raises(client.exceptions.InvalidOperationException, match="read-only"):
        client.put_retention_policy(logGroupName=GROUP, retentionInDays=1)
