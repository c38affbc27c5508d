"""This module is the supervisor: it wires everything, starts and stops it, and is the embedded API.

What it takes from an app that embeds it: nothing. It runs on the loop that is there (asyncio's
or uvloop's), installs no signal handler, starts no thread but those that write to disk and those
that asyncio lends, and two of them live in one process without knowing each other.

Constructing a Supervisor does nothing at all; `async with` opens it. That is why a module may
make one at its top level and decorate functions with it: a worker that imports the module makes
one too, and never opens it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from miniλ import billing, journal, model, names
from miniλ.decorated import Function, import_path, importable
from miniλ.errors import InvalidParameterValue, LambdaError, ResourceConflict, SupervisorClosed
from miniλ.events.delivery import Delivery
from miniλ.events.queue import AsyncEvent, EventQueue
from miniλ.functions import Functions, new_revision, over_reserved
from miniλ.invoker import Invoker, check_id, check_payload, encode_event, new_request_id
from miniλ.journal import Journal
from miniλ.pool.pool import Pool
from miniλ.runtimes import catalog
from miniλ.sandbox import levels, processes
from miniλ.sandbox.users import Users
from miniλ.settings import Settings
from miniλ.settings import load as load_settings
from miniλ.store import state_dir
from miniλ.store.logbook import Logbook
from miniλ.store.registry import Registry
from miniλ.store.resources import PROVISIONED
from miniλ.worker import isolation
from miniλ.worker.affinity import Affinity
from miniλ.worker.equipment import NO_CONTEXT, PROCESSES, Equipment, InvocationContext
from miniλ.worker.tmp_dirs import TmpDirs
from miniλ.worker.zygote import Zygotes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from types import TracebackType
    from typing import Self

    from miniλ.model import FunctionConfiguration, Response
    from miniλ.worker.answer_stream import AnswerStream

R = TypeVar("R")

# What `update_function_configuration` may change.
CHANGEABLE = frozenset(
    {
        "handler",
        "runtime",
        "memory_size",
        "timeout",
        "ephemeral_storage",
        "environment",
        "reserved_concurrency",
        "keep_alive",
        "network",
    }
)
# `map` queues for concurrency as long as any function may run (900 s, Lambda's longest).
MAP_WAIT = 900.0


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
        self._decorated: list[tuple[Function[Any], dict[str, Any]]] = []
        self._undo: contextlib.AsyncExitStack | None = None
        self._live: dict[str, FunctionConfiguration] = {}
        self._invoker: Invoker | None = None

    def __repr__(self) -> str:
        if self._undo is None:
            return "<Supervisor closed>"
        return f"<Supervisor {len(self.functions.all())} functions, {self._pool!r}>"

    # Open and close

    async def __aenter__(self) -> Self:
        """Open: take the state directory, sweep what a dead supervisor left, be ready."""
        if self._undo is not None:
            msg = "The supervisor is open already"
            raise ResourceConflict(msg)
        async with contextlib.AsyncExitStack() as undo:
            await self._open(undo)
            self._undo = undo.pop_all()
        try:
            for function, options in self._decorated:
                await self._create_decorated(function, options)
            self.delivery.open(self.functions, self._pool, Invoker(self._pool))
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self, undo: contextlib.AsyncExitStack) -> None:
        settings = self.settings = self._settings or load_settings()
        held, remains = await _in_a_thread(
            lambda: state_dir.open_state(self._state_path), lambda taken: taken[0].close()
        )
        undo.push_async_callback(asyncio.to_thread, held.close)
        self._state = held
        self.registry = Registry(held.registry, durable=held.kept)
        undo.push_async_callback(self.registry.close)
        self.journal = Journal(self.registry.note)
        if self.registry.warning:
            self.journal.record(journal.Trouble(what=self.registry.warning))
        for found in remains:
            self.journal.record(
                journal.Swept(instance=found.instance, processes=found.processes, paths=found.paths)
            )
        choice = await isolation.choose(settings, str(held.root_mount))
        hierarchy = isolation.open_hierarchy(settings, choice, held.instance)
        undo.callback(isolation.close_hierarchy, hierarchy, self.journal)
        held.write_down(list(hierarchy.directories))
        opened = await isolation.open_volumes(choice, str(held.tmp), self.journal, undo)
        if opened is None:
            choice = choice._replace(volumes=False)
        limits = levels.limits(choice, hierarchy.limits)
        isolation.check_required(settings, limits)
        for mechanism, why in choice.missing.items():
            self.journal.record(journal.Missing(mechanism=mechanism, why=why))
        zygotes = Zygotes(self.journal, choice.isolation, held.instance)
        undo.push_async_callback(zygotes.close)
        users = Users() if choice.users else None
        self._tmp_dirs = TmpDirs(str(held.tmp), opened, users, zygotes.release)
        self.state, self.uploads, self.code_store = held.path, held.uploads, held.code
        self.logbook = Logbook(held.logs if held.kept and settings.keep_logs else None)
        await undo.enter_async_context(self.logbook.flushing(self.journal))
        queue = await _in_a_thread(
            lambda: EventQueue(held.events, durable=held.kept), EventQueue.abandon
        )
        self.delivery = Delivery(queue, self.journal, settings.event_retry)
        undo.push_async_callback(self.delivery.close)
        equipment = Equipment(
            settings=settings,
            journal=self.journal,
            zygotes=zygotes,
            hierarchy=hierarchy,
            choice=choice,
            tmp_dirs=self._tmp_dirs,
            instance=held.instance,
            limits=limits,
            process_limit=_process_limit(choice, limits),
            affinity=Affinity(),
            keep_log=self.logbook.note if settings.keep_logs else None,
        )
        self.limits = limits
        self._choice = choice
        self._zygotes = zygotes
        self._pool = Pool(equipment, self._collect_code)
        undo.push_async_callback(self._pool.close)
        self._invoker = Invoker(self._pool)
        place = names.Place(settings.region, settings.account)
        self.functions = Functions(
            self.registry, self._pool, held, place, self._prepare, self.journal
        )
        undo.push_async_callback(self.functions.close)
        self._live = self.functions.live
        await asyncio.to_thread(held.collect, self.functions.code_in_use())
        self.functions.open()
        self._provision_again()
        undo.callback(self.delivery.stop)
        undo.push_async_callback(self.delivery.drain, settings.shutdown_grace)

    def _provision_again(self) -> None:
        """Keep workers initialised as an earlier life was told to."""
        for name in self.registry.names(PROVISIONED):
            for qualifier, config in self.registry.parts(PROVISIONED, name).items():
                try:
                    self._provision(name, qualifier, config["Requested"])
                except LambdaError as exc:
                    what = f"No provisioned concurrency for {name}:{qualifier}: {exc}"
                    self.journal.record(journal.Trouble(what=what))

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close: every worker ends, and nothing of them is left."""
        await self.close()

    async def close(self) -> None:
        """End every worker (2 s of grace, then kill) and remove every process, cgroup and /tmp."""
        undo, self._undo, self._invoker = self._undo, None, None
        if undo is not None:
            # Whoever is cancelled while closing still closes: half a close would leave processes.
            closing = asyncio.ensure_future(undo.aclose())
            await _to_its_end(closing)
            closing.result()

    def _opened(self) -> None:
        if self._undo is None:
            raise SupervisorClosed

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
        "none"; `runtime` is the Python that runs
        this, unless said otherwise. The code is copied: later changes to it need
        `update_function_code`. Raises `InvalidParameterValue`, `ResourceConflict` where the
        name is taken, `RuntimeMissing`.
        """
        self._opened()
        draft = model.FunctionConfiguration(
            name=name,
            handler=handler,
            runtime=runtime or catalog.own(),
            revision=new_revision(),
            code_sha256="",
            code_size=0,
            code_path="",
            memory_size=memory_size,
            timeout=timeout,
            ephemeral_storage=ephemeral_storage,
            # A copy: later changes to the caller's own do not reach workers.
            environment=dict(environment)
            if isinstance(environment, Mapping)
            else environment or {},
            reserved_concurrency=reserved_concurrency,
            keep_alive=keep_alive,
            network=network,
            last_modified=model.now_iso(),
        )
        return await self.functions.create(draft, code)

    async def update_function_code(
        self, name: str, code: str | os.PathLike[str]
    ) -> FunctionConfiguration:
        """Give a function new code. Invocations that run end on the old one."""
        self._opened()
        return await self.functions.update_code(name, code)

    async def update_function_configuration(
        self,
        name: str,
        **changes: Any,  # noqa: ANN401 - checked against CHANGEABLE and by FunctionConfiguration
    ) -> FunctionConfiguration:
        """Change what `create_function` was given; running invocations end as they began."""
        self._opened()
        unknown = sorted(changes.keys() - CHANGEABLE)
        if unknown:
            msg = f"Unknown: {', '.join(unknown)}; can change: {', '.join(sorted(CHANGEABLE))}"
            raise InvalidParameterValue(msg)
        return await self.functions.update(name, changes)

    async def delete_function(self, name: str) -> None:
        """Delete a function; its workers end when they have answered."""
        self._opened()
        await self.functions.delete(name)

    async def publish_version(self, name: str, description: str = "") -> FunctionConfiguration:
        """Make an immutable version of a function as it is now, to invoke as `name:number`.

        The last one again, if nothing has changed since.
        """
        self._opened()
        return await self.functions.publish_version(name, description=description)

    async def _collect_code(self) -> None:
        """Remove packages that no version has, while functions cannot change.

        A package that is on its way into a function is nobody's yet.
        """
        async with self.functions.changing:
            await asyncio.to_thread(self._state.collect, self.functions.code_in_use())

    def get_function(self, name: str) -> FunctionConfiguration:
        """Return a function's configuration; raises `ResourceNotFound`."""
        self._opened()
        return self.functions.get(*names.function(name, None, self.functions.place))

    def list_functions(self) -> list[FunctionConfiguration]:
        """Return all functions by name."""
        self._opened()
        return self.functions.all()

    def _find(self, name: str) -> tuple[FunctionConfiguration, str | None]:
        """Return what a name with a qualifier or an ARN means, and the ARN it is asked for by."""
        if not isinstance(name, str):
            model.check_name(name)
        short, qualifier = names.function(name, None, self.functions.place)
        function = self.functions.resolve(short, qualifier)
        arn = self.functions.place.function(short, qualifier) if qualifier else None
        return function, arn

    async def _prepare(self, function: FunctionConfiguration) -> None:
        """Get ready what a worker of a function needs; refuse what this host does not have."""
        if function.runtime not in catalog.KNOWN:
            await asyncio.to_thread(catalog.check, function.runtime)
        if function.network == "none" and not self._choice.isolation.namespaces:
            msg = "network='none' needs namespaces, which this host or these settings do not give"
            raise InvalidParameterValue(msg)
        reservable = self._pool.reservable(function.name)
        if (function.reserved_concurrency or 0) > reservable:
            raise over_reserved(function.reserved_concurrency or 0, reservable)
        await self._zygotes.get(function.runtime)
        # The first /tmp of a size takes longest: not while an invocation waits for it.
        await self._tmp_dirs.make_ahead(function.ephemeral_storage)

    # Functions of the embedding app

    def function(
        self,
        name: str | None = None,
        **options: Any,  # noqa: ANN401 - as create_function's
    ) -> Callable[[Callable[..., R]], Function[R]]:
        """Decorate a module-level `def f(event, context)` of the app to run in workers.

        `options` as for `create_function`; the code is the app's own module, imported in the
        worker from where the app imports it. In a script, guard what it does by
        `if __name__ == "__main__":`, as with multiprocessing.
        """
        if callable(name):
            msg = "Write @supervisor.function(), with parentheses"
            raise InvalidParameterValue(msg)
        unknown = sorted(options.keys() - CHANGEABLE | options.keys() & {"handler", "runtime"})
        if unknown:
            msg = f"@supervisor.function does not take {', '.join(unknown)}"
            raise InvalidParameterValue(msg)

        def decorate(handler: Callable[..., R]) -> Function[R]:
            if "<locals>" in handler.__qualname__ or "." in handler.__qualname__:
                msg = f"{handler.__qualname__} must be at the top of its module to be imported"
                raise InvalidParameterValue(msg)
            function = Function(self.invoke, handler, name or handler.__name__)
            model.check_name(function.name)
            self._decorated.append((function, options))
            return function

        return decorate

    async def _create_decorated(self, function: Function[Any], options: dict[str, Any]) -> None:
        root, module, source = importable(function.handler)
        if not self.functions.is_transient(function.name):
            self.functions.check_new(function.name)
        configuration = model.FunctionConfiguration(
            name=function.name,
            handler=f"{module}.{function.handler.__name__}",
            runtime=catalog.own(),
            revision=new_revision(),
            code_sha256=hashlib.sha256(source).hexdigest(),
            code_size=len(source),
            code_path=root,
            last_modified=model.now_iso(),
            python_path=import_path(),
            **options,
        )
        await self._prepare(configuration)
        # Not in the registry: it comes and goes with the app.
        self.functions.adopt(configuration)

    async def provision(self, name: str, version: str, count: int) -> None:
        """Keep so many workers of a version initialised; 0 ends it.

        Raises `InvalidParameterValue` for more than this host runs at once.
        """
        self._opened()
        self._provision(name, version, count)

    def _provision(self, name: str, version: str, count: int) -> None:
        function = self.functions.resolve(name, version)
        most = self._pool.provisionable(function)
        if count > most:
            msg = (
                f"ProvisionedConcurrentExecutions of {count} is more than the {most} that are left"
            )
            raise InvalidParameterValue(msg)
        self._pool.provision(function, count)

    def provisioned(self, name: str, version: str) -> tuple[int, str]:
        """Return how many of them are initialised; and why no more are, "" while all is well."""
        self._opened()
        return self._pool.provisioned(self.functions.resolve(name, version))

    @property
    def capacity(self) -> int:
        """How many invocations may run at once, all functions together."""
        return self._pool.capacity

    @property
    def unreserved(self) -> int:
        """How much of it functions without reserved concurrency share."""
        return self._pool.reservable("") + 1

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
        anything that becomes JSON; `payload` is JSON as bytes instead. `wait`: how
        many seconds to queue, first come first served, when the concurrency is used up.

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
        begun = invoker.invoke_warm(function, payload, context, request_id)
        if begun is not None:
            return await begun
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

        It is on disk then, in a state directory that is kept, and runs in the background: at least
        once, whatever happens to this process. A function that fails runs again twice (setting
        `event_retry`). Parameters are as `invoke`'s. Raises `RequestTooLarge` above 1 MB,
        `ServiceError` where it cannot be kept, and what `invoke` raises for what it is given.
        """
        self._opened()
        if not isinstance(name, str):
            model.check_name(name)
        short, qualifier = names.function(name, None, self.functions.place)
        self.functions.check_invocable(short, qualifier)
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
            arn=self.functions.place.function(short, qualifier) if qualifier else None,
        )
        await self.delivery.accept(AsyncEvent(request_id, short, qualifier, payload, context))
        return request_id

    def run(
        self,
        function: FunctionConfiguration,
        payload: bytes,
        context: InvocationContext = NO_CONTEXT,
        request_id: str | None = None,
        wait: float = 0.0,
        stream: AnswerStream | None = None,
    ) -> Awaitable[Response]:
        """Run a version on an event that is JSON already; for who has resolved and checked both.

        To be awaited at once. `stream` takes the pieces of an answer that comes in pieces.
        Raises as `invoke` does.
        """
        invoker = self._invoker
        if invoker is None:
            raise SupervisorClosed
        request_id = request_id or new_request_id()
        return invoker.invoke(function, payload, context, request_id, wait, stream)

    def run_warm(
        self,
        function: FunctionConfiguration,
        payload: bytes,
        context: InvocationContext,
        request_id: str,
    ) -> asyncio.Future[Response] | None:
        """Run a version as `run` does, if a worker of it is idle; else return None."""
        if self._invoker is None:
            return None
        return self._invoker.invoke_warm(function, payload, context, request_id)

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
        self._opened()
        if book not in billing.BOOKS:
            msg = f"The price book must be one of {', '.join(billing.BOOKS)}, got {book!r}"
            raise InvalidParameterValue(msg)
        return await self.registry.usage(book)


def check_concurrency(concurrency: int) -> None:
    """Refuse a concurrency of `map` that would never run anything."""
    if concurrency < 1:
        msg = f"concurrency must be at least 1, got {concurrency}"
        raise InvalidParameterValue(msg)


async def _in_a_thread(open_: Callable[[], R], close: Callable[[R], None]) -> R:
    """Open something in a thread; who is cancelled meanwhile has not opened it."""
    opening = asyncio.ensure_future(asyncio.to_thread(open_))
    try:
        await _to_its_end(opening)
    except asyncio.CancelledError:
        if not opening.cancelled() and opening.exception() is None:
            close(opening.result())
        raise
    return opening.result()


async def _to_its_end(task: asyncio.Future[Any]) -> None:
    """Wait until a task is done, however often we are cancelled meanwhile; then say so."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled from None if task.cancelled() else task.exception()


def _process_limit(choice: levels.Choice, limits: dict[str, str]) -> int | None:
    """Return the RLIMIT_NPROC for workers: it counts the user's, so ours come on top."""
    if choice.users or choice.isolation.namespaces == "user":
        return PROCESSES  # counted for each worker alone
    if limits["processes"].startswith("hard") or os.geteuid() == 0:
        return None
    return processes.tasks_of_user() + PROCESSES


def _json(value: object) -> str | None:
    return None if value is None else encode_event(value).decode()
