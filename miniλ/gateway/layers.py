"""The operations on layers: versions of content for /opt, and their policies.

Rule 1: a number is used once. The last one outlives its version, and the layer.

Rule 2: a function that has a layer version keeps it; a deleted one cannot be attached any more.

A policy is kept and returned (test_permissions_are_kept_and_told), and not evaluated: any function
of this server may have any of its layers (test_a_function_has_its_layers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniλ import model, names
from miniλ.errors import InvalidParameterValue, ResourceNotFound
from miniλ.gateway import documents, statements
from miniλ.gateway.call import page
from miniλ.gateway.functions import archive
from miniλ.revisions import check_revision
from miniλ.store.registry import Change
from miniλ.store.resources import LAYER, LAYER_NUMBER, LAYER_POLICY, LayerVersion

if TYPE_CHECKING:
    from miniλ.gateway.call import Call
    from miniλ.store.resources import Document


async def publish_layer_version(call: Call) -> dict[str, Any]:
    """Publish an archive as the next version of a layer; the first one creates the layer."""
    params, functions, registry = call.params, call.api.functions, call.api.registry
    name, _ = names.layer(params["LayerName"], call.place)
    code = await archive(call, params["Content"])
    async with functions.changing:
        package = await functions.publish_code(code)
        number = (registry.get(LAYER_NUMBER, name) or 0) + 1
        published = LayerVersion(
            name=name,
            version=number,
            code_sha256=package.sha256,
            code_size=package.size,
            code_path=package.path,
            created=model.now_iso(),
            description=params.get("Description", ""),
            license_info=params.get("LicenseInfo", ""),
            runtimes=params.get("CompatibleRuntimes", []),
            architectures=params.get("CompatibleArchitectures", []),
        )
        await registry.write(
            Change(LAYER, name, str(number), published), Change(LAYER_NUMBER, name, "", number)
        )
    return _document(call, published)


async def get_layer_version(call: Call) -> dict[str, Any]:
    """Return a version of a layer, and a link to its archive."""
    return _document(call, _find(call, *_layer_version(call)))


async def get_layer_version_by_arn(call: Call) -> dict[str, Any]:
    """Return a version of a layer by its ARN."""
    name, version = names.layer(call.params["Arn"], call.place)
    return _document(call, _find(call, name, version or 0))


async def list_layer_versions(call: Call) -> dict[str, Any]:
    """List the versions of a layer, newest first; with a filter, those that it matches."""
    name, _ = names.layer(call.params["LayerName"], call.place)
    return page(
        call,
        _compatible(call, name),
        "LayerVersions",
        lambda each: documents.layer_version(each, call.place),
    )


async def list_layers(call: Call) -> dict[str, Any]:
    """List the layers with their newest version; with a filter, the newest that it matches."""
    heads = [_compatible(call, name)[:1] for name in call.api.registry.names(LAYER)]
    newest = [version for versions in heads for version in versions]
    return page(
        call,
        newest,
        "Layers",
        lambda each: {
            "LayerName": each.name,
            "LayerArn": call.place.layer(each.name),
            "LatestMatchingVersion": documents.layer_version(each, call.place),
        },
    )


async def delete_layer_version(call: Call) -> None:
    """Delete a version of a layer; no error if there is none."""
    name, version = _layer_version(call)
    async with call.api.functions.changing:
        await call.api.registry.write(
            Change(LAYER, name, str(version), None), Change(LAYER_POLICY, name, str(version), None)
        )


async def add_layer_version_permission(call: Call) -> dict[str, Any]:
    """Add a statement to the policy of a layer version."""
    name, version = _layer_version(call)
    async with call.api.functions.changing:
        before = _policy(call, name, version)
        statements.check_new(before, call.params["StatementId"])
        statement = _statement(call, name, version)
        policy = statements.added(before, statement)
        await call.api.registry.write(Change(LAYER_POLICY, name, str(version), policy))
    return {"Statement": statements.to_json(statement), "RevisionId": policy["RevisionId"]}


async def get_layer_version_policy(call: Call) -> dict[str, Any]:
    """Return the policy of a layer version, as a JSON text."""
    policy = _policy(call, *_layer_version(call))
    if not policy["Statement"]:
        msg = "No policy is associated with the given resource."
        raise ResourceNotFound(msg)
    return {"Policy": statements.text(policy), "RevisionId": policy["RevisionId"]}


async def remove_layer_version_permission(call: Call) -> None:
    """Remove a statement from the policy of a layer version."""
    name, version = _layer_version(call)
    async with call.api.functions.changing:
        before = _policy(call, name, version)
        policy = statements.removed(before, call.params["StatementId"])
        await call.api.registry.write(Change(LAYER_POLICY, name, str(version), policy))


def _layer_version(call: Call) -> tuple[str, int]:
    """Return name and number of the layer version in the request."""
    name, _ = names.layer(call.params["LayerName"], call.place)
    version: int = call.params["VersionNumber"]
    if version < 1:
        msg = "Layer Version Cannot be less than 1."
        raise InvalidParameterValue(msg)
    return name, version


def _find(call: Call, name: str, version: int) -> LayerVersion:
    known = call.api.registry.get(LAYER, name, str(version))
    if known is None:
        msg = "The resource you requested does not exist."
        raise ResourceNotFound(msg)
    return known


def _document(call: Call, layer: LayerVersion) -> dict[str, Any]:
    """Return a layer version with a link to its archive."""
    link = call.api.links.make(documents.hexadecimal(layer.code_sha256))
    return {
        "Content": {
            "Location": call.api.base_url + link,
            "CodeSha256": layer.code_sha256,
            "CodeSize": layer.code_size,
        },
        "LayerArn": call.place.layer(layer.name),
        **documents.layer_version(layer, call.place),
    }


def _compatible(call: Call, name: str) -> list[LayerVersion]:
    """Return the versions of a layer that the filters of the request match, newest first."""
    runtime = call.params.get("CompatibleRuntime")
    architecture = call.params.get("CompatibleArchitecture")
    matching = [
        version
        for version in call.api.registry.parts(LAYER, name).values()
        if (runtime is None or runtime in version.runtimes)
        and (architecture is None or architecture in version.architectures)
    ]
    return sorted(matching, key=lambda version: version.version, reverse=True)


def _policy(call: Call, name: str, version: int) -> Document:
    """Return statements and revision of a layer version's policy.

    Raises `PreconditionFailed` if the client means another revision.
    """
    if call.api.registry.get(LAYER, name, str(version)) is None:
        msg = f"Layer version {call.place.layer(name, version)} does not exist."
        raise ResourceNotFound(msg)
    policy = call.api.registry.get(LAYER_POLICY, name, str(version))
    policy = policy or {"Statement": [], "RevisionId": ""}
    check_revision(call.params.get("RevisionId"), policy["RevisionId"], "GetLayerPolicy")
    return policy


def _statement(call: Call, name: str, version: int) -> Document:
    params = call.params
    principal = params["Principal"]
    if principal.isdecimal():
        principal = f"arn:aws:iam::{principal}:root"
    statement = {
        "Sid": params["StatementId"],
        "Effect": "Allow",
        "Principal": principal if principal == "*" else {"AWS": principal},
        "Action": params["Action"],
        "Resource": call.place.layer(name, version),
    }
    if "OrganizationId" in params:
        organization = params["OrganizationId"]
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": organization}}
    return statement


OPERATIONS = {
    "PublishLayerVersion": publish_layer_version,
    "GetLayerVersion": get_layer_version,
    "GetLayerVersionByArn": get_layer_version_by_arn,
    "ListLayerVersions": list_layer_versions,
    "ListLayers": list_layers,
    "DeleteLayerVersion": delete_layer_version,
    "AddLayerVersionPermission": add_layer_version_permission,
    "GetLayerVersionPolicy": get_layer_version_policy,
    "RemoveLayerVersionPermission": remove_layer_version_permission,
}
