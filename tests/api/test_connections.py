"""The edges of the HTTP server: who is slow, who leaves, what is no HTTP, too much at once."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import itertools
import json
import re
import select
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pytest
from aiohttp import web

from miniλ.gateway.http import connections, loopback
from miniλ.model import MAX_PAYLOAD
from tests.api.conftest import ROLE, RUNTIME, Server, archive, serving, updated
from tests.api.plain_http import (
    GUEST,
    Answer,
    Meeting,
    ask,
    connect,
    converse,
    ended,
    head,
    invocation,
    meeting,
    memory,
    rest,
    say,
    until,
    watched,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient

    MakeFunction = Callable[..., str]

__all__ = ["meeting"]  # a fixture

# Seconds are short here, so that they end within a test; a look is taken more often.
HASTY = """
from miniλ.gateway import downloads
from miniλ.gateway.http import bodies, connections

connections.HEAD_SECONDS = bodies.BODY_SECONDS = connections.READER_SECONDS = 0.6
connections.LINGER_SECONDS = 0.2
connections.LOOK_SECONDS = 0.05
connections.MOST_CONNECTIONS = 64
downloads.SECONDS = -1

from miniλ.cli.main import main
main()
"""
# Few may come, and who says nothing is soon gone.
SMALL = """
from miniλ.gateway.http import connections

connections.MOST_CONNECTIONS = 8
connections.IDLE_SECONDS = 0.5

from miniλ.cli.main import main
main()
"""
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(event)\n    return event\n"
LARGE = "def handler(event, context):\n    return 'x' * 6_000_000\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that all tests share, and that never says anything is wrong with it."""
    with watched() as running:
        yield running
        code = running.stop()

    assert 0 == code


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """Return a server without much patience."""
    with watched(program=HASTY) as running:
        yield running


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """Return a server that few can talk to at a time."""
    with watched(program=SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def hasty_client(hasty: Server) -> Iterator[BaseClient]:
    """Return a client of the hasty server, which has a function for each of the tests."""
    opened = hasty.client()
    for name, source in {"slow": SLOW, "large": LARGE}.items():
        create(opened, name, source)
    yield opened
    opened.close()


def create(client: BaseClient, name: str, source: str) -> None:
    """Create a function, and wait until it is active."""
    client.create_function(
        FunctionName=name,
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Timeout=30,
        Code={"ZipFile": archive(app=source)},
    )
    client.get_waiter("function_active_v2").wait(
        FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )


def reports(server: Server, name: str) -> int:
    """Return how many invocations of a function are over, by its log."""
    with contextlib.closing(server.client("logs")) as logs:
        try:
            found = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return 0
    return sum(event["message"].startswith("REPORT ") for event in found)


def told(answer: Answer) -> tuple[int, str]:
    """Return status and code."""
    return answer.status, answer.code


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


# What is sent


@pytest.fixture(scope="module")
def echo(client: BaseClient) -> str:
    """Return a function that returns its event, for who counts nothing of it."""
    create(client, "echo", "def handler(event, context):\n    return event\n")
    return "echo"


@pytest.fixture(scope="module")
def quiet(client: BaseClient) -> str:
    """Return a function that nobody ever gets to run."""
    create(client, "quiet", "def handler(event, context):\n    return event\n")
    return "quiet"


# As a client of AWS and as curl: the latter says less, and takes a shorter way.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261124/us-east-1/lambda/aws4_request"
}
ASYNCHRONOUS = {"X-Amz-Invocation-Type": "Event"}


