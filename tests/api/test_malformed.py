"""Requests that are not HTTP, or not of Lambda's API: each has one answer, and nothing runs."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from aiohttp import web

from miniλ.gateway.http import connections
from tests.api.plain_http import ask, converse, head, invocation
from tests.api.watched_servers import RUN, echo, quiet, reports, server, status_and_code

if TYPE_CHECKING:
    from tests.api.conftest import Server

__all__ = ["echo", "quiet", "server"]  # fixtures

CHUNKED = "Transfer-Encoding: chunked"
SMUGGLED = {
    "both lengths": [head(RUN, "Content-Length: 4", CHUNKED) + b"0\r\n\r\n"],
    "two lengths": [head(RUN, "Content-Length: 2", "Content-Length: 3") + b"{}"],
    "twice the same length": [head(RUN, "Content-Length: 2", "Content-Length: 2") + b"{}"],
    "a list of lengths": [head(RUN, "Content-Length: 2, 2") + b"{}"],
    "a signed length": [head(RUN, "Content-Length: +2") + b"{}"],
    "a negative length": [head(RUN, "Content-Length: -2") + b"{}"],
    "a length in hex": [head(RUN, "Content-Length: 0x2") + b"{}"],
    "an empty length": [head(RUN, "Content-Length:") + b"{}"],
    "a length above 64 bits": [head(RUN, f"Content-Length: {1 << 64}") + b"{}"],
    "another coding": [head(RUN, "Transfer-Encoding: xchunked") + b"2\r\n{}\r\n0\r\n\r\n"],
    "no coding": [head(RUN, "Transfer-Encoding: identity") + b"{}"],
    "two codings": [head(RUN, "Transfer-Encoding: gzip, chunked") + b"2\r\n{}\r\n0\r\n\r\n"],
    "chunked not last": [head(RUN, "Transfer-Encoding: chunked, gzip") + b"2\r\n{}\r\n0\r\n\r\n"],
    "chunked twice": [head(RUN, CHUNKED, CHUNKED) + b"2\r\n{}\r\n0\r\n\r\n"],
    "a space before the colon": [
        head(RUN, "Transfer-Encoding : chunked") + b"2\r\n{}\r\n0\r\n\r\n"
    ],
    "chunked in HTTP/1.0": [
        head(RUN, CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n"
    ],
    "a chunk of size zz": [head(RUN, CHUNKED) + b"zz\r\n{}\r\n0\r\n\r\n"],
    "a chunk of size +2": [head(RUN, CHUNKED) + b"+2\r\n{}\r\n0\r\n\r\n"],
    "a chunk of size 0x2": [head(RUN, CHUNKED) + b"0x2\r\n{}\r\n0\r\n\r\n"],
    "a chunk above 64 bits": [head(RUN, CHUNKED) + b"1" + b"0" * 16 + b"\r\n{}\r\n0\r\n\r\n"],
    "a chunk that is longer": [head(RUN, CHUNKED) + b"2\r\n{}  \r\n0\r\n\r\n"],
    "chunks of bare LF": [head(RUN, CHUNKED) + b"2\n{}\n0\n\n"],
    "a bad chunk later": [head(RUN, CHUNKED), b"2\r\n{}\r\n", b"zz\r\n"],
    "a bad chunk of a signed one": [
        head(RUN, CHUNKED, "Authorization: Credential=123456789012/"),
        b"2\r\n{}\r\n",
        b"zz\r\n",
    ],
    "a bad chunk on disk": [head("/2015-03-31/functions", CHUNKED), b"2\r\n{}\r\n", b"zz\r\n"],
    "too many trailers": [head(RUN, CHUNKED), b"2\r\n{}\r\n0\r\n" + b"X-A: b\r\n" * 1_000],
    "a folded header": [head(RUN, "X-A: b\r\n c", "Content-Length: 2") + b"{}"],
    "bare LF": [head(RUN, "Content-Length: 2").replace(b"\r\n", b"\n") + b"{}"],
    "bare CR": [head(RUN, "X-A: b\rContent-Length: 9", "Content-Length: 2") + b"{}"],
    "NUL in a value": [head(RUN, "X-A: a\0b", "Content-Length: 2") + b"{}"],
    "NUL in a name": [head(RUN, "X\0A: b", "Content-Length: 2") + b"{}"],
    "no name": [head(RUN, ": b", "Content-Length: 2") + b"{}"],
    "no Host": [f"POST {RUN} HTTP/1.1\r\nContent-Length: 2\r\n\r\n{{}}".encode()],
    "two Hosts": [head(RUN, "Host: localhost", "Content-Length: 2") + b"{}"],
    "10,000 headers": [head(RUN, *[f"X-{n}: a" for n in range(10_000)], "Content-Length: 2")],
    "a header of 64 KB": [head(RUN, "X-A: " + "a" * 65_536, "Content-Length: 2") + b"{}"],
    "a path of 64 KB": [head("/" + "a" * 65_536)],
    "a path of bytes": [head("/2015-03-31/functions/\xff/invocations", "Content-Length: 2")],
    "a query of bytes": [head(RUN + "?Qualifier=\xff", "Content-Length: 2") + b"{}"],
    "a path with a space": [head("/2015-03-31/functions/a b/invocations", "Content-Length: 2")],
    "an unknown method": [head(RUN, "Content-Length: 2", method="BREW") + b"{}"],
    "no method": [head(RUN, "Content-Length: 2", method="PO(ST") + b"{}"],
    "HTTP/3.0": [head(RUN, "Content-Length: 2").replace(b"HTTP/1.1", b"HTTP/3.0") + b"{}"],
    "HTTP/2": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    "TLS": [bytes.fromhex("16030100a5010000a10303") + bytes(100)],
    "bytes": [bytes(range(256))],
    "nothing after a malformed request": [
        b"POST / HTTP/1.1\r\nHost : a\r\n\r\n" + head(RUN, "Content-Length: 2") + b"{}"
    ],
    "a good one before it, at once": [
        head(RUN, "Content-Length: 2") + b"{}" + head(RUN, "Content-Length: +2")
    ],
}


@pytest.mark.parametrize("parts", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_a_malformed_request_has_one_answer(server: Server, quiet: str, parts: list[bytes]) -> None:
    """B49: one JSON error like AWS's, then the connection ends; nothing ran."""
    reply = converse(server, *parts)

    heads = re.findall(rb"^HTTP/1\.[01] (\d{3}) ", reply, re.MULTILINE)
    assert [b"400"] == heads
    top, _, body = reply.partition(b"\r\n\r\n")
    assert json.loads(body)["message"]
    assert b"\r\nx-amzn-ErrorType: " in top
    assert b"\r\nContent-Type: application/json\r\n" in top + b"\r\n"
    assert 0 == reports(server, quiet)
    assert [] == list((server.state / "uploads").iterdir())


