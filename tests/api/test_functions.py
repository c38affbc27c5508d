"""Functions as AWS's clients have them: created, told, changed, listed, deleted, kept."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import http.client
import json
import os
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import WaiterError

import miniλ
from miniλ.gateway.service_model.shapes import Runtime
from tests.api.conftest import ECHO, REGION, ROLE, RUNTIME, Server, archive, serving, updated
from tests.api.plain_http import until
from tests.api.refusals import CONFLICT, INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

ARN = f"arn:aws:lambda:{REGION}:000000000000:function"
VALIDATION = "ValidationException"
ENVIRONMENT = (
    "Lambda was unable to configure your environment variables because the environment variables "
    "you have provided "
)
NOT_NOW = "The operation cannot be performed at this time. "
REVISION = (
    "The Revision Id provided does not match the latest Revision Id. Call the "
    "GetFunction/GetAlias API to retrieve the latest Revision Id"
)
UNQUALIFIED = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support "
    "this operation. Please specify either a function name or an unqualified function ARN."
)
SIGNING = f"arn:aws:lambda:{REGION}:000000000000:code-signing-config:csc-{'0' * 17}"
RESERVED_NAMES = {"AWS_REGION": "x", "LAMBDA_TASK_ROOT": "x"}
UNKNOWN_RUNTIME = (
    "Value cobol85 at 'runtime' failed to satisfy constraint: Member must satisfy enum value "
    "set: [nodejs18.x, nodejs20.x, nodejs22.x, nodejs24.x, java8.al2, java11, java17, java21, "
    "java25, python3.9, python3.10, python3.11, python3.12, python3.13, python3.14, dotnet8, "
    "dotnet10, ruby3.2, ruby3.3, ruby3.4, ruby4.0, provided.al2, provided.al2023, nodejs26.x, "
    "python3.15, java8.al2023, java11.al2023, java17.al2023, custom] or be a valid ARN"
)
DEPRECATED_RUNTIME = (
    "The runtime parameter of python3.7 is no longer supported for creating or updating AWS "
    "Lambda functions. We recommend you use a supported runtime while creating or updating "
    "functions."
)
MANDATORY = (
    "Runtime and Handler are mandatory parameters for functions created with deployment packages."
)
RESERVED = (
    f"{ENVIRONMENT}contains reserved keys that are currently not supported for modification. "
    "Reserved keys used in this request: AWS_REGION, LAMBDA_TASK_ROOT"
)
NO_SIGNING = (
    "The code signing configuration cannot be found. Check that the provided configuration "
    f"is not deleted: {SIGNING}."
)
NO_ARCHIVE = "Could not unzip uploaded file. Please check your file, then try to upload again."
NO_IMAGES = "Container images cannot run here: use the package type Zip"
TOO_MANY_LAYERS = "Cannot reference more than 5 layers."
OTHER_QUALIFIER = (
    "The derived qualifier from the function name does not match the specified qualifier."
)
MANY_LAYERS = [f"arn:aws:lambda:{REGION}:000000000000:layer:l{number}:1" for number in range(6)]
# What a function sees of its configuration.
TELL = """
import os
def handler(event, context):
    return [os.environ.get("COLOR"), context.memory_limit_in_mb]
def other(event, context):
    return "other"
