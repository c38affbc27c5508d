"""Tests of the logbook in a directory, with real files and a real full disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from miniλ.errors import ServiceError
from miniλ.journal import Journal, Trouble
from miniλ.store import logbook
from miniλ.store.logbook import Logbook, LogEvent, LogGroup

from .logbooks import GROUP, NOON, NOON_MS, STREAM, W2, messages, note, response, run
from .registries import turns_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


async def begin_flush(book: Logbook) -> None:
    """Let a flush begin: it takes all entries to a thread."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not book._entries


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a write to it is cut short, then fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_logs_outlive_their_logbook(tmp_path: Path) -> None:
    """Another logbook on the directory goes on: nothing is twice, nothing is lost."""

    async def scenario() -> None:
        first = Logbook(tmp_path)
        note(first, response(b"one\n"), NOON)
        await first.flush()
        second = Logbook(tmp_path)
        note(second, response(b"two\n", worker_id=W2), NOON + 10)

        events = await second.events(GROUP)
        assert ["one\n", "two\n"] == messages(events)
        assert len({event.id for event in events}) == 8
        assert [(GROUP, NOON_MS - 2000)] == [(g.name, g.created) for g in await second.groups()]

    run(scenario)


def test_a_file_has_one_event_a_line(tmp_path: Path) -> None:
    """JSON that any tool reads, for the operator's eyes alone."""

    async def scenario() -> None:
        book = Logbook(tmp_path / "a" / "logs")
        note(book, response(b"one\rtwo\n"), NOON)
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
        note(book, response(), NOON)
        await book.flush()
        size = (tmp_path / "hello.jsonl").stat().st_size

        assert (0, 0) == (len(book._entries), book._bytes)
        await book.flush()
        assert size == (tmp_path / "hello.jsonl").stat().st_size

    run(scenario)


