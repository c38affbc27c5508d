"""The code of functions and layers, in the state directory: published, merged, checked, collected.

All of it is disk work on threads. `store.packages` publishes one package; this file decides which
ones a function needs.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from miniλ.errors import InvalidParameterValue
from miniλ.store import packages
from miniλ.store.archives import MAX_UNZIPPED

if TYPE_CHECKING:
    from miniλ.model import FunctionConfiguration
    from miniλ.store.packages import Package, Upload
    from miniλ.store.state_dir import StateDir


class CodeStore:
    """The packages of one state directory."""

    def __init__(self, state: StateDir) -> None:
        self._state = state

    async def publish(self, code: str | os.PathLike[str] | Upload) -> Package:
        """Bring the code of a function or a layer into the store; raises as `packages.publish`."""
        return await asyncio.to_thread(
            packages.publish, code, self._state.code, durable=self._state.kept
        )

    async def with_layers(self, function: FunctionConfiguration) -> FunctionConfiguration:
        """Return a function with all its layers in one directory."""
        path = await asyncio.to_thread(
            _merge_layers, function, self._state.code, durable=self._state.kept
        )
        return msgspec.structs.replace(function, layers_path=path)

    async def check_unzipped(self, code: str, layers: str) -> None:
        """Refuse code and layers that are, together, larger than Lambda unpacks."""
        await asyncio.to_thread(_check_unzipped, code, layers)

    async def collect(self, in_use: set[str]) -> None:
        """Remove the packages that are not in use, and what a crash left in staging."""
        await asyncio.to_thread(self._state.collect, in_use)


def _merge_layers(function: FunctionConfiguration, store: Path, *, durable: bool) -> str:
    """Return the directory with all layers of a function merged, later ones over earlier ones."""
    if not function.layers:
        return ""
    for layer in function.layers:
        # The layer version may have been deleted, and collected, since it was looked up.
        if not os.path.isdir(layer.path):
            msg = f"Layer version {layer.arn} does not exist."
            raise InvalidParameterValue(msg)
    paths = [Path(layer.path) for layer in function.layers]
    path = paths[0] if len(paths) == 1 else packages.merge(paths, store, durable=durable)
    _check_unzipped(function.code_path, str(path))
    return str(path)


def _check_unzipped(code: str, layers: str) -> None:
    size = packages.unzipped_size(Path(code)) + packages.unzipped_size(Path(layers))
    if size > MAX_UNZIPPED:
        msg = (
            "Function code combined with layers exceeds the maximum allowed size of "
            f"{MAX_UNZIPPED} bytes. The actual size is {size} bytes."
        )
        raise InvalidParameterValue(msg)
