"""The operation of a request, by the method and path of Lambda's HTTP API.

Rule 1: a path comes in as the client sent it. It is split at "/" first, and each segment is decoded
once after that: an encoded slash is part of a name, and never leads into another path.

Rule 2: a path with a segment that cannot be a name (empty, "..", control characters, bytes that are
not UTF-8) is unknown. Whether a name is one that Lambda takes is for `validate`.

Source of paths, methods and statuses: the service model of 2015-03-31 that AWS's clients have
(botocore 1.44.8): 91 operations. tests/unit/gateway/service_model/test_operations.py compares them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec

from miniλ.errors import MethodNotAllowed, UnknownOperation

if TYPE_CHECKING:
    from collections.abc import Mapping

# By path, as in the model, and method: the operation and the status of its success.
_PATHS: dict[str, dict[str, tuple[str, int]]] = {
    "/2014-11-13/functions/{FunctionName}/invoke-async": {
        "POST": ("InvokeAsync", 202),
    },
    "/2015-03-31/event-source-mappings": {
        "GET": ("ListEventSourceMappings", 200),
        "POST": ("CreateEventSourceMapping", 202),
    },
    "/2015-03-31/event-source-mappings/{UUID}": {
        "GET": ("GetEventSourceMapping", 200),
        "PUT": ("UpdateEventSourceMapping", 202),
        "DELETE": ("DeleteEventSourceMapping", 202),
    },
    "/2015-03-31/functions": {
        "GET": ("ListFunctions", 200),
        "POST": ("CreateFunction", 201),
    },
    "/2015-03-31/functions/{FunctionName}": {
        "GET": ("GetFunction", 200),
        # Newer models say 200; recorded answers of AWS are 204, without a body.
        "DELETE": ("DeleteFunction", 204),
    },
    "/2015-03-31/functions/{FunctionName}/aliases": {
        "GET": ("ListAliases", 200),
        "POST": ("CreateAlias", 201),
    },
    "/2015-03-31/functions/{FunctionName}/aliases/{Name}": {
        "GET": ("GetAlias", 200),
        "PUT": ("UpdateAlias", 200),
        "DELETE": ("DeleteAlias", 204),
    },
    "/2015-03-31/functions/{FunctionName}/code": {
        "PUT": ("UpdateFunctionCode", 200),
    },
    "/2015-03-31/functions/{FunctionName}/configuration": {
        "GET": ("GetFunctionConfiguration", 200),
        "PUT": ("UpdateFunctionConfiguration", 200),
    },
    "/2015-03-31/functions/{FunctionName}/invocations": {
        "POST": ("Invoke", 200),
    },
    "/2015-03-31/functions/{FunctionName}/policy": {
        "GET": ("GetPolicy", 200),
        "POST": ("AddPermission", 201),
    },
    "/2015-03-31/functions/{FunctionName}/policy/{StatementId}": {
        "DELETE": ("RemovePermission", 204),
    },
    "/2015-03-31/functions/{FunctionName}/versions": {
        "GET": ("ListVersionsByFunction", 200),
        "POST": ("PublishVersion", 201),
    },
    "/2016-08-19/account-settings": {
        "GET": ("GetAccountSettings", 200),
    },
    "/2017-03-31/tags/{Resource}": {
        "GET": ("ListTags", 200),
        "POST": ("TagResource", 204),
        "DELETE": ("UntagResource", 204),
    },
    "/2017-10-31/functions/{FunctionName}/concurrency": {
        "PUT": ("PutFunctionConcurrency", 200),
        "DELETE": ("DeleteFunctionConcurrency", 204),
    },
    "/2018-10-31/layers": {
        "GET": ("ListLayers", 200),
    },
    "/2018-10-31/layers/{LayerName}/versions": {
        "GET": ("ListLayerVersions", 200),
        "POST": ("PublishLayerVersion", 201),
    },
    "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}": {
        "GET": ("GetLayerVersion", 200),
        "DELETE": ("DeleteLayerVersion", 204),
    },
    "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy": {
        "GET": ("GetLayerVersionPolicy", 200),
        "POST": ("AddLayerVersionPermission", 201),
    },
    "/2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy/{StatementId}": {
        "DELETE": ("RemoveLayerVersionPermission", 204),
    },
    "/2018-10-31/layers?find=LayerVersion": {
        "GET": ("GetLayerVersionByArn", 200),
    },
    "/2019-09-25/functions/{FunctionName}/event-invoke-config": {
        "GET": ("GetFunctionEventInvokeConfig", 200),
        "POST": ("UpdateFunctionEventInvokeConfig", 200),
        "PUT": ("PutFunctionEventInvokeConfig", 200),
        "DELETE": ("DeleteFunctionEventInvokeConfig", 204),
    },
    "/2019-09-25/functions/{FunctionName}/event-invoke-config/list": {
        "GET": ("ListFunctionEventInvokeConfigs", 200),
    },
    "/2019-09-30/functions/{FunctionName}/concurrency": {
        "GET": ("GetFunctionConcurrency", 200),
    },
    "/2019-09-30/functions/{FunctionName}/provisioned-concurrency": {
        "GET": ("GetProvisionedConcurrencyConfig", 200),
        "PUT": ("PutProvisionedConcurrencyConfig", 202),
        "DELETE": ("DeleteProvisionedConcurrencyConfig", 204),
    },
    "/2019-09-30/functions/{FunctionName}/provisioned-concurrency?List=ALL": {
        "GET": ("ListProvisionedConcurrencyConfigs", 200),
    },
    "/2020-04-22/code-signing-configs": {
        "GET": ("ListCodeSigningConfigs", 200),
        "POST": ("CreateCodeSigningConfig", 201),
    },
    "/2020-04-22/code-signing-configs/{CodeSigningConfigArn}": {
        "GET": ("GetCodeSigningConfig", 200),
        "PUT": ("UpdateCodeSigningConfig", 200),
        "DELETE": ("DeleteCodeSigningConfig", 204),
    },
    "/2020-04-22/code-signing-configs/{CodeSigningConfigArn}/functions": {
        "GET": ("ListFunctionsByCodeSigningConfig", 200),
    },
    "/2020-06-30/functions/{FunctionName}/code-signing-config": {
        "GET": ("GetFunctionCodeSigningConfig", 200),
        "PUT": ("PutFunctionCodeSigningConfig", 200),
        "DELETE": ("DeleteFunctionCodeSigningConfig", 204),
    },
    "/2021-07-20/functions/{FunctionName}/runtime-management-config": {
        "GET": ("GetRuntimeManagementConfig", 200),
        "PUT": ("PutRuntimeManagementConfig", 200),
    },
    "/2021-10-31/functions/{FunctionName}/url": {
        "GET": ("GetFunctionUrlConfig", 200),
        "POST": ("CreateFunctionUrlConfig", 201),
        "PUT": ("UpdateFunctionUrlConfig", 200),
        "DELETE": ("DeleteFunctionUrlConfig", 204),
    },
    "/2021-10-31/functions/{FunctionName}/urls": {
        "GET": ("ListFunctionUrlConfigs", 200),
    },
    "/2021-11-15/functions/{FunctionName}/response-streaming-invocations": {
        "POST": ("InvokeWithResponseStream", 200),
    },
    "/2024-08-31/functions/{FunctionName}/recursion-config": {
        "GET": ("GetFunctionRecursionConfig", 200),
        "PUT": ("PutFunctionRecursionConfig", 200),
    },
    "/2025-11-30/capacity-providers": {
        "GET": ("ListCapacityProviders", 200),
        "POST": ("CreateCapacityProvider", 202),
    },
    "/2025-11-30/capacity-providers/{CapacityProviderName}": {
        "GET": ("GetCapacityProvider", 200),
        "PUT": ("UpdateCapacityProvider", 202),
        "DELETE": ("DeleteCapacityProvider", 202),
    },
    "/2025-11-30/capacity-providers/{CapacityProviderName}/function-versions": {
        "GET": ("ListFunctionVersionsByCapacityProvider", 200),
    },
    "/2025-11-30/functions/{FunctionName}/function-scaling-config": {
        "GET": ("GetFunctionScalingConfig", 200),
        "PUT": ("PutFunctionScalingConfig", 202),
    },
    "/2025-12-01/durable-execution-callbacks/{CallbackId}/fail": {
        "POST": ("SendDurableExecutionCallbackFailure", 200),
    },
    "/2025-12-01/durable-execution-callbacks/{CallbackId}/heartbeat": {
        "POST": ("SendDurableExecutionCallbackHeartbeat", 200),
    },
    "/2025-12-01/durable-execution-callbacks/{CallbackId}/succeed": {
        "POST": ("SendDurableExecutionCallbackSuccess", 200),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}": {
        "GET": ("GetDurableExecution", 200),
        "DELETE": ("DeleteDurableExecution", 202),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}/checkpoint": {
        "POST": ("CheckpointDurableExecution", 200),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}/history": {
        "GET": ("GetDurableExecutionHistory", 200),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}/pause": {
        "POST": ("PauseDurableExecution", 202),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}/resume": {
        "POST": ("ResumeDurableExecution", 202),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}/state": {
        "GET": ("GetDurableExecutionState", 200),
    },
    "/2025-12-01/durable-executions/{DurableExecutionArn}/stop": {
        "POST": ("StopDurableExecution", 200),
    },
    "/2025-12-01/functions/{FunctionName}/durable-executions": {
        "GET": ("ListDurableExecutionsByFunction", 200),
    },
    "/2026-07-09/resource-policy/{ResourceArn}": {
        "GET": ("GetResourcePolicy", 200),
        "PUT": ("PutResourcePolicy", 200),
        "DELETE": ("DeleteResourcePolicy", 204),
    },
}

# Operations whose body is not a JSON document, but one member of the input as bytes.
_BLOB_BODIES = frozenset(
    {"Invoke", "InvokeAsync", "InvokeWithResponseStream", "SendDurableExecutionCallbackSuccess"}
)

# Characters that no decoded segment may have; and a % that begins no escape, which urllib keeps.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_HALF_ESCAPE = re.compile("%(?![0-9A-Fa-f]{2})")

# At most this number of characters of an unknown path are in a message.
_SHOWN = 200


class Operation(msgspec.Struct, frozen=True):
    """One operation: its `path` as in the model, and the `status` of its success.

    With `blob_body` the body is a payload, and not a JSON document.
    """

    name: str
    method: str
    path: str
    status: int
    blob_body: bool = False


OPERATIONS: dict[str, Operation] = {
    name: Operation(name, method, path, status, name in _BLOB_BODIES)
    for path, methods in _PATHS.items()
    for method, (name, status) in methods.items()
}


class _Node:
    """A node in the tree of paths: its operations, and the segments that may follow."""

    __slots__ = ("by_query", "literal", "operations", "parameter", "wild")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        # The node of any other segment, and the parameter that this segment is. No node of the
        # model has both kinds of segments.
        self.wild: _Node | None = None
        self.parameter = ""
        self.operations: dict[str, Operation] = {}
        # By method: an operation that a parameter of the query string selects.
        self.by_query: dict[str, tuple[str, str, Operation]] = {}


def _tree() -> _Node:
    root = _Node()
    for operation in OPERATIONS.values():
        path, _, condition = operation.path.partition("?")
        node = root
        for segment in path[1:].split("/"):
            if segment.startswith("{"):
                node.parameter = segment[1:-1]
                node.wild = node.wild or _Node()
                node = node.wild
            else:
                node = node.literal.setdefault(segment, _Node())
        if condition:
            key, _, value = condition.partition("=")
            node.by_query[operation.method] = (key, value, operation)
        else:
            node.operations[operation.method] = operation
    return root


_ROOT = _tree()


def match(method: str, raw_path: str, query: Mapping[str, str]) -> tuple[Operation, dict[str, str]]:
    """Return the operation of a request and the parameters in its path, decoded.

    `raw_path` is the path as it was sent, still percent-encoded and without the query
    string; `query` is decoded. Raises `UnknownOperation` and `MethodNotAllowed`.
    """
    node = _ROOT
    in_path: dict[str, str] = {}
    first, *segments = raw_path.split("/")
    # A path begins with a slash, and may end with one.
    if segments and not segments[-1]:
        segments.pop()
    if first or not segments:
        raise _unknown(raw_path)
    for segment in segments:
        after = node.literal.get(segment)
        if after is None:
            name = _decoded(segment)
            if name is None:
                raise _unknown(raw_path)
            after = node.literal.get(name)
            if after is None:
                after = node.wild
                if after is None:
                    raise _unknown(raw_path)
                in_path[node.parameter] = name
        node = after
    if node.by_query and method in node.by_query:
        key, value, operation = node.by_query[method]
        if query.get(key) == value:
            return operation, in_path
    plain = node.operations.get(method)
    if plain is None:
        if not node.operations:
            raise _unknown(raw_path)
        msg = (
            f"{method[:_SHOWN]} is not allowed for {raw_path[:_SHOWN]}: "
            f"use {', '.join(sorted(node.operations))}"
        )
        raise MethodNotAllowed(msg)
    return plain, in_path


def _decoded(segment: str) -> str | None:
    """Return a segment decoded, or None if it cannot be a name."""
    if "%" in segment:
        if _HALF_ESCAPE.search(segment):
            return None
        try:
            segment = unquote_to_bytes(segment).decode()
        except UnicodeError:  # also for a segment that has a surrogate as it is
            return None
    if segment in {"", ".", ".."}:
        return None
    # Nearly every name is printable: a faster check than the regular expression.
    if not segment.isprintable() and _FORBIDDEN.search(segment):
        return None
    return segment


def _unknown(path: str) -> UnknownOperation:
    return UnknownOperation(f"Lambda has no operation with the path {path[:_SHOWN]!r}")