def test_a_large_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One older file is kept and read; the disk holds two files and not more."""
    monkeypatch.setattr(logbook, "ROTATE_BYTES", 100)

    async def scenario() -> None:
        book = Logbook(tmp_path)
        for number in range(4):
            note(book, response(b"%d\n" % number), NOON + number * 10)
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
            note(book, response(b"%d\n" % number), NOON + number)
        await book.flush()

        assert all((tmp_path / name).stat().st_size < 8000 for name in os.listdir(tmp_path))
        lines = messages(await book.events(GROUP))
        assert [f"{number}\n" for number in range(50 - len(lines), 50)] == lines

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
        note(before, response(b"one\n"), NOON)
        await before.flush()
        with (tmp_path / "hello.jsonl").open("ab") as file:
            file.write(torn)
        assert ["one\n"] == messages(await before.events(GROUP))

        after = Logbook(tmp_path)
        note(after, response(b"two\n"), NOON + 1)
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
        note(book, response(b"one\n"), NOON)
        await book.flush()
        size = (tmp_path / "hello.jsonl").stat().st_size
        with full_disk(size + 300):
            note(book, response(b"two\n"), NOON + 10)
            with pytest.raises(ServiceError, match=r"could not be written.*File too large"):
                await book.flush()
            note(book, response(b"three\n"), NOON + 20)

            assert size == (tmp_path / "hello.jsonl").stat().st_size
            full = await book.events(GROUP)
            assert ["one\n", "two\n", "three\n"] == messages(full)
            assert [NOON_MS - 2000] == [group.created for group in await book.groups()]
        await book.flush()

        assert (0, 0) == (len(book._entries), book._bytes)
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
            note(book, response(b"%d\n" % number), NOON + number * 10)
        note(book, response(b"other\n", function="other"), NOON + 100)
        with full_disk(3000), pytest.raises(ServiceError):
            await book.flush()

        assert 0 < len(book._entries) < 10
        assert sum(len(entry.printed) for entry in book._entries) == book._bytes
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
        note(book, response(), NOON)
        with pytest.raises(ServiceError):
            await book.flush()

        assert b"" == target.read_bytes()

    run(scenario)


# A disk that hangs: a FIFO takes 64 kB and no more until a thread reads it


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


def test_a_disk_that_hangs_does_not_block_the_loop(tmp_path: Path) -> None:
    """While a flush waits for the disk the loop goes on, and notes are taken."""

    async def scenario() -> None:
        os.mkfifo(tmp_path / "hello.jsonl")
        book = Logbook(tmp_path)
        fifo = os.open(tmp_path / "hello.jsonl", os.O_RDWR)
        done = threading.Event()
        try:
            note(book, response(b"x" * 200_000), NOON)
            flushing = asyncio.create_task(book.flush())
            await begin_flush(book)
            note(book, response(b"meanwhile\n"), NOON + 10)

            assert not flushing.done()
            assert [b"meanwhile\n"] == [entry.printed for entry in book._entries]
            draining = asyncio.create_task(asyncio.to_thread(drain, fifo, done))
            await flushing
            done.set()
            assert b"x" * 200_000 in await draining
        finally:
            os.close(fifo)

    run(scenario)


def test_a_disk_that_fails_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries that came back and those noted meanwhile are bounded: in order, the newest stay."""
    monkeypatch.setattr(logbook, "MAX_INVOCATIONS", 4)

    async def scenario() -> None:
        for name in ("hello", "adder"):
            (tmp_path / f"{name}.jsonl").mkdir()  # nothing can be appended to it
        os.mkfifo(tmp_path / "slow.jsonl")
        book = Logbook(tmp_path)
        fifo = os.open(tmp_path / "slow.jsonl", os.O_RDWR)
        done = threading.Event()
        try:
            note(book, response(b"0\n"), NOON)
            note(book, response(b"1\n", function="adder"), NOON)
            note(book, response(b"2\n"), NOON)
            note(book, response(b"x" * 200_000, function="slow"), NOON)
            flushing = asyncio.create_task(book.flush())
            await begin_flush(book)
            note(book, response(b"3\n"), NOON)
            note(book, response(b"4\n"), NOON)
            draining = asyncio.create_task(asyncio.to_thread(drain, fifo, done))
            with pytest.raises(ServiceError, match="Is a directory"):
                await flushing
            done.set()
            await draining
        finally:
            os.close(fifo)

        assert [b"1\n", b"2\n", b"3\n", b"4\n"] == [entry.printed for entry in book._entries]
        assert (1, 8) == (book.dropped, book._bytes)

    run(scenario)


def test_a_flush_that_is_cancelled_is_finished(tmp_path: Path) -> None:
    """The caller that waited has left: its write is whole, and the next flush waits for it."""

    async def scenario() -> None:
        os.mkfifo(tmp_path / "hello.jsonl")
        book = Logbook(tmp_path)
        fifo = os.open(tmp_path / "hello.jsonl", os.O_RDWR)
        done = threading.Event()
        try:
            note(book, response(b"x" * 200_000), NOON)
            cancelled = asyncio.create_task(book.flush())
            await begin_flush(book)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            note(book, response(b"y" * 200_000), NOON + 10)
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


def test_flushing_goes_on_after_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is no OSError costs one batch, which is counted; the operator reads of it."""
    monkeypatch.setattr(logbook, "FLUSH_SECONDS", 0.0)
    append = logbook._append

    def fail_once(*_: object) -> None:
        monkeypatch.setattr(logbook, "_append", append)
        msg = "no such case"
        raise ValueError(msg)

    async def scenario() -> None:
        book, facts = Logbook(tmp_path), Journal()
        monkeypatch.setattr(logbook, "_append", fail_once)
        async with asyncio.timeout(10), book.flushing(facts):
            note(book, response(b"lost\n"), NOON)
            trouble = await facts.until(Trouble)
            assert "ValueError('no such case')" in trouble.what
            assert 1 == book.dropped

            note(book, response(b"kept\n"), NOON + 10)
            file = tmp_path / "hello.jsonl"
            await turns_until(lambda: file.exists() and b"kept" in file.read_bytes())
        assert [trouble] == facts.story(Trouble)

    run(scenario)
