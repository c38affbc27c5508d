"""This module is the wire: frames between a supervisor and one worker.

Rule 1: no I/O in this file. Bytes come in through `Decoder.feed`; whoever owns the
descriptor does the waiting.

Rule 2: a length is checked before anything is allocated for it. A worker that claims more
than Lambda allows is not a worker of ours any more, and the decoder says so by raising.

A frame is

    u32 little-endian length of head | u32 length of body | head: a small JSON object | body

The body is the payload as it came: the supervisor never opens it. `workers/PROTOCOL.md` is
the same page for those who write a worker in another language.
"""

from __future__ import annotations

import struct
from typing import Annotated, TypeAlias

import msgspec

PREFIX = struct.Struct("<II")

# 6 MB and 100 bytes, what Lambda's runtime API lets a function answer (RIE, interop/model.go).
MAX_BODY = 6 * 1024 * 1024 + 100

# A head holds ids and a client context of at most 3,583 bytes of base64.
MAX_HEAD = 64 * 1024


# A frame without a head says nothing and is skipped: it wakes a worker that sleeps in read(2).
NOTHING = PREFIX.pack(0, 0)


class WireError(Exception):
    """The bytes are not frames: whoever sent them cannot be trusted with another one."""


class InitFrame(msgspec.Struct, frozen=True, tag_field="type", tag="init", omit_defaults=True):
    """Supervisor to worker, first and once: who you are. The body is the environment as JSON."""

    handler: str
    task_root: str
    arn: str
    # Where no cgroup counts memory, the worker says with each answer what it has used.
    measure_rss: bool = False
    # Where the function's layers are, if it has any.
    layers: str = ""


class InvokeFrame(msgspec.Struct, frozen=True, tag_field="type", tag="invoke", omit_defaults=True):
    """Supervisor to worker: run the handler on the body."""

    id: str
    deadline_ms: int
    trace_id: str | None = None
    client_context: str | None = None
    identity: str | None = None
    # Only where it was asked for by another name than InitFrame's: by a version or an alias.
    arn: str | None = None
    # Whether the answer may come in chunks.
    stream: bool = False
    # The worker was held to one core to be woken: it is to let go of itself (see `cores`).
    pinned: bool = False


class ReadyFrame(msgspec.Struct, frozen=True, tag_field="type", tag="ready"):
    """Worker to supervisor: the init phase is over, the handler is loaded."""


# More memory than any machine has is no figure that a report should carry.
Kilobytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class ResponseFrame(msgspec.Struct, frozen=True, tag_field="type", tag="response"):
    """Worker to supervisor: the body is what the handler returned."""

    id: str
    max_rss_kb: Kilobytes = 0


class FailureFrame(msgspec.Struct, frozen=True, tag_field="type", tag="failure"):
    """Worker to supervisor: the body is the failure as Lambda shapes it, as JSON.

    During the init phase the id is empty.
    """

    id: str = ""
    max_rss_kb: Kilobytes = 0


class ChunkFrame(msgspec.Struct, frozen=True, tag_field="type", tag="chunk"):
    """Worker to supervisor: the body is the next piece of the answer, where it may come so."""

    id: str
    # What the answer is, with its first piece.
    content_type: str = ""


FromWorker: TypeAlias = ReadyFrame | ResponseFrame | FailureFrame | ChunkFrame
ToWorker: TypeAlias = InitFrame | InvokeFrame

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FromWorker).decode


def encode(head: ToWorker | FromWorker, body: bytes = b"") -> bytes:
    """Return the frame that carries `head` and `body`."""
    encoded = _encode(head)
    return PREFIX.pack(len(encoded), len(body)) + encoded + body


def whole_frame(data: bytes) -> tuple[FromWorker, bytes] | None:
    """Return head and body if `data` is one whole frame, as one read nearly always is.

    Anything else is None, also what is no frame: `Decoder.feed` says what is wrong with it.
    """
    if len(data) < PREFIX.size:
        return None
    head_length, body_length = PREFIX.unpack_from(data)
    body_start = PREFIX.size + head_length
    if body_start + body_length != len(data) or head_length > MAX_HEAD:
        return None
    try:
        return _decode(data[PREFIX.size : body_start]), data[body_start:]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Decoder:
    """Turns what a worker wrote into frames, whatever pieces it arrives in."""

    __slots__ = ("_buffer", "_needed", "failed")

    def __init__(self) -> None:
        # Set where good frames came before bytes that are none: the next `feed` raises it.
        self.failed: WireError | None = None
        self._buffer = bytearray()
        self._needed = PREFIX.size

    def __len__(self) -> int:
        """Count the bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[FromWorker, bytes]]:
        """Take bytes, return the frames that are complete now.

        Raises `WireError` for anything that is not a frame of ours; after that the decoder
        is of no more use. What was good before it is returned first, and `failed` says so.
        """
        if self.failed is not None:
            raise self.failed
        # A large frame comes in many reads, and is looked at again only when all of it is here.
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return []
            data = bytes(self._buffer)
        frames: list[tuple[FromWorker, bytes]] = []
        start = 0
        self._needed = PREFIX.size
        while len(data) - start >= PREFIX.size:
            head_length, body_length = PREFIX.unpack_from(data, start)
            if head_length > MAX_HEAD or body_length > MAX_BODY:
                msg = f"a frame of {head_length} + {body_length} bytes is beyond the limits"
                return self._fail(WireError(msg), frames)
            body_start = start + PREFIX.size + head_length
            end = body_start + body_length
            if end > len(data):
                self._needed = end - start
                break
            try:
                head = _head(data[start + PREFIX.size : body_start])
            except WireError as exc:
                return self._fail(exc, frames)
            frames.append((head, data[body_start:end]))
            start = end
        if start < len(data):
            self._buffer = bytearray(data[start:])
        elif self._buffer:
            self._buffer = bytearray()
        return frames

    def _fail(
        self, error: WireError, frames: list[tuple[FromWorker, bytes]]
    ) -> list[tuple[FromWorker, bytes]]:
        self.failed = error
        if not frames:
            raise error
        return frames


def _head(data: bytes) -> FromWorker:
    try:
        head: FromWorker = _decode(data)
    # UnicodeDecodeError is not a DecodeError: msgspec lets it through on bad UTF-8. A deeply
    # nested head is a RecursionError.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        msg = f"a head that is none of ours: {data[:80]!r}"
        raise WireError(msg) from exc
    return head
