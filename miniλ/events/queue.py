"""The event queue: accepted asynchronous events on disk, until each one's end is written.

Rule 1: an accepted event is on disk, and stays there until its end is written (in a state directory
that is kept): after a crash at any moment it runs again.

Rule 2: that an event runs is written before it runs. An event that is marked as running when the
queue is opened was running when the supervisor died, and counts a crash.

Rule 3: damage on disk is noticed, reported, and confined: a damaged file is moved aside and its
readable rows are kept (see `recovery`); a damaged event becomes a record, and does not run.

Times are seconds of CLOCK_BOOTTIME, which no calendar change moves; they mean nothing in another
boot, so the file has the boot's id, and opening the queue moves them into this boot.
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
from miniλ.store.writer import MIN_FREE, Ballast, Writer
from miniλ.worker.equipment import NO_CONTEXT, InvocationContext

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# The newest records that are kept; older ones are dropped.
MAX_RECORDS = 1000

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class AsyncEvent(NamedTuple):
    """An asynchronous event: `payload` is JSON, `context` what its caller sent beside it."""

    request_id: str
    function: str
    qualifier: str
    payload: bytes
    context: InvocationContext = NO_CONTEXT

    @property
    def columns(self) -> tuple[str | None, ...]:
        """Its texts, in the order of the table."""
        context = self.context
        texts = context.client_context, context.identity, context.trace_id, context.arn
        return (self.request_id, self.function, self.qualifier, *texts)


class QueuedEvent(NamedTuple):
    """An event that is claimed to run.

    `accepted` is in seconds of `now()`. `attempts` counts failures of its function, `refusals` the
    refusals since the last attempt (no concurrency, or an error of miniλ), `crashes` the
    supervisors that died while it ran.
    """

    number: int
    event: AsyncEvent
    accepted: float
    attempts: int
    refusals: int
    crashes: int


class Record(NamedTuple):
    """What is kept of an ended event for a target that cannot be reached from here.

    `document` is JSON, `target` an ARN or ""; `written` is in seconds since 1970.
    """

    request_id: str
    target: str
    document: str
    why: str
    written: float = 0.0


class PendingEvents(msgspec.Struct, frozen=True):
    """The events of one function that have not ended: how many wait, run, and have failed before.

    `next_seconds` says when the next waiting one is due, 0 for now.
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
        """Open or make the queue, which reads all of it: best in a thread. Raises `ServiceError`.

        A damaged file is moved aside and its readable events are kept: `damage` says so.
        """
        self.path = path
        self.durable = durable
        self.damage = ""
        # Number, function and due time of every event at opening; the reader takes the list away.
        self.backlog: list[tuple[int, str, float]] = []
        self._sql = database.statements("miniλ.events", "queue.sql")
        # A recovered file that is whole, and not yet in the damaged one's place. Its name stays: a
        # supervisor of another version may have written it and died before `_swap`.
        self._recovered = path.with_name(f"{path.name}.salvaged")
        ballast = Ballast(path, "The event cannot be queued") if durable else None
        try:
            try:
                self._database = self._open()
            except sqlite3.OperationalError:
                if ballast is None or ballast.free >= MIN_FREE:
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
        if self._recovered.exists():
            aside = self._swap()
            self.damage = (
                f"The event queue was damaged and is {aside} now; what could be read is kept"
            )
        with contextlib.ExitStack() as undo:
            try:
                connection = undo.enter_context(contextlib.closing(self._connect()))
                why = str(connection.execute("PRAGMA quick_check").fetchone()[0])
                if why == "ok":
                    self._begin(connection)
                    undo.pop_all()
                    return connection
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                    raise  # of the disk, or of file permissions: the content may be sound
                why = str(exc)
            except sqlite3.DatabaseError as exc:
                why = str(exc)
        with contextlib.ExitStack() as undo:
            connection = undo.enter_context(contextlib.closing(self._recover(why)))
            self._begin(connection)
            undo.pop_all()
            return connection

    def _connect(self) -> sqlite3.Connection:
        connection = database.connect(self.path, self._sql, durable=self.durable)
        # An ended event's pages are not overwritten with zeros: that would write each event twice.
        connection.execute("PRAGMA secure_delete=OFF")
        connection.text_factory = _text
        return connection

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Move times into this boot, and count a crash for each event that was running."""
        # Without an id every opening counts as another boot: ages then go by the calendar.
        boot = _boot_id() or os.urandom(16).hex()
        times = {"now": now(), "wall": time.time()}
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if connection.execute(self._sql["boot"]).fetchone()[0] != boot:
                connection.execute(self._sql["move to this boot"], times)
                connection.execute(self._sql["write boot"], (boot,))
            connection.execute(self._sql["end the last life"], times)
        self.backlog = connection.execute(self._sql["all"]).fetchall()

    def _recover(self, why: str) -> sqlite3.Connection:
        """Copy the readable rows of a damaged file into a new one, and swap the two.

        The damaged file stays in place until the new one is whole: an interrupted recovery begins
        again.
        """
        new = self.path.with_name(f"{self.path.name}.new")
        _unlink(new)
        kept = 0
        connection = database.connect(new, self._sql, durable=self.durable)
        with contextlib.closing(connection):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for row in recovery.rows(str(self.path), new, self._sql["recover"]):
                    # A damaged value may be of another type than its column.
                    with contextlib.suppress(sqlite3.IntegrityError):
                        kept += connection.execute(self._sql["recovered"], row).rowcount
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _unlink(new, "-wal", "-shm")
        os.rename(new, self._recovered)
        aside = self._swap()
        self.damage = (
            f"The event queue was damaged ({why}) and is {aside} now; "
            f"{kept} events could be read and are kept"
        )
        return self._connect()

    def _swap(self) -> str:
        """Put the recovered file in the damaged one's place; return where that one is now."""
        aside = f"{self.path}.corrupt-{time.time_ns()}"
        for end in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                os.link(f"{self.path}{end}", f"{aside}{end}")
        _unlink(self.path, "-wal", "-shm")
        os.replace(self._recovered, self.path)
        return aside

    # Steps

    async def add(self, *events: AsyncEvent, running: bool = False) -> list[int]:
        """Accept events, due now; return their numbers, in order, when they are on disk.

        `running` claims them in the same transaction. Raises `ServiceError`, also if the disk is
        about to be full: then none is accepted.
        """
        size = sum(len(event.payload) for event in events)
        step = self._add(events, running=running)
        return await self._writer.run(step, adds=size)  # type: ignore[no-any-return]

    def _add(
        self, events: Iterable[AsyncEvent], *, running: bool = False
    ) -> Callable[[sqlite3.Connection], list[int]]:
        wall, since = time.time(), now()

        def add(connection: sqlite3.Connection) -> list[int]:
            numbers = []
            for event in events:
                columns = (*event.columns, event.payload, _checksum(event))
                row = (*columns, wall, since, since, running)
                cursor = connection.execute(self._sql["add"], row)
                numbers.append(cursor.lastrowid or 0)
            return numbers

        return add

    async def claim(self, numbers: list[int]) -> list[QueuedEvent]:
        """Write that these events run, and return them.

        An event whose checksum does not match is removed, and kept as a record.
        """

        def claim(connection: sqlite3.Connection) -> list[QueuedEvent]:
            claimed = []
            for number in numbers:
                row = connection.execute(self._sql["claim"], (number,)).fetchone()
                if row is None:
                    continue
                request_id, function, qualifier, client_context, identity, trace_id, arn = row[:7]
                payload, checksum, *state = row[7:]
                context = InvocationContext(
                    client_context=client_context, identity=identity, trace_id=trace_id, arn=arn
                )
                event = AsyncEvent(request_id, function, qualifier, payload, context)
                if _checksum(event) == checksum:
                    claimed.append(QueuedEvent(number, event, *state))
                else:
                    why = "it was damaged on disk"
                    self._end(connection, number, [Record(request_id, "", "null", why)])
            return claimed

        return await self._writer.run(claim)  # type: ignore[no-any-return]

    async def put_back(self, number: int, due: float, attempts: int, refusals: int) -> None:
        """Let an event run again, at that time."""
        row = (due, attempts, refusals, number)
        await self._writer.run(
            lambda connection: connection.execute(self._sql["put back"], row), is_patient=True
        )

    async def remove(self, number: int, *outcomes: AsyncEvent | Record) -> list[int]:
        """Write that an event has ended, and in the same transaction what comes of it.

        Returns the numbers of the events that come of it.
        """
        events = [each for each in outcomes if isinstance(each, AsyncEvent)]
        records = [each for each in outcomes if isinstance(each, Record)]
        add = self._add(events)

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
            connection.execute(self._sql["drop old records"], (MAX_RECORDS,))

    async def records(self) -> list[Record]:
        """Return the records for targets that could not be reached, oldest first."""
        rows = await self._writer.run(
            lambda connection: connection.execute(self._sql["records"]).fetchall()
        )
        return [Record(*row) for row in rows]

    @property
    def has_stopped(self) -> bool:
        """Whether a disk error has ended the queue until it is opened again."""
        return self._writer.has_stopped

    def abandon(self) -> None:
        """Close the file of a queue that has not been used."""
        self._database.close()

    async def close(self) -> None:
        """Close the file when all steps are committed."""
        await self._writer.close()


