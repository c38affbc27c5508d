"""The operations on functions: create, read, update, delete, and the source of their code."""

from __future__ import annotations

import functools
import uuid
from typing import TYPE_CHECKING, Any

from miniλ import model, names
from miniλ.errors import InvalidParameterValue, NoCodeSigningConfig, ResourceNotFound
from miniλ.gateway import configurations, documents, s3
from miniλ.gateway.attributes import check_tags
from miniλ.gateway.call import page
from miniλ.model import FunctionConfiguration, FunctionDraft
from miniλ.store import packages
from miniλ.store.packages import Upload
from miniλ.store.resources import ALIAS, TAGS

if TYPE_CHECKING:
    from miniλ.gateway.call import Call


async def create_function(call: Call) -> dict[str, Any]:
    """Create a function; answered as Pending, and Active after the answer."""
    params = call.params
    configurations.check_name(params["FunctionName"])
    configurations.check_package_type(params)
    if not {"Runtime", "Handler"} <= params.keys():
        msg = "Runtime and Handler are mandatory parameters for functions created with "
        raise InvalidParameterValue(f"{msg}deployment packages.")
    if "CodeSigningConfigArn" in params:
        msg = (
            "The code signing configuration cannot be found. Check that the provided "
            f"configuration is not deleted: {params['CodeSigningConfigArn']}."
        )
        raise NoCodeSigningConfig(msg)
    draft = FunctionDraft(
        name=call.name(),
        revision=model.new_revision(),
        last_modified=model.now_iso(),
        **configurations.fields(call),
    )
    configurations.check_snap_start(params, draft)
    check_tags(call.params.get("Tags", {}))
    call.api.functions.check_new(draft.name)
    code = await archive(call, params["Code"])
    function = await call.api.functions.create(
        draft,
        code,
        settle=True,
        publish=params.get("Publish", False),
        tags=params.get("Tags"),
    )
    return documents.configuration(function, call.place)


async def archive(call: Call, code: dict[str, Any]) -> Upload:
    """Return the archive of a function or a layer: from the request, or fetched from S3."""
    from_s3 = [name for name in ("S3Bucket", "S3Key") if name in code]
    if call.upload is not None and from_s3:
        msg = "Please do not provide other FunctionCode parameters when providing a ZipFile."
        raise InvalidParameterValue(msg)
    if call.upload is not None:
        return call.upload
    if len(from_s3) < 2:  # noqa: PLR2004 - both of them
        msg = "Please provide a source for function code."
        raise InvalidParameterValue(msg)
    settings = call.api.parts.settings.s3
    if settings is None:
        msg = "No S3 endpoint is configured here: send the archive as ZipFile, or set [s3] endpoint"
        raise InvalidParameterValue(msg)
    call.upload = Upload(call.api.uploads / f"{uuid.uuid4().hex}.zip")
    await s3.fetch(
        settings.endpoint,
        code["S3Bucket"],
        code["S3Key"],
        code.get("S3ObjectVersion"),
        call.upload.path,
        key_id=settings.access_key_id,
        secret=settings.secret_access_key,
        region=call.place.region,
        limit=packages.MAX_OBJECT,
    )
    return call.upload


async def get_function(call: Call) -> dict[str, Any]:
    """Return all of a function: configuration, a link to its code, tags, concurrency."""
    function, qualifier = _version(call)
    name = function.name
    link = call.api.links.make(documents.hexadecimal(function.code_sha256))
    document: dict[str, Any] = {
        "Configuration": documents.configuration(function, call.place, qualifier),
        "Code": {"RepositoryType": "S3", "Location": call.api.base_url + link},
    }
    tags = call.api.registry.get(TAGS, name)
    if tags:
        document["Tags"] = tags
    reserved = call.api.functions.get(name).reserved_concurrency
    if reserved is not None:
        document["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
    return document


async def get_function_configuration(call: Call) -> dict[str, Any]:
    """Return the configuration of a version."""
    function, qualifier = _version(call)
    return documents.configuration(function, call.place, qualifier)


def _version(call: Call) -> tuple[FunctionConfiguration, str]:
    """Return the version in the request, and the qualifier that stands for it there."""
    name, qualifier = call.function()
    is_alias = qualifier and not names.is_version(qualifier)
    if is_alias and call.api.registry.get(ALIAS, name, qualifier) is None:
        # Other operations say that there is no such alias; GetFunction and
        # GetFunctionConfiguration answer with this (recorded answers).
        msg = f"Function not found: {call.place.function(name, qualifier)}"
        raise ResourceNotFound(msg)
    return call.api.functions.get(name, qualifier), qualifier


async def update_function_configuration(call: Call) -> dict[str, Any]:
    """Change the configuration of a function; answered as InProgress."""
    functions = call.api.functions
    functions.get(call.name())
    function = await functions.update(
        call.name(),
        configurations.fields(call),
        settle=True,
        revision=call.params.get("RevisionId", ""),
        check=functools.partial(configurations.check_snap_start, call.params),
    )
    return documents.configuration(function, call.place)


async def update_function_code(call: Call) -> dict[str, Any]:
    """Give a function new code; answered as InProgress. `Publish` makes a version of it."""
    params, functions = call.params, call.api.functions
    configurations.check_offered(params)
    configurations.check_package_type({"Code": params})
    functions.get(call.name())
    code = await archive(call, params)
    publish = params.get("Publish", False)
    members = {name: params[name] for name in ("Architectures",) if name in params}
    function = await functions.update_code(
        call.name(),
        code,
        {"passthrough": members},
        # A version is made of a function that is ready: with Publish the answer waits for it.
        settle=not publish,
        publish=publish,
        revision=params.get("RevisionId", ""),
        dry_run=params.get("DryRun", False),
    )
    return documents.configuration(function, call.place)


async def delete_function(call: Call) -> None:
    """Delete a function, or one version of it."""
    name, qualifier = call.function()
    await call.api.functions.delete(name, qualifier)


async def list_functions(call: Call) -> dict[str, Any]:
    """List $LATEST of all functions; with FunctionVersion=ALL all versions of them."""
    functions = call.api.functions
    items = functions.all()
    if call.params.get("FunctionVersion") == "ALL":
        items = [version for function in items for version in functions.versions(function.name)]
        return page(call, items, "Functions", lambda each: documents.listed(each, call.place))
    return page(
        call,
        items,
        "Functions",
        lambda each: documents.listed(each, call.place, qualified=False),
    )


OPERATIONS = {
    "CreateFunction": create_function,
    "GetFunction": get_function,
    "GetFunctionConfiguration": get_function_configuration,
    "UpdateFunctionConfiguration": update_function_configuration,
    "UpdateFunctionCode": update_function_code,
    "DeleteFunction": delete_function,
    "ListFunctions": list_functions,
}
