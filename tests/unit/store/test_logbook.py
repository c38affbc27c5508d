"""Tests of the logbook: in memory, and in a directory with real files and a real full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from miniλ.billing import BOOKS
from miniλ.errors import ResourceNotFound, ServiceError
from miniλ.model import Invoked, Response
from miniλ.store import logbook
from miniλ.store.logbook import Logbook, LogEvent, LogGroup, LogStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

W1, W2 = "1" * 32, "2" * 32
# 2026-01-31T12:00:00Z
NOON = 1769860800.0
NOON_MS = 1769860800000
GROUP = "/aws/lambda/hello"
STREAM = f"2026/01/31/[$LATEST]{W1}"


def response(printed: bytes = b"hi\n", init_log: bytes = b"", **changes: Any) -> Response:
    """Return the response of an invocation that took 2 s but for the changes."""
    warm: dict[str, Any] = {
        "ended": 1.0,
        "function": "hello",
        "request_id": "8f5ab0a2-0000-4000-8000-000000000001",
        "seconds": 2.0,
        "init_seconds": None,
        "memory_size_mb": 128,
        "peak": 33 << 20,
        "worker_id": W1,
        "limits": {},
        "cold": False,
        "failed": False,
        "book": BOOKS["2025"],
    }
    return Response(b"null", Invoked(**{**warm, **changes}), printed, init_log)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop of its own."""

    async def whole() -> None:
        await scenario()

    asyncio.run(whole())


