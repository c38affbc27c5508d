"""Event source mappings: checked, kept and told; nothing is read from a source."""

from __future__ import annotations

import json
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import ECHO, ROLE, RUNTIME, archive, serving
from tests.api.refusals import CONFLICT, INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient

    from tests.api.conftest import Server

LAMBDA = "arn:aws:lambda:us-east-1:000000000000"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:jobs"
STREAM = "arn:aws:kinesis:us-east-1:000000000000:stream/clicks"
TABLE = "arn:aws:dynamodb:us-east-1:000000000000:table/t"
TABLE_STREAM = f"{TABLE}/stream/2026-01-31T12:00:00.000"
KAFKA = "arn:aws:kafka:us-east-1:000000000000:cluster/k/11111111-2222-3333-4444-555555555555-1"
BROKER = "arn:aws:mq:us-east-1:000000000000:broker:b:b-1"
SECRET = "arn:aws:secretsmanager:us-east-1:000000000000:secret:s"
OWN_KAFKA = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["kafka.example:9092"]}}
NOTHING = "The resource you requested does not exist."
NULL = (
    "1 validation error detected: Value null at '{}' failed to satisfy constraint: "
    "Member must not be null."
)
WINDOW = (
    "Maximum batch window in seconds must be greater than 0 if maximum batch size is "
    "greater than 10"
)
# What is another each time.
CHANGING = {"UUID", "EventSourceMappingArn", "LastModified"}
# What a mapping of each sort of source takes, at the least.
SORTS: dict[str, dict[str, Any]] = {
    "sqs": {"EventSourceArn": QUEUE},
    "kinesis": {"EventSourceArn": STREAM, "StartingPosition": "LATEST"},
    "dynamodb": {"EventSourceArn": TABLE_STREAM, "StartingPosition": "LATEST"},
    "kafka": {"EventSourceArn": KAFKA, "StartingPosition": "LATEST", "Topics": ["t1"]},
    "own kafka": {
        "SelfManagedEventSource": OWN_KAFKA,
        "StartingPosition": "LATEST",
        "Topics": ["t1"],
    },
    "mq": {
        "EventSourceArn": BROKER,
        "Queues": ["q"],
        "SourceAccessConfigurations": [{"Type": "BASIC_AUTH", "URI": SECRET}],
    },
}
STREAMED = {
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "DestinationConfig": {"OnFailure": {}},
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "MaximumRetryAttempts": -1,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
    "LastProcessingResult": "No records processed",
    "StateTransitionReason": "User action",
}
PULLED = {
    "BatchSize": 100,
    "LastProcessingResult": "No records processed",
    "StateTransitionReason": "USER_INITIATED",
}
DEFAULTS = {
    "sqs": {
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
        "StateTransitionReason": "USER_INITIATED",
    },
    "kinesis": STREAMED,
    "dynamodb": STREAMED,
    "kafka": PULLED,
    "own kafka": PULLED,
    "mq": PULLED,
}


@pytest.fixture(scope="module", autouse=True)
def _connected(client: BaseClient) -> None:
    """Have the client's connection before the first test, which would seem to leave it behind."""
    client.list_functions()


@pytest.fixture(autouse=True)
def _emptied(client: BaseClient) -> Iterator[None]:
    """Leave no mapping to the next test."""
    yield
    for mapping in listed(client):
        client.delete_event_source_mapping(UUID=mapping["UUID"])


def listed(client: BaseClient, **parameters: Any) -> list[dict[str, Any]]:
    """Return the mappings of a list."""
    mappings: list[dict[str, Any]] = client.list_event_source_mappings(**parameters)[
        "EventSourceMappings"
    ]
    return mappings


def create(client: BaseClient, name: str, sort: str = "sqs", **parameters: Any) -> dict[str, Any]:
    """Create a mapping; return the answer."""
    request = {"FunctionName": name, **SORTS[sort], **parameters}
    return told(client.create_event_source_mapping(**request))


@pytest.mark.parametrize("sort", SORTS)
def test_a_mapping_has_the_defaults_of_its_source(
    client: BaseClient, make_function: Callable[..., str], sort: str
) -> None:
    """The answer is a mapping that is being created; afterwards it is the same, and Enabled."""
    name = make_function()
    before = time.time()
    created = create(client, name, sort)

    expected = {
        **DEFAULTS[sort],
        **SORTS[sort],
        "FunctionArn": f"{LAMBDA}:function:{name}",
        "State": "Creating",
    }
    number = created["UUID"]
    if sort == "kafka":
        expected["AmazonManagedKafkaEventSourceConfig"] = {"ConsumerGroupId": number}
    if sort == "own kafka":
        expected["SelfManagedKafkaEventSourceConfig"] = {"ConsumerGroupId": number}
    assert expected == {key: created[key] for key in created if key not in CHANGING}
    assert CHANGING <= created.keys()
    assert number == str(uuid.UUID(number))
    assert f"{LAMBDA}:event-source-mapping:{number}" == created["EventSourceMappingArn"]
    assert before - 1 <= created["LastModified"].timestamp() <= time.time() + 1
    assert {**created, "State": "Enabled"} == told(client.get_event_source_mapping(UUID=number))


