"""Inherited /tmp: what a worker that crashed leaves to its replacement, as on Lambda.

A /tmp that no replacement has taken within its function's keep-alive is removed, and so is one
whose version is gone.

Rule: a /tmp has one owner. It is inherited, or removed, when no process of its worker is left.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from miniλ.errors import SupervisorClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from miniλ.background import Background
    from miniλ.worker.tmp_dirs import TmpDirs
    from miniλ.worker.worker import Worker

# Seconds that a cold start waits for the end of the crashed worker, which usually takes
# milliseconds; after that it leases a new /tmp.
INHERITANCE_TIMEOUT = 2.0


class InheritedTmps:
    """The workers whose /tmp is to be inherited, by revision, and since when (monotonic)."""

    def __init__(
        self,
        tmp_dirs: TmpDirs,
        lives: dict[str, asyncio.Task[None]],
        background: Background,
    ) -> None:
        """`lives` are the tasks of all workers that have not ended yet, by worker id."""
        self._tmp_dirs = tmp_dirs
        self._lives = lives
        self._background = background
        self._by_revision: dict[str, list[tuple[Worker, float]]] = {}

    def add(self, worker: Worker) -> None:
        """Keep the /tmp of a worker that ends, for a replacement."""
        since = time.monotonic()
        self._by_revision.setdefault(worker.function.revision, []).append((worker, since))

    def live(self, worker: Worker) -> Coroutine[Any, Any, None]:
        """Return the life of a worker: with an inherited /tmp, if its version has one."""
        revision = worker.function.revision
        crashed = self._by_revision.get(revision)
        if not crashed:
            return worker.live()
        before, _ = crashed.pop()
        if not crashed:
            del self._by_revision[revision]
        return self._inherit(worker, before)

    async def _inherit(self, worker: Worker, before: Worker) -> None:
        """Live with the /tmp of a crashed worker once that one is gone, or without it if it stays.

        A crashed worker that stays keeps its /tmp until it is gone.
        """
        life = self._lives.get(before.worker_id)
        if life is not None:
            ends, first = (life, before.unkillable), asyncio.FIRST_COMPLETED
            try:
                await asyncio.wait(ends, timeout=INHERITANCE_TIMEOUT, return_when=first)
            except asyncio.CancelledError:
                worker.cannot_start(SupervisorClosed())
                raise
        if life is None or life.done():
            worker.tmp_dir = before.tmp_dir
        else:
            self.discard(before)
        await worker.live()

    def discard(self, worker: Worker) -> None:
        """Remove the /tmp of a worker that will not be replaced."""
        self._background.start(self._remove(worker))

    async def _remove(self, worker: Worker) -> None:
        life = self._lives.get(worker.worker_id)
        if life is not None:
            await asyncio.wait([life])
        if worker.tmp_dir is not None:
            await self._tmp_dirs.give_back(worker.tmp_dir)

    def expire(self, now: float) -> list[float]:
        """Remove each that is older than its keep-alive; return in how many seconds others are."""
        due: list[float] = []
        for revision, crashed in list(self._by_revision.items()):
            for item in list(crashed):
                worker, since = item
                left = worker.function.keep_alive - (now - since)
                if left <= 0:
                    crashed.remove(item)
                    self.discard(worker)
                else:
                    due.append(left)
            if not crashed:
                del self._by_revision[revision]
        return due

    def remove(self, unwanted: Callable[[Worker], bool] = lambda _: True) -> None:
        """Remove the /tmp of each worker that is `unwanted`; workers of a revision all are or none.

        Without an argument, remove all.
        """
        for revision, crashed in list(self._by_revision.items()):
            if unwanted(crashed[0][0]):
                del self._by_revision[revision]
                for worker, _ in crashed:
                    self.discard(worker)
