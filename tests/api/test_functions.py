"""Functions as AWS's clients have them: created, read, changed, listed and deleted."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import urllib.request
from typing import TYPE_CHECKING, Any

from botocore.exceptions import WaiterError

from tests.api.conftest import ECHO, REGION, ROLE, RUNTIME, archive, updated
from tests.api.refusals import INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

ARN = f"arn:aws:lambda:{REGION}:000000000000:function"
VALIDATION = "ValidationException"
UNQUALIFIED = (
    "This operation is permitted on Lambda functions only. Aliases and versions do not support "
    "this operation. Please specify either a function name or an unqualified function ARN."
)
NO_ARCHIVE = "Could not unzip uploaded file. Please check your file, then try to upload again."
OTHER_QUALIFIER = (
    "The derived qualifier from the function name does not match the specified qualifier."
)
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


def new(name: str, **parameters: Any) -> dict[str, Any]:
    """Return the parameters of a function that can be created; None takes one away."""
    request = {
        "FunctionName": name,
        "Runtime": RUNTIME,
        "Role": ROLE,
        "Handler": "app.handler",
        "Code": {"ZipFile": ZIP},
        **parameters,
    }
    return {key: value for key, value in request.items() if value is not None}


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
    """Return the content of the link that GetFunction returns."""
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
    members = {
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
        **members,
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        LoggingConfig={"LogFormat": "JSON", "SystemLogLevel": "WARN"},
        Tags={"team": "a"},
    )
    answer = client.get_function(FunctionName=name)
    configuration = answer["Configuration"]

    assert members == {key: configuration[key] for key in members}
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
    """An empty target, key or list is left out; an empty network is returned as such."""
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


# Changed


def test_a_change_is_in_progress_and_then_successful(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The answer is InProgress with AWS's reason; then the function has the change."""
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
    """It answers with what would be, and publishes nothing, also with Publish."""
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


# Names


def test_a_function_has_many_names(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Name, partial ARN, ARN: each means it, alone and with a qualifier in it or beside it."""
    name = make_function(Publish=True)
    short = f"000000000000:function:{name}"
    regional = f"{REGION}:000000000000:function:{name}"
    for text in (name, f"function:{name}", short, regional, f"{ARN}:{name}"):
        plain = client.get_function_configuration(FunctionName=text)
        assert (f"{ARN}:{name}", "$LATEST") == (plain["FunctionArn"], plain["Version"])
        for request in (
            {"FunctionName": f"{text}:1"},
            {"FunctionName": text, "Qualifier": "1"},
            {"FunctionName": f"{text}:1", "Qualifier": "1"},
        ):
            one = client.get_function_configuration(**request)
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
        request = {"FunctionName": function} | ({"Qualifier": qualifier} if qualifier else {})

        assert expected == refused(open_client.get_function, **request)
        assert expected == refused(open_client.get_function_configuration, **request)
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
    """By name, MaxItems at a time, each once; without what AWS leaves out of lists."""
    names = sorted(make_function(FunctionName=f"listed-{number}") for number in range(5))
    pages = list(client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    first = client.list_functions(MaxItems=2)
    rest = client.list_functions(Marker=first["NextMarker"])

    listed = [function["FunctionName"] for page in pages for function in page["Functions"]]
    assert names == listed
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


def test_who_deletes_while_listing_misses_nothing(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Each page is deleted before the next one is read, and all are gone in the end."""
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
