"""Bodies of requests, within their limits of size and rate.

A body has `BODY_SECONDS`, and one second more for each `BODY_RATE` bytes that have arrived. Its
bytes are counted while they arrive. A Content-Length above the limit is refused before any of the
body is read.
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

# Seconds for a body, and how many bytes of it earn one second more.
BODY_SECONDS = 20.0
BODY_RATE = 64 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BrokenBody(web_protocol.RequestPayloadError, TimeoutError):
    """A body that violates HTTP before its end; str() says how.

    It is a TimeoutError for aiohttp's sake: after an answer aiohttp reads the rest of the body, and
    logs a traceback for any other exception from there.
    """


async def read(request: web.BaseRequest, limit: int, operation: str) -> bytes:
    """Return the body of a request, of `limit` bytes at most.

    `operation` is for the message. Raises `EntityTooLarge`, before anything is read if the
    client sent a length; `RequestTimedOut`; and `InvalidRequestContent` for a body whose end is
    ambiguous.
    """
    content = request.content
    if content.is_eof():
        # The usual case: a small body arrives with its head.
        _check_declared(request, limit, operation)
        body = content.read_nowait(-1) if content.total_bytes else b""
        if len(body) > limit:
            raise too_large(limit, operation)
        return body
    pieces: list[bytes] = []
    await _receive(request, limit, operation, pieces.append)
    return b"".join(pieces)


async def save(request: web.BaseRequest, limit: int, operation: str, target: Path) -> str:
    """Write the body of a request to a file as it arrives, and return its sha256 as hex.

    Raises as `read` does.
    """
    digest = hashlib.sha256()
    with target.open("xb") as file:

        def take(piece: bytes) -> None:
            file.write(piece)
            digest.update(piece)

        await _receive(request, limit, operation, take)
    return digest.hexdigest()


async def _receive(
    request: web.BaseRequest, limit: int, operation: str, take: Callable[[bytes], object]
) -> None:
    """Pass the body of a request to `take`, piece by piece, while it keeps to its rate."""
    _check_declared(request, limit, operation)
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS) as deadline:
            start = asyncio.get_running_loop().time()
            await _send_continue(request)
            while piece := await request.content.readany():
                size += len(piece)
                if size > limit:
                    raise too_large(limit, operation)
                take(piece)
                deadline.reschedule(start + BODY_SECONDS + size / BODY_RATE)
    except web_protocol.RequestPayloadError as exc:
        msg = f"The request's body is broken after {size} bytes: {first_line(exc)}"
        raise InvalidRequestContent(msg) from exc
    except TimeoutError as exc:
        msg = f"Only {size} bytes of the request's body came in time"
        raise RequestTimedOut(msg) from exc


def _check_declared(request: web.BaseRequest, limit: int, operation: str) -> None:
    """Refuse a body whose headers declare too large a length, or a coding other than chunked."""
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(limit, operation)
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.lower() != "chunked" or request.version < HttpVersion11):
        # A proxy in between may have read it differently: request smuggling (RFC 9112, 6.1).
        msg = f"Transfer-Encoding must be chunked, in HTTP/1.1, got {coding[:80]!r}"
        request.content.set_exception(BrokenBody(msg))
        raise InvalidRequestContent(msg)


async def _send_continue(request: web.BaseRequest) -> None:
    """Send 100 Continue to a client that waits for it before its body (curl, from 1 MB on)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        # `finish_response` takes any output for the beginning of an answer; this is none.
        request.writer.output_size = 0


def too_large(limit: int, operation: str) -> EntityTooLarge:
    """Return the error for a request above what its operation takes."""
    return EntityTooLarge(
        f"Request must be smaller than {limit} bytes for the {operation} operation"
    )


def first_line(text: object) -> str:
    """Return a message of aiohttp's parser without the bytes of the request that follow it."""
    return str(text).partition("\n")[0].rstrip(":")
