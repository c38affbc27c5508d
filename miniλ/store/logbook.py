"""The logbook: what functions printed, by log group and stream, as CloudWatch keeps it.

A function has a group, "/aws/lambda/NAME", and each of its workers has a stream in it. The stream's
name comes with each response, from the worker: its function sees the same name in its context.

Rule 1: `note` is on the invoke path and formats nothing. The lines are made when they are written
to disk or read.

Rule 2: memory is bounded, also while the disk is full or hangs. Beyond `MAX_INVOCATIONS` or
`MAX_BYTES` the oldest invocations are dropped, and counted in `dropped`. The batch that a flush is
writing comes on top.

Rule 3: files are touched in threads, one task at a time. A caller that waits for it may be
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
from miniλ.background import Background
from miniλ.errors import ResourceNotFound, ServiceError
from miniλ.model import FUNCTION_NAME, Invoked, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from miniλ.journal import Journal

# Between two flushes: how much of the log a crash may cost.
FLUSH_SECONDS = 1.0
MAX_INVOCATIONS = 10_000
MAX_BYTES = 32 * 1024 * 1024
# Streams whose latest event is remembered: many more than workers live at once.
MAX_STREAMS = 10_000
# A file above this becomes the older one, so a reader of a group reads two of this size at most.
ROTATE_BYTES = 8 * 1024 * 1024
# An append writes at least this, if there is more. An append that fails is taken back whole.
PIECE_BYTES = 1024 * 1024

PREFIX = "/aws/lambda/"
_GROUP = re.compile(rf"{PREFIX}({FUNCTION_NAME})")
_FILE = re.compile(rf"({FUNCTION_NAME})\.jsonl(?:\.1)?")
# Digits of an id: the invocation's number, which begins at nanoseconds since 1970, and the line's.
_NUMBER, _LINE = 20, 8
_BEYOND_IDS: int = 10 ** (_NUMBER + _LINE)

T = TypeVar("T")


class LogEvent(msgspec.Struct, frozen=True, gc=False):
    r"""One line that was printed, as it is on disk. Times are milliseconds since 1970.

    `message` ends in "\n". `id` is made of digits, and increases in the order of `note`.
    """

    timestamp: int
    ingestion: int
    stream: str
    message: str
    id: str

    @property
    def position(self) -> int:
        """Its place in the order of its group's events: by time, then by id."""
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


