"""Tests of the validation: the shapes are the model's, the words are AWS's."""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
import warnings
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, MultiDict

from miniλ.errors import SerializationFailed, ValidationFailed
from miniλ.gateway.service_model import shapes
from miniλ.gateway.service_model.constraints import compiled
from miniλ.gateway.service_model.inputs import INPUTS, Input, Located
from miniλ.gateway.service_model.operations import OPERATIONS, match
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
from miniλ.gateway.service_model.validate import parameters

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = Loader().load_service_model("lambda", "service-2")
SERVICE = ServiceModel(MODEL, "lambda")

# Operations of which miniλ knows the path only: there is nothing for them to work on.
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
    # Code signing, but for the one that says there is none
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

# Today's documented quotas; the model's ranges are ahead of them.
QUOTAS = {
    "MemorySize": (128, 10240),
    "Timeout": (1, 900),
    "EphemeralStorageSize": (512, 10240),
}

FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:hello"
ROLE = "arn:aws:iam::123456789012:role/service-role/hello"
LAYER_ARN = "arn:aws:lambda:eu-west-1:123456789012:layer:tools"
KEY_ARN = "arn:aws:kms:eu-west-1:123456789012:key/1"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:123456789012:failed"

# A value for every shape of the model that has a pattern.
EXAMPLES = {
    "Action": "lambda:InvokeFunction",
    "AdditionalVersion": "7",
    "Alias": "live",
    "Arn": QUEUE_ARN,
    "CapacityProviderArn": "arn:aws:lambda:eu-west-1:123456789012:capacity-provider:x",
    "CodeSigningConfigArn": (
        "arn:aws:lambda:eu-west-1:123456789012:code-signing-config:csc-0123456789abcdefg"
    ),
    "CollectionName": "orders",
    "DatabaseName": "shop",
    "DestinationArn": QUEUE_ARN,
    "DurableExecutionName": "order-1",
    "Endpoint": "broker-1.example.com:9092",
    "EnvironmentVariableName": "STAGE",
    "EventSourceToken": "token",
    "FileSystemArn": (
        "arn:aws:elasticfilesystem:eu-west-1:123456789012:access-point/fsap-0123456789abcdef0"
    ),
    "FunctionName": FUNCTION_ARN + ":live",
    "FunctionRuntimeArn": "arn:aws:lambda:eu-west-1:123456789012:runtime/python",
    "FunctionUrlFunctionName": "hello",
    "FunctionUrlQualifier": "live",
    "Handler": "app.handler",
    "Header": "x-custom",
    "KMSKeyArn": KEY_ARN,
    "LayerNameOrArn": LAYER_ARN,
    "LayerPermissionAllowedAction": "lambda:GetLayerVersion",
    "LayerPermissionAllowedPrincipal": "123456789012",
    "LayerVersionArn": LAYER_ARN + ":3",
    "LicenseInfo": "MIT",
    "LocalMountPath": "/mnt/data",
    "LogGroup": "/aws/lambda/hello",
    "MasterRegion": "eu-west-1",
    "Method": "GET",
    "NamespacedFunctionName": FUNCTION_ARN,
    "NamespacedStatementId": "statement.1",
    "NumericLatestPublishedOrAliasQualifier": "$LATEST",
    "OrganizationId": "o-0123456789",
    "Origin": "https://example.com",
    "Pattern": '{"body":[{"exists":true}]}',
    "Principal": "s3.amazonaws.com",
    "PrincipalOrgID": "o-0123456789",
    "ProvisionedPollerGroupName": "pollers",
    "Qualifier": "7",
    "Queue": "orders",
    "ResourceArn": QUEUE_ARN,
    "RoleArn": ROLE,
    "RuntimeVersionArn": "arn:aws:lambda:eu-west-1::runtime:0123456789abcdef",
    "S3Bucket": "bucket",
    "S3Key": "code/hello.zip",
    "S3ObjectVersion": "v1",
    "SchemaRegistryUri": "https://example.com",
    "SecurityGroupId": "sg-1",
    "SourceOwner": "123456789012",
    "StatementId": "statement-1",
    "SubnetId": "subnet-1",
    "TagKey": "Größe/価格 1",
    "TagValue": "naïve λ = 価格_1",
    "TaggableResource": FUNCTION_ARN,
    "TenantId": "tenant 1",
    "Topic": "orders",
    "UnqualifiedFunctionName": FUNCTION_ARN,
    "URI": "https://example.com/*",
    "UUIDString": "8f5ab0a2-0000-4000-8000-000000000001",
    "VersionWithLatestPublished": "$LATEST",
}