async def taken(book: Logbook) -> None:
    """Let a flush begin: it takes what is noted, and goes to a thread with it."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not book._noted


def messages(events: list[LogEvent]) -> list[str]:
    """Return what was printed, without what Lambda prints around it."""
    around = ("START ", "END ", "REPORT ")
    return [event.message for event in events if not event.message.startswith(around)]


@pytest.fixture(params=["memory", "disk"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Logbook:
    """Return a logbook of either kind: a reader cannot tell them apart."""
    return Logbook(None if request.param == "memory" else tmp_path / "logs")


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a write to it is cut short, then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# What is noted


def test_each_line_is_an_event(book: Logbook) -> None:
    """INIT lines, START, what was printed, END and REPORT, each with its newline."""

    async def scenario() -> None:
        book.note(response(b"one\ntwo", b"loading\n", init_seconds=0.5), NOON)
        id_ = "8f5ab0a2-0000-4000-8000-000000000001"

        assert [
            (NOON_MS - 2500, "loading\n"),
            (NOON_MS - 2000, f"START RequestId: {id_} Version: $LATEST\n"),
            (NOON_MS - 2000, "one\n"),
            (NOON_MS - 2000, "two\n"),
            (NOON_MS, f"END RequestId: {id_}\n"),
            (
                NOON_MS,
                (
                    f"REPORT RequestId: {id_}\tDuration: 2000.00 ms\tBilled Duration: 2500 ms\t"
                    "Memory Size: 128 MB\tMax Memory Used: 33 MB\tInit Duration: 500.00 ms\t\n"
                ),
            ),
        ] == [(event.timestamp, event.message) for event in await book.events(GROUP)]

    run(scenario)


@pytest.mark.parametrize("init_log", [b"", b"a", b"a\n", b"a\nb", b"\n", b"a\xff\r\n"])
@pytest.mark.parametrize("printed", [b"", b"\n", b"x", b"x\ny\n", b"START RequestId: forged\n"])
def test_events_are_the_log_of_the_response(init_log: bytes, printed: bytes) -> None:
    """Put together they are `Response.log`; START has its time, whatever else is printed."""

    async def scenario() -> None:
        book = Logbook()
        noted = response(printed, init_log, init_seconds=1.0)
        book.note(noted, NOON)
        events = await book.events(GROUP)

        assert noted.log == "".join(event.message for event in events)
        [start] = [n for n, event in enumerate(events) if "START RequestId: 8f" in event.message]
        assert {NOON_MS - 3000} >= {event.timestamp for event in events[:start]}
        assert {NOON_MS - 2000} == {event.timestamp for event in events[start:-2]}
        assert {NOON_MS} == {event.timestamp for event in events[-2:]}
        assert {NOON_MS} == {event.ingestion for event in events}

    run(scenario)


def test_a_folded_traceback_is_one_event(book: Logbook) -> None:
    r"""A "\r" ends nothing, and what is not UTF-8 is replaced."""

    async def scenario() -> None:
        book.note(response("[ERROR] E\rTraceback:\r\xa0\xa0line\n".encode() + b"\xff\x00\n"), NOON)

        assert ["[ERROR] E\rTraceback:\r\xa0\xa0line\n", "\ufffd\0\n"] == messages(
            await book.events(GROUP)
        )

    run(scenario)


def test_the_stream_has_the_day_its_worker_began(book: Logbook) -> None:
    """A worker that is used after midnight goes on in the stream that it knows of."""

    async def scenario() -> None:
        midnight = NOON + 12 * 3600
        book.note(response(init_seconds=1.0), midnight + 2.5)
        book.note(response(), midnight + 100)
        book.note(response(worker_id=W2), midnight + 100)

        assert [STREAM, f"2026/02/01/[$LATEST]{W2}"] == [
            stream.name for stream in await book.streams(GROUP)
        ]

    run(scenario)


def test_a_stream_never_turns_around(book: Logbook) -> None:
    """The clock was set back an hour: the next invocation is not before the last one."""

    async def scenario() -> None:
        book.note(response(b"one\n"), NOON)
        book.note(response(b"two\n"), NOON - 3600)
        book.note(response(b"three\n"), NOON + 1)
        events = await book.events(GROUP)

        assert ["one\n", "two\n", "three\n"] == messages(events)
        assert [
            *[NOON_MS - 2000] * 2,
            *[NOON_MS] * 8,
            *[NOON_MS + 1000] * 2,
        ] == [event.timestamp for event in events]

    run(scenario)


def test_ids_are_stable_and_unique(book: Logbook) -> None:
    """Who reads twice sees the same ids, also of two invocations of one millisecond."""

    async def scenario() -> None:
        book.note(response(b"same\n"), NOON)
        book.note(response(b"same\n", worker_id=W2), NOON)
        first, second = await book.events(GROUP), await book.events(GROUP)

        assert first == second
        assert len(first) == len({event.position for event in first}) == 8

    run(scenario)


def test_a_note_keeps_no_body() -> None:
    """An answer of 6 MB is not held by its log."""

    async def scenario() -> None:
        book = Logbook()
        noted = response()
        book.note(msgspec.structs.replace(noted, body=b"x" * 100_000), NOON)

        assert len(msgspec.json.encode(book._noted[0])) < 10_000

    run(scenario)


# Bounds


def test_beyond_the_bound_the_oldest_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three invocations are kept, and one was dropped."""
    monkeypatch.setattr(logbook, "MAX_INVOCATIONS", 3)

    async def scenario() -> None:
        book = Logbook()
        for number in range(4):
            book.note(response(b"%d\n" % number), NOON + number)

        assert ["1\n", "2\n", "3\n"] == messages(await book.events(GROUP))
        assert 1 == book.dropped

    run(scenario)


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the init phase printed counts; what alone is too large is not kept either."""
    monkeypatch.setattr(logbook, "MAX_BYTES", 100)

    async def scenario() -> None:
        book = Logbook()
        book.note(response(b"a" * 50, b"b" * 40), NOON)
        book.note(response(b"c" * 10), NOON)
        assert (0, 100) == (book.dropped, book._bytes)
        book.note(response(b"d"), NOON)
        assert (1, 11) == (book.dropped, book._bytes)
        book.note(response(b"e" * 101), NOON)
        assert (4, 0) == (book.dropped, book._bytes)

    run(scenario)


def test_workers_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every worker that ever was costs nothing."""
    monkeypatch.setattr(logbook, "MAX_STREAMS", 2)
    book = Logbook()
    for number in range(5):
        book.note(response(worker_id=f"{number:032x}"), NOON)

    assert [f"{number:032x}" for number in (3, 4)] == list(book._workers)


def test_a_logbook_says_what_is_in_it(tmp_path: Path) -> None:
    """The repr counts."""
    book = Logbook(tmp_path)
    book.note(response(b"12345"), NOON)

    assert f"<Logbook in {tmp_path}, 1 invocations of 5 bytes in memory, 0 dropped>" == repr(book)
    assert "in memory," in repr(Logbook())


# Reading


def test_groups_and_streams_are_listed(book: Logbook) -> None:
    """By name, with the times of their first and last events."""

    async def scenario() -> None:
        book.note(response(), NOON)
        book.note(response(worker_id=W2), NOON + 10)
        book.note(response(), NOON + 5)
        book.note(response(function="adder"), NOON + 20)
        groups = await book.groups()

        assert [("/aws/lambda/adder", NOON_MS + 18_000), (GROUP, NOON_MS - 2000)] == [
            (group.name, group.created) for group in groups
        ]
        assert all(group.stored_bytes > 0 for group in groups)
        assert [
            LogStream(STREAM, NOON_MS - 2000, NOON_MS + 5000, NOON_MS + 5000),
            LogStream(
                f"2026/01/31/[$LATEST]{W2}", NOON_MS + 8000, NOON_MS + 10_000, NOON_MS + 10_000
            ),
        ] == await book.streams(GROUP)

    run(scenario)


