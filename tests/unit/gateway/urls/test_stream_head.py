"""Tests of the streaming prelude: the head of an answer, whatever pieces it comes in."""

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


def test_a_prelude_is_the_head_of_the_answer() -> None:
    """Status, headers and cookies come before eight NULs, the body after them."""
    prelude = StreamHead(CONTENT_TYPE)

    assert (HEAD, b"<p>") == prelude.feed(DOCUMENT + SEPARATOR + b"<p>")


@quick
@given(body=st.binary(max_size=20), data=st.data())
def test_a_prelude_comes_in_any_pieces(body: bytes, data: st.DataObject) -> None:
    """Wherever the stream is cut, the head is complete with the last NUL, and no byte is lost."""
    stream = DOCUMENT + SEPARATOR + body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    prelude = StreamHead(CONTENT_TYPE)
    pieces = [stream[start:end] for start, end in pairwise([0, *cuts, len(stream)])]
    taken = 0
    complete = None
    while complete is None:
        complete = prelude.feed(pieces[taken])
        taken += 1

    head, rest = complete
    assert HEAD == head
    assert body == rest + b"".join(pieces[taken:])
    assert len(b"".join(pieces[: taken - 1])) < len(DOCUMENT + SEPARATOR)


def test_a_prelude_comes_byte_by_byte() -> None:
    """There is no head before the eighth NUL."""
    prelude = StreamHead(CONTENT_TYPE)

    early = [prelude.feed(bytes([byte])) for byte in (DOCUMENT + SEPARATOR)[:-1]]

    assert {None} == set(early)
    assert (HEAD, b"") == prelude.feed(b"\0")


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
def test_what_a_prelude_leaves_out_has_a_default(document: bytes, expected: UrlAnswer) -> None:
    """A stream is 200 and octets unless its prelude says otherwise."""
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
def test_a_prelude_that_is_no_head_is_a_bad_gateway(document: bytes) -> None:
    """And nothing of the stream behind it is sent."""
    complete = StreamHead(CONTENT_TYPE).feed(document + SEPARATOR + b"rest")

    assert complete is not None
    assert complete[0] is BAD_GATEWAY
    assert b"" == complete[1]


@pytest.mark.parametrize("size", [1, 1000, MAX_HEAD * 2])
def test_the_largest_prelude_is_64_kb(size: int) -> None:
    """That is accepted, and one byte more is not: in pieces of any size the same."""
    document = b'{"statusCode":404}'.ljust(MAX_HEAD)
    heads = []
    for stream in (document + SEPARATOR, document + b" " + SEPARATOR):
        prelude = StreamHead(CONTENT_TYPE)
        pieces = iter([stream[at : at + size] for at in range(0, len(stream), size)])
        complete = None
        while complete is None:
            complete = prelude.feed(next(pieces))
        heads.append(complete[0])

    assert [UrlAnswer(404, (OCTETS,)), BAD_GATEWAY] == heads


def test_a_prelude_without_an_end_is_given_up() -> None:
    """A function that never sends the separator does not fill our memory."""
    prelude = StreamHead(CONTENT_TYPE)
    assert prelude.feed(b" " * MAX_HEAD) is None

    assert (BAD_GATEWAY, b"") == prelude.feed(b" " * 8)


@pytest.mark.parametrize(
    ("content_type", "sent"),
    [
        ("", "application/octet-stream"),
        ("application/octet-stream", "application/octet-stream"),
        ("text/event-stream; charset=utf-8", "text/event-stream; charset=utf-8"),
    ],
)
def test_a_stream_without_a_prelude_is_the_body(content_type: str, sent: str) -> None:
    """It is 200, of the type that the runtime gave it, from its first byte on."""
    head = UrlAnswer(200, (("Content-Type", sent),))

    assert (head, b'{"statusCode":404}') == StreamHead(content_type).feed(b'{"statusCode":404}')
    assert head == StreamHead(content_type).end()


def test_a_content_type_that_cannot_be_sent_is_a_bad_gateway() -> None:
    """A worker's header is checked like a function's."""
    assert (BAD_GATEWAY, b"") == StreamHead("text/plain\r\nX: y").feed(b"x")


@pytest.mark.parametrize("content_type", [CONTENT_TYPE.upper(), CONTENT_TYPE + "; charset=utf-8"])
def test_content_types_are_compared_as_http_does(content_type: str) -> None:
    """Case and parameters make no other type of it."""
    assert (HEAD, b"") == StreamHead(content_type).feed(DOCUMENT + SEPARATOR)


def test_a_stream_that_ends_within_its_prelude_is_a_bad_gateway() -> None:
    """Half a head says nothing that could be sent."""
    prelude = StreamHead(CONTENT_TYPE)
    prelude.feed(DOCUMENT + SEPARATOR[:-1])

    assert prelude.end() is BAD_GATEWAY
