"""Versions and aliases as AWS's clients have them: published, pointed at, weighed, invoked."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import ECHO, REGION, Server, archive, updated
from tests.api.refusals import CONFLICT, INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

ARN = f"arn:aws:lambda:{REGION}:000000000000:function"
VALIDATION = "ValidationException"
PRECONDITION = "PreconditionFailedException"
REVISION = (
    "The Revision Id provided does not match the latest Revision Id. Call the "
    "GetFunction/GetAlias API to retrieve the latest Revision Id"
)
# Who it is, by the code, by its environment, and as it was asked for.
WHO = """
import os
def handler(event, context):
    return [
        {number},
        os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
        context.function_version,
        context.invoked_function_arn,
        context.log_stream_name.partition("[")[2].partition("]")[0],
    ]
"""


@pytest.fixture(scope="module")
def open_client(server: Server) -> Iterator[BaseClient]:
    """Return a client that lets the server find what is wrong."""
    opened = server.client(parameter_validation=False)
    yield opened
    opened.close()


def who(number: int) -> bytes:
    """Return the code of a function that answers with its name."""
    return archive(app=WHO.replace("{number}", str(number)))


@pytest.fixture
def three(client: BaseClient, make_function: Callable[..., str]) -> str:
    """Return a function with versions 1 and 2, of code 1 and 2, and $LATEST, of code 3."""
    name = make_function(Code={"ZipFile": who(1)}, Publish=True)
    for number in (2, 3):
        client.update_function_code(FunctionName=name, ZipFile=who(number), Publish=number == 2)
        updated(client, name)
    return name


def invoked(client: BaseClient, name: str, **parameters: Any) -> tuple[str, list[Any]]:
    """Invoke a function; return the version that ran and what it answered."""
    answer = client.invoke(FunctionName=name, **parameters)
    payload = json.load(answer["Payload"])
    assert "FunctionError" not in answer, payload
    return answer["ExecutedVersion"], payload


# Versions


def test_a_version_is_told_as_aws_tells_it(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """It is the function with a number, a qualified ARN and a description of its own."""
    name = make_function(Description="of the function", Publish=False)
    latest = told(client.get_function_configuration(FunctionName=name))
    answer = client.publish_version(FunctionName=name, Description="of the version")

    assert 201 == answer["ResponseMetadata"]["HTTPStatusCode"]
    expected = {
        **latest,
        "FunctionArn": f"{ARN}:{name}:1",
        "Version": "1",
        "Description": "of the version",
        "RevisionId": answer["RevisionId"],
    }
    assert latest["RevisionId"] != answer["RevisionId"]
    assert expected == told(answer)
    assert expected == told(client.get_function_configuration(FunctionName=name, Qualifier="1"))
    assert latest == told(client.get_function_configuration(FunctionName=name))


def test_a_version_stays_as_it_was_published(client: BaseClient, three: str) -> None:
    """Each runs its own code, knows its number, and reports it in header and log stream."""
    for qualifier, expected in (
        ("1", [1, "1", "1", f"{ARN}:{three}:1", "1"]),
        ("2", [2, "2", "2", f"{ARN}:{three}:2", "2"]),
        ("$LATEST", [3, "$LATEST", "$LATEST", f"{ARN}:{three}:$LATEST", "$LATEST"]),
    ):
        assert (expected[1], expected) == invoked(client, three, Qualifier=qualifier)
        assert (expected[1], expected) == invoked(client, f"{three}:{qualifier}")
        assert (expected[1], expected) == invoked(client, f"{ARN}:{three}:{qualifier}")
    plain = [3, "$LATEST", "$LATEST", f"{ARN}:{three}", "$LATEST"]
    assert ("$LATEST", plain) == invoked(client, three)
    assert ("$LATEST", plain) == invoked(client, f"{ARN}:{three}")


def test_nothing_new_is_published_twice(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Without a change the last version is the answer, also with another description."""
    name = make_function()
    first = told(client.publish_version(FunctionName=name))
    second = told(client.publish_version(FunctionName=name, Description="another"))
    client.update_function_configuration(FunctionName=name, Timeout=9)
    updated(client, name)
    third = client.publish_version(FunctionName=name)

    assert first == second
    assert ("2", 9) == (third["Version"], third["Timeout"])