def test_events_are_chosen(book: Logbook) -> None:
    """By stream, by its prefix, by time and by message; the end is not included."""

    async def scenario() -> None:
        book.note(response(b"one\n"), NOON)
        book.note(response(b"two\n", worker_id=W2), NOON + 1)
        other = f"2026/01/31/[$LATEST]{W2}"

        async def chosen(**choice: Any) -> list[str]:
            return messages(await book.events(GROUP, **choice))

        assert ["one\n", "two\n"] == await chosen()
        assert ["two\n"] == await chosen(streams=[other])
        assert ["one\n"] == await chosen(prefix="2026/01/31/[$LATEST]1")
        assert ["two\n"] == await chosen(start=NOON_MS - 1000)
        assert ["one\n"] == await chosen(end=NOON_MS - 1000)
        assert ["one\n"] == await chosen(
            matches=lambda message: "n" in message and "R" not in message
        )
        assert [] == await chosen(streams=[STREAM], prefix=other)

    run(scenario)


def test_workers_are_interleaved_by_time(book: Logbook) -> None:
    """A long invocation is noted last and began first."""

    async def scenario() -> None:
        book.note(response(b"short\n", seconds=1.0, worker_id=W2), NOON)
        book.note(response(b"long\n", seconds=10.0), NOON + 1)
        events = await book.events(GROUP)

        assert ["long\n", "short\n"] == messages(events)
        assert events == sorted(events, key=lambda event: event.position)

    run(scenario)


@pytest.mark.parametrize(
    "group",
    ["", "hello", "/aws/lambda/", "/aws/lambda/other", "/aws/lambda/../hello", GROUP + "\n"],
)
def test_a_group_that_is_not_there(book: Logbook, group: str) -> None:
    """A function that never ran has none, and a path is no function."""

    async def scenario() -> None:
        book.note(response(), NOON)
        for read in (book.events, book.streams):
            with pytest.raises(ResourceNotFound, match="log group does not exist"):
                await read(group)

    run(scenario)


def test_a_stream_that_is_not_there(book: Logbook) -> None:
    """One of two is missing: that is said, and not half an answer."""

    async def scenario() -> None:
        book.note(response(), NOON)
        with pytest.raises(ResourceNotFound, match="log stream does not exist"):
            await book.events(GROUP, streams=[STREAM, "other"])

    run(scenario)


def test_an_empty_logbook_has_no_groups(book: Logbook) -> None:
    """Also where the directory is not made yet."""

    async def scenario() -> None:
        assert [] == await book.groups()
        await book.flush()
        assert [] == await book.groups()

    run(scenario)


# The directory


def test_logs_outlive_their_logbook(tmp_path: Path) -> None:
    """Another logbook on the directory goes on: nothing is twice, nothing is lost."""

    async def scenario() -> None:
        first = Logbook(tmp_path)
        first.note(response(b"one\n"), NOON)
        await first.flush()
        second = Logbook(tmp_path)
        second.note(response(b"two\n", worker_id=W2), NOON + 10)

        events = await second.events(GROUP)
        assert ["one\n", "two\n"] == messages(events)
        assert len({event.id for event in events}) == 8
        assert [(GROUP, NOON_MS - 2000)] == [(g.name, g.created) for g in await second.groups()]

    run(scenario)


def test_a_file_has_one_event_a_line(tmp_path: Path) -> None:
    """JSON that any tool reads, for the operator's eyes alone."""

    async def scenario() -> None:
        book = Logbook(tmp_path / "a" / "logs")
        book.note(response(b"one\rtwo\n"), NOON)
        await book.flush()
        file = tmp_path / "a" / "logs" / "hello.jsonl"
        lines = file.read_bytes().splitlines()

        assert 0o600 == file.stat().st_mode & 0o777
        assert 0o700 == file.parent.stat().st_mode & 0o777
        assert 4 == len(lines)
        event = msgspec.json.decode(lines[1])
        assert event.pop("id").isdigit()
        assert {
            "timestamp": NOON_MS - 2000,
            "ingestion": NOON_MS,
            "stream": STREAM,
            "message": "one\rtwo\n",
        } == event

    run(scenario)


