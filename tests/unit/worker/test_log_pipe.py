"""Tests of the log pipe, on a real pipe with a real event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import sys
import termios
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.errors import InvalidParameterValue
from miniλ.settings import Settings
from miniλ.worker import log_pipe
from miniλ.worker.log_pipe import LogPipe

if TYPE_CHECKING:
    from collections.abc import Iterator

# On a busy machine a slow example is no failure.
SLOW = [HealthCheck.too_slow]

NOTE = re.compile(rb"\n\[minilambda: (\d+) bytes of log left out\]\n")


@contextlib.contextmanager
def opened_log_pipe(limit: int) -> Iterator[tuple[LogPipe, int]]:
    """Yield a log pipe on the running loop and the end that a worker writes to."""
    reader, writer = os.pipe()
    pipe = LogPipe(asyncio.get_running_loop(), reader, limit)
    try:
        yield pipe, writer
    finally:
        pipe.close()
        with contextlib.suppress(OSError):
            os.close(writer)


def write_from_thread(writer: int, text: bytes) -> asyncio.Task[None]:
    """Write more than a pipe holds, in a thread, as a worker does it in its process."""

    def write() -> None:
        rest = memoryview(text)
        while rest:
            rest = rest[os.write(writer, rest) :]

    return asyncio.create_task(asyncio.to_thread(write))


def parts(text: bytes) -> tuple[bytes, int, bytes]:
    """Return the text before the note, the number of bytes left out, and the text after it."""
    first, dropped, last = NOTE.split(text)
    return first, int(dropped), last


def test_what_was_printed_is_drained() -> None:
    """Draining needs no turn of the loop: the pipe is read there and then."""

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, writer):
            os.write(writer, b"one\n")
            os.write(writer, b"two\n")

            assert pipe.drain() == b"one\ntwo\n"

    asyncio.run(scenario())


def test_a_drain_starts_anew() -> None:
    """What belongs to one invocation is not in the next one's log."""

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, writer):
            os.write(writer, b"one")
            pipe.drain()

            assert pipe.drain() == b""
            os.write(writer, b"two")
            assert pipe.drain() == b"two"

    asyncio.run(scenario())


def test_a_silent_function_has_an_empty_log() -> None:
    """Draining waits for nothing."""

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, _):
            assert pipe.drain() == b""

    asyncio.run(scenario())


def test_a_pipe_is_read_while_the_function_runs() -> None:
    """A worker that prints ten times what a pipe holds is not stuck: the loop reads meanwhile."""

    async def scenario() -> None:
        text = bytes(range(256)) * 4 * 640
        with opened_log_pipe(1024 * 1024) as (pipe, writer):
            await write_from_thread(writer, text)

            assert text == pipe.drain()

    asyncio.run(scenario())


def test_beyond_the_limit_the_first_and_the_last_half_stay() -> None:
    """The middle is counted, and a note in the log has the number."""

    async def scenario() -> None:
        with opened_log_pipe(10) as (pipe, writer):
            os.write(writer, b"0123456789abcdefghij")

            assert parts(pipe.drain()) == (b"01234", 10, b"fghij")

    asyncio.run(scenario())


def test_a_log_of_just_the_limit_is_whole() -> None:
    """Ten bytes are ten bytes, in one piece or in many."""

    async def scenario() -> None:
        with opened_log_pipe(10) as (pipe, writer):
            os.write(writer, b"0123456789")
            assert pipe.drain() == b"0123456789"

            for digit in b"0123456789":
                os.write(writer, bytes([digit]))
                pipe._read()
            assert pipe.drain() == b"0123456789"

    asyncio.run(scenario())


def test_what_was_left_out_is_forgotten_with_the_drain() -> None:
    """The next log is whole again, and says nothing of the last one's middle."""

    async def scenario() -> None:
        with opened_log_pipe(10) as (pipe, writer):
            os.write(writer, b"x" * 100)
            pipe.drain()
            os.write(writer, b"0123456789")

            assert pipe.drain() == b"0123456789"

    asyncio.run(scenario())


