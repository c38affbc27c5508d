"""The operations on concurrency: reserved for a function, provisioned for a version.

A PROVISIONED document is {"Requested": n, "LastModified": as clients see it}; its part is the
version or the alias in the request. `Functions.provision` keeps the workers, of the version that
an alias points to, and `Functions.provisioned` counts those that are initialised.

Rule 1: a version has provisioned concurrency under one name only: its number, or one alias. The
operations that bring a config and a version together call `check_only`: UpdateAlias and
PutProvisionedConcurrencyConfig. A new alias has no config.

Rule 2: a request for more than is available is refused first; then the registry is written; then
workers change.

Source: Lambda API reference, and messages as the service has them. There is no recorded answer for
an alias that is moved onto a provisioned version: it is refused as a new config for it is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from miniλ.errors import InvalidParameterValue, NoProvisioned, ResourceConflict
from miniλ.gateway.call import page
from miniλ.model import LATEST
from miniλ.store.registry import Change
from miniλ.store.resources import ALIAS, PROVISIONED

if TYPE_CHECKING:
    from miniλ.gateway.call import Call
    from miniλ.store.resources import Alias


async def put_function_concurrency(call: Call) -> dict[str, Any]:
    """Reserve concurrency for a function, which is also the most that it may use."""
    name, limit = call.name(), call.params["ReservedConcurrentExecutions"]
    await call.api.functions.reserve(name, limit)
    return {"ReservedConcurrentExecutions": limit}


async def get_function_concurrency(call: Call) -> dict[str, Any]:
    """Return the reserved concurrency of a function; an empty document without."""
    limit = call.api.functions.get(call.name()).reserved_concurrency
    return {} if limit is None else {"ReservedConcurrentExecutions": limit}


async def delete_function_concurrency(call: Call) -> None:
    """Remove the reservation of a function: it shares the unreserved concurrency again."""
    await call.api.functions.reserve(call.name(), None)


async def put_provisioned_concurrency_config(call: Call) -> dict[str, Any]:
    """Provision workers of a version; answered while they are started."""
    name, qualifier = call.function()
    if qualifier == LATEST:
        raise _unpublished()
    count = call.params["ProvisionedConcurrentExecutions"]
    functions = call.api.functions
    async with functions.changing:
        version = functions.get(name, qualifier).version
        check_only(call, name, qualifier, call.api.registry.get(ALIAS, name, qualifier))
        _check_room(call, name, count + _requested_otherwise(call, name, qualifier))
        functions.check_provision(name, version, count)
        moment = time.strftime("%Y-%m-%dT%H:%M:%S+0000", time.gmtime())
        config = {"Requested": count, "LastModified": moment}
        await call.api.registry.write(
            Change(PROVISIONED, name, qualifier, config),
            then=lambda: functions.provision(name, version, count),
        )
    return _document(call, name, qualifier)


def check_only(call: Call, name: str, qualifier: str, alias: Alias | None) -> None:
    """Refuse a second name for a version (rule 1), $LATEST, and an alias of two versions.

    `alias` is the alias of this name as it is or will be; None if the name is a version's number.
    The caller holds `changing`.
    """
    if alias is not None and alias.weights:
        msg = "Alias with weights can not be used with Provisioned Concurrency"
        raise InvalidParameterValue(msg)
    version = qualifier if alias is None else alias.version
    if version == LATEST:
        raise _unpublished()
    for other in call.api.registry.parts(PROVISIONED, name):
        if other == qualifier or _version(call, name, other) != version:
            continue
        if alias is None:
            msg = "Version is pointed by a Provisioned Concurrency alias"
        else:
            msg = "Alias can't be used for Provisioned Concurrency configuration on an already "
            msg += "Provisioned version"
        raise ResourceConflict(msg)


def _unpublished() -> InvalidParameterValue:
    msg = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    return InvalidParameterValue(msg)


def _check_room(call: Call, name: str, count: int) -> None:
    """Refuse more provisioned concurrency than the function's concurrency."""
    reserved = call.api.functions.get(name).reserved_concurrency
    if reserved is not None:
        if count > reserved:
            msg = (
                "Requested Provisioned Concurrency should not be greater than the "
                "reservedConcurrentExecution for function"
            )
            raise InvalidParameterValue(msg)
        return
    unreserved = call.api.functions.unreserved
    if count > unreserved:
        msg = (
            "Specified ConcurrentExecutions for function is greater than account's unreserved "
            f"concurrency [{unreserved}]."
        )
        raise InvalidParameterValue(msg)


