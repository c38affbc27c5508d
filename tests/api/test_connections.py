"""Connections of the HTTP server: slow clients, too many of them, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import select
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from miniλ.gateway.http import connections
from tests.api.plain_http import (
    GUEST,
    Meeting,
    ask,
    connect,
    converse,
    head,
    invocation,
    meeting,
    memory,
    rest,
    until,
)
from tests.api.watched_servers import (
    SIGNED,
    SLOW,
    answers_of,
    create,
    hasty,
    hasty_client,
    in_flight,
    reports,
    server,
    small,
    status_and_code,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeFunction = Callable[..., str]

__all__ = ["hasty", "hasty_client", "meeting", "server", "small"]  # fixtures


# Slow clients


def dribble(connection: socket.socket, piece: bytes = b"a") -> bytes:
    """Send a piece every 100 ms, until the server ends it; return its reply."""
    connection.settimeout(0.1)
    reply = b""
    for _ in range(200):
        try:
            piece_of_reply = connection.recv(65536)
            if not piece_of_reply:
                return reply
            reply += piece_of_reply
        except TimeoutError:
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(piece)
        except ConnectionResetError:
            return reply
    pytest.fail("the server did not end the connection after 20 s")


def test_a_head_that_dribbles_is_not_waited_for(hasty: Server) -> None:
    """B46: the connection ends HEAD_SECONDS after the first byte; other clients are answered."""
    with connect(hasty) as slow:
        slow.sendall(head(invocation("slow"))[:-2] + b"X-Slow: ")
        others = [ask(hasty, "GET", "/").status for _ in range(5)]
        reply = dribble(slow)

    assert [200] * 5 == others
    assert b"" == reply


def test_the_head_of_a_second_request_has_a_deadline_too(hasty: Server) -> None:
    """B46: the deadline is the same after an answer."""
    with connect(hasty) as slow:
        slow.sendall(head("/", method="GET"))
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        slow.sendall(head("/")[:-2] + b"X-Slow: ")
        reply = dribble(slow)

    assert b"" == reply


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [invocation("slow"), "/2015-03-31/functions"])
def test_a_body_that_dribbles_is_not_waited_for(hasty: Server, path: str, framing: str) -> None:
    """B46: 408 at the deadline, for bodies in memory and on disk; no file is left."""
    piece = b"a" if framing.endswith("1000") else b"1\r\na\r\n"
    with connect(hasty) as slow:
        slow.sendall(head(path, framing))
        reply = dribble(slow, piece)

    assert reply.startswith(b"HTTP/1.1 408 ")
    assert 1 == reply.count(b"HTTP/1.1")
    assert b"x-amzn-ErrorType: RequestTimeoutException" in reply
    assert [] == list((hasty.state / "uploads").iterdir())


def test_a_body_that_comes_steadily_has_as_long_as_it_needs(
    hasty: Server, hasty_client: BaseClient
) -> None:
    """B46: the deadline is a rate: each BODY_RATE bytes earn one second more."""
    size = 3_000_000
    body = b'"' + b"x" * (size - 2) + b'"'
    with connect(hasty) as steady:
        steady.sendall(head(invocation("slow"), f"Content-Length: {size}"))
        turns = 0
        steady.settimeout(0.1)
        # Twelve pauses of 0.1 s: twice the deadline of a body that does not come.
        for start in range(0, size, size // 12):
            with contextlib.suppress(TimeoutError):
                assert b"" == steady.recv(1)
                pytest.fail("the server ended the connection")
            steady.sendall(body[start : start + size // 12])
            turns += 1
        steady.settimeout(20)
        reply = steady.recv(65536)

    assert 12 <= turns
    # The function cannot sleep for a text, and fails: it ran.
    assert reply.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_reads_nothing_is_dropped_and_holds_no_worker(
    hasty: Server, hasty_client: BaseClient
) -> None:
    """B46: the worker is free after its answer, and the client is dropped at the deadline."""
    hasty_client.put_function_concurrency(FunctionName="large", ReservedConcurrentExecutions=1)
    before = reports(hasty, "large")
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", hasty.port))
        reader.sendall(head(invocation("large"), "Content-Length: 2") + b"{}")
        until(lambda: reports(hasty, "large") == before + 1)
        status = hasty_client.invoke(FunctionName="large")["StatusCode"]
        watch = select.poll()
        watch.register(reader, select.POLLHUP)
        hung_up = watch.poll(20_000)

    assert 200 == status
    assert hung_up


def test_unread_answers_are_not_piled_up(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """B46: for a client that sends many requests and reads nothing, no answers are computed."""
    name = make_function("def handler(event, context):\n    return 'x' * 30_000\n")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=13)
    before = memory(server)
    with contextlib.ExitStack() as all_of_them:
        steady = []
        signature = f"Authorization: {SIGNED['Authorization']}"
        for lines in ([], [], [], [signature], [signature], ["X-Amz-Log-Type: Tail"]):
            request = head(invocation(name), "Content-Length: 2", *lines) + b"{}"
            for is_steady in (True, False):
                greedy = all_of_them.enter_context(socket.socket())
                greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                greedy.connect(("127.0.0.1", server.port))
                if is_steady:
                    steady.append((greedy, request))
                else:
                    greedy.sendall(request * 1_000)
        # Time enough for answers of 100 MB.
        statuses = set()
        for _ in range(400):
            for greedy, request in steady:
                greedy.sendall(request)
            statuses.add(ask(server, "POST", invocation(name), b"{}").status)
        grown = memory(server) - before

    assert {200} == statuses
    assert 16 * 1024 * 1024 > grown


def test_an_idle_connection_ends(small: Server) -> None:
    """B46: an idle connection is kept for its time, and closed then."""
    with connect(small) as new, connect(small) as used:
        used.sendall(head("/", method="GET"))
        assert used.recv(65536).startswith(b"HTTP/1.1 200 ")

        assert b"" == used.recv(1)
        assert b"" == new.recv(1)


@pytest.mark.parametrize("data", [b"", head("/")[:-2]], ids=["idle", "half a head"])
def test_thousands_of_idle_connections_keep_no_client_out(hasty: Server, data: bytes) -> None:
    """B46: with all places taken by idle connections, a client with a request is answered."""
    with contextlib.ExitStack() as all_of_them:
        crowd = []
        statuses = []
        for _ in range(30):
            for _ in range(40):
                connection = all_of_them.enter_context(connect(hasty))
                connection.sendall(data)
                crowd.append(connection)
            statuses.append(ask(hasty, "GET", "/").status)
        gone = 0
        for connection in crowd:
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                gone += not rest(connection)

    assert [200] * 30 == statuses
    assert len(crowd) - 64 <= gone


def test_connections_with_a_request_are_limited(small: Server) -> None:
    """B46: with all places taken by requests, a connection is refused until one of them ends."""

    def is_answered() -> bool:
        try:
            return ask(small, "GET", "/").status == 200
        except ConnectionError:
            return False

    with contextlib.ExitStack() as all_of_them:
        for number in range(8):
            one = all_of_them.enter_context(connect(small))
            one.sendall(head("/2015-03-31/functions", "Content-Length: 9"))
            until(lambda: len(list((small.state / "uploads").iterdir())) == number + 1)  # noqa: B023 - called at once
        reply = converse(small, head("/", "Connection: close", method="GET"))
        one.close()
        until(is_answered)

    assert b"" == reply


def test_a_client_that_waits_for_its_answer_is_never_late(
    hasty: Server, hasty_client: BaseClient
) -> None:
    """A function may run longer than HEAD_SECONDS, also if the body came after the head."""

    def patient(number: int) -> bytes:
        parts = [head(invocation("slow"), "Content-Length: 3"), b"0.9"]
        with connect(hasty) as connection:
            # In one piece, and in two.
            for part in parts if number % 2 else [b"".join(parts)]:
                connection.sendall(part)
            return connection.recv(65536)[:13]

    hasty_client.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=10)
    with ThreadPoolExecutor(10) as threads:
        cold = list(threads.map(patient, range(10)))
        warm = list(threads.map(patient, range(10)))

    assert {b"HTTP/1.1 200 "} == {*cold, *warm}


def test_a_client_that_waits_for_its_answer_is_not_idle(small: Server) -> None:
    """A connection is idle from its answer on: it is closed IDLE_SECONDS after that."""
    with contextlib.closing(small.client()) as client:
        create(client, "slow", SLOW)
        client.invoke(FunctionName="slow", Payload=b"0")
    with connect(small) as patient:
        patient.sendall(head(invocation("slow"), "Content-Length: 3") + b"1.1")
        reply = patient.recv(65536)
        end = patient.recv(1)

    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"" == end


def test_a_client_that_waits_for_its_answer_is_not_evicted(
    hasty: Server, hasty_client: BaseClient, meeting: Meeting
) -> None:
    """B46: clients that only connect do not evict one that waits, on either path."""
    create(hasty_client, "guest", GUEST)
    reply = []
    for _ in range(2):
        (running,) = in_flight(hasty, "guest", meeting, 1)
        with contextlib.ExitStack() as all_of_them:
            for _ in range(200):
                all_of_them.enter_context(connect(hasty))
            reply += answers_of([running], meeting)

    assert [b'"word"'] * 2 == [each.rpartition(b"\r\n\r\n")[2] for each in reply]


@pytest.mark.parametrize("turns", range(5))
def test_a_body_that_comes_later_begins_no_head(turns: int) -> None:
    """The deadline of a head ends with the request, in any turn of the loop that completes it."""

    async def is_late() -> bool:
        over = asyncio.Event()

        async def answer(request: web.BaseRequest) -> web.Response:
            await over.wait()
            return web.Response(text=await request.text())

        server = connections.Server(answer)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        while not server.connections:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0)
        (connection,) = server.connections
        assert isinstance(connection, connections.Connection)
        # As the transport calls it, this number of turns of the loop apart.
        connection.data_received(head("/", "Content-Length: 4"))
        for _ in range(turns):
            await asyncio.sleep(0)
        connection.data_received(b"body")
        for _ in range(10):
            await asyncio.sleep(0)
        late = connection.is_late(asyncio.get_running_loop().time() + 2 * connections.HEAD_SECONDS)
        over.set()
        assert (await reader.readuntil(b"body")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
        await runner.cleanup()
        return late

    assert not asyncio.run(is_late())


# Clients that leave


def test_a_client_that_leaves_changes_nothing(
    server: Server, client: BaseClient, make_function: MakeFunction, meeting: Meeting
) -> None:
    """B47: the function runs to its end, once, and is reported; its concurrency is free again."""
    name = make_function(GUEST, Timeout=30)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    body = json.dumps({"port": meeting.port}).encode()
    request = head(invocation(name), f"Content-Length: {len(body)}") + body

    # The second time a worker is warm: the fast path.
    for times in (1, 2):
        with connect(server) as leaving:
            leaving.sendall(request)
            guest = meeting.await_guest()
        throttled = ask(server, "POST", invocation(name), body)
        guest.sendall(b"done")
        until(lambda: reports(server, name) == times)  # noqa: B023 - called at once
    with connect(server) as staying:
        staying.sendall(request)
        meeting.await_guest().sendall(b"again")
        answer = staying.recv(65536)
    logs = server.client("logs")
    reply = [
        event["message"].strip()
        for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    ]
    logs.close()

    assert (429, "TooManyRequestsException") == status_and_code(throttled)
    assert answer.endswith(b'"again"')
    assert 3 == reply.count("it began") == reply.count("it ended")
    assert 3 == reports(server, name)


def test_a_half_closed_client_has_all_its_answers(
    server: Server, make_function: MakeFunction
) -> None:
    """A client that closes its half of the connection after its requests has all its answers."""
    name = make_function()
    request = head(invocation(name), "Content-Length: 2") + b"[]"
    with connect(server) as half:
        half.sendall(request * 3)
        half.shutdown(socket.SHUT_WR)
        reply = rest(half)

    assert 3 == reply.count(b"HTTP/1.1 200 ")


def test_requests_during_another_one_wait(
    server: Server, make_function: MakeFunction, meeting: Meeting
) -> None:
    """A request that comes during another one is answered after it, and a third after that."""
    name = make_function(GUEST, Timeout=30)
    body = json.dumps({"port": meeting.port}).encode()
    request = head(invocation(name), f"Content-Length: {len(body)}") + body
    reply = []
    for _ in range(2):
        with connect(server) as eager:
            eager.sendall(request)
            first = meeting.await_guest()
            eager.sendall(request[:50])
            eager.sendall(request[50:] + request)
            eager.shutdown(socket.SHUT_WR)
            first.sendall(b"one")
            meeting.await_guest().sendall(b"two")
            meeting.await_guest().sendall(b"three")
            reply.append(rest(eager))

    assert [[b'"one"', b'"two"', b'"three"']] * 2 == [
        re.findall(rb"\r\n\r\n(\"[a-z]+\")", each) for each in reply
    ]


@pytest.mark.parametrize("before", [0, 1], ids=["cold", "warm"])
def test_a_half_closed_client_has_the_answer_of_a_running_function(
    server: Server, make_function: MakeFunction, meeting: Meeting, before: int
) -> None:
    """A client that closes its half while its function runs has its answer."""
    name = make_function(GUEST, Timeout=30)
    answers_of(in_flight(server, name, meeting, before), meeting)
    (running,) = in_flight(server, name, meeting, 1)
    running.shutdown(socket.SHUT_WR)
    # Another client is answered meanwhile, so the server has read the end of ours.
    status = ask(server, "GET", "/").status
    (reply,) = answers_of([running], meeting)

    assert 200 == status
    assert reply.endswith(b'"word"')


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(head("/")[:-2], id="in the head"),
        pytest.param(
            head("/2015-03-31/functions", "Content-Length: 9") + b"{}", id="in a document"
        ),
        pytest.param(head(invocation("none"), "Content-Length: 9") + b"{}", id="in an event"),
        pytest.param(
            head(invocation("none"), "Transfer-Encoding: chunked") + b"2\r\n{}\r\n", id="in chunks"
        ),
    ],
)
def test_half_a_request_is_none(server: Server, data: bytes) -> None:
    """A client that closes its half within a request is not answered, and no file is left."""
    with connect(server) as half:
        half.sendall(data)
        half.shutdown(socket.SHUT_WR)
        answer = rest(half)

    assert b"" == answer
    until(lambda: not list((server.state / "uploads").iterdir()))