def test_all_that_is_said_is_told(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Members of the request come back as they were sent."""
    name = make_function()
    members = {
        "BatchSize": 200,
        "MaximumBatchingWindowInSeconds": 5,
        "FilterCriteria": {"Filters": [{"Pattern": json.dumps({"body": {"a": [1]}})}]},
        "ScalingConfig": {"MaximumConcurrency": 5},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    streamed = {
        "StartingPosition": "AT_TIMESTAMP",
        "ParallelizationFactor": 10,
        "MaximumRecordAgeInSeconds": 60,
        "BisectBatchOnFunctionError": True,
        "MaximumRetryAttempts": 3,
        "TumblingWindowInSeconds": 30,
        "DestinationConfig": {"OnFailure": {"Destination": QUEUE}},
    }
    topics = {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}}

    answer = create(client, name, **members, Enabled=False)
    assert members == {key: answer[key] for key in members}
    assert "Disabled" == client.get_event_source_mapping(UUID=answer["UUID"])["State"]
    answer = create(client, name, "kinesis", **streamed, StartingPositionTimestamp=1_700_000_000)
    assert streamed == {key: answer[key] for key in streamed}
    assert 1_700_000_000 == answer["StartingPositionTimestamp"].timestamp()
    answer = create(client, name, "kafka", **topics)
    assert topics == {key: answer[key] for key in topics}


def test_nothing_is_told_that_is_not_in_the_model(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Tags are kept with a mapping, and are no member of it."""
    number = create(client, make_function(), Tags={"a": "b"})["UUID"]
    url = f"{server.url}/2015-03-31/event-source-mappings"
    with urllib.request.urlopen(f"{url}/{number}") as answer:
        one = json.load(answer)
    with urllib.request.urlopen(url) as answer:
        listing = json.load(answer)
    shape = client.meta.service_model.shape_for("EventSourceMappingConfiguration")

    assert number == one["UUID"]
    assert one.keys() <= shape.members.keys()
    assert {"EventSourceMappings": [one]} == listing


def test_a_version_or_an_alias_can_be_fed(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The qualifier is in the ARN of the function, and is another function for the same source."""
    name = make_function(Publish=True)
    client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    arns = [
        create(client, target)["FunctionArn"]
        for target in (name, f"{name}:1", f"{LAMBDA}:function:{name}:prod")
    ]

    bare = f"{LAMBDA}:function:{name}"
    assert [bare, f"{bare}:1", f"{bare}:prod"] == arns
    missing = "Function does not exist"
    assert (400, INVALID, missing) == refused(
        client.create_event_source_mapping, FunctionName=f"{name}:test", EventSourceArn=QUEUE
    )
    assert (400, INVALID, missing) == refused(
        client.create_event_source_mapping, FunctionName="nowhere", EventSourceArn=QUEUE
    )


@pytest.mark.parametrize(
    ("sort", "parameters", "message"),
    [
        ("sqs", {"EventSourceArn": None}, "Unrecognized event source."),
        (
            "sqs",
            {"EventSourceArn": "arn:aws:s3:::bucket"},
            "Unrecognized event source. Unsupported source arn: arn:aws:s3:::bucket",
        ),
        (
            "dynamodb",
            {"EventSourceArn": TABLE},
            f"Unrecognized event source. Unsupported source arn: {TABLE}",
        ),
        (
            "kafka",
            {"SelfManagedEventSource": OWN_KAFKA},
            "Unrecognized event source: EventSourceArn and SelfManagedEventSource are two",
        ),
        (
            "kinesis",
            {"StartingPosition": None},
            NULL.format("startingPosition"),
        ),
        (
            "kafka",
            {"Topics": None},
            NULL.format("topics"),
        ),
        (
            "mq",
            {"Queues": None},
            NULL.format("queues"),
        ),
        (
            "sqs",
            {"BatchSize": 11},
            WINDOW,
        ),
        (
            "sqs",
            {"EventSourceArn": f"{QUEUE}.fifo", "BatchSize": 11},
            "BatchSize must be 1 to 10 for FIFO queues, got 11",
        ),
        (
            "sqs",
            {"EventSourceArn": f"{QUEUE}.fifo", "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        (
            "sqs",
            {"StartingPosition": "LATEST", "BisectBatchOnFunctionError": True},
            "Not supported for event sources of sqs: BisectBatchOnFunctionError, StartingPosition",
        ),
        (
            "kinesis",
            {"ScalingConfig": {"MaximumConcurrency": 2}},
            "Not supported for event sources of kinesis: ScalingConfig",
        ),
        (
            "dynamodb",
            {"StartingPosition": "AT_TIMESTAMP", "StartingPositionTimestamp": 1},
            f"Unsupported starting position for arn type: {TABLE_STREAM}",
        ),
        (
            "kinesis",
            {"StartingPosition": "AT_TIMESTAMP"},
            "StartingPosition AT_TIMESTAMP needs a StartingPositionTimestamp, and no other has one",
        ),
        (
            "kinesis",
            {"MaximumRecordAgeInSeconds": 59},
            "MaximumRecordAgeInSeconds must be -1, or 60 to 604800, got 59",
        ),
        (
            "sqs",
            {"FilterCriteria": {"Filters": [{"Pattern": "[1]"}]}},
            "Invalid filter pattern definition.",
        ),
        (
            "sqs",
            {"FilterCriteria": {"Filters": [{"Pattern": "{"}]}},
            "Invalid filter pattern definition.",
        ),
        (
            "sqs",
            {"FilterCriteria": {"Filters": [{"Pattern": "{}"}] * 6}},
            "FilterCriteria can have up to 5 filters, got 6",
        ),
        (
            "kinesis",
            {"DestinationConfig": {"OnFailure": {"Destination": f"{LAMBDA}:function:f"}}},
            f"The destination ARN {LAMBDA}:function:f is invalid: it must be of sqs, sns, s3",
        ),
        (
            "kinesis",
            {"DestinationConfig": {"OnFailure": {"Destination": "kafka://failed"}}},
            "The destination ARN kafka://failed is invalid: it must be of sqs, sns, s3",
        ),
        (
            "kinesis",
            {"DestinationConfig": {"OnSuccess": {"Destination": QUEUE}}},
            "An event source mapping has no destination for successes: give OnFailure only",
        ),
        (
            "sqs",
            {"Tags": {"aws:x": ""}},
            "aws: prefixed tag key names are not allowed for external use.",
        ),
    ],
)
def test_what_a_source_cannot_have_is_refused(
    client: BaseClient,
    make_function: Callable[..., str],
    sort: str,
    parameters: dict[str, Any],
    message: str,
) -> None:
    """The message says what and why, and nothing is kept."""
    request = {"FunctionName": make_function(), **SORTS[sort], **parameters}
    request = {key: value for key, value in request.items() if value is not None}

    assert (400, INVALID, message) == refused(client.create_event_source_mapping, **request)
    assert [] == listed(client)


def test_a_function_is_fed_once_by_a_source(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """A second mapping is a conflict that names the first; other topics are another source."""
    name = make_function()
    queue = create(client, name)["UUID"]
    stream = create(client, name, "kinesis")["UUID"]
    create(client, name, "kafka")
    create(client, name, "kafka", Topics=["t2"])
    create(client, name, "own kafka")

    update = "Please update or delete the existing mapping with UUID"
    message = f'An event source mapping with SQS arn (" {QUEUE} ") and function (" {name} ") '
    assert (409, CONFLICT, f"{message}already exists. {update} {queue}") == refused(
        client.create_event_source_mapping, FunctionName=name, **SORTS["sqs"]
    )
    message = f'The event source arn (" {STREAM} ") and function (" {name} ") provided mapping '
    assert (409, CONFLICT, f"{message}already exists. {update} {stream}") == refused(
        client.create_event_source_mapping, FunctionName=name, **SORTS["kinesis"]
    )
    assert (
        409
        == refused(client.create_event_source_mapping, FunctionName=name, **SORTS["own kafka"])[0]
    )
    assert 5 == len(listed(client))


def test_a_mapping_is_changed_in_part(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """What is not said stays; the answer says that it is being changed, later ones the result."""
    name, other = make_function(), make_function()
    window = {"MaximumBatchingWindowInSeconds": 9}
    number = create(client, name, BatchSize=50, **window, Tags={"a": "b"})["UUID"]

    def update(**parameters: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = client.update_event_source_mapping(UUID=number, **parameters)
        return told(answer), told(client.get_event_source_mapping(UUID=number))

    answer, after = update(BatchSize=60)
    assert ("Updating", "Enabled") == (answer["State"], after["State"])
    assert (60, 9) == (after["BatchSize"], after["MaximumBatchingWindowInSeconds"])
    assert {**answer, "State": "Enabled"} == after
    answer, after = update(Enabled=False)
    assert ("Disabling", "Disabled", 60) == (answer["State"], after["State"], after["BatchSize"])
    answer, after = update(FunctionName=other)
    assert ("Updating", "Disabled") == (answer["State"], after["State"])
    assert f"{LAMBDA}:function:{other}" == after["FunctionArn"]
    answer, after = update(Enabled=True)
    assert ("Enabling", "Enabled") == (answer["State"], after["State"])
    tags = client.list_tags(Resource=after["EventSourceMappingArn"])["Tags"]
    assert {"a": "b"} == tags


def test_what_is_empty_is_taken_away(client: BaseClient, make_function: Callable[..., str]) -> None:
    """No filters, no maximum concurrency: as if the request had none."""
    filters = {"Filters": [{"Pattern": "{}"}]}
    number = create(
        client,
        make_function(),
        FilterCriteria=filters,
        ScalingConfig={"MaximumConcurrency": 2},
    )["UUID"]
    answer = client.update_event_source_mapping(
        UUID=number, FilterCriteria={"Filters": []}, ScalingConfig={}
    )

    assert not {"FilterCriteria", "ScalingConfig"} & answer.keys()
    again = client.update_event_source_mapping(UUID=number, FilterCriteria=filters)
    assert filters == again["FilterCriteria"]


def test_a_change_is_checked_like_a_new_one(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """What the result could not have been created as is refused, and nothing changes."""
    name, other = make_function(), make_function()
    number = create(client, name)["UUID"]
    create(client, other)
    before = told(client.get_event_source_mapping(UUID=number))
    change = client.update_event_source_mapping

    assert 400 == refused(change, UUID=number, BatchSize=11)[0]
    strange = "Not supported for event sources of sqs: ParallelizationFactor"
    assert (400, INVALID, strange) == refused(change, UUID=number, ParallelizationFactor=2)
    assert 409 == refused(change, UUID=number, FunctionName=other)[0]
    missing = "Function does not exist"
    assert (400, INVALID, missing) == refused(change, UUID=number, FunctionName="nowhere")
    assert before == told(client.get_event_source_mapping(UUID=number))


def test_a_deleted_mapping_is_gone(client: BaseClient, make_function: Callable[..., str]) -> None:
    """The answer is the mapping once more, Deleting; then there is none to read or change."""
    created = create(client, make_function())
    deleted = told(client.delete_event_source_mapping(UUID=created["UUID"]))

    assert {**created, "State": "Deleting"} == deleted
    for operation in (
        client.get_event_source_mapping,
        client.update_event_source_mapping,
        client.delete_event_source_mapping,
    ):
        assert (404, MISSING, NOTHING) == refused(operation, UUID=created["UUID"])


def test_lists_are_of_a_source_or_a_function(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """By a bare name all versions of a function are meant, by a qualified one that one."""
    name, other = make_function(Publish=True), make_function()
    numbers = {
        "bare": create(client, name)["UUID"],
        "version": create(client, f"{name}:1")["UUID"],
        "stream": create(client, name, "kinesis")["UUID"],
        "other": create(client, other)["UUID"],
    }

    def mappings(**parameters: Any) -> set[str]:
        shown = {mapping["UUID"] for mapping in listed(client, **parameters)}
        return {what for what, number in numbers.items() if number in shown}

    assert set(numbers) == mappings()
    assert {"bare", "version", "other"} == mappings(EventSourceArn=QUEUE)
    assert {"bare", "version", "stream"} == mappings(FunctionName=name)
    assert {"version"} == mappings(FunctionName=f"{name}:1")
    assert {"bare", "version"} == mappings(FunctionName=name, EventSourceArn=QUEUE)
    assert set() == mappings(FunctionName="nowhere")
    pages = client.get_paginator("list_event_source_mappings").paginate(
        PaginationConfig={"PageSize": 3}
    )
    assert [3, 1] == [len(each["EventSourceMappings"]) for each in pages]
    assert {"Enabled"} == {mapping["State"] for mapping in listed(client)}


def test_mappings_outlive_the_server(tmp_path: Path) -> None:
    """They are in the state directory, with their tags."""
    with serving("--state", str(tmp_path)) as server:
        client = server.client()
        client.create_function(
            FunctionName="f",
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": archive(app=ECHO)},
        )
        created = create(client, "f", Tags={"a": "b"})
        client.close()
    with serving("--state", str(tmp_path)) as server:
        client = server.client()
        mapping = told(client.get_event_source_mapping(UUID=created["UUID"]))
        tags = client.list_tags(Resource=created["EventSourceMappingArn"])["Tags"]
        client.close()

    assert {**created, "State": "Enabled"} == mapping
    assert {"a": "b"} == tags
