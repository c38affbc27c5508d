"""The operations on attributes of functions: recursion, runtime management, tags, the account.

`Functions.traced` acts on RECURSION: it stops a chain of invocations, or lets it go on. Tags and
RUNTIME_MANAGEMENT are kept and returned (tests/api/test_attributes.py).

RECURSION and TAGS belong to a whole function, RUNTIME_MANAGEMENT to a version; its part is "" for
$LATEST. The tags of an event source mapping are in its own document.

Source: Lambda API reference and quotas, and messages as the service has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniλ import names
from miniλ.errors import InvalidParameterValue, ResourceNotFound
from miniλ.model import LATEST
from miniλ.store import archives, packages
from miniλ.store.registry import Change
from miniλ.store.resources import LAYER, MAPPING, RECURSION, RUNTIME_MANAGEMENT, TAGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from miniλ.gateway.call import Call

# Lambda quotas: bytes of all packages, which is not enforced (the disk is the operator's), and tags
# of one resource.
TOTAL_CODE = 80_530_636_800
MAX_TAGS = 50

# Recursion and runtimes


async def get_function_recursion_config(call: Call) -> dict[str, Any]:
    """Return what happens when a function calls itself in a loop."""
    name = call.name()
    call.api.functions.get(name)
    return call.api.registry.get(RECURSION, name) or {"RecursiveLoop": "Terminate"}


async def put_function_recursion_config(call: Call) -> dict[str, Any]:
    """Set what happens when a function calls itself in a loop."""
    name, config = call.name(), {"RecursiveLoop": call.params["RecursiveLoop"]}
    async with call.api.functions.changing:
        call.api.functions.get(name)
        await call.api.registry.write(Change(RECURSION, name, "", config))
    return config


async def get_runtime_management_config(call: Call) -> dict[str, Any]:
    """Return when the runtime of a version is to be updated."""
    name, part = _version(call)
    config = call.api.registry.get(RUNTIME_MANAGEMENT, name, part) or {"UpdateRuntimeOn": "Auto"}
    return {**config, "FunctionArn": call.place.function(*call.function())}


async def put_runtime_management_config(call: Call) -> dict[str, Any]:
    """Keep when to update the runtime; it has no effect: the installed interpreter runs."""
    members = ("UpdateRuntimeOn", "RuntimeVersionArn")
    config = {member: call.params[member] for member in members if member in call.params}
    when = config["UpdateRuntimeOn"]
    if (when == "Manual") != ("RuntimeVersionArn" in config):
        must = "is required" if when == "Manual" else "is not allowed"
        msg = f"RuntimeVersionArn {must} where UpdateRuntimeOn is {when}"
        raise InvalidParameterValue(msg)
    async with call.api.functions.changing:
        name, part = _version(call)
        await call.api.registry.write(Change(RUNTIME_MANAGEMENT, name, part, config))
    return {**config, "FunctionArn": call.place.function(*call.function())}


def _version(call: Call) -> tuple[str, str]:
    """Return name and part of the version in the request; raises `ResourceNotFound`."""
    name, qualifier = call.function()
    version = call.api.functions.get(name, qualifier).version
    return name, "" if version == LATEST else version


# Tags


async def list_tags(call: Call) -> dict[str, Any]:
    """Return the tags of a function or of an event source mapping."""
    return {"Tags": _tags(call)}


async def tag_resource(call: Call) -> None:
    """Add tags, or change their values."""
    tags = call.params["Tags"]
    if not tags:
        msg = "An error occurred and the request cannot be processed."
        raise InvalidParameterValue(msg)
    async with call.api.functions.changing:
        tags = {**_tags(call), **tags}
        check_tags(tags)
        await _write_tags(call, tags)


async def untag_resource(call: Call) -> None:
    """Remove tags; keys that the resource does not have are skipped."""
    removed = set(call.params["TagKeys"])
    async with call.api.functions.changing:
        left = {key: value for key, value in _tags(call).items() if key not in removed}
        await _write_tags(call, left)


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse more tags than a resource may have, and keys that are reserved for AWS."""
    if any(key.lower().startswith("aws:") for key in tags):
        msg = "aws: prefixed tag key names are not allowed for external use."
        raise InvalidParameterValue(msg)
    if len(tags) > MAX_TAGS:
        msg = "Number of tags exceeds resource tag limit."
        raise InvalidParameterValue(msg)


def _tags(call: Call) -> dict[str, str]:
    if _is_mapping(call):
        tags: dict[str, str] = _tagged_mapping(call)["Tags"]
        return tags
    return call.api.registry.get(TAGS, _tagged_function(call)) or {}


async def _write_tags(call: Call, tags: dict[str, str]) -> None:
    if _is_mapping(call):
        mapping = {**_tagged_mapping(call), "Tags": tags}
        await call.api.registry.write(Change(MAPPING, mapping["UUID"], "", mapping))
    else:
        await call.api.registry.write(Change(TAGS, _tagged_function(call), "", tags or None))


def _is_mapping(call: Call) -> bool:
    return names.resource(call.params["Resource"])[0] == "event-source-mapping"


def _tagged_function(call: Call) -> str:
    """Return the name of the function that an ARN is of."""
    arn = call.params["Resource"]
    if names.resource(arn)[0] != "function":
        raise _not_found(arn)
    name, qualifier = names.function(arn, None, call.place)
    if qualifier:
        msg = (
            "Tags on function aliases and versions are not supported. "
            "Please specify a function ARN."
        )
        raise InvalidParameterValue(msg)
    call.api.functions.get(name)
    return name


def _tagged_mapping(call: Call) -> dict[str, Any]:
    """Return the event source mapping that an ARN is of."""
    arn = call.params["Resource"]
    mapping = call.api.registry.get(MAPPING, names.resource(arn)[1])
    if mapping is None:
        raise _not_found(arn)
    return mapping


def _not_found(arn: str) -> ResourceNotFound:
    return ResourceNotFound(f"The resource you requested does not exist: {arn}")


# The account, and code signing


async def get_account_settings(call: Call) -> dict[str, Any]:
    """Return the limits of the account, and how much of them is used."""
    functions, registry = call.api.functions, call.api.registry
    all_functions = functions.all()
    versions = [version for each in all_functions for version in functions.versions(each.name)]
    layers = [
        layer for name in registry.names(LAYER) for layer in registry.parts(LAYER, name).values()
    ]
    used = sum(each.code_size for each in versions) + sum(each.code_size for each in layers)
    return {
        "AccountLimit": {
            "TotalCodeSize": TOTAL_CODE,
            "CodeSizeUnzipped": archives.MAX_UNZIPPED,
            "CodeSizeZipped": packages.MAX_ZIPPED,
            "ConcurrentExecutions": functions.capacity,
            "UnreservedConcurrentExecutions": functions.unreserved,
        },
        "AccountUsage": {
            "TotalCodeSize": used,
            "FunctionCount": len(all_functions),
        },
    }


async def get_function_code_signing_config(call: Call) -> dict[str, Any]:
    """Return an empty ARN: no function has a code signing configuration (recorded answers)."""
    name, _ = call.function()
    call.api.functions.get(name)
    return {"CodeSigningConfigArn": "", "FunctionName": name}


OPERATIONS = {
    "GetFunctionRecursionConfig": get_function_recursion_config,
    "PutFunctionRecursionConfig": put_function_recursion_config,
    "GetRuntimeManagementConfig": get_runtime_management_config,
    "PutRuntimeManagementConfig": put_runtime_management_config,
    "ListTags": list_tags,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "GetAccountSettings": get_account_settings,
    "GetFunctionCodeSigningConfig": get_function_code_signing_config,
}
