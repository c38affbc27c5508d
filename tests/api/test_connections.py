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
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeFunction = Callable[..., str]

__all__ = ["hasty", "hasty_client", "meeting", "server", "small"]  # fixtures


# Who is slow


def dribble(connection: socket.socket, piece: bytes = b"a") -> bytes:
    """Send a piece now and then, until the server has enough; return what it says."""
    connection.settimeout(0.1)
    said = b""
    for _ in range(200):
        try:
            came = connection.recv(65536)
            if not came:
                return said
            said += came
        except TimeoutError:
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(piece)
        except ConnectionResetError:
            return said
    pytest.fail("the server has endless patience")


def test_a_head_that_dribbles_is_not_waited_for(hasty: Server) -> None:
    """B46: the connection ends at the deadline, from its first byte, and others are answered."""
    with connect(hasty) as slow:
        slow.sendall(head(invocation("slow"))[:-2] + b"X-Slow: ")
        others = [ask(hasty, "GET", "/").status for _ in range(5)]
        said = dribble(slow)

    assert [200] * 5 == others
    assert b"" == said


def test_the_head_of_a_second_request_has_a_deadline_too(hasty: Server) -> None:
    """B46: a connection that was answered once is not waited for any longer."""
    with connect(hasty) as slow:
        slow.sendall(head("/", method="GET"))
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
        slow.sendall(head("/")[:-2] + b"X-Slow: ")
        said = dribble(slow)

    assert b"" == said


@pytest.mark.parametrize("framing", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [invocation("slow"), "/2015-03-31/functions"])
def test_a_body_that_dribbles_is_not_waited_for(hasty: Server, path: str, framing: str) -> None:
    """B46: 408 at the deadline, in memory and on disk, and nothing of it is left."""
    piece = b"a" if framing.endswith("1000") else b"1\r\na\r\n"
    with connect(hasty) as slow:
        slow.sendall(head(path, framing))
        said = dribble(slow, piece)

    assert said.startswith(b"HTTP/1.1 408 ")
    assert 1 == said.count(b"HTTP/1.1")
    assert b"x-amzn-ErrorType: RequestTimeoutException" in said
    assert [] == list((hasty.state / "uploads").iterdir())


def test_a_body_that_comes_steadily_has_as_long_as_it_needs(
    hasty: Server, hasty_client: BaseClient
) -> None:
    """B46: the deadline is of a rate: so many bytes are worth a second more."""
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
        said = steady.recv(65536)

    assert 12 <= turns
    # The function is given a text, and cannot sleep for it: it ran.
    assert said.startswith(b"HTTP/1.1 200 ")


def test_who_reads_nothing_is_left_and_holds_no_worker(
    hasty: Server, hasty_client: BaseClient
) -> None:
    """B46: the worker is free as soon as it has answered, and the answer is dropped in time."""
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


