"""Tests of the head of a streamed answer, which may come in pieces of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.gateway.urls.payloads import BAD_GATEWAY, UrlAnswer
from miniλ.gateway.urls.stream_head import CONTENT_TYPE, MAX_HEAD, SEPARATOR, StreamHead

quick = settings(
    deadline=None, database=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)

OCTETS = ("Content-Type", "application/octet-stream")

DOCUMENT = b'{"statusCode":201,"headers":{"Content-Type":"text/html"},"cookies":["a=1","b=2"]}'
HEAD = UrlAnswer(201, (("Content-Type", "text/html"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")))


def test_a_head_comes_before_eight_nuls() -> None:
    """Status, headers and cookies come before eight NULs, the body after them."""
    stream_head = StreamHead(CONTENT_TYPE)

    assert (HEAD, b"<p>") == stream_head.feed(DOCUMENT + SEPARATOR + b"<p>")


@quick
@given(body=st.binary(max_size=20), data=st.data())
def test_a_head_comes_in_any_pieces(body: bytes, data: st.DataObject) -> None:
    """For any cuts of the stream the head is complete with the last NUL, and no byte is lost."""
    stream = DOCUMENT + SEPARATOR + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    stream_head = StreamHead(CONTENT_TYPE)
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    count = 0
    complete = None
    while complete is None:
        complete = stream_head.feed(pieces[count])
        count += 1

    head, rest = complete
    assert HEAD == head
    assert body == rest + b"".join(pieces[count:])
    assert len(b"".join(pieces[: count - 1])) < len(DOCUMENT + SEPARATOR)


def test_a_head_comes_byte_by_byte() -> None:
    """There is no head before the eighth NUL."""
    stream_head = StreamHead(CONTENT_TYPE)

    early = [stream_head.feed(bytes([byte])) for byte in (DOCUMENT + SEPARATOR)[:-1]]

    assert {None} == set(early)
    assert (HEAD, b"") == stream_head.feed(b"\0")


def test_a_body_may_begin_with_nuls() -> None:
    """The first eight are the separator, what follows is the function's."""
    assert (HEAD, b"\0\0x") == StreamHead(CONTENT_TYPE).feed(DOCUMENT + SEPARATOR + b"\0\0x")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"{}", UrlAnswer(200, (OCTETS,))),
        (b'{"statusCode":404}', UrlAnswer(404, (OCTETS,))),
        (b'{"headers":{"X-A":"b"}}', UrlAnswer(200, (OCTETS, ("X-A", "b")))),
        (b'{"statusCode":200,"headers":null,"cookies":null}', UrlAnswer(200, (OCTETS,))),
        (b'{"statusCode":200,"body":"x","headers":{"te":"x"}}', UrlAnswer(200, (OCTETS,))),
    ],
)
def test_a_member_that_a_head_leaves_out_has_a_default(
    document: bytes, expected: UrlAnswer
) -> None:
    """The defaults are 200 and application/octet-stream."""
    assert (expected, b"x") == StreamHead(CONTENT_TYPE).feed(document + SEPARATOR + b"x")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"hello",
        b'{"statusCode":"x"}',
        b'{"statusCode":101}',
        b'{"statusCode":null}',
        b'{"headers":{"X":"a\\r\\nb"}}',
        b'{"cookies":{}}',
        b"[" * 50_000,
    ],
)
def test_a_head_that_is_no_head_is_a_bad_gateway(document: bytes) -> None:
    """No bytes of the stream after it are returned."""
    complete = StreamHead(CONTENT_TYPE).feed(document + SEPARATOR + b"rest")

    assert complete is not None
    assert complete[0] is BAD_GATEWAY
    assert b"" == complete[1]


@pytest.mark.parametrize("size", [1, 1000, MAX_HEAD * 2])
def test_the_largest_head_is_64_kb(size: int) -> None:
    """64 KB are accepted, and one byte more is not, in pieces of any size."""
    document = b'{"statusCode":404}'.ljust(MAX_HEAD)
    heads = []
    for stream in (document + SEPARATOR, document + b" " + SEPARATOR):
        stream_head = StreamHead(CONTENT_TYPE)
        pieces = iter([stream[at : at + size] for at in range(0, len(stream), size)])
        complete = None
        while complete is None:
            complete = stream_head.feed(next(pieces))
        heads.append(complete[0])

    assert [UrlAnswer(404, (OCTETS,)), BAD_GATEWAY] == heads


def test_a_head_without_an_end_is_given_up() -> None:
    """A function that never sends the separator does not fill our memory."""
    stream_head = StreamHead(CONTENT_TYPE)
    assert stream_head.feed(b" " * MAX_HEAD) is None

    assert (BAD_GATEWAY, b"") == stream_head.feed(b" " * 8)


@pytest.mark.parametrize(
    ("content_type", "media_type"),
    [
        ("", "application/octet-stream"),
        ("application/octet-stream", "application/octet-stream"),
        ("text/event-stream; charset=utf-8", "text/event-stream; charset=utf-8"),
    ],
)
def test_a_stream_without_a_head_is_the_body(content_type: str, media_type: str) -> None:
    """It is a 200 of the type that the runtime sent, with its first piece."""
    head = UrlAnswer(200, (("Content-Type", media_type),))

    assert (head, b'{"statusCode":404}') == StreamHead(content_type).feed(b'{"statusCode":404}')
    assert head == StreamHead(content_type).end()


def test_a_content_type_that_cannot_be_sent_is_a_bad_gateway() -> None:
    """A worker's header is checked like a function's."""
    assert (BAD_GATEWAY, b"") == StreamHead("text/plain\r\nX: y").feed(b"x")


@pytest.mark.parametrize("content_type", [CONTENT_TYPE.upper(), CONTENT_TYPE + "; charset=utf-8"])
def test_content_types_are_compared_as_http_does(content_type: str) -> None:
    """Case and parameters of the content type do not matter."""
    assert (HEAD, b"") == StreamHead(content_type).feed(DOCUMENT + SEPARATOR)


def test_a_stream_that_ends_within_its_head_is_a_bad_gateway() -> None:
    """Half a head is no answer."""
    stream_head = StreamHead(CONTENT_TYPE)
    stream_head.feed(DOCUMENT + SEPARATOR[:-1])

    assert stream_head.end() is BAD_GATEWAY
