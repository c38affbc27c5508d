"""Frames over the two pipes of one worker, on an event loop.

Rule: no method waits for the worker. What the pipe does not take now is written when it is
writable; deadlines are in `worker.py`. The channel reads for its whole life, so that a frame out of
turn is seen when it comes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from miniλ.worker import wire

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

# A larger buffer would be mapped and unmapped by malloc for each read: 13 us instead of 1.
PIECE = 65536
# Reads in one turn of the event loop: a worker that writes without end does not hold the loop.
READS = 32


class Channel:
    """The supervisor's ends: `request` to write, `answer` to read. Both are closed by `close`."""

    __slots__ = (
        "_answer",
        "_decoder",
        "_has_part",
        "_loop",
        "_on_broken",
        "_on_frame",
        "_on_no_frame",
        "_paused",
        "_pending",
        "_request",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        request: int,
        answer: int,
        on_frame: Callable[[wire.FromWorker, bytes], None],
        on_broken: Callable[[str], None],
        on_no_frame: Callable[[str], None],
    ) -> None:
        """Begin to read. `on_broken` is called with a sentence if the worker closes a pipe.

        `on_no_frame` is called with one if the worker sends bytes that are no frame.
        """
        os.set_blocking(request, False)
        os.set_blocking(answer, False)
        self._loop = loop
        self._request = request
        self._answer = answer
        self._on_frame = on_frame
        self._on_broken = on_broken
        self._on_no_frame = on_no_frame
        self._decoder = wire.Decoder()
        # Whether the decoder holds the first part of a frame.
        self._has_part = False
        self._paused = False
        self._pending = memoryview(b"")
        loop.add_reader(answer, self.receive)

    def send(self, frame: bytes) -> bool:
        """Write a frame; what the pipe does not take follows when the worker has read.

        Return whether the worker's end is open: if not, none of the frame was written.
        """
        if self._pending:
            self._pending = memoryview(bytes(self._pending) + frame)
            return True
        try:
            written = os.write(self._request, frame)
        except BlockingIOError:
            written = 0
        except OSError:
            return False
        if written < len(frame):
            self._pending = memoryview(frame)[written:]
            self._loop.add_writer(self._request, self._send_more)
        return True

    def _send_more(self) -> None:
        try:
            written = os.write(self._request, self._pending)
        except BlockingIOError:
            return
        except OSError as exc:
            self._stop_sending()
            self._on_broken(f"the worker does not read any more ({exc.strerror})")
            return
        self._pending = self._pending[written:]
        if not self._pending:
            self._stop_sending()

    def _stop_sending(self) -> None:
        self._pending = memoryview(b"")
        self._loop.remove_writer(self._request)

    def receive(self) -> None:
        """Read what the worker has sent; also called once more when it has exited."""
        for _ in range(READS):
            if self._answer < 0 or self._paused:
                return
            try:
                data = os.read(self._answer, PIECE)
            except BlockingIOError:
                return
            if not data:
                self._loop.remove_reader(self._answer)
                self._on_broken("the worker closed its answer pipe")
                return
            if not self._has_part:
                frame = wire.whole_frame(data)
                if frame is not None:
                    # No second read: it costs a system call, and epoll reports what is left.
                    self._on_frame(*frame)
                    return
            try:
                frames = self._decoder.feed(data)
            except wire.WireError as exc:
                self._loop.remove_reader(self._answer)
                self._on_no_frame(f"the worker sent {exc}")
                return
            for head, body in frames:
                self._on_frame(head, body)
            if self._decoder.failed is not None:
                self._loop.remove_reader(self._answer)
                self._on_no_frame(f"the worker sent {self._decoder.failed}")
                return
            self._has_part = len(self._decoder) > 0
            if not self._has_part:
                return

    def pause(self) -> None:
        """Read nothing until `resume`: back-pressure on a worker whose client is slow."""
        if self._answer >= 0 and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._answer)

    def resume(self) -> None:
        """Read again."""
        if self._answer >= 0 and self._paused:
            self._paused = False
            self._loop.add_reader(self._answer, self.receive)

    def close(self) -> None:
        """Close both pipes; a worker that still lives reads the end of its request pipe."""
        if self._answer < 0:
            return
        self._loop.remove_reader(self._answer)
        self._loop.remove_writer(self._request)
        os.close(self._answer)
        os.close(self._request)
        self._answer = -1
