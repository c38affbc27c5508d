"""CloudWatch Logs for Lambda's clients, read-only: POST / in AWS JSON 1.1.

Rule: only functions write logs, by what they print (`store.logbook`). An operation that would
change something is refused with a message that says so. A group begins with the first invocation of
its function, and outlives the function.

A nextToken of events is a position between two events: "f/" for the events after it, "b/" for those
before it. At the end of a stream a reader gets the token back that it sent. Source: Amazon
CloudWatch Logs API reference; messages from recorded answers, if there is one.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from miniλ.errors import (
    AccessDenied,
    InvalidParameterValue,
    LambdaError,
    ResourceConflict,
    ResourceNotFound,
    UnknownOperation,
)
from miniλ.gateway.aws import filter_patterns
from miniλ.gateway.aws.logs_request import Request, page_size, parse, required
from miniλ.store.logbook import PREFIX, LogEvent, position

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from miniλ.store.logbook import Logbook, LogGroup, LogStream

TARGET = "Logs_20140328."
# A page of events: at most this number and size, where an event counts its message and 26 bytes, as
# in PutLogEvents; a page of groups or streams: at most this number.
PAGE_EVENTS = 10_000
PAGE_BYTES = 1024 * 1024
EVENT_OVERHEAD = 26
PAGE_DESCRIBED = 50

# Lambda's error codes that CloudWatch Logs spells differently.
_TYPES = {
    "InvalidParameterValueException": "InvalidParameterException",
    "InvalidRequestContentException": "SerializationException",
    "ResourceConflictException": "ResourceAlreadyExistsException",
    "ServiceException": "ServiceUnavailableException",
}
_CHANGES = re.compile("(Associate|Cancel|Create|Delete|Disassociate|Put|Tag|Untag|Update)[A-Z]")
_TOKEN = re.compile(r"([fb])/(\d{56})")

T = TypeVar("T")


class _Logs(msgspec.Struct, frozen=True):
    """The logs of one account: its logbook, its functions, and the ARN of its groups."""

    logbook: Logbook
    functions: Iterable[str]
    arn: str  # of a group, without the name at its end


async def answer(
    logbook: Logbook,
    functions: Iterable[str],
    target: str,
    body: bytes,
    *,
    region: str,
    account: str,
) -> tuple[int, bytes]:
    """Return status and JSON body of one request: its X-Amz-Target header and its body.

    `functions` are the names of all functions, also of those that never ran. A `LambdaError` is an
    answer: {"__type", "message"} with status 400, or 500 if it is ours.
    """
    logs = _Logs(logbook, functions, f"arn:aws:logs:{region}:{account}:log-group:")
    try:
        operation = _operation(target)
        return 200, msgspec.json.encode(await operation(logs, parse(body)))
    except LambdaError as exc:
        document = {"__type": _TYPES.get(exc.code, exc.code), "message": str(exc)}
        return 500 if exc.is_ours else 400, msgspec.json.encode(document)


def _operation(target: str) -> Callable[[_Logs, Request], Awaitable[dict[str, Any]]]:
    name = target.removeprefix(TARGET)
    operation = _OPERATIONS.get(name)
    if operation is not None and target.startswith(TARGET):
        return operation
    if target.startswith(TARGET) and _CHANGES.match(name):
        raise _read_only(name)
    msg = f"There is no operation {target!r} here. There are: {', '.join(_OPERATIONS)}."
    raise UnknownOperation(msg)


def _read_only(name: str) -> AccessDenied:
    msg = f"{name} is not possible: logs are read-only here, functions alone write them."
    return AccessDenied(msg, "InvalidOperationException")


# Groups and streams


def _group(logs: _Logs, request: Request) -> str:
    """Return the name of the group in a request; no group has the name of a foreign ARN."""
    name, identifier = request.log_group_name, request.log_group_identifier
    if name is not None and identifier is not None:
        msg = "logGroupName and logGroupIdentifier cannot both be given: leave one of them out."
        raise InvalidParameterValue(msg)
    if identifier is not None:
        return _group_of(logs, identifier)
    return required("logGroupName", name)


def _group_of(logs: _Logs, identifier: str) -> str:
    return identifier.removeprefix(logs.arn).removesuffix(":*")


async def _describe_log_groups(logs: _Logs, request: Request) -> dict[str, Any]:
    prefix, pattern = request.log_group_name_prefix, request.log_group_name_pattern
    if prefix is not None and pattern is not None:
        msg = "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters."
        raise InvalidParameterValue(msg)
    limit = page_size(request, PAGE_DESCRIBED)
    identifiers = request.log_group_identifiers
    names = None if identifiers is None else {_group_of(logs, each) for each in identifiers}
    groups = [
        group
        for group in await logs.logbook.groups()
        if group.name.startswith(prefix or "")
        and (pattern or "") in group.name
        and (names is None or group.name in names)
        and request.log_group_class in {None, "STANDARD"}
    ]
    page, token = _page(groups, request, limit, lambda group: (0, group.name))
    return {"logGroups": [_group_document(logs, group) for group in page], **token}


def _group_document(logs: _Logs, group: LogGroup) -> dict[str, Any]:
    return {
        "logGroupName": group.name,
        "creationTime": group.created,
        "metricFilterCount": 0,
        "arn": f"{logs.arn}{group.name}:*",
        "storedBytes": group.stored_bytes,
        "logGroupClass": "STANDARD",
        "logGroupArn": f"{logs.arn}{group.name}",
    }


async def _describe_log_streams(logs: _Logs, request: Request) -> dict[str, Any]:
    group = _group(logs, request)
    by_time = request.order_by == "LastEventTime"
    if by_time and request.log_stream_name_prefix is not None:
        msg = "Cannot order by LastEventTime with a logStreamNamePrefix."
        raise InvalidParameterValue(msg)
    limit = page_size(request, PAGE_DESCRIBED)
    prefix = request.log_stream_name_prefix or ""
    streams = [
        stream for stream in await logs.logbook.streams(group) if stream.name.startswith(prefix)
    ]
    page, token = _page(
        streams, request, limit, lambda stream: (stream.last if by_time else 0, stream.name)
    )
    return {"logStreams": [_stream_document(logs, group, stream) for stream in page], **token}


def _stream_document(logs: _Logs, group: str, stream: LogStream) -> dict[str, Any]:
    return {
        "logStreamName": stream.name,
        "creationTime": stream.first,
        "firstEventTimestamp": stream.first,
        "lastEventTimestamp": stream.last,
        "lastIngestionTime": stream.ingested,
        "arn": f"{logs.arn}{group}:log-stream:{stream.name}",
        "storedBytes": 0,  # deprecated, and 0 on AWS too
    }


def _page(
    items: list[T], request: Request, limit: int, key: Callable[[T], tuple[int, str]]
) -> tuple[list[T], dict[str, str]]:
    """Return a page of items and its nextToken, which is the key of the last item on the page."""
    descending = bool(request.descending)
    items = sorted(items, key=key, reverse=descending)
    if request.next_token is not None:
        number, colon, name = request.next_token.partition(":")
        if not (colon and re.fullmatch("[0-9]{1,20}", number)):
            raise _bad_token()
        last = (int(number), name)
        items = [item for item in items if (key(item) < last if descending else key(item) > last)]
    page = items[:limit]
    if len(items) == len(page):
        return page, {}
    number_of_last, name_of_last = key(page[-1])
    return page, {"nextToken": f"{number_of_last}:{name_of_last}"}


def _bad_token() -> InvalidParameterValue:
    return InvalidParameterValue("The specified nextToken is invalid.")


# Events


async def _get_log_events(logs: _Logs, request: Request) -> dict[str, Any]:
    group = _group(logs, request)
    stream = required("logStreamName", request.log_stream_name)
    limit = page_size(request, PAGE_EVENTS)
    forward, place = _start(request, forward=bool(request.start_from_head))
    events = await logs.logbook.events(
        group, streams=[stream], start=request.start_time, end=request.end_time
    )
    page, _ = _page_of_events(events, limit, place, forward=forward)
    if page:
        before, after = page[0].position, page[-1].position + 1
    else:
        before = after = position(request.start_time or 0) if place is None else place
    return {
        "events": [
            {
                "timestamp": event.timestamp,
                "message": event.message,
                "ingestionTime": event.ingestion,
            }
            for event in page
        ],
        "nextForwardToken": _token("f", after),
        "nextBackwardToken": _token("b", before),
    }


async def _filter_log_events(logs: _Logs, request: Request) -> dict[str, Any]:
    group = _group(logs, request)
    names, prefix = request.log_stream_names, request.log_stream_name_prefix
    if names is not None and prefix is not None:
        msg = "logStreamNames and logStreamNamePrefix cannot both be given: leave one of them out."
        raise InvalidParameterValue(msg)
    limit = page_size(request, PAGE_EVENTS)
    forward, place = _start(request, forward=request.start_from_head is not False)
    events = await logs.logbook.events(
        group,
        streams=names,
        prefix=prefix or "",
        start=request.start_time,
        # Unlike GetLogEvents, FilterLogEvents includes endTime.
        end=None if request.end_time is None else request.end_time + 1,
        matches=filter_patterns.parse(request.filter_pattern) if request.filter_pattern else None,
    )
    page, more = _page_of_events(events, limit, place, forward=forward)
    token = {}
    if more:
        end = _token("f", page[-1].position + 1) if forward else _token("b", page[0].position)
        token = {"nextToken": end}
    return {
        "events": [
            {
                "logStreamName": event.stream,
                "timestamp": event.timestamp,
                "message": event.message,
                "ingestionTime": event.ingestion,
                # A client that follows a log skips ids that it has seen (`aws logs tail`).
                "eventId": f"{event.position:056d}",
            }
            for event in (page if forward else reversed(page))
        ],
        "searchedLogStreams": [],  # deprecated, and empty on AWS too
        **token,
    }


def _start(request: Request, *, forward: bool) -> tuple[bool, int | None]:
    """Return whether to read forward, and the start. A token overrides the request's direction."""
    if request.next_token is None:
        return forward, None
    token = _TOKEN.fullmatch(request.next_token)
    if token is None:
        raise _bad_token()
    return token[1] == "f", int(token[2])


