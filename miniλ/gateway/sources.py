"""Event sources: the members that a mapping of each sort takes, needs, and defaults to. Pure.

The sort of a source is the service in its ARN; "" is self-managed Apache Kafka, which has no ARN.
`check` takes a mapping as it would be after the change.

Source: Lambda developer guide, "Event source mapping API parameters"; of the messages, those that
are AWS's own are in its words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from miniλ.errors import InvalidParameterValue
from miniλ.gateway.service_model.constraints import detected, in_messages, must_be

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from miniλ.store.resources import Document

# Lambda quotas.
MAX_FILTERS = 5
MIN_RECORD_AGE = 60
# The most messages of one ReceiveMessage: a larger batch needs a batching window.
RECEIVED_AT_ONCE = 10


class Source(msgspec.Struct, frozen=True, eq=False):
    """A sort of source: members of a mapping by name.

    `consumer` is the member that has the consumer group, "" without one; `reason` is the
    StateTransitionReason of its mappings.
    """

    defaults: Document
    takes: frozenset[str]
    needs: tuple[str, ...] = ()
    consumer: str = ""
    reason: str = "USER_INITIATED"


_ANY = frozenset(
    {
        "BatchSize",
        "FilterCriteria",
        "KMSKeyArn",
        "MaximumBatchingWindowInSeconds",
        "MetricsConfig",
    }
)
_FROM_A_POSITION = _ANY | {
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "FunctionResponseTypes",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "StartingPosition",
    "StartingPositionTimestamp",
}
_OF_TOPICS = _FROM_A_POSITION | {
    "LoggingConfig",
    "ProvisionedPollerConfig",
    "SourceAccessConfigurations",
    "Topics",
}
_UNPROCESSED: Document = {"LastProcessingResult": "No records processed"}

_QUEUE = Source(
    defaults={"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []},
    takes=_ANY | {"FunctionResponseTypes", "ProvisionedPollerConfig", "ScalingConfig"},
)
_STREAM = Source(
    defaults={
        "BatchSize": 100,
        "MaximumBatchingWindowInSeconds": 0,
        "ParallelizationFactor": 1,
        "DestinationConfig": {"OnFailure": {}},
        "MaximumRecordAgeInSeconds": -1,
        "BisectBatchOnFunctionError": False,
        "MaximumRetryAttempts": -1,
        "TumblingWindowInSeconds": 0,
        "FunctionResponseTypes": [],
        **_UNPROCESSED,
    },
    takes=_FROM_A_POSITION | {"ParallelizationFactor", "TumblingWindowInSeconds"},
    needs=("StartingPosition",),
    reason="User action",
)
_MANAGED_KAFKA = Source(
    defaults={"BatchSize": 100, **_UNPROCESSED},
    takes=_OF_TOPICS | {"AmazonManagedKafkaEventSourceConfig"},
    needs=("StartingPosition", "Topics"),
    consumer="AmazonManagedKafkaEventSourceConfig",
)
_OWN_KAFKA = Source(
    defaults=_MANAGED_KAFKA.defaults,
    takes=_OF_TOPICS | {"SelfManagedEventSource", "SelfManagedKafkaEventSourceConfig"},
    needs=_MANAGED_KAFKA.needs,
    consumer="SelfManagedKafkaEventSourceConfig",
)
_BROKER = Source(
    defaults={"BatchSize": 100, **_UNPROCESSED},
    takes=_ANY | {"Queues", "SourceAccessConfigurations"},
    needs=("Queues", "SourceAccessConfigurations"),
)

SOURCES = {
    "sqs": _QUEUE,
    "kinesis": _STREAM,
    "dynamodb": _STREAM,
    "kafka": _MANAGED_KAFKA,
    "": _OWN_KAFKA,
    "mq": _BROKER,
}


def service(arn: str) -> str:
    """Return the service of an ARN: `sqs` of arn:aws:sqs:us-east-1:000000000000:jobs, else ""."""
    parts = arn.split(":", 3)
    return parts[2] if len(parts) > 3 and parts[0] == "arn" else ""  # noqa: PLR2004 - a name follows


def sort_of(mapping: Mapping[str, object]) -> str:
    """Return the key of `SOURCES` for a mapping, or for the parameters of one.

    Raises `InvalidParameterValue` for no source, for two, and for one of another service.
    """
    arn = mapping.get("EventSourceArn")
    own = mapping.get("SelfManagedEventSource")
    if not isinstance(arn, str):
        if not own:
            msg = "Unrecognized event source."
            raise InvalidParameterValue(msg)
        return ""
    if own:
        msg = "Unrecognized event source: EventSourceArn and SelfManagedEventSource are two"
        raise InvalidParameterValue(msg)
    sort = service(arn)
    is_table = sort == "dynamodb" and "/stream/" not in arn
    if not sort or sort not in SOURCES or is_table:
        msg = f"Unrecognized event source. Unsupported source arn: {arn}"
        raise InvalidParameterValue(msg)
    return sort


def check(sort: str, requested: Iterable[str], mapping: Document) -> None:
    """Refuse a mapping that its source cannot have; `requested` names the members of the request.

    Raises `InvalidParameterValue`.
    """
    source = SOURCES[sort]
    strange = sorted(set(requested) - source.takes)
    if strange:
        what = sort or "self-managed Kafka"
        msg = f"Not supported for event sources of {what}: {', '.join(strange)}"
        raise InvalidParameterValue(msg)
    for name in source.needs:
        if not mapping.get(name):
            raise InvalidParameterValue(f"{detected(must_be(in_messages(name)))}.")
    if sort == "sqs":
        _check_batch(mapping)
    if "StartingPosition" in mapping:
        _check_position(sort, mapping)
    age = mapping.get("MaximumRecordAgeInSeconds", -1)
    if 0 <= age < MIN_RECORD_AGE:
        msg = f"MaximumRecordAgeInSeconds must be -1, or {MIN_RECORD_AGE} to 604800, got {age}"
        raise InvalidParameterValue(msg)
    _check_filters(mapping.get("FilterCriteria", {}).get("Filters", []))


def _check_batch(mapping: Document) -> None:
    size, window = mapping["BatchSize"], mapping["MaximumBatchingWindowInSeconds"]
    if mapping["EventSourceArn"].endswith(".fifo"):
        if window:
            msg = "Batching window is not supported for FIFO queues"
            raise InvalidParameterValue(msg)
        if size > RECEIVED_AT_ONCE:
            msg = f"BatchSize must be 1 to {RECEIVED_AT_ONCE} for FIFO queues, got {size}"
            raise InvalidParameterValue(msg)
    elif size > RECEIVED_AT_ONCE and not window:
        msg = (
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is "
            f"greater than {RECEIVED_AT_ONCE}"
        )
        raise InvalidParameterValue(msg)


def _check_position(sort: str, mapping: Document) -> None:
    is_timed = mapping["StartingPosition"] == "AT_TIMESTAMP"
    if is_timed and sort == "dynamodb":
        msg = f"Unsupported starting position for arn type: {mapping['EventSourceArn']}"
        raise InvalidParameterValue(msg)
    if is_timed != ("StartingPositionTimestamp" in mapping):
        msg = (
            "StartingPosition AT_TIMESTAMP needs a StartingPositionTimestamp, and no other has one"
        )
        raise InvalidParameterValue(msg)


def _check_filters(filters: list[Document]) -> None:
    if len(filters) > MAX_FILTERS:
        msg = f"FilterCriteria can have up to {MAX_FILTERS} filters, got {len(filters)}"
        raise InvalidParameterValue(msg)
    for each in filters:
        try:
            msgspec.json.decode(each.get("Pattern", ""), type=dict[str, object])
        except (msgspec.MsgspecError, RecursionError) as exc:
            msg = "Invalid filter pattern definition."
            raise InvalidParameterValue(msg) from exc
