"""Functions of the embedding app: decorated in the app, imported again by a worker.

A worker imports the app's own module from where the app imports it; the code is not copied.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from miniλ import model
from miniλ.errors import InvalidParameterValue
from miniλ.model import FunctionConfiguration, FunctionOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from miniλ.model import Response

R = TypeVar("R")


class Function(Generic[R]):
    """A function of the embedding app, decorated by `Supervisor.function`.

    A call runs the plain function in this process; `invoke` runs it in a worker.
    """

    def __init__(
        self, invoke: Callable[..., Awaitable[Response]], handler: Callable[..., R], name: str
    ) -> None:
        """`invoke` is the supervisor's. Raises `InvalidParameterValue` for a nested handler."""
        if "<locals>" in handler.__qualname__ or "." in handler.__qualname__:
            msg = f"{handler.__qualname__} must be at the top of its module to be imported"
            raise InvalidParameterValue(msg)
        model.check_name(name)
        self._invoke = invoke
        self.handler = handler
        self.name = name
        self.__doc__ = handler.__doc__
        self.__name__ = handler.__name__
        self.__module__ = handler.__module__
        self.__wrapped__ = handler

    def __call__(self, *args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - the app's own signature
        """Run the plain function in this process."""
        return self.handler(*args, **kwargs)

    async def invoke(
        self,
        event: object = None,
        *,
        payload: bytes | None = None,
        wait: float = 0.0,
        client_context: dict[str, Any] | None = None,
        identity: dict[str, Any] | None = None,
        trace_id: str | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Run the function in a worker; parameters as for `Supervisor.invoke`."""
        return await self._invoke(
            self.name,
            event,
            payload=payload,
            wait=wait,
            client_context=client_context,
            identity=identity,
            trace_id=trace_id,
            request_id=request_id,
        )

    def __repr__(self) -> str:
        return f"<Function {self.name}>"


def check_options(options: FunctionOptions) -> None:
    """Refuse options that `Supervisor.function` does not take."""
    unknown = sorted(options.keys() - FunctionOptions.__optional_keys__)
    if unknown:
        msg = f"@supervisor.function does not take {', '.join(unknown)}"
        raise InvalidParameterValue(msg)


def configuration(
    function: Function[Any], runtime: str, options: FunctionOptions
) -> FunctionConfiguration:
    """Return the configuration of a decorated function; raises `InvalidParameterValue`."""
    root, module, source = _importable(function.handler)
    return FunctionConfiguration(
        name=function.name,
        handler=f"{module}.{function.handler.__name__}",
        runtime=runtime,
        revision=model.new_revision(),
        code_sha256=hashlib.sha256(source).hexdigest(),
        code_size=len(source),
        code_path=root,
        last_modified=model.now_iso(),
        python_path=[os.path.abspath(path or os.curdir) for path in sys.path],
        **options,
    )


def _importable(handler: Callable[..., object]) -> tuple[str, str, bytes]:
    """Return directory and module name by which a worker imports a function, and its source."""
    module = sys.modules[handler.__module__]
    name, file = handler.__module__, getattr(module, "__file__", None)
    if file is None or not os.path.isfile(file):
        # <stdin> of a REPL or a pipe, <string> of -c.
        place = file or getattr(getattr(handler, "__code__", None), "co_filename", name)
        msg = (
            f"{handler.__qualname__} is defined in {place}: "
            "a decorated function must be in a module file"
        )
        raise InvalidParameterValue(msg)
    if name == "__main__":
        spec = getattr(module, "__spec__", None)
        name = spec.name if spec is not None else Path(file).stem
    root = Path(file).resolve().parent
    for _ in range(name.count(".") + (Path(file).stem == "__init__")):
        root = root.parent
    return str(root), name, Path(file).read_bytes()
