"""Tests of constraints: the message for a value that breaks one is AWS's, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from miniλ.errors import ValidationFailed
from miniλ.gateway.service_model import shapes
from miniλ.gateway.service_model.operations import OPERATIONS
from miniλ.gateway.service_model.validate import parameters
from tests.unit.gateway.service_model.requests import (
    EXAMPLES,
    LAYER_ARN,
    MODEL,
    ROLE,
    create,
    function,
    refused,
)

# Messages, byte for byte


def test_a_pattern_is_shown_as_the_model_has_it() -> None:
    """The message for an invalid name, with AWS's own pattern."""
    pattern = MODEL["shapes"]["FunctionName"]["pattern"]

    expected = (
        "Value 'x!' at 'functionName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern}"
    )

    assert expected == refused(function(FunctionName="x!"))
    assert r"(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?" in expected


def test_a_required_member_is_not_null() -> None:
    """An absent value and null have the same message."""
    expected = "Value null at 'role' failed to satisfy constraint: Member must not be null"

    assert expected == refused(function(Role=None))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"FunctionName": "x" * 141},
            (
                f"Value '{'x' * 141}' at 'functionName' failed to satisfy constraint: "
                "Member must have length less than or equal to 140"
            ),
        ),
        (
            {"RuntimeConfig": {"RuntimeArn": EXAMPLES["FunctionRuntimeArn"], "RuntimeAlias": ""}},
            (
                "Value '' at 'runtimeConfig.runtimeAlias' failed to satisfy constraint: "
                "Member must have length greater than or equal to 1"
            ),
        ),
        (
            {"MemorySize": 64},
            (
                "Value '64' at 'memorySize' failed to satisfy constraint: "
                "Member must have value greater than or equal to 128"
            ),
        ),
        (
            {"Timeout": 901},
            (
                "Value '901' at 'timeout' failed to satisfy constraint: "
                "Member must have value less than or equal to 900"
            ),
        ),
        (
            {"EphemeralStorage": {"Size": 1}},
            (
                "Value '1' at 'ephemeralStorage.size' failed to satisfy constraint: "
                "Member must have value greater than or equal to 512"
            ),
        ),
        (
            {"EphemeralStorage": {}},
            (
                "Value null at 'ephemeralStorage.size' failed to satisfy constraint: "
                "Member must not be null"
            ),
        ),
        (
            {"PackageType": "Tar"},
            (
                "Value 'Tar' at 'packageType' failed to satisfy constraint: Member must satisfy "
                "enum value set: [Zip, Image]"
            ),
        ),
        (
            {"KMSKeyArn": "key"},
            (
                "Value 'key' at 'kMSKeyArn' failed to satisfy constraint: Member must satisfy "
                r"regular expression pattern: (arn:(aws[a-zA-Z-]*)?:[a-z0-9-.]+:.*)|()"
            ),
        ),
        (
            {"Architectures": ["x86_64", "arm64"]},
            (
                "Value '[x86_64, arm64]' at 'architectures' failed to satisfy constraint: "
                "Member must have length less than or equal to 1"
            ),
        ),
        (
            {"Architectures": ["mips"]},
            (
                "Value '[mips]' at 'architectures' failed to satisfy constraint: Member must "
                "satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], "
                "Member must not be null]"
            ),
        ),
        (
            {"Architectures": [None]},
            (
                "Value '[null]' at 'architectures' failed to satisfy constraint: Member must "
                "satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], "
                "Member must not be null]"
            ),
        ),
        (
            {"Layers": [LAYER_ARN + ":1", "tools"]},
            (
                f"Value '[{LAYER_ARN}:1, tools]' at 'layers' failed to satisfy constraint: Member "
                "must satisfy constraint: [Member must have length less than or equal to 2048, "
                "Member must have length greater than or equal to 1, Member must satisfy regular "
                f"expression pattern: {MODEL['shapes']['LayerVersionArn']['pattern']}, "
                "Member must not be null]"
            ),
        ),
        (
            {"Environment": {"Variables": {"MY-KEY": "secret"}}},
            (
                "Value at 'environment.variables' failed to satisfy constraint: Map keys must "
                "satisfy constraint: [Member must satisfy regular expression pattern: "
                "[a-zA-Z]([a-zA-Z0-9_])+, Member must not be null]"
            ),
        ),
        (
            {"Tags": {"stage": "x" * 257}},
            (
                f"Value '{{stage={'x' * 257}}}' at 'tags' failed to satisfy constraint: Map value "
                "must satisfy constraint: [Member must have length less than or equal to 256, "
                "Member must have length greater than or equal to 0, Member must satisfy regular "
                r"expression pattern: ([\p{L}\p{Z}\p{N}_.:/=+\-@]*), Member must not be null]"
            ),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_message_is_in_the_words_of_aws(changes: dict[str, Any], expected: str) -> None:
    """Value, path and constraint, for each kind of constraint."""
    assert expected == refused(function(**changes))


def test_the_runtime_of_a_function_is_left_to_its_operation() -> None:
    """Lambda has its own message for an unknown runtime, from the operation; not for a layer's."""
    layer = {"LayerName": "layer", "Content": {}, "CompatibleRuntimes": ["python9"]}
    params = parameters(OPERATIONS["CreateFunction"], {}, {}, {}, function(Runtime="python9"))

    assert "python9" == params["Runtime"]
    with pytest.raises(ValidationFailed, match="Member must satisfy enum value set"):
        parameters(OPERATIONS["PublishLayerVersion"], {"LayerName": "layer"}, {}, {}, layer)


def test_all_errors_of_a_request_are_in_one_message() -> None:
    """In the order of the model's members, for any order in the document."""
    with pytest.raises(ValidationFailed) as caught:
        create({"MemorySize": 64, "Timeout": 0, "FunctionName": "x", "Role": ROLE})

    expected = (
        "3 validation errors detected: "
        "Value null at 'code' failed to satisfy constraint: Member must not be null; "
        "Value '0' at 'timeout' failed to satisfy constraint: "
        "Member must have value greater than or equal to 1; "
        "Value '64' at 'memorySize' failed to satisfy constraint: "
        "Member must have value greater than or equal to 128"
    )
    assert expected == str(caught.value)
    assert ("ValidationException", 400) == (caught.value.code, caught.value.status)


def test_a_value_may_break_two_constraints() -> None:
    """An empty name does not match its pattern, and is too short."""
    with pytest.raises(ValidationFailed) as caught:
        create(function(FunctionName=""))

    at = "Value '' at 'functionName' failed to satisfy constraint: "
    expected = (
        f"2 validation errors detected: {at}Member must satisfy regular expression pattern: "
        f"{shapes.FunctionName.pattern}; {at}Member must have length greater than or equal to 1"
    )
    assert expected == str(caught.value)


def test_structures_in_a_list_are_counted_from_one() -> None:
    """A member of a list that is a structure has a path of its own."""
    sources = [{"Type": "IAM_AUTH"}, {"URI": ""}, None]
    document = {"FunctionName": "hello", "SourceAccessConfigurations": sources}
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["CreateEventSourceMapping"], {}, {}, {}, document)

    expected = (
        "2 validation errors detected: "
        "Value '' at 'sourceAccessConfigurations.2.member.uRI' failed to satisfy constraint: "
        "Member must have length greater than or equal to 1; "
        "Value null at 'sourceAccessConfigurations.3.member' failed to satisfy constraint: "
        "Member must not be null"
    )
    assert expected == str(caught.value)