ESCAPING = [
    "..%2f..%2f..%2fetc%2fpasswd",
    "quiet%2f..%2fquiet",
    "%2e%2e",
    "quiet%00",
    "quiet%0d%0aX-A:%20b",
    "%ff%fe",
    quote("größe"),
    quote("quiet\u202e"),
    "quiet%",
    "a" * 65,
    "arn:aws:lambda:us-east-1:000000000000:function:" + "a" * 170,
    "arn:aws:lambda:us-east-1:000000000000:function:..%2fquiet",
    "arn:aws:lambda:us-east-1:000000000000:layer:quiet",
    "",
    ".",
    "..",
    "quiet//",
]


@pytest.mark.parametrize("name", ESCAPING)
def test_a_name_that_is_none_finds_nothing(server: Server, quiet: str, name: str) -> None:
    """B49: 400 or 404 with AWS's JSON, and no file is read."""
    for method, path in (("POST", invocation(name)), ("GET", f"/2015-03-31/functions/{name}")):
        answer = ask(server, method, path)
        if path == "/2015-03-31/functions/":
            continue  # the list of all of them

        assert answer.status in {400, 404}
        assert answer.code.endswith("Exception")
        assert answer.message
        assert b"root:" not in answer.body
    assert 0 == reports(server, quiet)