NUMBER = "class com.amazon.coral.value.json.numbers.TruncatingBigNumber"


def function(**changes: Any) -> dict[str, Any]:
    """Return the document of a CreateFunction that is fine but for the changes."""
    code = {"ZipFile": "UEsFBg=="}
    return {"FunctionName": "hello", "Role": ROLE, "Code": code, **changes}


def create(document: object) -> dict[str, Any]:
    """Return the parameters of a CreateFunction with this document."""
    return parameters(OPERATIONS["CreateFunction"], {}, {}, {}, document)


def refused(document: object) -> str:
    """Return what a CreateFunction with this document breaks, without the count."""
    with pytest.raises(ValidationFailed) as caught:
        create(document)
    message = str(caught.value)
    assert message.startswith("1 validation error detected: ")
    return message.removeprefix("1 validation error detected: ")


def unreadable(document: object, operation: str = "CreateFunction") -> str:
    """Return why this document cannot be read."""
    with pytest.raises(SerializationFailed) as caught:
        parameters(OPERATIONS[operation], {}, {}, {}, document)
    return str(caught.value)


# The shapes are the model's


def ours(shape: Shape, required: bool = False) -> Any:  # noqa: FBT001, FBT002 - of a member
    """Return a shape as plain data, as `theirs` has it."""
    bounds: dict[str, Any] = {"required": required}
    for name in ("minimum", "maximum", "pattern"):
        if getattr(shape, name, None) is not None:
            bounds[name] = getattr(shape, name)
    match shape:
        case Text():
            return {"type": "string", **bounds}
        case OneOf(values=values):
            return {"type": "string", "enum": list(values), **bounds}
        case Whole(bits=bits):
            return {"type": "integer" if bits == 32 else "long", **bounds}
        case Number():
            return {"type": "double", **bounds}
        case Flag():
            return {"type": "boolean", **bounds}
        case Time():
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
    """Return a shape of the model as plain data, with today's quotas."""
    shape = MODEL["shapes"][name]
    low, high = QUOTAS.get(name, (shape.get("min"), shape.get("max")))
    bounds = {"minimum": low, "maximum": high, "pattern": shape.get("pattern")}
    bounds["enum"] = shape.get("enum")
    found: dict[str, Any] = {"type": shape["type"], "required": required}
    found |= {key: value for key, value in bounds.items() if value is not None}
    if shape["type"] == "list":
        found["member"] = theirs(shape["member"]["shape"])
    elif shape["type"] == "map":
        found["key"] = theirs(shape["key"]["shape"])
        found["value"] = theirs(shape["value"]["shape"])
        found["secret"] = shape.get("sensitive", False)
    elif shape["type"] == "structure":
        found["members"] = {
            member: theirs(each["shape"], member in shape.get("required", []))
            for member, each in shape["members"].items()
        }
    return found


def our_input(taken: Input) -> list[Any]:
    """Return the members of an input, in order: name, place, name there, shape."""
    found: list[Any] = []
    for name, member in taken.members.items():
        required = name in taken.required
        if isinstance(member, Located):
            found.append((name, member.place, member.name or name, ours(member.shape, required)))
        else:
            found.append((name, "body", name, ours(member, required)))
    return found


def their_input(operation: str) -> list[Any]:
    """Return the members of the model's input, as `our_input` has them."""
    shape = MODEL["shapes"][MODEL["operations"][operation]["input"]["shape"]]
    required = shape.get("required", [])
    found: list[Any] = []
    for name, member in shape["members"].items():
        place = "payload" if shape.get("payload") == name else member.get("location", "body")
        wire = member.get("locationName", name)
        found.append((name, place, wire, theirs(member["shape"], name in required)))
    return found