def test_a_version_is_of_the_code_and_the_state_that_is_meant(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """A hash or a revision that is not the current one publishes nothing."""
    name = make_function()
    now = client.get_function_configuration(FunctionName=name)
    digest = now["CodeSha256"]

    assert (
        400,
        INVALID,
        (
            "CodeSHA256 (other) is different from current CodeSHA256 in $LATEST "
            f"({digest}). Please try again with the CodeSHA256 in $LATEST."
        ),
    ) == refused(client.publish_version, FunctionName=name, CodeSha256="other")
    assert (412, PRECONDITION, REVISION) == refused(
        client.publish_version, FunctionName=name, RevisionId="other"
    )
    assert (404, MISSING, f"Function not found: {ARN}:nowhere") == refused(
        client.publish_version, FunctionName="nowhere"
    )
    answer = client.publish_version(
        FunctionName=name, CodeSha256=digest, RevisionId=now["RevisionId"]
    )
    assert "1" == answer["Version"]


def test_versions_are_listed_in_their_order(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """$LATEST first, then by number and not by letter; in pages; the last one is the newest."""
    name = make_function()
    for timeout in range(1, 12):
        client.update_function_configuration(FunctionName=name, Timeout=timeout)
        updated(client, name)
        client.publish_version(FunctionName=name)
    pages = client.get_paginator("list_versions_by_function").paginate(
        FunctionName=name, PaginationConfig={"PageSize": 5}
    )
    listed = [version for page in pages for version in page["Versions"]]
    expected = ["$LATEST", *map(str, range(1, 12))]

    assert expected == [version["Version"] for version in listed]
    assert [f"{ARN}:{name}:{version}" for version in expected] == [
        version["FunctionArn"] for version in listed
    ]
    whole = told(client.get_function_configuration(FunctionName=name, Qualifier="11"))
    for left_out in ("State", "LastUpdateStatus", "RuntimeVersionConfig"):
        del whole[left_out]
    assert whole == listed[-1]


def test_a_number_is_not_given_twice(client: BaseClient, three: str) -> None:
    """A version that is deleted is gone for all operations, and its number is not used again."""
    answer = client.delete_function(FunctionName=three, Qualifier="2")
    missing = (404, MISSING, f"Function not found: {ARN}:{three}:2")

    assert 204 == answer["ResponseMetadata"]["HTTPStatusCode"]
    assert missing == refused(client.invoke, FunctionName=three, Qualifier="2")
    assert missing == refused(client.get_function, FunctionName=three, Qualifier="2")
    assert "1" == invoked(client, f"{three}:1")[0]
    assert "3" == client.publish_version(FunctionName=three)["Version"]


def test_what_is_in_use_is_not_deleted(client: BaseClient, three: str) -> None:
    """Neither $LATEST alone, nor an alias this way, nor a version that an alias points to."""
    client.create_alias(
        FunctionName=three,
        Name="live",
        FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.1}},
    )
    latest = "$LATEST version cannot be deleted without deleting the function."
    alias = "Deletion of aliases is not currently supported."

    assert (400, INVALID, latest) == refused(
        client.delete_function, FunctionName=three, Qualifier="$LATEST"
    )
    assert (400, INVALID, alias) == refused(client.delete_function, FunctionName=f"{three}:live")
    for version in ("1", "2"):
        status, code, message = refused(
            client.delete_function, FunctionName=three, Qualifier=version
        )
        assert (409, CONFLICT) == (status, code)
        assert message.startswith(f"Version {version} is in use by the aliases live")


# Aliases


def test_an_alias_is_told_as_aws_tells_it(client: BaseClient, three: str) -> None:
    """Created, read, changed, listed: the same members; those that are left out stay."""
    answer = client.create_alias(FunctionName=three, Name="live", FunctionVersion="1")

    assert 201 == answer["ResponseMetadata"]["HTTPStatusCode"]
    expected = {
        "AliasArn": f"{ARN}:{three}:live",
        "Name": "live",
        "FunctionVersion": "1",
        "Description": "",
        "RevisionId": answer["RevisionId"],
    }
    assert expected == told(answer)
    assert expected == told(client.get_alias(FunctionName=three, Name="live"))
    changed = told(
        client.update_alias(
            FunctionName=three,
            Name="live",
            Description="what is live",
            RoutingConfig={"AdditionalVersionWeights": {"2": 0.25}},
            RevisionId=answer["RevisionId"],
        )
    )
    assert changed.pop("RevisionId") != expected.pop("RevisionId")
    expected |= {
        "Description": "what is live",
        "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.25}},
    }
    assert expected == changed
    moved = told(client.update_alias(FunctionName=three, Name="live", Description=""))
    assert {**expected, "Description": "", "RevisionId": moved["RevisionId"]} == moved
    one = told(
        client.update_alias(
            FunctionName=three,
            Name="live",
            FunctionVersion="2",
            RoutingConfig={"AdditionalVersionWeights": {}},
        )
    )
    assert "RoutingConfig" not in one
    assert [one] == client.list_aliases(FunctionName=three)["Aliases"]
    configuration = client.get_function_configuration(FunctionName=f"{three}:live")
    assert ("2", f"{ARN}:{three}:live") == (configuration["Version"], configuration["FunctionArn"])


