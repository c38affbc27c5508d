"""Resource policies: statements that clients add, read and remove, and what they allow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.gateway.policies import allows
from tests.api.refusals import CONFLICT, INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

ARN = "arn:aws:lambda:us-east-1:000000000000:function"
ACCOUNT = "111122223333"
INVOKE = "lambda:InvokeFunction"
URL = "lambda:InvokeFunctionUrl"
CHANGED = "PreconditionFailedException"
STALE = (
    "The Revision Id provided does not match the latest Revision Id. Call the GetPolicy API to "
    "retrieve the latest Revision Id"
)


@pytest.fixture(scope="module", autouse=True)
def _connected(client: BaseClient) -> None:
    """Have the client's connection before the first test, which would seem to leave it behind."""
    client.list_functions()


def add(client: BaseClient, name: str, sid: str = "s3", **parameters: Any) -> dict[str, Any]:
    """Let S3, or another principal, invoke a function; return the statement."""
    answer = client.add_permission(
        **{
            "FunctionName": name,
            "StatementId": sid,
            "Action": INVOKE,
            "Principal": "s3.amazonaws.com",
            **parameters,
        }
    )
    assert 201 == answer["ResponseMetadata"]["HTTPStatusCode"]
    statement: dict[str, Any] = json.loads(answer["Statement"])
    return statement


def policy(client: BaseClient, name: str, **parameters: Any) -> dict[str, Any]:
    """Return the policy of a function."""
    policy: dict[str, Any] = json.loads(
        client.get_policy(FunctionName=name, **parameters)["Policy"]
    )
    return policy


def test_a_statement_is_kept_and_told(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """What AddPermission answers is what the policy has, in AWS's order and words."""
    name = make_function()
    added = add(client, name, SourceArn="arn:aws:s3:::bucket", SourceAccount=ACCOUNT)

    expected = {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": INVOKE,
        "Resource": f"{ARN}:{name}",
        "Condition": {
            "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"},
            "StringEquals": {"AWS:SourceAccount": ACCOUNT},
        },
    }
    assert expected == added
    assert list(expected) == list(added)
    document = {"Version": "2012-10-17", "Id": "default", "Statement": [expected]}
    answer = told(client.get_policy(FunctionName=name))
    assert {"Policy", "RevisionId"} == answer.keys()
    assert json.dumps(document, separators=(",", ":")) == answer["Policy"]


@pytest.mark.parametrize(
    ("principal", "stated"),
    [
        ("events.amazonaws.com", {"Service": "events.amazonaws.com"}),
        ("alexa-appkit.amazon.com", {"Service": "alexa-appkit.amazon.com"}),
        (ACCOUNT, {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}),
        (f"arn:aws:iam::{ACCOUNT}:role/r", {"AWS": f"arn:aws:iam::{ACCOUNT}:role/r"}),
        ("*", "*"),
    ],
)
def test_who_is_meant_is_stated_by_kind(
    client: BaseClient, make_function: Callable[..., str], principal: str, stated: object
) -> None:
    """A service, an account, an identity and "*" are four kinds of principal."""
    assert stated == add(client, make_function(), Principal=principal)["Principal"]


@pytest.mark.parametrize(
    ("parameters", "condition"),
    [
        (
            {"PrincipalOrgID": "o-a1b2c3d4e5"},
            {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}},
        ),
        ({"EventSourceToken": "token"}, {"StringEquals": {"lambda:EventSourceToken": "token"}}),
        ({"InvokedViaFunctionUrl": True}, {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}}),
        (
            {"Action": URL, "FunctionUrlAuthType": "NONE", "SourceAccount": ACCOUNT},
            {
                "StringEquals": {
                    "AWS:SourceAccount": ACCOUNT,
                    "lambda:FunctionUrlAuthType": "NONE",
                }
            },
        ),
    ],
)
def test_conditions_are_stated_in_their_own_keys(
    client: BaseClient,
    make_function: Callable[..., str],
    parameters: dict[str, Any],
    condition: dict[str, Any],
) -> None:
    """Each parameter is one condition; those of one operator stand together."""
    assert condition == add(client, make_function(), Principal="*", **parameters)["Condition"]


