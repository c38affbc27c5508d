"""All 91 operations of the service model, one after the other, through AWS's own client.

What an answer may have is not written down here: the model says it, and the client's parser drops
what it does not know, so that answers are looked at as they came.
"""

from __future__ import annotations

import http.client
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from botocore.exceptions import ClientError
from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape, StructureShape

from tests.api.conftest import ECHO, REGION, ROLE, RUNTIME, Server, archive, serving, updated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.client import BaseClient

MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
PLACE = f"arn:aws:lambda:{REGION}:000000000000"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ZIP = archive(app=ECHO)
# What required members are, if their type alone does not say it: by operation, or for all.
VALUES: dict[str, Any] = {
    "Role": ROLE,
    "Code": {"ZipFile": ZIP},
    "Content": {"ZipFile": archive(**{"python/tool": ""})},
    "Name": "live",
    "FunctionVersion": "1",
    "Qualifier": "live",
    "LayerName": "walk",
    "VersionNumber": 1,
    "StatementId": "walk",
    "Action": "lambda:InvokeFunction",
    "AddLayerVersionPermission.Action": "lambda:GetLayerVersion",
    "Principal": "*",
    "Arn": f"{PLACE}:layer:walk:1",
    "Tags": {"team": "a"},
    "TagKeys": ["team"],
    "InvokeArgs": b"{}",
    "ReservedConcurrentExecutions": 5,
    "CodeSigningConfigArn": f"{PLACE}:code-signing-config:csc-{'0' * 17}",
    "AllowedPublishers": {
        "SigningProfileVersionArns": [
            f"arn:aws:signer:{REGION}:000000000000:/signing-profiles/walk/0123456789"
        ]
    },
    "CapacityProviderName": "walk",
    "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
    "DurableExecutionArn": f"{PLACE}:function:walk:1/durable-execution/walk/walk",
    "CheckpointToken": "d2Fsaw==",
    "CallbackId": "d2Fsaw==",
    "Policy": "{}",
}
# What the model does not require, and the service does.
BESIDE: dict[str, dict[str, Any]] = {
    "CreateFunction": {"Runtime": RUNTIME, "Handler": "app.handler"},
    "UpdateFunctionCode": {"ZipFile": ZIP},
    "UpdateFunctionConfiguration": {"Description": "walked"},
    "PutFunctionEventInvokeConfig": {"MaximumRetryAttempts": 1},
    "UpdateFunctionEventInvokeConfig": {"MaximumRetryAttempts": 0},
    "CreateEventSourceMapping": {"EventSourceArn": f"arn:aws:sqs:{REGION}:000000000000:walk"},
    "AddPermission": {"Principal": "s3.amazonaws.com"},
}
# Everything is made before it is asked for, and deleted last.
VERBS = (
    *("CreateFunction", "PublishVersion", "CreateAlias", "Publish", "Create", "Put", "Add"),
    *("Tag", "", "Untag", "Remove", "Delete"),
)
LAST = ("DeleteAlias", "DeleteFunction")
# These operations are there to say that nothing of the kind is.
NOT_OFFERED = {
    name
    for name in MODEL.operation_names
    if "Durable" in name or "Capacity" in name or "CodeSigning" in name or "ScalingConfig" in name
} | {"GetResourcePolicy", "PutResourcePolicy", "DeleteResourcePolicy"}
# Errors that AWS answers with, and that the model has nowhere.
UNMODELLED = {"ValidationException"}


class Outcome(NamedTuple):
    """How an operation went: status, headers and body as they came, and the error's code."""

    status: int
    headers: dict[str, str]
    body: bytes
    code: str
    message: str


def minimal(shape: Shape, where: str) -> Any:
    """Return the least that a shape allows; `where` is the operation."""
    if shape.type_name == "structure":
        assert isinstance(shape, StructureShape)
        return {
            name: VALUES.get(
                f"{where}.{name}", VALUES.get(name, minimal(shape.members[name], where))
            )
            for name in shape.required_members
        }
    if shape.metadata.get("enum"):
        return shape.metadata["enum"][0]
    low = shape.metadata.get("min", 0)
    values = {"string": "x" * low, "integer": low, "long": low, "boolean": False, "blob": b""}
    return [] if shape.type_name == "list" else values.get(shape.type_name, {})


def parameters(operation: str, function: str, uuid: str) -> dict[str, Any]:
    """Return the parameters of a valid request, of a function and a mapping."""
    request = minimal(MODEL.operation_model(operation).input_shape, operation)
    request |= BESIDE.get(operation, {})
    ours = {
        "FunctionName": function,
        "UUID": uuid,
        "Resource": f"{PLACE}:function:{function}",
        "ResourceArn": f"{PLACE}:function:{function}",
    }
    return request | {name: value for name, value in ours.items() if name in request}