def test_all_operations_but_the_named_ones_are_offered() -> None:
    """What is not offered is so by name: 60 operations have an input."""
    assert OPERATIONS.keys() - NOT_OFFERED == INPUTS.keys()
    assert 60 == len(INPUTS)


@pytest.mark.parametrize("operation", INPUTS)
def test_an_input_is_as_the_model_has_it(operation: str) -> None:
    """Members, their order, places, types, bounds, patterns and values: nothing more or less."""
    assert their_input(operation) == our_input(INPUTS[operation])


def test_the_quotas_are_narrower_than_the_model() -> None:
    """Each exception is needed: where the model caught up, it goes."""
    assert QUOTAS == shapes.QUOTAS
    for name, (low, high) in QUOTAS.items():
        shape = MODEL["shapes"][name]
        assert shape["min"] == low
        assert shape["max"] > high


def test_only_blobs_and_secret_maps_are_sensitive() -> None:
    """A message never shows what the model calls sensitive: neither has other messages."""
    sensitive: set[str] = set()
    for operation in INPUTS:
        for shape in walk(MODEL["operations"][operation]["input"]["shape"]):
            if MODEL["shapes"][shape].get("sensitive"):
                sensitive.add(shape)

    expected = {"EnvironmentVariables", "EnvironmentVariableName", "EnvironmentVariableValue"}
    assert {"Blob", *expected} == sensitive


def walk(name: str) -> Iterator[str]:
    """Yield the names of a shape of the model and of all within."""
    yield name
    shape = MODEL["shapes"][name]
    inner = [shape[key] for key in ("member", "key", "value") if key in shape]
    for each in [*shape.get("members", {}).values(), *inner]:
        yield from walk(each["shape"])


# Patterns: Java's


def patterns() -> list[str]:
    """Return all patterns of the inputs."""
    names = {
        name
        for operation in INPUTS
        for name in walk(MODEL["operations"][operation]["input"]["shape"])
    }
    return sorted({MODEL["shapes"][name].get("pattern", "") for name in names} - {""})


@pytest.mark.parametrize("pattern", patterns())
def test_a_pattern_compiles_without_a_warning(pattern: str) -> None:
    """Python reads the model's patterns as they are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled.__wrapped__(pattern)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_its_pattern(name: str) -> None:
    """What the tests send as good is good by the model too."""
    shape = MODEL["shapes"][name]

    assert compiled(shape["pattern"]).fullmatch(EXAMPLES[name]) if "pattern" in shape else True


def test_tags_are_letters_numbers_separators_and_some_signs() -> None:
    r"""\p{L}, \p{Z} and \p{N} mean in Python what they mean in Java, for every character."""
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
    """Digits and spaces are ASCII, a dot stops at every line's end, and the whole value counts."""
    assert fits == (compiled(pattern).fullmatch(value) is not None)


# A request of botocore, there and back


def example(name: str, *, everything: bool) -> Any:
    """Return a value for a shape of the model: with all its members, or with those it must have."""
    shape = MODEL["shapes"][name]
    match shape["type"]:
        case "string":
            if "enum" in shape:
                return shape["enum"][-1]
            return EXAMPLES.get(name, "é" * max(shape.get("min", 0), 1))
        case "integer" | "long":
            return max(shape.get("min", 5), 0)
        case "double":
            return shape["max"] / 2
        case "boolean":
            return False
        case "blob":
            return b"PK\0\xff\xfe"
        case "timestamp":
            return dt.datetime(2026, 7, 31, 12, 0, 0, tzinfo=dt.UTC)
        case "list":
            return [example(shape["member"]["shape"], everything=everything)]
        case "map":
            key = example(shape["key"]["shape"], everything=everything)
            return {key: example(shape["value"]["shape"], everything=everything)}
    return {
        member: example(each["shape"], everything=everything)
        for member, each in shape["members"].items()
        if everything or member in shape.get("required", [])
    }


