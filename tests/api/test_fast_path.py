"""The fast path over HTTP: a client can tell it from the other path by its time only."""

from __future__ import annotations

import json
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import ROLE, RUNTIME, archive
from tests.api.plain_http import (
    GUEST,
    SECONDS,
    ask,
    connect,
    head,
    invocation,
    meeting,
    rest,
    until,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

    from tests.api.conftest import Server
    from tests.api.plain_http import Meeting

__all__ = ["meeting"]  # a fixture

# A header that changes nothing, and that the fast path does not know.
DETOUR = "Accept-Charset: utf-8"
PLAIN = "def handler(event, context):\n    return 1 / 0 if event == 'fail' else event\n"


@pytest.fixture
def echo(server: Server, make_function: Callable[..., str]) -> str:
    """Return a function whose worker is warm."""
    name = make_function(PLAIN)
    assert 200 == ask(server, "POST", invocation(name), b"{}").status
    return name


def request(name: str, body: bytes, *lines: str) -> bytes:
    """Return an invocation as bytes."""
    return head(invocation(name), f"Content-Length: {len(body)}", *lines) + body


def answers(server: Server, data: bytes, count: int) -> list[tuple[bytes, bytes]]:
    """Send bytes on one connection and read this number of answers: head and body of each."""
    heads_and_bodies: list[tuple[bytes, bytes]] = []
    with connect(server) as connection, connection.makefile("rb") as reader:
        connection.sendall(data)
        for _ in range(count):
            lines = [reader.readline()]
            while lines[-1] not in (b"\r\n", b""):
                lines.append(reader.readline())
            (length,) = [line for line in lines if line.lower().startswith(b"content-length")]
            heads_and_bodies.append((b"".join(lines), reader.read(int(length.split(b":")[1]))))
    return heads_and_bodies


def headers(answer_head: bytes) -> dict[bytes, bytes]:
    """Return the headers of an answer, without those that differ each time."""
    lines = [line.split(b": ", 1) for line in answer_head.split(b"\r\n")[1:] if line]
    values = {name.lower(): value for name, value in lines}
    assert len(lines) == len(values)
    for each in (b"date", b"x-amzn-requestid", b"x-amzn-trace-id"):
        values.pop(each, None)
    return values


@pytest.mark.parametrize(
    "body", [b'{"a": 1}', b'"fail"', b"", b"\xc3\xa4", b"{", b'"' + b"x" * 5000 + b'"']
)
def test_both_paths_answer_the_same(server: Server, echo: str, body: bytes) -> None:
    """Status, headers and body: of an answer, of a failure, of an error."""
    for _ in range(2):  # a function that fails is warm again after it
        ask(server, "POST", invocation(echo), b"1")
    ((fast, first),) = answers(server, request(echo, body), 1)
    ((slow, second),) = answers(server, request(echo, body, DETOUR), 1)

    assert fast.split(b"\r\n")[0] == slow.split(b"\r\n")[0]
    assert headers(fast) == headers(slow)
    if b"RequestId" not in first and b"requestId" not in first:
        assert first == second


def test_requests_that_come_together_are_answered_in_order(server: Server, echo: str) -> None:
    """Pipelined, in one piece."""
    data = b"".join(request(echo, str(number).encode()) for number in range(5))

    assert [str(n).encode() for n in range(5)] == [body for _, body in answers(server, data, 5)]


def test_a_request_during_another_one_waits(
    server: Server, make_function: Callable[..., str], meeting: Meeting
) -> None:
    """A request that arrives during another one is answered after it; also a broken one."""
    name = warm_guest(server, make_function, meeting)
    body = json.dumps({"port": meeting.port}).encode()
    with connect(server) as connection, connection.makefile("rb") as reader:
        connection.sendall(request(name, body))
        guest = meeting.await_guest()
        connection.sendall(request(name, body))
        guest.sendall(b"first")
        assert b'"first"' in read_answer(reader)
        guest = meeting.await_guest()
        connection.sendall(b"nonsense\r\n\r\n")
        guest.sendall(b"second")
        assert b'"second"' in read_answer(reader)
        assert b"400" in reader.readline()
        rest(connection)


def read_answer(reader: object) -> bytes:
    """Read one answer."""
    length = 0
    while (line := reader.readline()) != b"\r\n":  # type: ignore[attr-defined]
        if line.lower().startswith(b"content-length"):
            length = int(line.split(b":")[1])
    return reader.read(length)  # type: ignore[attr-defined, no-any-return]


def warm_guest(
    server: Server, make_function: Callable[..., str], meeting: Meeting, **more: object
) -> str:
    """Return a function that meets the test, with a warm worker."""
    name = make_function(GUEST, Timeout=60, **more)
    warm_up(server, name, meeting)
    return name


def warm_up(server: Server, name: str, meeting: Meeting) -> None:
    """Invoke once, and wait for the answer."""
    body = json.dumps({"port": meeting.port}).encode()
    asking = threading.Thread(target=lambda: ask(server, "POST", invocation(name), body))
    asking.start()
    meeting.await_guest().sendall(b"warm")
    asking.join(SECONDS)


def test_a_client_that_leaves_does_not_stop_it(
    server: Server, make_function: Callable[..., str], meeting: Meeting, client: BaseClient
) -> None:
    """The function runs to its end, once, and its worker is free again."""
    name = warm_guest(server, make_function, meeting)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    body = json.dumps({"port": meeting.port}).encode()
    with connect(server) as connection:
        connection.sendall(request(name, body))
        guest = meeting.await_guest()
    guest.sendall(b"on")
    logs = server.client("logs")
    group = f"/aws/lambda/{name}"
    search = logs.filter_log_events
    until(lambda: 2 == len(search(logGroupName=group, filterPattern="REPORT")["events"]))
    logs.close()

    warm_up(server, name, meeting)


def test_a_half_closed_client_is_answered(
    server: Server, make_function: Callable[..., str], meeting: Meeting
) -> None:
    """A client that closes its own side waits for the answer, and then it is over."""
    name = warm_guest(server, make_function, meeting)
    with connect(server) as connection:
        connection.sendall(request(name, json.dumps({"port": meeting.port}).encode()))
        guest = meeting.await_guest()
        connection.shutdown(socket.SHUT_WR)
        guest.sendall(b"good")

        assert rest(connection).endswith(b'"good"')


def test_the_end_of_the_server_waits_for_it(meeting: Meeting) -> None:
    """SIGTERM: a running invocation is answered, and the server exits with 0."""
    with watched() as server:
        client = server.client()
        client.create_function(
            FunctionName="guest",
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Timeout=60,
            Code={"ZipFile": archive(app=GUEST)},
        )
        client.get_waiter("function_active_v2").wait(FunctionName="guest")
        client.close()
        warm_up(server, "guest", meeting)
        with connect(server) as connection, connection.makefile("rb") as reader:
            connection.sendall(request("guest", json.dumps({"port": meeting.port}).encode()))
            guest = meeting.await_guest()
            server.process.send_signal(signal.SIGTERM)
            until(lambda: is_deaf(server))
            guest.sendall(b"bye")
            assert b'"bye"' == read_answer(reader)
        assert 0 == server.process.wait(SECONDS)


def is_deaf(server: Server) -> bool:
    """Return whether the server has stopped listening."""
    try:
        connect(server).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # in the moment that it closes
    return False