def test_an_alias_runs_the_version_that_it_points_to(client: BaseClient, three: str) -> None:
    """The function sees the alias in its ARN and else the version; moving it is at once."""
    client.create_alias(FunctionName=three, Name="live", FunctionVersion="1")
    arn = f"{ARN}:{three}:live"

    assert ("1", [1, "1", "1", arn, "1"]) == invoked(client, three, Qualifier="live")
    client.update_alias(FunctionName=three, Name="live", FunctionVersion="2")
    assert ("2", [2, "2", "2", arn, "2"]) == invoked(client, arn)
    client.update_alias(FunctionName=three, Name="live", FunctionVersion="$LATEST")
    assert ("$LATEST", [3, "$LATEST", "$LATEST", arn, "$LATEST"]) == invoked(
        client, f"{three}:live"
    )


def test_weights_are_shares_of_calls(client: BaseClient, server: Server, three: str) -> None:
    """Of 200 calls at 0.5 each version has 65 to 135: else one in a million has happened."""
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    client.create_alias(FunctionName=three, Name="live", FunctionVersion="1", RoutingConfig=weights)
    callers = server.client(max_pool_connections=4)

    def call(_: int) -> str:
        ran, names = invoked(callers, three, Qualifier="live")
        assert [int(ran), ran] == names[:2]
        return ran

    with ThreadPoolExecutor(4) as threads:
        counts = Counter(threads.map(call, range(200)))
    callers.close()

    assert {"1", "2"} == counts.keys()
    assert 65 <= counts["2"] <= 135
    for weight, expected in ((0.0, "1"), (1.0, "2")):
        client.update_alias(
            FunctionName=three,
            Name="live",
            RoutingConfig={"AdditionalVersionWeights": {"2": weight}},
        )
        assert {expected} == {invoked(client, f"{three}:live")[0] for _ in range(10)}


_KEYS = (
    "failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length "
    "less than or equal to 1024, Member must have length greater than or equal to 1, Member must "
    "satisfy regular expression pattern: [0-9]+, Member must not be null]"
)
_VALUES = (
    "failed to satisfy constraint: Map value must satisfy constraint: [Member must have value less "
    "than or equal to 1.0, Member must have value greater than or equal to 0.0, Member must not "
    "be null]"
)
ALIASES: list[tuple[dict[str, Any], int, str, str]] = [
    (
        {"Name": "1"},
        400,
        VALIDATION,
        (
            "1 validation error detected: Value '1' at 'name' failed to satisfy constraint: Member "
            "must satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)"
        ),
    ),
    (
        {"FunctionVersion": "live"},
        400,
        VALIDATION,
        (
            "1 validation error detected: Value 'live' at 'functionVersion' failed to satisfy "
            r"constraint: Member must satisfy regular expression pattern: (\$LATEST(\.PUBLISHED)?"
            "|[0-9]+)"
        ),
    ),
    ({"FunctionVersion": "7"}, 404, MISSING, "Function not found: {arn}:7"),
    ({"Weights": {"7": 0.5}}, 404, MISSING, "Function not found: {arn}:7"),
    (
        {"Weights": {"1": 0.5}},
        400,
        INVALID,
        (
            "Invalid function version 1. Function version 1 is already included in routing "
            "configuration."
        ),
    ),
    (
        {"Weights": {"1": 0.5}, "FunctionVersion": "$LATEST"},
        400,
        INVALID,
        "$LATEST is not supported for an alias pointing to more than 1 version",
    ),
    (
        {"Weights": {"1": 0.3, "2": 0.3}},
        400,
        INVALID,
        "Number of items in AdditionalVersionWeights cannot be greater than 1",
    ),
    (
        {"Weights": {"2": 1.1}},
        400,
        VALIDATION,
        (
            "1 validation error detected: Value '{2=1.1}' at "
            f"'routingConfig.additionalVersionWeights' {_VALUES}"
        ),
    ),
    (
        {"Weights": {"$LATEST": 0.1}},
        400,
        VALIDATION,
        (
            "1 validation error detected: Value '{$LATEST=0.1}' at "
            f"'routingConfig.additionalVersionWeights' {_KEYS}"
        ),
    ),
]


