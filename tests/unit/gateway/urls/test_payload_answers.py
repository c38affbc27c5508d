"""Tests of `payloads` of function URLs: a result is an answer that HTTP can carry."""

from __future__ import annotations

import io
import json
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.gateway.urls import payloads
from miniλ.gateway.urls.payloads import BAD_GATEWAY, FORBIDDEN, UNKNOWN_URL, UrlAnswer

if TYPE_CHECKING:
    import socket


# A busy machine is no finding: no deadline, and no check for slow data.
quick = settings(
    deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)

JSON = ("Content-Type", "application/json")
HTML = ("Content-Type", "text/html")


@pytest.mark.parametrize(
    ("returned", "body"),
    [
        (b'{"message": "Hello, world!"}', b'{"message": "Hello, world!"}'),
        (b'"hello"', b"hello"),
        (b'"<b>\\u00e4 \\"x\\"\\n</b>"', '<b>ä "x"\n</b>'.encode()),
        (b'""', b""),
        (b"3", b"3"),
        (b"3.1", b"3.1"),
        (b"1e400", b"1e400"),
        (b"true", b"true"),
        (b"null", b"null"),
        (b"[1, 2]", b"[1, 2]"),
        (b" [] ", b"[]"),
        (b'{"headers": 5, "body": [], "isBase64Encoded": 1}', None),
        (b'[{"statusCode": 404}]', None),
        (b'{"StatusCode": 404}', None),
        (b'{"nested": {"statusCode": 404}}', None),
        (b'"{\\"statusCode\\": 404}"', b'{"statusCode": 404}'),
    ],
)
def test_a_result_without_a_status_code_is_the_body(returned: bytes, body: bytes | None) -> None:
    """200 and JSON: a string is the text in it, the rest as the function wrote it."""
    assert UrlAnswer(200, (JSON,), returned if body is None else body) == payloads.answer(returned)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"statusCode": 204}, UrlAnswer(204, (JSON,))),
        ({"statusCode": 201, "body": "made"}, UrlAnswer(201, (JSON,), b"made")),
        ({"statusCode": "404"}, UrlAnswer(404, (JSON,))),
        (
            {"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "<p>"},
            UrlAnswer(200, (HTML,), b"<p>"),
        ),
        (
            {"statusCode": 200, "headers": {"content-type": "text/html", "X-A": "b"}},
            UrlAnswer(200, (("content-type", "text/html"), ("X-A", "b"))),
        ),
        (
            {"statusCode": 200, "headers": {"X-N": 3, "X-F": 1.5, "X-B": True, "X-0": None}},
            UrlAnswer(200, (JSON, ("X-N", "3"), ("X-F", "1.5"), ("X-B", "true"))),
        ),
        (
            {"statusCode": 200, "headers": {"X-A": "1", "x-a": "2", "X-E": "", "X-T": " \t\xa0t "}},
            UrlAnswer(200, (JSON, ("x-a", "2"), ("X-E", ""), ("X-T", "\xa0t"))),
        ),
        (
            {"statusCode": 302, "headers": {"Location": "/ä"}, "cookies": ["a=1; Secure", "b=2"]},
            UrlAnswer(
                302,
                (
                    JSON,
                    ("Location", "/ä"),
                    ("Set-Cookie", "a=1; Secure"),
                    ("Set-Cookie", "b=2"),
                ),
            ),
        ),
        (
            {"statusCode": 200, "body": "AP8=", "isBase64Encoded": True},
            UrlAnswer(200, (JSON,), b"\0\xff"),
        ),
        (
            {"statusCode": 200, "body": "AP8=", "isBase64Encoded": False},
            UrlAnswer(200, (JSON,), b"AP8="),
        ),
        ({"statusCode": 200, "body": {"a": [1]}}, UrlAnswer(200, (JSON,), b'{"a": [1]}')),
        ({"statusCode": 200, "body": 3}, UrlAnswer(200, (JSON,), b"3")),
        (
            {"statusCode": 200, "multiValueHeaders": {"X": [1]}, "other": [None]},
            UrlAnswer(200, (JSON,)),
        ),
        (
            {
                "statusCode": 200,
                "headers": None,
                "cookies": None,
                "body": None,
                "isBase64Encoded": None,
            },
            UrlAnswer(200, (JSON,)),
        ),
        ({"statusCode": 200, "body": None, "isBase64Encoded": True}, UrlAnswer(200, (JSON,))),
    ],
)
def test_an_object_with_a_status_code_is_the_answer(
    reply: dict[str, Any], expected: UrlAnswer
) -> None:
    """Status, headers, cookies and body are the function's; the content type is JSON unless set."""
    assert expected == payloads.answer(json.dumps(reply).encode())


def test_hop_by_hop_headers_and_lengths_are_the_server_s_to_send() -> None:
    """A function's own framing headers are dropped; the rest of its answer is sent."""
    names = [
        "Connection",
        "keep-alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "proxy-connection",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "UPGRADE",
        "Content-Length",
        "X-Kept",
    ]
    reply = {"statusCode": 200, "headers": dict.fromkeys(names, "7")}

    assert UrlAnswer(200, (JSON, ("X-Kept", "7"))) == payloads.answer(json.dumps(reply).encode())


