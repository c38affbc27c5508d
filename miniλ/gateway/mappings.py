"""This module is the operations on event source mappings: which queue or stream feeds a function.

They are checked and kept, and nothing is read from any source yet: a mapping is Enabled because
somebody enabled it, and has processed no records, as it says.

Rule: a MAPPING document is what clients see, with the state that lasts, and with its tags beside.
The states in between (Creating, Updating, Deleting) are over with the answer that tells them.

Source: Lambda API reference, "CreateEventSourceMapping", and messages as the service has them.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

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

# A page of a list has up to so many.
PAGE = 100
# What may be told of records that are given up, as an ARN names it; Kafka may tell Kafka.
FAILURES = ("sqs", "sns", "s3")
# What of the parameters is not a member of a mapping by its own name.
_APART = frozenset({"UUID", "FunctionName", "EventSourceArn", "Enabled", "Tags"})
# A mapping is another one if one of these is.
_IDENTITY = ("EventSourceArn", "SelfManagedEventSource", "Topics", "Queues")


async def create_event_source_mapping(call: Call) -> dict[str, Any]:
    """Let a source feed a function; answered as Creating."""
    params = call.params
    sort = sources.sort_of(params)
    source = SOURCES[sort]
    number = str(uuid.uuid4())
    place = f"{call.place.region}:{call.place.account}"
    mapping: Document = {
        "UUID": number,
        **source.defaults,
        **({"EventSourceArn": params["EventSourceArn"]} if sort else {}),
        **_said(params),
        "State": "Enabled" if params.get("Enabled", True) else "Disabled",
        "StateTransitionReason": source.reason,
        "EventSourceMappingArn": f"arn:aws:lambda:{place}:event-source-mapping:{number}",
        "Tags": params.get("Tags", {}),
    }
    if source.consumer:
        mapping[source.consumer] = {"ConsumerGroupId": number, **mapping.get(source.consumer, {})}
    check_tags(mapping["Tags"])
    async with call.api.functions.changing:
        mapping = await _write(call, mapping)
    return _document(mapping, "Creating")


async def get_event_source_mapping(call: Call) -> dict[str, Any]:
    """Tell a mapping."""
    mapping = _find(call)
    return _document(mapping, mapping["State"])


async def update_event_source_mapping(call: Call) -> dict[str, Any]:
    """Change what is said of a mapping, or turn it on or off."""
    async with call.api.functions.changing:
        before = _find(call)
        is_enabled = call.params.get("Enabled", before["State"] == "Enabled")
        state = "Enabled" if is_enabled else "Disabled"
        mapping = await _write(call, {**before, **_said(call.params), "State": state})
    if state == before["State"]:
        return _document(mapping, "Updating")
    return _document(mapping, "Enabling" if is_enabled else "Disabling")


async def delete_event_source_mapping(call: Call) -> dict[str, Any]:
    """Delete a mapping; the answer is the last of it."""
    async with call.api.functions.changing:
        mapping = _find(call)
        await call.api.registry.write(Change(MAPPING, mapping["UUID"], "", None))
    return _document(mapping, "Deleting")


async def list_event_source_mappings(call: Call) -> dict[str, Any]:
    """List all mappings, or those of a source, or of a function or one version of it."""
    found = _all(call)
    arn = call.params.get("EventSourceArn")
    if arn is not None:
        found = [mapping for mapping in found if mapping.get("EventSourceArn") == arn]
    if "FunctionName" in call.params:
        name, qualifier = call.function()
        # By the bare name, whatever version or alias of it.
        length = 2 if qualifier else 1
        asked = (name, qualifier)[:length]
        found = [mapping for mapping in found if _function(mapping)[:length] == asked]
    return page(
        call, found, "EventSourceMappings", lambda each: _document(each, each["State"]), most=PAGE
    )


def _said(params: Document) -> Document:
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
    name, _, qualifier = mapping["FunctionArn"].partition(":function:")[2].partition(":")
    return name, qualifier


async def _write(call: Call, mapping: Document) -> Document:
    """Check a mapping and keep it, as it is from now; under `changing`."""
    sort = sources.sort_of(mapping)
    sources.check(sort, _said(call.params), mapping)
    mapping = {**mapping, "LastModified": round(time.time(), 3)}
    if "FunctionName" in call.params:
        mapping["FunctionArn"] = _function_arn(call)
    if "DestinationConfig" in call.params:
        mapping["DestinationConfig"] = _destination(call, sort)
    for name in ("FilterCriteria", "ScalingConfig"):
        # Empty ones take away what was there.
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
    said = call.params["DestinationConfig"]
    if said.get("OnSuccess", {}).get("Destination"):
        msg = "An event source mapping has no destination for successes: give OnFailure only"
        raise InvalidParameterValue(msg)
    failures: Document = said.get("OnFailure", {})
    is_topic = failures.get("Destination", "").startswith("kafka://")
    if is_topic and SOURCES[sort].consumer:
        return {"OnFailure": failures}
    return {"OnFailure": destination(call, failures, FAILURES)}


def _check_only(call: Call, sort: str, mapping: Document) -> None:
    """Refuse to feed a function twice of the same."""
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
