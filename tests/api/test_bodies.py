"""Bodies of requests: sizes, encodings, payloads and documents that cannot be read."""

from __future__ import annotations

import gzip
import re
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.model import MAX_PAYLOAD
from tests.api.plain_http import ask, connect, head, invocation, say
from tests.api.watched_servers import SIGNED, echo, quiet, reports, server, status_and_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.api.conftest import Server

__all__ = ["echo", "quiet", "server"]  # fixtures

ASYNCHRONOUS = {"X-Amz-Invocation-Type": "Event"}


def chunks(body: bytes, size: int = 65536) -> Iterator[bytes]:
    """Return a body in pieces."""
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("headers", [{}, SIGNED])
def test_an_event_above_6_mb_is_refused_before_anything_runs(
    server: Server, quiet: str, headers: dict[str, str], *, in_chunks: bool
) -> None:
    """B48: 413, in AWS's words, by Content-Length or by counting chunks."""
    body = b'"' + b"x" * 7_000_000 + b'"'
    answer = ask(server, "POST", invocation(quiet), chunks(body) if in_chunks else body, headers)

    assert (413, "RequestTooLargeException") == status_and_code(answer)
    assert (
        f"Request must be smaller than {MAX_PAYLOAD} bytes for the InvokeFunction operation"
    ) == answer.message
    assert "User" == answer.document["Type"]
    assert 0 == reports(server, quiet)


def test_an_asynchronous_event_above_1_mb_is_refused(server: Server, quiet: str) -> None:
    """B48: 413, in AWS's words; nothing was accepted."""
    body = b'"' + b"x" * 1_100_000 + b'"'
    answer = ask(server, "POST", invocation(quiet), body, ASYNCHRONOUS)
    counted = ask(server, "POST", invocation(quiet), chunks(body), ASYNCHRONOUS)

    assert (413, "RequestTooLargeException") == status_and_code(answer) == status_and_code(counted)
    assert (
        f"{len(body)} byte payload is too large for the Event invocation type (limit 1048576 bytes)"
    ) == answer.message
    assert 0 == reports(server, quiet)


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("headers", [{}, SIGNED])
def test_6_mb_go_in_and_out(
    server: Server, echo: str, headers: dict[str, str], *, in_chunks: bool
) -> None:
    """B48: the largest payload passes through unchanged."""
    body = b'"' + b"x" * (MAX_PAYLOAD - 2) + b'"'
    answer = ask(server, "POST", invocation(echo), chunks(body) if in_chunks else body, headers)

    assert 200 == answer.status
    assert body == answer.body


def test_a_client_may_ask_before_it_sends(server: Server, echo: str) -> None:
    """100 Continue is sent to a client that expects it, unless its body is too large."""
    with connect(server) as asking:
        asking.sendall(head(invocation(echo), "Content-Length: 2", "Expect: 100-continue"))
        go_on = asking.recv(65536)
        asking.sendall(b"[]")
        answer = asking.recv(65536)
    with connect(server) as in_vain:
        in_vain.sendall(head(invocation(echo), "Content-Length: 7000000", "Expect: 100-continue"))
        refused = in_vain.recv(65536)

    assert b"HTTP/1.1 100 Continue\r\n\r\n" == go_on
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n[]")
    assert refused.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("body", [None, b"", iter(())])
def test_no_body_is_an_empty_event(server: Server, echo: str, body: Any) -> None:
    """B48: 0 bytes are the event {}."""
    answer = ask(server, "POST", invocation(echo), body)

    assert (200, b"{}") == (answer.status, answer.body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="half"),
        pytest.param(b"{'a': 1}", id="Python's"),
        pytest.param(b"NaN", id="NaN"),
        pytest.param(b"{} {}", id="two"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":' * 1_000_000, id="deeper"),
        pytest.param(b'"\xff\xfe"', id="no UTF-8"),
        pytest.param(b'"\xed\xa0\x80"', id="a surrogate"),
        pytest.param('"é"'.encode("utf-16"), id="UTF-16"),
        pytest.param(b"\0", id="NUL"),
        pytest.param(gzip.compress(b"0" * 10_000_000), id="compressed"),
    ],
)
@pytest.mark.parametrize("headers", [{}, SIGNED, ASYNCHRONOUS])
def test_a_payload_that_is_no_json_never_runs(
    server: Server, quiet: str, body: bytes, headers: dict[str, str]
) -> None:
    """B48: 400 InvalidRequestContentException; no Content-Encoding is decompressed."""
    sent_headers = {**headers, "Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else headers
    answer = ask(server, "POST", invocation(quiet), body, sent_headers)

    if headers is ASYNCHRONOUS and len(body) > 1_048_576:
        assert (413, "RequestTooLargeException") == status_and_code(answer)
        return
    assert (400, "InvalidRequestContentException") == status_and_code(answer)
    assert answer.message.startswith("Could not parse request body into json: ")
    assert 0 == reports(server, quiet)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"a":' + b"1" * 5_000 + b"}", id="a number of 5,000 digits"),
        pytest.param(b'{"Description":"\xff"}', id="no UTF-8"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(b'{"Description":"\\ud800"}', id="a surrogate"),
    ],
)
@pytest.mark.parametrize("method_and_path", ["POST functions", "PUT functions/quiet/configuration"])
def test_a_document_that_cannot_be_read_is_the_clients_mistake(
    server: Server, quiet: str, method_and_path: str, body: bytes
) -> None:
    """400 SerializationException, with and without an archive."""
    method, path = method_and_path.split()
    answer = ask(server, method, f"/2015-03-31/{path}", body)

    assert (400, "SerializationException") == status_and_code(answer)


def test_a_trace_id_that_no_header_can_have_is_replaced(server: Server, echo: str) -> None:
    """A trace id that a header of ours cannot have is replaced; a good one comes back."""
    good = "Root=1-6924abcd-0123456789abcdef01234567;Sampled=1"
    trace_ids = []
    for trace in ("\xff\xfe", "x" * 5_000, good):
        for headers in ({}, SIGNED):
            answer = ask(
                server,
                "POST",
                invocation(echo),
                b"{}",
                {**headers, "X-Amzn-Trace-Id": trace},
            )
            assert 200 == answer.status
            trace_ids.append(answer.headers["X-Amzn-Trace-Id"].lower())

    assert [good.lower()] * 2 == trace_ids[4:]
    assert all(
        re.fullmatch("root=1-[0-9a-f]{8}-[0-9a-f]{24};sampled=0", each) for each in trace_ids[:4]
    )


def test_an_answer_is_the_same_on_both_paths(server: Server, echo: str) -> None:
    """A request in one piece takes the fast path, one in two does not: same answer."""
    own = {"date", "x-amzn-requestid", "x-amzn-trace-id"}
    for lines in ([], [f"Authorization: {SIGNED['Authorization']}"], ["Accept: */*"]):
        whole = head(invocation(echo), "Content-Length: 8", *lines) + b'{"a": 1}'
        replies = []
        for parts in ([whole], [whole], [whole[:-3], whole[-3:]]):
            with connect(server) as connection:
                assert b"" == say(connection, *parts)
                top, _, body = connection.recv(65536).partition(b"\r\n\r\n")
                status, *headers = top.decode().split("\r\n")
                pairs = dict(line.lower().split(": ", 1) for line in headers)
                replies.append((status, {**pairs, **dict.fromkeys(own, "")}, pairs.keys(), body))

        assert replies[0] == replies[1] == replies[2]
