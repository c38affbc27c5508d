"""This module is the event queue: asynchronous events that were accepted and are not over, on disk.

Theory of operation: work comes as steps, and one thread carries out all that have come meanwhile in
one transaction (group commit), so that a slow disk makes groups larger and not callers slower. A
step's future is done when its transaction is committed, and never before.

Rule 1: what is accepted is on disk, and stays there until its end is written: a crash at any moment
runs an event again rather than not at all.

Rule 2: that an event runs is written before it runs. Who finds it so, after a crash, counts it.

Rule 3: an error of the disk that is not its being full ends the queue (fail-stop): after a failed
fsync nobody knows what is on disk, and asking again would say that all is well.

Rule 4: a full disk refuses what is new, and never an end: BALLAST is given back to the file system
first, since also a DELETE needs room (https://www.sqlite.org/wal.html: it is appended to the log).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from miniλ import database, salvage
from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.model import MB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BALLAST = 4 * MB
# Below so much free space nothing is accepted: the ballast has to find room again.
LEAST_FREE = 2 * BALLAST
# Records that nobody could be given are kept, the newest of them.
MOST_RECORDS = 10_000


BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Step: TypeAlias = "Callable[[sqlite3.Connection], Any]"


class Draft(NamedTuple):
    """An event as it is accepted. `payload` is JSON; `arn` is what it was asked for by, if said."""

    request_id: str
    function: str
    qualifier: str
    payload: bytes
    client_context: str | None = None
    identity: str | None = None
    trace_id: str | None = None
    arn: str | None = None


class Event(NamedTuple):
    """An event that runs.

    `accepted` is in seconds of `now()`; `attempts` have failed by its function's fault; so many
    times in a row it was refused (concurrency, or a fault of ours); so many lives of a supervisor
    ended while it ran.
    """

    number: int
    draft: Draft
    accepted: float
    attempts: int
    refusals: int
    crashes: int


class Record(NamedTuple):
    """What is kept of an event that is over, for a target that nobody here can reach.

    `document` is JSON, `target` an ARN or ""; `written` is in seconds since 1970.
    """

    request_id: str
    target: str
    document: str
    why: str
    written: float = 0.0


class Left(msgspec.Struct, frozen=True):
    """The events of one function that are not over: so many wait, run, and have failed before.

    The next one is due in so many seconds.
    """

    function: str
    waiting: int
    running: int
    failed: int
    next_seconds: float


def now() -> float:
    """Return the seconds since this machine was started, sleep included: clock_gettime(2)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class EventQueue:
    """The events of one state directory."""

    def __init__(self, path: Path, *, durable: bool) -> None:
        """Open or make it, which reads all of it: best in a thread. Raises `ServiceError`.

        What cannot be read is moved aside, and what can be of it is kept: `lost` says so.
        """
        self.path = path
        self.lost = ""
        self._sql = database.statements("event_queue.sql")
        self.durable = durable
        try:
            self._database = self._open()
        except (sqlite3.Error, OSError, InvalidParameterValue) as exc:
            msg = f"The event queue {path} cannot be read: {exc}"
            raise ServiceError(msg) from exc
        # Number, function and due time of every event that was there, as they came.
        self.found: list[tuple[int, str, float]] = self._database.execute(
            self._sql["all"]
        ).fetchall()
        self._ballast = path.with_suffix(".ballast") if durable else None
        self._grow_ballast()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="minilambda-events")
        # Not begun yet: events that come in, and all other steps.
        self._adding: list[tuple[Step, asyncio.Future[Any]]] = []
        self._others: list[tuple[Step, asyncio.Future[Any]]] = []
        self._committing: asyncio.Future[Any] | None = None
        self._broken = ""

    # Open

    def _open(self) -> sqlite3.Connection:
        with contextlib.ExitStack() as undo:
            try:
                opened = undo.enter_context(contextlib.closing(self._connect()))
                found = str(opened.execute("PRAGMA quick_check").fetchone()[0])
                if found == "ok":
                    self._begin(opened)
                    undo.pop_all()
                    return opened
            except sqlite3.OperationalError:
                raise  # of the disk, or of its rights: what is in it may be well
            except sqlite3.DatabaseError as exc:
                found = str(exc)
        opened = self._salvage(found)
        self._begin(opened)
        return opened

    def _connect(self) -> sqlite3.Connection:
        return database.connect(self.path, self._sql, durable=self.durable)

    def _begin(self, opened: sqlite3.Connection) -> None:
        """Move times into this boot, and count who was running when the last life ended."""
        boot = BOOT_ID.read_text(encoding="ascii").strip()
        times = {"now": now(), "wall": time.time()}
        with opened:
            opened.execute("BEGIN IMMEDIATE")
            if opened.execute(self._sql["boot"]).fetchone()[0] != boot:
                opened.execute(self._sql["move to this boot"], times)
                opened.execute(self._sql["write boot"], (boot,))
            opened.execute(self._sql["end the last life"], times)

    def _salvage(self, why: str) -> sqlite3.Connection:
        """Move the file aside, and put what can be read of it into a new one."""
        aside = f"{self.path}.corrupt-{time.time_ns()}"
        for end in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{self.path}{end}", f"{aside}{end}")
        opened = self._connect()
        opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = salvage.rows(aside, self.path, self._sql["salvage"])
        with opened:
            opened.executemany(self._sql["salvaged"], rows)
        self.lost = (
            f"The event queue was damaged ({why}) and is {aside} now; "
            f"{len(rows)} events could be read and are kept"
        )
        return opened

    # Steps

    async def add(self, *drafts: Draft, running: bool = False) -> list[int]:
        """Accept events, due now; return their numbers, in order. They are on disk then.

        `running`: they run at once, as if they were claimed in the same moment. Raises
        `ServiceError`, also where the disk is about to be full: then none is accepted.
        """
        step = self._add(drafts, running=running)
        return await self._step(step, self._adding)  # type: ignore[no-any-return]

    def _add(self, drafts: Iterable[Draft], *, running: bool = False) -> Step:
        wall, since = time.time(), now()

        def add(connection: sqlite3.Connection) -> list[int]:
            numbers = []
            for draft in drafts:
                name, qualifier, payload = draft.function, draft.qualifier, draft.payload
                row = (draft.request_id, name, qualifier, payload, zlib.crc32(payload), *draft[4:])
                cursor = connection.execute(self._sql["add"], (*row, wall, since, since, running))
                numbers.append(cursor.lastrowid or 0)
            return numbers

        return add

    async def claim(self, numbers: list[int]) -> list[Event]:
        """Write down that these run, and return them.

        One whose payload is not what it was is removed, and is a record.
        """

        def claim(connection: sqlite3.Connection) -> list[Event]:
            events = []
            for number in numbers:
                row = connection.execute(self._sql["claim"], (number,)).fetchone()
                if row is None:
                    continue
                _, request_id, function, qualifier, payload, checksum, *said = row
                draft = Draft(request_id, function, qualifier, payload, *said[:4])
                if zlib.crc32(payload) == checksum:
                    events.append(Event(number, draft, *said[4:]))
                else:
                    why = "the payload was damaged on disk"
                    self._end(connection, number, [Record(request_id, "", "null", why)])
            return events

        return await self._step(claim)  # type: ignore[no-any-return]

    async def put_back(self, number: int, due: float, attempts: int, refusals: int) -> None:
        """Let an event run again, at that time."""
        row = (due, attempts, refusals, number)
        await self._step(lambda connection: connection.execute(self._sql["put back"], row))

    async def remove(self, number: int, *then: Draft | Record) -> list[int]:
        """Write that an event is over, and in the same transaction what comes of it.

        Returns the numbers of the events that come of it.
        """
        drafts = [each for each in then if isinstance(each, Draft)]
        records = [each for each in then if isinstance(each, Record)]
        add = self._add(drafts)

        def remove(connection: sqlite3.Connection) -> list[int]:
            self._end(connection, number, records)
            return add(connection)  # type: ignore[no-any-return]

        return await self._step(remove)  # type: ignore[no-any-return]

    def _end(self, connection: sqlite3.Connection, number: int, records: list[Record]) -> None:
        connection.execute(self._sql["remove"], (number,))
        for record in records:
            row = (*record[:4], time.time())
            connection.execute(self._sql["write record"], row)
        if records:
            connection.execute(self._sql["forget records"], (MOST_RECORDS,))

    async def records(self) -> list[Record]:
        """Return the records that nobody could be given, oldest first."""
        rows = await self._step(
            lambda connection: connection.execute(self._sql["records"]).fetchall()
        )
        return [Record(*row) for row in rows]

    # Group commit

    def _step(
        self, step: Step, queue: list[tuple[Step, asyncio.Future[Any]]] | None = None
    ) -> asyncio.Future[Any]:
        """Return the future of a step, which is in the next transaction."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        (self._others if queue is None else queue).append((step, future))
        if self._committing is None:
            self._commit_next()
        return future

    def _commit_next(self) -> None:
        """Hand all that came meanwhile to the thread."""
        others, self._others = self._others, []
        adding, self._adding = self._adding, []
        loop = asyncio.get_running_loop()
        committing = loop.run_in_executor(
            self._thread,
            self._commit,
            [step for step, _ in others],
            [step for step, _ in adding],
        )

        def committed(done: asyncio.Future[list[Any]]) -> None:
            self._committing = None
            for (_, future), result in zip(others + adding, done.result(), strict=True):
                if future.cancelled():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                    future.exception()  # who accepted it may have gone
                else:
                    future.set_result(result)
            if self._others or self._adding:
                self._commit_next()

        self._committing = committing
        committing.add_done_callback(committed)

    def _commit(self, others: list[Step], adding: list[Step]) -> list[Any]:
        """Carry out steps; return a result or an error for each. On the thread."""
        refusal = self._refusal() if adding else None
        if refusal is None:
            done = self._transact(others + adding)
            if not isinstance(done, DiskFull):
                return done if isinstance(done, list) else [done] * len(others + adding)
            refusal = done
        done = self._transact(others)
        if isinstance(done, DiskFull) and self._drop_ballast():
            done = self._transact(others)
        return (done if isinstance(done, list) else [done] * len(others)) + [refusal] * len(adding)

    def _transact(self, steps: list[Step]) -> list[Any] | ServiceError:
        """Carry out steps in one transaction; return their results, or why there are none."""
        if not self._broken:
            try:
                with self._database:
                    self._database.execute("BEGIN IMMEDIATE")
                    return [step(self._database) for step in steps]
            except sqlite3.Error as exc:
                if getattr(exc, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                    return DiskFull(f"The event queue {self.path} cannot be written: {exc}")
                self._broken = str(exc)
        msg = (
            f"The event queue {self.path} has stopped: {self._broken}. What was accepted is in it; "
            "look at the disk, and start again"
        )
        return ServiceError(msg)

    # Room

    def _refusal(self) -> ServiceError | None:
        """Return why nothing can be accepted now, or None."""
        if self._ballast is None:
            return None
        free = _free(self.path)
        if free >= LEAST_FREE:
            self._grow_ballast()
            return None
        msg = (
            f"The event cannot be queued: {free // MB} MB are free where {self.path} is, and "
            f"{LEAST_FREE // MB} are needed"
        )
        return ServiceError(msg)

    def _grow_ballast(self) -> None:
        if self._ballast is None or self._ballast.exists() or _free(self.path) < LEAST_FREE:
            return
        try:
            with open(self._ballast, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST)
        except OSError:
            self._ballast.unlink(missing_ok=True)  # there is none then: full is full

    def _drop_ballast(self) -> bool:
        """Give the ballast's room to the file system; return whether there was any."""
        if self._ballast is None or not self._ballast.exists():
            return False
        self._ballast.unlink()
        return True

    async def close(self) -> None:
        """Close the file when all steps are over."""
        while self._committing is not None:
            await asyncio.wait([self._committing])
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._database.close)
        self._thread.shutdown()


def read(path: Path) -> tuple[list[Left], list[Record]]:
    """Return what is in a queue that another process may have open: events by function, records.

    Raises `ServiceError`.
    """
    sql = database.statements("event_queue.sql")
    try:
        with database.reading(path) as opened:
            rows = opened.execute(sql["left"]).fetchall()
            records = [Record(*row) for row in opened.execute(sql["records"])]
    except sqlite3.Error as exc:
        msg = f"The event queue {path} cannot be read: {exc}"
        raise ServiceError(msg) from exc
    left = [
        Left(function, waiting, running, failed, max(0.0, due - now()))
        for function, waiting, running, failed, due in rows
    ]
    return left, records


class DiskFull(ServiceError):
    """There is no room on the disk; what was there before is there still."""


def _free(path: Path) -> int:
    found = os.statvfs(path.parent)
    return found.f_bavail * found.f_frsize
