"""Tests of function URL payloads: a request is the event AWS makes of it, a result is an answer."""

from __future__ import annotations

import base64
import io
import json
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from miniλ.gateway.urls import payloads
from miniλ.gateway.urls.payloads import BAD_GATEWAY, FORBIDDEN, UNKNOWN_URL, UrlAnswer

if TYPE_CHECKING:
    import socket

# On a machine that is busy with other things, slow is no finding.
quick = settings(
    deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)

JSON = ("Content-Type", "application/json")
HTML = ("Content-Type", "text/html")

# 12/Mar/2020:19:03:58 and 390 ms.
NOW = 1584039838.390

IDENTITY = payloads.Identity(
    access_key="AKIAEXAMPLE",
    account_id="111122223333",
    caller_id="AIDAEXAMPLE",
    user_arn="arn:aws:iam::111122223333:user/example-user",
    user_id="AIDAEXAMPLE",
)


def event(**changes: Any) -> dict[str, Any]:
    """Return the event of a plain GET, or of one with these changes, decoded."""
    request: dict[str, Any] = {
        "method": "GET",
        "raw_path": "/",
        "raw_query": "",
        "protocol": "HTTP/1.1",
        "headers": [],
        "body": b"",
        "source_ip": "192.0.2.7",
        "scheme": "https",
        "port": 443,
        "url_id": "abcdef",
        "domain_name": "abcdef.lambda-url.eu-central-1.on.aws",
        "request_id": "6f1b9c1e",
        "trace_id": "Root=1-5e6a8e9e-0123456789abcdef01234567",
        "now": NOW,
    }
    decoded: dict[str, Any] = msgspec.json.decode(payloads.event(**(request | changes)))
    return decoded


def test_the_event_of_a_plain_request() -> None:
    """A GET of / by nobody in particular has no body, no cookies and no parameters."""
    expected = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {
            "host": "abcdef.lambda-url.eu-central-1.on.aws",
            "user-agent": "curl/8.5.0",
            "accept": "*/*",
            "x-forwarded-for": "192.0.2.7",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https",
            "x-amzn-trace-id": "Root=1-5e6a8e9e-0123456789abcdef01234567",
        },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "abcdef",
            "authentication": None,
            "domainName": "abcdef.lambda-url.eu-central-1.on.aws",
            "domainPrefix": "abcdef",
            "http": {
                "method": "GET",
                "path": "/",
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.7",
                "userAgent": "curl/8.5.0",
            },
            "requestId": "6f1b9c1e",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1584039838390,
        },
        "pathParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
    }

    assert expected == event(
        headers=[
            ("Host", "abcdef.lambda-url.eu-central-1.on.aws"),
            ("User-Agent", "curl/8.5.0"),
            ("Accept", "*/*"),
        ]
    )


def test_the_event_of_a_request_with_everything() -> None:
    """The example of AWS's guide: cookies, repeated headers and parameters, a body, a caller."""
    expected = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
        "cookies": ["cookie1", "cookie2"],
        "headers": {
            "header1": "value1",
            "header2": "value1,value2",
            "content-type": "text/plain",
            "x-forwarded-for": "123.123.123.123",
            "x-forwarded-port": "8080",
            "x-forwarded-proto": "http",
            "x-amzn-trace-id": "Root=1-5e6a8e9e-0123456789abcdef01234567",
        },
        "queryStringParameters": {"parameter1": "value1,value2", "parameter2": "value"},
        "requestContext": {
            "accountId": "111122223333",
            "apiId": "<urlid>",
            "authentication": None,
            "authorizer": {
                "iam": {
                    "accessKey": "AKIAEXAMPLE",
                    "accountId": "111122223333",
                    "callerId": "AIDAEXAMPLE",
                    "cognitoIdentity": None,
                    "principalOrgId": None,
                    "userArn": "arn:aws:iam::111122223333:user/example-user",
                    "userId": "AIDAEXAMPLE",
                }
            },
            "domainName": "<urlid>.lambda-url.us-west-2.on.aws",
            "domainPrefix": "<urlid>",
            "http": {
                "method": "POST",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "123.123.123.123",
                "userAgent": "",
            },
            "requestId": "id",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1584039838390,
        },
        "body": "Hello from client!",
        "pathParameters": None,
        "isBase64Encoded": False,
        "stageVariables": None,
    }

    assert expected == event(
        method="POST",
        raw_path="/my/path",
        raw_query="parameter1=value1&parameter1=value2&parameter2=value",
        headers=[
            ("Header1", "value1"),
            ("Header2", "value1"),
            ("header2", "value2"),
            ("Content-Type", "text/plain"),
            ("Cookie", "cookie1; cookie2"),
        ],
        body=b"Hello from client!",
        source_ip="123.123.123.123",
        scheme="http",
        port=8080,
        url_id="<urlid>",
        domain_name="<urlid>.lambda-url.us-west-2.on.aws",
        request_id="id",
        identity=IDENTITY,
    )


