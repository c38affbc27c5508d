"""This module is the logbook: what functions printed, to be read after the invocation.

A function has a group, "/aws/lambda/NAME", and a worker has a stream in it, whose name the
worker knows from its environment: "YYYY/MM/DD/[$LATEST]" and its id, by the day it began.

Rule 1: `note` is on the invoke path and formats nothing. Lines are made of it when they are
written to disk or read.

Rule 2: memory is bounded, whatever the disk does. Beyond `MAX_INVOCATIONS` or `MAX_BYTES` the
oldest go, and are counted in `dropped`. What a flush has in hand comes on top, once.

Rule 3: files are touched in threads, one task at a time. Whoever waits for it may be
cancelled; the work itself is finished.

On disk a group is NAME.jsonl and, older, NAME.jsonl.1: one event a line. An invocation is in
memory or on disk, never in both: a piece that could not be written whole is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from miniλ import journal
from miniλ.errors import ResourceNotFound, ServiceError
from miniλ.model import Invoked, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from miniλ.journal import Journal

# What functions print is on disk after so long, where it is kept.
FLUSH_SECONDS = 1.0
MAX_INVOCATIONS = 10_000
MAX_BYTES = 32 * 1024 * 1024
# Workers whose stream is remembered: far more than live at once.
MAX_STREAMS = 10_000
# A file above this becomes the older one; whoever reads a group reads twice this at most.
ROTATE_BYTES = 8 * 1024 * 1024
# What one append writes, as far as invocations allow: what is taken back if it fails.
PIECE_BYTES = 1024 * 1024

PREFIX = "/aws/lambda/"
_GROUP = re.compile(PREFIX + r"([a-zA-Z0-9-_]{1,64})")
_FILE = re.compile(r"([a-zA-Z0-9-_]{1,64})\.jsonl(?:\.1)?")
# Digits of an id: the invocation's number, which begins at nanoseconds since 1970, and the line's.
_NUMBER, _LINE = 20, 8
_BEYOND_IDS: int = 10 ** (_NUMBER + _LINE)

T = TypeVar("T")


class LogEvent(msgspec.Struct, frozen=True, gc=False):
    r"""One line that was printed, as it is on disk. Times are milliseconds since 1970.

    `message` ends in "\n". `id` is made of digits, and greater the later it was noted.
    """

    timestamp: int
    ingestion: int
    stream: str
    message: str
    id: str

    @property
    def position(self) -> int:
        """Where it stands among all events of its group: by time, then by id."""
        return position(self.timestamp) + int(self.id)


class LogGroup(msgspec.Struct, frozen=True):
    """The log of one function, as far back as it is kept."""

    name: str
    created: int  # the first event's timestamp
    stored_bytes: int


class LogStream(msgspec.Struct, frozen=True):
    """The log of one worker, as far back as it is kept. Times are milliseconds since 1970."""

    name: str
    first: int
    last: int
    ingested: int


class _Noted(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a response: not its body, which may be 6 MB. Seconds since 1970.

    `day` is the stream's; nothing of this invocation is earlier than `after`.
    """

    number: int
    day: str
    after: float
    at: float
    invoked: Invoked
    printed: bytes
    init_log: bytes
    version: str


class _Worker(msgspec.Struct):
    day: str
    latest: float


