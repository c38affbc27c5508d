"""What a worker prints: one pipe for stdout and stderr, drained when an answer comes.

Rule 1: the log of an invocation is complete when its answer is. The worker flushes before it
answers, so draining the pipe after the answer yields all of it, also what a child process
printed before.

Rule 2: memory is bounded. Above the limit the first and the last half stay, and the bytes between
them are only counted. The pipe is always read, so a function that prints without end is slowed down
by the pipe, and never stuck.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

PIECE = 65536
# A drain reads at most this: a worker that prints faster than it is read must not hold the loop.
DRAIN = 4 * 1024 * 1024


class LogPipe:
    """The supervisor's end of a worker's stdout and stderr."""

    __slots__ = (
        "_dropped",
        "_first",
        "_kept",
        "_last",
        "_limit",
        "_loop",
        "_pipe",
        "_poll",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pipe: int, limit: int) -> None:
        os.set_blocking(pipe, False)
        self._loop = loop
        self._pipe = pipe
        self._limit = limit
        self._first = b""
        self._last: deque[bytes] = deque()
        self._kept = 0
        self._dropped = 0
        # Polled before each read: the pipe is usually empty, and an exception would cost more.
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        self._poll: Callable[[float], list[tuple[int, int]]] = poll.poll
        loop.add_reader(pipe, self._read)

    def _read(self) -> int:
        """Read one piece; return its length, 0 if the pipe is empty."""
        try:
            data = os.read(self._pipe, PIECE)
        except BlockingIOError:
            return 0
        if not data:
            self._loop.remove_reader(self._pipe)
            return 0
        self._keep(data)
        return len(data)

    def _keep(self, data: bytes) -> None:
        half = self._limit // 2
        room = half - len(self._first)
        if room > 0:
            self._first += data[:room]
            data = data[room:]
            if not data:
                return
        self._last.append(data)
        self._kept += len(data)
        while self._kept - len(self._last[0]) >= half:
            size = len(self._last.popleft())
            self._kept -= size
            self._dropped += size

    def drain(self) -> bytes:
        """Return what was printed since the last call."""
        read = 0
        while self._poll(0) and read < DRAIN:
            size = self._read()
            read += size
            if size < PIECE:
                break
        if not self._first:
            return b""
        text = self._first
        if self._last:
            last = b"".join(self._last)
            cut = len(last) - self._limit // 2
            if cut > 0:
                last = last[cut:]
                self._dropped += cut
            if self._dropped:
                text += b"\n[minilambda: %d bytes of log left out]\n" % self._dropped
            text += last
            self._last.clear()
            self._kept = self._dropped = 0
        self._first = b""
        return text

    def close(self) -> None:
        """Close the pipe."""
        if self._poll is not _nothing:
            self._poll = _nothing
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)


def _nothing(_timeout: float) -> list[tuple[int, int]]:
    """Poll a closed pipe: it has no events. Its number may be another file's by now."""
    return []
