"""The embedded API: `Supervisor`, which opens the parts, closes them, and invokes functions.

The app keeps its own loop and signal handlers: a supervisor runs on the running loop (asyncio's or
uvloop's) and installs no handler. Its threads are one writer for each database, and those of
asyncio's default executor. Several supervisors may be open in one process, each in a state
directory of its own.

Constructing a Supervisor does nothing at all; `async with` opens it. So a module may make one at
its top level and decorate functions with it: a worker that imports the module makes one too, and
never opens it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from miniλ import billing, decorated, model, names
from miniλ.background import to_its_end
from miniλ.decorated import Function
from miniλ.errors import InvalidParameterValue, ResourceConflict, SupervisorClosed
from miniλ.events.queue import AsyncEvent
from miniλ.invoker import check_id, check_payload, encode_event, new_request_id
from miniλ.model import ConfigurationChanges, FunctionDraft
from miniλ.parts import wire
from miniλ.runtimes import catalog
from miniλ.settings import load as load_settings
from miniλ.worker.equipment import NO_CONTEXT, InvocationContext

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path
    from types import TracebackType
    from typing import Self, Unpack

    from miniλ.events.delivery import Delivery
    from miniλ.functions import Functions
    from miniλ.invoker import Invoker
    from miniλ.journal import Journal
    from miniλ.model import FunctionConfiguration, FunctionOptions, Response
    from miniλ.parts import Parts
    from miniλ.settings import Settings

R = TypeVar("R")

CHANGEABLE: frozenset[str] = ConfigurationChanges.__optional_keys__
# `map` queues for concurrency up to the longest timeout of a function: 900 s, as on Lambda.
MAP_WAIT = 900.0


class _NeverOpened(SupervisorClosed, AttributeError):
    """What the properties of a supervisor raise before it is opened: `hasattr` is false then."""


class Supervisor:
    """Runs functions in supervised workers. Use it with `async with`.

    `state`: a directory that keeps functions, code and the ledger; None is a temporary one.
    `settings`: a `Settings`; None takes the defaults and MINILAMBDA_* variables.
    """

    def __init__(
        self, state: str | os.PathLike[str] | None = None, settings: Settings | None = None
    ) -> None:
        self._state_path = state
        self._settings = settings
        self._decorated: list[tuple[Function[Any], FunctionOptions]] = []
        self._undo: contextlib.AsyncExitStack | None = None
        # Kept after close: the journal and the limits stay readable.
        self._parts: Parts | None = None
        # What `invoke` needs of them, at hand.
        self._live: dict[str, FunctionConfiguration] = {}
        self._invoker: Invoker | None = None

    def __repr__(self) -> str:
        if self._undo is None:
            return "<Supervisor closed>"
        return f"<Supervisor {len(self.functions.all())} functions, {self.parts.pool!r}>"

    # Open and close

    async def __aenter__(self) -> Self:
        """Open: take the state directory, sweep what a dead supervisor left, be ready."""
        if self._undo is not None:
            msg = "The supervisor is open already"
            raise ResourceConflict(msg)
        async with contextlib.AsyncExitStack() as undo:
            parts = await wire(self._state_path, self._settings or load_settings(), undo)
            self._undo = undo.pop_all()
        self._parts, self._invoker, self._live = parts, parts.invoker, parts.functions.live
        try:
            for function, options in self._decorated:
                adopted = decorated.configuration(function, catalog.own(), options)
                await parts.functions.adopt(adopted)
            parts.delivery.open(parts.functions, parts.pool, parts.invoker)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: end every worker and remove all of it."""
        await self.close()

    async def close(self) -> None:
        """End every worker and remove every process, cgroup and /tmp directory.

        Workers get SIGTERM, and SIGKILL after `shutdown_grace` (2 s by default).
        """
        undo, self._undo, self._invoker = self._undo, None, None
        if undo is not None:
            # If the caller is cancelled, closing still runs to its end: half of it would leave
            # processes.
            await to_its_end(asyncio.ensure_future(undo.aclose()))

    def _open_parts(self) -> Parts:
        if self._undo is None or self._parts is None:
            raise SupervisorClosed
        return self._parts

    # What is open

    @property
    def parts(self) -> Parts:
        """All parts, for the gateway; of the last time, if the supervisor is closed again."""
        if self._parts is None:
            raise _NeverOpened
        return self._parts

    @property
    def journal(self) -> Journal:
        """The facts: what happened, in order."""
        return self.parts.journal

    @property
    def limits(self) -> dict[str, str]:
        """How each limit is held on this host: hard, soft or none, and by what."""
        return self.parts.equipment.limits

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self.parts.settings

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.parts.state.path

    @property
    def functions(self) -> Functions:
        """The control plane: versions, aliases and what else the embedded API has no method for."""
        return self.parts.functions

    @property
    def delivery(self) -> Delivery:
        """The asynchronous events that have not ended, and how many there are (`count`)."""
        return self.parts.delivery

    # Functions

    async def create_function(
        self,
        name: str,
        code: str | os.PathLike[str],
        handler: str,
        *,
        runtime: str | None = None,
        memory_size: int = 128,
        timeout: int = 3,  # noqa: ASYNC109 - the function's, not this call's
        ephemeral_storage: int = 512,
        environment: dict[str, str] | None = None,
        reserved_concurrency: int | None = None,
        keep_alive: float = 600.0,
        network: str = "share",
    ) -> FunctionConfiguration:
        """Create a function from a directory or a .zip, as Lambda's CreateFunction does.

        Sizes are MB, `timeout` and `keep_alive` seconds; `network` is "share" (the host's) or
        "none"; `runtime` is by default the Python that runs this. The code is copied: later
        changes to it need `update_function_code`. Raises `InvalidParameterValue`,
        `ResourceConflict` if the name is taken, `RuntimeMissing`.
        """
        functions = self._open_parts().functions
        draft = FunctionDraft(
            name=name,
            handler=handler,
            runtime=runtime or catalog.own(),
            revision=model.new_revision(),
            memory_size=memory_size,
            timeout=timeout,
            ephemeral_storage=ephemeral_storage,
            # A copy: the caller's later changes to its own dict do not reach workers.
            environment=dict(environment)
            if isinstance(environment, Mapping)
            else environment or {},
            reserved_concurrency=reserved_concurrency,
            keep_alive=keep_alive,
            network=network,
            last_modified=model.now_iso(),
        )
        return await functions.create(draft, code)

    async def update_function_code(
        self, name: str, code: str | os.PathLike[str]
    ) -> FunctionConfiguration:
        """Give a function new code. Running invocations end on the old code."""
        return await self._open_parts().functions.update_code(name, code)

    async def update_function_configuration(
        self, name: str, **changes: Unpack[ConfigurationChanges]
    ) -> FunctionConfiguration:
        """Change parameters of `create_function`; running invocations end as they began."""
        functions = self._open_parts().functions
        unknown = sorted(changes.keys() - CHANGEABLE)
        if unknown:
            msg = f"Unknown: {', '.join(unknown)}; can change: {', '.join(sorted(CHANGEABLE))}"
            raise InvalidParameterValue(msg)
        return await functions.update(name, changes)

    async def delete_function(self, name: str) -> None:
        """Delete a function; its workers end when they have answered."""
        await self._open_parts().functions.delete(name)

    async def publish_version(self, name: str, description: str = "") -> FunctionConfiguration:
        """Make an immutable version of a function as it is now, to invoke as `name:number`.

        If nothing has changed since the last version, that one is returned.
        """
        return await self._open_parts().functions.publish_version(name, description=description)

    def get_function(self, name: str) -> FunctionConfiguration:
        """Return a function's configuration; raises `ResourceNotFound`."""
        functions = self._open_parts().functions
        return functions.get(*names.function(name, None, functions.place))

    def list_functions(self) -> list[FunctionConfiguration]:
        """Return all functions by name."""
        return self._open_parts().functions.all()

    async def provision(self, name: str, version: str, count: int) -> None:
        """Keep `count` workers of a version initialised; 0 ends its provisioned concurrency.

        Raises `InvalidParameterValue` for more than this host runs at once.
        """
        self._open_parts().functions.provision(name, version, count)

    def provisioned(self, name: str, version: str) -> tuple[int, str]:
        """Return how many of them are initialised, and why no more are ("" while all is well)."""
        return self._open_parts().functions.provisioned(name, version)

    def function(
        self, name: str | None = None, **options: Unpack[FunctionOptions]
    ) -> Callable[[Callable[..., R]], Function[R]]:
        """Decorate a module-level `def f(event, context)` of the app to run in workers.

        `options` as for `create_function`; the code is the app's own module, imported in the
        worker from where the app imports it. In a script, guard what it does by
        `if __name__ == "__main__":`, as with multiprocessing.
        """
        if callable(name):
            msg = "Write @supervisor.function(), with parentheses"
            raise InvalidParameterValue(msg)
        decorated.check_options(options)

        def decorate(handler: Callable[..., R]) -> Function[R]:
            function = Function(self.invoke, handler, name or handler.__name__)
            self._decorated.append((function, options))
            return function

        return decorate

    # Invocations

    async def invoke(
        self,
        name: str,
        event: object = None,
        *,
        payload: bytes | None = None,
        wait: float = 0.0,
        client_context: dict[str, Any] | None = None,
        identity: dict[str, Any] | None = None,
        trace_id: str | None = None,
        request_id: str | None = None,
    ) -> Response:
        """Run a function on an event and return its response; a failure of it is a response.

        `name` is a function's, with `:` and a version or an alias, or an ARN. `event` is
        anything that becomes JSON; `payload` is JSON as bytes instead. `wait` is the number of
        seconds to queue, first come first served, when the concurrency is used up.

        Raises `LambdaError` subclasses: `ResourceNotFound`, `Throttled` (at once unless
        `wait`), `RequestTooLarge`, `InvalidRequestContent`, `ServiceError`.
        """
        invoker = self._invoker
        if invoker is None:
            raise SupervisorClosed
        function, arn = self._live.get(name), None
        if function is None or function.version != model.LATEST:
            function, arn = self._find(name)
        payload = encode_event(event) if payload is None else check_payload(payload)
        if client_context is None and identity is None and trace_id is None and arn is None:
            context = NO_CONTEXT
        else:
            if trace_id is not None:
                check_id("trace_id", trace_id)
            context = InvocationContext(
                client_context=_json(client_context),
                identity=_json(identity),
                trace_id=trace_id,
                arn=arn,
            )
        if request_id is None:
            request_id = new_request_id()
        else:
            check_id("request_id", request_id)
        warm = invoker.invoke_warm(function, payload, context, request_id)
        if warm is not None:
            return await warm
        return await invoker.invoke_cold(function, payload, context, request_id, wait)

    async def invoke_async(
        self,
        name: str,
        event: object = None,
        *,
        payload: bytes | None = None,
        client_context: dict[str, Any] | None = None,
        identity: dict[str, Any] | None = None,
        trace_id: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Accept an event for a function, as Lambda's invocation type Event; return its request id.

        In a state directory that is kept, the event is on disk then; it runs in the background at
        least once, also if this process is killed. A function that fails is retried twice (setting
        `event_retry`). Parameters are as `invoke`'s. Raises `RequestTooLarge` above 1 MB,
        `ServiceError` if the event cannot be written, and what `invoke` raises for parameters
        that are wrong.
        """
        parts = self._open_parts()
        functions = parts.functions
        if not isinstance(name, str):
            model.check_name(name)
        short, qualifier = names.function(name, None, functions.place)
        functions.check_invocable(short, qualifier)
        payload = encode_event(event) if payload is None else check_payload(payload)
        if request_id is None:
            request_id = new_request_id()
        check_id("request_id", request_id)
        if trace_id is not None:
            check_id("trace_id", trace_id)
        context = InvocationContext(
            client_context=_json(client_context),
            identity=_json(identity),
            trace_id=trace_id,
            arn=functions.place.function(short, qualifier) if qualifier else None,
        )
        await parts.delivery.accept(AsyncEvent(request_id, short, qualifier, payload, context))
        return request_id

    def _find(self, name: str) -> tuple[FunctionConfiguration, str | None]:
        """Return the version that a name with a qualifier or an ARN stands for, and its ARN.

        The ARN is None without a qualifier.
        """
        if not isinstance(name, str):
            model.check_name(name)
        short, qualifier = names.function(name, None, self.functions.place)
        function = self.functions.resolve(short, qualifier)
        arn = self.functions.place.function(short, qualifier) if qualifier else None
        return function, arn

    async def map(
        self, name: str, events: Iterable[object], *, concurrency: int = 1
    ) -> AsyncIterator[Response]:
        """Yield the responses to many events, in their order, `concurrency` of them at a time.

        Events are taken from the iterable as they are needed, so it may be endless.
        """
        check_concurrency(concurrency)
        running: deque[asyncio.Task[Response]] = deque()
        waiting = iter(events)
        try:
            while True:
                while len(running) < concurrency:
                    try:
                        event = next(waiting)
                    except StopIteration:
                        break
                    running.append(asyncio.ensure_future(self.invoke(name, event, wait=MAP_WAIT)))
                if not running:
                    return
                yield await running[0]
                running.popleft()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def usage(self, book: str = "2025") -> list[billing.Usage]:
        """Return what the functions of this state directory used, billed by a price book."""
        registry = self._open_parts().registry
        if book not in billing.BOOKS:
            msg = f"The price book must be one of {', '.join(billing.BOOKS)}, got {book!r}"
            raise InvalidParameterValue(msg)
        return await registry.usage(book)


def check_concurrency(concurrency: int) -> None:
    """Refuse a concurrency of `map` that would never run anything."""
    if concurrency < 1:
        msg = f"concurrency must be at least 1, got {concurrency}"
        raise InvalidParameterValue(msg)


def _json(value: object) -> str | None:
    return None if value is None else encode_event(value).decode()
