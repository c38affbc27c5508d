"""Tests of the channel of a worker, over real pipes on a real loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from miniλ.worker import wire
from miniλ.worker.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER = wire.encode(wire.ResponseFrame("r1"), b"1")


async def calls_after(act: Callable[[int, int, Channel], object]) -> list[tuple[str, str]]:
    """Return the calls of a channel, to the first, after a worker acts on its two descriptors."""
    calls: list[tuple[str, str]] = []
    called = asyncio.Event()

    def note(name: str, what: str) -> None:
        calls.append((name, what))
        called.set()

    request, our_request = os.pipe2(os.O_CLOEXEC)
    our_answer, answer = os.pipe2(os.O_CLOEXEC)
    channel = Channel(
        asyncio.get_running_loop(),
        our_request,
        our_answer,
        lambda head, _: note("frame", type(head).__name__),
        lambda what: note("broken", what),
        lambda what: note("no frame", what),
    )
    try:
        act(request, answer, channel)
        async with asyncio.timeout(10):
            await called.wait()
    finally:
        channel.close()
        for descriptor in (request, answer):
            with contextlib.suppress(OSError):
                os.close(descriptor)
    return calls


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (ANSWER, ["frame"]),
        (b"\xff" * 8, ["no frame"]),
        (wire.PREFIX.pack(4, 0) + b"sent", ["no frame"]),
        (ANSWER + b"\xff" * 8, ["frame", "no frame"]),
    ],
    ids=["an answer", "a length beyond the limits", "a head of no JSON", "an answer before"],
)
def test_bytes_that_are_no_frame_have_their_own_callback(data: bytes, names: list[str]) -> None:
    """Whether a worker broke the protocol is not read from the words of the message."""
    calls = asyncio.run(calls_after(lambda _, answer, __: os.write(answer, data)))

    assert names == [name for name, _ in calls]


def test_a_closed_answer_pipe_is_broken() -> None:
    """The worker's exit may follow, so this is no broken protocol."""
    calls = asyncio.run(calls_after(lambda _, answer, __: os.close(answer)))

    assert [("broken", "the worker closed its answer pipe")] == calls


def test_a_closed_request_pipe_is_broken() -> None:
    """A frame of which the worker has read a part finds its pipe closed."""

    def act(request: int, _answer: int, channel: Channel) -> None:
        assert channel.send(bytes(1 << 20))
        os.close(request)

    calls = asyncio.run(calls_after(act))

    assert [("broken", "the worker does not read any more (Broken pipe)")] == calls
