"""Names: which function, qualifier or layer a client's text means. Pure.

A client names a function by its name, by the end of its ARN, or by the whole ARN, each with or
without a qualifier: `hello`, `hello:prod`, `000000000000:function:hello`,
`arn:aws:lambda:us-east-1:000000000000:function:hello:3`. A qualifier is `$LATEST`, a version's
number or an alias.

Source: Lambda API reference, "Invoke", FunctionName and Qualifier.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from miniλ.errors import InvalidParameterValue, ResourceNotFound
from miniλ.model import FUNCTION_NAME, LATEST

# PublishLayerVersion, LayerName (service model of Lambda).
_LAYER_NAME = r"[a-zA-Z0-9-_]{1,140}"
_FUNCTION = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?"
    r"(?:(?P<region>[a-z]{2,4}(?:-[a-z]+)+-\d):)?"
    r"(?:(?P<account>\d{12}):)?"
    r"(?:function:)?"
    rf"(?P<name>{FUNCTION_NAME})"
    r"(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9-_]{1,128}))?"
)
_LAYER = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12})"
    rf":layer:(?P<name>{_LAYER_NAME})(?::(?P<version>\d+))?"
)
PLAIN = re.compile(FUNCTION_NAME)


class Place(NamedTuple):
    """The region and account of this supervisor's ARNs."""

    region: str
    account: str

    def function(self, name: str, qualifier: str = "") -> str:
        """Return the ARN of a function, or of one version or alias of it."""
        arn = f"arn:aws:lambda:{self.region}:{self.account}:function:{name}"
        return f"{arn}:{qualifier}" if qualifier else arn

    def event_source_mapping(self, mapping_id: str) -> str:
        """Return the ARN of an event source mapping."""
        return f"arn:aws:lambda:{self.region}:{self.account}:event-source-mapping:{mapping_id}"

    def layer(self, name: str, version: int | None = None) -> str:
        """Return the ARN of a layer, or of one version of it."""
        arn = f"arn:aws:lambda:{self.region}:{self.account}:layer:{name}"
        return arn if version is None else f"{arn}:{version}"


def function(text: str, qualifier: str | None, place: Place) -> tuple[str, str]:
    """Return the name and the qualifier ("" for none) of the function that a client names.

    Raises `InvalidParameterValue` for a text that is no name or has two qualifiers that differ, and
    `ResourceNotFound` for a function of another region.
    """
    if PLAIN.fullmatch(text):
        return text, qualifier or ""
    match = _FUNCTION.fullmatch(text)
    if match is None:
        msg = (
            "FunctionName must be 1 to 64 letters, digits, hyphens or underscores, or an ARN that "
            f"ends in such a name, got {text!r}"
        )
        raise InvalidParameterValue(msg)
    region, inside = match["region"], match["qualifier"]
    if region and region != place.region:
        msg = f"Functions from '{region}' are not reachable in this region ('{place.region}')"
        raise ResourceNotFound(msg)
    if inside and qualifier and inside != qualifier:
        msg = "The derived qualifier from the function name does not match the specified qualifier."
        raise InvalidParameterValue(msg)
    return match["name"], qualifier or inside or ""


def resource(arn: str) -> tuple[str, str]:
    """Return the kind and the name of the resource that an ARN of Lambda's is of.

    ("function", "hello:prod") or ("event-source-mapping", its id); ("", "") for another text.
    """
    parts = arn.split(":", 6)
    return (parts[5], parts[6]) if len(parts) == 7 else ("", "")  # noqa: PLR2004 - kind and name


def unqualified(text: str, place: Place) -> str:
    """Return the name of a function for an operation that takes no qualifier."""
    name, qualifier = function(text, None, place)
    if qualifier:
        msg = (
            "This operation is permitted on Lambda functions only. Aliases and versions do not "
            "support this operation. Please specify either a function name or an unqualified "
            "function ARN."
        )
        raise InvalidParameterValue(msg)
    return name


def layer(text: str, place: Place) -> tuple[str, int | None]:
    """Return the name and version (None without) of a layer that a client names."""
    match = _LAYER.fullmatch(text)
    if match is None:
        if re.fullmatch(_LAYER_NAME, text):
            return text, None
        msg = f"LayerName must be a name or an ARN of a layer, got {text!r}"
        raise InvalidParameterValue(msg)
    if match["region"] != place.region:
        msg = f"Layers from '{match['region']}' are not reachable in this region"
        raise InvalidParameterValue(f"{msg} ('{place.region}')")
    return match["name"], int(match["version"]) if match["version"] else None


def is_version(qualifier: str) -> bool:
    """Return whether a qualifier is a version, and not an alias."""
    return qualifier == LATEST or qualifier.isdecimal()
