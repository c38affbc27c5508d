"""What a mapping of each sort of source takes and needs: `sources`."""

from __future__ import annotations

import re
from typing import Any

import pytest

from miniλ.errors import InvalidParameterValue
from miniλ.gateway import sources

PLACE = "us-east-1:000000000000"
OWN = {"Endpoints": {"KAFKA_BOOTSTRAP_SERVERS": ["host:9092"]}}
# A mapping of each sort, with what it needs.
MAPPINGS: dict[str, dict[str, Any]] = {
    "sqs": {"EventSourceArn": f"arn:aws:sqs:{PLACE}:jobs"},
    "kinesis": {
        "EventSourceArn": f"arn:aws:kinesis:{PLACE}:stream/s",
        "StartingPosition": "LATEST",
    },
    "dynamodb": {
        "EventSourceArn": f"arn:aws:dynamodb:{PLACE}:table/t/stream/2020",
        "StartingPosition": "LATEST",
    },
    "kafka": {
        "EventSourceArn": f"arn:aws:kafka:{PLACE}:cluster/c/1",
        "StartingPosition": "LATEST",
        "Topics": ["t"],
    },
    "": {"SelfManagedEventSource": OWN, "StartingPosition": "LATEST", "Topics": ["t"]},
    "mq": {
        "EventSourceArn": f"arn:aws:mq:{PLACE}:broker:b",
        "Queues": ["q"],
        "SourceAccessConfigurations": [{"Type": "BASIC_AUTH"}],
    },
}


def check(sort: str, **members: Any) -> None:
    """Check a mapping of a sort with these members set by the client."""
    sources.check(sort, members, {**sources.SOURCES[sort].defaults, **MAPPINGS[sort], **members})


def refusal(sort: str, **members: Any) -> str:
    """Return the message of a mapping that is refused."""
    with pytest.raises(InvalidParameterValue) as caught:
        check(sort, **members)
    return str(caught.value)


def test_there_is_a_mapping_of_each_sort_here() -> None:
    """A new sort gets tests too."""
    assert sources.SOURCES.keys() == MAPPINGS.keys()


@pytest.mark.parametrize("sort", MAPPINGS)
def test_a_sort_is_in_its_arn(sort: str) -> None:
    """Self-managed Apache Kafka has no ARN. A mapping with what it needs is allowed."""
    assert sort == sources.sort_of(MAPPINGS[sort])
    check(sort)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "Unrecognized event source."),
        (
            {"SelfManagedEventSource": OWN, **MAPPINGS["sqs"]},
            "Unrecognized event source: EventSourceArn and SelfManagedEventSource are two",
        ),
        *(
            (
                {"EventSourceArn": arn},
                f"Unrecognized event source. Unsupported source arn: {arn}",
            )
            for arn in (
                f"arn:aws:sns:{PLACE}:topic",
                f"arn:aws:dynamodb:{PLACE}:table/t",
                "arn:aws:sqs",
                "jobs",
            )
        ),
    ],
)
def test_other_sources_are_refused(mapping: dict[str, Any], message: str) -> None:
    """No source, two, one of another service, a table without its stream, and no ARN."""
    with pytest.raises(InvalidParameterValue, match=f"^{re.escape(message)}$"):
        sources.sort_of(mapping)


@pytest.mark.parametrize(
    ("sort", "name"),
    [(sort, name) for sort in MAPPINGS for name in sources.SOURCES[sort].needs],
)
def test_what_a_source_needs_is_there(sort: str, name: str) -> None:
    """An empty list is none; AWS's message ends with a full stop."""
    where = name[0].lower() + name[1:]

    assert (
        f"1 validation error detected: Value null at '{where}' failed to satisfy constraint: "
        "Member must not be null."
    ) == refusal(sort, **{name: None})


def test_members_of_other_sources_are_refused_by_name() -> None:
    """All of them, in alphabetical order."""
    assert "Not supported for event sources of sqs: Queues, Topics" == refusal(
        "sqs", Topics=["t"], Queues=["q"]
    )
    assert "Not supported for event sources of self-managed Kafka: Queues" == refusal(
        "", Queues=["q"]
    )


def test_a_batch_of_sqs_above_ten_needs_a_window() -> None:
    """A FIFO queue has no window, and at most ten."""
    fifo = f"arn:aws:sqs:{PLACE}:jobs.fifo"
    mapping = {**sources.SOURCES["sqs"].defaults, "EventSourceArn": fifo}

    check("sqs", BatchSize=11, MaximumBatchingWindowInSeconds=1)
    assert "greater than 0 if maximum batch size is greater than 10" in refusal("sqs", BatchSize=11)
    for members, message in (
        ({"MaximumBatchingWindowInSeconds": 1}, "Batching window is not supported for FIFO queues"),
        ({"BatchSize": 11}, "BatchSize must be 1 to 10 for FIFO queues, got 11"),
    ):
        with pytest.raises(InvalidParameterValue, match=message):
            sources.check("sqs", members, {**mapping, **members})


def test_a_timestamp_is_of_its_position() -> None:
    """AT_TIMESTAMP has one, the others have none, and tables cannot be read from one."""
    at, moment = {"StartingPosition": "AT_TIMESTAMP"}, {"StartingPositionTimestamp": 1.0}

    check("kinesis", **at, **moment)
    assert "needs a StartingPositionTimestamp" in refusal("kinesis", **at)
    assert "no other has one" in refusal("kinesis", **moment)
    assert "Unsupported starting position for arn type: arn:aws:dynamodb" in refusal(
        "dynamodb", **at, **moment
    )


@pytest.mark.parametrize("age", [0, 59])
def test_records_live_for_a_minute_or_for_ever(age: int) -> None:
    """-1 and 60 are allowed."""
    check("kinesis", MaximumRecordAgeInSeconds=-1)
    check("kinesis", MaximumRecordAgeInSeconds=60)

    assert f"MaximumRecordAgeInSeconds must be -1, or 60 to 604800, got {age}" == refusal(
        "kinesis", MaximumRecordAgeInSeconds=age
    )


@pytest.mark.parametrize("pattern", ["", "no JSON", "[]", "[" * 10_000, None])
def test_a_filter_is_a_json_object(pattern: str | None) -> None:
    """Nesting that the decoder refuses is no filter either, nor is a filter without a pattern."""
    each = {} if pattern is None else {"Pattern": pattern}
    check("sqs", FilterCriteria={"Filters": [{"Pattern": '{"body": [1]}'}]})

    assert "Invalid filter pattern definition." == refusal(
        "sqs", FilterCriteria={"Filters": [each]}
    )


def test_there_are_at_most_five_filters() -> None:
    """Lambda's quota; five are allowed."""
    filters = [{"Pattern": "{}"}] * sources.MAX_FILTERS

    check("sqs", FilterCriteria={"Filters": filters})
    assert "FilterCriteria can have up to 5 filters, got 6" == refusal(
        "sqs", FilterCriteria={"Filters": [*filters, filters[0]]}
    )