class Logbook:
    """What functions printed: in memory, or in a directory that `flush` writes to."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.dropped = 0  # invocations, since the start
        self._directory = None if directory is None else Path(directory)
        self._noted: deque[_Noted] = deque()
        self._bytes = 0
        self._workers: dict[str, _Worker] = {}
        self._number = time.time_ns()
        self._alone = asyncio.Lock()

    def __repr__(self) -> str:
        where = "memory" if self._directory is None else str(self._directory)
        return (
            f"<Logbook in {where}, {len(self._noted)} invocations of {self._bytes} bytes "
            f"in memory, {self.dropped} dropped>"
        )

    @property
    def is_kept(self) -> bool:
        """Whether there is a directory, to which `flush` must be called."""
        return self._directory is not None

    def note(self, response: Response, at: float) -> None:
        """Keep what an invocation printed; it was answered `at` seconds since 1970."""
        invoked = response.invoked
        worker = self._workers.get(invoked.worker_id)
        if worker is None:
            worker = self._meet(invoked, at)
        # A clock that was set back does not turn a stream around.
        after = worker.latest
        if at < after:  # noqa: PLR1730 - max() is a call, and this is the invoke path
            at = after
        worker.latest = at
        self._number += 1
        self._noted.append(
            _Noted(
                self._number,
                worker.day,
                after,
                at,
                invoked,
                response.printed,
                response.init_log,
                response.executed_version,
            )
        )
        self._bytes += len(response.printed) + len(response.init_log)
        if self._bytes > MAX_BYTES or len(self._noted) > MAX_INVOCATIONS:
            self._trim()

    def _meet(self, invoked: Invoked, at: float) -> _Worker:
        began = at - invoked.seconds - (invoked.init_seconds or 0.0)
        day = time.strftime("%Y/%m/%d", time.gmtime(began))
        worker = self._workers[invoked.worker_id] = _Worker(day, 0.0)
        if len(self._workers) > MAX_STREAMS:
            del self._workers[next(iter(self._workers))]
        return worker

    def _trim(self) -> None:
        while self._bytes > MAX_BYTES or len(self._noted) > MAX_INVOCATIONS:
            oldest = self._noted.popleft()
            self._bytes -= len(oldest.printed) + len(oldest.init_log)
            self.dropped += 1

    @contextlib.asynccontextmanager
    async def flushing(self, facts: Journal) -> AsyncIterator[None]:
        """Flush once a second meanwhile, and at the end; what the disk does not take is told."""
        if self._directory is None:
            yield
            return
        flushing = asyncio.create_task(self._flush_on(facts))
        try:
            yield
        finally:
            flushing.cancel()
            await asyncio.gather(flushing, return_exceptions=True)
            await self._flush_or_tell(facts)

    async def _flush_on(self, facts: Journal) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush_or_tell(facts)

    async def _flush_or_tell(self, facts: Journal) -> None:
        try:
            await self.flush()
        except ServiceError as exc:
            facts.record(journal.Trouble(what=f"logs are not written: {exc}"))

    async def flush(self) -> None:
        """Write to the directory what is not written yet, and nothing without a directory.

        Raises `ServiceError` if the disk does not take it: it is kept, and tried again with
        the next flush.
        """
        await self._exclusively(self._write)

    async def groups(self) -> list[LogGroup]:
        """Return the groups that have events, by name."""
        return await self._reading(lambda noted: _groups(self._directory, noted))

    async def streams(self, group: str) -> list[LogStream]:
        """Return the streams of a group, by name. Raises `ResourceNotFound`."""
        return await self._reading(lambda noted: _streams(self._read(group, noted)))

    async def events(
        self,
        group: str,
        *,
        streams: Iterable[str] | None = None,
        prefix: str = "",
        start: int | None = None,
        end: int | None = None,
        matches: Callable[[str], bool] | None = None,
    ) -> list[LogEvent]:
        """Return a group's events by `LogEvent.position`: those of `streams`, if they are given.

        And those whose stream begins with `prefix`, whose time is from `start` to before
        `end` in milliseconds, and whose message `matches`. Raises `ResourceNotFound` for a group
        or a stream that is not there.
        """
        wanted = None if streams is None else frozenset(streams)

        def choose(noted: list[_Noted]) -> list[LogEvent]:
            found = self._read(group, noted)
            if wanted is not None and not wanted <= {event.stream for event in found}:
                msg = "The specified log stream does not exist."
                raise ResourceNotFound(msg)
            return [
                event
                for event in found
                if (wanted is None or event.stream in wanted)
                and event.stream.startswith(prefix)
                and (start is None or event.timestamp >= start)
                and (end is None or event.timestamp < end)
                and (matches is None or matches(event.message))
            ]

        return await self._reading(choose)

    # One task at a time

    async def _exclusively(self, work: Callable[[], Awaitable[T]]) -> T:
        async def alone() -> T:
            async with self._alone:
                return await work()

        # A thread cannot be cancelled: who comes next waits until it is done.
        return await asyncio.shield(asyncio.create_task(alone()))

    async def _reading(self, look: Callable[[list[_Noted]], T]) -> T:
        async def work() -> T:
            # A disk that takes nothing is `flush`'s to report: what it holds can be read,
            # and what it did not take is still here.
            with contextlib.suppress(ServiceError):
                await self._write()
            try:
                return await asyncio.to_thread(look, list(self._noted))
            except OSError as exc:
                msg = f"Logs in {self._directory} could not be read: {exc}"
                raise ServiceError(msg) from exc

        return await self._exclusively(work)

    async def _write(self) -> None:
        if self._directory is None or not self._noted:
            return
        taken, self._noted, self._bytes = self._noted, deque(), 0
        left, error = await asyncio.to_thread(_append, self._directory, taken)
        if error is not None:
            self._noted.extendleft(reversed(left))
            self._bytes += sum(len(noted.printed) + len(noted.init_log) for noted in left)
            self._trim()
            msg = (
                f"Logs could not be written to {self._directory}: {error}. They are kept in "
                "memory, the newest of them, until there is room"
            )
            raise ServiceError(msg) from error

    def _read(self, group: str, noted: list[_Noted]) -> list[LogEvent]:
        """Return all events of a group, in order. In a thread."""
        found: list[LogEvent] = []
        named = _GROUP.fullmatch(group)
        if named is not None:
            function = named[1]
            if self._directory is not None:
                found = [
                    event for path in _paths(self._directory, function) for event in _load(path)
                ]
            for one in noted:
                if one.invoked.function == function:
                    found += _events(one)
        if not found:
            msg = "The specified log group does not exist."
            raise ResourceNotFound(msg)
        found.sort(key=lambda event: (event.timestamp, event.id))
        return found


def position(timestamp: int) -> int:
    """Return where events of this millisecond begin: no `LogEvent.position` of it is smaller."""
    return timestamp * _BEYOND_IDS


# Invocations to events


def _events(noted: _Noted) -> Iterator[LogEvent]:
    r"""Yield the lines of an invocation. Only "\n" ends one: a traceback is folded with "\r".

    We know when it started and ended, not when it printed: START and what follows it have
    the time of the start, END and REPORT that of the end.
    """
    invoked, init = noted.invoked, noted.init_log
    text = Response(b"", invoked, noted.printed, init, noted.version).log
    lines = text.split("\n")[:-1]
    of_init = init.count(b"\n") + (not init.endswith(b"\n") if init else 0)
    started = noted.at - invoked.seconds
    times = [
        _milliseconds(max(noted.after, seconds))
        for seconds in (started - (invoked.init_seconds or 0.0), started, noted.at)
    ]
    stream = f"{noted.day}/[{noted.version}]{invoked.worker_id}"
    for line, message in enumerate(lines):
        timestamp = times[0 if line < of_init else 1 if line < len(lines) - 2 else 2]
        id_ = f"{noted.number:0{_NUMBER}d}{line:0{_LINE}d}"
        yield LogEvent(timestamp, times[2], stream, message + "\n", id_)


def _milliseconds(seconds: float) -> int:
    return max(0, int(seconds * 1000))


def _streams(events: list[LogEvent]) -> list[LogStream]:
    by_name: defaultdict[str, list[LogEvent]] = defaultdict(list)
    for event in events:
        by_name[event.stream].append(event)
    return [
        LogStream(name, of[0].timestamp, of[-1].timestamp, of[-1].ingestion)
        for name, of in sorted(by_name.items())
    ]


# Files


def _append(directory: Path, noted: Iterable[_Noted]) -> tuple[list[_Noted], OSError | None]:
    """Append invocations to the files of their functions; return what could not be, and why."""
    error: OSError | None = None
    left: list[_Noted] = []
    by_function: defaultdict[str, list[_Noted]] = defaultdict(list)
    for one in noted:
        by_function[one.invoked.function].append(one)
    for function, mine in by_function.items():
        written = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for count, piece in _pieces(mine):
                _append_piece(directory / f"{function}.jsonl", piece)
                written += count
        except OSError as exc:
            error = exc
            left += mine[written:]
    left.sort(key=lambda one: one.number)
    return left, error


def _pieces(noted: list[_Noted]) -> Iterator[tuple[int, bytes]]:
    """Yield how many invocations a piece has, and its lines."""
    count, lines = 0, bytearray()
    for one in noted:
        for event in _events(one):
            lines += msgspec.json.encode(event) + b"\n"
        count += 1
        if len(lines) >= PIECE_BYTES:
            yield count, bytes(lines)
            count, lines = 0, bytearray()
    if count:
        yield count, bytes(lines)


def _append_piece(path: Path, piece: bytes) -> None:
    """Append all of a piece or, raising OSError, nothing."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > ROTATE_BYTES:
            path.replace(f"{path}.1")
    # What functions print is for the operator's eyes.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # A crash may have left half a line: it is its own, and skipped.
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            piece = b"\n" + piece
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _paths(directory: Path, function: str) -> list[Path]:
    paths = (directory / f"{function}.jsonl.1", directory / f"{function}.jsonl")
    return [path for path in paths if path.exists()]


_decode = msgspec.json.Decoder(LogEvent).decode


def _load(path: Path) -> Iterator[LogEvent]:
    """Yield the events of a file. A line that is none was torn by a crash, and is skipped."""
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield _decode(line)


def _groups(directory: Path | None, noted: list[_Noted]) -> list[LogGroup]:
    """Return the groups of the directory's files and of what is only in memory. In a thread."""
    created: dict[str, int] = {}
    stored: defaultdict[str, int] = defaultdict(int)
    for entry in directory.glob("*.jsonl*") if directory is not None else ():
        named = _FILE.fullmatch(entry.name)
        first = next(_load(entry), None) if named else None
        if named and first is not None:
            function = named[1]
            created[function] = min(first.timestamp, created.get(function, first.timestamp))
            stored[function] += entry.stat().st_size
    for one in noted:
        function = one.invoked.function
        if function not in created:
            created[function] = next(_events(one)).timestamp
        stored[function] += len(one.printed) + len(one.init_log)
    return [LogGroup(PREFIX + name, created[name], stored[name]) for name in sorted(created)]
