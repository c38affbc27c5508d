"""Concurrency as clients reserve it for a function and provision it for a version."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.conftest import ECHO, ROLE, RUNTIME, archive, serving, updated
from tests.api.refusals import CONFLICT, INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from botocore.client import BaseClient

ARN = "arn:aws:lambda:us-east-1:000000000000:function"
# A worker is up long before, on any machine.
READY_SECONDS = 30


@pytest.fixture(scope="module", autouse=True)
def _connected(client: BaseClient) -> None:
    """Have the client's connection before the first test, which would seem to leave it behind."""
    client.list_functions()


def provision(client: BaseClient, name: str, qualifier: str, count: int = 1) -> dict[str, Any]:
    """Ask for provisioned concurrency; return the answer."""
    answer = client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=count
    )
    assert 202 == answer["ResponseMetadata"]["HTTPStatusCode"]
    return told(answer)


def settled(client: BaseClient, name: str, qualifier: str) -> dict[str, Any]:
    """Wait until workers are ready, or cannot be; return the configuration."""
    end = time.monotonic() + READY_SECONDS
    while True:
        config = told(
            client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
        )
        if config["Status"] != "IN_PROGRESS" or time.monotonic() > end:
            return config


def test_what_is_reserved_is_told_until_it_is_given_back(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """GetFunction says it too; without a reservation the answer is empty."""
    name = make_function()

    assert {} == told(client.get_function_concurrency(FunctionName=name))
    reserved = {"ReservedConcurrentExecutions": 0}
    assert reserved == told(client.put_function_concurrency(FunctionName=name, **reserved))
    assert reserved == told(client.get_function_concurrency(FunctionName=name))
    assert reserved == client.get_function(FunctionName=name)["Concurrency"]
    client.delete_function_concurrency(FunctionName=name)
    assert {} == told(client.get_function_concurrency(FunctionName=name))
    assert "Concurrency" not in client.get_function(FunctionName=name)


def test_concurrency_is_reserved_for_functions_that_are_there(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Not for a version or an alias, not for an unknown function, and not all of the capacity."""
    name = make_function(Publish=True)
    qualified = (
        "This operation is permitted on Lambda functions only. Aliases and versions do not "
        "support this operation. Please specify either a function name or an unqualified "
        "function ARN."
    )
    missing = f"Function not found: {ARN}:nowhere"

    for operation, parameters in (
        (client.put_function_concurrency, {"ReservedConcurrentExecutions": 0}),
        (client.get_function_concurrency, {}),
        (client.delete_function_concurrency, {}),
    ):
        assert (400, INVALID, qualified) == refused(
            operation, FunctionName=f"{name}:1", **parameters
        )
        assert (404, MISSING, missing) == refused(operation, FunctionName="nowhere", **parameters)
    capacity = client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    status, code, _ = refused(
        client.put_function_concurrency,
        FunctionName=name,
        ReservedConcurrentExecutions=capacity,
    )
    assert (400, INVALID) == (status, code)
    assert {} == told(client.get_function_concurrency(FunctionName=name))


def test_workers_of_a_version_become_ready(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The first answer is how it begins, later ones how it went; the next call is a warm one."""
    name = make_function(Publish=True)
    answer = provision(client, name, "1")
    config = settled(client, name, "1")

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000", answer["LastModified"])
    ready = {
        "RequestedProvisionedConcurrentExecutions": 1,
        "AvailableProvisionedConcurrentExecutions": 1,
        "AllocatedProvisionedConcurrentExecutions": 1,
        "Status": "READY",
        "LastModified": answer["LastModified"],
    }
    assert ready == config
    assert ready.keys() == answer.keys()
    log = client.invoke(FunctionName=name, Qualifier="1", LogType="Tail")
    assert "1" == log["ExecutedVersion"]
    listed = client.list_provisioned_concurrency_configs(FunctionName=name)
    expected = [{"FunctionArn": f"{ARN}:{name}:1", **ready}]
    assert expected == listed["ProvisionedConcurrencyConfigs"]


def test_a_failed_init_phase_is_told(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Workers that cannot be initialised are FAILED, with a reason."""
    name = make_function("raise ValueError('not today')", Publish=True)
    provision(client, name, "1")
    config = settled(client, name, "1")

    assert "FAILED" == config["Status"]
    assert 0 == config["AvailableProvisionedConcurrentExecutions"]
    assert config["StatusReason"]


def test_it_is_asked_for_by_alias_and_deleted(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Deleting takes it away, and is done already where there is none."""
    name = make_function(Publish=True)
    client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    none = "No Provisioned Concurrency Config found for this function"
    target = {"FunctionName": name, "Qualifier": "prod"}

    unknown = "ProvisionedConcurrencyConfigNotFoundException"
    assert (404, unknown, none) == refused(client.get_provisioned_concurrency_config, **target)
    provision(client, name, "prod")
    assert "READY" == settled(client, name, "prod")["Status"]
    client.delete_provisioned_concurrency_config(**target)
    client.delete_provisioned_concurrency_config(**target)
    assert (404, unknown, none) == refused(client.get_provisioned_concurrency_config, **target)
    listed = client.list_provisioned_concurrency_configs(FunctionName=name)
    assert [] == listed["ProvisionedConcurrencyConfigs"]


def test_a_version_has_it_by_one_name(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Its own or one alias'; another one is a conflict, and the same one again is a change."""
    name = make_function(Publish=True)
    for alias in ("one", "two"):
        client.create_alias(FunctionName=name, Name=alias, FunctionVersion="1")
    request = {"FunctionName": name, "ProvisionedConcurrentExecutions": 1}
    put = client.put_provisioned_concurrency_config

    provision(client, name, "1")
    by_alias = (
        "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned "
        "version"
    )
    assert (409, CONFLICT, by_alias) == refused(put, **request, Qualifier="one")
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="1")
    provision(client, name, "one")
    by_version = "Version is pointed by a Provisioned Concurrency alias"
    assert (409, CONFLICT, by_version) == refused(put, **request, Qualifier="1")
    assert (409, CONFLICT, by_alias) == refused(put, **request, Qualifier="two")
    assert 2 == provision(client, name, "one", 2)["RequestedProvisionedConcurrentExecutions"]


def test_only_what_is_published_has_it(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """$LATEST changes, an alias of two versions is either: neither can be kept ready."""
    name = make_function(Publish=True)
    client.update_function_configuration(FunctionName=name, Timeout=4)
    client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.02})
    client.publish_version(FunctionName=name)
    weights = {"AdditionalVersionWeights": {"2": 0.5}}
    client.create_alias(FunctionName=name, Name="two", FunctionVersion="1", RoutingConfig=weights)
    request = {"FunctionName": name, "ProvisionedConcurrentExecutions": 1}
    put = client.put_provisioned_concurrency_config

    unpublished = (
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    )
    assert (400, INVALID, unpublished) == refused(put, **request, Qualifier="$LATEST")
    weighted = "Alias with weights can not be used with Provisioned Concurrency"
    assert (400, INVALID, weighted) == refused(put, **request, Qualifier="two")
    assert (404, MISSING, f"Function not found: {ARN}:{name}:9") == refused(
        put, **request, Qualifier="9"
    )
    assert (404, MISSING, f"Cannot find alias arn: {ARN}:{name}:prod") == refused(
        put, **request, Qualifier="prod"
    )
    latest = "The function resource provided must be an alias or a published version."
    for operation in (
        client.get_provisioned_concurrency_config,
        client.delete_provisioned_concurrency_config,
    ):
        assert (400, INVALID, latest) == refused(operation, FunctionName=name, Qualifier="$LATEST")


def test_no_more_is_provisioned_than_may_run(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """All of a function's is within its reservation, and without one within what is unreserved."""
    name = make_function(Publish=True)
    put = client.put_provisioned_concurrency_config
    request = {"FunctionName": name, "Qualifier": "1"}
    unreserved = client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"]
    message = (
        "Specified ConcurrentExecutions for function is greater than account's unreserved "
        f"concurrency [{unreserved}]."
    )
    assert (400, INVALID, message) == refused(
        put, **request, ProvisionedConcurrentExecutions=unreserved + 1
    )
    status, code, _ = refused(put, **request, ProvisionedConcurrentExecutions=unreserved)
    assert (400, INVALID) == (status, code)
    listed = client.list_provisioned_concurrency_configs(FunctionName=name)
    assert [] == listed["ProvisionedConcurrencyConfigs"]

    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    message = (
        "Requested Provisioned Concurrency should not be greater than the "
        "reservedConcurrentExecution for function"
    )
    assert (400, INVALID, message) == refused(put, **request, ProvisionedConcurrentExecutions=2)
    provision(client, name, "1")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    # What it had is not counted twice.
    assert 2 == provision(client, name, "1", 2)["RequestedProvisionedConcurrentExecutions"]
    message = (
        "ReservedConcurrentExecutions 1 should not be lower than function's total provisioned "
        "concurrency [2]."
    )
    assert (400, INVALID, message) == refused(
        client.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=1
    )


def test_what_is_given_back_is_there_for_others(tmp_path: Path) -> None:
    """A host that runs two at once keeps one of them free, and the other for one function."""
    (tmp_path / "settings.toml").write_text("concurrency = 2\n", encoding="utf-8")
    with serving("--config", str(tmp_path / "settings.toml")) as server:
        client = server.client()
        for name in ("one", "two"):
            client.create_function(
                FunctionName=name,
                Runtime=RUNTIME,
                Role=ROLE,
                Handler="app.handler",
                Code={"ZipFile": archive(app=ECHO)},
                Publish=True,
            )
            client.get_waiter("published_version_active").wait(
                FunctionName=name, Qualifier="1", WaiterConfig={"Delay": 0.02}
            )
        provision(client, "one", "1")
        status, code, _ = refused(
            client.put_provisioned_concurrency_config,
            FunctionName="two",
            Qualifier="1",
            ProvisionedConcurrentExecutions=1,
        )
        client.delete_provisioned_concurrency_config(FunctionName="one", Qualifier="1")
        provision(client, "two", "1")
        config = settled(client, "two", "1")
        client.close()

    assert (400, INVALID) == (status, code)
    assert "READY" == config["Status"]


def test_provisioned_concurrency_follows_its_alias(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """An alias that is moved takes it along; one that is deleted, or its version, ends it."""
    name = make_function()
    for timeout in (4, 5):
        client.update_function_configuration(FunctionName=name, Timeout=timeout)
        updated(client, name)
        client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=1
    )

    client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")

    (config,) = client.list_provisioned_concurrency_configs(FunctionName=name)[
        "ProvisionedConcurrencyConfigs"
    ]
    assert config["FunctionArn"].endswith(f"{name}:live")
    client.delete_alias(FunctionName=name, Name="live")
    answer = client.list_provisioned_concurrency_configs(FunctionName=name)
    assert [] == answer["ProvisionedConcurrencyConfigs"]
    client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier="2", ProvisionedConcurrentExecutions=1
    )
    client.delete_function(FunctionName=name, Qualifier="2")
    answer = client.list_provisioned_concurrency_configs(FunctionName=name)
    assert [] == answer["ProvisionedConcurrencyConfigs"]


def test_an_alias_does_not_move_onto_a_version_that_another_name_provisions(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Else both configs would count as one, and deleting either would end both."""
    name = make_function(Publish=True)
    client.update_function_configuration(FunctionName=name, Timeout=4)
    updated(client, name)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    client.create_alias(FunctionName=name, Name="other", FunctionVersion="2")
    provision(client, name, "live")
    provision(client, name, "2", 2)
    conflict = (
        "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned "
        "version"
    )
    move = {"FunctionName": name, "Name": "live", "FunctionVersion": "2"}

    assert (409, CONFLICT, conflict) == refused(client.update_alias, **move)
    assert "1" == client.get_alias(FunctionName=name, Name="live")["FunctionVersion"]
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="2")
    provision(client, name, "other", 2)
    assert (409, CONFLICT, conflict) == refused(client.update_alias, **move)
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    assert "2" == client.update_alias(**move)["FunctionVersion"]
    assert 2 == settled(client, name, "other")["AvailableProvisionedConcurrentExecutions"]


def test_an_alias_of_latest_has_no_provisioned_concurrency(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """It is refused by alias as by name, and a provisioned alias does not move there."""
    name = make_function(Publish=True)
    client.create_alias(FunctionName=name, Name="next", FunctionVersion="$LATEST")
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    provision(client, name, "live")
    unpublished = (
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    )

    assert (400, INVALID, unpublished) == refused(
        client.put_provisioned_concurrency_config,
        FunctionName=name,
        Qualifier="next",
        ProvisionedConcurrentExecutions=1,
    )
    assert (400, INVALID, unpublished) == refused(
        client.update_alias, FunctionName=name, Name="live", FunctionVersion="$LATEST"
    )