def test_a_list_in_a_map_has_all_its_constraints_in_the_message() -> None:
    """Constraints within constraints are listed from the outside in."""
    endpoints = {"KAFKA_BOOTSTRAP_SERVERS": ["nowhere"]}
    document = {"FunctionName": "hello", "SelfManagedEventSource": {"Endpoints": endpoints}}
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["CreateEventSourceMapping"], {}, {}, {}, document)

    expected = (
        "1 validation error detected: Value '{KAFKA_BOOTSTRAP_SERVERS=[nowhere]}' at "
        "'selfManagedEventSource.endpoints' failed to satisfy constraint: Map value must satisfy "
        "constraint: [Member must satisfy constraint: [Member must have length less than or equal "
        "to 300, Member must have length greater than or equal to 1, Member must satisfy regular "
        f"expression pattern: {shapes.Endpoint.pattern}, Member must not be null], Member must "
        "have length less than or equal to 10, Member must have length greater than or equal to "
        "1, Member must not be null]"
    )
    assert expected == str(caught.value)


def test_weights_are_numbers_from_0_to_1() -> None:
    """The message for a number in a map is that for any value in one."""
    weights = {"7": 1.5}
    document = {"RoutingConfig": {"AdditionalVersionWeights": weights}}
    path = {"FunctionName": "hello", "Name": "live"}
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["UpdateAlias"], path, {}, {}, document)

    expected = (
        "1 validation error detected: Value '{7=1.5}' at 'routingConfig.additionalVersionWeights' "
        "failed to satisfy constraint: Map value must satisfy constraint: [Member must have value "
        "less than or equal to 1.0, Member must have value greater than or equal to 0.0, "
        "Member must not be null]"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (
            {"Qualifier": "no!"},
            (
                "Value 'no!' at 'qualifier' failed to satisfy constraint: Member must satisfy "
                r"regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"
            ),
        ),
        (
            {"Qualifier": "x" * 129},
            (
                f"Value '{'x' * 129}' at 'qualifier' failed to satisfy constraint: "
                "Member must have length less than or equal to 128"
            ),
        ),
    ],
)
def test_constraints_hold_in_a_query_too(query: dict[str, str], expected: str) -> None:
    """Constraints are the same in a query string and in a document."""
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["GetFunction"], {"FunctionName": "hello"}, query, {}, None)

    assert f"1 validation error detected: {expected}" == str(caught.value)


