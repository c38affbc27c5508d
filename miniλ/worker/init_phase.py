"""The init phase of one worker: how long it may take, how it went, and how its waiters learn that.

A phase that fails is a result. An exception is only what kept the worker from starting.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec

from miniλ import failures, journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.errors import LambdaError
    from miniλ.journal import Fact


class InitResult(msgspec.Struct, frozen=True):
    """How an init phase went. `status` is "", "error" or "timeout"; `payload` is the failure."""

    status: str
    seconds: float
    log: bytes
    payload: bytes = b""
    error_type: str = ""


class InitPhase:
    """One init phase. `result` is done when it is over, or raises why the worker did not start."""

    __slots__ = ("_began", "_function", "_record", "_worker_id", "is_repeated", "result", "timeout")

    def __init__(
        self,
        worker_id: str,
        function: str,
        record: Callable[[Fact], None],
        timeout: float,
        *,
        is_repeated: bool,
    ) -> None:
        """`is_repeated`: it runs inside an invocation, after one that failed or was late."""
        self._worker_id = worker_id
        self._function = function
        self._record = record
        self._began = 0.0
        self.timeout = timeout
        self.is_repeated = is_repeated
        self.result: asyncio.Future[InitResult] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        """Start the clock, just before the fork of the worker."""
        self._began = time.monotonic()

    def seconds_left(self) -> float:
        """Return how much of its timeout is left."""
        return self.timeout - (time.monotonic() - self._began)

    def succeed(self, log: bytes) -> None:
        """End it: the handler is loaded; `log` is what it printed."""
        seconds = time.monotonic() - self._began
        self._record(
            journal.WorkerReady(
                worker_id=self._worker_id, function=self._function, init_seconds=seconds
            )
        )
        self.result.set_result(InitResult("", seconds, log))

    def fail(self, status: str, payload: bytes, error_type: str, log: bytes) -> None:
        """End it: with a failure ("error") or at its timeout ("timeout")."""
        seconds = time.monotonic() - self._began
        phase = "invoke" if self.is_repeated else "init"
        log += failures.init_report(seconds, phase, status, error_type)
        self._record(
            journal.InitFailed(worker_id=self._worker_id, function=self._function, status=status)
        )
        self.result.set_result(InitResult(status, seconds, log, payload, error_type))

    def cannot_start(self, error: LambdaError) -> None:
        """Raise an error in all that wait for the result: there is no worker."""
        self.result.set_exception(error)
        self.result.exception()  # else asyncio complains if no task waits for it