def test_a_request_in_the_midst_of_a_head_is_a_part_of_it(server: Server, echo: str) -> None:
    """B49: a whole request within the head of another one is part of that head."""
    whole = head(invocation(echo), "Content-Length: 2") + b"{}"
    before = reports(server, echo) + 1
    assert ask(server, "POST", invocation(echo), b"{}").status == 200
    reply = converse(
        server,
        b"POST /nothing HTTP/1.1\r\nX-A: ",
        whole,
        head("/", "Connection: close", method="GET"),
    )

    assert [b"404", b"200"] == re.findall(rb"HTTP/1\.1 (\d{3}) ", reply)
    assert before == reports(server, echo)


def test_line_ends_in_parameters_do_not_come_back(server: Server, quiet: str) -> None:
    """B49: a Qualifier and a ClientContext with CRLF are refused, and add no headers."""
    evil = "1\r\nX-Evil: yes\r\n\r\n"
    qualified = ask(server, "POST", f"{invocation(quiet)}?Qualifier={quote(evil)}", b"{}")
    encoded = base64.b64encode(evil.encode()).decode()
    context = ask(server, "POST", invocation(quiet), b"{}", {"X-Amz-Client-Context": encoded})

    assert (400, "ValidationException") == status_and_code(qualified)
    assert (400, "InvalidRequestContentException") == status_and_code(context)
    assert "X-Evil" not in qualified.headers
    assert "X-Evil" not in context.headers
    assert 0 == reports(server, quiet)


def test_a_query_of_nothing_but_separators_is_one(server: Server, echo: str) -> None:
    """2,000 parameters are no error."""
    answer = ask(server, "POST", f"{invocation(echo)}?{'&a=' * 2_000}", b"{}")

    assert 200 == answer.status


@pytest.mark.parametrize(
    ("method", "path", "headers", "expected"),
    [
        ("PATCH", "/2015-03-31/functions", {}, (405, "MethodNotAllowedException")),
        ("PUT", RUN, {}, (405, "MethodNotAllowedException")),
        ("DELETE", "/", {}, (405, "MethodNotAllowedException")),
        ("GET", "/nothing", {}, (404, "UnknownOperationException")),
        ("GET", "/2015-03-31/nothing", {}, (404, "UnknownOperationException")),
        ("OPTIONS", "*", {}, (404, "UnknownOperationException")),
        ("POST", invocation("nobody"), {}, (404, "ResourceNotFoundException")),
        ("POST", f"{RUN}?Qualifier=nobody", {}, (404, "ResourceNotFoundException")),
        (
            "POST",
            "/2015-03-31/functions",
            {"Content-Type": "text/plain"},
            (415, "UnsupportedMediaTypeException"),
        ),
        (
            "POST",
            "/2015-03-31/functions",
            {"Content-Type": "\xff\xfe"},
            (415, "UnsupportedMediaTypeException"),
        ),
        ("POST", RUN, {"X-Amz-Invocation-Type": "\xff"}, (400, "SerializationException")),
        ("POST", RUN, {"X-Amz-Invocation-Type": "Never"}, (400, "ValidationException")),
    ],
)
def test_a_request_without_an_operation_is_refused_as_aws_does(
    server: Server,
    quiet: str,
    method: str,
    path: str,
    headers: dict[str, str],
    expected: tuple[int, str],
) -> None:
    """B54: 405, 404, 415 and 400 with AWS's JSON."""
    answer = ask(server, method, path, b"{}", headers)

    assert expected == status_and_code(answer)
    assert answer.message
    assert answer.headers["x-amzn-RequestId"]


def test_an_answer_that_breaks_off_has_no_second_one() -> None:
    """A handler that fails in the middle of an answer sends no second one: the connection ends."""

    async def begin(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "10"})
        await response.prepare(request)
        await response.write(b"12345")
        return web.Response(text="this went wrong")

    async def ask_twice() -> bytes:
        runner = web.ServerRunner(connections.Server(begin))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(head("/", method="GET") * 2)
        reply = await reader.read()
        writer.close()
        await writer.wait_closed()
        await runner.cleanup()
        return reply

    reply = asyncio.run(ask_twice())

    assert 1 == reply.count(b"HTTP/1.1")
    assert reply.endswith(b"\r\n\r\n12345")