def read(path: Path) -> tuple[list[PendingEvents], list[Record]]:
    """Return the pending events by function, and the records, of a queue that may be open.

    Nothing is changed. Raises `ServiceError`.
    """
    sql = database.statements("miniλ.events", "queue.sql")
    try:
        with database.reading(path) as connection:
            connection.execute("BEGIN")  # one state of the file for all three queries
            boot = connection.execute(sql["boot"]).fetchone()[0]
            rows = connection.execute(sql["pending"]).fetchall()
            records = [Record(*row) for row in connection.execute(sql["records"])]
    except sqlite3.Error as exc:
        msg = f"The event queue {path} cannot be read: {exc}"
        raise ServiceError(msg) from exc
    this_boot = _boot_id()
    pending = []
    for function, waiting, running, failed, due, due_wall in rows:
        if not this_boot:
            seconds = due_wall - time.time()
        elif boot == this_boot:
            seconds = due - now()
        else:
            # No supervisor has opened it since: opening makes all of another boot's events due.
            seconds = 0.0
        pending.append(PendingEvents(function, waiting, running, failed, max(0.0, seconds)))
    return pending, records


def _boot_id() -> str:
    """Return the id of this boot of the machine, "" if the kernel has none."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _unlink(path: Path, *ends: str) -> None:
    """Remove a database with its log and index, or only these ends of it."""
    for end in ends or ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{end}")


def _checksum(event: AsyncEvent) -> int:
    """Return the checksum of an event's row, by which `claim` notices damage."""
    texts = "\0".join(f"{each}" for each in event.columns)
    return zlib.crc32(texts.encode(errors="replace"), zlib.crc32(event.payload))


def _text(stored: bytes) -> str:
    """Return a text as it is on disk, damaged or not: `claim` compares the checksum."""
    return stored.decode(errors="replace")