def test_what_is_written_is_not_in_memory(tmp_path: Path) -> None:
    """A flush makes room; another one writes nothing."""

    async def scenario() -> None:
        book = Logbook(tmp_path)
        book.note(response(), NOON)
        await book.flush()
        size = (tmp_path / "hello.jsonl").stat().st_size

        assert (0, 0) == (len(book._noted), book._bytes)
        await book.flush()
        assert size == (tmp_path / "hello.jsonl").stat().st_size

    run(scenario)


def test_a_large_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One older file is kept and read; the disk holds two files and not more."""
    monkeypatch.setattr(logbook, "ROTATE_BYTES", 100)

    async def scenario() -> None:
        book = Logbook(tmp_path)
        for number in range(4):
            book.note(response(b"%d\n" % number), NOON + number * 10)
            await book.flush()

        assert ["hello.jsonl", "hello.jsonl.1"] == sorted(os.listdir(tmp_path))
        assert ["2\n", "3\n"] == messages(await book.events(GROUP))
        [group] = await book.groups()
        sizes = [(tmp_path / name).stat().st_size for name in os.listdir(tmp_path)]
        assert LogGroup(GROUP, NOON_MS + 18_000, sum(sizes)) == group

    run(scenario)


def test_one_flush_of_much_rotates_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the disk is written in pieces: no file is much larger than its bound."""
    monkeypatch.setattr(logbook, "ROTATE_BYTES", 5000)
    monkeypatch.setattr(logbook, "PIECE_BYTES", 1000)

    async def scenario() -> None:
        book = Logbook(tmp_path)
        for number in range(50):
            book.note(response(b"%d\n" % number), NOON + number)
        await book.flush()

        assert all((tmp_path / name).stat().st_size < 8000 for name in os.listdir(tmp_path))
        found = messages(await book.events(GROUP))
        assert [f"{number}\n" for number in range(50 - len(found), 50)] == found

    run(scenario)


@pytest.mark.parametrize(
    "torn",
    [
        b'{"timestamp":12',
        b"\xff",
        b'{"stream":"\xff"}',
        b'{"x":' + b"[" * 100_000,
        b'{"id":1}\n',
        b"\0\n",
    ],
)
def test_a_torn_line_is_skipped(tmp_path: Path, torn: bytes) -> None:
    """A crash left half a line: what was before it and what comes after it is read."""

    async def scenario() -> None:
        before = Logbook(tmp_path)
        before.note(response(b"one\n"), NOON)
        await before.flush()
        with (tmp_path / "hello.jsonl").open("ab") as file:
            file.write(torn)
        assert ["one\n"] == messages(await before.events(GROUP))

        after = Logbook(tmp_path)
        after.note(response(b"two\n"), NOON + 1)
        events = await after.events(GROUP)
        assert ["one\n", "two\n"] == messages(events)
        assert 8 == len(events)

    run(scenario)


def test_other_files_are_no_groups(tmp_path: Path) -> None:
    """What an operator puts beside the logs is left alone."""

    async def scenario() -> None:
        for name in ("a b.jsonl", "x.jsonl.1.gz", "empty.jsonl", "x.jsonl.bak"):
            (tmp_path / name).touch()

        assert [] == await Logbook(tmp_path).groups()

    run(scenario)


def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    """What it did not take is kept, read meanwhile, and written once when there is room."""

    async def scenario() -> None:
        book = Logbook(tmp_path)
        book.note(response(b"one\n"), NOON)
        await book.flush()
        size = (tmp_path / "hello.jsonl").stat().st_size
        with full_disk(size + 300):
            book.note(response(b"two\n"), NOON + 10)
            with pytest.raises(ServiceError, match=r"could not be written.*File too large"):
                await book.flush()
            book.note(response(b"three\n"), NOON + 20)

            assert size == (tmp_path / "hello.jsonl").stat().st_size
            full = await book.events(GROUP)
            assert ["one\n", "two\n", "three\n"] == messages(full)
            assert [NOON_MS - 2000] == [group.created for group in await book.groups()]
        await book.flush()

        assert (0, 0) == (len(book._noted), book._bytes)
        assert full == await Logbook(tmp_path).events(GROUP)

    run(scenario)


def test_what_a_full_disk_took_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full amid a flush: the pieces before are there, those after are kept."""
    monkeypatch.setattr(logbook, "PIECE_BYTES", 1)

    async def scenario() -> None:
        book = Logbook(tmp_path)
        for number in range(10):
            book.note(response(b"%d\n" % number), NOON + number * 10)
        book.note(response(b"other\n", function="other"), NOON + 100)
        with full_disk(3000), pytest.raises(ServiceError):
            await book.flush()

        assert 0 < len(book._noted) < 10
        assert sum(len(noted.printed) for noted in book._noted) == book._bytes
        assert ["other\n"] == messages(await book.events("/aws/lambda/other"))
        assert [f"{number}\n" for number in range(10)] == messages(await book.events(GROUP))

    run(scenario)


def test_a_directory_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A reader is told which, and why."""

    async def scenario() -> None:
        (tmp_path / "hello.jsonl").mkdir()
        with pytest.raises(ServiceError, match=r"could not be read.*Is a directory"):
            await Logbook(tmp_path).events(GROUP)

    run(scenario)