@pytest.mark.parametrize(
    ("headers", "cookies"),
    [
        ([("Cookie", "a=1; b=2")], ["a=1", "b=2"]),
        ([("cookie", "a=1;b=2"), ("COOKIE", "c=3")], ["a=1", "b=2", "c=3"]),
        ([("Cookie", "a=x=y; b")], ["a=x=y", "b"]),
        ([("Cookie", "a=1; a=2;; ")], ["a=1", "a=2"]),
    ],
)
def test_cookies_are_a_list_and_no_header(
    headers: list[tuple[str, str]], cookies: list[str]
) -> None:
    """Each cookie of each Cookie header is one string, and `headers` has none of them."""
    got = event(headers=headers)

    assert cookies == got["cookies"]
    assert "cookie" not in got["headers"]


def test_an_empty_cookie_header_is_no_cookie() -> None:
    """Where there are no cookies there is no list of them either."""
    assert "cookies" not in event(headers=[("Cookie", " ; ")])


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&b=2&a=3", {"a": "1,3", "b": "2"}),
        ("a=&b", {"a": "", "b": ""}),
        ("name=J%C3%BCrgen+K%26K", {"name": "Jürgen K&K"}),
        ("a=1;b=2", {"a": "1;b=2"}),
        ("a=%ff", {"a": "\ufffd"}),
    ],
)
def test_a_query_is_given_raw_and_decoded(query: str, parameters: dict[str, str]) -> None:
    """Parameters are decoded, a repeated one is joined with commas; the raw query stays."""
    got = event(raw_query=query)

    assert query == got["rawQueryString"]
    assert parameters == got["queryStringParameters"]


def test_a_path_stays_as_it_was_sent() -> None:
    """%2F is not a slash: who routes by the path decides what it means."""
    got = event(raw_path="/a%2Fb/c%20d")

    assert "/a%2Fb/c%20d" == got["rawPath"] == got["requestContext"]["http"]["path"]


def test_hop_by_hop_headers_are_not_the_function_s() -> None:
    """What the client told the server about this connection says nothing to a function."""
    hops = ["Connection", "Keep-Alive", "Proxy-Authorization", "TE", "Trailer", "Upgrade"]
    got = event(headers=[(name, "x") for name in [*hops, "Transfer-Encoding", "Content-Length"]])

    assert {
        "content-length",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-amzn-trace-id",
    } == set(got["headers"])


def test_a_client_cannot_say_where_it_comes_from() -> None:
    """The address that we saw is last in X-Forwarded-For; the rest is ours alone to say."""
    got = event(
        headers=[
            ("X-Forwarded-For", "10.0.0.1"),
            ("X-Forwarded-Proto", "gopher"),
            ("X-Forwarded-Port", "70"),
            ("X-Amzn-Trace-Id", "Root=other"),
        ]
    )

    assert {
        "x-forwarded-for": "10.0.0.1, 192.0.2.7",
        "x-forwarded-port": "443",
        "x-forwarded-proto": "https",
        "x-amzn-trace-id": "Root=1-5e6a8e9e-0123456789abcdef01234567",
    } == got["headers"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "TEXT/HTML; charset=utf-8",
        "application/json",
        "application/json ;charset=utf-8",
        "application/xml",
        "application/javascript",
        "application/problem+json",
        "image/svg+xml",
    ],
)
def test_a_body_that_says_it_is_text_is_text(content_type: str) -> None:
    """Text, JSON, XML and JavaScript arrive as they are."""
    got = event(headers=[("Content-Type", content_type)], body='{"ä":"\0"}'.encode())

    assert ('{"ä":"\0"}', False) == (got["body"], got["isBase64Encoded"])


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "image/png",
        "application/jsonl",
        "text",
        "",
    ],
)
def test_any_other_body_is_base64(content_type: str) -> None:
    """Forms and binaries are encoded, and so is what says nothing."""
    got = event(headers=[("Content-Type", content_type)], body=b"a=1")

    assert ("YT0x", True) == (got["body"], got["isBase64Encoded"])


