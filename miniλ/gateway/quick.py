"""This module is the quick answer: a small one, to a plain invocation, in one write.

aiohttp takes a third of what a warm invocation over HTTP costs to put an answer together, header by
header. Here the head is one text, since nothing in it is up to anybody else.

Rule: only what is always so is done here. Whoever speaks HTTP/1.0, wants the connection closed, or
gets so much that writing may have to wait, is answered by aiohttp.
"""

from __future__ import annotations

import time
from email.utils import formatdate

from aiohttp import HttpVersion11, web

# What a socket takes at once, as a rule.
MOST = 32 * 1024

_date = (0, "")


class Quick(web.StreamResponse):
    """An answer that is all there, head and body."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._content = content
        self._is_kept: bool | None = None

    @property
    def keep_alive(self) -> bool | None:
        """Whether the connection stays; aiohttp asks when the answer is out."""
        return self._is_kept

    async def prepare(self, request: web.BaseRequest) -> None:
        """Send it."""
        transport = request.transport
        if transport is None or transport.is_closing():
            msg = "The client has left"
            raise ConnectionResetError(msg)
        self._is_kept = True
        transport.write(self._content)

    async def write_eof(self, data: bytes = b"") -> None:
        """Be done: all of it was sent at once."""


def fits(request: web.BaseRequest, body: bytes) -> bool:
    """Return whether a request may be answered like this."""
    return len(body) <= MOST and request.version == HttpVersion11 and request.keep_alive


def answer(head: str, body: bytes) -> Quick:
    """Return an answer with status 200; `head` are header lines, each with its end."""
    global _date  # noqa: PLW0603 - one text for all answers of a second
    now = int(time.time())
    second, text = _date
    if second != now:
        text = formatdate(now, usegmt=True)
        _date = (now, text)
    return Quick(
        f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\nDate: {text}\r\n\r\n".encode()
        + body
    )