def test_a_flush_follows_no_link(tmp_path: Path) -> None:
    """A link in the directory does not lead what functions print to another file."""

    async def scenario() -> None:
        target = tmp_path / "target"
        target.touch()
        (tmp_path / "hello.jsonl").symlink_to(target)
        book = Logbook(tmp_path)
        book.note(response(), NOON)
        with pytest.raises(ServiceError):
            await book.flush()

        assert b"" == target.read_bytes()

    run(scenario)


# A disk that hangs: a FIFO takes 64 kB and no more until somebody reads


def drain(fifo: int, done: threading.Event) -> bytes:
    """Read a FIFO in a thread until there is nothing more to come."""
    os.set_blocking(fifo, False)
    read = b""
    while True:
        try:
            read += os.read(fifo, 1 << 20)
        except BlockingIOError:
            if done.is_set():
                return read
            done.wait(0.001)


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """While a flush waits for the disk the loop goes on, and notes are taken."""

    async def scenario() -> None:
        os.mkfifo(tmp_path / "hello.jsonl")
        book = Logbook(tmp_path)
        fifo = os.open(tmp_path / "hello.jsonl", os.O_RDWR)
        done = threading.Event()
        try:
            book.note(response(b"x" * 200_000), NOON)
            flushing = asyncio.create_task(book.flush())
            await taken(book)
            book.note(response(b"meanwhile\n"), NOON + 10)

            assert not flushing.done()
            assert [b"meanwhile\n"] == [noted.printed for noted in book._noted]
            draining = asyncio.create_task(asyncio.to_thread(drain, fifo, done))
            await flushing
            done.set()
            assert b"x" * 200_000 in await draining
        finally:
            os.close(fifo)

    run(scenario)


def test_a_disk_that_fails_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came back and what was noted meanwhile are bounded: in order, and the newest stay."""
    monkeypatch.setattr(logbook, "MAX_INVOCATIONS", 4)

    async def scenario() -> None:
        for name in ("hello", "adder"):
            (tmp_path / f"{name}.jsonl").mkdir()  # nothing can be appended to it
        os.mkfifo(tmp_path / "slow.jsonl")
        book = Logbook(tmp_path)
        fifo = os.open(tmp_path / "slow.jsonl", os.O_RDWR)
        done = threading.Event()
        try:
            book.note(response(b"0\n"), NOON)
            book.note(response(b"1\n", function="adder"), NOON)
            book.note(response(b"2\n"), NOON)
            book.note(response(b"x" * 200_000, function="slow"), NOON)
            flushing = asyncio.create_task(book.flush())
            await taken(book)
            book.note(response(b"3\n"), NOON)
            book.note(response(b"4\n"), NOON)
            draining = asyncio.create_task(asyncio.to_thread(drain, fifo, done))
            with pytest.raises(ServiceError, match="Is a directory"):
                await flushing
            done.set()
            await draining
        finally:
            os.close(fifo)

        assert [b"1\n", b"2\n", b"3\n", b"4\n"] == [noted.printed for noted in book._noted]
        assert (1, 8) == (book.dropped, book._bytes)

    run(scenario)


def test_a_flush_that_is_cancelled_is_finished(tmp_path: Path) -> None:
    """Who waited for the disk is gone: what it wrote is whole, and the next one waits for it."""

    async def scenario() -> None:
        os.mkfifo(tmp_path / "hello.jsonl")
        book = Logbook(tmp_path)
        fifo = os.open(tmp_path / "hello.jsonl", os.O_RDWR)
        done = threading.Event()
        try:
            book.note(response(b"x" * 200_000), NOON)
            cancelled = asyncio.create_task(book.flush())
            await taken(book)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            book.note(response(b"y" * 200_000), NOON + 10)
            following = asyncio.create_task(book.flush())
            draining = asyncio.create_task(asyncio.to_thread(drain, fifo, done))
            await following
            done.set()
            lines = (await draining).splitlines()
        finally:
            os.close(fifo)

        assert ["x" * 200_000 + "\n", "y" * 200_000 + "\n"] == [
            event.message
            for line in lines
            if len((event := msgspec.json.decode(line, type=LogEvent)).message) > 100_000
        ]

    run(scenario)
