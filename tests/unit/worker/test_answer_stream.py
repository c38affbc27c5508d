"""Tests of answer streams: pieces arrive in order, a slow reader pauses the pipe."""

from __future__ import annotations

import asyncio

from miniλ.worker import answer_stream
from miniλ.worker.answer_stream import AnswerStream


class Pipe:
    """A pipe that records whether it is paused."""

    def __init__(self, stream: AnswerStream) -> None:
        self.paused = False
        stream.attach(self._pause, self._resume)

    def _pause(self) -> None:
        assert not self.paused
        self.paused = True

    def _resume(self) -> None:
        assert self.paused
        self.paused = False


async def taken(stream: AnswerStream) -> list[bytes]:
    """Return all pieces."""
    return [piece async for piece in stream]


def test_pieces_come_in_order_and_end() -> None:
    """A reader that waits before the first piece gets all of them, and then the end."""

    async def main() -> None:
        stream = AnswerStream()
        taking = asyncio.ensure_future(taken(stream))
        for piece in (b"a", b"b"):
            await asyncio.sleep(0)
            assert stream.put(piece)
        stream.end()

        assert [b"a", b"b"] == await taking

    asyncio.run(main())


def test_it_begins_with_a_piece_or_with_the_end() -> None:
    """An answer that has no pieces begins when it ends."""

    async def main() -> None:
        empty, full = AnswerStream(), AnswerStream()
        waiting = [asyncio.ensure_future(stream.wait_for_first_piece()) for stream in (empty, full)]
        await asyncio.sleep(0)
        assert not any(future.done() for future in waiting)
        empty.end()
        full.put(b"a")
        await asyncio.gather(*waiting)

        full.end()
        assert [b"a"] == await taken(full)
        assert [] == await taken(empty)

    asyncio.run(main())


def test_a_slow_taker_holds_the_pipe() -> None:
    """Above `PAUSE_ABOVE` bytes the pipe is paused; it is resumed when half of them are taken."""

    async def main() -> None:
        stream = AnswerStream()
        pipe = Pipe(stream)
        half = b"x" * (answer_stream.PAUSE_ABOVE // 2)
        stream.put(half)
        stream.put(half)
        assert not pipe.paused
        stream.put(b"x")
        assert pipe.paused

        taker = aiter(stream)
        await anext(taker)
        assert pipe.paused
        await anext(taker)
        assert not pipe.paused

    asyncio.run(main())


def test_a_taker_that_left_holds_nothing() -> None:
    """The pipe is resumed, and pieces that still come are dropped."""

    async def main() -> None:
        stream = AnswerStream()
        pipe = Pipe(stream)
        stream.put(b"x" * (answer_stream.PAUSE_ABOVE + 1))
        assert pipe.paused
        stream.drop()
        assert not pipe.paused
        stream.put(b"x" * (answer_stream.PAUSE_ABOVE + 1))
        assert not pipe.paused
        stream.end()

        assert [] == await taken(stream)

    asyncio.run(main())


def test_a_stream_has_an_end() -> None:
    """Above 200 MB in all a piece is refused, also without a reader."""
    stream = AnswerStream()
    stream.drop()
    piece = b"x" * (answer_stream.MAX_STREAM // 4)

    assert [True] * 4 == [stream.put(piece) for _ in range(4)]
    assert not stream.put(b"x")