class _LogEntry(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a response, without its payload, which may be 6 MB. Seconds since 1970.

    No event of this invocation is earlier than `after`.
    """

    number: int
    stream: str
    after: float
    at: float
    invoked: Invoked
    printed: bytes
    init_log: bytes
    version: str


class Logbook:
    """What functions printed: in memory, or in a directory that `flush` writes to."""

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        self.dropped = 0  # invocations, since the start
        self._directory = None if directory is None else Path(directory)
        self._entries: deque[_LogEntry] = deque()
        self._bytes = 0
        # By stream: when its latest invocation was answered.
        self._latest: dict[str, float] = {}
        self._number = time.time_ns()
        self._files_lock = asyncio.Lock()

    def __repr__(self) -> str:
        where = "memory" if self._directory is None else str(self._directory)
        return (
            f"<Logbook in {where}, {len(self._entries)} invocations of {self._bytes} bytes "
            f"in memory, {self.dropped} dropped>"
        )

    @property
    def is_kept(self) -> bool:
        """Whether there is a directory, to which `flush` must be called."""
        return self._directory is not None

    def note(self, response: Response, stream: str, at: float) -> None:
        """Keep the log of an invocation in a stream; it was answered `at` seconds since 1970."""
        invoked = response.invoked
        # A clock that was set back does not reverse the order in a stream.
        after = self._latest.get(stream)
        if after is None:
            after = self._open_stream()
        if at < after:  # noqa: PLR1730 - max() is a call, and this is the invoke path
            at = after
        self._latest[stream] = at
        self._number += 1
        self._entries.append(
            _LogEntry(
                self._number,
                stream,
                after,
                at,
                invoked,
                response.printed,
                response.init_log,
                response.executed_version,
            )
        )
        self._bytes += len(response.printed) + len(response.init_log)
        if self._bytes > MAX_BYTES or len(self._entries) > MAX_INVOCATIONS:
            self._trim()

    def _open_stream(self) -> float:
        """Make room for a stream; return the time that all its events are after."""
        while len(self._latest) >= MAX_STREAMS:
            del self._latest[next(iter(self._latest))]
        return 0.0

    def _trim(self) -> None:
        while self._bytes > MAX_BYTES or len(self._entries) > MAX_INVOCATIONS:
            oldest = self._entries.popleft()
            self._bytes -= len(oldest.printed) + len(oldest.init_log)
            self.dropped += 1

    @contextlib.asynccontextmanager
    async def flushing(self, facts: Journal) -> AsyncIterator[None]:
        """Flush every second until the end, and then once more; a failed flush is a `Trouble`."""
        if self._directory is None:
            yield
            return
        flusher = Background(facts, "Logs are not flushed any more until the supervisor closes")
        flusher.start(self._flush_each_second(facts))
        try:
            yield
        finally:
            await flusher.cancel()
            await self._flush_or_record(facts)

    async def _flush_each_second(self, facts: Journal) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush_or_record(facts)

    async def _flush_or_record(self, facts: Journal) -> None:
        try:
            await self.flush()
        except ServiceError as exc:
            facts.record(journal.Trouble(what=f"Logs wait in memory for the next flush: {exc}"))
        except Exception as exc:  # noqa: BLE001 - a bug costs one batch, not all later ones
            what = f"Logs of the last second are lost: {exc!r}, which is a bug; please report it"
            facts.record(journal.Trouble(what=what))

    async def flush(self) -> None:
        """Write to the directory what is only in memory; without a directory, do nothing.

        Raises `ServiceError` if the disk does not take it: it is kept, and written by the next
        flush.
        """
        await self._exclusively(self._write)

    async def groups(self) -> list[LogGroup]:
        """Return the groups that have events, by name."""
        return await self._reading(lambda entries: _groups(self._directory, entries))

    async def streams(self, group: str) -> list[LogStream]:
        """Return the streams of a group, by name. Raises `ResourceNotFound`."""
        return await self._reading(lambda entries: _streams(self._read(group, entries)))

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
        """Return a group's events in the order of `LogEvent.position`.

        Only those of `streams` if that is not None, whose stream begins with `prefix`, whose time
        is from `start` to before `end` in milliseconds, and whose message `matches`. Raises
        `ResourceNotFound` for a group or a stream that does not exist.
        """
        chosen = None if streams is None else frozenset(streams)

        def choose(entries: list[_LogEntry]) -> list[LogEvent]:
            events = self._read(group, entries)
            if chosen is not None and not chosen <= {event.stream for event in events}:
                msg = "The specified log stream does not exist."
                raise ResourceNotFound(msg)
            return [
                event
                for event in events
                if (chosen is None or event.stream in chosen)
                and event.stream.startswith(prefix)
                and (start is None or event.timestamp >= start)
                and (end is None or event.timestamp < end)
                and (matches is None or matches(event.message))
            ]

        return await self._reading(choose)

    # One task at a time

    async def _exclusively(self, work: Callable[[], Awaitable[T]]) -> T:
        async def locked() -> T:
            async with self._files_lock:
                return await work()

        # A thread cannot be cancelled: the next caller waits until this one's work is done.
        return await asyncio.shield(asyncio.create_task(locked()))

    async def _reading(self, read: Callable[[list[_LogEntry]], T]) -> T:
        async def work() -> T:
            # `flush` reports a full disk. A reader gets what is on it, and the rest from memory.
            with contextlib.suppress(ServiceError):
                await self._write()
            try:
                return await asyncio.to_thread(read, list(self._entries))
            except OSError as exc:
                msg = f"Logs in {self._directory} could not be read: {exc}"
                raise ServiceError(msg) from exc

        return await self._exclusively(work)

    async def _write(self) -> None:
        if self._directory is None or not self._entries:
            return
        batch, self._entries, self._bytes = self._entries, deque(), 0
        try:
            rest, error = await asyncio.to_thread(_append, self._directory, batch)
        except Exception:
            self.dropped += len(batch)
            raise
        if error is not None:
            self._entries.extendleft(reversed(rest))
            self._bytes += sum(len(entry.printed) + len(entry.init_log) for entry in rest)
            self._trim()
            msg = (
                f"Logs could not be written to {self._directory}: {error}. They are kept in "
                "memory, the newest of them, until there is room"
            )
            raise ServiceError(msg) from error

    def _read(self, group: str, entries: list[_LogEntry]) -> list[LogEvent]:
        """Return all events of a group, in order. In a thread."""
        events: list[LogEvent] = []
        match = _GROUP.fullmatch(group)
        if match is not None:
            function = match[1]
            if self._directory is not None:
                events = [
                    event for path in _paths(self._directory, function) for event in _load(path)
                ]
            for entry in entries:
                if entry.invoked.function == function:
                    events += _events(entry)
        if not events:
            msg = "The specified log group does not exist."
            raise ResourceNotFound(msg)
        events.sort(key=lambda event: (event.timestamp, event.id))
        return events


def position(timestamp: int) -> int:
    """Return the least `LogEvent.position` that an event of this millisecond can have."""
    return timestamp * _BEYOND_IDS


# Invocations to events


def _events(entry: _LogEntry) -> Iterator[LogEvent]:
    r"""Yield the lines of an invocation. Only "\n" ends one: a traceback is folded with "\r".

    When each line was printed is unknown. START and the lines after it have the time of the
    invocation's start, END and REPORT that of its end.
    """
    invoked, init = entry.invoked, entry.init_log
    text = Response(b"", invoked, entry.printed, init, entry.version).log
    lines = text.split("\n")[:-1]
    of_init = init.count(b"\n") + (not init.endswith(b"\n") if init else 0)
    started = entry.at - invoked.seconds
    times = [
        _milliseconds(max(entry.after, seconds))
        for seconds in (started - (invoked.init_seconds or 0.0), started, entry.at)
    ]
    for line, message in enumerate(lines):
        timestamp = times[0 if line < of_init else 1 if line < len(lines) - 2 else 2]
        id_ = f"{entry.number:0{_NUMBER}d}{line:0{_LINE}d}"
        yield LogEvent(timestamp, times[2], entry.stream, message + "\n", id_)


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


def _append(
    directory: Path, entries: Iterable[_LogEntry]
) -> tuple[list[_LogEntry], OSError | None]:
    """Append invocations to their functions' files; return those that failed, and the error."""
    error: OSError | None = None
    rest: list[_LogEntry] = []
    by_function: defaultdict[str, list[_LogEntry]] = defaultdict(list)
    for entry in entries:
        by_function[entry.invoked.function].append(entry)
    for function, own in by_function.items():
        written = 0
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for count, piece in _pieces(own):
                _append_piece(directory / f"{function}.jsonl", piece)
                written += count
        except OSError as exc:
            error = exc
            rest += own[written:]
    rest.sort(key=lambda entry: entry.number)
    return rest, error


def _pieces(entries: list[_LogEntry]) -> Iterator[tuple[int, bytes]]:
    """Yield how many invocations a piece has, and its lines."""
    count, lines = 0, bytearray()
    for entry in entries:
        for event in _events(entry):
            lines += msgspec.json.encode(event) + b"\n"
        count += 1
        if len(lines) >= PIECE_BYTES:
            yield count, bytes(lines)
            count, lines = 0, bytearray()
    if count:
        yield count, bytes(lines)


def _append_piece(path: Path, piece: bytes) -> None:
    """Append a piece whole, or raise OSError and leave the file as it was."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > ROTATE_BYTES:
            path.replace(f"{path}.1")
    # Mode 0600: only the operator may read what functions print.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        # A crash may have left half a line: it stays a line of its own, which readers skip.
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
    """Yield the events of a file. A line that is no event was torn by a crash, and is skipped."""
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                yield _decode(line)


def _groups(directory: Path | None, entries: list[_LogEntry]) -> list[LogGroup]:
    """Return the groups of the directory's files and of what is only in memory. In a thread."""
    created: dict[str, int] = {}
    stored: defaultdict[str, int] = defaultdict(int)
    for file in directory.glob("*.jsonl*") if directory is not None else ():
        match = _FILE.fullmatch(file.name)
        first = next(_load(file), None) if match else None
        if match and first is not None:
            function = match[1]
            created[function] = min(first.timestamp, created.get(function, first.timestamp))
            stored[function] += file.stat().st_size
    for entry in entries:
        function = entry.invoked.function
        if function not in created:
            created[function] = next(_events(entry)).timestamp
        stored[function] += len(entry.printed) + len(entry.init_log)
    return [LogGroup(PREFIX + name, created[name], stored[name]) for name in sorted(created)]
