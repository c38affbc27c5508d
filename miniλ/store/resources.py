"""What a registry keeps: functions, aliases, layers, and documents.

A resource has a kind, a name, and a part of that name: a function's part is its version, an alias'
its own name, a layer's its version. A document is the JSON object that a client sent, kept as it
came: the operation that reads it back knows its members, and so does the room that acts on it
(policies: gateway; EVENT_INVOKE: events; PROVISIONED: pool).

Names of kinds and of struct fields are on disk: an older or newer version reads them too.
"""

from __future__ import annotations

from typing import Any, Generic, TypeAlias, TypeVar

import msgspec

from miniλ.model import FunctionConfiguration

T = TypeVar("T")

Document: TypeAlias = dict[str, Any]


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """A name for a version; `weights` are the shares of calls that go to other versions."""

    function: str
    name: str
    version: str
    revision: str
    description: str = ""
    weights: dict[str, float] = {}


class LayerVersion(msgspec.Struct, frozen=True, kw_only=True):
    """Content for /opt; `created` as Lambda writes times."""

    name: str
    version: int
    code_sha256: str
    code_size: int
    code_path: str
    created: str
    description: str = ""
    license_info: str = ""
    runtimes: list[str] = []
    architectures: list[str] = []


class Kind(Generic[T]):
    """One sort of resource: its name in the database, and the type of its values."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, type_: type[T]) -> None:
        self.name = name
        self.type = type_

    def __repr__(self) -> str:
        return f"<Kind {self.name}>"


# The part is the version.
FUNCTION = Kind("function", FunctionConfiguration)
# The part is the alias.
ALIAS = Kind("alias", Alias)
# The part is the qualifier, "" for the unqualified function.
POLICY = Kind[Document]("policy", dict)
URL = Kind[Document]("url", dict)
EVENT_INVOKE = Kind[Document]("event_invoke", dict)
PROVISIONED = Kind[Document]("provisioned", dict)
RUNTIME_MANAGEMENT = Kind[Document]("runtime_management", dict)
# The only part is "".
TAGS = Kind[Document]("tags", dict)
RECURSION = Kind[Document]("recursion", dict)
# The number of the last published version. A layer's outlives the layer.
NUMBER = Kind("number", int)

# Kinds that are deleted with their function; their name is the function's.
OF_FUNCTION: tuple[Kind[Any], ...] = (
    FUNCTION,
    ALIAS,
    POLICY,
    URL,
    EVENT_INVOKE,
    PROVISIONED,
    RUNTIME_MANAGEMENT,
    TAGS,
    RECURSION,
    NUMBER,
)

# The name is the layer's, the part its version.
LAYER = Kind("layer", LayerVersion)
LAYER_POLICY = Kind[Document]("layer_policy", dict)
LAYER_NUMBER = Kind("layer_number", int)
# The name is the UUID of an event source mapping.
MAPPING = Kind[Document]("mapping", dict)

KINDS: dict[str, Kind[Any]] = {
    kind.name: kind for kind in (*OF_FUNCTION, LAYER, LAYER_POLICY, LAYER_NUMBER, MAPPING)
}
