"""Group commit for SQLite: many steps, one fsync.

Theory of operation: steps come from the event loop. One thread carries out all steps that came
since its last transaction in the next one, so a slow disk makes groups larger and not callers
slower. Steps keep their order. The future of a step is done when its transaction is committed,
which for a durable database means fsynced (see `database`), and never before.

Rule 1: a step that cannot be carried out fails alone.

Rule 2: a full disk refuses steps that add rows, and no others. The ballast is deleted first, since
a DELETE needs room too (https://www.sqlite.org/wal.html: it is appended to the log); then the log
is written back before each further step. Without a ballast no step is refused ahead: each is tried.

Rule 3: after a failed fsync the page cache no longer says what is on disk, and a retry of the same
transaction would report success. So no I/O error is retried: all steps of its transaction fail. A
writer that is `fail_stop` ends with the first disk error other than a full disk; another one goes
on with later steps, whose pages are written anew.
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

# Seconds that a patient step waits for other steps of its transaction.
PATIENCE = 0.002

BALLAST = 4 * MB
# Steps that add rows are refused below this many free bytes: the ballast has to find room again.
MIN_FREE = 2 * BALLAST

# Errors of SQLite that are the step's fault and say nothing about the disk.
STEP_ERRORS = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
# Result codes while another program, a shell or a backup, has the file locked: this passes.
LOCKED_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

Work: TypeAlias = "Callable[[sqlite3.Connection], Any]"


class DiskFull(ServiceError):
    """There is no room on the disk; all that was committed before is still there."""


class Step(NamedTuple):
    """One piece of work; `adds` is the bytes of its new rows, None if it adds no row."""

    work: Work
    future: asyncio.Future[Any]
    adds: int | None


class Ballast:
    """A file of zeros that is deleted to make room when the disk is full."""

    def __init__(self, database: Path, refusal: str) -> None:
        """Name the file beside a database; `refusal` begins the message of a step without room."""
        self.path = database.with_suffix(".ballast")
        self.refusal = refusal

    @property
    def free(self) -> int:
        """The free bytes of this file system; 0 if statvfs(2) fails."""
        try:
            status = os.statvfs(self.path.parent)
        except OSError:
            return 0
        return status.f_bavail * status.f_frsize

    def grow(self) -> None:
        """Allocate the file, if there is room for it and as much again."""
        try:
            # A file that a crash cut short has fewer blocks: it is allocated anew.
            if self.path.exists() and self.path.stat().st_blocks * 512 >= BALLAST:
                return
            if self.free < MIN_FREE:
                return
            with open(self.path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST)
        except OSError:
            self.drop()  # without ballast a full disk is full at once

    def drop(self) -> None:
        """Delete the file, which gives its room back."""
        try:
            self.path.unlink()
        except OSError:
            return


class Writer:
    """All steps of one database file: one thread, one connection, no other writer."""

    def __init__(
        self,
        database: sqlite3.Connection,
        path: Path,
        name: str,
        *,
        ballast: Ballast | None = None,
        fail_stop: bool = False,
    ) -> None:
        """`name` begins each message, as in "The registry"; the writer closes the database."""
        self._database = database
        self._path = path
        self._name = name
        self._ballast = ballast
        self._fail_stop = fail_stop
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"minilambda-{path.stem}")
        self._waiting: list[Step] = []
        self._committing: asyncio.Future[Any] | None = None
        self._is_urgent = False
        self._timer: asyncio.TimerHandle | None = None
        self._broken = ""

    def run(
        self, work: Work, adds: int | None = None, *, is_patient: bool = False
    ) -> asyncio.Future[Any]:
        """Return a future that is done when `work` is committed, with what it returned.

        The future ends with `ServiceError` if the step cannot be written; `adds` are the bytes
        of its new rows (rule 2). A step that `is_patient` waits up to 2 ms for other steps of its
        transaction. Cancelling the future does not take the step back.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append(Step(work, future, adds))
        self._is_urgent = self._is_urgent or not is_patient
        self._commit_soon()
        return future

    @property
    def has_stopped(self) -> bool:
        """Whether a disk error has ended this writer (rule 3)."""
        return self._broken != ""

    async def close(self) -> None:
        """Commit all steps, then close the database."""
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
        if self._is_urgent:
            self._commit_next()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(PATIENCE, self._commit_next)

    def _commit_next(self) -> None:
        """Hand all waiting steps to the thread."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        steps, self._waiting, self._is_urgent = self._waiting, [], False
        loop = asyncio.get_running_loop()
        committing = loop.run_in_executor(self._thread, self._commit, steps)

        def on_committed(done: asyncio.Future[list[Any]]) -> None:
            self._committing = None
            error = done.exception()
            results = done.result() if error is None else [self._error(error)] * len(steps)
            for step, result in zip(steps, results, strict=True):
                if step.future.cancelled():
                    continue
                if isinstance(result, BaseException):
                    step.future.set_exception(result)
                    step.future.exception()  # marks it as retrieved: its caller may have gone
                else:
                    step.future.set_result(result)
            if self._waiting:
                self._commit_soon()

        self._committing = committing
        committing.add_done_callback(on_committed)

    # On the thread

    def _commit(self, steps: list[Step]) -> list[Any]:
        """Carry out steps; return a result or an error for each."""
        refusal = self._refusal([step.adds for step in steps if step.adds is not None])
        if refusal is None:
            try:
                return self._transact(steps)
            except DiskFull as exc:
                refusal = exc
            self._write_back()  # what did not fit has made the log as large as the disk
        ends = iter(self._end([step for step in steps if step.adds is None]))
        return [next(ends) if step.adds is None else refusal for step in steps]

    def _end(self, steps: list[Step]) -> list[Any]:
        """Carry out steps that add nothing: together, else one by one in the ballast's room."""
        try:
            return self._transact(steps)
        except DiskFull:
            results = []
            for step in steps:
                self._write_back()
                results += self._transact_one(step)
            return results

    def _transact(self, steps: list[Step]) -> list[Any]:
        """Carry out steps in one transaction; return a result or an error for each.

        Raises `DiskFull`: then none of them is carried out.
        """
        if self._broken:
            return [self._stop_error()] * len(steps)
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                return [step.work(self._database) for step in steps]
        except Exception as exc:
            if isinstance(exc, sqlite3.Error) and not isinstance(exc, STEP_ERRORS):
                code = getattr(exc, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_FULL:
                    raise DiskFull(f"{self._name} cannot be written: {exc}") from exc
                if code in LOCKED_CODES:
                    return [self._error(exc)] * len(steps)
                if self._fail_stop:
                    self._broken = str(exc)
                    return [self._stop_error()] * len(steps)
                if code == sqlite3.SQLITE_IOERR:
                    return [self._error(exc)] * len(steps)  # not one by one: see rule 3
            if len(steps) == 1:
                return [self._error(exc)]
        return [result for step in steps for result in self._transact_one(step)]

    def _transact_one(self, step: Step) -> list[Any]:
        try:
            return self._transact([step])
        except DiskFull as exc:
            return [exc]

    def _error(self, error: BaseException) -> ServiceError:
        service_error = ServiceError(f"{self._name} cannot be written: {error}")
        service_error.__cause__ = error
        return service_error

    def _stop_error(self) -> ServiceError:
        msg = (
            f"{self._name} has stopped: {self._broken}. What was accepted is in it; look at the "
            "disk, and start again"
        )
        return ServiceError(msg)

    def _refusal(self, adds: list[int]) -> ServiceError | None:
        """Return why steps that add these bytes cannot be carried out now, or None."""
        if self._ballast is None or not adds:
            return None
        self._ballast.grow()
        # Each byte is written twice: to the log, and to the file.
        needed = MIN_FREE + 2 * sum(adds)
        free = self._ballast.free
        # Pages of deleted rows are used again, so only the log has to find room on the disk.
        if free >= needed or (free >= BALLAST and free + self._reusable() >= needed):
            return None
        msg = (
            f"{self._ballast.refusal}: {free // MB} MB are free where {self._path} is, and "
            f"{needed // MB} are needed"
        )
        return ServiceError(msg)

    def _reusable(self) -> int:
        """Return the bytes of the file's free pages."""
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
            return  # the next step meets the same error, and reports it
        if self._ballast is not None:
            self._ballast.grow()
