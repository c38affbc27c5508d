"""Requests to function URLs: each becomes an event, and the result becomes an answer."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from aiohttp import web

import miniλ
from miniλ import journal
from miniλ.gateway.server import Gateway
from miniλ.gateway.urls import serve
from miniλ.gateway.urls.payloads import UrlAnswer
from miniλ.store.registry import Change
from miniλ.store.resources import POLICY, URL
from tests.api.conftest import REGION
from tests.api.function_urls import MIRROR, Answer, ask, make_url, mirror, returning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from botocore.client import BaseClient

    MakeUrl = Callable[..., tuple[str, str]]

__all__ = ["make_url", "mirror"]  # fixtures

PNG = b"\x89PNG\r\n\x1a\n\0\0"


def conversation(url: str, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the server closes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# Requests


def test_a_request_is_an_event_of_version_2(mirror: str) -> None:
    """Method, path, query, headers and body arrive; the ids are those of the answer."""
    answer = ask(
        mirror,
        "/orders/7?a=1&a=2&b=",
        "PUT",
        b'{"x": 1}',
        Content_Type="application/json",
        User_Agent="tests",
    )

    event, parts = answer.event, urlsplit(mirror)
    context = event["requestContext"]
    assert ("2.0", "/orders/7", "a=1&a=2&b=") == (
        event["version"],
        event["rawPath"],
        event["rawQueryString"],
    )
    assert {"a": "1,2", "b": ""} == event["queryStringParameters"]
    assert ('{"x": 1}', False) == (event["body"], event["isBase64Encoded"])
    assert {
        "method": "PUT",
        "path": "/orders/7",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tests",
    } == context["http"]
    assert "anonymous" == context["accountId"]
    assert parts.path.split("/")[2] == context["apiId"] == context["domainPrefix"]
    assert f"{context['apiId']}.lambda-url.{REGION}.localhost" == context["domainName"]
    assert ("127.0.0.1", str(parts.port), "http") == (
        event["headers"]["x-forwarded-for"],
        event["headers"]["x-forwarded-port"],
        event["headers"]["x-forwarded-proto"],
    )
    assert (
        answer.headers["x-amzn-RequestId"]
        == context["requestId"]
        == json.loads(answer.body)["request_id"]
    )
    assert answer.headers["x-amzn-trace-id"] == event["headers"]["x-amzn-trace-id"]
    assert answer.headers["x-amzn-trace-id"].startswith("Root=1-")


def test_forwarding_headers_of_a_client_are_added_to_or_overwritten(mirror: str) -> None:
    """X-Forwarded-For grows, port and scheme are ours, and a valid trace id is kept."""
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"

    answer = ask(
        mirror,
        X_Forwarded_For="203.0.113.9",
        X_Forwarded_Proto="https",
        X_Forwarded_Port="443",
        X_Amzn_Trace_Id=trace,
    )
    replaced = ask(mirror, X_Amzn_Trace_Id="Root=1-no;x")

    headers = answer.event["headers"]
    assert "203.0.113.9, 127.0.0.1" == headers["x-forwarded-for"]
    assert ("http", str(urlsplit(mirror).port)) == (
        headers["x-forwarded-proto"],
        headers["x-forwarded-port"],
    )
    assert trace == headers["x-amzn-trace-id"] == answer.headers["x-amzn-trace-id"]
    assert "Root=1-no;x" != replaced.headers["x-amzn-trace-id"]


def test_a_path_stays_as_it_was_sent(mirror: str) -> None:
    """Encoded slashes, letters and dots stay encoded, and the path is not normalised."""
    path = "/a%2Fb/%CE%BB//../%2e/20?q=%CE%BB+%2F"

    event = ask(mirror, path).event

    assert path == f"{event['rawPath']}?{event['rawQueryString']}"
    assert {"q": "λ /"} == event["queryStringParameters"]


def test_a_url_is_reached_by_its_host_too(mirror: str) -> None:
    """With the id at the beginning of the Host the whole path is the function's."""
    parts = urlsplit(mirror)
    host = f"{parts.path.split('/')[2]}.lambda-url.{REGION}.localhost:{parts.port}"

    event = ask(f"http://{parts.netloc}", "/_url/x", Host=host).event

    assert ("/_url/x", host) == (event["rawPath"], event["headers"]["host"])


