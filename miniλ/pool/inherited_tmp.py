"""Inherited /tmp: what a worker that crashed leaves to its replacement, as on Lambda.

A /tmp is removed if no replacement takes it within its function's keep-alive, or if its version is
updated or deleted.

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
        """Run a worker in a crashed worker's /tmp once its processes have exited.

        If they have not after `INHERITANCE_TIMEOUT`, it runs in a new /tmp; the old one is removed
        when they have.
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
            self.remove(before)
        await worker.live()

    def remove(self, worker: Worker) -> None:
        """Remove the /tmp of a crashed worker, once its processes have exited."""
        self._background.start(self._remove_after_exit(worker))

    async def _remove_after_exit(self, worker: Worker) -> None:
        life = self._lives.get(worker.worker_id)
        if life is not None:
            await asyncio.wait([life])
        if worker.tmp_dir is not None:
            await self._tmp_dirs.give_back(worker.tmp_dir)

    def remove_expired(self, now: float) -> list[float]:
        """Remove each /tmp whose keep-alive is over; return the seconds that each other one has."""
        due: list[float] = []
        for revision, crashed in list(self._by_revision.items()):
            for item in list(crashed):
                worker, since = item
                left = worker.function.keep_alive - (now - since)
                if left <= 0:
                    crashed.remove(item)
                    self.remove(worker)
                else:
                    due.append(left)
            if not crashed:
                del self._by_revision[revision]
        return due

    def remove_of(self, unwanted: Callable[[Worker], bool]) -> None:
        """Remove the /tmp of each revision whose workers are `unwanted`."""
        for revision, crashed in list(self._by_revision.items()):
            if unwanted(crashed[0][0]):
                del self._by_revision[revision]
                for worker, _ in crashed:
                    self.remove(worker)