"""
ZIP = archive(app=ECHO)
# A runtime that Lambda has, and that nothing here can be.
ELSEWHERE = "nodejs22.x"
# A Python that is not the one of these tests.
OTHER = next(name for name in ("python3.12", "python3.13") if name != RUNTIME)


@pytest.fixture(scope="module")
def open_client(server: Server) -> Iterator[BaseClient]:
    """Return a client that lets the server find what is wrong."""
    opened = server.client(parameter_validation=False)
    yield opened
    opened.close()


def new(name: str, **parameters: Any) -> dict[str, Any]:
    """Return the parameters of a function that can be created; None takes one away."""
    given = {
        "FunctionName": name,
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": ZIP},
        **parameters,
    }
    return {key: value for key, value in given.items() if value is not None}


def settled(client: BaseClient, name: str) -> dict[str, Any]:
    """Wait until a function is no longer pending; return its configuration."""
    with contextlib.suppress(WaiterError):  # of one that failed: its state is told
        client.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 1500}
        )
    return told(client.get_function_configuration(FunctionName=name))


def answered(client: BaseClient, name: str, **parameters: Any) -> Any:
    """Invoke a function and return what it answers."""
    answer = client.invoke(FunctionName=name, **parameters)
    payload = json.load(answer["Payload"])
    assert "FunctionError" not in answer, payload
    return payload


def download(client: BaseClient, name: str) -> bytes:
    """Return what is at the location that GetFunction tells."""
    location = client.get_function(FunctionName=name)["Code"]["Location"]
    with urllib.request.urlopen(location) as response:
        content: bytes = response.read()
        kind = response.headers["Content-Type"]

    assert "application/zip" == kind
    return content


def constraint(value: object, where: str, words: str) -> str:
    """Return the message for one value that breaks a constraint of the service model."""
    shown = f"Value {value}" if value == "null" else f"Value '{value}'"
    return (
        f"1 validation error detected: {shown} at '{where}' failed to satisfy constraint: {words}"
    )


# Told


def test_a_new_function_is_told_as_aws_tells_it(client: BaseClient) -> None:
    """It is Pending in the answer and Active a moment later; no member is missing or too much."""
    answer = client.create_function(**new("told"))
    client.get_waiter("function_active_v2").wait(
        FunctionName="told", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    later = told(client.get_function_configuration(FunctionName="told"))
    all_of_it = told(client.get_function(FunctionName="told"))
    client.delete_function(FunctionName="told")

    assert 201 == answer["ResponseMetadata"]["HTTPStatusCode"]
    expected = {
        "FunctionName": "told",
        "FunctionArn": f"{ARN}:told",
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "CodeSize": len(ZIP),
        "Description": "",
        "Timeout": 3,
        "MemorySize": 128,
        "LastModified": answer["LastModified"],
        "CodeSha256": base64.b64encode(hashlib.sha256(ZIP).digest()).decode(),
        "Version": "$LATEST",
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": answer["RevisionId"],
        "State": "Pending",
        "StateReason": "The function is being created.",
        "StateReasonCode": "Creating",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": 512},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        "RuntimeVersionConfig": {
            "RuntimeVersionArn": f"arn:aws:lambda:{REGION}::runtime:{RUNTIME}"
        },
        "LoggingConfig": {"LogFormat": "Text", "LogGroup": "/aws/lambda/told"},
    }
    assert expected == told(answer)
    del expected["StateReason"], expected["StateReasonCode"]
    expected |= {"State": "Active", "LastUpdateStatus": "Successful"}
    assert expected == later
    assert {"Configuration", "Code"} == all_of_it.keys()
    assert expected == all_of_it["Configuration"]
    assert "S3" == all_of_it["Code"]["RepositoryType"]


def test_all_that_is_said_is_told_again(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Also what nothing here acts upon: networks, keys, file systems, dead letters."""
    said = {
        "Description": "what it is",
        "Timeout": 900,
        "MemorySize": 10240,
        "EphemeralStorage": {"Size": 10240},
        "Environment": {"Variables": {"COLOR": "blue", "EMPTY": ""}},
        "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
        "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1",
        "TracingConfig": {"Mode": "Active"},
        "Architectures": ["arm64"],
        "FileSystemConfigs": [
            {
                "Arn": "arn:aws:elasticfilesystem:us-east-1:000000000000:access-point/"
                "fsap-0123456789abcdef0",
                "LocalMountPath": "/mnt/x",
            }
        ],
    }
    name = make_function(
        **said,
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"},
        Tags={"team": "a"},
    )
    answer = client.get_function(FunctionName=name)
    configuration = answer["Configuration"]

    assert said == {key: configuration[key] for key in said}
    assert {
        "SubnetIds": ["subnet-1"],
        "SecurityGroupIds": ["sg-1"],
        "VpcId": "",
        "Ipv6AllowedForDualStack": False,
    } == configuration["VpcConfig"]
    assert {
        "LogFormat": "JSON",
        "ApplicationLogLevel": "INFO",
        "SystemLogLevel": "WARN",
        "LogGroup": f"/aws/lambda/{name}",
    } == configuration["LoggingConfig"]
    assert {"team": "a"} == answer["Tags"]