def there_and_back(operation: str, given_parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that we find in what botocore sends."""
    serializer = create_serializer("rest-json", include_validation=False)
    model = SERVICE.operation_model(operation)
    request = serializer.serialize_to_request(given_parameters, model)
    prepare_request_dict(request, "http://localhost:9001")
    prepared = create_request_object(request).prepare()
    url = urlsplit(prepared.url)
    query = MultiDict(parse_qsl(url.query, keep_blank_values=True))
    headers = CIMultiDict({name: _text(value) for name, value in prepared.headers.items()})
    body = b"" if prepared.body is None else prepared.body
    found, path = match(prepared.method, url.path, query)
    assert OPERATIONS[operation] == found
    document = body if found.blob_body else json.loads(body) if body else None
    return parameters(found, path, query, headers, document)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


@pytest.mark.parametrize("everything", [True, False], ids=["everything", "required"])
@pytest.mark.parametrize("operation", INPUTS)
def test_parameters_come_back_as_botocore_was_given_them(
    operation: str, *, everything: bool
) -> None:
    """ARNs, tags in any script, blobs: what a client says is what we understand."""
    name = MODEL["operations"][operation]["input"]["shape"]
    expected = example(name, everything=everything)

    found = there_and_back(operation, expected)

    for member, value in expected.items():
        if isinstance(value, dt.datetime):
            expected[member] = value.timestamp()
    assert expected == found


@pytest.mark.parametrize(
    "name",
    ["x" * 140, "x" * 104, FUNCTION_ARN + "x" * 80, "123456789012:function:hello:$LATEST"],
)
def test_long_names_come_back_whole(name: str) -> None:
    """Of a name that is an ARN of 140 characters nothing is lost."""
    assert {"FunctionName": name} == there_and_back(
        "GetFunctionConcurrency", {"FunctionName": name}
    )


def test_many_tag_keys_come_back_in_order() -> None:
    """`tagKeys` is there once for each key."""
    keys = ["one", "two + three", "λ=4"]
    given_parameters = {"Resource": FUNCTION_ARN, "TagKeys": keys}

    assert given_parameters == there_and_back("UntagResource", given_parameters)


# Where parameters are


def test_a_plain_query_has_one_tag_key() -> None:
    """Who gives a dict can say a name once only."""
    found = parameters(
        OPERATIONS["UntagResource"], {"Resource": FUNCTION_ARN}, {"tagKeys": "one"}, {}, None
    )

    assert ["one"] == found["TagKeys"]


@pytest.mark.parametrize("name", ["X-Amz-Log-Type", "x-amz-log-type", "X-AMZ-LOG-TYPE"])
@pytest.mark.parametrize("kind", [dict, CIMultiDict])
def test_a_header_is_found_however_it_is_written(kind: Any, name: str) -> None:
    """Header names have no case, in a dict neither."""
    found = parameters(
        OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, kind({name: "Tail"}), None
    )

    assert {"FunctionName": "hello", "LogType": "Tail"} == found


def test_a_payload_is_the_body_as_it_came() -> None:
    """An event is nothing that is looked into here."""
    found = parameters(OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, {}, b'"\xff')

    assert b'"\xff' == found["Payload"]


@pytest.mark.parametrize("body", [None, b""])
def test_no_body_is_no_payload(body: bytes | None) -> None:
    """An invocation without an event has no Payload."""
    found = parameters(OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, {}, body)

    assert {"FunctionName": "hello"} == found


def test_members_that_nobody_knows_are_passed_over() -> None:
    """A client that is newer than the model is understood, at every depth."""
    document = function(Newer=1, VpcConfig={"SubnetIds": [], "Newer": {}})

    assert {"SubnetIds": []} == create(document)["VpcConfig"]
    assert "Newer" not in create(document)


def test_a_member_of_the_path_is_not_taken_from_the_body() -> None:
    """Each member has one place: a name in the body does not rename what the path names."""
    operation = OPERATIONS["UpdateAlias"]
    path = {"FunctionName": "hello", "Name": "live"}

    assert path == parameters(operation, path, {}, {}, {"Name": "other"})


def test_null_is_as_if_absent() -> None:
    """A null says nothing, at every depth."""
    document = function(Description=None, VpcConfig={"SubnetIds": None})

    found = create(document)

    assert "Description" not in found
    assert {} == found["VpcConfig"]


@pytest.mark.parametrize("document", [None, {}])
def test_no_body_is_an_empty_document(document: object) -> None:
    """All members of a body are absent where there is none."""
    found = parameters(OPERATIONS["PublishVersion"], {"FunctionName": "hello"}, {}, {}, document)

    assert {"FunctionName": "hello"} == found


def test_a_body_that_nobody_needs_is_not_looked_at() -> None:
    """A GET may come with anything behind it."""
    found = parameters(OPERATIONS["GetFunction"], {"FunctionName": "hello"}, {}, {}, ["x"])

    assert {"FunctionName": "hello"} == found


def test_numbers_of_a_query_are_numbers() -> None:
    """MaxItems is an integer, and a layer's version in the path is one too."""
    found = parameters(OPERATIONS["ListFunctions"], {}, {"MaxItems": "50"}, {}, None)
    path = {"LayerName": "tools", "VersionNumber": "12345678901"}

    assert {"MaxItems": 50} == found
    assert (
        12345678901
        == (parameters(OPERATIONS["GetLayerVersion"], path, {}, {}, None)["VersionNumber"])
    )


def test_whole_numbers_may_have_a_point() -> None:
    """1.0 is 1 in JSON."""
    found = create(function(MemorySize=256.0))["MemorySize"]

    assert 256 == found
    assert isinstance(found, int)


# Messages, byte for byte


def test_a_pattern_is_shown_as_the_model_has_it() -> None:
    """The message for a name that is none, with AWS's own pattern."""
    pattern = MODEL["shapes"]["FunctionName"]["pattern"]

    expected = (
        "Value 'x!' at 'functionName' failed to satisfy constraint: "
        f"Member must satisfy regular expression pattern: {pattern}"
    )

    assert expected == refused(function(FunctionName="x!"))
    assert r"(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?" in expected


def test_what_is_required_is_not_null() -> None:
    """What is absent and what is null is the same, and told the same."""
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
    """Value, path, constraint: a script that looks for one of them finds it."""
    assert expected == refused(function(**changes))


def test_the_runtime_of_a_function_is_left_to_its_operation() -> None:
    """Lambda has words of its own for a runtime that it does not know; a layer's is held here."""
    layer = {"LayerName": "layer", "Content": {}, "CompatibleRuntimes": ["python9"]}
    found = parameters(OPERATIONS["CreateFunction"], {}, {}, {}, function(Runtime="python9"))

    assert "python9" == found["Runtime"]
    with pytest.raises(ValidationFailed, match="Member must satisfy enum value set"):
        parameters(OPERATIONS["PublishLayerVersion"], {"LayerName": "layer"}, {}, {}, layer)


def test_all_errors_of_a_request_are_in_one_message() -> None:
    """In the order of the model's members, whatever the order of the document's."""
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
    """An empty name fits no pattern, and is too short."""
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


def test_a_list_in_a_map_is_told_with_all_that_is_asked_of_it() -> None:
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
    """A number in a map is told like any other value of one."""
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
def test_a_query_is_held_against_the_model_too(query: dict[str, str], expected: str) -> None:
    """It makes no difference where in a request a value stands."""
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["GetFunction"], {"FunctionName": "hello"}, query, {}, None)

    assert f"1 validation error detected: {expected}" == str(caught.value)