def test_answers_that_nobody_reads_are_not_piled_up(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """B46: who asks for much, at once or bit by bit, and reads nothing, is not worked for."""
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
        # Time enough for what would be 100 MB.
        statuses = set()
        for _ in range(400):
            for greedy, request in steady:
                greedy.sendall(request)
            statuses.add(ask(server, "POST", invocation(name), b"{}").status)
        grown = memory(server) - before

    assert {200} == statuses
    assert 16 * 1024 * 1024 > grown


def test_a_connection_that_asks_for_nothing_ends(small: Server) -> None:
    """B46: an idle connection is kept for its time, and closed then."""
    with connect(small) as new, connect(small) as used:
        used.sendall(head("/", method="GET"))
        assert used.recv(65536).startswith(b"HTTP/1.1 200 ")

        assert b"" == used.recv(1)
        assert b"" == new.recv(1)


@pytest.mark.parametrize("said", [b"", head("/")[:-2]], ids=["idle", "half a head"])
def test_thousands_of_connections_keep_nobody_out(hasty: Server, said: bytes) -> None:
    """B46: with all places taken by who asks for nothing, those who ask are answered."""
    with contextlib.ExitStack() as all_of_them:
        crowd = []
        answered = []
        for _ in range(30):
            for _ in range(40):
                connection = all_of_them.enter_context(connect(hasty))
                connection.sendall(said)
                crowd.append(connection)
            answered.append(ask(hasty, "GET", "/").status)
        gone = 0
        for connection in crowd:
            connection.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                gone += not rest(connection)

    assert [200] * 30 == answered
    assert len(crowd) - 64 <= gone


def test_there_is_an_end_to_how_many_are_answered(small: Server) -> None:
    """B46: with all places taken by requests, nobody more is let in; they are when one is over."""

    def is_let_in() -> bool:
        try:
            return ask(small, "GET", "/").status == 200
        except ConnectionError:
            return False

    with contextlib.ExitStack() as all_of_them:
        for number in range(8):
            one = all_of_them.enter_context(connect(small))
            one.sendall(head("/2015-03-31/functions", "Content-Length: 9"))
            until(lambda: len(list((small.state / "uploads").iterdir())) == number + 1)  # noqa: B023 - called at once
        said = converse(small, head("/", "Connection: close", method="GET"))
        one.close()
        until(is_let_in)

    assert b"" == said


def test_who_is_being_answered_is_never_late(hasty: Server, hasty_client: BaseClient) -> None:
    """A function may run longer than a head may take, also where the body came a little later."""

    def patient(number: int) -> bytes:
        parts = [head(invocation("slow"), "Content-Length: 3"), b"0.9"]
        with connect(hasty) as connection:
            # At once, and in two.
            for part in parts if number % 2 else [b"".join(parts)]:
                connection.sendall(part)
            return connection.recv(65536)[:13]

    hasty_client.put_function_concurrency(FunctionName="slow", ReservedConcurrentExecutions=10)
    with ThreadPoolExecutor(10) as threads:
        cold = list(threads.map(patient, range(10)))
        warm = list(threads.map(patient, range(10)))

    assert {b"HTTP/1.1 200 "} == {*cold, *warm}


def test_who_is_being_answered_is_not_idle(small: Server) -> None:
    """A connection is idle from its answer on: it is not closed before, and it is then."""
    with contextlib.closing(small.client()) as client:
        create(client, "slow", SLOW)
        client.invoke(FunctionName="slow", Payload=b"0")
    with connect(small) as patient:
        patient.sendall(head(invocation("slow"), "Content-Length: 3") + b"1.1")
        said = patient.recv(65536)
        end = patient.recv(1)

    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"" == end


def test_who_is_being_answered_makes_no_room(
    hasty: Server, hasty_client: BaseClient, meeting: Meeting
) -> None:
    """B46: who waits for an answer is not put out by who only connects, on a warm worker too."""
    create(hasty_client, "guest", GUEST)
    said = []
    for _ in range(2):
        (running,) = in_flight(hasty, "guest", meeting, 1)
        with contextlib.ExitStack() as all_of_them:
            for _ in range(200):
                all_of_them.enter_context(connect(hasty))
            said += answers_of([running], meeting)

    assert [b'"word"'] * 2 == [each.rpartition(b"\r\n\r\n")[2] for each in said]


@pytest.mark.parametrize("turns", range(5))
def test_a_body_that_comes_later_begins_no_head(turns: int) -> None:
    """Whenever the rest of a request comes, who is being answered owes nothing any more."""

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
        while not server.connections:  # noqa: ASYNC110 - nobody tells when there is one
            await asyncio.sleep(0)
        (connection,) = server.connections
        assert isinstance(connection, connections.Connection)
        # As the transport does it, so many turns of the loop later.
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


# Who leaves


def test_who_leaves_changes_nothing(
    server: Server, client: BaseClient, make_function: MakeFunction, meeting: Meeting
) -> None:
    """B47: the function runs to its end, once, and is reported; its concurrency is free again."""
    name = make_function(GUEST, Timeout=30)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    body = json.dumps({"port": meeting.port}).encode()
    request = head(invocation(name), f"Content-Length: {len(body)}") + body

    # The second time a worker is warm, which is another way through the server.
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
    said = [
        event["message"].strip()
        for event in logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
    ]
    logs.close()

    assert (429, "TooManyRequestsException") == told(throttled)
    assert answer.endswith(b'"again"')
    assert 3 == said.count("it began") == said.count("it ended")
    assert 3 == reports(server, name)


def test_who_has_said_all_is_answered(server: Server, make_function: MakeFunction) -> None:
    """A client that closes its half of the connection after its requests has all its answers."""
    name = make_function()
    request = head(invocation(name), "Content-Length: 2") + b"[]"
    with connect(server) as half:
        half.sendall(request * 3)
        half.shutdown(socket.SHUT_WR)
        said = rest(half)

    assert 3 == said.count(b"HTTP/1.1 200 ")


def test_what_comes_too_early_waits(
    server: Server, make_function: MakeFunction, meeting: Meeting
) -> None:
    """A request that comes while another is being answered is answered next, and so is a third."""
    name = make_function(GUEST, Timeout=30)
    body = json.dumps({"port": meeting.port}).encode()
    request = head(invocation(name), f"Content-Length: {len(body)}") + body
    said = []
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
            said.append(rest(eager))

    assert [[b'"one"', b'"two"', b'"three"']] * 2 == [
        re.findall(rb"\r\n\r\n(\"[a-z]+\")", each) for each in said
    ]


@pytest.mark.parametrize("before", [0, 1], ids=["cold", "warm"])
def test_who_has_said_all_is_waited_for(
    server: Server, make_function: MakeFunction, meeting: Meeting, before: int
) -> None:
    """A client that closes its half while its function runs has its answer."""
    name = make_function(GUEST, Timeout=30)
    answers_of(in_flight(server, name, meeting, before), meeting)
    (running,) = in_flight(server, name, meeting, 1)
    running.shutdown(socket.SHUT_WR)
    # Somebody else is answered meanwhile, so the server has heard of the end.
    status = ask(server, "GET", "/").status
    (said,) = answers_of([running], meeting)

    assert 200 == status
    assert said.endswith(b'"word"')


@pytest.mark.parametrize(
    "said",
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
def test_half_a_request_is_none(server: Server, said: bytes) -> None:
    """A client that closes its half within a request is not answered, and nothing is left."""
    with connect(server) as half:
        half.sendall(said)
        half.shutdown(socket.SHUT_WR)
        answer = rest(half)

    assert b"" == answer
    until(lambda: not list((server.state / "uploads").iterdir()))