def test_a_path_like_one_of_the_api_is_the_functions(mirror: str) -> None:
    """By Host, /2015-03-31/... is a path of the function too."""
    parts = urlsplit(mirror)
    host = f"{parts.path.split('/')[2]}.lambda-url.{REGION}.localhost:{parts.port}"

    answer = ask(f"http://{parts.netloc}", "/2015-03-31/functions", Host=host)

    assert "/2015-03-31/functions" == answer.event["rawPath"]


def test_binary_passes_both_ways(mirror: str) -> None:
    """A picture arrives as base64; a body with isBase64Encoded leaves as a picture."""
    event = ask(mirror, "/", "POST", PNG, Content_Type="image/png").event
    answer = returning(
        mirror,
        {
            "statusCode": 200,
            "headers": {"content-type": "image/png"},
            "body": base64.b64encode(PNG).decode(),
            "isBase64Encoded": True,
        },
    )

    assert (base64.b64encode(PNG).decode(), True) == (event["body"], event["isBase64Encoded"])
    assert (PNG, ["image/png"]) == (answer.body, answer.headers.get_all("Content-Type"))


def test_cookies_pass_both_ways(mirror: str) -> None:
    """A Cookie header arrives as a list of cookies; each of an answer's is a Set-Cookie."""
    event = ask(mirror, Cookie="a=1; b=2").event
    answer = returning(mirror, {"statusCode": 200, "cookies": ["c=3; Path=/", "d=4"]})

    assert ["a=1", "b=2"] == event["cookies"]
    assert "cookie" not in event["headers"]
    assert ["c=3; Path=/", "d=4"] == answer.headers.get_all("Set-Cookie")


def test_a_get_may_have_a_body(mirror: str) -> None:
    """A body is passed on with any method."""
    event = ask(mirror, "/", "GET", b"why not", Content_Type="text/plain").event

    assert ("GET", "why not") == (event["requestContext"]["http"]["method"], event["body"])


def test_a_request_above_6_mb_is_refused(mirror: str) -> None:
    """7 MB are 413 by their length; 5 MB that are not text are more than 6 as an event."""
    by_length = ask(mirror, "/", "POST", b"x" * 7_000_000, Content_Type="text/plain")
    as_base64 = ask(mirror, "/", "POST", b"\xff" * 5_000_000)
    fits = ask(mirror, "/return", "POST", b'"' + b"x" * 5_000_000 + b'"', Content_Type="text/json")

    assert [413, 413] == [by_length.status, as_base64.status]
    assert {
        "Message": "Request must be smaller than 6291456 bytes for the InvokeFunctionUrl operation"
    } == json.loads(as_base64.body)
    assert (200, 5_000_000) == (fits.status, len(fits.body))


# Answers


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ("hello", 200, "application/json", b"hello"),
        (3, 200, "application/json", b"3"),
        (3.1, 200, "application/json", b"3.1"),
        (True, 200, "application/json", b"true"),
        (None, 200, "application/json", b"null"),
        ([1, 2], 200, "application/json", b"[1, 2]"),
        ({"a": "b"}, 200, "application/json", b'{"a": "b"}'),
        ({"statusCode": 201}, 201, "application/json", b""),
        ({"statusCode": 404, "body": "gone"}, 404, "application/json", b"gone"),
        (
            {"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "<p>"},
            200,
            "text/html",
            b"<p>",
        ),
    ],
)
def test_a_result_is_inferred(
    mirror: str, result: object, status: int, kind: str, body: bytes
) -> None:
    """An object with a statusCode is the answer, other JSON a 200; one type, one length."""
    answer = returning(mirror, result)

    assert (status, [kind], body) == (
        answer.status,
        answer.headers.get_all("Content-Type"),
        answer.body,
    )
    assert [str(len(body))] == answer.headers.get_all("Content-Length")
    assert answer.headers["Date"]


def test_a_function_cannot_say_how_its_answer_is_framed(mirror: str) -> None:
    """Lengths, encodings and ids are the server's; a function's headers for them are dropped."""
    answer = returning(
        mirror,
        {
            "statusCode": 200,
            "headers": {
                "Content-Length": "1",
                "transfer-encoding": "chunked",
                "Connection": "upgrade",
                "x-amzn-requestid": "mine",
                "X-Custom": "kept",
            },
            "body": "four",
        },
    )

    assert (b"four", ["4"]) == (answer.body, answer.headers.get_all("Content-Length"))
    assert answer.headers.get_all("Transfer-Encoding") is None
    assert answer.headers.get_all("Connection") is None
    assert 36 == len(answer.headers["x-amzn-RequestId"])
    assert "kept" == answer.headers["X-Custom"]


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": 200, "headers": {"X-A": "1\r\nSet-Cookie: owned=1"}},
        {"statusCode": 200, "headers": {"X-A: 1\r\nX-B": "2"}},
        {"statusCode": 200, "cookies": ["a=1\nX-B: 2"]},
        {"statusCode": 101},
        {"statusCode": "many"},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
    ],
)
def test_a_result_that_is_no_answer_is_a_bad_gateway(mirror: str, result: object) -> None:
    """A header that would begin another, or a result that HTTP cannot carry, is a plain 502."""
    answer = returning(mirror, result)

    assert (502, b"Internal Server Error") == (answer.status, answer.body)
    assert not {"Set-Cookie", "X-A", "X-B"} & set(answer.headers.keys())