@pytest.mark.parametrize("name", ["naïve", "../../etc", "x!", "a b", "hello\u2028", "関数"])
def test_a_name_that_is_none_gets_no_further(name: str) -> None:
    """Whatever a path decodes to, only names of functions pass."""
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["GetFunction"], {"FunctionName": name}, {}, {}, None)

    assert f"Value '{name}' at 'functionName' failed" in str(caught.value)


# Types


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"MemorySize": "128"}, "STRING_VALUE can not be converted to an Integer"),
        ({"MemorySize": True}, "TRUE_VALUE can not be converted to an Integer"),
        ({"MemorySize": 128.5}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": 1 << 31}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": 10**6000}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": float("inf")}, f"{NUMBER} can not be converted to an Integer"),
        ({"MemorySize": []}, "Start of list found where not expected."),
        ({"Description": 5}, f"{NUMBER} can not be converted to an String"),
        ({"Description": False}, "FALSE_VALUE can not be converted to an String"),
        ({"Description": {}}, "Start of structure or map found where not expected."),
        ({"Description": "\ud800"}, "Invalid UTF-8 in a String"),
        ({"Runtime": 3}, f"{NUMBER} can not be converted to an String"),
        ({"Publish": "true"}, "STRING_VALUE can not be converted to an Boolean"),
        ({"Publish": 1}, f"{NUMBER} can not be converted to an Boolean"),
        ({"Layers": "x"}, "STRING_VALUE can not be converted to an List"),
        ({"Layers": {}}, "Start of structure or map found where not expected."),
        ({"Layers": [1]}, f"{NUMBER} can not be converted to an String"),
        ({"Tags": "x"}, "STRING_VALUE can not be converted to an Map"),
        ({"Tags": []}, "Start of list found where not expected."),
        ({"Tags": {"a": 1}}, f"{NUMBER} can not be converted to an String"),
        ({"Tags": {"\udfff": "a"}}, "Invalid UTF-8 in a String"),
        ({"Code": "x"}, "STRING_VALUE can not be converted to an Structure"),
        ({"Code": {"ZipFile": 5}}, f"{NUMBER} can not be converted to an Blob"),
        (
            {"Code": {"ZipFile": "UEsF!"}},
            "STRING_VALUE can not be converted to an Blob: Only base64 data is allowed",
        ),
        (
            {"Code": {"ZipFile": "UEsFBg"}},
            "STRING_VALUE can not be converted to an Blob: Incorrect padding",
        ),
    ],
)
def test_a_wrong_type_is_told_as_aws_tells_it(changes: dict[str, Any], expected: str) -> None:
    """What cannot be read is the only error: nobody knows what else it would have been."""
    assert expected == unreadable(function(**{"FunctionName": "x!", **changes}))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ([], "Start of list found where not expected."),
        ("x", "STRING_VALUE can not be converted to an Structure"),
        (5, f"{NUMBER} can not be converted to an Structure"),
        (False, "FALSE_VALUE can not be converted to an Structure"),
    ],
)
def test_a_document_is_an_object(document: object, expected: str) -> None:
    """JSON that is no object is no document, also where nothing is required of it."""
    assert expected == unreadable(document)
    assert expected == unreadable(document, "PublishVersion")


