"""Functions, changes and code that AWS's clients are refused, in the words of AWS."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.gateway.service_model.shapes import Runtime
from tests.api.conftest import REGION, Server, archive
from tests.api.refusals import CONFLICT, INVALID, MISSING, refused, told
from tests.api.test_functions import (
    ARN,
    NO_ARCHIVE,
    TELL,
    UNQUALIFIED,
    VALIDATION,
    ZIP,
    answered,
    constraint,
    new,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

ENVIRONMENT = (
    "Lambda was unable to configure your environment variables because the environment variables "
    "you have provided "
)
REVISION = (
    "The Revision Id provided does not match the latest Revision Id. Call the "
    "GetFunction/GetAlias API to retrieve the latest Revision Id"
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
NO_IMAGES = "Container images cannot run here: use the package type Zip"
TOO_MANY_LAYERS = "Cannot reference more than 5 layers."
MANY_LAYERS = [f"arn:aws:lambda:{REGION}:000000000000:layer:l{number}:1" for number in range(6)]

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
    """In AWS's words if they are known; and there is no such function afterwards."""
    request = new("never", **changes)

    assert (status, code, message) == refused(open_client.create_function, **request)
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
    request = {"FunctionName": name, "Description": "new", **changes}
    got = refused(open_client.update_function_configuration, **request)

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
    """Whether it was taken or refused, no file of it is left in the uploads."""
    name = make_function()
    refused(client.create_function, **new(name))
    refused(client.create_function, **new("never", Code={"ZipFile": b"no archive"}))
    refused(client.update_function_code, FunctionName="nowhere", ZipFile=ZIP)

    assert [] == list((server.state / "uploads").iterdir())
