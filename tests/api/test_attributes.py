"""What is said of functions and told again; the account; what is not offered here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import botocore.session
import pytest

from miniλ.gateway import attributes, concurrency, event_invoke, mappings, not_offered, policies
from miniλ.gateway.service_model import inputs
from tests.api.refusals import INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

LAMBDA = "arn:aws:lambda:us-east-1:000000000000"
ARN = f"{LAMBDA}:function"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:jobs"
RUNTIME_VERSION = "arn:aws:lambda:us-east-1::runtime:abc"
SIGNING = f"{LAMBDA}:code-signing-config:csc-0123456789abcdef0"


@pytest.fixture(scope="module", autouse=True)
def _connected(client: BaseClient) -> None:
    """Have the client's connection before the first test, which would seem to leave it behind."""
    client.list_functions()


# Recursion and runtimes


def test_recursion_is_terminated_unless_it_is_allowed(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Terminate is the default; what a client has set is returned."""
    name = make_function()

    assert {"RecursiveLoop": "Terminate"} == told(
        client.get_function_recursion_config(FunctionName=name)
    )
    allowed = {"RecursiveLoop": "Allow"}
    assert allowed == told(client.put_function_recursion_config(FunctionName=name, **allowed))
    assert allowed == told(client.get_function_recursion_config(FunctionName=name))
    missing = f"Function not found: {ARN}:nowhere"
    assert (404, MISSING, missing) == refused(
        client.put_function_recursion_config, FunctionName="nowhere", **allowed
    )
    assert (404, MISSING, missing) == refused(
        client.get_function_recursion_config, FunctionName="nowhere"
    )


def test_runtimes_are_updated_unless_told_otherwise(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Auto is the default; each version has its own, and no qualifier is $LATEST."""
    name = make_function(Publish=True)
    manual = {"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": RUNTIME_VERSION}
    put, get = client.put_runtime_management_config, client.get_runtime_management_config

    assert {"UpdateRuntimeOn": "Auto", "FunctionArn": f"{ARN}:{name}"} == told(
        get(FunctionName=name)
    )
    expected = {**manual, "FunctionArn": f"{ARN}:{name}:1"}
    assert expected == told(put(FunctionName=name, Qualifier="1", **manual))
    assert expected == told(get(FunctionName=f"{name}:1"))
    put(FunctionName=name, Qualifier="$LATEST", UpdateRuntimeOn="FunctionUpdate")
    assert "FunctionUpdate" == get(FunctionName=name)["UpdateRuntimeOn"]
    assert expected == told(get(FunctionName=name, Qualifier="1"))
    missing = f"Function not found: {ARN}:{name}:2"
    assert (404, MISSING, missing) == refused(get, FunctionName=name, Qualifier="2")


def test_a_runtime_version_is_for_manual_updates(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Manual needs one, and the others do not take any."""
    name = make_function()
    put = client.put_runtime_management_config

    needed = "RuntimeVersionArn is required where UpdateRuntimeOn is Manual"
    assert (400, INVALID, needed) == refused(put, FunctionName=name, UpdateRuntimeOn="Manual")
    strange = "RuntimeVersionArn is not allowed where UpdateRuntimeOn is Auto"
    assert (400, INVALID, strange) == refused(
        put, FunctionName=name, UpdateRuntimeOn="Auto", RuntimeVersionArn=RUNTIME_VERSION
    )


# Tags


def test_tags_are_added_changed_and_taken_away(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Those that CreateFunction was given are there too; GetFunction tells them."""
    name = make_function(Tags={"a": "1"})
    arn = f"{ARN}:{name}"
    client.tag_resource(Resource=arn, Tags={"b": "2", "a": "3"})

    assert {"Tags": {"a": "3", "b": "2"}} == told(client.list_tags(Resource=arn))
    assert {"a": "3", "b": "2"} == client.get_function(FunctionName=name)["Tags"]
    client.untag_resource(Resource=arn, TagKeys=["a", "never"])
    assert {"b": "2"} == client.list_tags(Resource=arn)["Tags"]
    client.untag_resource(Resource=arn, TagKeys=["b"])
    assert {"Tags": {}} == told(client.list_tags(Resource=arn))
    assert "Tags" not in client.get_function(FunctionName=name)


def test_there_are_50_tags_and_none_of_them_is_aws_own(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """More, none at all, and aws: keys are refused, and change nothing."""
    name = make_function()
    arn = f"{ARN}:{name}"
    most = {f"key{number}": "" for number in range(50)}
    client.tag_resource(Resource=arn, Tags=most)
    tag = client.tag_resource

    many = "Number of tags exceeds resource tag limit."
    assert (400, INVALID, many) == refused(tag, Resource=arn, Tags={"one": "more"})
    own = "aws: prefixed tag key names are not allowed for external use."
    assert (400, INVALID, own) == refused(tag, Resource=arn, Tags={"AWS:x": ""})
    none = "An error occurred and the request cannot be processed."
    assert (400, INVALID, none) == refused(tag, Resource=arn, Tags={})
    assert most == client.list_tags(Resource=arn)["Tags"]
    client.tag_resource(Resource=arn, Tags={"key0": "again"})


def test_tags_are_of_whole_functions(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Not of versions and aliases, not of what is not there, not of what cannot have any."""
    name = make_function(Publish=True)

    qualified = (
        "Tags on function aliases and versions are not supported. Please specify a function ARN."
    )
    assert (400, INVALID, qualified) == refused(client.list_tags, Resource=f"{ARN}:{name}:1")
    missing = f"Function not found: {ARN}:nowhere"
    assert (404, MISSING, missing) == refused(
        client.tag_resource, Resource=f"{ARN}:nowhere", Tags={"a": "b"}
    )
    mapping = f"{LAMBDA}:event-source-mapping:00000000-0000-0000-0000-000000000000"
    for nothing in (mapping, SIGNING):
        message = f"The resource you requested does not exist: {nothing}"
        assert (404, MISSING, message) == refused(client.list_tags, Resource=nothing)
    status, code, _ = refused(client.list_tags, Resource=f"{LAMBDA}:layer:l")
    assert (400, "ValidationException") == (status, code)


def test_event_source_mappings_have_tags_too(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """ListTags returns them; GetEventSourceMapping does not."""
    mapping = client.create_event_source_mapping(
        FunctionName=make_function(), EventSourceArn=QUEUE, Tags={"a": "1"}
    )
    arn = mapping["EventSourceMappingArn"]
    client.tag_resource(Resource=arn, Tags={"b": "2"})
    client.untag_resource(Resource=arn, TagKeys=["a"])

    assert {"b": "2"} == client.list_tags(Resource=arn)["Tags"]
    assert "Tags" not in client.get_event_source_mapping(UUID=mapping["UUID"])
    client.delete_event_source_mapping(UUID=mapping["UUID"])
    assert 404 == refused(client.list_tags, Resource=arn)[0]


# The account, and code signing


def test_the_account_tells_its_limits_and_what_is_used(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Sizes are of all versions; concurrency is this machine's, less what is reserved."""
    before = told(client.get_account_settings())
    name = make_function(Publish=True)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    after = told(client.get_account_settings())

    capacity = before["AccountLimit"]["ConcurrentExecutions"]
    assert {
        "TotalCodeSize": 80_530_636_800,
        "CodeSizeUnzipped": 262_144_000,
        "CodeSizeZipped": 52_428_800,
        "ConcurrentExecutions": capacity,
        "UnreservedConcurrentExecutions": capacity - 1,
    } == after["AccountLimit"]
    assert capacity == before["AccountLimit"]["UnreservedConcurrentExecutions"]
    size = client.get_function_configuration(FunctionName=name)["CodeSize"]
    used, used_before = after["AccountUsage"], before["AccountUsage"]
    assert 2 * size == used["TotalCodeSize"] - used_before["TotalCodeSize"]
    assert 1 == used["FunctionCount"] - used_before["FunctionCount"]


def test_nobody_signs_code(client: BaseClient, make_function: Callable[..., str]) -> None:
    """A function has an empty ARN, as Terraform reads it; to take that away is to do nothing."""
    name = make_function()

    assert {"CodeSigningConfigArn": "", "FunctionName": name} == told(
        client.get_function_code_signing_config(FunctionName=name)
    )
    client.delete_function_code_signing_config(FunctionName=name)
    missing = f"Function not found: {ARN}:nowhere"
    assert (404, MISSING, missing) == refused(
        client.get_function_code_signing_config, FunctionName="nowhere"
    )
    status, code, _ = refused(
        client.put_function_code_signing_config, FunctionName=name, CodeSigningConfigArn=SIGNING
    )
    assert (404, "CodeSigningConfigNotFoundException") == (status, code)
    message = f"The Lambda code signing configuration {SIGNING} can not be found."
    assert (404, MISSING, message) == refused(
        client.get_code_signing_config, CodeSigningConfigArn=SIGNING
    )


# What is not offered


def test_lists_of_what_is_not_offered_are_empty(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """There are none; but the function in the request must exist."""
    assert [] == client.list_capacity_providers()["CapacityProviders"]
    assert [] == client.list_code_signing_configs()["CodeSigningConfigs"]
    listed = client.list_durable_executions_by_function
    assert [] == listed(FunctionName=make_function())["DurableExecutions"]
    assert 404 == refused(listed, FunctionName="nowhere")[0]


def test_what_is_not_offered_is_refused_in_a_sentence(client: BaseClient) -> None:
    """Making one says what there is not; reading one says that this one is not there."""
    provider = {"SubnetIds": ["subnet-0"], "SecurityGroupIds": ["sg-0"]}
    role = {"CapacityProviderOperatorRoleArn": "arn:aws:iam::000000000000:role/r"}
    assert (400, INVALID, not_offered.PROVIDERS) == refused(
        client.create_capacity_provider,
        CapacityProviderName="p",
        VpcConfig=provider,
        PermissionsConfig=role,
    )
    assert (404, MISSING, "There is no capacity provider p") == refused(
        client.get_capacity_provider, CapacityProviderName="p"
    )
    execution = f"{ARN}:f:1/durable-execution/e/i"
    assert (404, MISSING, f"There is no durable execution {execution}") == refused(
        client.stop_durable_execution, DurableExecutionArn=execution
    )
    assert (400, INVALID, not_offered.BY_ARN) == refused(
        client.get_resource_policy, ResourceArn=f"{ARN}:f"
    )


def test_each_operation_is_in_one_table() -> None:
    """What is not offered is all that the inputs do not have; nothing is in two tables."""
    tables: list[dict[str, Any]] = [
        module.OPERATIONS
        for module in (not_offered, attributes, concurrency, event_invoke, mappings, policies)
    ]
    names = [name for table in tables for name in table]
    session = botocore.session.get_session()
    known = set(session.get_service_model("lambda").operation_names)

    assert len(set(names)) == len(names)
    assert known - inputs.INPUTS.keys() == set(not_offered.OPERATIONS)
    assert set(names) <= known
