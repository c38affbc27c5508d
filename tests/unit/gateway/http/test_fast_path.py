"""Tests of the fast path's grammar: a request that is not certain is not taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniλ.gateway.http.fast_path import _parse, _PlainInvocation

LINE = b"POST /2015-03-31/functions/hello/invocations HTTP/1.1\r\n"
HOST = b"Host: 127.0.0.1:9001\r\n"
LENGTH = b"Content-Length: 12\r\n"


def test_a_plain_invocation_is_taken() -> None:
    """As HTTP libraries send it, and as the SDKs sign it."""
    curl = b"User-Agent: curl/8\r\nAccept: */*\r\nContent-Type: application/json\r\n"
    signed = (
        b"X-Amz-Date: 20261124T120000Z\r\namz-sdk-request: attempt=1\r\n"
        b"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/20261124/us-east-1/lambda/x\r\n"
    )
    usual = b"X-Amz-Invocation-Type: RequestResponse\r\nx-amz-log-type: None\r\n"

    for more in (b"", curl, signed, usual):
        assert _PlainInvocation("hello", 12) == _parse(LINE + HOST + LENGTH + more + b"\r\n")
    assert _PlainInvocation("hello", 0) == _parse(
        LINE + b"host: localhost\r\ncontent-length: 0\r\n\r\n"
    )


@pytest.mark.parametrize(
    "head",
    [
        LINE.replace(b"POST", b"GET") + HOST + LENGTH,
        LINE.replace(b"POST", b"post") + HOST + LENGTH,
        LINE.replace(b"1.1", b"1.0") + HOST + LENGTH,
        LINE.replace(b"hello", b"hel%6co") + HOST + LENGTH,
        LINE.replace(b"hello", b"hello:1") + HOST + LENGTH,
        LINE.replace(b"hello", b"..") + HOST + LENGTH,
        LINE.replace(b"hello", b"h" * 65) + HOST + LENGTH,
        LINE.replace(b"invocations", b"invocations?Qualifier=1") + HOST + LENGTH,
        LINE.replace(b"POST /", b"POST http://127.0.0.1/") + HOST + LENGTH,
        LINE + LENGTH,
        LINE + HOST,
        LINE + HOST + HOST + LENGTH,
        LINE + HOST + LENGTH + LENGTH,
        LINE + HOST + LENGTH + LENGTH.lower(),
        LINE + HOST + b"Content-Length: +12\r\n",
        LINE + HOST + b"Content-Length: 12, 12\r\n",
        LINE + HOST + b"Content-Length: 99999999\r\n",
        LINE + HOST + b"Content-Length : 12\r\n",
        LINE + HOST + b"Content-Length:12\r\n",
        LINE + HOST + b"Content-Length:  12\r\n",
        LINE + HOST + b"Content-Length: 12\n",
        LINE + HOST + LENGTH + b" folded\r\n",
        LINE + HOST + LENGTH + b"Transfer-Encoding: chunked\r\n",
        LINE + HOST + LENGTH + b"Connection: close\r\n",
        LINE + HOST + LENGTH + b"Expect: 100-continue\r\n",
        LINE + HOST + LENGTH + b"Upgrade: h2c\r\n",
        LINE + HOST + LENGTH + b"Content-Encoding: gzip\r\n",
        LINE + HOST + LENGTH + b"Origin: http://evil.example\r\n",
        LINE + HOST + LENGTH + b"Sec-Fetch-Site: cross-site\r\n",
        LINE + HOST + LENGTH + b"X-Amz-Invocation-Type: Event\r\n",
        LINE + HOST + LENGTH + b"X-Amz-Log-Type: Tail\r\n",
        LINE + HOST + LENGTH + b"X-Amz-Client-Context: e30=\r\n",
        LINE + HOST + LENGTH + b"X-Amzn-Trace-Id: Root=1-1-1\r\n",
        LINE + HOST + LENGTH + b"Accept: \x00\r\n",
        LINE + HOST + LENGTH + b"Accept: \xff\r\n",
        LINE + HOST + LENGTH + b"Accept:\r\n",
        LINE + HOST + LENGTH + b"User-Agent: " + b"x" * 3000 + b"\r\n",
        LINE + HOST + LENGTH + b"Authorization: A Credential=123456789012/x\r\n",
        LINE + b"Host: evil.example\r\n" + LENGTH,
        LINE + b"Host: 127.0.0.1.evil.example\r\n" + LENGTH,
        LINE + b"Host: 127.0.0.1:80@evil.example\r\n" + LENGTH,
        LINE + b"Host: " + b"a" * 32 + b".lambda-url.us-east-1.localhost\r\n" + LENGTH,
    ],
)
def test_a_head_that_says_more_is_not_taken(head: bytes) -> None:
    """It may be valid or not: that is for the other path to decide."""
    assert None is _parse(head + b"\r\n")


@given(st.binary(max_size=300))
def test_any_bytes_are_taken_or_not(data: bytes) -> None:
    """No bytes raise an error, and none but a plain head are taken for one."""
    assert None is _parse(data)
    known = LINE + HOST + LENGTH + data + b"\r\n\r\n"
    plain = _parse(known)
    assert plain is None or (known.isascii() and plain == _PlainInvocation("hello", 12))
