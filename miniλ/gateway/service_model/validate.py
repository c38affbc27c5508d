"""Validation: a request in, the parameters of its operation out.

Rule 1: a value of the wrong type cannot be read, and is the only error of its request
(`SerializationFailed`). Values that break constraints are all in one error (`ValidationFailed`), in
the order of the model's members, with AWS's messages.

Rule 2: a null in JSON is like an absent member; a member that is not in the model is ignored, and
so is the body of an operation that takes none.

Source of the messages for a wrong type: three that AWS's users report (a string for a number, a
number for a string, a structure for a value); the others follow their form.
"""

from __future__ import annotations

import binascii
import functools
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from miniλ.errors import SerializationFailed, ValidationFailed
from miniλ.gateway.service_model.constraints import check, detected, in_messages, must_be
from miniλ.gateway.service_model.inputs import INPUTS, Located
from miniλ.gateway.service_model.shapes import (
    Blob,
    Boolean,
    Double,
    Integer,
    ListOf,
    MapOf,
    OneOf,
    Shape,
    String,
    Structure,
    Timestamp,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from miniλ.gateway.service_model.operations import Operation

# The name of a shape in Java, and so in a message; a number of JSON is shown by its Java class.
_JAVA: dict[type[Shape], str] = {
    String: "String",
    OneOf: "String",
    Integer: "Integer",
    Double: "Double",
    Boolean: "Boolean",
    Timestamp: "Date",
    Blob: "Blob",
    ListOf: "List",
    MapOf: "Map",
    Structure: "Structure",
}
_NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"


def parameters(
    operation: Operation,
    path: Mapping[str, str],
    query: Mapping[str, str],
    headers: Mapping[str, str],
    document: object,
) -> dict[str, Any]:
    """Return the parameters of a request by the model's names; absent ones are left out.

    `path` is from `operations.match`. `query` and `headers` are aiohttp's multidicts or plain
    dicts. `document` is the decoded JSON of the body or, for an operation with a `blob_body`, the
    body itself; None stands for no body, or for a blob that is read elsewhere. Blobs are returned
    as bytes, timestamps as seconds since 1970. Raises `ValidationFailed` and `SerializationFailed`;
    KeyError for an operation that is not in `inputs.INPUTS`.
    """
    if type(headers) is dict:  # names in a multidict of aiohttp have no case
        headers = {name.lower(): value for name, value in headers.items()}
    params: dict[str, Any] = {}
    errors: list[str] = []
    body: Mapping[str, object] | None = None
    for name, where, place, wire, shape, is_required in _members(operation.name):
        if place == "uri":
            text = path.get(wire)
            value = None if text is None else _of_text(shape, text)
        elif place == "header":
            text = headers.get(wire)
            value = None if text is None else _of_text(shape, text)
        elif place == "querystring":
            value = _of_query(shape, wire, query)
        elif place == "payload":
            value = document or None
        else:
            if body is None:
                body = _object(document)
            value = body.get(wire)
            if value is not None:
                value = _of_json(shape, value)
        if value is not None:
            params[name] = value
            check(shape, value, where, errors)
        elif is_required and place != "payload":
            errors.append(must_be(where))
    if errors:
        raise ValidationFailed(detected(*errors))
    return params


class _Member(NamedTuple):
    """A member of an input, in the form that `parameters` needs: computed once per operation."""

    name: str
    where: str
    place: str
    wire: str
    shape: Shape
    is_required: bool


@functools.cache
def _members(operation: str) -> tuple[_Member, ...]:
    return tuple(
        _Member(
            name,
            in_messages(name),
            member.place if isinstance(member, Located) else "body",
            _wire(name, member),
            member.shape if isinstance(member, Located) else member,
            name in INPUTS[operation].required,
        )
        for name, member in INPUTS[operation].members.items()
    )


def _wire(name: str, member: Shape | Located) -> str:
    if not isinstance(member, Located):
        return name
    return member.name.lower() if member.place == "header" else member.name or name


# From JSON and text to a value of the shape's type


def _of_text(shape: Shape, text: str) -> object:
    """Return a value of the path, the query string or a header."""
    match shape:
        case Integer():
            if not re.fullmatch(r"-?[0-9]{1,19}", text):
                raise _wrong_type(text, shape)
            return _integer(shape, int(text))
        case Boolean():
            if text not in {"true", "false"}:
                raise _wrong_type(text, shape)
            return text == "true"
    return _string(shape, text)


def _of_query(shape: Shape, wire: str, query: Mapping[str, str]) -> object:
    text = query.get(wire)
    if text is None:
        return None
    if not isinstance(shape, ListOf):
        return _of_text(shape, text)
    getall = getattr(query, "getall", None)
    texts = [text] if getall is None else getall(wire)
    return [_of_text(shape.member, each) for each in texts]


def _object(document: object) -> Mapping[str, object]:
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise _wrong_type(document, Structure({}))
    return document


def _of_json(shape: Shape, value: object) -> object:
    """Return a value of the document; raises for the first one of the wrong type."""
    match shape:
        case ListOf(member=member) if isinstance(value, list):
            return [None if each is None else _of_json(member, each) for each in value]
        case MapOf(key=key, value=of) if isinstance(value, dict):
            return {
                _string(key, name): None if each is None else _of_json(of, each)
                for name, each in value.items()
            }
        case Structure(members=members) if isinstance(value, dict):
            return {
                name: _of_json(member, value[name])
                for name, member in members.items()
                if value.get(name) is not None
            }
    return _scalar(shape, value)


def _scalar(shape: Shape, value: object) -> object:
    match shape:
        case String() | OneOf():
            return _string(shape, value)
        case Integer():
            return _integer(shape, value)
        case Double() | Timestamp():
            return _float(shape, value)
        case Boolean() if isinstance(value, bool):
            return value
        case Blob() if isinstance(value, str):
            return _bytes(value)
    raise _wrong_type(value, shape)


def _string(shape: Shape, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong_type(value, shape)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # a surrogate: JSON can escape it, UTF-8 cannot encode it
            raise SerializationFailed("Invalid UTF-8 in a String") from None
    return value


def _integer(shape: Integer, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(value, shape)
    if not -(1 << shape.bits - 1) <= value < 1 << shape.bits - 1:
        raise _wrong_type(value, shape)
    return value


def _float(shape: Double | Timestamp, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(value, shape)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _wrong_type(value, shape)
    return number


def _bytes(value: str) -> bytes:
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as exc:  # binascii.Error is one
        msg = f"STRING_VALUE can not be converted to an Blob: {exc}"
        raise SerializationFailed(msg) from None


def _wrong_type(value: object, shape: Shape) -> SerializationFailed:
    """Return the error for a value of the wrong type; "an" before any name is AWS's."""
    match value:
        case dict():
            return SerializationFailed("Start of structure or map found where not expected.")
        case list():
            return SerializationFailed("Start of list found where not expected.")
        case bool():
            kind = "TRUE_VALUE" if value else "FALSE_VALUE"
        case str():
            kind = "STRING_VALUE"
        case _:
            kind = _NUMBER
    is_long = isinstance(shape, Integer) and shape.bits == 64  # noqa: PLR2004 - as Java has it
    wanted = "Long" if is_long else _JAVA[type(shape)]
    return SerializationFailed(f"{kind} can not be converted to an {wanted}")
