"""The head of a streamed answer: status and headers, taken off the first bytes of the stream.

Rule 1: no I/O in this file. Bytes come in through `StreamHead.feed`, in pieces of any size.

Rule 2: what a function can make us buffer is bounded: a head above 64 KB is `BAD_GATEWAY`.

A stream with the content type of `CONTENT_TYPE` is

    JSON {"statusCode", "headers", "cookies"} | 8 NUL bytes | body

and a stream with any other is the body of a 200. Source: Lambda's runtime interface clients for
Node.js and Rust (HttpResponseStream; MetadataPrelude, which is the head).
"""

from __future__ import annotations

from miniλ.gateway.urls.payloads import BAD_GATEWAY, UrlAnswer, header, streamed_head

CONTENT_TYPE = "application/vnd.awslambda.http-integration-response"
SEPARATOR = b"\0" * 8
MAX_HEAD = 64 * 1024


class StreamHead:
    """The first pieces of one streamed answer, parsed into its head and the start of its body."""

    __slots__ = ("_buffer", "_content_type")

    def __init__(self, content_type: str = "") -> None:
        """Begin a stream; the content type is the one that the function's runtime sent with it."""
        self._content_type = content_type or "application/octet-stream"
        self._buffer = bytearray()

    def feed(self, data: bytes) -> tuple[UrlAnswer, bytes] | None:
        """Take a piece; return the head and the start of the body, or None if the head goes on.

        Do not feed more after a head: the rest of the stream is all body. After `BAD_GATEWAY`,
        which has a body of its own, drop the rest of the stream.
        """
        if self._content_type.partition(";")[0].strip().lower() != CONTENT_TYPE:
            return _head_and_start(_plain(self._content_type), data)
        # The separator may be split over two pieces.
        start = max(0, len(self._buffer) - len(SEPARATOR) + 1)
        self._buffer += data
        end = self._buffer.find(SEPARATOR, start, MAX_HEAD + len(SEPARATOR))
        if end >= 0:
            head = streamed_head(bytes(self._buffer[:end]))
            return _head_and_start(head, bytes(self._buffer[end + len(SEPARATOR) :]))
        if len(self._buffer) >= MAX_HEAD + len(SEPARATOR):
            return BAD_GATEWAY, b""
        return None

    def end(self) -> UrlAnswer:
        """Return the answer of a stream that ended before `feed` returned a head."""
        result = self.feed(b"")
        return BAD_GATEWAY if result is None else result[0]


def _head_and_start(head: UrlAnswer, rest: bytes) -> tuple[UrlAnswer, bytes]:
    return head, b"" if head is BAD_GATEWAY else rest


def _plain(content_type: str) -> UrlAnswer:
    try:
        return UrlAnswer(200, (header("Content-Type", content_type),))
    except ValueError:
        return BAD_GATEWAY
