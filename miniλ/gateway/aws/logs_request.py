"""Parameters of CloudWatch Logs, parsed and checked.

The first parameter out of bounds is an error with AWS's message for it. Source of the bounds: the
service model, API version 2014-03-28.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from miniλ.errors import InvalidParameterValue, InvalidRequestContent
from miniλ.gateway.service_model.constraints import detected, violation

_GROUP_NAME = r"[\.\-_/#A-Za-z0-9]"
_STREAM_NAME = r"[^:*]*"
# By parameter: least and greatest length, pattern.
_STRINGS = {
    "logGroupName": (1, 512, _GROUP_NAME + "+"),
    "logGroupNamePrefix": (1, 512, _GROUP_NAME + "+"),
    "logGroupNamePattern": (0, 512, _GROUP_NAME + "*"),
    "logGroupIdentifier": (1, 2048, r"[\w#+=/:,.@-]*"),
    "logStreamName": (1, 512, _STREAM_NAME),
    "logStreamNamePrefix": (1, 512, _STREAM_NAME),
    "filterPattern": (0, 1024, ".*"),
    "nextToken": (1, 2048, ".*"),
}
_MAX_NAMES = {"logGroupIdentifiers": 50, "logStreamNames": 100}
_ORDERS = ("LogStreamName", "LastEventTime")


# A long in the model: JSON has larger numbers.
Milliseconds = Annotated[int, msgspec.Meta(le=2**63 - 1)]


class Request(msgspec.Struct, frozen=True, rename="camel"):
    """The parameters of all operations together. Unknown ones are ignored."""

    log_group_name: str | None = None
    log_group_identifier: str | None = None
    log_group_name_prefix: str | None = None
    log_group_name_pattern: str | None = None
    log_group_identifiers: list[str] | None = None
    log_group_class: str | None = None
    log_stream_name: str | None = None
    log_stream_names: list[str] | None = None
    log_stream_name_prefix: str | None = None
    order_by: str | None = None
    descending: bool | None = None
    start_time: Milliseconds | None = None
    end_time: Milliseconds | None = None
    start_from_head: bool | None = None
    filter_pattern: str | None = None
    limit: int | None = None
    next_token: str | None = None
    resource_arn: str | None = None


_decode = msgspec.json.Decoder(Request).decode


def parse(body: bytes) -> Request:
    """Return the parameters in a body; an empty body has none.

    Raises `InvalidRequestContent` for a body that is not JSON and for a value of the wrong type,
    and `InvalidParameterValue` for a value out of bounds.
    """
    try:
        request = _decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequestContent(str(exc)) from exc
    for field in msgspec.structs.fields(Request):
        value = getattr(request, field.name)
        if value is not None:
            _check(field.encode_name, value)
    return request


def _check(name: str, value: object) -> None:
    if isinstance(value, str) and name in _STRINGS:
        least, most, pattern = _STRINGS[name]
        if len(value) < least:
            raise refused(name, value, f"have length greater than or equal to {least}")
        if len(value) > most:
            raise refused(name, value, f"have length less than or equal to {most}")
        if not re.fullmatch(pattern, value, re.DOTALL):
            raise refused(name, value, f"satisfy regular expression pattern: {pattern}")
    elif isinstance(value, list):
        most = _MAX_NAMES[name]
        if not 1 <= len(value) <= most:
            raise refused(name, value, f"have length between 1 and {most}")
    elif name in {"startTime", "endTime"} and isinstance(value, int) and value < 0:
        raise refused(name, value, "have value greater than or equal to 0")
    elif name == "orderBy" and value not in _ORDERS:
        raise refused(name, value, f"satisfy enum value set: [{', '.join(_ORDERS)}]")


def refused(name: str, value: object, must: str) -> InvalidParameterValue:
    """Return the error for a parameter whose value breaks a rule: Member must `must`."""
    shown = "null" if value is None else f"'{value}'"
    return InvalidParameterValue(detected(violation(shown, name, f"Member must {must}")))


def required(name: str, value: str | None) -> str:
    """Return the value of a required parameter; raises `InvalidParameterValue` without one."""
    if value is None:
        raise refused(name, None, "not be null")
    return value


def page_size(request: Request, most: int) -> int:
    """Return the size of a page: the request's limit, or `most`, the maximum of the operation."""
    value = most if request.limit is None else request.limit
    if value < 1:
        raise refused("limit", value, "have value greater than or equal to 1")
    if value > most:
        raise refused("limit", value, f"have value less than or equal to {most}")
    return value