@pytest.mark.parametrize("weight", ["1", True, float("nan"), 10**400])
def test_a_weight_is_a_number(weight: object) -> None:
    """No string, no truth, and nothing that JSON cannot say."""
    document = {"RoutingConfig": {"AdditionalVersionWeights": {"1": weight}}}

    assert "can not be converted to an Double" in unreadable(document, "CreateAlias")


def test_a_time_is_a_number_of_seconds() -> None:
    """A date that is written out is none."""
    document = {"StartingPositionTimestamp": "2026-07-31"}

    assert "STRING_VALUE can not be converted to an Date" == unreadable(
        document, "CreateEventSourceMapping"
    )


@pytest.mark.parametrize("text", ["", "x", "1.0", "+1", "١", "9" * 5000, "0x1", " 1"])
def test_a_number_of_a_query_is_digits(text: str) -> None:
    """What Python would take for a number as well is none on AWS."""
    with pytest.raises(SerializationFailed) as caught:
        parameters(OPERATIONS["ListFunctions"], {}, {"MaxItems": text}, {}, None)

    assert "STRING_VALUE can not be converted to an Integer" == str(caught.value)


def test_a_version_of_a_layer_is_a_long() -> None:
    """And is told as one."""
    path = {"LayerName": "tools", "VersionNumber": "latest"}
    with pytest.raises(SerializationFailed) as caught:
        parameters(OPERATIONS["GetLayerVersion"], path, {}, {}, None)

    assert "STRING_VALUE can not be converted to an Long" == str(caught.value)
    assert ("SerializationException", 400) == (caught.value.code, caught.value.status)


