"""The synchronous supervisor, for scripts and notebooks: the methods of `Supervisor`, blocking.

The supervisor runs on a loop of its own, in a thread of its own. So it works beside a running loop
(a notebook) and without one (a script).
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from miniλ.errors import ResourceConflict, SupervisorClosed
from miniλ.supervisor import MAP_WAIT, Supervisor, check_concurrency

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self, Unpack

    from miniλ import billing
    from miniλ.decorated import Function
    from miniλ.model import (
        ConfigurationChanges,
        FunctionConfiguration,
        FunctionOptions,
        Response,
    )
    from miniλ.settings import Settings

T = TypeVar("T")
R = TypeVar("R")


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's if it is installed, else asyncio's."""
    try:
        import uvloop  # noqa: PLC0415 - not on every architecture
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class SyncSupervisor:
    """Runs functions in supervised workers. Use it with `with`; methods as `Supervisor`'s."""

    def __init__(
        self, state: str | os.PathLike[str] | None = None, settings: Settings | None = None
    ) -> None:
        self._supervisor = Supervisor(state, settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Sync{repr(self._supervisor)[1:]}"

    def __enter__(self) -> Self:
        """Start the thread and open the supervisor."""
        if self._loop is not None:
            msg = "The supervisor is open already"
            raise ResourceConflict(msg)
        self._loop = new_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="minilambda", daemon=True
        )
        self._thread.start()
        try:
            self._call(self._supervisor.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the supervisor and end the thread."""
        self.close()

    def close(self) -> None:
        """End every worker, and the thread."""
        if self._loop is not None:
            try:
                self._call(self._supervisor.close())
            finally:
                self._end_loop()

    def _end_loop(self) -> None:
        loop, self._loop = self._loop, None
        assert loop is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return self._result(self._submit(work))

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop is None:
            work.close()
            raise SupervisorClosed
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _result(self, future: Future[T]) -> T:
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C in a script: cancel the call too
            raise

    def create_function(
        self,
        name: str,
        code: str | os.PathLike[str],
        handler: str,
        *,
        runtime: str | None = None,
        memory_size: int = 128,
        timeout: int = 3,
        ephemeral_storage: int = 512,
        environment: dict[str, str] | None = None,
        reserved_concurrency: int | None = None,
        keep_alive: float = 600.0,
        network: str = "share",
    ) -> FunctionConfiguration:
        """As `Supervisor.create_function`."""
        return self._call(
            self._supervisor.create_function(
                name,
                code,
                handler,
                runtime=runtime,
                memory_size=memory_size,
                timeout=timeout,
                ephemeral_storage=ephemeral_storage,
                environment=environment,
                reserved_concurrency=reserved_concurrency,
                keep_alive=keep_alive,
                network=network,
            )
        )

    def update_function_code(
        self, name: str, code: str | os.PathLike[str]
    ) -> FunctionConfiguration:
        """As `Supervisor.update_function_code`."""
        return self._call(self._supervisor.update_function_code(name, code))

    def update_function_configuration(
        self, name: str, **changes: Unpack[ConfigurationChanges]
    ) -> FunctionConfiguration:
        """As `Supervisor.update_function_configuration`."""
        return self._call(self._supervisor.update_function_configuration(name, **changes))

    def delete_function(self, name: str) -> None:
        """As `Supervisor.delete_function`."""
        self._call(self._supervisor.delete_function(name))

    def publish_version(self, name: str, description: str = "") -> FunctionConfiguration:
        """As `Supervisor.publish_version`."""
        return self._call(self._supervisor.publish_version(name, description))

    def provision(self, name: str, version: str, count: int) -> None:
        """As `Supervisor.provision`."""
        self._call(self._supervisor.provision(name, version, count))

    def provisioned(self, name: str, version: str) -> tuple[int, str]:
        """As `Supervisor.provisioned`."""
        return self._supervisor.provisioned(name, version)

    def get_function(self, name: str) -> FunctionConfiguration:
        """As `Supervisor.get_function`."""
        return self._supervisor.get_function(name)

    def list_functions(self) -> list[FunctionConfiguration]:
        """As `Supervisor.list_functions`."""
        return self._supervisor.list_functions()

    def function(
        self, name: str | None = None, **options: Unpack[FunctionOptions]
    ) -> Callable[[Callable[..., R]], Function[R]]:
        """As `Supervisor.function`; invoke with `SyncSupervisor.invoke`."""
        return self._supervisor.function(name, **options)

    def invoke(
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
        """As `Supervisor.invoke`."""
        return self._call(
            self._supervisor.invoke(
                name,
                event,
                payload=payload,
                wait=wait,
                client_context=client_context,
                identity=identity,
                trace_id=trace_id,
                request_id=request_id,
            )
        )

    def invoke_async(
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
        """As `Supervisor.invoke_async`."""
        return self._call(
            self._supervisor.invoke_async(
                name,
                event,
                payload=payload,
                client_context=client_context,
                identity=identity,
                trace_id=trace_id,
                request_id=request_id,
            )
        )

    def map(
        self, name: str, events: Iterable[object], *, concurrency: int = 1
    ) -> Iterator[Response]:
        """As `Supervisor.map`.

        Events are taken in the caller's thread, so their iterable may use this supervisor itself.
        """
        check_concurrency(concurrency)
        running: deque[Future[Response]] = deque()
        waiting = iter(events)
        try:
            while True:
                for event in itertools.islice(waiting, concurrency - len(running)):
                    running.append(
                        self._submit(self._supervisor.invoke(name, event, wait=MAP_WAIT))
                    )
                if not running:
                    return
                yield self._result(running[0])
                running.popleft()
        finally:
            for future in running:
                future.cancel()

    def usage(self, book: str = "2025") -> list[billing.Usage]:
        """As `Supervisor.usage`."""
        return self._call(self._supervisor.usage(book))
