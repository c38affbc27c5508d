"""This module is the prelude of a streamed answer: what comes before its body, in any pieces.

Rule 1: no I/O in this file. The pieces come in through `StreamHead.feed`.

Rule 2: what a function may make us keep is bounded: a prelude above 64 KB is `BAD_GATEWAY`.

A stream with the content type of `CONTENT_TYPE` is

    JSON {"statusCode", "headers", "cookies"} | 8 NUL bytes | body

and any other is the body, of a 200. Source: Lambda's runtime interface clients for Node.js and
Rust (HttpResponseStream, MetadataPrelude).
"""

from __future__ import annotations

from miniλ.gateway.urls.payloads import BAD_GATEWAY, UrlAnswer, header, streamed_head

CONTENT_TYPE = "application/vnd.awslambda.http-integration-response"
SEPARATOR = b"\0" * 8
MAX_PRELUDE = 64 * 1024


class StreamHead:
    """Turns the first pieces of one streamed answer into its head and the start of its body."""

    __slots__ = ("_buffer", "_content_type")

    def __init__(self, content_type: str = "") -> None:
        """Begin with the content type that the function's runtime sent with the stream."""
        self._content_type = content_type or "application/octet-stream"
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[UrlAnswer, bytes] | None:
        """Take a piece; return the head and what of the body came with it, or None if more is due.

        After a head this object is of no more use: what comes then is all body. With
        `BAD_GATEWAY`, which has a body of its own, the rest of the stream is to be dropped.
        """
        if self._content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
            return _begun(_plain(self._content_type), data)
        # The separator may have come in two pieces.
        start = max(0, len(self._buffer) - len(SEPARATOR) + 1)
        self._buffer += data
        end = self._buffer.find(SEPARATOR, start, MAX_PRELUDE + len(SEPARATOR))
        if end >= 0:
            head = streamed_head(bytes(self._buffer[:end]))
            return _begun(head, bytes(self._buffer[end + len(SEPARATOR) :]))
        if len(self._buffer) >= MAX_PRELUDE + len(SEPARATOR):
            return BAD_GATEWAY, b""
        return None

    def end(self) -> UrlAnswer:
        """Return the answer of a stream that ended before `feed` had a head."""
        complete = self.feed(b"")
        return BAD_GATEWAY if complete is None else complete[0]


def _begun(head: UrlAnswer, rest: bytes) -> tuple[UrlAnswer, bytes]:
    return head, b"" if head is BAD_GATEWAY else rest


def _plain(content_type: str) -> UrlAnswer:
    try:
        return UrlAnswer(200, (header("Content-Type", content_type),))
    except ValueError:
        return BAD_GATEWAY
