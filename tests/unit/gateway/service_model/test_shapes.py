"""Tests of shapes and inputs: they are the service model's, and patterns mean what Java's mean."""

from __future__ import annotations

import re
import unicodedata
import warnings
from typing import Any

import pytest

from miniλ.gateway.service_model import shapes
from miniλ.gateway.service_model.constraints import compiled
from miniλ.gateway.service_model.inputs import INPUTS, Input, Located
from miniλ.gateway.service_model.operations import OPERATIONS
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
from miniλ.gateway.service_model.validate import parameters
from tests.unit.gateway.service_model.requests import EXAMPLES, MODEL, patterns, walk

# Operations of which miniλ knows the path only, since it has no such resources.
NOT_OFFERED = {
    # Durable executions
    "CheckpointDurableExecution",
    "DeleteDurableExecution",
    "GetDurableExecution",
    "GetDurableExecutionHistory",
    "GetDurableExecutionState",
    "ListDurableExecutionsByFunction",
    "PauseDurableExecution",
    "ResumeDurableExecution",
    "SendDurableExecutionCallbackFailure",
    "SendDurableExecutionCallbackHeartbeat",
    "SendDurableExecutionCallbackSuccess",
    "StopDurableExecution",
    # Capacity providers
    "CreateCapacityProvider",
    "DeleteCapacityProvider",
    "GetCapacityProvider",
    "GetFunctionScalingConfig",
    "ListCapacityProviders",
    "ListFunctionVersionsByCapacityProvider",
    "PutFunctionScalingConfig",
    "UpdateCapacityProvider",
    # Code signing, without the operation that answers that there is none
    "CreateCodeSigningConfig",
    "DeleteCodeSigningConfig",
    "DeleteFunctionCodeSigningConfig",
    "GetCodeSigningConfig",
    "ListCodeSigningConfigs",
    "ListFunctionsByCodeSigningConfig",
    "PutFunctionCodeSigningConfig",
    "UpdateCodeSigningConfig",
    # Resource policies
    "DeleteResourcePolicy",
    "GetResourcePolicy",
    "PutResourcePolicy",
}

# The documented quotas; the model's ranges are ahead of them.
QUOTAS = {
    "MemorySize": (128, 10240),
    "Timeout": (1, 900),
    "EphemeralStorageSize": (512, 10240),
}


# The shapes are the model's


def ours(shape: Shape, required: bool = False) -> Any:  # noqa: FBT001, FBT002 - of a member
    """Return a shape of ours as plain data, in the form of `theirs`."""
    bounds: dict[str, Any] = {"required": required}
    for name in ("minimum", "maximum", "pattern"):
        if getattr(shape, name, None) is not None:
            bounds[name] = getattr(shape, name)
    match shape:
        case String():
            return {"type": "string", **bounds}
        case OneOf(values=values):
            return {"type": "string", "enum": list(values), **bounds}
        case Integer(bits=bits):
            return {"type": "integer" if bits == 32 else "long", **bounds}
        case Double():
            return {"type": "double", **bounds}
        case Boolean():
            return {"type": "boolean", **bounds}
        case Timestamp():
            return {"type": "timestamp", **bounds}
        case Blob():
            return {"type": "blob", **bounds}
        case ListOf(member=member):
            return {"type": "list", "member": ours(member), **bounds}
        case MapOf(key=key, value=value, secret=secret):
            inner = {"key": ours(key), "value": ours(value), "secret": secret}
            return {"type": "map", **inner, **bounds}
        case Structure(members=members, required=names):
            inner = {name: ours(each, name in names) for name, each in members.items()}
            return {"type": "structure", "members": inner, **bounds}
    raise AssertionError(shape)


def theirs(name: str, required: bool = False) -> Any:  # noqa: FBT001, FBT002 - of a member
    """Return a shape of the model as plain data, with the documented quotas."""
    shape = MODEL["shapes"][name]
    low, high = QUOTAS.get(name, (shape.get("min"), shape.get("max")))
    bounds = {"minimum": low, "maximum": high, "pattern": shape.get("pattern")}
    bounds["enum"] = shape.get("enum")
    plain: dict[str, Any] = {"type": shape["type"], "required": required}
    plain |= {key: value for key, value in bounds.items() if value is not None}
    if shape["type"] == "list":
        plain["member"] = theirs(shape["member"]["shape"])
    elif shape["type"] == "map":
        plain["key"] = theirs(shape["key"]["shape"])
        plain["value"] = theirs(shape["value"]["shape"])
        plain["secret"] = shape.get("sensitive", False)
    elif shape["type"] == "structure":
        plain["members"] = {
            member: theirs(each["shape"], member in shape.get("required", []))
            for member, each in shape["members"].items()
        }
    return plain


def our_input(input_: Input) -> list[Any]:
    """Return the members of an input, in order: name, place, name there, shape."""
    members: list[Any] = []
    for name, member in input_.members.items():
        required = name in input_.required
        if isinstance(member, Located):
            members.append((name, member.place, member.name or name, ours(member.shape, required)))
        else:
            members.append((name, "body", name, ours(member, required)))
    return members


