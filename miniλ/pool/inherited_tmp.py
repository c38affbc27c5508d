"""This module is orphans: each a /tmp whose worker crashed, and that waits for a replacement.

A replacement finds the /tmp of the one before, as on Lambda. One that has waited for a keep-alive
in vain is removed, and so is one whose version has gone.

Rule: a /tmp has one owner. It is handed on, or removed, when nothing of its worker is left.
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

# Processes end in milliseconds, or their host is in trouble: then a cold start takes a new /tmp.
INHERITANCE_TIMEOUT = 2.0


class InheritedTmps:
    """What is waiting, by revision: the worker, and since when (time.monotonic())."""

    def __init__(
        self,
        tmp_dirs: TmpDirs,
        lives: dict[str, asyncio.Task[None]],
        background: Background,
    ) -> None:
        """`lives` are the workers that are not quite gone, by id."""
        self._tmp_dirs = tmp_dirs
        self._lives = lives
        self._background = background
        self._waiting: dict[str, list[tuple[Worker, float]]] = {}

    def add(self, worker: Worker) -> None:
        """Keep the /tmp of a worker that ends."""
        since = time.monotonic()
        self._waiting.setdefault(worker.function.revision, []).append((worker, since))

    def live(self, worker: Worker) -> Coroutine[Any, Any, None]:
        """Return the life of a worker: with a /tmp that waits for it, if there is one."""
        revision = worker.function.revision
        waiting = self._waiting.get(revision)
        if not waiting:
            return worker.live()
        before, _ = waiting.pop()
        if not waiting:
            del self._waiting[revision]
        return self._inherit(worker, before)

    async def _inherit(self, worker: Worker, before: Worker) -> None:
        """Live with the /tmp of a worker that crashed, once all of that one is gone.

        One that does not go keeps its /tmp.
        """
        life = self._lives.get(before.worker_id)
        if life is not None:
            ends, first = (life, before.outlived), asyncio.FIRST_COMPLETED
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
        """Remove each that waited for its keep-alive; return in how many seconds others are due."""
        due: list[float] = []
        for revision, waiting in list(self._waiting.items()):
            for item in list(waiting):
                worker, since = item
                left = worker.function.keep_alive - (now - since)
                if left <= 0:
                    waiting.remove(item)
                    self.discard(worker)
                else:
                    due.append(left)
            if not waiting:
                del self._waiting[revision]
        return due

    def remove(self, unwanted: Callable[[Worker], bool] = lambda _: True) -> None:
        """Remove those whose workers nobody will replace; all are of one version, or none."""
        for revision, waiting in list(self._waiting.items()):
            if unwanted(waiting[0][0]):
                del self._waiting[revision]
                for worker, _ in waiting:
                    self.discard(worker)