def test_what_is_not_valid_is_refused(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """No principal of any kind, an auth type without a URL, $LATEST: nothing is added."""
    name = make_function()
    request = {"FunctionName": name, "StatementId": "x", "Action": INVOKE, "Principal": "*"}

    principal = "The provided principal was invalid. Please check the principal and try again."
    assert (400, INVALID, principal) == refused(
        client.add_permission, **{**request, "Principal": "nobody"}
    )
    url = "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action"
    assert (400, INVALID, url) == refused(
        client.add_permission, **request, FunctionUrlAuthType="NONE"
    )
    latest = "We currently do not support adding policies for $LATEST."
    assert (400, INVALID, latest) == refused(client.add_permission, **request, Qualifier="$LATEST")
    unknown = f"Cannot find alias arn: {ARN}:{name}:prod"
    assert (404, MISSING, unknown) == refused(client.add_permission, **request, Qualifier="prod")
    missing = f"Function not found: {ARN}:nowhere"
    assert (404, MISSING, missing) == refused(
        client.add_permission, **{**request, "FunctionName": "nowhere"}
    )
    assert (404, MISSING, missing) == refused(client.get_policy, FunctionName="nowhere")
    assert (404, MISSING, missing) == refused(
        client.remove_permission, FunctionName="nowhere", StatementId="x"
    )
    none = "The resource you requested does not exist."
    assert (404, MISSING, none) == refused(client.get_policy, FunctionName=name)


def test_a_statement_id_is_used_once(client: BaseClient, make_function: Callable[..., str]) -> None:
    """A second statement of the same id is a conflict, and the first one stays."""
    name = make_function()
    add(client, name)

    message = (
        "The statement id (s3) provided already exists. Please provide a new statement id, or "
        "remove the existing statement."
    )
    assert (409, CONFLICT, message) == refused(
        client.add_permission, FunctionName=name, StatementId="s3", Action="*", Principal="*"
    )
    assert [INVOKE] == [each["Action"] for each in policy(client, name)["Statement"]]


def test_statements_go_and_the_last_one_takes_the_policy_along(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Removing is by id; without statements there is no policy, and nothing to remove from."""
    name = make_function()
    add(client, name, "one")
    add(client, name, "two")

    client.remove_permission(FunctionName=name, StatementId="one")
    assert ["two"] == [each["Sid"] for each in policy(client, name)["Statement"]]
    unknown = "Statement one is not found in resource policy."
    assert (404, MISSING, unknown) == refused(
        client.remove_permission, FunctionName=name, StatementId="one"
    )
    client.remove_permission(FunctionName=name, StatementId="two")
    gone = "The resource you requested does not exist."
    assert (404, MISSING, gone) == refused(client.get_policy, FunctionName=name)
    empty = "No policy is associated with the given resource."
    assert (404, MISSING, empty) == refused(
        client.remove_permission, FunctionName=name, StatementId="two"
    )


def test_versions_and_aliases_have_policies_of_their_own(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The same statement id may be in each; the resource is the qualified ARN."""
    name = make_function(Publish=True)
    client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")

    resources = [
        add(client, name)["Resource"],
        add(client, name, Qualifier="1")["Resource"],
        add(client, f"{name}:prod")["Resource"],
    ]
    assert [f"{ARN}:{name}", f"{ARN}:{name}:1", f"{ARN}:{name}:prod"] == resources
    client.remove_permission(FunctionName=name, StatementId="s3", Qualifier="prod")
    assert 1 == len(policy(client, name, Qualifier="1")["Statement"])
    assert 404 == refused(client.get_policy, FunctionName=name, Qualifier="prod")[0]


def test_a_policy_that_has_changed_since_is_not_changed(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """RevisionId is the policy's and new with each change; before it, it is the function's."""
    name = make_function()
    of_function = client.get_function_configuration(FunctionName=name)["RevisionId"]
    request = {"FunctionName": name, "Action": INVOKE, "Principal": ACCOUNT}

    assert (412, CHANGED, STALE) == refused(
        client.add_permission, **request, StatementId="a", RevisionId="other"
    )
    add(client, name, "a", RevisionId=of_function)
    first = client.get_policy(FunctionName=name)["RevisionId"]
    add(client, name, "b", RevisionId=first)
    second = client.get_policy(FunctionName=name)["RevisionId"]
    assert first != second
    assert (412, CHANGED, STALE) == refused(
        client.add_permission, **request, StatementId="c", RevisionId=first
    )
    assert (412, CHANGED, STALE) == refused(
        client.remove_permission, FunctionName=name, StatementId="a", RevisionId=first
    )
    client.remove_permission(FunctionName=name, StatementId="a", RevisionId=second)
    assert ["b"] == [each["Sid"] for each in policy(client, name)["Statement"]]


def test_a_policy_has_20_kilobytes(client: BaseClient, make_function: Callable[..., str]) -> None:
    """What would make it larger is refused, with the size that it would have."""
    name = make_function()
    long = f"arn:aws:s3:::{'b' * 9000}"
    add(client, name, "one", SourceArn=long)
    add(client, name, "two", SourceArn=long)
    before = client.get_policy(FunctionName=name)["Policy"]

    status, code, message = refused(
        client.add_permission,
        FunctionName=name,
        StatementId="six",
        Action=INVOKE,
        Principal="s3.amazonaws.com",
        SourceArn=long,
    )
    # As large as one that is there, and a comma.
    statement = json.dumps(json.loads(before)["Statement"][0], separators=(",", ":"))
    size = len(before) + len(statement) + 1
    assert (400, "PolicyLengthExceededException") == (status, code)
    assert f"The final policy size ({size}) is bigger than the limit (20480)." == message
    assert before == client.get_policy(FunctionName=name)["Policy"]


def test_a_policy_goes_with_its_function(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """A function of the same name begins without."""
    name = make_function()
    add(client, name)
    client.delete_function(FunctionName=name)
    make_function(FunctionName=name)

    assert 404 == refused(client.get_policy, FunctionName=name)[0]


def test_the_first_revision_of_an_alias_is_its_own(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Where an alias has no policy yet, its RevisionId is the one to give, not its version's."""
    name = make_function(Publish=True)
    alias = client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    version = client.get_function_configuration(FunctionName=name, Qualifier="1")
    request = {"FunctionName": name, "Action": INVOKE, "Principal": ACCOUNT, "StatementId": "a"}

    assert (412, CHANGED, STALE) == refused(
        client.add_permission, **request, Qualifier="prod", RevisionId=version["RevisionId"]
    )
    add(client, name, Qualifier="prod", RevisionId=alias["RevisionId"])


# What a policy allows


def one(principal: object, action: str = URL, **condition: Any) -> dict[str, Any]:
    """Return a policy of one statement."""
    statement = {"Sid": "s", "Effect": "Allow", "Principal": principal, "Action": action}
    if condition:
        statement["Condition"] = condition
    return {"Statement": [statement], "RevisionId": "r"}


OPEN = one("*", StringEquals={"lambda:FunctionUrlAuthType": "NONE"})


def test_a_url_is_open_to_everybody_only_where_a_policy_says_so() -> None:
    """It takes a statement for "*", for this action, for a URL of this auth type."""
    request = {"action": URL, "principal": None, "url_auth": "NONE"}

    assert allows(OPEN, **request)
    assert allows(one("*"), **request)
    assert not allows(None, **request)
    assert not allows(OPEN, **{**request, "url_auth": "AWS_IAM"})
    assert not allows(OPEN, **{**request, "action": INVOKE})
    assert not allows(one({"Service": "s3.amazonaws.com"}), **request)
    assert not allows(one({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}), **request)


def test_one_of_many_statements_is_enough() -> None:
    """Statements are alternatives; the conditions of one are not."""
    both = one(
        "*",
        StringEquals={"lambda:FunctionUrlAuthType": "NONE", "AWS:SourceAccount": ACCOUNT},
    )
    two = {"Statement": one("*", INVOKE)["Statement"] + OPEN["Statement"], "RevisionId": "r"}

    assert allows(two, action=URL, principal=None, url_auth="NONE")
    assert not allows(both, action=URL, principal=None, url_auth="NONE")
    assert allows(both, action=URL, principal=None, url_auth="NONE", source_account=ACCOUNT)


@pytest.mark.parametrize("action", [INVOKE, "lambda:*", "*"])
def test_a_star_is_every_action(action: str) -> None:
    """Lambda's own star and the one of all services cover an action of Lambda."""
    assert allows(one("*", action), action=INVOKE, principal=None)


def test_an_account_is_all_who_belong_to_it() -> None:
    """The root of an account stands for the account and its users and roles, and no others."""
    stated = one({"AWS": f"arn:aws:iam::{ACCOUNT}:root"})

    assert allows(stated, action=URL, principal=ACCOUNT)
    assert allows(stated, action=URL, principal=f"arn:aws:iam::{ACCOUNT}:user/root")
    assert not allows(stated, action=URL, principal="000000000000")
    assert not allows(stated, action=URL, principal="arn:aws:iam::000000000000:user/root")
    assert not allows(stated, action=URL, principal="*")


def test_an_identity_is_nobody_else() -> None:
    """A role that is named is that role; a service that is named is that service."""
    role = f"arn:aws:iam::{ACCOUNT}:role/r"

    assert allows(one({"AWS": role}), action=URL, principal=role)
    assert not allows(one({"AWS": role}), action=URL, principal=f"{role}2")
    assert not allows(one({"AWS": role}), action=URL, principal=ACCOUNT)
    user = f"arn:aws:iam::{ACCOUNT}:user/root"
    assert not allows(one({"AWS": user}), action=URL, principal=ACCOUNT)
    assert allows(one({"Service": "s3.amazonaws.com"}), action=URL, principal="s3.amazonaws.com")
    assert not allows(one({"Service": "s3.amazonaws.com"}), action=URL, principal=None)


@pytest.mark.parametrize(
    ("wanted", "source", "holds"),
    [
        ("arn:aws:s3:::bucket", "arn:aws:s3:::bucket", True),
        ("arn:aws:s3:::bucket", "arn:aws:s3:::bucket2", False),
        ("arn:aws:s3:::bucket", None, False),
        ("arn:aws:events:*:1:rule/*", "arn:aws:events:eu-west-1:1:rule/a/b:c", True),
        ("arn:aws:events:*:1:rule/?", "arn:aws:events:eu-west-1:1:rule/ab", False),
        # A star does not reach into the next part.
        ("arn:aws:s3:*", "arn:aws:s3:::bucket", False),
        ("arn:aws:*:::bucket", "arn:aws:s3:us-east-1:1:bucket", False),
        # Brackets are brackets.
        ("arn:aws:s3:::[ab]", "arn:aws:s3:::a", False),
        ("arn:aws:s3:::[ab]", "arn:aws:s3:::[ab]", True),
    ],
)
def test_the_source_is_compared_part_by_part(wanted: str, source: str | None, holds: bool) -> None:  # noqa: FBT001 - a table
    """Wildcards of ArnLike are within one of the six parts of an ARN."""
    stated = one({"Service": "s3.amazonaws.com"}, ArnLike={"AWS:SourceArn": wanted})

    assert holds == allows(stated, action=URL, principal="s3.amazonaws.com", source_arn=source)


def test_what_is_not_known_does_not_hold() -> None:
    """A server knows no organizations, so no caller is in one."""
    stated = one("*", StringEquals={"aws:PrincipalOrgID": "o-a1b2c3d4e5"})

    assert not allows(stated, action=URL, principal=ACCOUNT)


def test_a_url_is_a_condition_too() -> None:
    """lambda:InvokedViaFunctionUrl holds for calls of a URL, and false for all others."""
    via = one("*", INVOKE, Bool={"lambda:InvokedViaFunctionUrl": "true"})
    beside = one("*", INVOKE, Bool={"lambda:InvokedViaFunctionUrl": "false"})

    assert allows(via, action=INVOKE, principal=None, url_auth="NONE")
    assert not allows(via, action=INVOKE, principal=None)
    assert not allows(beside, action=INVOKE, principal=None, url_auth="NONE")
    assert allows(beside, action=INVOKE, principal=None)