def their_input(operation: str) -> list[Any]:
    """Return the members of the model's input, in the form of `our_input`."""
    shape = MODEL["shapes"][MODEL["operations"][operation]["input"]["shape"]]
    required = shape.get("required", [])
    members: list[Any] = []
    for name, member in shape["members"].items():
        place = "payload" if shape.get("payload") == name else member.get("location", "body")
        wire = member.get("locationName", name)
        members.append((name, place, wire, theirs(member["shape"], name in required)))
    return members


def test_all_operations_but_the_named_ones_are_offered() -> None:
    """60 operations have an input, and all others are in `NOT_OFFERED`."""
    assert OPERATIONS.keys() - NOT_OFFERED == INPUTS.keys()
    assert 60 == len(INPUTS)


@pytest.mark.parametrize("operation", INPUTS)
def test_an_input_is_as_the_model_has_it(operation: str) -> None:
    """Members, their order, places, types, bounds, patterns and values, and no others."""
    assert their_input(operation) == our_input(INPUTS[operation])


def test_the_quotas_are_narrower_than_the_model() -> None:
    """Each exception is needed still: a quota that equals the model's range must go."""
    assert QUOTAS == shapes.QUOTAS
    for name, (low, high) in QUOTAS.items():
        shape = MODEL["shapes"][name]
        assert shape["min"] == low
        assert shape["max"] > high


def test_only_blobs_and_secret_maps_are_sensitive() -> None:
    """Nothing else is sensitive in the model, so no message shows a sensitive value."""
    sensitive: set[str] = set()
    for operation in INPUTS:
        for shape in walk(MODEL["operations"][operation]["input"]["shape"]):
            if MODEL["shapes"][shape].get("sensitive"):
                sensitive.add(shape)

    expected = {"EnvironmentVariables", "EnvironmentVariableName", "EnvironmentVariableValue"}
    assert {"Blob", *expected} == sensitive


@pytest.mark.parametrize("pattern", patterns())
def test_a_pattern_compiles_without_a_warning(pattern: str) -> None:
    """Python compiles the model's patterns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled.__wrapped__(pattern)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_its_pattern(name: str) -> None:
    """The examples of the tests are valid by the model too."""
    shape = MODEL["shapes"][name]

    assert compiled(shape["pattern"]).fullmatch(EXAMPLES[name]) if "pattern" in shape else True


def test_tags_are_letters_numbers_separators_and_some_signs() -> None:
    r"""\p{L}, \p{Z} and \p{N} match the same characters as in Java, of all characters."""
    fits = compiled(shapes.TagKey.pattern or "").fullmatch
    every = [chr(point) for point in range(0x110000)]

    expected = [
        each for each in every if unicodedata.category(each)[0] in "LZN" or each in "_.:/=+-@"
    ]

    assert expected == [each for each in every if fits(each)]


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        (r".*", "a b", True),
        (r".*", "a\n", False),
        (r".*", "a\r", False),
        (r".*", "a\u2028", False),
        (r".*", "a\x85", False),
        (r"a\.b", "a.b", True),
        (r"a\.b", "axb", False),
        (r"[.]", "\r", False),
        (r"[^.]", "\r", True),
        (r"[^]]*.", "a", True),
        (r"\d{12}", "123456789012", True),
        (r"\d{12}", "١٢٣٤٥٦٧٨٩٠١٢", False),
        (r"[^\s]+", "a b", False),
        (r"[^\s]+", "a\xa0b", True),
        (r"[0-9]+", "7\n", False),
        (r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)", "7", False),
        (r"(?!^[0-9]+$)([a-zA-Z0-9-_]+)", "7a", True),
    ],
)
def test_a_pattern_means_what_it_means_in_java(pattern: str, value: str, *, fits: bool) -> None:
    """Digits and spaces are ASCII, a dot excludes line terminators, the whole value must match."""
    assert fits == (compiled(pattern).fullmatch(value) is not None)


@pytest.mark.parametrize("pattern", patterns())
@pytest.mark.parametrize("piece", ["a", "a.", "a-", "1", "arn:aws:", "arn:aws:x:"])
def test_no_pattern_takes_the_square_of_a_value(pattern: str, piece: str) -> None:
    """A value of a third of a megabyte that almost matches: quadratic backtracking would hang."""
    value = piece * (300_000 // len(piece)) + " /\n$"

    fits = compiled(pattern).fullmatch(value) is not None

    assert fits == (pattern == r"[\s\S]*")


def test_an_operation_that_is_not_offered_has_no_parameters() -> None:
    """Parameters of an operation that is not offered are a KeyError: a bug of the caller."""
    with pytest.raises(KeyError):
        parameters(OPERATIONS["StopDurableExecution"], {}, {}, {}, None)


def test_a_pattern_is_compiled_once() -> None:
    """The second request compiles nothing."""
    pattern = shapes.NamespacedFunctionName.pattern or ""

    assert compiled(pattern) is compiled(pattern)
    assert isinstance(compiled(pattern), re.Pattern)