def test_a_function_that_raises_is_a_bad_gateway(mirror: str) -> None:
    """Its exception is in its log, and not in the answer."""
    answer = ask(mirror, "/raise")

    assert (502, b"Internal Server Error") == (answer.status, answer.body)
    assert answer.headers["x-amzn-RequestId"]


def test_a_throttled_function_is_429(client: BaseClient, make_url: MakeUrl) -> None:
    """429 with Retry-After when its concurrency is used up."""
    name, url = make_url()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    answer = ask(url)

    assert (429, {"Message": "Rate Exceeded."}) == (answer.status, json.loads(answer.body))
    assert "TooManyRequestsException" == answer.headers["x-amzn-ErrorType"]
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("mode", ["BUFFERED", "RESPONSE_STREAM"])
def test_an_answer_to_head_has_no_body(make_url: MakeUrl, mode: str) -> None:
    """After its head comes the next answer on the connection."""
    _, url = make_url(InvokeMode=mode)
    parts = urlsplit(url)
    head = f"HEAD {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
    get = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"

    _, first, second = conversation(url, (head + get).encode()).split(b"HTTP/1.1 200 OK\r\n")

    assert b"" == first.partition(b"\r\n\r\n")[2]
    assert b'"rawPath"' in second


def test_an_answer_of_204_has_no_body(mirror: str) -> None:
    """The body that a function returned with it is left out."""
    answer = returning(mirror, {"statusCode": 204, "body": "the body"})

    assert (204, b"") == (answer.status, answer.body)
    assert answer.headers.get_all("Content-Length") is None


def test_an_error_of_ours_is_for_the_journal(
    function_directory: Callable[..., Path],
) -> None:
    """An error of ours is a 500 without its text; the text is in a Trouble of the journal."""
    url_id = "u" * 32
    config = {"UrlId": url_id, "AuthType": "NONE", "Cors": {}, "InvokeMode": "BUFFERED"}
    everybody = {"Sid": "s", "Principal": "*", "Action": "lambda:InvokeFunctionUrl"}

    async def scenario() -> tuple[Answer, list[journal.Trouble]]:
        async with miniλ.Supervisor() as supervisor:
            code = function_directory("f", app=MIRROR)
            await supervisor.create_function("f", code, "app.handler")
            await supervisor.parts.registry.write(
                Change(URL, "f", "", config), Change(POLICY, "f", "", {"Statement": [everybody]})
            )
            async with Gateway(supervisor, port=0) as gateway:
                await supervisor.parts.pool.close()  # as when it is being closed
                answer = await asyncio.to_thread(ask, f"{gateway.address}/_url/{url_id}/")
            return answer, supervisor.journal.story(journal.Trouble)

    answer, troubles = asyncio.run(scenario())

    assert (500, {"Message": "An error occurred and the request cannot be processed."}) == (
        answer.status,
        json.loads(answer.body),
    )
    request_id = answer.headers["x-amzn-RequestId"]
    (trouble,) = troubles
    request = f"Request {request_id} to the function URL {url_id}"
    assert trouble.what.startswith(f"{request} was answered with 5")


# Streams


def test_a_stream_is_the_result_as_it_is(make_url: MakeUrl) -> None:
    """With RESPONSE_STREAM nothing is inferred: bytes and JSON alike are the body of a 200."""
    _, url = make_url(
        "def handler(event, context):\n"
        "    return b'\\x00raw' if event['rawPath'] == '/raw' else {'statusCode': 404}\n",
        InvokeMode="RESPONSE_STREAM",
    )

    raw, document = ask(url, "/raw"), ask(url, "/document")

    assert [200, 200] == [raw.status, document.status]
    assert (b"\0raw", b'{"statusCode": 404}') == (raw.body, document.body)
    assert ["application/octet-stream"] == raw.headers.get_all("Content-Type")
    assert "chunked" == raw.headers["Transfer-Encoding"]
    assert raw.headers["x-amzn-RequestId"]


