"""Versions, aliases and layers as clients see them: `documents`."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from miniλ.gateway import documents
from miniλ.model import LATEST, AttachedLayer, FunctionConfiguration
from miniλ.names import Place
from miniλ.store.resources import Alias, LayerVersion

MODEL = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
PLACE = Place("us-east-1", "000000000000")
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


def function(**fields: Any) -> FunctionConfiguration:
    """Return a version of a function with these fields."""
    required = {
        "name": "f",
        "handler": "app.handler",
        "runtime": "python3.13",
        "revision": "r",
        "code_path": "/code",
        "code_sha256": "AAEC",
        "code_size": 9,
    }
    return FunctionConfiguration(**{**required, **fields})


def layer(**fields: Any) -> LayerVersion:
    """Return a version of a layer with these fields."""
    required = {
        "name": "l",
        "version": 3,
        "code_sha256": "AAEC",
        "code_size": 9,
        "code_path": "/code",
        "created": "2020-01-01T00:00:00.000+0000",
    }
    return LayerVersion(**{**required, **fields})


FULL = function(
    environment={"NAME": "1"},
    layers=[AttachedLayer("arn", 5, "/layer")],
    state_reason=("code", "text"),
    update_reason=("code", "text"),
    passthrough={
        "VpcConfig": {"SubnetIds": ["s"]},
        "DeadLetterConfig": {"TargetArn": "queue"},
        "KMSKeyArn": "key",
        "TracingConfig": {"Mode": "Active"},
        "FileSystemConfigs": [{"Arn": "a", "LocalMountPath": "/mnt/a"}],
        "SnapStart": {"ApplyOn": "PublishedVersions"},
        "LoggingConfig": {"LogFormat": "JSON"},
        "Architectures": ["arm64"],
    },
)


@pytest.mark.parametrize(
    ("shape", "document"),
    [
        ("FunctionConfiguration", documents.configuration(function(), PLACE)),
        ("FunctionConfiguration", documents.configuration(FULL, PLACE)),
        (
            "AliasConfiguration",
            documents.alias(
                Alias(function="f", name="a", version="1", revision="r", weights={"2": 0.5}), PLACE
            ),
        ),
        (
            "LayerVersionsListItem",
            documents.layer_version(
                layer(runtimes=["python3.13"], license_info="MIT", architectures=["arm64"]), PLACE
            ),
        ),
    ],
    ids=["function", "full function", "alias", "layer"],
)
def test_members_are_the_models(shape: str, document: dict[str, Any]) -> None:
    """A client of AWS knows each."""
    assert set() == document.keys() - MODEL.shape_for(shape).members.keys()


@pytest.mark.parametrize(
    ("version", "qualifier", "arn"),
    [
        (LATEST, "", ARN),
        (LATEST, LATEST, f"{ARN}:$LATEST"),
        ("3", "", f"{ARN}:3"),
        ("3", "prod", f"{ARN}:prod"),
    ],
)
def test_an_arn_has_the_qualifier_of_the_request(version: str, qualifier: str, arn: str) -> None:
    """Without one it has the version, if it is a number."""
    document = documents.configuration(function(version=version), PLACE, qualifier)

    assert (arn, version) == (document["FunctionArn"], document["Version"])


def test_what_was_not_set_has_defaults_or_is_absent() -> None:
    """As AWS's recorded answers have it."""
    document = documents.configuration(function(), PLACE)

    absent = {"VpcConfig", "Environment", "Layers", "DeadLetterConfig", "KMSKeyArn", "StateReason"}
    assert set() == absent & document.keys()
    assert {"Mode": "PassThrough"} == document["TracingConfig"]
    assert ["x86_64"] == document["Architectures"]
    assert {"ApplyOn": "None", "OptimizationStatus": "Off"} == document["SnapStart"]
    assert {"LogFormat": "Text", "LogGroup": "/aws/lambda/f"} == document["LoggingConfig"]


def test_what_was_set_is_returned_with_the_defaults_of_its_members() -> None:
    """Members of one value that the client left out."""
    document = documents.configuration(FULL, PLACE)

    assert {"Variables": {"NAME": "1"}} == document["Environment"]
    assert [{"Arn": "arn", "CodeSize": 5}] == document["Layers"]
    assert ["s"] == document["VpcConfig"]["SubnetIds"]
    assert [] == document["VpcConfig"]["SecurityGroupIds"]
    assert "INFO" == document["LoggingConfig"]["SystemLogLevel"]
    assert "Off" == document["SnapStart"]["OptimizationStatus"]
    assert ("text", "code") == (document["StateReason"], document["StateReasonCode"])


@pytest.mark.parametrize(
    ("member", "empty"),
    [("DeadLetterConfig", {"TargetArn": ""}), ("KMSKeyArn", ""), ("FileSystemConfigs", [])],
)
def test_a_member_that_was_emptied_is_absent(member: str, empty: object) -> None:
    """An empty value is how a client takes it back."""
    assert member not in documents.configuration(function(passthrough={member: empty}), PLACE)


def test_a_new_function_has_no_last_update() -> None:
    """Pending: it has not been updated."""
    pending = documents.configuration(function(state="Pending"), PLACE)

    assert "Pending" == pending["State"]
    assert "LastUpdateStatus" not in pending


def test_lists_leave_out_states() -> None:
    """The ARN of an item has its version, unless the client lists functions."""
    item = documents.listed(FULL, PLACE)

    assert set() == item.keys() & set(documents.NOT_LISTED)
    assert f"{ARN}:$LATEST" == item["FunctionArn"]
    assert ARN == documents.listed(FULL, PLACE, qualified=False)["FunctionArn"]


def test_an_alias_of_one_version_has_no_weights() -> None:
    """RoutingConfig is there with weights only."""
    alias = Alias(function="f", name="prod", version="1", revision="r")

    document = documents.alias(alias, PLACE)

    assert f"{ARN}:prod" == document["AliasArn"]
    assert "RoutingConfig" not in document


def test_a_layer_leaves_out_what_it_was_not_published_with() -> None:
    """Runtimes, license and architectures; a description is always there."""
    assert {"LayerVersionArn", "Version", "Description", "CreatedDate"} == documents.layer_version(
        layer(), PLACE
    ).keys()


def test_a_digest_is_base64_for_clients_and_hexadecimal_for_the_store() -> None:
    """Both are of the same bytes."""
    assert "000102" == documents.hexadecimal("AAEC")