def called(client: BaseClient, operation: str, request: dict[str, Any]) -> Outcome:
    """Call an operation; return what came before the client had parsed it."""
    method = next(
        name for name, each in client.meta.method_to_api_mapping.items() if each == operation
    )
    came: list[dict[str, Any]] = []

    def keep(response_dict: dict[str, Any], **_: Any) -> None:
        came.append(response_dict)

    event = f"before-parse.lambda.{operation}"
    client.meta.events.register(event, keep)
    code = message = ""
    try:
        answer = getattr(client, method)(**request)
        if "EventStream" in answer:
            list(answer["EventStream"])
            answer["EventStream"].close()
        elif "Payload" in answer:
            answer["Payload"].read()
    except ClientError as exc:
        code, message = exc.response["Error"]["Code"], exc.response["Error"]["Message"]
    finally:
        client.meta.events.unregister(event, keep)
    response = came[0]
    body = response["body"] if isinstance(response["body"], bytes) else b""
    return Outcome(response["status_code"], response["headers"], body, code, message)


def rank(operation: str) -> tuple[int, int, str]:
    """Return where in the order of the walk an operation is."""
    verb = next(
        (at for at, verb in enumerate(VERBS) if verb and operation.startswith(verb)),
        VERBS.index(""),
    )
    return LAST.index(operation) if operation in LAST else -1, verb, operation


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server with concurrency to reserve, also on a small machine."""
    with serving(MINILAMBDA_CONCURRENCY="20") as running:
        yield running


@pytest.fixture(scope="module")
def nowhere(client: BaseClient) -> dict[str, Outcome]:
    """Return how all operations go where there is nothing."""
    nothing = "00000000-0000-4000-8000-000000000000"
    return {
        operation: called(client, operation, parameters(operation, "nowhere", nothing))
        for operation in sorted(MODEL.operation_names)
        if operation not in {"CreateFunction", "PublishLayerVersion"}
    }


@pytest.fixture(scope="module")
def walk(client: BaseClient, nowhere: dict[str, Outcome]) -> dict[str, Outcome]:
    """Return how all operations go where there is what they are about."""
    outcomes: dict[str, Outcome] = {}
    uuid = ""
    for operation in sorted(MODEL.operation_names, key=rank):
        outcomes[operation] = called(client, operation, parameters(operation, "walk", uuid))
        if operation == "CreateEventSourceMapping":
            uuid = json.loads(outcomes[operation].body)["UUID"]
        if operation == "CreateFunction":
            client.get_waiter("function_active_v2").wait(
                FunctionName="walk", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
            )
        if operation.startswith("UpdateFunctionCo"):
            updated(client, "walk")
    return outcomes


def wrong(shape: Shape, value: Any, where: str) -> list[str]:
    """Return what of a value is not as its shape has it."""
    kinds: dict[str, tuple[type, ...]] = {
        "string": (str,),
        "integer": (int,),
        "long": (int,),
        "float": (int, float),
        "double": (int, float),
        "boolean": (bool,),
        "timestamp": (int, float),
        "blob": (str,),
        "list": (list,),
        "map": (dict,),
        "structure": (dict,),
    }
    is_flag = isinstance(value, bool)
    if not isinstance(value, kinds[shape.type_name]) or is_flag != (shape.type_name == "boolean"):
        return [f"{where} is {value!r}, no {shape.type_name}"]
    match value:
        case list():
            inner = enumerate(value)
            return [
                each for at, item in inner for each in wrong(shape.member, item, f"{where}.{at}")
            ]
        case dict() if shape.type_name == "map":
            inner = value.items()
            return [
                each for at, item in inner for each in wrong(shape.value, item, f"{where}.{at}")
            ]
        case dict():
            return wrong_members(shape, value, where)
        case str() if value not in (values := shape.metadata.get("enum") or [value]):
            return [f"{where} is {value!r}, none of {values}"]
    return []


def wrong_members(shape: Shape, value: dict[str, Any], where: str) -> list[str]:
    """Return what of a JSON object is not as its structure has it."""
    assert isinstance(shape, StructureShape)
    known = {
        member.serialization.get("name", name): member
        for name, member in shape.members.items()
        # InvokeAsync's is both the status and, as the documents of 2014 have it, in the body.
        if member.serialization.get("location", "statusCode") == "statusCode"
    }
    findings = [f"{where}.{name} is not there" for name in value if name not in known]
    missing = {name for name in shape.required_members if name in known} - value.keys()
    findings += [f"{where}.{name} is missing" for name in missing]
    return findings + [
        each
        for name, item in value.items()
        if name in known
        for each in wrong(known[name], item, f"{where}.{name}")
    ]


@pytest.mark.parametrize("operation", MODEL.operation_names)
def test_an_operation_that_is_offered_succeeds(walk: dict[str, Outcome], operation: str) -> None:
    """Where there is what it is about, the least request that the model allows is answered."""
    outcome = walk[operation]
    status = MODEL.operation_model(operation).http["responseCode"]

    if operation not in NOT_OFFERED:
        assert ("", "") == (outcome.code, outcome.message)
    if not outcome.code:
        # Recorded of AWS: 204, also where the model says 200 by now.
        assert outcome.status == (204 if operation == "DeleteFunction" else status)


@pytest.mark.parametrize("operation", MODEL.operation_names)
def test_a_success_is_as_the_model_has_it(walk: dict[str, Outcome], operation: str) -> None:
    """Nothing that the output does not know, everything that it requires, in the right types."""
    outcome = walk[operation]
    shape = MODEL.operation_model(operation).output_shape
    assert UUID.fullmatch(outcome.headers["x-amzn-RequestId"])
    if outcome.code or operation in {"Invoke", "InvokeWithResponseStream"}:
        return

    if shape is None or outcome.status == 204:
        assert b"" == outcome.body
        return
    assert "application/json" == outcome.headers["Content-Type"]
    problems = wrong(shape, json.loads(outcome.body), operation)
    # Recorded of AWS, though the model has no such reason.
    creating = f"{operation}.LastUpdateStatusReasonCode is 'Creating', none of "
    assert [] == [problem for problem in problems if not problem.startswith(creating)]


@pytest.mark.parametrize("where", ["walk", "nowhere"])
@pytest.mark.parametrize("operation", MODEL.operation_names)
def test_an_error_is_one_of_aws(request: pytest.FixtureRequest, operation: str, where: str) -> None:
    """Its code is the operation's own in the model, its text is where the model has it."""
    outcome: Outcome | None = request.getfixturevalue(where).get(operation)
    if outcome is None or not outcome.code:
        return
    shapes = {shape.name: shape for shape in MODEL.operation_model(operation).error_shapes}
    document = json.loads(outcome.body)

    assert outcome.code in shapes.keys() | UNMODELLED
    assert "ServiceException" != outcome.code
    assert outcome.message
    assert outcome.code == outcome.headers["x-amzn-ErrorType"]
    if outcome.code in shapes:
        assert outcome.status == shapes[outcome.code].metadata["error"]["httpStatusCode"]
        assert document.keys() <= shapes[outcome.code].members.keys()


