"""Miniλ as a contestant: a supervisor with the function hello.

Rule: the CPU quota must not be measured. A worker has MB / 1,769 of a CPU, so one of 128 MB would
be throttled for 93 ms of every 100; with twice 1,769 MB its one thread never reaches the quota.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from miniλ import Supervisor, journal
from miniλ.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HELLO = Path(__file__).resolve().parent.parent / "tests" / "functions" / "hello"
HANDLER = "app.handler"
EVENT = {"name": "Ada"}
GREETING = {"message": "Hello, Ada!"}
MEMORY = 2 * 1769


class Start(NamedTuple):
    """One cold start in seconds: its total and its three parts."""

    total: float
    invocation_to_fork: float
    fork_to_ready: float
    ready_to_answer: float


class Ours:
    """A supervisor that runs hello."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @property
    def limits(self) -> dict[str, str]:
        """The mechanism that holds each limit of a worker on this host."""
        return self._supervisor.limits

    async def call(self) -> None:
        """Invoke hello; raises if it fails."""
        response = await self._supervisor.invoke("hello", EVENT)
        if response.is_failure:
            raise RuntimeError(f"hello failed: {response.body!r}")

    async def accept(self) -> None:
        """Queue an event for hello; returns when it is on disk."""
        await self._supervisor.invoke_async("hello", EVENT)

    async def quiet(self) -> None:
        """Wait until every event that is due is over."""
        await self._supervisor.delivery.quiet()

    async def start(self) -> Start:
        """Invoke hello on a new worker, and wait until that worker has exited."""
        facts = self._supervisor.journal
        began = time.monotonic()
        response = await self._supervisor.invoke("hello", EVENT)
        ended = time.monotonic()
        if response.is_failure or not response.report.cold:
            raise RuntimeError(f"hello failed, or its worker was not new: {response!r}")
        own = response.report.worker_id
        # Both facts are in the journal already: they precede the answer.
        forked = await facts.until(journal.WorkerStarted, lambda fact: fact.worker_id == own)
        ready = await facts.until(journal.WorkerReady, lambda fact: fact.worker_id == own)
        await facts.until(journal.WorkerExited, lambda fact: fact.worker_id == own)
        # `until` scans all facts: those of earlier starts would slow down the next ones.
        facts.facts.clear()
        return Start(ended - began, forked.at - began, ready.at - forked.at, ended - ready.at)


@contextlib.asynccontextmanager
async def running(
    *,
    state: Path | None = None,
    functions: int = 1,
    keep_alive: float = 600.0,
    **settings: Any,  # noqa: ANN401 - as Settings takes them
) -> AsyncIterator[Ours]:
    """Run a supervisor with hello and `functions` - 1 others, which are never invoked.

    Without `state` it has a temporary state directory.
    """
    async with Supervisor(state, Settings(concurrency=64, **settings)) as supervisor:
        for number in range(functions):
            await supervisor.create_function(
                f"other-{number}" if number else "hello",
                HELLO,
                HANDLER,
                memory_size=MEMORY,
                keep_alive=keep_alive,
            )
        response = await supervisor.invoke("hello", EVENT)
        if response.is_failure or response.payload != GREETING:
            raise RuntimeError(f"hello answered {response.body!r}, not {GREETING}")
        if keep_alive == 0:
            own = response.report.worker_id
            await supervisor.journal.until(journal.WorkerExited, lambda fact: fact.worker_id == own)
        yield Ours(supervisor)