@pytest.mark.parametrize(("changes", "status", "code", "message"), ALIASES)
def test_an_alias_that_cannot_be_is_refused(
    open_client: BaseClient,
    three: str,
    changes: dict[str, Any],
    status: int,
    code: str,
    message: str,
) -> None:
    """Neither a new one nor a change of one; in AWS's words."""
    request = {"FunctionName": three, "Name": "live", "FunctionVersion": "1", **changes}
    if "Weights" in request:
        request["RoutingConfig"] = {"AdditionalVersionWeights": request.pop("Weights")}
    expected = (status, code, message.replace("{arn}", f"{ARN}:{three}"))

    assert expected == refused(open_client.create_alias, **request)
    assert [] == open_client.list_aliases(FunctionName=three)["Aliases"]
    if "Name" not in changes:
        before = told(
            open_client.create_alias(FunctionName=three, Name="live", FunctionVersion="1")
        )
        assert expected == refused(open_client.update_alias, **request)
        assert before == told(open_client.get_alias(FunctionName=three, Name="live"))


def test_an_alias_is_made_once_and_changed_as_it_was_read(client: BaseClient, three: str) -> None:
    """A second of its name, one that is not there, a revision that is not the current one."""
    client.create_alias(FunctionName=three, Name="live", FunctionVersion="1")

    assert (409, CONFLICT, f"Alias already exists: {ARN}:{three}:live") == refused(
        client.create_alias, FunctionName=three, Name="live", FunctionVersion="2"
    )
    assert (404, MISSING, f"Cannot find alias arn: {ARN}:{three}:test") == refused(
        client.get_alias, FunctionName=three, Name="test"
    )
    assert (404, MISSING, f"Alias not found: {ARN}:{three}:test") == refused(
        client.update_alias, FunctionName=three, Name="test", FunctionVersion="1"
    )
    assert (412, PRECONDITION, REVISION) == refused(
        client.update_alias, FunctionName=three, Name="live", RevisionId="other"
    )
    assert (404, MISSING, f"Function not found: {ARN}:nowhere") == refused(
        client.create_alias, FunctionName="nowhere", Name="live", FunctionVersion="1"
    )
    assert "1" == client.get_alias(FunctionName=three, Name="live")["FunctionVersion"]


def test_an_alias_is_deleted_and_deleted_again(client: BaseClient, three: str) -> None:
    """The versions stay; deleting an alias again is no error."""
    client.create_alias(FunctionName=three, Name="live", FunctionVersion="1")
    for _ in range(2):
        answer = client.delete_alias(FunctionName=three, Name="live")
        assert 204 == answer["ResponseMetadata"]["HTTPStatusCode"]

    assert (404, MISSING, f"Function not found: {ARN}:{three}:live") == refused(
        client.invoke, FunctionName=three, Qualifier="live"
    )
    assert "1" == invoked(client, f"{three}:1")[0]


def test_aliases_are_listed_by_name_in_pages_or_by_version(client: BaseClient, three: str) -> None:
    """All of them, each once; with a version those that point to it first of all."""
    for name, version in (("c", "1"), ("a", "1"), ("b", "2"), ("d", "$LATEST")):
        client.create_alias(FunctionName=three, Name=name, FunctionVersion=version)
    pages = list(
        client.get_paginator("list_aliases").paginate(
            FunctionName=three, PaginationConfig={"PageSize": 3}
        )
    )
    of_one = client.list_aliases(FunctionName=three, FunctionVersion="1")["Aliases"]

    assert [3, 1] == [len(page["Aliases"]) for page in pages]
    assert ["a", "b", "c", "d"] == [alias["Name"] for page in pages for alias in page["Aliases"]]
    assert ["a", "c"] == [alias["Name"] for alias in of_one]


def test_versions_do_not_share_workers(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """What a version keeps in its globals no other version sees, though their code is the same."""
    source = "calls = []\ndef handler(event, context):\n    calls.append(event)\n    return calls\n"
    name = make_function(source, Publish=True)

    assert ("1", ["a"]) == invoked(client, f"{name}:1", Payload=b'"a"')
    assert ("$LATEST", ["b"]) == invoked(client, name, Payload=b'"b"')
    assert ("1", ["a", "c"]) == invoked(client, f"{name}:1", Payload=b'"c"')
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    assert ("1", ["a", "c", "d"]) == invoked(client, f"{name}:live", Payload=b'"d"')
    client.update_function_code(FunctionName=name, ZipFile=archive(app=ECHO))
    updated(client, name)
    assert ("1", ["a", "c", "d", "e"]) == invoked(client, f"{name}:1", Payload=b'"e"')