def _token(direction: str, place: int) -> str:
    return f"{direction}/{place:056d}"


def _page_of_events(
    events: list[LogEvent], limit: int, place: int | None, *, forward: bool
) -> tuple[list[LogEvent], bool]:
    """Return a page of events before or after a place, in order, and whether there are more."""
    if place is not None:
        index = bisect_left(events, place, key=lambda event: event.position)
        events = events[index:] if forward else events[:index]
    count = size = 0
    for event in events if forward else reversed(events):
        size += len(event.message.encode()) + EVENT_OVERHEAD
        # A page has at least one event, of any length.
        if count == limit or (count and size > PAGE_BYTES):
            break
        count += 1
    page = events[:count] if forward else events[len(events) - count :]
    return page, count < len(events)


# Tags, and operations that are refused


async def _list_tags_for_resource(logs: _Logs, request: Request) -> dict[str, Any]:
    return await _tags(logs, _group_of(logs, required("resourceArn", request.resource_arn)))


async def _list_tags_log_group(logs: _Logs, request: Request) -> dict[str, Any]:
    return await _tags(logs, _group(logs, request))


async def _tags(logs: _Logs, name: str) -> dict[str, Any]:
    if not await _has(logs, name):
        msg = "The specified log group does not exist."
        raise ResourceNotFound(msg)
    return {"tags": {}}


async def _create_log_group(logs: _Logs, request: Request) -> dict[str, Any]:
    name = _group(logs, request)
    if name in {PREFIX + function for function in logs.functions} or await _has(logs, name):
        msg = "The specified log group already exists"
        raise ResourceConflict(msg)
    raise _read_only("CreateLogGroup")


async def _has(logs: _Logs, name: str) -> bool:
    return any(group.name == name for group in await logs.logbook.groups())


_OPERATIONS: dict[str, Callable[[_Logs, Request], Awaitable[dict[str, Any]]]] = {
    "DescribeLogGroups": _describe_log_groups,
    "DescribeLogStreams": _describe_log_streams,
    "GetLogEvents": _get_log_events,
    "FilterLogEvents": _filter_log_events,
    "ListTagsForResource": _list_tags_for_resource,
    "ListTagsLogGroup": _list_tags_log_group,
    "CreateLogGroup": _create_log_group,
}