def chunks(body: bytes, size: int = 65536) -> Iterator[bytes]:
    """Return a body in pieces."""
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("headers", [{}, SIGNED])
def test_an_event_above_6_mb_is_refused_before_anything_runs(
    server: Server, quiet: str, headers: dict[str, str], *, in_chunks: bool
) -> None:
    """B48: 413, in AWS's words, whether the length is said or counted."""
    body = b'"' + b"x" * 7_000_000 + b'"'
    answer = ask(server, "POST", invocation(quiet), chunks(body) if in_chunks else body, headers)

    assert (413, "RequestTooLargeException") == told(answer)
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

    assert (413, "RequestTooLargeException") == told(answer) == told(counted)
    assert (
        f"{len(body)} byte payload is too large for the Event invocation type (limit 1048576 bytes)"
    ) == answer.message
    assert 0 == reports(server, quiet)


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("headers", [{}, SIGNED])
def test_6_mb_go_in_and_out(
    server: Server, echo: str, headers: dict[str, str], *, in_chunks: bool
) -> None:
    """B48: the largest event there may be comes back as it was."""
    body = b'"' + b"x" * (MAX_PAYLOAD - 2) + b'"'
    answer = ask(server, "POST", invocation(echo), chunks(body) if in_chunks else body, headers)

    assert 200 == answer.status
    assert body == answer.body


def test_a_client_may_ask_before_it_sends(server: Server, echo: str) -> None:
    """Expect: 100-continue, as curl says it for large bodies, is answered; and not if in vain."""
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
    """B48: 0 bytes are an object without members."""
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
def test_what_is_no_json_never_runs(
    server: Server, quiet: str, body: bytes, headers: dict[str, str]
) -> None:
    """B48: 400 InvalidRequestContentException; nothing is decompressed, whatever it says."""
    told_so = {**headers, "Content-Encoding": "gzip"} if body[:2] == b"\x1f\x8b" else headers
    answer = ask(server, "POST", invocation(quiet), body, told_so)

    if headers is ASYNCHRONOUS and len(body) > 1_048_576:
        assert (413, "RequestTooLargeException") == told(answer)
        return
    assert (400, "InvalidRequestContentException") == told(answer)
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

    assert (400, "SerializationException") == told(answer)


def test_a_trace_id_that_cannot_go_on_is_not_taken(server: Server, echo: str) -> None:
    """Bytes that no header of ours may have are no trace id, and a good one comes back."""
    good = "Root=1-6924abcd-0123456789abcdef01234567;Sampled=1"
    said = []
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
            said.append(answer.headers["X-Amzn-Trace-Id"].lower())

    assert [good.lower()] * 2 == said[4:]
    assert all(re.fullmatch("root=1-[0-9a-f]{8}-[0-9a-f]{24};sampled=0", each) for each in said[:4])


def test_an_answer_is_the_same_whichever_way_it_took(server: Server, echo: str) -> None:
    """A request that comes in one piece, to a warm worker, and one in two say the same."""
    own = {"date", "x-amzn-requestid", "x-amzn-trace-id"}
    for lines in ([], [f"Authorization: {SIGNED['Authorization']}"], ["Accept: */*"]):
        whole = head(invocation(echo), "Content-Length: 8", *lines) + b'{"a": 1}'
        said = []
        for parts in ([whole], [whole], [whole[:-3], whole[-3:]]):
            with connect(server) as connection:
                assert b"" == say(connection, *parts)
                top, _, body = connection.recv(65536).partition(b"\r\n\r\n")
                status, *headers = top.decode().split("\r\n")
                pairs = dict(line.lower().split(": ", 1) for line in headers)
                said.append((status, {**pairs, **dict.fromkeys(own, "")}, pairs.keys(), body))

        assert said[0] == said[1] == said[2]


# What is no HTTP

RUN = invocation("quiet")
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
    "nothing after a request that is none": [
        b"POST / HTTP/1.1\r\nHost : a\r\n\r\n" + head(RUN, "Content-Length: 2") + b"{}"
    ],
    "a good one before it, at once": [
        head(RUN, "Content-Length: 2") + b"{}" + head(RUN, "Content-Length: +2")
    ],
}


@pytest.mark.parametrize("parts", SMUGGLED.values(), ids=SMUGGLED.keys())
def test_what_is_no_http_has_one_answer(server: Server, quiet: str, parts: list[bytes]) -> None:
    """B49: one JSON error as AWS's are, the connection ends, and nothing ran."""
    said = converse(server, *parts)

    heads = re.findall(rb"^HTTP/1\.[01] (\d{3}) ", said, re.MULTILINE)
    assert [b"400"] == heads
    top, _, body = said.partition(b"\r\n\r\n")
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
    """B49: 400 or 404 with AWS's JSON, and no file is looked at."""
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
    """B49: what is whole by itself is not one more request where another has begun."""
    whole = head(invocation(echo), "Content-Length: 2") + b"{}"
    before = reports(server, echo) + 1
    assert ask(server, "POST", invocation(echo), b"{}").status == 200
    said = converse(
        server,
        b"POST /nothing HTTP/1.1\r\nX-A: ",
        whole,
        head("/", "Connection: close", method="GET"),
    )

    assert [b"404", b"200"] == re.findall(rb"HTTP/1\.1 (\d{3}) ", said)
    assert before == reports(server, echo)