async def get_provisioned_concurrency_config(call: Call) -> dict[str, Any]:
    """Return how many workers of a version are requested, and how many are initialised."""
    name, qualifier = _published(call)
    if call.api.registry.get(PROVISIONED, name, qualifier) is None:
        msg = "No Provisioned Concurrency Config found for this function"
        raise NoProvisioned(msg)
    return _document(call, name, qualifier)


async def delete_provisioned_concurrency_config(call: Call) -> None:
    """End the provisioned concurrency of a version; no error if there is none."""
    name, qualifier = _published(call)
    async with call.api.functions.changing:
        if call.api.registry.get(PROVISIONED, name, qualifier) is None:
            return
        version = _version(call, name, qualifier)
        await call.api.registry.write(
            Change(PROVISIONED, name, qualifier, None),
            then=lambda: call.api.functions.provision(name, version, 0),
        )


async def list_provisioned_concurrency_configs(call: Call) -> dict[str, Any]:
    """List the provisioned concurrency of all versions and aliases of a function."""
    name, _ = call.function()
    call.api.functions.get(name)
    return page(
        call,
        sorted(call.api.registry.parts(PROVISIONED, name)),
        "ProvisionedConcurrencyConfigs",
        lambda qualifier: {
            "FunctionArn": call.place.function(name, qualifier),
            **_document(call, name, qualifier),
        },
    )


def _published(call: Call) -> tuple[str, str]:
    """Return name and qualifier of a published version or an alias; raises if there is none."""
    name, qualifier = call.function()
    if qualifier == LATEST:
        msg = "The function resource provided must be an alias or a published version."
        raise InvalidParameterValue(msg)
    call.api.functions.get(name, qualifier)
    return name, qualifier


def _version(call: Call, name: str, qualifier: str) -> str:
    alias = call.api.registry.get(ALIAS, name, qualifier)
    return qualifier if alias is None else alias.version


def _requested_otherwise(call: Call, name: str, qualifier: str) -> int:
    """Return the provisioned concurrency of a function under all names but one."""
    configs = call.api.registry.parts(PROVISIONED, name)
    return sum(config["Requested"] for part, config in configs.items() if part != qualifier)


def _document(call: Call, name: str, qualifier: str) -> dict[str, Any]:
    config = call.api.registry.parts(PROVISIONED, name)[qualifier]
    requested = config["Requested"]
    ready, reason = call.api.functions.provisioned(name, _version(call, name, qualifier))
    document: dict[str, Any] = {
        "RequestedProvisionedConcurrentExecutions": requested,
        "AvailableProvisionedConcurrentExecutions": ready,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "Status": "READY" if ready == requested else "IN_PROGRESS",
    }
    if reason:
        document["Status"], document["StatusReason"] = "FAILED", reason
    document["LastModified"] = config["LastModified"]
    return document


OPERATIONS = {
    "PutFunctionConcurrency": put_function_concurrency,
    "GetFunctionConcurrency": get_function_concurrency,
    "DeleteFunctionConcurrency": delete_function_concurrency,
    "PutProvisionedConcurrencyConfig": put_provisioned_concurrency_config,
    "GetProvisionedConcurrencyConfig": get_provisioned_concurrency_config,
    "DeleteProvisionedConcurrencyConfig": delete_provisioned_concurrency_config,
    "ListProvisionedConcurrencyConfigs": list_provisioned_concurrency_configs,
}
