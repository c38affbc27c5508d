"""Documents: versions, aliases and layers as Lambda's API shows them. Pure.

Field order is the service model's. Source: Lambda API reference, "FunctionConfiguration",
"AliasConfiguration", "LayerVersionsListItem"; recorded answers for which members are absent when.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from miniλ.model import LATEST

if TYPE_CHECKING:
    from miniλ.model import FunctionConfiguration
    from miniλ.names import Place
    from miniλ.store.resources import Alias, LayerVersion

# Members that are returned as they were set, unless they were set to an empty value.
PASSED_THROUGH = ("DeadLetterConfig", "KMSKeyArn", "FileSystemConfigs")
_EMPTY: tuple[object, ...] = ("", [], {}, {"TargetArn": ""})
# Members that lists leave out (API reference, "ListFunctions").
NOT_LISTED = (
    "State",
    "StateReason",
    "StateReasonCode",
    "LastUpdateStatus",
    "LastUpdateStatusReason",
    "LastUpdateStatusReasonCode",
    "RuntimeVersionConfig",
)


def listed(
    function: FunctionConfiguration, place: Place, *, qualified: bool = True
) -> dict[str, Any]:
    """Return a FunctionConfiguration as lists have it; `qualified`: with its version in the ARN."""
    document = configuration(function, place, function.version if qualified else "")
    return {name: value for name, value in document.items() if name not in NOT_LISTED}


def configuration(
    function: FunctionConfiguration, place: Place, qualifier: str = ""
) -> dict[str, Any]:
    """Return a FunctionConfiguration; its ARN has the qualifier of the request.

    Without one it has the version, if that is not $LATEST.
    """
    if not qualifier and function.version != LATEST:
        qualifier = function.version
    kept = function.passthrough
    document: dict[str, Any] = {
        "FunctionName": function.name,
        "FunctionArn": place.function(function.name, qualifier),
        "Runtime": function.runtime,
        "Role": function.role,
        "Handler": function.handler,
        "CodeSize": function.code_size,
        "Description": function.description,
        "Timeout": function.timeout,
        "MemorySize": function.memory_size,
        "LastModified": function.last_modified,
        "CodeSha256": function.code_sha256,
        "Version": function.version,
    }
    if "VpcConfig" in kept:
        document["VpcConfig"] = {
            "SubnetIds": [],
            "SecurityGroupIds": [],
            "VpcId": "",
            "Ipv6AllowedForDualStack": False,
            **kept["VpcConfig"],
        }
    if function.environment:
        document["Environment"] = {"Variables": function.environment}
    document["TracingConfig"] = {"Mode": "PassThrough", **kept.get("TracingConfig", {})}
    document["RevisionId"] = function.revision
    if function.layers:
        document["Layers"] = [
            {"Arn": layer.arn, "CodeSize": layer.code_size} for layer in function.layers
        ]
    document["State"] = function.state
    _explain(document, "State", function.state_reason)
    if function.state != "Pending":
        document["LastUpdateStatus"] = function.update_status
        _explain(document, "LastUpdateStatus", function.update_reason)
    document.update(
        {name: kept[name] for name in PASSED_THROUGH if kept.get(name, "") not in _EMPTY}
    )
    document["PackageType"] = "Zip"
    document["Architectures"] = kept.get("Architectures", ["x86_64"])
    document["EphemeralStorage"] = {"Size": function.ephemeral_storage}
    document["SnapStart"] = {
        "ApplyOn": "None",
        "OptimizationStatus": "Off",
        **kept.get("SnapStart", {}),
    }
    document["RuntimeVersionConfig"] = {
        "RuntimeVersionArn": f"arn:aws:lambda:{place.region}::runtime:{function.runtime}"
    }
    logging = kept.get("LoggingConfig", {})
    levels = {"ApplicationLogLevel": "INFO", "SystemLogLevel": "INFO"}
    document["LoggingConfig"] = {
        "LogFormat": "Text",
        **(levels if logging.get("LogFormat") == "JSON" else {}),
        "LogGroup": f"/aws/lambda/{function.name}",
        **logging,
    }
    return document


def _explain(document: dict[str, Any], what: str, reason: tuple[str, str]) -> None:
    code, text = reason
    if code:
        document[f"{what}Reason"] = text
        document[f"{what}ReasonCode"] = code


def alias(known: Alias, place: Place) -> dict[str, Any]:
    """Return an AliasConfiguration."""
    document: dict[str, Any] = {
        "AliasArn": place.function(known.function, known.name),
        "Name": known.name,
        "FunctionVersion": known.version,
        "Description": known.description,
    }
    if known.weights:
        document["RoutingConfig"] = {"AdditionalVersionWeights": known.weights}
    document["RevisionId"] = known.revision
    return document


def layer_version(layer: LayerVersion, place: Place) -> dict[str, Any]:
    """Return a LayerVersionsListItem."""
    document: dict[str, Any] = {
        "LayerVersionArn": place.layer(layer.name, layer.version),
        "Version": layer.version,
        "Description": layer.description,
        "CreatedDate": layer.created,
    }
    if layer.runtimes:
        document["CompatibleRuntimes"] = layer.runtimes
    if layer.license_info:
        document["LicenseInfo"] = layer.license_info
    if layer.architectures:
        document["CompatibleArchitectures"] = layer.architectures
    return document


def hexadecimal(sha256: str) -> str:
    """Return a CodeSha256 (base64) as it names a package in the store."""
    return base64.b64decode(sha256).hex()