def test_line_ends_in_what_is_said_do_not_come_back(server: Server, quiet: str) -> None:
    """B49: a Qualifier and a ClientContext with CRLF are refused, and are no headers."""
    evil = "1\r\nX-Evil: yes\r\n\r\n"
    qualified = ask(server, "POST", f"{invocation(quiet)}?Qualifier={quote(evil)}", b"{}")
    encoded = base64.b64encode(evil.encode()).decode()
    context = ask(server, "POST", invocation(quiet), b"{}", {"X-Amz-Client-Context": encoded})

    assert (400, "ValidationException") == told(qualified)
    assert (400, "InvalidRequestContentException") == told(context)
    assert "X-Evil" not in qualified.headers
    assert "X-Evil" not in context.headers
    assert 0 == reports(server, quiet)


def test_a_query_of_nothing_but_separators_is_one(server: Server, echo: str) -> None:
    """As many parameters as a line holds are no mistake of the server's."""
    answer = ask(server, "POST", f"{invocation(echo)}?{'&a=' * 2_000}", b"{}")

    assert 200 == answer.status


@pytest.mark.parametrize(
    ("method", "path", "headers", "wanted"),
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
def test_what_nobody_offers_is_refused_as_aws_does(
    server: Server,
    quiet: str,
    method: str,
    path: str,
    headers: dict[str, str],
    wanted: tuple[int, str],
) -> None:
    """B54: 405, 404, 415 and 400 with AWS's JSON."""
    answer = ask(server, method, path, b"{}", headers)

    assert wanted == told(answer)
    assert answer.message
    assert answer.headers["x-amzn-RequestId"]


def test_an_answer_that_breaks_off_has_no_second_one() -> None:
    """Who began to answer and failed cannot answer again: the client hears that it broke off."""

    async def begin(request: web.BaseRequest) -> web.StreamResponse:
        begun = web.StreamResponse(headers={"Content-Length": "10"})
        await begun.prepare(request)
        await begun.write(b"12345")
        return web.Response(text="this went wrong")

    async def ask_twice() -> bytes:
        runner = web.ServerRunner(connections.Server(begin))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(head("/", method="GET") * 2)
        said = await reader.read()
        writer.close()
        await writer.wait_closed()
        await runner.cleanup()
        return said

    said = asyncio.run(ask_twice())

    assert 1 == said.count(b"HTTP/1.1")
    assert said.endswith(b"\r\n\r\n12345")


def test_the_parser_in_c_is_there() -> None:
    """Without it nothing is served: the one in Python has had holes."""
    code, said = ended(AIOHTTP_NO_EXTENSIONS="1")

    assert 69 == code
    assert "ServiceException: aiohttp is here without its parser in C" in said


# Browsers


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:{port}",
        "127.0.0.1:80",
        "127.9.9.9",
        "localhost",
        "LOCALHOST:{port}",
        "x.localhost:{port}",
        "[::1]",
        "[::1]:{port}",
    ],
)
def test_names_of_this_machine_are_ours(server: Server, host: str) -> None:
    """B51: clients come with the name that they were given for loopback."""
    named = {"Host": host.format(port=server.port)}

    assert 200 == ask(server, "GET", "/", None, named).status
    assert 200 == ask(server, "GET", "/2015-03-31/functions", None, named).status


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:80",
        "evil.localhost.com",
        "127.0.0.1.evil.com",
        "127.0.0.1evil.com",
        "127.0.0.1:80@evil.com",
        "127.0.0.1:evil.com",
        "127.0.0.1:",
        "localhost.",
        "localhost.evil.com",
        "[::1].evil.com",
        "[::1",
        "[::2]",
        "evil.com#.localhost",
        "evil.com/.localhost",
        "0.0.0.0",
        "2130706433",
        "127.1",
        ".localhost\xff",
        "",
    ],
)
def test_other_names_are_not(server: Server, quiet: str, host: str) -> None:
    """B51: a page whose name was pointed at us (DNS rebinding) is refused, whatever it asks."""
    asked = [
        ("GET", "/", None),
        ("GET", "/2015-03-31/functions", None),
        ("POST", RUN, b"{}"),
        ("POST", "/", b"Action=GetCallerIdentity"),
    ]
    answers = [
        told(ask(server, method, path, body, {"Host": host})) for method, path, body in asked
    ]

    assert [(403, "AccessDeniedException")] * 4 == answers
    assert 0 == reports(server, quiet)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        # The page of a function URL has our own origin.
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_web_pages_are_refused(server: Server, quiet: str, headers: dict[str, str]) -> None:
    """B51: also with what they can send without asking first: simple POSTs of text."""
    text = {**headers, "Content-Type": "text/plain"}
    document = b'{"FunctionName": "evil"}'
    asked = [
        ("POST", "/2015-03-31/functions", document, text),
        ("POST", RUN, b"{}", text),
        ("POST", "/2014-11-13/functions/quiet/invoke-async/", b"{}", text),
        ("POST", "/", b"Action=GetCallerIdentity", text),
        ("GET", "/2015-03-31/functions", None, headers),
        ("OPTIONS", RUN, None, {**headers, "Access-Control-Request-Method": "POST"}),
        ("GET", "/", None, headers),
        ("GET", "/_minilambda/enforcement", None, headers),
    ]
    answers = [ask(server, *each) for each in asked]

    assert [(403, "AccessDeniedException")] * 8 == [told(answer) for answer in answers]
    assert not any("Access-Control-Allow-Origin" in answer.headers for answer in answers)
    assert 0 == reports(server, quiet)


