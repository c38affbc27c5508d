"""This module is functions of the embedding app: decorated, and imported again by a worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from miniλ.model import Response

R = TypeVar("R")


class Function(Generic[R]):
    """A function of the embedding app, decorated by `Supervisor.function`.

    Called, it is the plain function, in this process. `invoke` runs it in a worker.
    """

    def __init__(
        self, invoke: Callable[..., Awaitable[Response]], handler: Callable[..., R], name: str
    ) -> None:
        self._invoke = invoke
        self.handler = handler
        self.name = name
        self.__doc__ = handler.__doc__
        self.__name__ = handler.__name__
        self.__module__ = handler.__module__
        self.__wrapped__ = handler

    def __call__(self, *args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - the app's own signature
        """Call the function here and now."""
        return self.handler(*args, **kwargs)

    async def invoke(self, event: object = None, **options: Any) -> Response:  # noqa: ANN401
        """Run the function in a worker; `options` as for `Supervisor.invoke`."""
        return await self._invoke(self.name, event, **options)

    def __repr__(self) -> str:
        return f"<Function {self.name}>"


def import_path() -> list[str]:
    """Return where this app imports from, as it reads from any directory."""
    return [os.path.abspath(path or os.curdir) for path in sys.path]


def importable(handler: Callable[..., object]) -> tuple[str, str, bytes]:
    """Return directory and module name by which a worker imports a function, and its source."""
    module = sys.modules[handler.__module__]
    name, file = handler.__module__, getattr(module, "__file__", None)
    if file is None:
        msg = f"{handler.__qualname__} is in {name}, which has no file: put it into a module"
        raise InvalidParameterValue(msg)
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        name = spec.name if spec is not None else Path(file).stem
    root = Path(file).resolve().parent
    for _ in range(name.count(".") + (Path(file).stem == "__init__")):
        root = root.parent
    return str(root), name, Path(file).read_bytes()
