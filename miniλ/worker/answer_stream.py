"""Answer streams: an answer is sent on to its client while the function still makes it.

The worker puts pieces in, the gateway takes them out. If more than `PAUSE_ABOVE` bytes wait, the
worker's pipe is not read until half of them are taken. This back-pressure bounds the memory that a
slow client costs, and slows down the function that answers it, and no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# Lambda quota: a streamed response may have 200 MB (since July 2025).
MAX_STREAM = 200 * 1024 * 1024
# Bytes that may wait to be taken before the worker's pipe is paused.
PAUSE_ABOVE = 1024 * 1024


class AnswerStream:
    """The pieces of one answer, in order."""

    def __init__(self) -> None:
        # The Content-Type that came with the first piece, "" before it or without one.
        self.content_type = ""
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._total = 0
        self._ended = False
        self._dropped = False
        self._wake: asyncio.Future[None] | None = None
        self._pause: Callable[[], None] | None = None
        self._resume: Callable[[], None] | None = None
        self._paused = False

    def attach(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Set how the pipe that the pieces come from is paused and resumed."""
        self._pause, self._resume = pause, resume

    def put(self, piece: bytes, content_type: str = "") -> bool:
        """Add a piece; return whether the answer is still within Lambda's 200 MB."""
        self.content_type = self.content_type or content_type
        self._total += len(piece)
        if self._total > MAX_STREAM:
            return False
        if not self._dropped:
            self._pieces.append(piece)
            self._waiting += len(piece)
            if self._waiting > PAUSE_ABOVE and not self._paused and self._pause is not None:
                self._paused = True
                self._pause()
            self._notify()
        return True

    def end(self) -> None:
        """Mark the answer as complete."""
        self._ended = True
        self._notify()

    def drop(self) -> None:
        """Drop the rest, whose client has left; the function runs on without back-pressure."""
        self._dropped = True
        self._pieces.clear()
        self._waiting = 0
        self._resume_pipe()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _resume_pipe(self) -> None:
        if self._paused and self._resume is not None:
            self._paused = False
            self._resume()

    async def wait_for_first_piece(self) -> None:
        """Wait for the first piece, or for the end of an answer without one."""
        while not self._pieces and not self._ended:
            await self._change()

    async def _change(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces as they come, for one reader."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._waiting -= len(piece)
                if self._waiting <= PAUSE_ABOVE // 2:
                    self._resume_pipe()
                yield piece
            if self._ended:
                return
            await self._change()