def test_an_address_that_was_typed_is_answered(server: Server) -> None:
    """A person may look whether it is there."""
    answer = ask(server, "GET", "/", None, {"Sec-Fetch-Site": "none"})

    assert (200, "minilambda") == (answer.status, answer.document["service"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_who_asks_nobody_listens_on_loopback_only(host: str) -> None:
    """Without [auth] an address that others reach is a mistake of usage: exit code 2."""
    code, said = ended("--host", host)

    assert 2 == code
    assert said.startswith(f"InvalidParameterValueException: Listening on {host} without [auth] ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_all_of_loopback_may_be_listened_on(host: str) -> None:
    """Whatever it is called."""
    loopback.check_listening(host, has_auth=False)


# Too much at once

SPAN = """
import time

def handler(event, context):
    began = time.monotonic()
    time.sleep(0.002)
    return [began, time.monotonic()]
"""


class Spoken(NamedTuple):
    """An answer, as `speak` reads it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def speak(port: int, request: bytes, times: int) -> list[Spoken]:
    """Send a request again and again on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = []
    for _ in range(times):
        writer.write(request)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).strip().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        body = await reader.readexactly(int(headers[b"Content-Length"]))
        said.append(Spoken(int(status.split()[1]), headers, body))
    writer.close()
    await writer.wait_closed()
    return said


def test_a_flood_of_invocations_runs_one_at_a_time(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """B40: 2,000 of 50 clients: one runs at any time, others are throttled, nothing breaks."""
    name = make_function(SPAN)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    request = head(invocation(name), "Content-Length: 2") + b"{}"

    async def flood() -> list[list[Spoken]]:
        return await asyncio.gather(*(speak(server.port, request, 40) for _ in range(50)))

    before = memory(server)
    answers = [answer for said in asyncio.run(flood()) for answer in said]
    grown = memory(server) - before

    spans = sorted(json.loads(answer.body) for answer in answers if answer.status == 200)
    refused = [answer for answer in answers if answer.status != 200]
    assert 2_000 == len(answers)
    assert spans
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans))
    assert {429} == {answer.status for answer in refused}
    assert {b"TooManyRequestsException"} == {each.headers[b"x-amzn-ErrorType"] for each in refused}
    assert {b"1"} == {answer.headers[b"Retry-After"] for answer in refused}
    assert {
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
        "Type": "User",
        "message": "Rate Exceeded.",
    } == json.loads(refused[0].body)
    assert 32 * 1024 * 1024 > grown


def in_flight(server: Server, name: str, meeting: Meeting, count: int) -> list[socket.socket]:
    """Return connections on which a `GUEST` is being run, each at the meeting."""
    body = json.dumps({"port": meeting.port}).encode()
    running = []
    for _ in range(count):
        connection = connect(server)
        connection.sendall(head(invocation(name), f"Content-Length: {len(body)}") + body)
        running.append(connection)
        meeting.await_guest()
    return running


def answers_of(running: list[socket.socket], meeting: Meeting) -> list[bytes]:
    """Let all guests go with a word; return the answers."""
    while meeting.guests:
        with meeting.guests.pop() as guest:
            guest.sendall(b"word")
    answers = []
    for connection in running:
        with connection:
            said = b""
            while not said.endswith(b'"word"') and (piece := connection.recv(65536)):
                said += piece
        answers.append(said)
    return answers


def test_who_runs_ends_on_the_code_it_began_with(
    client: BaseClient, server: Server, make_function: MakeFunction, meeting: Meeting
) -> None:
    """B43: an update reaches new invocations only; in-flight ones end as they began."""
    name = make_function(GUEST, Timeout=30)
    running = in_flight(server, name, meeting, 5)
    source = GUEST.replace("return word", "return 'new'").replace("host.recv(100)", "b''")
    client.update_function_code(FunctionName=name, ZipFile=archive(app=source))
    updated(client, name)
    body = json.dumps({"port": meeting.port}).encode()
    new = [ask(server, "POST", invocation(name), body).body for _ in range(3)]
    old = answers_of(running, meeting)

    assert [b'"new"'] * 3 == new
    assert [b'"word"'] * 5 == [said.rpartition(b"\r\n\r\n")[2] for said in old]


def test_who_runs_is_answered_though_its_function_is_gone(
    client: BaseClient, server: Server, make_function: MakeFunction, meeting: Meeting
) -> None:
    """B43: in-flight invocations of a deleted function end; new ones find nothing."""
    name = make_function(GUEST, Timeout=30)
    running = in_flight(server, name, meeting, 5)
    client.delete_function(FunctionName=name)
    new = ask(server, "POST", invocation(name), b"{}")
    old = answers_of(running, meeting)

    assert (404, "ResourceNotFoundException") == told(new)
    assert [b'"word"'] * 5 == [said.rpartition(b"\r\n\r\n")[2] for said in old]


# The life of a server


@pytest.mark.parametrize("before", [0, 1], ids=["cold", "warm"])
def test_sigterm_answers_who_is_waiting(tmp_path: Path, meeting: Meeting, before: int) -> None:
    """New connections are refused at once, what runs is answered, and the exit code is 0."""
    with watched("--state", str(tmp_path)) as leaving:
        with contextlib.closing(leaving.client()) as client:
            create(client, "guest", GUEST)
        answers_of(in_flight(leaving, "guest", meeting, before), meeting)
        idle = connect(leaving)
        (running,) = in_flight(leaving, "guest", meeting, 1)
        leaving.process.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            try:
                connect(leaving).close()
            except ConnectionRefusedError:
                return True
            except ConnectionResetError:
                pass  # it was in the queue of those to be accepted
            return False

        until(is_refused)
        (said,) = answers_of([running], meeting)
        code = leaving.process.wait(20)
        idle.close()

    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b'"word"')
    assert 0 == code


