"""Uploads: requests that carry an archive as base64 inside JSON.

A package of 50 MB is 67 MB of JSON. It is written to a file as it arrives, read through a memory
map, and its archive is decoded into another file in pieces of 1 MB, so that a deployment costs
disk and not memory. All of it runs on a thread.

Rule: a document is not decoded before its size without the archive is known to be below 1 MB. A
document of 70 MB can be millions of objects, and gigabytes of memory.
"""

from __future__ import annotations

import asyncio
import binascii
import mmap
import uuid
from typing import TYPE_CHECKING, Any

import msgspec

from miniλ.errors import EntityTooLarge, SerializationFailed
from miniλ.gateway.http import bodies
from miniλ.store import packages
from miniλ.store.packages import Upload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aiohttp import web

# The operations with an archive, and the member of the document that has it; "" is the document.
PARTS: dict[str, str] = {
    "CreateFunction": "Code",
    "UpdateFunctionCode": "",
    "PublishLayerVersion": "Content",
}
# The most bytes that AWS takes in such a request (recorded of CreateFunction); `MAX_ZIPPED` limits
# the archive itself.
LIMIT = 70_167_211
# The most bytes beside the archive: the limit of a request without one.
MAX_REST = 1024 * 1024
ZIP_FILE = "ZipFile"
# Bytes of base64 that are decoded at a time.
PIECE = 1 << 20
# An escape in a string of JSON is as long as this: \\u002B.
_ESCAPE = 6


class _Part(msgspec.Struct, frozen=True, rename="pascal"):
    """The member that may be an archive. msgspec skips other members without making objects."""

    zip_file: msgspec.Raw = msgspec.Raw()


class _Request(_Part, frozen=True, rename="pascal"):
    code: _Part | None = None
    content: _Part | None = None


_request = msgspec.json.Decoder(_Request).decode
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


async def receive(
    request: web.BaseRequest,
    operation: str,
    directory: Path,
    verify: Callable[[str], None] | None = None,
) -> tuple[Any, Upload | None]:
    """Return the document of a request without its archive, and the archive as an upload.

    The caller removes its file, if it is still there. `verify` gets the sha256 of the body (hex).
    Raises `EntityTooLarge`, `SerializationFailed`, and what `bodies.save` and `verify` raise.
    """
    name = uuid.uuid4().hex
    body, archive = directory / f"{name}.json", directory / f"{name}.zip"
    try:
        digest = await bodies.save(request, LIMIT, operation, body)
        if verify is not None:
            verify(digest)
        document, has_archive = await asyncio.to_thread(_split, body, archive, operation)
    except BaseException:
        archive.unlink(missing_ok=True)
        raise
    finally:
        body.unlink(missing_ok=True)
    return document, Upload(archive) if has_archive else None


def _split(body: Path, archive: Path, operation: str) -> tuple[Any, bool]:
    """Write the archive of a request into a file; return the document, and if it had one."""
    if not body.stat().st_size:
        return None, False
    part = PARTS[operation]
    with body.open("rb") as file:
        # Closed with the last view of it, which may be in the traceback of an error.
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        text = _archive(whole, part)
        size = len(whole) - len(text)
        if size > MAX_REST:
            msg = f"Beside its {ZIP_FILE} a request must be smaller than {MAX_REST} bytes"
            raise EntityTooLarge(f"{msg} for the {operation} operation, got {size}")
        document = _rest(whole, part) if text else msgspec.json.decode(whole)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        msg = f"Could not parse request body into json: {exc}"
        raise SerializationFailed(msg) from exc
    if text:
        _decode(text[1:-1], archive)
        if archive.stat().st_size > packages.MAX_ZIPPED:
            msg = f"Zipped size must be smaller than {packages.MAX_ZIPPED} bytes"
            raise EntityTooLarge(msg)
    return document, bool(text)


def _archive(whole: mmap.mmap, part: str) -> memoryview:
    """Return the string of JSON that is the archive, with its quotes; an empty view for none.

    A value that is no string, or a wrong member, stays in the document, and `validate` refuses it.
    """
    try:
        request = _request(whole)
    except msgspec.ValidationError:
        return memoryview(b"")
    holder = {"": request, "Code": request.code, "Content": request.content}[part]
    text = memoryview(b"" if holder is None else holder.zip_file)
    return text if text.nbytes and text[0] == ord('"') else text[:0]


def _rest(whole: mmap.mmap, part: str) -> dict[str, Any]:
    """Return the document without the archive that is in it."""
    fields = _fields(whole)
    inner = _fields(fields.pop(part)) if part else fields
    del inner[ZIP_FILE]
    document = {name: msgspec.json.decode(raw) for name, raw in fields.items()}
    if part:
        document[part] = {name: msgspec.json.decode(raw) for name, raw in inner.items()}
    return document


def _decode(text: memoryview, archive: Path) -> None:
    """Decode base64, as it is between the quotes of a string of JSON, into a file."""
    escape = left = b""
    is_over = False
    try:
        with archive.open("xb") as file:
            for start in range(0, len(text), PIECE):
                piece = escape + bytes(text[start : start + PIECE])
                escape = b""
                if b"\\" in piece:
                    # Some clients escape a slash as \\/ and a plus as \\u002B; the next piece may
                    # have the rest of an escape.
                    if start + PIECE < len(text):
                        cut = piece.rfind(b"\\", 1 - _ESCAPE)
                        piece, escape = (piece[:cut], piece[cut:]) if cut >= 0 else (piece, b"")
                    piece = msgspec.json.decode(b'"%b"' % piece, type=str).encode()
                left += piece
                whole = left[: len(left) - len(left) % 4]
                left = left[len(whole) :]
                if is_over and (whole or left):
                    raise binascii.Error("Excess data after padding")
                file.write(binascii.a2b_base64(whole, strict_mode=True))
                is_over = is_over or whole.endswith(b"=")
            file.write(binascii.a2b_base64(left, strict_mode=True))
    except (msgspec.DecodeError, ValueError) as exc:  # binascii.Error is one
        msg = f"STRING_VALUE can not be converted to an Blob: {exc}"
        raise SerializationFailed(msg) from exc
