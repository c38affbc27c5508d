"""The operations on versions and aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from miniλ.errors import InvalidParameterValue, ResourceConflict, ResourceNotFound
from miniλ.gateway import concurrency, configurations, documents
from miniλ.gateway.call import page
from miniλ.model import LATEST, new_revision
from miniλ.revisions import check_revision
from miniλ.store.registry import Change
from miniλ.store.resources import ALIAS, EVENT_INVOKE, POLICY, PROVISIONED, URL, Alias, Kind

if TYPE_CHECKING:
    from miniλ.gateway.call import Call


async def publish_version(call: Call) -> dict[str, Any]:
    """Make a version of $LATEST; if nothing has changed since the last one, return that."""
    params = call.params
    configurations.check_offered(params)
    function = await call.api.functions.publish_version(
        call.name(),
        description=params.get("Description"),
        sha256=params.get("CodeSha256", ""),
        revision=params.get("RevisionId", ""),
    )
    return documents.configuration(function, call.place)


async def list_versions_by_function(call: Call) -> dict[str, Any]:
    """List the versions of a function, $LATEST first."""
    versions = call.api.functions.versions(call.name())
    return page(call, versions, "Versions", lambda each: documents.listed(each, call.place))


async def create_alias(call: Call) -> dict[str, Any]:
    """Create an alias of a version, or of two with weights."""
    params, name = call.params, call.name()
    functions = call.api.functions
    async with functions.changing:
        functions.get(name)
        if call.api.registry.get(ALIAS, name, params["Name"]) is not None:
            msg = f"Alias already exists: {call.place.function(name, params['Name'])}"
            raise ResourceConflict(msg)
        alias = Alias(
            function=name,
            name=params["Name"],
            version=params["FunctionVersion"],
            description=params.get("Description", ""),
            weights=_weights(params),
            revision=new_revision(),
        )
        _check(call, alias)
        await call.api.registry.write(Change(ALIAS, name, alias.name, alias))
    return documents.alias(alias, call.place)


async def get_alias(call: Call) -> dict[str, Any]:
    """Return an alias."""
    name = call.name()
    call.api.functions.get(name)
    return documents.alias(call.api.functions.alias(name, call.params["Name"]), call.place)


async def update_alias(call: Call) -> dict[str, Any]:
    """Point an alias to another version, or to two; its provisioned concurrency moves along."""
    params = call.params
    async with call.api.functions.changing:
        name, part = call.name(), params["Name"]
        call.api.functions.get(name)
        before = call.api.registry.get(ALIAS, name, part)
        if before is None:
            msg = f"Alias not found: {call.place.function(name, part)}"
            raise ResourceNotFound(msg)
        check_revision(params.get("RevisionId"), before.revision)
        changes: dict[str, Any] = {"revision": new_revision()}
        if "FunctionVersion" in params:
            changes["version"] = params["FunctionVersion"]
        if "Description" in params:
            changes["description"] = params["Description"]
        if "RoutingConfig" in params:
            changes["weights"] = _weights(params)
        alias = msgspec.structs.replace(before, **changes)
        _check(call, alias)
        count = _provisioned(call, before)
        if count:
            concurrency.check_only(call, name, alias.name, alias)
        moves = count and alias.version != before.version
        functions = call.api.functions
        if moves:
            functions.check_provision(name, alias.version, count, freed=count)

        def move() -> None:
            if moves:
                functions.provision(name, before.version, 0)
                functions.provision(name, alias.version, count)

        await call.api.registry.write(Change(ALIAS, name, alias.name, alias), then=move)
    return documents.alias(alias, call.place)


async def delete_alias(call: Call) -> None:
    """Delete an alias with all that was set for it; no error if there is none."""
    name, alias = call.name(), call.params["Name"]
    async with call.api.functions.changing:
        call.api.functions.get(name)
        known = call.api.registry.get(ALIAS, name, alias)
        is_provisioned = known is not None and _provisioned(call, known)
        kinds: tuple[Kind[Any], ...] = (ALIAS, POLICY, URL, EVENT_INVOKE, PROVISIONED)

        def end() -> None:
            if known is not None and is_provisioned:
                call.api.functions.provision(name, known.version, 0)

        await call.api.registry.write(
            *(Change(kind, name, alias, None) for kind in kinds), then=end
        )


async def list_aliases(call: Call) -> dict[str, Any]:
    """List the aliases of a function; with FunctionVersion those of one version."""
    name = call.name()
    call.api.functions.get(name)
    aliases = call.api.registry.parts(ALIAS, name)
    version = call.params.get("FunctionVersion")
    items = [
        aliases[alias] for alias in sorted(aliases) if version in (None, aliases[alias].version)
    ]
    return page(call, items, "Aliases", lambda each: documents.alias(each, call.place))


def _provisioned(call: Call, alias: Alias) -> int:
    """Return the provisioned concurrency of an alias, 0 without."""
    config = call.api.registry.get(PROVISIONED, alias.function, alias.name)
    return 0 if config is None else config["Requested"]


def _weights(params: dict[str, Any]) -> dict[str, float]:
    weights: dict[str, float] = params.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})
    if len(weights) > 1:
        msg = "Number of items in AdditionalVersionWeights cannot be greater than 1"
        raise InvalidParameterValue(msg)
    return weights


def _check(call: Call, alias: Alias) -> None:
    """Refuse an alias of a version that does not exist, or of two that cannot share one."""
    call.api.functions.get(alias.function, alias.version)
    for other in alias.weights:
        if other == alias.version:
            msg = (
                f"Invalid function version {other}. Function version {other} is already included "
                "in routing configuration."
            )
            raise InvalidParameterValue(msg)
        if LATEST in (other, alias.version):
            msg = "$LATEST is not supported for an alias pointing to more than 1 version"
            raise InvalidParameterValue(msg)
        call.api.functions.get(alias.function, other)


OPERATIONS = {
    "PublishVersion": publish_version,
    "ListVersionsByFunction": list_versions_by_function,
    "CreateAlias": create_alias,
    "GetAlias": get_alias,
    "UpdateAlias": update_alias,
    "DeleteAlias": delete_alias,
    "ListAliases": list_aliases,
}