def test_a_state_directory_has_one_server(server: Server) -> None:
    """A second one says who has it, and exits with 75."""
    code, said = ended("--state", str(server.state))

    assert 75 == code
    assert f"in use by process {server.process.pid}" in said


def test_a_server_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Functions are there, what was Pending gets finished, and no half of an upload is left."""
    uploads = tmp_path / "uploads"
    with (
        serving("--state", str(tmp_path)) as killed,
        contextlib.closing(killed.client()) as client,
        connect(killed) as half,
    ):
        create(client, "first", SLOW)
        half.sendall(head("/2015-03-31/functions", "Content-Length: 1000") + b"{")
        until(lambda: bool(list(uploads.iterdir())))
        # Large enough that it is not ready before the end.
        state = client.create_function(
            FunctionName="second",
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": archive(app=SLOW, more="x = 1\n")},
        )["State"]
        assert -signal.SIGKILL == killed.stop(signal.SIGKILL)
    with watched("--state", str(tmp_path)) as again:
        left = list(uploads.iterdir())
        with contextlib.closing(again.client()) as client:
            client.get_waiter("function_active_v2").wait(
                FunctionName="second", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
            )
            names = [each["FunctionName"] for each in client.list_functions()["Functions"]]
            answers = [
                client.invoke(FunctionName=name, Payload=b"0")["Payload"].read() for name in names
            ]

    assert "Pending" == state
    assert [] == left
    assert ["first", "second"] == names
    assert [b"0", b"0"] == answers


# Links


def located(client: BaseClient, name: str) -> str:
    """Return path and query of the link to the code of a function."""
    location: str = client.get_function(FunctionName=name)["Code"]["Location"]
    return location[location.index("/_code/") :]


def test_a_link_gives_the_package_and_nothing_else(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """GetFunction's link has the archive as it was sent; what is changed of it has nothing."""
    code = archive(app="def handler(event, context):\n    return 'one'\n")
    name = make_function(Code={"ZipFile": code})
    other = make_function("def handler(event, context):\n    return 'two'\n")
    path, theirs = located(client, name), located(client, other)
    sha256 = path[7:71]

    good = ask(server, "GET", path)
    changed = {
        "another file": path.replace(sha256, theirs[7:71]),
        "a later end": re.sub(r"expires=\d+", "expires=9999999999", path),
        "no code": path.partition("&code=")[0],
        "another code": path[:-1] + ("0" if path[-1] != "0" else "1"),
        "bytes for a code": path.partition("code=")[0] + "code=%ff%fe",
        "no query": path.partition("?")[0],
        "out of it": path.replace(sha256, "../registry.db?"),
        "out of it, encoded": path.replace(sha256, "..%2fregistry.db"),
        "the directory": path.replace(".zip", ""),
        "upper case": path.replace(sha256, sha256.upper())
        if sha256.upper() != sha256
        else "/_code/",
        "digits of others": path.replace("expires=", "expires=\u0663".encode().decode("latin-1")),
        "nothing": "/_code/",
    }
    answers = {}
    for what, link in changed.items():
        if not link.isascii():
            link = quote(link, safe="/?=&", encoding="latin-1")  # noqa: PLW2901 - as it is sent
        answers[what] = told(ask(server, "GET", link))

    assert (200, code) == (good.status, good.body)
    assert "application/zip" == good.headers["Content-Type"]
    assert dict.fromkeys(changed, (403, "AccessDeniedException")) == answers


def test_a_link_that_has_expired_gives_nothing(hasty: Server, hasty_client: BaseClient) -> None:
    """The hasty server's links have expired when they are made."""
    answer = ask(hasty, "GET", located(hasty_client, "slow"))

    assert (403, "AccessDeniedException") == told(answer)
    assert answer.message.startswith("The link has expired")


def test_a_web_page_has_no_package(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """A link is no way around the guard."""
    path = located(client, make_function())

    assert 403 == ask(server, "GET", path, None, {"Origin": "https://evil.com"}).status
    assert 403 == ask(server, "GET", path, None, {"Host": "evil.com"}).status


def test_many_threads_of_one_client_are_many_clients(server: Server, echo: str) -> None:
    """Answers go to who asked, also where all ask at once."""
    wrong: list[Any] = []

    def check(number: int) -> None:
        for turn in range(5):
            body = json.dumps([number, turn]).encode()
            answer = ask(server, "POST", invocation(echo), body)
            if answer.status == 200 and answer.document != [number, turn]:
                wrong.append(answer.document)

    threads = [threading.Thread(target=check, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong
