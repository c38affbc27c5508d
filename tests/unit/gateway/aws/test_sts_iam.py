"""Tests of STS and IAM: botocore's parser of the query protocol reads the answers."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from botocore.handlers import json_decode_policies
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import create_parser

from miniλ.gateway.aws import sts_iam

ACCOUNT = "123456789012"
MODELS = {
    "2011-06-15": ServiceModel(Loader().load_service_model("sts", "service-2"), "sts"),
    "2010-05-08": ServiceModel(Loader().load_service_model("iam", "service-2"), "iam"),
}


def ask(action: str | None, version: str = "2010-05-08", **parameters: str) -> Any:
    """Return the answer, parsed by botocore: an error is in "Error"."""
    form = {"Version": version, **parameters}
    if action is not None:
        form["Action"] = action
    status, body = sts_iam.answer(
        form, account=ACCOUNT, region="eu-central-1", key_id="AKIDEXAMPLE", request_id="r-1"
    )
    service = MODELS[version]
    known = action in service.operation_names
    shape = service.operation_model(action).output_shape if known else None
    response = {"status_code": status, "headers": {}, "body": body}
    parsed = create_parser("query").parse(response, shape)
    if known and status == 200:
        json_decode_policies(parsed, service.operation_model(action))
    assert "r-1" == parsed["ResponseMetadata"]["RequestId"]
    assert (status == 200) == ("Error" not in parsed)
    del parsed["ResponseMetadata"]
    return parsed


def refused(action: str | None, version: str = "2010-05-08", **parameters: str) -> str:
    """Return "Code: message" of a refused request; its type must be Sender."""
    error = ask(action, version, **parameters)["Error"]
    assert "Sender" == error["Type"]
    return f"{error['Code']}: {error['Message']}"


def test_everybody_is_the_root_of_the_account() -> None:
    """The UserId is the key id of the signature."""
    assert {
        "Arn": f"arn:aws:iam::{ACCOUNT}:root",
        "UserId": "AKIDEXAMPLE",
        "Account": ACCOUNT,
    } == ask("GetCallerIdentity", "2011-06-15")


def test_without_a_signature_the_user_is_the_account() -> None:
    """Its UserId is the account, like root's on AWS."""
    _, body = sts_iam.answer(
        {"Action": "GetCallerIdentity"}, account=ACCOUNT, region="", key_id="", request_id=""
    )

    assert f"<UserId>{ACCOUNT}</UserId>".encode() in body


def test_every_role_is_there_and_trusts_lambda() -> None:
    """A role with all members that the service model requires."""
    role = ask("GetRole", RoleName="hello+role=,.@-_1")["Role"]

    role_id = role.pop("RoleId")
    assert re.fullmatch("AROA[A-Z2-7]{17}", role_id)
    assert {
        "Path": "/",
        "RoleName": "hello+role=,.@-_1",
        "Arn": f"arn:aws:iam::{ACCOUNT}:role/hello+role=,.@-_1",
        "CreateDate": dt.datetime(2014, 11, 13, tzinfo=dt.UTC),
        "AssumeRolePolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "lambda.amazonaws.com"},
                    "Action": "sts:AssumeRole",
                }
            ],
        },
        "MaxSessionDuration": 3600,
    } == role
    shape = MODELS["2010-05-08"].shape_for("Role")
    assert set(shape.required_members) <= {*role, "RoleId"}


def test_a_policy_is_encoded_as_in_a_url() -> None:
    """The document is percent-encoded: clients other than botocore decode it themselves."""
    form = {"Action": "GetRole", "RoleName": "x"}
    _, body = sts_iam.answer(form, account=ACCOUNT, region="", key_id="", request_id="")

    assert b"<AssumeRolePolicyDocument>%7B%22Version%22%3A%222012-10-17%22" in body


def test_a_role_keeps_its_id() -> None:
    """The id of a role stays, and another role has another."""
    ids = [ask("GetRole", RoleName=name)["Role"]["RoleId"] for name in ("a", "a", "b")]

    assert ids[0] == ids[1] != ids[2]


INVALID = "ValidationError: 1 validation error detected: Value"
MUST = "at 'roleName' failed to satisfy constraint: Member must"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, f"{INVALID} null {MUST} not be null"),
        ({"RoleName": ""}, f"{INVALID} '' {MUST} have length greater than or equal to 1"),
        (
            {"RoleName": "x" * 65},
            f"{INVALID} '{'x' * 65}' {MUST} have length less than or equal to 64",
        ),
        *[
            (
                {"RoleName": name},
                (
                    "ValidationError: The specified value for roleName is invalid. It must contain "
                    "only alphanumeric characters and/or the following: +=,.@_-"
                ),
            )
            for name in ("a/b", "a b", "<a>", "rôle", "a\n", "\0")
        ],
    ],
)
def test_role_names_that_cannot_be(parameters: dict[str, str], message: str) -> None:
    """In IAM's own words."""
    assert message == refused("GetRole", **parameters)


def test_a_role_name_may_have_64_characters() -> None:
    """64 characters are accepted, and one more is not (above)."""
    assert "x" * 64 == ask("GetRole", RoleName="x" * 64)["Role"]["RoleName"]


@pytest.mark.parametrize("version", ["2011-06-15", "2010-05-08"])
@pytest.mark.parametrize("action", ["ListRoles", "AssumeRole", "getrole"])
def test_another_action_is_unknown(action: str, version: str) -> None:
    """In the namespace of either service."""
    message = f"InvalidAction: The action {action} is not valid for this endpoint."

    assert message == refused(action, version)


def test_an_error_is_of_the_service_that_was_asked() -> None:
    """The version of the API tells the service."""
    roots = [
        ET.fromstring(
            sts_iam.answer(
                {"Action": "x", "Version": version},
                account=ACCOUNT,
                region="",
                key_id="",
                request_id="",
            )[1]
        ).tag
        for version in MODELS
    ]

    assert [
        "{https://sts.amazonaws.com/doc/2011-06-15/}ErrorResponse",
        "{https://iam.amazonaws.com/doc/2010-05-08/}ErrorResponse",
    ] == roots


@pytest.mark.parametrize("action", [None, ""])
def test_no_action(action: str | None) -> None:
    """A request without an Action is refused as such."""
    assert "MissingAction: The request must contain the parameter Action" == refused(action)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<b>&'\"", "<b>&'\""),
        ("]]>", "]]>"),
        ("\0\x1b\ud800\uffff", "\ufffd" * 4),
        ("a\u20ac\U0001f40d", "a\u20ac\U0001f40d"),
        ("x" * 1000, "x" * 128),
    ],
)
def test_text_of_a_client_is_no_xml(value: str, shown: str) -> None:
    """It is escaped, and characters that XML cannot represent are replaced."""
    message = f"InvalidAction: The action {shown} is not valid for this endpoint."

    assert message == refused(value)


def test_ids_and_accounts_are_no_xml() -> None:
    """Account and request id are escaped too, though they should never need it."""
    for form in ({"Action": "GetCallerIdentity"}, {"Action": "GetRole", "RoleName": "x"}, {}):
        _, body = sts_iam.answer(form, account="<a&", region="", key_id="<k&", request_id="<r&")

        assert "<r&" in "".join(ET.fromstring(body).itertext())