def test_a_header_of_bytes_that_are_no_text_is_refused() -> None:
    """They come from aiohttp as half characters, which nobody could log or store."""
    headers = {"X-Amz-Client-Context": "e30\udcff"}
    with pytest.raises(SerializationFailed):
        parameters(OPERATIONS["Invoke"], {"FunctionName": "hello"}, {}, headers, None)


# Whatever a client sends


def test_a_message_shows_the_beginning_of_a_value() -> None:
    """What is a megabyte long is not sent back."""
    message = refused(function(FunctionName="x" * 1_000_000))

    assert message.startswith("Value 'xxx")
    assert "xxx...' at 'functionName'" in message
    assert len(message) < 1000


def test_a_list_of_many_is_shown_from_its_beginning() -> None:
    """However many members a list has, a message stays short."""
    message = refused(function(Layers=["x"] * 100_000))

    assert message.startswith("Value '[x, x, x, ")
    assert len(message) < 1500


def test_a_message_lists_so_many_errors_and_no_more() -> None:
    """A list of a hundred thousand wrong structures is an error of some kilobytes."""
    filters = [{"Pattern": "x" * 4097}] * 100_000
    document = {"FunctionName": "hello", "FilterCriteria": {"Filters": filters}}
    with pytest.raises(ValidationFailed) as caught:
        parameters(OPERATIONS["CreateEventSourceMapping"], {}, {}, {}, document)

    assert str(caught.value).startswith("50 validation errors detected: ")
    assert len(str(caught.value)) < 50_000


@pytest.mark.parametrize("pattern", patterns())
@pytest.mark.parametrize("piece", ["a", "a.", "a-", "1", "arn:aws:", "arn:aws:x:"])
def test_no_pattern_takes_the_square_of_a_value(pattern: str, piece: str) -> None:
    """A third of a megabyte that almost fits: one that backtracks over all of it would hang us."""
    value = piece * (300_000 // len(piece)) + " /\n$"

    fits = compiled(pattern).fullmatch(value) is not None

    assert fits == (pattern == r"[\s\S]*")


def test_a_secret_is_not_in_a_message() -> None:
    """Neither names nor values of environment variables are repeated."""
    message = refused(function(Environment={"Variables": {"PASSWORD": None, "KEY": "hunter2"}}))

    assert "hunter2" not in message
    assert "PASSWORD" not in message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    deadline=None, database=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    operation=st.sampled_from(sorted(INPUTS)),
    data=st.data(),
    query=st.dictionaries(st.sampled_from(["Qualifier", "MaxItems", "tagKeys", "Arn"]), st.text()),
)
def test_any_request_is_parameters_or_an_error(
    operation: str, data: st.DataObject, query: dict[str, str]
) -> None:
    """Whatever JSON a client sends, the answer is one of two errors or fit to use."""
    taken = OPERATIONS[operation]
    members = INPUTS[operation].members.items()
    path = {name: "hello" for name, each in members if isinstance(each, Located)}
    names = [name for name, each in members if not isinstance(each, Located)]
    fine = function() if operation == "CreateFunction" else {}
    strategy = st.dictionaries(st.sampled_from(names), anything) if names else st.just({})
    document = None if taken.blob_body else {**fine, **data.draw(strategy)}
    try:
        found = parameters(taken, path, query, {}, document)
    except (ValidationFailed, SerializationFailed) as exc:
        message = str(exc)
    else:
        message = "fine"

        assert found.keys() <= INPUTS[operation].members.keys()
        # An event may be empty: it is looked at by who runs it.
        assert set(INPUTS[operation].required) - {"InvokeArgs"} <= found.keys()

    assert message.encode()


def test_what_is_not_offered_has_no_parameters() -> None:
    """Whoever asks for them has not looked whether the operation is offered."""
    with pytest.raises(KeyError):
        parameters(OPERATIONS["StopDurableExecution"], {}, {}, {}, None)


def test_a_pattern_is_compiled_once() -> None:
    """The second request of its kind sets nothing up."""
    pattern = shapes.NamespacedFunctionName.pattern or ""

    assert compiled(pattern) is compiled(pattern)
    assert isinstance(compiled(pattern), re.Pattern)