@pytest.mark.parametrize(
    "reply",
    [
        {"statusCode": None},
        {"statusCode": "ok"},
        {"statusCode": True},
        {"statusCode": 200.5},
        {"statusCode": {}},
        {"statusCode": 0},
        {"statusCode": 99},
        {"statusCode": 101},
        {"statusCode": 199},
        {"statusCode": 600},
        {"statusCode": -200},
        {"statusCode": 10**30},
        {"statusCode": 200, "headers": []},
        {"statusCode": 200, "headers": "Content-Type: text/html"},
        {"statusCode": 200, "headers": {"": "x"}},
        {"statusCode": 200, "headers": {"X Y": "x"}},
        {"statusCode": 200, "headers": {"X:": "x"}},
        {"statusCode": 200, "headers": {"X-A\r\nX-B": "x"}},
        {"statusCode": 200, "headers": {"X-A\n": "x"}},
        {"statusCode": 200, "headers": {"Ä": "x"}},
        {"statusCode": 200, "headers": {"X": "a\r\nSet-Cookie: b"}},
        {"statusCode": 200, "headers": {"X": "a\n"}},
        {"statusCode": 200, "headers": {"X": "a\0"}},
        {"statusCode": 200, "headers": {"X": "a\x1b"}},
        {"statusCode": 200, "headers": {"X": ["a"]}},
        {"statusCode": 200, "headers": {"X": {}}},
        {"statusCode": 200, "headers": {"Connection": "a\nb"}},
        {"statusCode": 200, "cookies": "a=1"},
        {"statusCode": 200, "cookies": [1]},
        {"statusCode": 200, "cookies": ["a=1\r\nX: y"]},
        {"statusCode": 200, "body": "AP8", "isBase64Encoded": True},
        {"statusCode": 200, "body": "A P8=", "isBase64Encoded": True},
        {"statusCode": 200, "body": "ä", "isBase64Encoded": True},
        {"statusCode": 200, "body": {}, "isBase64Encoded": True},
        {"statusCode": 200, "isBase64Encoded": "yes"},
        {"statusCode": 200, "body": "\ud800"},
    ],
    ids=json.dumps,
)
def test_a_result_that_is_no_http_answer_is_a_bad_gateway(reply: dict[str, Any]) -> None:
    """A status, a header or a body that HTTP cannot carry is a plain 502."""
    assert payloads.answer(json.dumps(reply).encode()) is BAD_GATEWAY


@pytest.mark.parametrize(
    "returned",
    [b"", b"hello", b"{", b'{"a": NaN}', b"NaN", b"\x89PNG", b'"\xff"', b"1 2", b"[" * 100_000],
)
def test_a_result_that_is_no_json_is_a_bad_gateway(returned: bytes) -> None:
    """Lambda infers an answer from valid JSON only."""
    assert payloads.answer(returned) is BAD_GATEWAY


def test_the_answers_that_are_not_the_function_s() -> None:
    """Their texts are AWS's, also the one that has the type of JSON and is none."""
    denied = ("x-amzn-ErrorType", "AccessDeniedException")
    message = (
        "Forbidden. For troubleshooting Function URL authorization issues, see: "
        "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
    )

    assert UrlAnswer(502, (JSON,), b"Internal Server Error") == BAD_GATEWAY
    assert UrlAnswer(403, (JSON, denied), b'{"Message":null}') == UNKNOWN_URL
    assert (403, (JSON, denied)) == (FORBIDDEN.status, FORBIDDEN.headers)
    assert {"Message": message} == json.loads(FORBIDDEN.body)


class _Received(io.BytesIO):
    def makefile(self, *_: object) -> io.BytesIO:
        return self


def sent_and_parsed(answer: UrlAnswer) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return this answer as a client reads it: status, headers and all bytes after them."""
    head = [f"HTTP/1.1 {answer.status} -"] + [f"{name}: {value}" for name, value in answer.headers]
    wire: Any = _Received("\r\n".join([*head, "", ""]).encode() + answer.body)
    connection: socket.socket = wire
    response = HTTPResponse(connection)
    response.begin()
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.getheaders()
    ]
    body = wire.read() if response.length == 0 else response.read()
    return response.status, headers, body


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    [
        "X-A",
        "x-a",
        "Content-Type",
        "Set-Cookie",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
    ]
)
texts = st.text(st.sampled_from("a \t\r\n\0\x85\u2028é:;=")) | st.text(max_size=8)
replies = st.fixed_dictionaries(
    {"statusCode": st.integers(190, 610) | values},
    optional={
        "headers": st.dictionaries(names | texts, texts | values, max_size=3) | values,
        "cookies": st.lists(texts, max_size=2) | values,
        "body": st.text(max_size=8) | values,
        "isBase64Encoded": st.booleans() | values,
    },
)


@settings(quick, max_examples=400)
@given(returned=replies | values)
def test_any_json_is_an_answer_that_can_be_sent(returned: object) -> None:
    """A client reads what the function returned: no value begins a header or the body."""
    answer = payloads.answer(json.dumps(returned).encode())

    status, headers, body = sent_and_parsed(answer)
    assert answer.status == status
    assert [(name.encode(), value.encode()) for name, value in answer.headers] == headers
    assert answer.body == body
    assert not {name.lower() for name, _ in answer.headers} & {
        "content-length",
        "transfer-encoding",
        "connection",
    }


@quick
@given(returned=st.binary(max_size=40) | values.map(lambda each: json.dumps(each).encode()[:-1]))
def test_any_bytes_are_an_answer(returned: bytes) -> None:
    """No bytes of a worker raise an exception."""
    assert isinstance(payloads.answer(returned), UrlAnswer)
    assert isinstance(payloads.streamed_head(returned), UrlAnswer)
