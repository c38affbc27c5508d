"""Operations on function URLs, and the function that each URL leads to.

A URL belongs to a function or to one of its aliases. Its id is 32 random letters and digits (160
bits, so it cannot be guessed), new for each config. Requests to a URL are answered by `serve`.

Rule: only this module writes the index of ids. An entry without its config in the registry is
stale, and is dropped when it is looked up: so the deletion of a function or an alias, which knows
nothing of the index, needs no step of its own here.
"""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import WeakKeyDictionary

from miniλ.errors import ResourceConflict, ResourceNotFound
from miniλ.gateway.call import page
from miniλ.store.registry import Change, Registry
from miniλ.store.resources import ALIAS, URL, Document

if TYPE_CHECKING:
    from miniλ.gateway.call import Call

NO_FUNCTION = "Function does not exist"
NO_URL = "The resource you requested does not exist."

# By id: the function and the alias ("" for none) that a URL was made for.
_Index: TypeAlias = dict[str, tuple[str, str]]
_indexes: WeakKeyDictionary[Registry, _Index] = WeakKeyDictionary()


def find(registry: Registry, url_id: str) -> tuple[str, str, Document] | None:
    """Return function, alias ("" for none) and config of a URL; None for an unknown id.

    One dict look-up, for known and for invented ids, with any number of URLs.
    """
    index = _index(registry)
    owner = index.get(url_id)
    if owner is None:
        return None
    config = registry.get(URL, *owner)
    if config is None or config["UrlId"] != url_id:
        del index[url_id]  # its function or its alias was deleted
        return None
    return (*owner, config)


def _index(registry: Registry) -> _Index:
    index = _indexes.get(registry)
    if index is None:
        index = _indexes[registry] = {
            config["UrlId"]: (name, alias)
            for name in registry.names(URL)
            for alias, config in registry.parts(URL, name).items()
        }
    return index


async def create_function_url_config(call: Call) -> dict[str, Any]:
    """Create the URL of a function or of an alias."""
    params, registry = call.params, call.api.registry
    name, alias = call.function()
    async with call.api.functions.changing:
        _check_function(call, name, NO_FUNCTION)
        if alias and registry.get(ALIAS, name, alias) is None:
            raise ResourceNotFound(NO_FUNCTION)
        if registry.get(URL, name, alias) is not None:
            msg = (
                "Failed to create function url config for [functionArn = "
                f"{call.place.function(name, alias)}]. "
                "Error message:  FunctionUrlConfig exists for this Lambda function"
            )
            raise ResourceConflict(msg)
        now = _now()
        config = {
            "UrlId": _new_id(),
            "AuthType": params["AuthType"],
            "Cors": params.get("Cors", {}),
            "InvokeMode": params.get("InvokeMode", "BUFFERED"),
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        index = _index(registry)
        await registry.write(Change(URL, name, alias, config))
        index[config["UrlId"]] = (name, alias)
    document = _document(call, name, alias, config)
    del document["LastModifiedTime"]
    return document


async def get_function_url_config(call: Call) -> dict[str, Any]:
    """Return the URL of a function or of an alias."""
    name, alias = call.function()
    return _document(call, name, alias, _config(call, name, alias, NO_URL))


async def update_function_url_config(call: Call) -> dict[str, Any]:
    """Change the members that the request has; a Cors replaces all of the former one."""
    name, alias = call.function()
    async with call.api.functions.changing:
        before = _config(call, name, alias, NO_FUNCTION)
        changes: Document = {
            key: call.params[key]
            for key in ("AuthType", "Cors", "InvokeMode")
            if key in call.params
        }
        config: Document = {**before, **changes, "LastModifiedTime": _now()}
        await call.api.registry.write(Change(URL, name, alias, config))
    return _document(call, name, alias, config)


async def delete_function_url_config(call: Call) -> None:
    """Delete a URL for good: a later one of the same function has another id."""
    name, alias = call.function()
    async with call.api.functions.changing:
        _config(call, name, alias, NO_URL)
        await call.api.registry.write(Change(URL, name, alias, None))


async def list_function_url_configs(call: Call) -> dict[str, Any]:
    """List the URLs of a function and of its aliases; the function's own is the first."""
    name, _ = call.function()
    _check_function(call, name, NO_FUNCTION)
    configs = sorted(call.api.registry.parts(URL, name).items())
    return page(
        call, configs, "FunctionUrlConfigs", lambda each: _document(call, name, each[0], each[1])
    )


def _check_function(call: Call, name: str, message: str) -> None:
    """Refuse a function that does not exist, with AWS's message for operations on URLs."""
    try:
        call.api.functions.get(name)
    except ResourceNotFound:
        raise ResourceNotFound(message) from None


def _config(call: Call, name: str, alias: str, no_function: str) -> Document:
    _check_function(call, name, no_function)
    config = call.api.registry.get(URL, name, alias)
    if config is None:
        raise ResourceNotFound(NO_URL)
    return config


def _document(call: Call, name: str, alias: str, config: Document) -> dict[str, Any]:
    """Return a FunctionUrlConfig; an empty Cors is left out."""
    document = {
        "FunctionUrl": call.api.url_of(config["UrlId"]),
        "FunctionArn": call.place.function(name, alias),
        "AuthType": config["AuthType"],
    }
    if config["Cors"]:
        document["Cors"] = config["Cors"]
    document["CreationTime"] = config["CreationTime"]
    document["LastModifiedTime"] = config["LastModifiedTime"]
    document["InvokeMode"] = config["InvokeMode"]
    return document


def _new_id() -> str:
    # 160 bits in base32 are exactly 32 characters, all of which a host name may have.
    return base64.b32encode(os.urandom(20)).decode().lower()


def _now() -> str:
    """Return the time in the format of URL configs: 2026-11-24T12:00:00.000000Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


OPERATIONS = {
    "CreateFunctionUrlConfig": create_function_url_config,
    "GetFunctionUrlConfig": get_function_url_config,
    "UpdateFunctionUrlConfig": update_function_url_config,
    "DeleteFunctionUrlConfig": delete_function_url_config,
    "ListFunctionUrlConfigs": list_function_url_configs,
}