def test_what_is_taken_back_is_not_told(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """An empty target, key or list is none; an empty network is told as such."""
    name = make_function(
        DeadLetterConfig={"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
        KMSKeyArn="arn:aws:kms:us-east-1:000000000000:key/1",
        Environment={"Variables": {"COLOR": "blue"}},
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    )
    client.update_function_configuration(
        FunctionName=name,
        DeadLetterConfig={"TargetArn": ""},
        KMSKeyArn="",
        FileSystemConfigs=[],
        Environment={"Variables": {}},
        VpcConfig={"SubnetIds": [], "SecurityGroupIds": []},
    )
    configuration = updated(client, name)

    gone = {"DeadLetterConfig", "KMSKeyArn", "FileSystemConfigs", "Environment"}
    assert set() == gone & configuration.keys()
    assert [] == configuration["VpcConfig"]["SubnetIds"]


def test_the_location_of_the_code_has_the_very_archive(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Whoever has the link downloads what was uploaded, byte for byte; after an update the new."""
    name = make_function(Code={"ZipFile": ZIP})
    code = archive(app="def handler(event, context):\n    return 2\n")
    downloads = [download(client, name)]
    client.update_function_code(FunctionName=name, ZipFile=code)
    updated(client, name)
    downloads.append(download(client, name))

    assert [ZIP, code] == downloads


# Refused

CREATE: list[tuple[dict[str, Any], int, str, str]] = [
    # The service model's constraints
    (
        {"FunctionName": None, "Role": None, "Code": None},
        400,
        VALIDATION,
        (
            "3 validation errors detected: "
            "Value null at 'functionName' failed to satisfy constraint: Member must not be null; "
            "Value null at 'role' failed to satisfy constraint: Member must not be null; "
            "Value null at 'code' failed to satisfy constraint: Member must not be null"
        ),
    ),
    (
        {"FunctionName": "!"},
        400,
        VALIDATION,
        constraint(
            "!",
            "functionName",
            "Member must satisfy regular expression pattern: (arn:(aws[a-zA-Z-]*)?:lambda:)?"
            r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?"
            r"([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?",
        ),
    ),
    (
        {"FunctionName": "x" * 65},
        400,
        VALIDATION,
        constraint("x" * 65, "functionName", "Member must have length less than or equal to 64"),
    ),
    (
        {"FunctionName": "x" * 141},
        400,
        VALIDATION,
        constraint("x" * 141, "functionName", "Member must have length less than or equal to 140"),
    ),
    (
        {"Role": "r1"},
        400,
        VALIDATION,
        constraint(
            "r1",
            "role",
            "Member must satisfy regular expression pattern: "
            r"arn:(aws[a-zA-Z-]*)?:iam::\d{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+",
        ),
    ),
    (
        {"Handler": "app handler"},
        400,
        VALIDATION,
        constraint(
            "app handler", "handler", r"Member must satisfy regular expression pattern: [^\s]+"
        ),
    ),
    (
        {"MemorySize": 127},
        400,
        VALIDATION,
        constraint(127, "memorySize", "Member must have value greater than or equal to 128"),
    ),
    (
        {"Timeout": 901, "MemorySize": 10241},
        400,
        VALIDATION,
        (
            "2 validation errors detected: Value '901' at 'timeout' failed to satisfy constraint: "
            "Member must have value less than or equal to 900; Value '10241' at 'memorySize' "
            "failed to satisfy constraint: Member must have value less than or equal to 10240"
        ),
    ),
    (
        {"EphemeralStorage": {"Size": 511}},
        400,
        VALIDATION,
        constraint(
            511, "ephemeralStorage.size", "Member must have value greater than or equal to 512"
        ),
    ),
    (
        {"Architectures": ["x86_64", "arm64"]},
        400,
        VALIDATION,
        constraint(
            "[x86_64, arm64]", "architectures", "Member must have length less than or equal to 1"
        ),
    ),
    (
        {"Architectures": ["riscv"]},
        400,
        VALIDATION,
        constraint(
            "[riscv]",
            "architectures",
            "Member must satisfy constraint: [Member must satisfy enum value set: "
            "[x86_64, arm64], Member must not be null]",
        ),
    ),
    (
        {"PackageType": "Tar"},
        400,
        VALIDATION,
        constraint("Tar", "packageType", "Member must satisfy enum value set: [Zip, Image]"),
    ),
    (
        {"SnapStart": {"ApplyOn": "All"}},
        400,
        VALIDATION,
        constraint(
            "All",
            "snapStart.applyOn",
            "Member must satisfy enum value set: [PublishedVersions, None]",
        ),
    ),
    (
        {"Environment": {"Variables": {"1X": "no"}}},
        400,
        VALIDATION,
        (
            "1 validation error detected: Value at 'environment.variables' failed to satisfy "
            "constraint: Map keys must satisfy constraint: [Member must satisfy regular expression "
            "pattern: [a-zA-Z]([a-zA-Z0-9_])+, Member must not be null]"
        ),
    ),
    # Runtimes
    (
        {"Runtime": "cobol85"},
        400,
        INVALID,
        UNKNOWN_RUNTIME,
    ),
    (
        {"Runtime": "python3.7"},
        400,
        INVALID,
        DEPRECATED_RUNTIME,
    ),
    (
        {"Runtime": None},
        400,
        INVALID,
        MANDATORY,
    ),
    (
        {"Handler": None},
        400,
        INVALID,
        MANDATORY,
    ),
    (
        {"Runtime": "java8.al2", "SnapStart": {"ApplyOn": "PublishedVersions"}},
        400,
        INVALID,
        "java8.al2 is not supported for SnapStart enabled functions.",
    ),
    # Environments
    (
        {"Environment": {"Variables": RESERVED_NAMES}},
        400,
        INVALID,
        RESERVED,
    ),
    (
        {"Environment": {"Variables": {"LARGE": "x" * 4084, "A1": ""}}},
        400,
        INVALID,
        f'{ENVIRONMENT}exceeded the 4KB limit. String measured: {{"LARGE":"{"x" * 4084}","A1":""}}',
    ),
    # Layers
    (
        {"Layers": MANY_LAYERS},
        400,
        INVALID,
        TOO_MANY_LAYERS,
    ),
    (
        {"Layers": [f"arn:aws:lambda:{REGION}:000000000000:layer:nowhere:1"]},
        400,
        INVALID,
        f"Layer version arn:aws:lambda:{REGION}:000000000000:layer:nowhere:1 does not exist.",
    ),
    # Code
    ({"Code": {}}, 400, INVALID, "Please provide a source for function code."),
    (
        {"Code": {"ZipFile": ZIP, "S3Bucket": "bucket", "S3Key": "key"}},
        400,
        INVALID,
        "Please do not provide other FunctionCode parameters when providing a ZipFile.",
    ),
    (
        {"Code": {"S3Bucket": "bucket", "S3Key": "key"}},
        400,
        INVALID,
        "No S3 endpoint is configured here: send the archive as ZipFile, or set [s3] endpoint",
    ),
    (
        {"Code": {"ZipFile": b"no archive"}},
        400,
        INVALID,
        NO_ARCHIVE,
    ),
    ({"Code": {"ZipFile": archive()}}, 400, INVALID, "Uploaded file must be a non-empty zip"),
    # What is not offered
    (
        {"PackageType": "Image", "Code": {"ImageUri": "x"}},
        400,
        INVALID,
        NO_IMAGES,
    ),
    (
        {"CodeSigningConfigArn": SIGNING},
        404,
        "CodeSigningConfigNotFoundException",
        NO_SIGNING,
    ),
    (
        {"DurableConfig": {"ExecutionTimeout": 5}},
        400,
        INVALID,
        "DurableConfig is not offered here: leave it out",
    ),
    (
        {"TenancyConfig": {"TenantIsolationMode": "PER_TENANT"}},
        400,
        INVALID,
        "TenancyConfig is not offered here: leave it out",
    ),
    # Names
    ({"FunctionName": f"{ARN}:never:1"}, 400, INVALID, UNQUALIFIED),
    (
        {"FunctionName": "arn:aws:lambda:eu-west-1:000000000000:function:never"},
        404,
        MISSING,
        "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
    ),
    # What is wrong with the request comes before what is wrong with its values: Lambda's order.
    (
        {"Runtime": "cobol85", "Timeout": 0},
        400,
        VALIDATION,
        constraint(0, "timeout", "Member must have value greater than or equal to 1"),
    ),
]


@pytest.mark.parametrize(
    ("changes", "status", "code", "message"), CREATE, ids=[str(n) for n in range(len(CREATE))]
)
def test_a_function_that_cannot_be_is_refused(
    open_client: BaseClient, changes: dict[str, Any], status: int, code: str, message: str
) -> None:
    """In AWS's words where they are known; and there is no such function afterwards."""
    given = new("never", **changes)

    assert (status, code, message) == refused(open_client.create_function, **given)
    assert (404, MISSING, f"Function not found: {ARN}:never") == refused(
        open_client.get_function, FunctionName="never"
    )


def test_every_runtime_is_created_or_refused(open_client: BaseClient) -> None:
    """No runtime of the service model is unknown: it is deprecated, or the code is looked at."""
    for runtime in Runtime.values:
        _, _, message = refused(
            open_client.create_function, **new("never", Runtime=runtime, Code={"ZipFile": b"x"})
        )

        words = ("The runtime parameter of ", "Could not unzip uploaded file.")
        assert message.startswith(words), runtime


UPDATE: list[tuple[dict[str, Any], int, str, str]] = [
    (
        {"Timeout": 0},
        400,
        VALIDATION,
        constraint(0, "timeout", "Member must have value greater than or equal to 1"),
    ),
    ({"Runtime": "cobol85"}, 400, INVALID, UNKNOWN_RUNTIME),
    ({"Runtime": "python3.7"}, 400, INVALID, DEPRECATED_RUNTIME),
    ({"Environment": {"Variables": RESERVED_NAMES}}, 400, INVALID, RESERVED),
    ({"Layers": MANY_LAYERS}, 400, INVALID, TOO_MANY_LAYERS),
    ({"RevisionId": "another"}, 412, "PreconditionFailedException", REVISION),
    ({"FunctionName": "nowhere"}, 404, MISSING, f"Function not found: {ARN}:nowhere"),
    ({"DurableConfig": {}}, 400, INVALID, "DurableConfig is not offered here: leave it out"),
]


@pytest.mark.parametrize(("changes", "status", "code", "message"), UPDATE)
def test_a_change_that_cannot_be_is_refused(
    open_client: BaseClient,
    make_function: Callable[..., str],
    changes: dict[str, Any],
    status: int,
    code: str,
    message: str,
) -> None:
    """An update is refused in the same words, and leaves the function as it was."""
    name = make_function()
    before = told(open_client.get_function_configuration(FunctionName=name))
    given = {"FunctionName": name, "Description": "new", **changes}
    got = refused(open_client.update_function_configuration, **given)

    assert (status, code, message) == got
    assert before == told(open_client.get_function_configuration(FunctionName=name))


CODE: list[tuple[dict[str, Any], int, str, str]] = [
    ({}, 400, INVALID, "Please provide a source for function code."),
    ({"ZipFile": b"no archive"}, 400, INVALID, NO_ARCHIVE),
    (
        {"ZipFile": ZIP, "RevisionId": "another"},
        412,
        "PreconditionFailedException",
        REVISION,
    ),
    (
        {"ZipFile": ZIP, "FunctionName": "nowhere"},
        404,
        MISSING,
        f"Function not found: {ARN}:nowhere",
    ),
    ({"ImageUri": "x"}, 400, INVALID, NO_IMAGES),
    (
        {"ZipFile": ZIP, "PublishTo": "LATEST_PUBLISHED"},
        400,
        INVALID,
        "PublishTo is not offered here: leave it out",
    ),
]


@pytest.mark.parametrize(("changes", "status", "code", "message"), CODE)
def test_code_that_cannot_be_is_refused(
    open_client: BaseClient,
    make_function: Callable[..., str],
    changes: dict[str, Any],
    status: int,
    code: str,
    message: str,
) -> None:
    """The function keeps the code that it had."""
    name = make_function(TELL)
    before = told(open_client.get_function_configuration(FunctionName=name))

    assert (status, code, message) == refused(
        open_client.update_function_code, **{"FunctionName": name, **changes}
    )
    assert before == told(open_client.get_function_configuration(FunctionName=name))


def test_a_request_that_cannot_be_read_is_refused(server: Server) -> None:
    """What is no JSON, no object, or has a wrong type is told in AWS's words, without a Type."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    answers = []
    for body in ('{"Timeout": "10"}', "[]", "{"):
        connection.request("POST", "/2015-03-31/functions", body)
        response = connection.getresponse()
        answers.append((response.status, response.headers["x-amzn-ErrorType"], response.read()))
    connection.close()

    statuses, codes, bodies = zip(*answers, strict=True)
    assert {400} == set(statuses)
    assert {"SerializationException"} == set(codes)
    messages = [json.loads(body)["message"] for body in bodies]
    assert "STRING_VALUE can not be converted to an Integer" == messages[0]
    assert "Start of list found where not expected." == messages[1]
    assert messages[2].startswith("Could not parse request body into json: ")


def test_a_name_is_taken_once(client: BaseClient, make_function: Callable[..., str]) -> None:
    """The second function of a name is a conflict, and the first one stays."""
    name = make_function(TELL)

    assert (409, CONFLICT, f"Function already exist: {name}") == refused(
        client.create_function, **new(name)
    )
    assert [None, "128"] == answered(client, name)


def test_of_many_at_once_one_gets_the_name(server: Server) -> None:
    """Eight clients create the same function: one has made it, and seven hear of a conflict."""
    client = server.client(max_pool_connections=8)

    def create(_: int) -> int:
        try:
            answer = client.create_function(**new("wanted"))
        except client.exceptions.ResourceConflictException as exc:
            answer = exc.response
        status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
        return status

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(create, range(8)))
    client.delete_function(FunctionName="wanted")
    client.close()

    assert [201] + [409] * 7 == sorted(statuses)


def test_nothing_of_an_upload_is_left(
    client: BaseClient, server: Server, make_function: Callable[..., str]
) -> None:
    """Whether it was taken or refused, what arrived is no longer where it arrived."""
    name = make_function()
    refused(client.create_function, **new(name))
    refused(client.create_function, **new("never", Code={"ZipFile": b"no archive"}))
    refused(client.update_function_code, FunctionName="nowhere", ZipFile=ZIP)

    assert [] == list((server.state / "uploads").iterdir())


# Changed


def test_a_change_is_in_progress_and_then_successful(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The answer is InProgress with AWS's reason; then the function has what it was given."""
    name = make_function(TELL)
    before = client.get_function_configuration(FunctionName=name)
    answer = client.update_function_configuration(
        FunctionName=name,
        Environment={"Variables": {"COLOR": "green"}},
        MemorySize=256,
        RevisionId=before["RevisionId"],
    )
    after = updated(client, name)

    assert ("InProgress", "The function is being created.", "Creating") == (
        answer["LastUpdateStatus"],
        answer["LastUpdateStatusReason"],
        answer["LastUpdateStatusReasonCode"],
    )
    assert ("Active", "Successful") == (after["State"], after["LastUpdateStatus"])
    assert set() == {"LastUpdateStatusReason", "LastUpdateStatusReasonCode"} & after.keys()
    assert answer["RevisionId"] == after["RevisionId"] != before["RevisionId"]
    assert before["LastModified"] < after["LastModified"]
    assert ["green", "256"] == answered(client, name)
    client.update_function_configuration(FunctionName=name, Handler="app.other")
    updated(client, name)
    assert "other" == answered(client, name)


def test_new_code_is_run_and_the_rest_stays(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Code changes without the configuration, and the configuration without the code."""
    name = make_function(TELL, Environment={"Variables": {"COLOR": "red"}})
    code = archive(app=TELL.replace("return [", "return [2, "))
    answer = client.update_function_code(FunctionName=name, ZipFile=code)
    after = updated(client, name)

    assert "InProgress" == answer["LastUpdateStatus"]
    assert base64.b64encode(hashlib.sha256(code).digest()).decode() == after["CodeSha256"]
    assert len(code) == after["CodeSize"]
    assert [2, "red", "128"] == answered(client, name)


def test_a_dry_run_changes_nothing(client: BaseClient, make_function: Callable[..., str]) -> None:
    """It tells what would be, and publishes nothing even if it is told to."""
    name = make_function(TELL)
    before = told(client.get_function_configuration(FunctionName=name))
    answer = client.update_function_code(FunctionName=name, ZipFile=ZIP, DryRun=True, Publish=True)

    assert base64.b64encode(hashlib.sha256(ZIP).digest()).decode() == answer["CodeSha256"]
    assert before == told(client.get_function_configuration(FunctionName=name))
    assert ["$LATEST"] == [
        version["Version"]
        for version in client.list_versions_by_function(FunctionName=name)["Versions"]
    ]
    assert (400, INVALID, NO_ARCHIVE) == refused(
        client.update_function_code, FunctionName=name, ZipFile=b"x", DryRun=True
    )


def test_code_is_published_with_its_update(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The answer is the version, ready to be invoked, and $LATEST has the same code."""
    name = make_function(TELL)
    answer = client.update_function_code(FunctionName=name, ZipFile=ZIP, Publish=True)
    payload = answered(client, name, Qualifier="1", Payload=b'"echo"')

    assert "1" == answer["Version"]
    assert f"{ARN}:{name}:1" == answer["FunctionArn"]
    assert "Active" == answer["State"]
    assert "echo" == payload
    assert answer["CodeSha256"] == updated(client, name)["CodeSha256"]


def test_a_function_is_published_as_it_is_created(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """With Publish the answer is version 1, Pending as the function is."""
    answer = client.create_function(**new("published", Publish=True))
    client.get_waiter("published_version_active").wait(
        FunctionName="published",
        Qualifier="1",
        WaiterConfig={"Delay": 0.02, "MaxAttempts": 500},
    )
    payload = answered(client, "published", Qualifier="1", Payload=b"7")
    client.delete_function(FunctionName="published")

    assert ("1", "Pending") == (answer["Version"], answer["State"])
    assert f"{ARN}:published:1" == answer["FunctionArn"]
    assert 7 == payload


def test_the_first_ask_after_a_change_may_come_at_once(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """While an update is in progress, invocations run on what there was: none is refused."""
    name = make_function(TELL)
    for color in ("red", "green", "blue"):
        client.update_function_configuration(
            FunctionName=name, Environment={"Variables": {"COLOR": color}}
        )
        seen = answered(client, name)[0]
        updated(client, name)

        assert seen in {None, "red", "green", "blue"}
        assert color == answered(client, name)[0]


# States


def test_a_runtime_that_is_not_here_ends_in_failed(client: BaseClient) -> None:
    """A function for it can be made: it says why it cannot run, cannot be invoked, and goes."""
    answer = client.create_function(**new("elsewhere", Runtime=ELSEWHERE))
    after = settled(client, "elsewhere")
    invoked = refused(client.invoke, FunctionName="elsewhere")
    published = refused(client.publish_version, FunctionName="elsewhere")
    code = refused(client.update_function_code, FunctionName="elsewhere", ZipFile=ZIP, Publish=True)
    client.delete_function(FunctionName="elsewhere")

    assert "Pending" == answer["State"]
    assert ("Failed", "InvalidRuntime") == (after["State"], after["StateReasonCode"])
    assert f"got '{ELSEWHERE}'; here: " in after["StateReason"]
    failed = f"{NOT_NOW}The function is currently in the following state: Failed"
    assert (409, CONFLICT, failed) == invoked == published
    assert (400, INVALID) == code[:2]
    assert 404 == refused(client.get_function, FunctionName="elsewhere")[0]


@pytest.mark.parametrize(
    ("runtime", "handler"), [("provided.al2023", "bootstrap"), ("java21", "Hello::run")]
)
def test_handlers_of_other_languages_are_taken(
    client: BaseClient, runtime: str, handler: str
) -> None:
    """They need no dot: such a function fails for its runtime, and not for its handler."""
    client.create_function(**new("handled", Runtime=runtime, Handler=handler))
    after = settled(client, "handled")
    client.delete_function(FunctionName="handled")

    assert (handler, "InvalidRuntime") == (after["Handler"], after["StateReasonCode"])


def test_a_function_that_failed_is_made_whole(client: BaseClient) -> None:
    """Given a runtime that is here, it becomes active and runs."""
    client.create_function(**new("mended", Runtime=ELSEWHERE))
    settled(client, "mended")
    client.update_function_configuration(FunctionName="mended", Runtime=RUNTIME)
    after = updated(client, "mended")
    payload = answered(client, "mended", Payload=b"1")
    client.delete_function(FunctionName="mended")

    assert ("Active", "Successful") == (after["State"], after["LastUpdateStatus"])
    assert set() == {"StateReason", "StateReasonCode"} & after.keys()
    assert 1 == payload


class Gate:
    """A server to which `OTHER` is a program that waits until `open` is called."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.client = server.client()
        self._directory = directory

    def open(self) -> None:
        """Let the program go on; it says that it is no such Python."""
        (self._directory / "opened").touch()
        (self._directory / "gate").write_text("\n", encoding="ascii")


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    """Return a server that can be kept in the middle of a change."""
    os.mkfifo(tmp_path / "gate")
    program = tmp_path / OTHER
    program.write_text(f"#!/bin/sh\n[ -e {tmp_path}/opened ] || read _ < {tmp_path}/gate\nexit 1\n")
    program.chmod(0o755)
    # Ours only: this machine may have such a Python.
    others = [path for path in os.get_exec_path() if not (Path(path) / OTHER).exists()]
    with serving(PATH=os.pathsep.join([str(tmp_path), *others])) as running:
        gate = Gate(running, tmp_path)
        yield gate
        gate.client.close()


def test_a_pending_function_is_not_changed_and_not_run(gate: Gate) -> None:
    """Both are a conflict that names the state; it can be deleted, and its name taken again."""
    client = gate.client
    client.create_function(**new("slow", Runtime=OTHER))
    pending = f"{NOT_NOW}The function is currently in the following state: Pending"

    assert (409, CONFLICT, pending) == refused(client.invoke, FunctionName="slow")
    for operation, parameters in (
        (client.update_function_configuration, {"Timeout": 5}),
        (client.update_function_code, {"ZipFile": ZIP}),
        (client.publish_version, {}),
    ):
        got = refused(operation, FunctionName="slow", **parameters)
        assert (409, CONFLICT, pending) == got
    client.delete_function(FunctionName="slow")
    client.create_function(**new("slow"))
    gate.open()
    assert "Active" == settled(client, "slow")["State"]
    assert 5 == answered(client, "slow", Payload=b"5")


def test_a_second_update_meanwhile_is_a_conflict(gate: Gate) -> None:
    """In AWS's words; the old version runs meanwhile, and stays if the update fails."""
    client = gate.client
    client.create_function(**new("busy", Description="old"))
    before = settled(client, "busy")
    client.update_function_configuration(FunctionName="busy", Runtime=OTHER, Description="new")
    busy = f"{NOT_NOW}An update is in progress for resource: {ARN}:busy"
    for operation, parameters in (
        (client.update_function_configuration, {"Timeout": 5}),
        (client.update_function_code, {"ZipFile": ZIP}),
        (client.publish_version, {}),
    ):
        got = refused(operation, FunctionName="busy", **parameters)
        assert (409, CONFLICT, busy) == got
    meanwhile = answered(client, "busy", Payload=b"6")
    gate.open()
    with pytest.raises(WaiterError, match="Failed"):
        updated(client, "busy")
    after = told(client.get_function_configuration(FunctionName="busy"))

    assert 6 == meanwhile
    reason = after.pop("LastUpdateStatusReason")
    assert f"Runtime {OTHER} is not on this machine; here: " in reason
    assert "InvalidRuntime" == after.pop("LastUpdateStatusReasonCode")
    assert {**before, "LastUpdateStatus": "Failed"} == after
    assert 8 == answered(client, "busy", Payload=b"8")
    client.update_function_configuration(FunctionName="busy", Description="newer")
    assert "Successful" == updated(client, "busy")["LastUpdateStatus"]


# Names


def test_a_function_has_many_names(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Name, partial ARN, ARN: each means it, alone and with a qualifier in it or beside it."""
    name = make_function(Publish=True)
    short = f"000000000000:function:{name}"
    regional = f"{REGION}:000000000000:function:{name}"
    for text in (name, f"function:{name}", short, regional, f"{ARN}:{name}"):
        plain = client.get_function_configuration(FunctionName=text)
        assert (f"{ARN}:{name}", "$LATEST") == (plain["FunctionArn"], plain["Version"])
        for given in (
            {"FunctionName": f"{text}:1"},
            {"FunctionName": text, "Qualifier": "1"},
            {"FunctionName": f"{text}:1", "Qualifier": "1"},
        ):
            one = client.get_function_configuration(**given)
            assert (f"{ARN}:{name}:1", "1") == (one["FunctionArn"], one["Version"])
    latest = client.get_function(FunctionName=name, Qualifier="$LATEST")["Configuration"]
    assert (f"{ARN}:{name}:$LATEST", "$LATEST") == (latest["FunctionArn"], latest["Version"])
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    alias = client.get_function(FunctionName=f"{name}:live")["Configuration"]
    assert (f"{ARN}:{name}:live", "1") == (alias["FunctionArn"], alias["Version"])


def test_a_name_that_means_nothing_is_not_found(
    open_client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Missing functions, versions and aliases, qualifiers that differ, other regions."""
    name = make_function()
    missing = f"Function not found: {ARN}"
    for function, qualifier, expected in (
        ("nowhere", "", (404, MISSING, f"{missing}:nowhere")),
        ("nowhere", "1", (404, MISSING, f"{missing}:nowhere:1")),
        ("nowhere", "live", (404, MISSING, f"{missing}:nowhere:live")),
        (name, "1", (404, MISSING, f"{missing}:{name}:1")),
        (name, "live", (404, MISSING, f"{missing}:{name}:live")),
        (
            f"{name}:1",
            "2",
            (
                400,
                INVALID,
                OTHER_QUALIFIER,
            ),
        ),
        (
            f"arn:aws:lambda:eu-west-1:000000000000:function:{name}",
            "",
            (
                404,
                MISSING,
                "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')",
            ),
        ),
    ):
        given = {"FunctionName": function} | ({"Qualifier": qualifier} if qualifier else {})

        assert expected == refused(open_client.get_function, **given)
        assert expected == refused(open_client.get_function_configuration, **given)
    assert (
        400,
        VALIDATION,
        constraint(
            "a b",
            "qualifier",
            r"Member must satisfy regular expression pattern: \$(LATEST(\.PUBLISHED)?)|"
            "[a-zA-Z0-9-_$]+",
        ),
    ) == refused(open_client.get_function, FunctionName=name, Qualifier="a b")


def test_a_function_is_changed_as_a_whole(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """What changes $LATEST takes no version: AWS's words for that."""
    name = make_function(Publish=True)
    for operation, parameters in (
        (client.update_function_configuration, {"Timeout": 5}),
        (client.update_function_code, {"ZipFile": ZIP}),
        (client.publish_version, {}),
    ):
        got = refused(operation, FunctionName=f"{name}:1", **parameters)
        assert (400, INVALID, UNQUALIFIED) == got


# Deleted


def test_a_deleted_function_is_gone_with_all_it_had(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Versions, aliases and tags go along; the answer is 204, and the name is free."""
    name = make_function(Publish=True, Tags={"team": "a"})
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    answer = client.delete_function(FunctionName=f"{ARN}:{name}")
    missing = (404, MISSING, f"Function not found: {ARN}:{name}")

    assert 204 == answer["ResponseMetadata"]["HTTPStatusCode"]
    assert missing == refused(client.get_function, FunctionName=name)
    assert missing == refused(client.delete_function, FunctionName=name)
    assert missing == refused(client.list_aliases, FunctionName=name)
    assert missing == refused(client.list_versions_by_function, FunctionName=name)
    assert 404 == refused(client.invoke, FunctionName=name, Qualifier="1")[0]
    make_function(FunctionName=name)
    again = client.get_function(FunctionName=name)
    assert "Tags" not in again
    assert [] == client.list_aliases(FunctionName=name)["Aliases"]
    assert "1" == client.publish_version(FunctionName=name)["Version"]


# Listed


def test_functions_are_listed_in_pages(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """By name, as many at a time as asked for, each once; without what AWS leaves out of lists."""
    names = sorted(make_function(FunctionName=f"listed-{number}") for number in range(5))
    pages = list(client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    first = client.list_functions(MaxItems=2)
    rest = client.list_functions(Marker=first["NextMarker"])

    found = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert names == found
    assert [2, 2, 1] == [len(page["Functions"]) for page in pages]
    assert names[2:] == [function["FunctionName"] for function in rest["Functions"]]
    assert "NextMarker" not in rest
    whole = told(client.get_function_configuration(FunctionName=names[0]))
    for left_out in ("State", "LastUpdateStatus", "RuntimeVersionConfig"):
        del whole[left_out]
    assert whole == first["Functions"][0]


def test_all_versions_are_listed_if_asked_for(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """With FunctionVersion=ALL each function is there with its versions, by qualified ARNs."""
    name = make_function(Publish=True)
    listed = client.list_functions(FunctionVersion="ALL")["Functions"]

    assert [f"{ARN}:{name}:$LATEST", f"{ARN}:{name}:1"] == [
        function["FunctionArn"] for function in listed
    ]


# Kept


def test_what_one_makes_another_finds(tmp_path: Path) -> None:
    """A state directory has the same functions for a server, for a second, and for an app."""
    state = str(tmp_path / "state")
    with serving("--state", state) as first:
        client = first.client()
        for name in ("kept", "gone"):
            client.create_function(
                **new(name, Publish=True, Tags={"team": "a"}, Description="of the server")
            )
            settled(client, name)
        client.create_function(**new("elsewhere", Runtime=ELSEWHERE))
        settled(client, "elsewhere")
        client.create_alias(FunctionName="kept", Name="live", FunctionVersion="1")
        client.delete_function(FunctionName="gone")
        before = client.get_function(FunctionName="kept")
        client.close()
        first.stop()

    async def embedded() -> list[Any]:
        async with miniλ.Supervisor(state=state) as supervisor:
            responses = [
                await supervisor.invoke(name, 1) for name in ("kept", "kept:1", "kept:live")
            ]
            await supervisor.create_function("embedded", tmp_path / "code", "app.handler")
            await supervisor.update_function_configuration("kept", memory_size=256)
            names = [function.name for function in supervisor.list_functions()]
        return [names, [(each.payload, each.executed_version) for each in responses]]

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(ECHO)
    names, answers = asyncio.run(embedded())
    assert ["elsewhere", "embedded", "kept"] == names
    assert [(1, "$LATEST"), (1, "1"), (1, "1")] == answers
    with serving("--state", state) as second:
        client = second.client()
        after = client.get_function(FunctionName="kept")
        alias = client.get_alias(FunctionName="kept", Name="live")
        payloads = [
            answered(client, name, Payload=b"2") for name in ("kept", "kept:live", "embedded")
        ]
        failed = client.get_function_configuration(FunctionName="elsewhere")
        made = download(client, "embedded")
        client.close()

    assert (
        256 == after["Configuration"].pop("MemorySize") != before["Configuration"].pop("MemorySize")
    )
    for changed in ("RevisionId", "LastModified"):
        del after["Configuration"][changed], before["Configuration"][changed]
    assert before["Configuration"] == after["Configuration"]
    assert {"team": "a"} == after["Tags"]
    assert "1" == alias["FunctionVersion"]
    assert [2, 2, 2] == payloads
    assert ("Failed", "InvalidRuntime") == (failed["State"], failed["StateReasonCode"])
    assert b"PK" == made[:2]


def test_a_change_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    """A server that is killed in the middle of a creation has that function when it comes again.

    And of what it had started, an interpreter that never says anything, nothing is left.
    """
    state = str(tmp_path / "state")
    os.mkfifo(tmp_path / "gate")
    program = tmp_path / OTHER
    pid = tmp_path / "pid"
    program.write_text(
        f"#!/bin/sh\necho $$ > {pid}.new\nmv {pid}.new {pid}\nread _ < {tmp_path}/gate\n"
    )
    program.chmod(0o755)
    with serving("--state", state, PATH=f"{tmp_path}:{os.environ['PATH']}") as first:
        client = first.client()
        client.create_function(**new("cut", Runtime=OTHER))
        assert "Pending" == client.get_function_configuration(FunctionName="cut")["State"]
        client.close()
        until(pid.exists)
        first.process.kill()
        first.process.wait()
    program.unlink()
    left = Path("/proc", pid.read_text().strip())
    assert left.exists()
    with serving("--state", state) as second:
        client = second.client()
        after = settled(client, "cut")
        client.close()

    assert after["State"] in {"Active", "Failed"}
    until(lambda: not left.exists())  # whoever adopted it buries it


def test_who_deletes_while_listing_misses_nothing(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Each page is deleted before the next one is asked for, and all are gone in the end."""
    made = {make_function(FunctionName=f"paged{number}") for number in range(7)}
    pages = client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2})

    seen = set()
    for page in pages:
        for function in page["Functions"]:
            if function["FunctionName"] in made:
                seen.add(function["FunctionName"])
                client.delete_function(FunctionName=function["FunctionName"])

    assert made == seen


def test_json_logs_are_a_setting(client: BaseClient, make_function: Callable[..., str]) -> None:
    """LoggingConfig says format and level, and the function's records are like that."""
    source = (
        "import logging\n"
        "def handler(event, context):\n"
        "    logging.getLogger().info('not shown')\n"
        "    logging.getLogger().warning('shown')\n"
    )
    name = make_function(source, LoggingConfig={"LogFormat": "JSON", "ApplicationLogLevel": "WARN"})

    answer = client.invoke(FunctionName=name, LogType="Tail")

    lines = base64.b64decode(answer["LogResult"]).decode().splitlines()
    (record,) = [json.loads(line) for line in lines if line.startswith("{")]
    assert ("WARNING", "shown") == (record["level"], record["message"])