def test_a_stream_that_never_began_is_a_bad_gateway(make_url: MakeUrl) -> None:
    """A function that fails before its first byte is a 502, as without a stream."""
    _, url = make_url(InvokeMode="RESPONSE_STREAM")

    answer = ask(url, "/raise")

    assert (502, b"Internal Server Error") == (answer.status, answer.body)


def test_a_stream_is_sent_piece_by_piece() -> None:
    """Pieces are sent as they come; an answer without a body takes them all the same."""
    pieces_read: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece
            pieces_read.append(piece)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        head = UrlAnswer(int(request.path[1:]), (("Content-Type", "text/plain"),))
        return await serve._streamed(request, head, {"x-id": "7"}, b"start", pieces())

    async def scenario() -> list[tuple[int, bytes]]:
        runner = web.ServerRunner(web.Server(handler, access_log=None))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            requests = [("GET", "/200"), ("HEAD", "/200"), ("GET", "/204"), ("GET", "/304")]
            answers = [await asyncio.to_thread(ask, url, path, method) for method, path in requests]
        finally:
            await runner.cleanup()
        assert ["7"] * 4 == [answer.headers["x-id"] for answer in answers]
        return [(answer.status, answer.body) for answer in answers]

    answers = asyncio.run(scenario())

    assert [(200, b"startonetwo"), (200, b""), (204, b""), (304, b"")] == answers
    assert [b"one", b"", b"two"] * 4 == pieces_read


# Browsers


def test_a_preflight_is_answered_without_the_function(
    client: BaseClient, make_url: MakeUrl
) -> None:
    """A preflight needs no signature: browsers do not sign them."""
    name, url = make_url(
        "def handler(event, context):\n    raise SystemExit(1)\n",
        AuthType="AWS_IAM",
        Cors={
            "AllowOrigins": ["https://example.com"],
            "AllowMethods": ["PUT", "GET"],
            "AllowHeaders": ["x-custom"],
            "MaxAge": 300,
        },
    )
    client.remove_permission(FunctionName=name, StatementId="public")

    preflight = {"Access_Control_Request_Method": "PUT"}
    ours = ask(url, "/x", "OPTIONS", Origin="https://example.com", **preflight)
    foreign = ask(url, "/x", "OPTIONS", Origin="https://example.org", **preflight)

    assert [200, 200] == [ours.status, foreign.status]
    assert ("https://example.com", "PUT,GET", "x-custom", "300") == tuple(
        ours.headers[f"Access-Control-{name}"]
        for name in ("Allow-Origin", "Allow-Methods", "Allow-Headers", "Max-Age")
    )
    assert [] == [name for name in foreign.headers if name.startswith("Access-Control-")]
    assert b"" == ours.body == foreign.body


def test_the_cors_of_a_url_is_the_only_source_of_its_headers(
    client: BaseClient, make_url: MakeUrl
) -> None:
    """The function's own CORS headers are dropped, and errors have those of the URL too."""
    cors = {"AllowOrigins": ["https://example.com"], "ExposeHeaders": ["x-custom"]}
    _, url = make_url(Cors=cors)
    result = {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*"}}

    ours = returning(url, result, Origin="https://example.com")
    foreign = returning(url, result, Origin="https://example.org")
    failed = ask(url, "/raise", Origin="https://example.com")

    assert ["https://example.com"] == ours.headers.get_all("Access-Control-Allow-Origin")
    assert "x-custom" == ours.headers["Access-Control-Expose-Headers"]
    assert None is foreign.headers.get_all("Access-Control-Allow-Origin")
    assert (502, "https://example.com") == (
        failed.status,
        failed.headers["Access-Control-Allow-Origin"],
    )


def test_without_a_cors_preflights_are_the_functions(mirror: str) -> None:
    """Preflights reach the function, and its own headers leave."""
    preflight = ask(
        mirror,
        "/",
        "OPTIONS",
        Origin="https://example.com",
        Access_Control_Request_Method="PUT",
    )
    answer = returning(
        mirror,
        {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*"}},
        Origin="https://example.com",
    )

    assert "OPTIONS" == preflight.event["requestContext"]["http"]["method"]
    assert ["*"] == answer.headers.get_all("Access-Control-Allow-Origin")
