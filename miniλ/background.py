"""Tasks that an object owns: they run beside their caller, and none outlives `finish` or `cancel`.

Rule: no task and no exception is lost. An exception that ends a task is a `Trouble` in the journal,
unless the caller awaits it (`expects`); asyncio alone prints it when the task is collected.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from miniλ import journal

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from miniλ.journal import Journal

T = TypeVar("T")


class Background:
    """The tasks of one owner."""

    def __init__(
        self,
        facts: Journal,
        what: str,
        on_end: Callable[[], None] | None = None,
        *,
        expects: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        """Own no task yet; `what` begins the sentence of a `Trouble` about a task that failed.

        `on_end` is called after each task. Exceptions of the types in `expects` are the caller's.
        """
        self._journal = facts
        self._what = what
        self._on_end = on_end
        self._expects = expects
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Return the number of running tasks."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine beside the caller."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if self._on_end is not None:
            self._on_end()
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, self._expects):
            self._journal.record(journal.Trouble(what=f"{self._what}: {error!r}"))

    async def finish(self) -> None:
        """Wait until every task has ended, those that are started meanwhile too."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Cancel every task, and wait until it has ended."""
        for task in self._tasks:
            task.cancel()
        await self.finish()


async def to_its_end(task: asyncio.Future[T]) -> T:
    """Return a task's result; a caller that is cancelled waits until the task is done, too."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled from None if task.cancelled() else task.exception()
    return task.result()
