"""This module is streams: an answer that is sent on while it is still being made.

The worker's end puts pieces in, whoever sends them on takes them out. Between them is little: once
so much waits, the worker's pipe is not read until it has gone, so a slow client costs no memory,
and holds nobody up but the one function that writes to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# Lambda quota: a streamed response may have 200 MB (since July 2025).
MAX_STREAM = 200 * 1024 * 1024
# So much waits to be taken before the worker has to.
WAITING = 1024 * 1024


class AnswerStream:
    """The pieces of one answer, in order."""

    def __init__(self) -> None:
        # What the function says that it is, once it has begun.
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
        """Say how the pipe that the pieces come from is held, and let go."""
        self._pause, self._resume = pause, resume

    def put(self, piece: bytes, content_type: str = "") -> bool:
        """Take a piece; return whether there may be so much."""
        self.content_type = self.content_type or content_type
        self._total += len(piece)
        if self._total > MAX_STREAM:
            return False
        if not self._dropped:
            self._pieces.append(piece)
            self._waiting += len(piece)
            if self._waiting > WAITING and not self._paused and self._pause is not None:
                self._paused = True
                self._pause()
            self._notify()
        return True

    def end(self) -> None:
        """Say that no more will come."""
        self._ended = True
        self._notify()

    def drop(self) -> None:
        """Say that nobody takes the rest: the function may go on, and is not held."""
        self._dropped = True
        self._pieces.clear()
        self._waiting = 0
        self._let_go()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _let_go(self) -> None:
        if self._paused and self._resume is not None:
            self._paused = False
            self._resume()

    async def begins(self) -> None:
        """Wait for the first piece, or for the end."""
        while not self._pieces and not self._ended:
            await self._something()

    async def _something(self) -> None:
        self._wake = asyncio.get_running_loop().create_future()
        await self._wake

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces as they come, to one taker."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._waiting -= len(piece)
                if self._waiting <= WAITING // 2:
                    self._let_go()
                yield piece
            if self._ended:
                return
            await self._something()
