"""Tests of function URL payloads: a request is the event that AWS makes of it."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from miniλ.gateway.urls import payloads

# A busy machine is no finding: no deadline, and no check for slow data.
quick = settings(
    deadline=None, database=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)

# 12/Mar/2020:19:03:58 and 390 ms.
NOW = 1584039838.390

IDENTITY = payloads.IamIdentity(
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
    decoded: dict[str, Any] = msgspec.json.decode(payloads.request_payload(**(request | changes)))
    return decoded


def test_the_event_of_a_plain_request() -> None:
    """An unsigned GET of / has no body, no cookies and no parameters."""
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
    decoded = event(headers=headers)

    assert cookies == decoded["cookies"]
    assert "cookie" not in decoded["headers"]


def test_an_empty_cookie_header_is_no_cookie() -> None:
    """Without cookies the event has no list of them."""
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
    decoded = event(raw_query=query)

    assert query == decoded["rawQueryString"]
    assert parameters == decoded["queryStringParameters"]


def test_a_path_stays_as_it_was_sent() -> None:
    """%2F stays encoded: a function that routes by the path can tell it from a slash."""
    decoded = event(raw_path="/a%2Fb/c%20d")

    assert "/a%2Fb/c%20d" == decoded["rawPath"] == decoded["requestContext"]["http"]["path"]


def test_hop_by_hop_headers_are_not_the_function_s() -> None:
    """Headers about the connection to the server are not in the event."""
    hops = ["Connection", "Keep-Alive", "Proxy-Authorization", "TE", "Trailer", "Upgrade"]
    decoded = event(
        headers=[(name, "x") for name in [*hops, "Transfer-Encoding", "Content-Length"]]
    )

    assert {
        "content-length",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-amzn-trace-id",
    } == set(decoded["headers"])


def test_a_client_cannot_say_where_it_comes_from() -> None:
    """The peer's address is last in X-Forwarded-For; port and scheme are ours."""
    decoded = event(
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
    } == decoded["headers"]


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
    decoded = event(headers=[("Content-Type", content_type)], body='{"ä":"\0"}'.encode())

    assert ('{"ä":"\0"}', False) == (decoded["body"], decoded["isBase64Encoded"])


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
    """Forms, binaries and bodies without a type are base64."""
    decoded = event(headers=[("Content-Type", content_type)], body=b"a=1")

    assert ("YT0x", True) == (decoded["body"], decoded["isBase64Encoded"])


def test_text_that_is_not_utf_8_is_base64() -> None:
    """JSON cannot carry other bytes, with any content type."""
    decoded = event(headers=[("Content-Type", "text/plain; charset=latin-1")], body=b"caf\xe9")

    assert ("Y2Fm6Q==", True) == (decoded["body"], decoded["isBase64Encoded"])


def test_no_body_is_no_field() -> None:
    """An empty body is not encoded."""
    decoded = event(headers=[("Content-Type", "image/png")])

    assert "body" not in decoded
    assert decoded["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("now", "text", "epoch"),
    [
        (0, "01/Jan/1970:00:00:00 +0000", 0),
        (1735689599.9994, "31/Dec/2024:23:59:59 +0000", 1735689599999),
        (1735689599.9996, "01/Jan/2025:00:00:00 +0000", 1735689600000),
    ],
)
def test_both_times_are_one(now: float, text: str, epoch: int) -> None:
    """Both forms of the time round to the same second."""
    context = event(now=now)["requestContext"]

    assert (text, epoch) == (context["time"], context["timeEpoch"])


# Text as aiohttp decodes it from any bytes: those that are not UTF-8 are surrogates.
text_of_aiohttp = st.text(st.characters(exclude_characters="\r\n\0"), max_size=20).map(
    lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
)


@quick
@given(
    path=text_of_aiohttp,
    query=text_of_aiohttp,
    headers=st.lists(
        st.tuples(
            st.sampled_from(["A", "a", "Cookie", "User-Agent", "X-Forwarded-For"]), text_of_aiohttp
        )
    ),
    trace_id=text_of_aiohttp,
    domain_name=text_of_aiohttp,
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
    """For any bytes of a client the event is JSON, and the body is in it."""
    decoded = event(
        raw_path=path,
        raw_query=query,
        headers=[*headers, ("Content-Type", content_type)],
        trace_id=trace_id,
        domain_name=domain_name,
        body=body,
    )

    text = decoded.get("body", "")
    assert body == (base64.b64decode(text) if decoded["isBase64Encoded"] else text.encode())
