"""This module is the validation: a request in, the parameters of its operation out.

Rule 1: what has the wrong type cannot be read, and is the only error of its request
(`SerializationFailed`). What can be read and breaks constraints is told with everything else that
does (`ValidationFailed`), in the order of the model's members, in AWS's words.

Rule 2: a null in JSON is as if it were not there; a member that the model does not know is passed
over. So is a body where an operation has no use for one.

Source of the words for a wrong type: three that AWS's users report (a string for a number, a number
for a string, a structure for a value); the others are said in the same manner.
"""

from __future__ import annotations

import binascii
import functools
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from miniλ.errors import SerializationFailed, ValidationFailed
from miniλ.gateway.service_model.constraints import check, in_messages, must_be
from miniλ.gateway.service_model.inputs import INPUTS, Located
from miniλ.gateway.service_model.shapes import (
    Blob,
    Flag,
    ListOf,
    MapOf,
    Number,
    OneOf,
    Shape,
    Structure,
    Text,
    Time,
    Whole,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from miniλ.gateway.service_model.operations import Operation

# What Java, and so a message, calls a shape; a number of JSON goes by its class.
_JAVA: dict[type[Shape], str] = {
    Text: "String",
    OneOf: "String",
    Whole: "Integer",
    Number: "Double",
    Flag: "Boolean",
    Time: "Date",
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
    """Return the parameters of a request by the model's names; who is absent is absent.

    `path` is from `operations.match`. `query` and `headers` are aiohttp's multidicts or plain
    dicts. `document` is the decoded JSON of the body or, where the operation has a `blob_body`,
    the body itself; None stands for no body, or for a blob that is read elsewhere. Blobs come back
    as bytes, times as seconds since 1970. Raises `ValidationFailed` and `SerializationFailed`;
    KeyError if the operation is none of `inputs.INPUTS`.
    """
    if type(headers) is dict:  # aiohttp's compare names as they should be
        headers = {name.lower(): value for name, value in headers.items()}
    found: dict[str, Any] = {}
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
            found[name] = value
            check(shape, value, where, errors)
        elif is_required and place != "payload":
            errors.append(must_be(where))
    if errors:
        count = "1 validation error" if len(errors) == 1 else f"{len(errors)} validation errors"
        msg = f"{count} detected: {'; '.join(errors)}"
        raise ValidationFailed(msg)
    return found


class _Member(NamedTuple):
    """A member of an input, as `parameters` needs it: worked out once for each operation."""

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


# Types: what came, as what it is


def _of_text(shape: Shape, text: str) -> object:
    """Return a value of the path, the query string or a header."""
    match shape:
        case Whole():
            if not re.fullmatch(r"-?[0-9]{1,19}", text):
                raise _unlike(text, shape)
            return _whole(shape, int(text))
        case Flag():
            if text not in {"true", "false"}:
                raise _unlike(text, shape)
            return text == "true"
    return _text(shape, text)


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
        raise _unlike(document, Structure({}))
    return document


def _of_json(shape: Shape, value: object) -> object:
    """Return a value of the document; raises for the first that its member cannot have."""
    match shape:
        case ListOf(member=member) if isinstance(value, list):
            return [None if each is None else _of_json(member, each) for each in value]
        case MapOf(key=key, value=of) if isinstance(value, dict):
            return {
                _text(key, name): None if each is None else _of_json(of, each)
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
        case Text() | OneOf():
            return _text(shape, value)
        case Whole():
            return _whole(shape, value)
        case Number() | Time():
            return _number(shape, value)
        case Flag() if isinstance(value, bool):
            return value
        case Blob() if isinstance(value, str):
            return _bytes(value)
    raise _unlike(value, shape)


def _text(shape: Shape, value: object) -> str:
    if not isinstance(value, str):
        raise _unlike(value, shape)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half a character, which JSON can escape and nobody can store
            raise SerializationFailed("Invalid UTF-8 in a String") from None
    return value


def _whole(shape: Whole, value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _unlike(value, shape)
    if not -(1 << shape.bits - 1) <= value < 1 << shape.bits - 1:
        raise _unlike(value, shape)
    return value


def _number(shape: Number | Time, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _unlike(value, shape)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _unlike(value, shape)
    return number


def _bytes(value: str) -> bytes:
    try:
        return binascii.a2b_base64(value, strict_mode=True)
    except ValueError as exc:  # binascii.Error is one
        msg = f"STRING_VALUE can not be converted to an Blob: {exc}"
        raise SerializationFailed(msg) from None


def _unlike(value: object, shape: Shape) -> SerializationFailed:
    """Return the error for a value that its member cannot have, with the article that AWS uses."""
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
    is_long = isinstance(shape, Whole) and shape.bits == 64  # noqa: PLR2004 - as Java has it
    wanted = "Long" if is_long else _JAVA[type(shape)]
    return SerializationFailed(f"{kind} can not be converted to an {wanted}")
