"""This module is commits: steps of the event queue's file, many of them in one transaction.

Theory of operation: steps come from the event loop; one thread carries out all that have come
meanwhile in one transaction (group commit), so that a slow disk makes groups larger and not callers
slower. A step's future is done when its transaction is committed, and never before.

Rule 1: an error of the disk that is not its being full ends the file (fail-stop): after a failed
fsync nobody knows what is on disk, and asking again would say that all is well.

Rule 2: a full disk refuses steps that add, and no other: the ballast is given back to the file
system first, since a DELETE needs room too (https://www.sqlite.org/wal.html: it is appended to the
log), and then each step is written back before the next one begins.

Rule 3: a step that cannot be carried out fails alone.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from miniλ.errors import ServiceError
from miniλ.model import MB

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A step that is patient waits so long, in seconds, for others to share its transaction with.
PATIENCE = 0.002

BALLAST = 4 * MB
# Below so much free space nothing is added: the ballast has to find room again.
LEAST_FREE = 2 * BALLAST

# Errors of SQLite that say nothing about the disk.
OF_A_STEP = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
# Another program has the file open, a shell or a backup: it passes.
OF_OTHERS = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Work: TypeAlias = "Callable[[sqlite3.Connection], Any]"


class DiskFull(ServiceError):
    """There is no room on the disk; what was there before is there still."""


class Step(NamedTuple):
    """What is to be done, who waits for it, and how many bytes it adds; None for no new row."""

    work: Work
    future: asyncio.Future[Any]
    adds: int | None


class Ballast:
    """A file that only takes room, so that there is some when the disk is full."""

    def __init__(self, beside: Path) -> None:
        """Have it beside a database."""
        self.path = beside.with_suffix(".ballast")

    @property
    def free(self) -> int:
        """How many bytes are free here; 0 where nobody can say."""
        try:
            found = os.statvfs(self.path.parent)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def grow(self) -> None:
        """Take the room, if there is enough for others too."""
        try:
            # One that a crash has cut short takes no room.
            if self.path.exists() and self.path.stat().st_blocks * 512 >= BALLAST:
                return
            if self.free < LEAST_FREE:
                return
            with open(self.path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST)
        except OSError:
            self.drop()  # there is none then: full is full

    def drop(self) -> None:
        """Give the room back."""
        try:
            self.path.unlink()
        except OSError:
            return


class Writer:
    """The steps of one file, which nobody else writes."""

    def __init__(
        self, database: sqlite3.Connection, path: Path, ballast: Ballast | None = None
    ) -> None:
        """`ballast` is that of a file which is kept; without one a full disk fails every step."""
        self._database = database
        self._path = path
        self._ballast = ballast
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"minilambda-{path.stem}")
        self._waiting: list[Step] = []
        self._committing: asyncio.Future[Any] | None = None
        self._hurries = False
        self._timer: asyncio.TimerHandle | None = None
        self._broken = ""

    def run(
        self, work: Work, adds: int | None = None, *, is_patient: bool = False
    ) -> asyncio.Future[Any]:
        """Return the future of a step, which is in the next transaction.

        `adds`: the bytes of new rows, which are refused where the disk is about to be full.
        `is_patient`: it may wait for others, as long as PATIENCE. It ends with `ServiceError`
        where it cannot be written.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(Step(work, future, adds))
        self._hurries = self._hurries or not is_patient
        self._commit_soon()
        return future

    @property
    def has_stopped(self) -> bool:
        """Whether nothing is written any more (rule 1)."""
        return self._broken != ""

    async def close(self) -> None:
        """Close the file when all steps are over."""
        while self._committing is not None or self._waiting:
            if self._committing is None:
                self._commit_next()
            else:
                await asyncio.wait([self._committing])
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()

    def _commit_soon(self) -> None:
        if self._committing is not None:
            return
        if self._hurries:
            self._commit_next()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PATIENCE, self._commit_next)

    def _commit_next(self) -> None:
        """Hand all that came meanwhile to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        steps, self._waiting, self._hurries = self._waiting, [], False
        loop = asyncio.get_running_loop()
        committing = loop.run_in_executor(self._thread, self._commit, steps)

        def committed(done: asyncio.Future[list[Any]]) -> None:
            self._committing = None
            error = done.exception()
            if error is None:
                results = done.result()
            else:
                msg = f"The event queue {self._path} cannot be written: {error!r}"
                results = [ServiceError(msg)] * len(steps)
            for step, result in zip(steps, results, strict=True):
                if step.future.cancelled():
                    continue
                if isinstance(result, BaseException):
                    step.future.set_exception(result)
                    step.future.exception()  # who waited for it may have gone
                else:
                    step.future.set_result(result)
            if self._waiting:
                self._commit_soon()

        self._committing = committing
        committing.add_done_callback(committed)

    # On the thread

    def _commit(self, steps: list[Step]) -> list[Any]:
        """Carry out steps; return a result or an error for each."""
        adding = sum(step.adds for step in steps if step.adds is not None)
        refusal = self._refusal(adding) if any(s.adds is not None for s in steps) else None
        if refusal is None:
            try:
                return self._transact(steps)
            except DiskFull as exc:
                refusal = exc
            self._write_back()  # what did not fit has made the log as large as the disk
        ends = iter(self._end([step for step in steps if step.adds is None]))
        return [next(ends) if step.adds is None else refusal for step in steps]

    def _end(self, steps: list[Step]) -> list[Any]:
        """Carry out steps that add nothing; at last one by one, with the room of the ballast."""
        try:
            return self._transact(steps)
        except DiskFull:
            results = []
            for step in steps:
                self._write_back()
                results += self._alone(step)
            return results

    def _transact(self, steps: list[Step]) -> list[Any]:
        """Carry out steps in one transaction; return a result or an error for each.

        Raises `DiskFull`: then none of them is carried out.
        """
        if self._broken:
            return [self._stopped()] * len(steps)
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                return [step.work(self._database) for step in steps]
        except Exception as exc:
            msg = f"The event queue {self._path} cannot be written: {exc}"
            if isinstance(exc, sqlite3.Error) and not isinstance(exc, OF_A_STEP):
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                    raise DiskFull(msg) from exc
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF in OF_OTHERS:
                    return [ServiceError(msg)] * len(steps)
                self._broken = str(exc)
                return [self._stopped()] * len(steps)
        if len(steps) == 1:
            return [ServiceError(msg)]
        return [result for step in steps for result in self._alone(step)]

    def _alone(self, step: Step) -> list[Any]:
        try:
            return self._transact([step])
        except DiskFull as exc:
            return [exc]

    def _stopped(self) -> ServiceError:
        msg = (
            f"The event queue {self._path} has stopped: {self._broken}. What was accepted is in "
            "it; look at the disk, and start again"
        )
        return ServiceError(msg)

    def _refusal(self, adding: int) -> ServiceError | None:
        """Return why so many bytes cannot be added now, or None."""
        if self._ballast is None:
            return None
        self._ballast.grow()
        # Once for the log, and once for the file.
        needed = LEAST_FREE + 2 * adding
        free = self._ballast.free
        # What is over has left pages in the file that are used again; the log has to find room.
        if free >= needed or (free >= BALLAST and free + self._reusable() >= needed):
            return None
        msg = (
            f"The event cannot be queued: {free // MB} MB are free where {self._path} is, and "
            f"{needed // MB} are needed"
        )
        return ServiceError(msg)

    def _reusable(self) -> int:
        """Return the bytes of the file that nothing is in."""
        if self._broken:
            return 0
        (pages,) = self._database.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._database.execute("PRAGMA page_size").fetchone()
        return int(pages * size)

    def _write_back(self) -> None:
        """Bring the log into the file and cut it, in the ballast's room if there is no other."""
        if self._ballast is not None:
            self._ballast.drop()
        try:
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            return  # what comes next says so
        if self._ballast is not None:
            self._ballast.grow()
