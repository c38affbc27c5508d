"""The wire: frames between a supervisor and one worker, to and from bytes.

Rule 1: no I/O in this file. Bytes come in through `Decoder.feed`; the owner of the descriptor
reads them.

Rule 2: a length is checked before memory is allocated for it. A length above Lambda's limits is a
`WireError`, and ends the worker.

A frame is

    u32 little-endian length of head | u32 length of body | head: a small JSON object | body

The body is the payload, unchanged: the supervisor never parses it. `workers/PROTOCOL.md` is the
same page for authors of a worker in another language.
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


# A frame without a head is skipped: it only wakes a worker that sleeps in read(2).
NOTHING = PREFIX.pack(0, 0)


class WireError(Exception):
    """The bytes are not frames: their sender cannot be trusted with another invocation."""


class InitFrame(msgspec.Struct, frozen=True, tag_field="type", tag="init", omit_defaults=True):
    """Supervisor to worker, first and once: its function. The body is the environment as JSON."""

    handler: str
    task_root: str
    arn: str
    # Whether answers carry `max_rss_kb`: only if no cgroup counts memory.
    measure_rss: bool = False
    # The directory of the function's layers, "" without layers.
    layers: str = ""


class InvokeFrame(msgspec.Struct, frozen=True, tag_field="type", tag="invoke", omit_defaults=True):
    """Supervisor to worker: run the handler on the body."""

    id: str
    deadline_ms: int
    trace_id: str | None = None
    client_context: str | None = None
    identity: str | None = None
    # The ARN that it was invoked by, if that is not InitFrame's: a version's or an alias's.
    arn: str | None = None
    # Whether the answer may come in chunks.
    stream: bool = False
    # Whether the worker is pinned to one core, and has to unpin itself (see `affinity`).
    pinned: bool = False


class ReadyFrame(msgspec.Struct, frozen=True, tag_field="type", tag="ready"):
    """Worker to supervisor: the init phase is over, the handler is loaded."""


# Up to 1 PiB: a greater number is a lie, and breaks the protocol.
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
    """Worker to supervisor: the body is the next piece of an answer that may come in chunks."""

    id: str
    # The Content-Type of the answer; with its first piece only.
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

    Else None, also for bytes that are no frame: `Decoder.feed` raises what is wrong with them.
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
    """Turns the bytes of a worker into frames, in whichever pieces they arrive."""

    __slots__ = ("_buffer", "_needed", "failed")

    def __init__(self) -> None:
        # Set if frames came before bytes that are no frame: the next `feed` raises it.
        self.failed: WireError | None = None
        self._buffer = bytearray()
        self._needed = PREFIX.size

    def __len__(self) -> int:
        """Count the bytes that wait for the rest of their frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[FromWorker, bytes]]:
        """Take bytes; return the frames that are complete now.

        Raises `WireError` for bytes that are no frame; after that the decoder is of no more use.
        If frames come before such bytes, they are returned, and the error is in `failed`.
        """
        if self.failed is not None:
            raise self.failed
        # A large frame comes in many reads, and is parsed once, when all of it is here.
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
