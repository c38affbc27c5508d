"""This module is documents: versions, aliases and layers as Lambda's API shows them. Pure.

Field order is the service model's. Source: Lambda API reference, "FunctionConfiguration",
"AliasConfiguration", "LayerVersionsListItem"; what is absent when, by recorded answers.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from miniλ.model import LATEST

if TYPE_CHECKING:
    from miniλ.model import FunctionConfiguration
    from miniλ.names import Place
    from miniλ.store.resources import Alias, LayerVersion

# What is told again as it was said, unless that was nothing.
TOLD = ("DeadLetterConfig", "KMSKeyArn", "FileSystemConfigs")
_NOTHING: tuple[object, ...] = ("", [], {}, {"TargetArn": ""})
# What lists leave out (API reference, "ListFunctions").
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
    """Return a FunctionConfiguration; its ARN has the qualifier that it was asked for by.

    Without one it still has the version, if that is not $LATEST.
    """
    if not qualifier and function.version != LATEST:
        qualifier = function.version
    told = function.passthrough
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
    if "VpcConfig" in told:
        document["VpcConfig"] = {
            "SubnetIds": [],
            "SecurityGroupIds": [],
            "VpcId": "",
            "Ipv6AllowedForDualStack": False,
            **told["VpcConfig"],
        }
    if function.environment:
        document["Environment"] = {"Variables": function.environment}
    document["TracingConfig"] = {"Mode": "PassThrough", **told.get("TracingConfig", {})}
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
    document.update({name: told[name] for name in TOLD if told.get(name, "") not in _NOTHING})
    document["PackageType"] = "Zip"
    document["Architectures"] = told.get("Architectures", ["x86_64"])
    document["EphemeralStorage"] = {"Size": function.ephemeral_storage}
    document["SnapStart"] = {
        "ApplyOn": "None",
        "OptimizationStatus": "Off",
        **told.get("SnapStart", {}),
    }
    document["RuntimeVersionConfig"] = {
        "RuntimeVersionArn": f"arn:aws:lambda:{place.region}::runtime:{function.runtime}"
    }
    logging = told.get("LoggingConfig", {})
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


def alias(found: Alias, place: Place) -> dict[str, Any]:
    """Return an AliasConfiguration."""
    document: dict[str, Any] = {
        "AliasArn": place.function(found.function, found.name),
        "Name": found.name,
        "FunctionVersion": found.version,
        "Description": found.description,
    }
    if found.weights:
        document["RoutingConfig"] = {"AdditionalVersionWeights": found.weights}
    document["RevisionId"] = found.revision
    return document


def layer_version(found: LayerVersion, place: Place) -> dict[str, Any]:
    """Return a LayerVersionsListItem."""
    document: dict[str, Any] = {
        "LayerVersionArn": place.layer(found.name, found.version),
        "Version": found.version,
        "Description": found.description,
        "CreatedDate": found.created,
    }
    if found.runtimes:
        document["CompatibleRuntimes"] = found.runtimes
    if found.license_info:
        document["LicenseInfo"] = found.license_info
    if found.architectures:
        document["CompatibleArchitectures"] = found.architectures
    return document


def hexadecimal(sha256: str) -> str:
    """Return a CodeSha256 (base64) as it names a package in the store."""
    return base64.b64decode(sha256).hex()
