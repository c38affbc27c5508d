"""This module is the event queue: asynchronous events that were accepted and are not over, on disk.

Rule 1: what is accepted is on disk, and stays there until its end is written: a crash at any moment
runs an event again rather than not at all.

Rule 2: that an event runs is written before it runs. Who finds it so, after a crash, counts it.

Rule 3: what was damaged on disk is noticed, is nobody else's trouble, and is told: a damaged file
is moved aside and what can be read of it kept; a damaged event is a record, and does not run.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.events import recovery
from miniλ.store import database
from miniλ.store.writer import LEAST_FREE, Ballast, Writer
from miniλ.worker.equipment import NO_CONTEXT, InvocationContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Records that nobody could be given are kept, the newest of them.
MOST_RECORDS = 1000

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Draft(NamedTuple):
    """An event as it is accepted: `payload` is JSON, `context` what its caller sent beside it."""

    request_id: str
    function: str
    qualifier: str
    payload: bytes
    context: InvocationContext = NO_CONTEXT

    @property
    def columns(self) -> tuple[str | None, ...]:
        """Its texts, in the order of the table."""
        context = self.context
        beside = context.client_context, context.identity, context.trace_id, context.arn
        return (self.request_id, self.function, self.qualifier, *beside)


class QueuedEvent(NamedTuple):
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


class Backlog(msgspec.Struct, frozen=True):
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
        self.durable = durable
        self.lost = ""
        # Number, function and due time of every event that was there, as they came.
        self.found: list[tuple[int, str, float]] = []
        self._sql = database.statements("miniλ.events", "queue.sql")
        # Whole, and on its way to be the queue.
        self._salvaged = path.with_name(f"{path.name}.salvaged")
        ballast = Ballast(path, "The event cannot be queued") if durable else None
        try:
            try:
                self._database = self._open()
            except sqlite3.OperationalError:
                if ballast is None or ballast.free >= LEAST_FREE:
                    raise
                ballast.drop()
                self._database = self._open()
        except (sqlite3.Error, OSError, InvalidParameterValue) as exc:
            msg = f"The event queue {path} cannot be read: {exc}"
            raise ServiceError(msg) from exc
        if ballast is not None:
            ballast.grow()
        self._writer = Writer(
            self._database, path, f"The event queue {path}", ballast=ballast, fail_stop=True
        )

    # Open

    def _open(self) -> sqlite3.Connection:
        if self._salvaged.exists():
            aside = self._swap()
            self.lost = (
                f"The event queue was damaged and is {aside} now; what could be read is kept"
            )
        with contextlib.ExitStack() as undo:
            try:
                opened = undo.enter_context(contextlib.closing(self._connect()))
                why = str(opened.execute("PRAGMA quick_check").fetchone()[0])
                if why == "ok":
                    self._begin(opened)
                    undo.pop_all()
                    return opened
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise  # of the disk, or of its rights: what is in it may be well
                why = str(exc)
            except sqlite3.DatabaseError as exc:
                why = str(exc)
        with contextlib.ExitStack() as undo:
            opened = undo.enter_context(contextlib.closing(self._salvage(why)))
            self._begin(opened)
            undo.pop_all()
            return opened

    def _connect(self) -> sqlite3.Connection:
        opened = database.connect(self.path, self._sql, durable=self.durable)
        # An event that is over is written once, when it comes, and not again as zeros.
        opened.execute("PRAGMA secure_delete=OFF")
        opened.text_factory = _text
        return opened

    def _begin(self, opened: sqlite3.Connection) -> None:
        """Move times into this boot, and count who was running when the last life ended."""
        try:
            boot = BOOT_ID.read_text(encoding="ascii").strip()
        except OSError:
            boot = os.urandom(16).hex()  # nobody knows: then the calendar counts
        times = {"now": now(), "wall": time.time()}
        with opened:
            opened.execute("BEGIN IMMEDIATE")
            if opened.execute(self._sql["boot"]).fetchone()[0] != boot:
                opened.execute(self._sql["move to this boot"], times)
                opened.execute(self._sql["write boot"], (boot,))
            opened.execute(self._sql["end the last life"], times)
        self.found = opened.execute(self._sql["all"]).fetchall()

    def _salvage(self, why: str) -> sqlite3.Connection:
        """Put what can be read of a damaged file into a new one, and that in its place.

        The damaged one stays where it is until the new one is whole: who is interrupted begins
        again.
        """
        new = self.path.with_name(f"{self.path.name}.new")
        _unlink(new)
        kept = 0
        opened = database.connect(new, self._sql, durable=self.durable)
        with contextlib.closing(opened):
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with opened:
                opened.execute("BEGIN IMMEDIATE")
                for row in recovery.rows(str(self.path), new, self._sql["salvage"]):
                    with contextlib.suppress(sqlite3.IntegrityError):  # of another type than it was
                        kept += opened.execute(self._sql["salvaged"], row).rowcount
            opened.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _unlink(new, "-wal", "-shm")
        os.rename(new, self._salvaged)
        aside = self._swap()
        self.lost = (
            f"The event queue was damaged ({why}) and is {aside} now; "
            f"{kept} events could be read and are kept"
        )
        return self._connect()

    def _swap(self) -> str:
        """Put what was salvaged in place of what was damaged; return where that is now."""
        aside = f"{self.path}.corrupt-{time.time_ns()}"
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.link(f"{self.path}{end}", f"{aside}{end}")
        _unlink(self.path, "-wal", "-shm")
        os.replace(self._salvaged, self.path)
        return aside

    # Steps

    async def add(self, *drafts: Draft, running: bool = False) -> list[int]:
        """Accept events, due now; return their numbers, in order. They are on disk then.

        `running`: they run at once, as if they were claimed in the same moment. Raises
        `ServiceError`, also where the disk is about to be full: then none is accepted.
        """
        size = sum(len(draft.payload) for draft in drafts)
        step = self._add(drafts, running=running)
        return await self._writer.run(step, adds=size)  # type: ignore[no-any-return]

    def _add(
        self, drafts: Iterable[Draft], *, running: bool = False
    ) -> Callable[[sqlite3.Connection], list[int]]:
        wall, since = time.time(), now()

        def add(connection: sqlite3.Connection) -> list[int]:
            numbers = []
            for draft in drafts:
                columns = (*draft.columns, draft.payload, _checksum(draft))
                row = (*columns, wall, since, since, running)
                cursor = connection.execute(self._sql["add"], row)
                numbers.append(cursor.lastrowid or 0)
            return numbers

        return add

    async def claim(self, numbers: list[int]) -> list[QueuedEvent]:
        """Write down that these run, and return them.

        One that is not what it was is removed, and is a record.
        """

        def claim(connection: sqlite3.Connection) -> list[QueuedEvent]:
            events = []
            for number in numbers:
                row = connection.execute(self._sql["claim"], (number,)).fetchone()
                if row is None:
                    continue
                request_id, function, qualifier, client_context, identity, trace_id, arn = row[:7]
                payload, checksum, *state = row[7:]
                context = InvocationContext(
                    client_context=client_context, identity=identity, trace_id=trace_id, arn=arn
                )
                draft = Draft(request_id, function, qualifier, payload, context)
                if _checksum(draft) == checksum:
                    events.append(QueuedEvent(number, draft, *state))
                else:
                    why = "it was damaged on disk"
                    self._end(connection, number, [Record(request_id, "", "null", why)])
            return events

        return await self._writer.run(claim)  # type: ignore[no-any-return]

    async def put_back(self, number: int, due: float, attempts: int, refusals: int) -> None:
        """Let an event run again, at that time."""
        row = (due, attempts, refusals, number)
        await self._writer.run(
            lambda connection: connection.execute(self._sql["put back"], row), is_patient=True
        )

    async def remove(self, number: int, *then: Draft | Record) -> list[int]:
        """Write that an event is over, and in the same transaction what comes of it.

        Returns the numbers of the events that come of it.
        """
        drafts = [each for each in then if isinstance(each, Draft)]
        records = [each for each in then if isinstance(each, Record)]
        add = self._add(drafts)

        def remove(connection: sqlite3.Connection) -> list[int]:
            self._end(connection, number, records)
            return add(connection)

        return await self._writer.run(remove, is_patient=True)  # type: ignore[no-any-return]

    def _end(self, connection: sqlite3.Connection, number: int, records: list[Record]) -> None:
        connection.execute(self._sql["remove"], (number,))
        for record in records:
            row = (*record[:4], time.time())
            connection.execute(self._sql["write record"], row)
        if records:
            connection.execute(self._sql["forget records"], (MOST_RECORDS,))

    async def records(self) -> list[Record]:
        """Return the records that nobody could be given, oldest first."""
        rows = await self._writer.run(
            lambda connection: connection.execute(self._sql["records"]).fetchall()
        )
        return [Record(*row) for row in rows]

    @property
    def has_stopped(self) -> bool:
        """Whether nothing is written any more, by a fault of the disk."""
        return self._writer.has_stopped

    def abandon(self) -> None:
        """Close the file of a queue that nobody has used."""
        self._database.close()

    async def close(self) -> None:
        """Close the file when all is written."""
        await self._writer.close()


def read(path: Path) -> tuple[list[Backlog], list[Record]]:
    """Return what is in a queue that another process may have open: events by function, records.

    Raises `ServiceError`.
    """
    sql = database.statements("miniλ.events", "queue.sql")
    try:
        with database.reading(path) as opened:
            rows = opened.execute(sql["left"]).fetchall()
            records = [Record(*row) for row in opened.execute(sql["records"])]
    except sqlite3.Error as exc:
        msg = f"The event queue {path} cannot be read: {exc}"
        raise ServiceError(msg) from exc
    left = [
        Backlog(function, waiting, running, failed, max(0.0, due - now()))
        for function, waiting, running, failed, due in rows
    ]
    return left, records


def _unlink(path: Path, *ends: str) -> None:
    """Remove a file and its log, or these ends of it."""
    for end in ends or ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{end}")


def _checksum(draft: Draft) -> int:
    """Return what is kept beside an event to know it by."""
    texts = "\0".join(f"{each}" for each in draft.columns)
    return zlib.crc32(texts.encode(errors="replace"), zlib.crc32(draft.payload))


def _text(stored: bytes) -> str:
    """Return a text as it is on disk, also a damaged one: its checksum tells."""
    return stored.decode(errors="replace")