@settings(deadline=None, database=None, max_examples=100, suppress_health_check=SLOW)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), max_size=12),
    limit=st.integers(2, 60),
)
def test_every_byte_is_kept_or_counted(pieces: list[bytes], limit: int) -> None:
    """In pieces of any size: the first half, a number, the last half."""

    async def scenario() -> bytes:
        with opened_log_pipe(limit) as (pipe, writer):
            for piece in pieces:
                os.write(writer, piece)
                pipe._read()
            return pipe.drain()

    text, half = b"".join(pieces), limit // 2
    got = asyncio.run(scenario())

    if len(text) <= half * 2:
        assert text == got
    else:
        assert (text[:half], len(text) - half * 2, text[-half:]) == parts(got)


def test_a_function_that_prints_without_end_costs_no_memory() -> None:
    """16 MB against a limit of 1 kB: what is kept is the limit and one piece at most."""

    async def scenario() -> None:
        size = 16 * 1024 * 1024
        with opened_log_pipe(1024) as (pipe, writer):
            writing = write_from_thread(writer, b"x" * size)
            most = 0
            while not writing.done():
                await asyncio.sleep(0)
                most = max(most, pipe._kept + len(pipe._first))

            first, dropped, last = parts(pipe.drain())
            assert size == len(first) + dropped + len(last)
            assert len(first) == len(last) == 512
            assert most <= 1024 + log_pipe.PIECE

    asyncio.run(scenario())


def test_one_drain_reads_so_much_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that prints faster than it is read does not hold the loop."""
    monkeypatch.setattr(log_pipe, "DRAIN", 2 * log_pipe.PIECE)

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, writer):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8 * log_pipe.PIECE)
            os.write(writer, b"x" * 5 * log_pipe.PIECE)

            pipe.drain()

            left = fcntl.ioctl(writer, termios.FIONREAD, b"\0\0\0\0")
            assert int.from_bytes(left, sys.byteorder) == 3 * log_pipe.PIECE

    asyncio.run(scenario())


def test_the_smallest_limit_of_the_settings_keeps_just_that() -> None:
    """An operator who wants no logs gets 4 kB of them: the pipe is read all the same."""
    with pytest.raises(InvalidParameterValue, match="log_bytes"):
        Settings(log_bytes=4095)
    limit = Settings(log_bytes=4096).log_bytes

    async def scenario() -> None:
        with opened_log_pipe(limit) as (pipe, writer):
            os.write(writer, b"a" * 2048 + b"b" * 10_000 + b"c" * 2048)
            text = pipe.drain()

            assert parts(text) == (b"a" * 2048, 10_000, b"c" * 2048)
            assert pipe._kept == 0
            with pytest.raises(BlockingIOError):
                os.read(pipe._pipe, 1)

    asyncio.run(scenario())


def test_the_end_of_a_pipe_is_no_error() -> None:
    """The last writer has left: its text is read, and the loop does not spin."""

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, writer):
            os.write(writer, b"last words")
            os.close(writer)
            for _ in range(3):
                await asyncio.sleep(0)

            assert pipe.drain() == b"last words"
            assert pipe.drain() == b""
            assert asyncio.get_running_loop().remove_reader(pipe._pipe) is False

    asyncio.run(scenario())


def test_a_grandchild_may_hold_the_pipe_open() -> None:
    """A drain does not wait for the end of the pipe."""

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, writer):
            copy = os.dup(writer)
            try:
                os.write(writer, b"bye")
                os.close(writer)

                assert pipe.drain() == b"bye"
            finally:
                os.close(copy)

    asyncio.run(scenario())


def test_a_closed_log_can_be_drained_and_closed() -> None:
    """Closing twice closes one descriptor, and what was read before is still there."""

    async def scenario() -> None:
        with opened_log_pipe(1024) as (pipe, writer):
            os.write(writer, b"kept")
            pipe._read()
            pipe.close()
            pipe.close()

            assert pipe.drain() == b"kept"
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(pipe._pipe)

    asyncio.run(scenario())
