"""The operations on event source mappings: which queue or stream feeds a function.

Mappings are checked and kept. A mapping is Enabled once the client has enabled it, and its
LastProcessingResult is "No records processed" (test_a_mapping_has_the_defaults_of_its_source):
polling sources is not implemented.

Rule: a MAPPING document is what clients see, with the state that lasts, plus its tags. The
states in between (Creating, Updating, Deleting) exist in one answer only.

Source: Lambda API reference, "CreateEventSourceMapping", and messages as the service has them.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from miniλ import names
from miniλ.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from miniλ.gateway import sources
from miniλ.gateway.attributes import check_tags
from miniλ.gateway.call import page
from miniλ.gateway.event_invoke import destination
from miniλ.gateway.sources import SOURCES
from miniλ.store.registry import Change
from miniλ.store.resources import MAPPING

if TYPE_CHECKING:
    from miniλ.gateway.call import Call
    from miniλ.store.resources import Document

# The most items on a page of a list.
PAGE = 100
# The services of destinations for records that are dropped, as an ARN names them. Mappings of
# Kafka may name a topic of Kafka as well.
FAILURES = ("sqs", "sns", "s3")
# Parameters that are not members of a mapping under their own name.
_APART = frozenset({"UUID", "FunctionName", "EventSourceArn", "Enabled", "Tags"})
# The members that tell mappings of one function apart.
_IDENTITY = ("EventSourceArn", "SelfManagedEventSource", "Topics", "Queues")


async def create_event_source_mapping(call: Call) -> dict[str, Any]:
    """Make a source feed a function; answered as Creating."""
    params = call.params
    sort = sources.sort_of(params)
    source = SOURCES[sort]
    number = str(uuid.uuid4())
    mapping: Document = {
        "UUID": number,
        **source.defaults,
        **({"EventSourceArn": params["EventSourceArn"]} if sort else {}),
        **_members(params),
        "State": "Enabled" if params.get("Enabled", True) else "Disabled",
        "StateTransitionReason": source.reason,
        "EventSourceMappingArn": call.place.event_source_mapping(number),
        "Tags": params.get("Tags", {}),
    }
    if source.consumer:
        mapping[source.consumer] = {"ConsumerGroupId": number, **mapping.get(source.consumer, {})}
    check_tags(mapping["Tags"])
    async with call.api.functions.changing:
        mapping = await _write(call, mapping)
    return _document(mapping, "Creating")


async def get_event_source_mapping(call: Call) -> dict[str, Any]:
    """Return a mapping."""
    mapping = _find(call)
    return _document(mapping, mapping["State"])


async def update_event_source_mapping(call: Call) -> dict[str, Any]:
    """Change members of a mapping, or enable or disable it."""
    async with call.api.functions.changing:
        before = _find(call)
        is_enabled = call.params.get("Enabled", before["State"] == "Enabled")
        state = "Enabled" if is_enabled else "Disabled"
        mapping = await _write(call, {**before, **_members(call.params), "State": state})
    if state == before["State"]:
        return _document(mapping, "Updating")
    return _document(mapping, "Enabling" if is_enabled else "Disabling")


async def delete_event_source_mapping(call: Call) -> dict[str, Any]:
    """Delete a mapping; answered with it, as Deleting."""
    async with call.api.functions.changing:
        mapping = _find(call)
        await call.api.registry.write(Change(MAPPING, mapping["UUID"], "", None))
    return _document(mapping, "Deleting")


async def list_event_source_mappings(call: Call) -> dict[str, Any]:
    """List all mappings, or those of a source, or of a function or one version of it."""
    items = _all(call)
    arn = call.params.get("EventSourceArn")
    if arn is not None:
        items = [mapping for mapping in items if mapping.get("EventSourceArn") == arn]
    if "FunctionName" in call.params:
        name, qualifier = call.function()
        # The bare name is every version and alias.
        length = 2 if qualifier else 1
        wanted = (name, qualifier)[:length]
        items = [mapping for mapping in items if _function(mapping)[:length] == wanted]
    return page(
        call, items, "EventSourceMappings", lambda each: _document(each, each["State"]), most=PAGE
    )


def _members(params: Document) -> Document:
    return {name: value for name, value in params.items() if name not in _APART}


def _all(call: Call) -> list[Document]:
    registry = call.api.registry
    return [registry.parts(MAPPING, name)[""] for name in registry.names(MAPPING)]


def _find(call: Call) -> Document:
    mapping = call.api.registry.get(MAPPING, call.params["UUID"])
    if mapping is None:
        msg = "The resource you requested does not exist."
        raise ResourceNotFound(msg)
    return mapping


def _document(mapping: Document, state: str) -> dict[str, Any]:
    return {**{name: mapping[name] for name in mapping if name != "Tags"}, "State": state}


def _function(mapping: Document) -> tuple[str, str]:
    """Return name and qualifier of the function that a mapping feeds."""
    name, _, qualifier = names.resource(mapping["FunctionArn"])[1].partition(":")
    return name, qualifier


async def _write(call: Call, mapping: Document) -> Document:
    """Check a mapping and write it; the caller holds `changing`."""
    sort = sources.sort_of(mapping)
    sources.check(sort, _members(call.params), mapping)
    mapping = {**mapping, "LastModified": round(time.time(), 3)}
    if "FunctionName" in call.params:
        mapping["FunctionArn"] = _function_arn(call)
    if "DestinationConfig" in call.params:
        mapping["DestinationConfig"] = _destination(call, sort)
    for name in ("FilterCriteria", "ScalingConfig"):
        # Empty ones remove the member.
        if name in mapping and not any(mapping[name].values()):
            del mapping[name]
    _check_only(call, sort, mapping)
    await call.api.registry.write(Change(MAPPING, mapping["UUID"], "", mapping))
    return mapping


def _function_arn(call: Call) -> str:
    name, qualifier = call.function()
    try:
        call.api.functions.get(name, qualifier)
    except ResourceNotFound as exc:
        msg = "Function does not exist"
        raise InvalidParameterValue(msg) from exc
    return call.place.function(name, qualifier)


def _destination(call: Call, sort: str) -> Document:
    requested = call.params["DestinationConfig"]
    if requested.get("OnSuccess", {}).get("Destination"):
        msg = "An event source mapping has no destination for successes: give OnFailure only"
        raise InvalidParameterValue(msg)
    failures: Document = requested.get("OnFailure", {})
    is_topic = failures.get("Destination", "").startswith("kafka://")
    if is_topic and SOURCES[sort].consumer:
        return {"OnFailure": failures}
    return {"OnFailure": destination(call, failures, FAILURES)}


def _check_only(call: Call, sort: str, mapping: Document) -> None:
    """Refuse a second mapping of the same source to the same function."""
    for other in _all(call):
        if (
            other["UUID"] == mapping["UUID"]
            or _function(other) != _function(mapping)
            or any(other.get(name) != mapping.get(name) for name in _IDENTITY)
        ):
            continue
        arn, name = mapping.get("EventSourceArn", ""), _function(mapping)[0]
        update = f"Please update or delete the existing mapping with UUID {other['UUID']}"
        if sort == "sqs":
            msg = f'An event source mapping with SQS arn (" {arn} ") and function (" {name} ") '
            raise ResourceConflict(f"{msg}already exists. {update}")
        msg = f'The event source arn (" {arn} ") and function (" {name} ") provided mapping '
        raise ResourceConflict(f"{msg}already exists. {update}")


OPERATIONS = {
    "CreateEventSourceMapping": create_event_source_mapping,
    "GetEventSourceMapping": get_event_source_mapping,
    "UpdateEventSourceMapping": update_event_source_mapping,
    "DeleteEventSourceMapping": delete_event_source_mapping,
    "ListEventSourceMappings": list_event_source_mappings,
}