def names_a_function(operation: str) -> bool:
    """Return whether an operation is about a function that must be there."""
    shape = MODEL.operation_model(operation).input_shape
    return "FunctionName" in shape.required_members and operation != "CreateFunction"


@pytest.mark.parametrize("operation", [*filter(names_a_function, MODEL.operation_names)])
def test_a_missing_function_is_not_found(nowhere: dict[str, Outcome], operation: str) -> None:
    """Whatever is asked of it; what is not offered may say that instead."""
    outcome = nowhere[operation]

    if operation in NOT_OFFERED and outcome.status == 400:
        assert "not offered here" in outcome.message
        return
    if operation == "CreateEventSourceMapping":  # recorded of AWS
        assert (400, "Function does not exist") == (outcome.status, outcome.message)
        return
    assert 404 == outcome.status
    if operation not in NOT_OFFERED:
        assert "ResourceNotFoundException" == outcome.code


def paths() -> dict[str, set[str]]:
    """Return the methods of all paths, with names in them."""
    paths: dict[str, set[str]] = {}
    for name in MODEL.operation_names:
        described = MODEL.operation_model(name).http
        path = re.sub(r"{.*?}", "walk", described["requestUri"].partition("?")[0])
        paths.setdefault(path, set()).add(described["method"])
    return paths


@pytest.mark.parametrize("path", paths())
def test_a_wrong_method_is_refused(server: Server, path: str) -> None:
    """The error says which methods there are; it is JSON, as all errors."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for method in sorted({"GET", "POST", "PUT", "DELETE", "PATCH"} - paths()[path]):
        connection.request(method, path)
        response = connection.getresponse()
        document = json.loads(response.read())

        assert 405 == response.status, method
        assert "MethodNotAllowedException" == response.headers["x-amzn-ErrorType"]
        assert {"Type", "message"} == document.keys()
        assert document["message"].endswith(f"use {', '.join(sorted(paths()[path]))}")
    connection.close()


def test_the_model_has_91_operations() -> None:
    """What the walk is about."""
    assert 91 == len(MODEL.operation_names)
