"""Configurations: the parameters of a create or an update, as fields of a FunctionConfiguration.

Parameters that `validate` has passed can still be wrong: a deprecated runtime, a layer that does
not exist, a feature that is not offered. `documents` is the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniλ import names
from miniλ.errors import InvalidParameterValue, ValidationFailed
from miniλ.gateway.service_model import shapes
from miniλ.gateway.service_model.constraints import detected, shown, violation
from miniλ.model import AttachedLayer
from miniλ.store.resources import LAYER

if TYPE_CHECKING:
    from miniλ.gateway.call import Call
    from miniλ.model import FunctionDraft

# Lambda quotas: 5 layers; names that are no ARNs have at most 64 characters.
MAX_LAYERS = 5
MAX_NAME = 64
# Runtimes that AWS does not create any more (developer guide, "Deprecated runtimes").
DEPRECATED = frozenset(
    (
        *("nodejs", "nodejs4.3", "nodejs4.3-edge", "nodejs6.10", "nodejs8.10", "nodejs10.x"),
        *("nodejs12.x", "nodejs14.x", "nodejs16.x", "java8", "go1.x", "provided"),
        *("python2.7", "python3.6", "python3.7", "python3.8", "ruby2.5", "ruby2.7"),
        *("dotnetcore1.0", "dotnetcore2.0", "dotnetcore2.1", "dotnetcore3.1", "dotnet5.0"),
        "dotnet6",
    )
)
RUNTIMES = [runtime for runtime in shapes.Runtime.values if runtime not in DEPRECATED]
# Source: developer guide, "Improving startup performance with Lambda SnapStart".
SNAP_STARTED = ("java11", "java17", "java21", "java25", "python3.12", "python3.13", "python3.14")
# Parameters that would change how a function runs, and have no code here: `check_offered`.
NOT_OFFERED = (
    "PublishTo",
    "ImageConfig",
    "TenancyConfig",
    "CapacityProviderConfig",
    "DurableConfig",
    "RuntimeConfig",
    "AcceleratorConfig",
)
# Parameters that are kept as the client sent them, in `passthrough`, and returned. LoggingConfig
# sets the log format of workers (`runtimes.environment`), DeadLetterConfig where failed events go
# (`events.outcomes`). SnapStart is checked against the runtime (`check_snap_start`).
KEPT = (
    "VpcConfig",
    "DeadLetterConfig",
    "KMSKeyArn",
    "TracingConfig",
    "FileSystemConfigs",
    "SnapStart",
    "LoggingConfig",
    "Architectures",
)
# A parameter and the field of a FunctionConfiguration that it is.
FIELDS = {
    "Handler": "handler",
    "Runtime": "runtime",
    "Description": "description",
    "Role": "role",
    "Timeout": "timeout",
    "MemorySize": "memory_size",
}


def check_name(name: str) -> None:
    """Refuse a plain name that is longer than the model's FunctionName, which has room for ARNs."""
    if ":" not in name and len(name) > MAX_NAME:
        words = f"Member must have length less than or equal to {MAX_NAME}"
        raise ValidationFailed(detected(violation(f"'{name}'", "functionName", words)))


def check_package_type(params: dict[str, Any]) -> None:
    """Refuse container images: workers are processes."""
    if params.get("PackageType", "Zip") != "Zip" or "ImageUri" in params.get("Code", {}):
        msg = "Container images cannot run here: use the package type Zip"
        raise InvalidParameterValue(msg)


def check_offered(params: dict[str, Any]) -> None:
    """Refuse parameters that are not offered: to accept one would be a promise."""
    for name in NOT_OFFERED:
        if name in params:
            msg = f"{name} is not offered here: leave it out"
            raise InvalidParameterValue(msg)


def fields(call: Call) -> dict[str, Any]:
    """Return the fields that the parameters of a create or an update set.

    `passthrough` has the members of this request only: `Functions.update` merges them.
    """
    params = call.params
    check_offered(params)
    changes = {field: params[name] for name, field in FIELDS.items() if name in params}
    if "Runtime" in params:
        _check_runtime(params["Runtime"])
    if "Environment" in params:
        changes["environment"] = params["Environment"].get("Variables", {})
    if "EphemeralStorage" in params:
        changes["ephemeral_storage"] = params["EphemeralStorage"]["Size"]
    if "Layers" in params:
        changes["layers"] = _layers(call, params["Layers"])
    members = {name: params[name] for name in KEPT if name in params}
    if members:
        changes["passthrough"] = members
    return changes


def check_snap_start(params: dict[str, Any], function: FunctionDraft) -> None:
    """Refuse a request for SnapStart if the runtime, as it will be, has none."""
    snap_start = params.get("SnapStart", {}).get("ApplyOn", "None")
    if snap_start != "None" and function.runtime not in SNAP_STARTED:
        msg = f"{function.runtime} is not supported for SnapStart enabled functions."
        raise InvalidParameterValue(msg)


def _check_runtime(runtime: str) -> None:
    if runtime in DEPRECATED:
        msg = (
            f"The runtime parameter of {runtime} is no longer supported for creating or updating "
            "AWS Lambda functions. We recommend you use a supported runtime while creating or "
            "updating functions."
        )
        raise InvalidParameterValue(msg)
    if runtime not in RUNTIMES:
        words = f"Member must satisfy enum value set: [{', '.join(RUNTIMES)}] or be a valid ARN"
        raise InvalidParameterValue(violation(shown(runtime), "runtime", words))


def _layers(call: Call, arns: list[str]) -> list[AttachedLayer]:
    if len(arns) > MAX_LAYERS:
        msg = f"Cannot reference more than {MAX_LAYERS} layers."
        raise InvalidParameterValue(msg)
    attached: list[AttachedLayer] = []
    seen: dict[str, str] = {}
    for arn in arns:
        name, version = names.layer(arn, call.place)
        if name in seen:
            msg = (
                "Two different versions of the same layer are not allowed to be referenced in the "
                f"same function. {seen[name]} and {arn} are versions of the same layer."
            )
            raise InvalidParameterValue(msg)
        seen[name] = arn
        layer = call.api.registry.get(LAYER, name, str(version))
        if layer is None:
            msg = f"Layer version {arn} does not exist."
            raise InvalidParameterValue(msg)
        attached.append(AttachedLayer(arn, layer.code_size, layer.code_path))
    return attached
