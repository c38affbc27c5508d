"""This module is bodies: what a request brings, read as far as it may be, as fast as it must be.

A body has so many seconds, and more for what has come; it is counted while it arrives, and refused
before that where it says itself that it is too large.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from aiohttp import HttpVersion11, web, web_protocol

from miniλ.errors import EntityTooLarge, InvalidRequestContent, RequestTimedOut

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# A body may take this long, and a second more for each so many bytes that have come.
BODY_SECONDS = 20.0
BODY_RATE = 64 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BrokenBody(web_protocol.RequestPayloadError, TimeoutError):
    """A body that breaks the rules of HTTP before its end; str() says which.

    It is a TimeoutError for aiohttp, which reads on after an answer, and is calm about these only.
    """


async def read(request: web.BaseRequest, limit: int, what: str) -> bytes:
    """Return the body of a request, of `limit` bytes at most.

    `what` is the operation, for the message. Raises `EntityTooLarge`, before anything is read
    where the client said the length, `RequestTimedOut`, and `InvalidRequestContent` where nobody
    can say where the body ends.
    """
    content = request.content
    if content.is_eof():
        # Nearly always: a small body comes with its head.
        _check_declared(request, limit, what)
        body = content.read_nowait(-1) if content.total_bytes else b""
        if len(body) > limit:
            raise too_large(limit, what)
        return body
    pieces: list[bytes] = []
    await _receive(request, limit, what, pieces.append)
    return b"".join(pieces)


async def save(request: web.BaseRequest, limit: int, what: str, target: Path) -> str:
    """Write the body of a request to a file as it arrives, and return its sha256 as hex.

    Raises as `read` does.
    """
    digest = hashlib.sha256()
    with target.open("xb") as file:

        def take(piece: bytes) -> None:
            file.write(piece)
            digest.update(piece)

        await _receive(request, limit, what, take)
    return digest.hexdigest()


async def _receive(
    request: web.BaseRequest, limit: int, what: str, take: Callable[[bytes], object]
) -> None:
    """Give the body of a request to `take`, piece by piece, as long as it comes fast enough."""
    _check_declared(request, limit, what)
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS) as patience:
            began = asyncio.get_running_loop().time()
            await _expected(request)
            while piece := await request.content.readany():
                size += len(piece)
                if size > limit:
                    raise too_large(limit, what)
                take(piece)
                patience.reschedule(began + BODY_SECONDS + size / BODY_RATE)
    except web_protocol.RequestPayloadError as exc:
        msg = f"The request's body is broken after {size} bytes: {first_line(exc)}"
        raise InvalidRequestContent(msg) from exc
    except TimeoutError as exc:
        msg = f"Only {size} bytes of the request's body came in time"
        raise RequestTimedOut(msg) from exc


def _check_declared(request: web.BaseRequest, limit: int, what: str) -> None:
    """Refuse a body that says itself that it is too large, or is in a coding of others' making."""
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit, what)
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.lower() != "chunked" or request.version < HttpVersion11):
        # Whoever passed it on may have read it in another way (RFC 9112, 6.1).
        msg = f"Transfer-Encoding must be chunked, in HTTP/1.1, got {coding[:80]!r}"
        request.content.set_exception(BrokenBody(msg))
        raise InvalidRequestContent(msg)


async def _expected(request: web.BaseRequest) -> None:
    """Let a client send that first asks whether it may (curl does, from 1 MB on)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        # What was written is no part of the answer.
        request.writer.output_size = 0


def too_large(limit: int, what: str) -> EntityTooLarge:
    """Return the error for a request above what its operation takes."""
    return EntityTooLarge(f"Request must be smaller than {limit} bytes for the {what} operation")


def first_line(text: object) -> str:
    """Return what the parser says without the bytes that it shows."""
    return str(text).partition("\n")[0].rstrip(":")
