"""Layers as AWS's clients have them: published, listed, deleted, given to functions, permitted."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import archive, updated

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

PLACE = "arn:aws:lambda:us-east-1:000000000000"
MISSING = "The resource you requested does not exist."
# Answers with the word of the module `tool`, wherever that is from.
ASKING = "def handler(event, context):\n    import tool\n    return tool.word\n"


@pytest.fixture(scope="module", autouse=True)
def _connected(client: BaseClient) -> None:
    """Have the client's connection before the first test, which would seem to leave it behind."""
    client.list_layers()


def tool(word: str) -> bytes:
    """Return the archive of a layer with the module `tool`."""
    return archive(**{"python/tool": f"word = {word!r}"})


def publish(client: BaseClient, name: str, content: bytes = b"", **parameters: Any) -> Any:
    """Publish a version of a layer; return the answer."""
    content = content or tool(name)
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": content}, **parameters)


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[int, str, str]:
    """Return status, code and message of what a client raised."""
    answer = error.value.response
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status, answer["Error"]["Code"], answer["Error"]["Message"]


def told(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what an answer says, without what is another each time."""
    answer = {**answer, "Content": {**answer["Content"], "Location": ""}}
    del answer["ResponseMetadata"]
    return answer


def answered(client: BaseClient, name: str) -> Any:
    """Invoke a function and return what it answers."""
    answer = client.invoke(FunctionName=name)
    payload = json.load(answer["Payload"])
    assert "FunctionError" not in answer, payload
    return payload


def test_a_published_version_is_told_as_aws_tells_it(client: BaseClient) -> None:
    """All that was said is in the answer; so are sha256 and size of the archive itself."""
    content = tool("said")
    answer = publish(
        client,
        "said",
        content,
        Description="what it is",
        LicenseInfo="MIT",
        CompatibleRuntimes=["python3.12", "python3.13"],
        CompatibleArchitectures=["x86_64"],
    )
    plain = publish(client, "plain")

    assert 201 == answer["ResponseMetadata"]["HTTPStatusCode"]
    created = answer["CreatedDate"]
    assert len("2026-01-31T12:00:00.000+0000") == len(created)
    expected = {
        "Content": {
            "Location": "",
            "CodeSha256": base64.b64encode(hashlib.sha256(content).digest()).decode(),
            "CodeSize": len(content),
        },
        "LayerArn": f"{PLACE}:layer:said",
        "LayerVersionArn": f"{PLACE}:layer:said:1",
        "Description": "what it is",
        "CreatedDate": created,
        "Version": 1,
        "CompatibleRuntimes": ["python3.12", "python3.13"],
        "LicenseInfo": "MIT",
        "CompatibleArchitectures": ["x86_64"],
    }
    assert expected == told(answer)
    unsaid = {"CompatibleRuntimes", "LicenseInfo", "CompatibleArchitectures"}
    assert expected.keys() - unsaid == told(plain).keys()
    assert "" == plain["Description"]


def test_the_archive_can_be_downloaded(client: BaseClient) -> None:
    """Location is a link to the very bytes that were uploaded, without a key."""
    content = tool("again")
    location = publish(client, "again", content)["Content"]["Location"]
    with urllib.request.urlopen(location) as answer:
        assert content == answer.read()


def test_a_version_is_found_by_name_and_by_arn(client: BaseClient) -> None:
    """Whichever way it is asked for, the answer is that of its publication."""
    expected = told(publish(client, "found"))
    arn = f"{PLACE}:layer:found"
    answers = [
        client.get_layer_version(LayerName="found", VersionNumber=1),
        client.get_layer_version(LayerName=arn, VersionNumber=1),
        client.get_layer_version_by_arn(Arn=f"{arn}:1"),
    ]

    assert [expected] * 3 == [told(answer) for answer in answers]


def test_what_is_not_there_is_not_found(client: BaseClient) -> None:
    """No such layer and no such version are one error, in AWS's words."""
    publish(client, "there")
    asks = [
        lambda: client.get_layer_version(LayerName="there", VersionNumber=2),
        lambda: client.get_layer_version(LayerName="nowhere", VersionNumber=1),
        lambda: client.get_layer_version_by_arn(Arn=f"{PLACE}:layer:nowhere:1"),
    ]
    errors = []
    for ask in asks:
        with pytest.raises(ClientError) as error:
            ask()
        errors.append(refused(error))

    assert [(404, "ResourceNotFoundException", MISSING)] * 3 == errors


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_begin_at_one(client: BaseClient, number: int) -> None:
    """A number below 1 is refused by each operation that takes one."""
    asks = [
        client.get_layer_version,
        client.delete_layer_version,
        client.get_layer_version_policy,
    ]
    errors = []
    for ask in asks:
        with pytest.raises(ClientError) as error:
            ask(LayerName="any", VersionNumber=number)
        errors.append(refused(error))

    message = "Layer Version Cannot be less than 1."
    assert [(400, "InvalidParameterValueException", message)] * 3 == errors


def test_content_that_is_no_archive_is_refused(client: BaseClient) -> None:
    """Nothing is published of it, and no number is used up."""
    with pytest.raises(ClientError) as error:
        publish(client, "damaged", b"this is no zip")
    status, code, _ = refused(error)

    assert (400, "InvalidParameterValueException") == (status, code)
    assert 1 == publish(client, "damaged")["Version"]


def test_a_number_is_never_given_twice(client: BaseClient) -> None:
    """Versions count up, also when the last one, or all of the layer, was deleted."""
    numbers = [publish(client, "counted")["Version"] for _ in range(2)]
    for number in (2, 1):
        client.delete_layer_version(LayerName="counted", VersionNumber=number)
    numbers.append(publish(client, "counted")["Version"])

    assert [1, 2, 3] == numbers


def test_a_deletion_may_be_repeated(client: BaseClient) -> None:
    """Deleting what is not there succeeds, as on AWS; what is there is gone at once."""
    publish(client, "deleted")
    statuses = [
        client.delete_layer_version(LayerName=name, VersionNumber=1)["ResponseMetadata"][
            "HTTPStatusCode"
        ]
        for name in ("deleted", "deleted", "never-was")
    ]
    with pytest.raises(ClientError) as error:
        client.get_layer_version(LayerName="deleted", VersionNumber=1)

    assert [204] * 3 == statuses
    assert (404, "ResourceNotFoundException", MISSING) == refused(error)
    assert [] == client.list_layer_versions(LayerName="deleted")["LayerVersions"]


def test_versions_are_listed_newest_first(client: BaseClient) -> None:
    """By number, not by text, page by page, and only those that say they are compatible."""
    for number in range(1, 12):
        runtime = "python3.12" if number % 2 else "python3.13"
        architecture = "x86_64" if number < 4 else "arm64"
        publish(
            client,
            "many",
            CompatibleRuntimes=[runtime],
            CompatibleArchitectures=[architecture],
        )

    def numbers(**filters: str) -> list[int]:
        pages = client.get_paginator("list_layer_versions").paginate(
            LayerName="many", PaginationConfig={"PageSize": 4}, **filters
        )
        return [version["Version"] for page in pages for version in page["LayerVersions"]]

    assert list(range(11, 0, -1)) == numbers()
    assert [10, 8, 6, 4, 2] == numbers(CompatibleRuntime="python3.13")
    assert [3, 2, 1] == numbers(CompatibleArchitecture="x86_64")
    assert [2] == numbers(CompatibleRuntime="python3.13", CompatibleArchitecture="x86_64")
    (last,) = client.list_layer_versions(LayerName="many", MaxItems=1)["LayerVersions"]
    expected = told(client.get_layer_version(LayerName="many", VersionNumber=11))
    del expected["Content"], expected["LayerArn"]
    assert expected == last


def test_layers_are_listed_with_their_newest_version(client: BaseClient) -> None:
    """With a filter it is the newest that matches; a layer without one is not in the list."""
    for runtime in ("python3.12", "python3.13"):
        publish(client, "listed-both", CompatibleRuntimes=[runtime])
    publish(client, "listed-one", CompatibleRuntimes=["python3.12"])

    def listed(**filters: str) -> dict[str, int]:
        pages = client.get_paginator("list_layers").paginate(**filters)
        layers = [layer for page in pages for layer in page["Layers"]]
        for layer in layers:
            assert f"{PLACE}:layer:{layer['LayerName']}" == layer["LayerArn"]
        return {
            layer["LayerName"]: layer["LatestMatchingVersion"]["Version"]
            for layer in layers
            if layer["LayerName"].startswith("listed-")
        }

    assert {"listed-both": 2, "listed-one": 1} == listed()
    assert {"listed-both": 1, "listed-one": 1} == listed(CompatibleRuntime="python3.12")
    assert {"listed-both": 2} == listed(CompatibleRuntime="python3.13")
    assert {} == listed(CompatibleArchitecture="arm64")


def test_a_function_has_its_layers(client: BaseClient, make_function: Callable[..., str]) -> None:
    """They are in its configuration, in order, and in its workers: the last one is on top."""
    one, two = publish(client, "under"), publish(client, "over")
    arns = [one["LayerVersionArn"], two["LayerVersionArn"]]
    name = make_function(ASKING, Layers=arns)
    configuration = client.get_function_configuration(FunctionName=name)
    first = answered(client, name)
    client.update_function_configuration(FunctionName=name, Layers=arns[::-1])
    updated(client, name)
    second = answered(client, name)

    sizes = [version["Content"]["CodeSize"] for version in (one, two)]
    expected = [{"Arn": arn, "CodeSize": size} for arn, size in zip(arns, sizes, strict=True)]
    assert expected == configuration["Layers"]
    assert ("over", "under") == (first, second)


def test_layers_are_taken_away_by_an_empty_list(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """An update without Layers keeps them; an empty list removes them."""
    name = make_function(ASKING, Layers=[publish(client, "taken")["LayerVersionArn"]])
    client.update_function_configuration(FunctionName=name, Description="nothing of layers")
    kept = updated(client, name)
    client.update_function_configuration(FunctionName=name, Layers=[])
    none = updated(client, name)
    failure = json.load(client.invoke(FunctionName=name)["Payload"])

    assert 1 == len(kept["Layers"])
    assert "Layers" not in none
    assert "No module named 'tool'" == failure["errorMessage"]


def test_a_function_keeps_a_layer_that_is_deleted(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Its next workers have it too; no other function can attach it any more."""
    arn = publish(client, "kept")["LayerVersionArn"]
    name = make_function(ASKING, Layers=[arn])
    before = answered(client, name)
    client.delete_layer_version(LayerName="kept", VersionNumber=1)
    client.update_function_configuration(FunctionName=name, MemorySize=256)
    configuration = updated(client, name)
    with pytest.raises(ClientError) as error:
        make_function(ASKING, Layers=[arn])

    assert [arn] == [layer["Arn"] for layer in configuration["Layers"]]
    assert ("kept", "kept") == (before, answered(client, name))
    message = f"Layer version {arn} does not exist."
    assert (400, "InvalidParameterValueException", message) == refused(error)


def test_layers_of_a_function_are_five_and_differ(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Six layers, and two versions of one, are refused, in AWS's words."""
    arns = [publish(client, f"one-of-six-{n}")["LayerVersionArn"] for n in range(6)]
    name = make_function(ASKING.replace("tool", "json").replace(".word", ".__name__"))
    with pytest.raises(ClientError) as too_many:
        client.update_function_configuration(FunctionName=name, Layers=arns)
    publish(client, "one-of-six-0")
    both = [arns[0], f"{PLACE}:layer:one-of-six-0:2"]
    with pytest.raises(ClientError) as twice:
        client.update_function_configuration(FunctionName=name, Layers=both)
    client.update_function_configuration(FunctionName=name, Layers=arns[:5])

    code = "InvalidParameterValueException"
    assert (400, code, "Cannot reference more than 5 layers.") == refused(too_many)
    assert (400, code) == refused(twice)[:2]
    assert refused(twice)[2].startswith("Two different versions of the same layer")
    assert 5 == len(updated(client, name)["Layers"])


def test_a_version_of_a_function_has_the_layers_that_it_was_published_with(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """A change of layers is a change: it makes another version, and the first stays as it was."""
    name = make_function(ASKING, Layers=[publish(client, "first")["LayerVersionArn"]])
    one = client.publish_version(FunctionName=name)
    layers = [publish(client, "second")["LayerVersionArn"]]
    client.update_function_configuration(FunctionName=name, Layers=layers)
    updated(client, name)
    two = client.publish_version(FunctionName=name)

    assert ("1", "2") == (one["Version"], two["Version"])
    assert "first" == answered(client, f"{name}:1")
    assert "second" == answered(client, f"{name}:2")


def test_code_comes_and_layers_stay(client: BaseClient, make_function: Callable[..., str]) -> None:
    """UpdateFunctionCode is of the code alone."""
    name = make_function(ASKING, Layers=[publish(client, "stays")["LayerVersionArn"]])
    source = ASKING.replace("tool.word", "tool.word.upper()")
    client.update_function_code(FunctionName=name, ZipFile=archive(app=source))
    updated(client, name)

    assert "STAYS" == answered(client, name)


# Permissions


def permit(client: BaseClient, name: str, sid: str = "s", **parameters: Any) -> Any:
    """Add a statement to the policy of version 1 of a layer; return the answer."""
    return client.add_layer_version_permission(
        **{
            "LayerName": name,
            "VersionNumber": 1,
            "StatementId": sid,
            "Action": "lambda:GetLayerVersion",
            "Principal": "*",
            **parameters,
        }
    )


def statements(client: BaseClient, name: str) -> dict[str, Any]:
    """Return the statements of the policy of version 1 of a layer, by their ids."""
    answer = client.get_layer_version_policy(LayerName=name, VersionNumber=1)
    policy = json.loads(answer["Policy"])
    assert ["2012-10-17", "default"] == [policy["Version"], policy["Id"]]
    return {statement["Sid"]: statement for statement in policy["Statement"]}


def test_permissions_are_kept_and_told(client: BaseClient) -> None:
    """Accounts are told as their roots, as AWS does it; the answer has the statement itself."""
    publish(client, "permitted")
    account, root = "123456789012", "arn:aws:iam::123456789012:root"
    answers = [
        permit(client, "permitted", "all"),
        permit(client, "permitted", "account", Principal=account),
        permit(client, "permitted", "root", Principal=root),
        permit(client, "permitted", "organization", OrganizationId="o-abcdefghij"),
    ]

    expected = {
        sid: {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": principal,
            "Action": "lambda:GetLayerVersion",
            "Resource": f"{PLACE}:layer:permitted:1",
        }
        for sid, principal in (
            ("all", "*"),
            ("account", {"AWS": root}),
            ("root", {"AWS": root}),
            ("organization", "*"),
        )
    }
    expected["organization"]["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}
    assert list(expected.values()) == [json.loads(answer["Statement"]) for answer in answers]
    assert expected == statements(client, "permitted")
    last = client.get_layer_version_policy(LayerName="permitted", VersionNumber=1)
    assert answers[-1]["RevisionId"] == last["RevisionId"]


def test_a_statement_is_added_once_and_removed_once(client: BaseClient) -> None:
    """The same id again is a conflict; one that is not there, and no policy, are not found."""
    publish(client, "stated")
    permit(client, "stated", "one")
    permit(client, "stated", "two")
    target = {"LayerName": "stated", "VersionNumber": 1}
    with pytest.raises(ClientError) as again:
        permit(client, "stated", "one")
    client.remove_layer_version_permission(**target, StatementId="one")
    left = statements(client, "stated")
    with pytest.raises(ClientError) as gone:
        client.remove_layer_version_permission(**target, StatementId="one")
    client.remove_layer_version_permission(**target, StatementId="two")
    with pytest.raises(ClientError) as none:
        client.get_layer_version_policy(**target)

    conflict = (
        "The statement id (one) provided already exists. Please provide a new statement id, or "
        "remove the existing statement."
    )
    assert (409, "ResourceConflictException", conflict) == refused(again)
    assert ["two"] == list(left)
    missing = "Statement one is not found in resource policy."
    assert (404, "ResourceNotFoundException", missing) == refused(gone)
    missing = "No policy is associated with the given resource."
    assert (404, "ResourceNotFoundException", missing) == refused(none)


def test_a_policy_is_changed_as_it_was_read(client: BaseClient) -> None:
    """A RevisionId that is not the policy's own stops a change."""
    publish(client, "revised")
    first = permit(client, "revised", "one")["RevisionId"]
    second = permit(client, "revised", "two", RevisionId=first)["RevisionId"]
    with pytest.raises(ClientError) as added:
        permit(client, "revised", "three", RevisionId=first)
    target = {"LayerName": "revised", "VersionNumber": 1, "StatementId": "one"}
    with pytest.raises(ClientError) as removed:
        client.remove_layer_version_permission(**target, RevisionId=first)
    client.remove_layer_version_permission(**target, RevisionId=second)

    for error in (added, removed):
        assert (412, "PreconditionFailedException") == refused(error)[:2]
    assert ["two"] == list(statements(client, "revised"))


def test_a_policy_goes_with_its_version(client: BaseClient) -> None:
    """There are no permissions for what is not there."""
    publish(client, "orphaned")
    permit(client, "orphaned")
    client.delete_layer_version(LayerName="orphaned", VersionNumber=1)
    with pytest.raises(ClientError) as read:
        client.get_layer_version_policy(LayerName="orphaned", VersionNumber=1)
    with pytest.raises(ClientError) as added:
        permit(client, "orphaned")

    message = f"Layer version {PLACE}:layer:orphaned:1 does not exist."
    assert (404, "ResourceNotFoundException", message) == refused(read)
    assert (404, "ResourceNotFoundException", message) == refused(added)


def test_a_policy_is_at_most_20_kb(client: BaseClient) -> None:
    """One statement too many is refused, and those before it stay."""
    publish(client, "long")
    resource = f"{PLACE}:layer:long:1"
    # As AWS writes a policy: without white space.
    frame = len('{"Version":"2012-10-17","Id":"default","Statement":[]}')
    one = len(
        '{"Sid":"","Effect":"Allow","Principal":"*","Action":"lambda:GetLayerVersion",'
        f'"Resource":"{resource}"}},'
    )
    fit = (20_480 - frame + 1) // (one + 100)
    for number in range(fit):
        permit(client, "long", f"{number:0100}")
    with pytest.raises(ClientError) as error:
        permit(client, "long", f"{fit:0100}")

    size = frame - 1 + (fit + 1) * (one + 100)
    message = f"The final policy size ({size}) is bigger than the limit (20480)."
    assert (400, "PolicyLengthExceededException", message) == refused(error)
    assert fit == len(statements(client, "long"))