@pytest.mark.parametrize("name", ["naïve", "../../etc", "x!", "a b", "hello\u2028", "関数"])
def test_an_invalid_name_is_refused(name: str) -> None:
    """Of all names that a path can decode to, only names of functions pass."""
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["GetFunction"], {"FunctionName": name}, {}, {}, None)

    assert f"Value '{name}' at 'functionName' failed" in str(caught.value)


# Long values, and secret ones


def test_a_message_shows_the_beginning_of_a_value() -> None:
    """A value of a megabyte is not sent back."""
    message = refused(function(FunctionName="x" * 1_000_000))

    assert message.startswith("Value 'xxx")
    assert "xxx...' at 'functionName'" in message
    assert len(message) < 1000


def test_a_list_of_many_is_shown_from_its_beginning() -> None:
    """The message for a list of many members stays short."""
    message = refused(function(Layers=["x"] * 100_000))

    assert message.startswith("Value '[x, x, x, ")
    assert len(message) < 1500


def test_a_message_lists_50_errors_of_a_list() -> None:
    """A list of a hundred thousand wrong structures is an error of some kilobytes."""
    filters = [{"Pattern": "x" * 4097}] * 100_000
    document = {"FunctionName": "hello", "FilterCriteria": {"Filters": filters}}
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["CreateEventSourceMapping"], {}, {}, {}, document)

    assert str(caught.value).startswith("50 validation errors detected: ")
    assert len(str(caught.value)) < 50_000


def test_a_secret_is_not_in_a_message() -> None:
    """Neither names nor values of environment variables are repeated."""
    message = refused(function(Environment={"Variables": {"PASSWORD": None, "KEY": "hunter2"}}))

    assert "hunter2" not in message
    assert "PASSWORD" not in message