def test_text_that_is_not_utf_8_is_base64() -> None:
    """No JSON can carry other bytes, whatever their content type says."""
    got = event(headers=[("Content-Type", "text/plain; charset=latin-1")], body=b"caf\xe9")

    assert ("Y2Fm6Q==", True) == (got["body"], got["isBase64Encoded"])


def test_no_body_is_no_field() -> None:
    """Of an empty body there is nothing to encode."""
    got = event(headers=[("Content-Type", "image/png")])

    assert "body" not in got
    assert got["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("now", "text", "epoch"),
    [
        (0, "01/Jan/1970:00:00:00 +0000", 0),
        (1735689599.9994, "31/Dec/2024:23:59:59 +0000", 1735689599999),
        (1735689599.9996, "01/Jan/2025:00:00:00 +0000", 1735689600000),
    ],
)
def test_both_times_are_one(now: float, text: str, epoch: int) -> None:
    """The time in words and the one in milliseconds are on the same side of a second."""
    context = event(now=now)["requestContext"]

    assert (text, epoch) == (context["time"], context["timeEpoch"])


# What aiohttp gives for bytes that are not UTF-8.
received = st.text(st.characters(exclude_characters="\r\n\0"), max_size=20).map(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
)


@quick
@given(
    path=received,
    query=received,
    headers=st.lists(
        st.tuples(st.sampled_from(["A", "a", "Cookie", "User-Agent", "X-Forwarded-For"]), received)
    ),
    trace_id=received,
    domain_name=received,
    body=st.binary(max_size=20),
    content_type=st.sampled_from(["text/plain", "image/png"]),
)
@example(
    path="/\udcff", query="a=\udcff", headers=[("A", "\ud800")], trace_id="\udcff",
    domain_name="\udcff", body=b"", content_type="",
)  # fmt: skip
def test_any_request_is_an_event(
    path: str,
    query: str,
    headers: list[tuple[str, str]],
    trace_id: str,
    domain_name: str,
    body: bytes,
    content_type: str,
) -> None:
    """Whatever bytes a client sends, the event is JSON and the body is in it."""
    got = event(
        raw_path=path,
        raw_query=query,
        headers=[*headers, ("Content-Type", content_type)],
        trace_id=trace_id,
        domain_name=domain_name,
        body=body,
    )

    text = got.get("body", "")
    assert body == (base64.b64decode(text) if got["isBase64Encoded"] else text.encode())


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
    """A function that frames its own answer has no say in it, and still is answered."""
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
def test_what_cannot_be_an_http_answer_is_a_bad_gateway(reply: dict[str, Any]) -> None:
    """A status, a header or a body that no server could send is 502, and not half of it sent."""
    assert payloads.answer(json.dumps(reply).encode()) is BAD_GATEWAY


@pytest.mark.parametrize(
    "returned",
    [b"", b"hello", b"{", b'{"a": NaN}', b"NaN", b"\x89PNG", b'"\xff"', b"1 2", b"[" * 100_000],
)
def test_what_is_no_json_is_a_bad_gateway(returned: bytes) -> None:
    """Lambda infers an answer from valid JSON only."""
    assert payloads.answer(returned) is BAD_GATEWAY


def test_the_answers_that_are_not_the_function_s() -> None:
    """Their texts are AWS's, also the one that is JSON by its type only."""
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
    """Return what a client reads of this answer: status, headers and all that comes after."""
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
    """What a client reads is what the function said: no header or body began inside another."""
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
    """What a worker wrote is never an exception of ours."""
    assert isinstance(payloads.answer(returned), UrlAnswer)
    assert isinstance(payloads.streamed_head(returned), UrlAnswer)
