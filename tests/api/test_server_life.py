"""A server under load, at an update, at SIGTERM and after SIGKILL."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import signal
import socket
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import miniλ
from miniλ.gateway.server import DOCUMENTS, Gateway
from miniλ.journal import Trouble
from tests.api.conftest import ROLE, RUNTIME, Server, archive, serving, updated
from tests.api.plain_http import (
    GUEST,
    Meeting,
    ask,
    connect,
    ended,
    head,
    invocation,
    meeting,
    memory,
    until,
    watched,
)
from tests.api.watched_servers import (
    SLOW,
    answers_of,
    create,
    echo,
    in_flight,
    server,
    status_and_code,
)
from tests.command import finish, run, start

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from botocore.client import BaseClient

    from miniλ.gateway.call import Call

    MakeFunction = Callable[..., str]

__all__ = ["echo", "meeting", "server"]  # fixtures


def test_the_parser_in_c_is_there() -> None:
    """Without it the server does not start: the parser in Python has had security holes."""
    code, stderr = ended(AIOHTTP_NO_EXTENSIONS="1")

    assert 69 == code
    assert "ServiceException: aiohttp is here without its parser in C" in stderr


# Load

SPAN = """
import time

def handler(event, context):
    began = time.monotonic()
    time.sleep(0.002)
    return [began, time.monotonic()]
"""


class Spoken(NamedTuple):
    """An answer that `speak` has read."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


async def speak(port: int, request: bytes, times: int) -> list[Spoken]:
    """Send a request again and again on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    reply = []
    for _ in range(times):
        writer.write(request)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).strip().split(b"\r\n")
        headers = dict(line.split(b": ", 1) for line in lines)
        body = await reader.readexactly(int(headers[b"Content-Length"]))
        reply.append(Spoken(int(status.split()[1]), headers, body))
    writer.close()
    await writer.wait_closed()
    return reply


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
    answers = [answer for reply in asyncio.run(flood()) for answer in reply]
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


def test_an_invocation_ends_on_the_code_it_began_with(
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
    assert [b'"word"'] * 5 == [reply.rpartition(b"\r\n\r\n")[2] for reply in old]


def test_an_invocation_of_a_deleted_function_is_answered(
    client: BaseClient, server: Server, make_function: MakeFunction, meeting: Meeting
) -> None:
    """B43: in-flight invocations of a deleted function end; new ones find nothing."""
    name = make_function(GUEST, Timeout=30)
    running = in_flight(server, name, meeting, 5)
    client.delete_function(FunctionName=name)
    new = ask(server, "POST", invocation(name), b"{}")
    old = answers_of(running, meeting)

    assert (404, "ResourceNotFoundException") == status_and_code(new)
    assert [b'"word"'] * 5 == [reply.rpartition(b"\r\n\r\n")[2] for reply in old]


# A bug


def test_a_bug_is_a_500_for_the_client_and_trouble_for_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The text of the exception is in the journal only."""

    async def broken(_: Call) -> None:
        msg = "a secret"
        raise RuntimeError(msg)

    def get(url: str) -> tuple[int, bytes]:
        with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(url):
            pass
        with caught.value as answer:
            return answer.code, answer.read()

    async def scenario() -> tuple[int, bytes, list[str]]:
        async with miniλ.Supervisor() as supervisor, Gateway(supervisor, port=0) as gateway:
            url = f"{gateway.address}/2016-08-19/account-settings/"
            status, body = await asyncio.to_thread(get, url)
            return status, body, [each.what for each in supervisor.journal.story(Trouble)]

    monkeypatch.setitem(DOCUMENTS, "GetAccountSettings", broken)
    status, body, troubles = asyncio.run(scenario())

    assert 500 == status
    assert b"secret" not in body
    request = "GET /2016-08-19/account-settings/"
    bug = f"A bug of miniλ: {request} was answered with 500: RuntimeError('a secret')"
    assert [bug] == troubles


# The life of a server


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    """The reason is the C library's: the address is not in it a second time."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "--port", str(port))

    expected = f"Cannot listen on 127.0.0.1:{port}: address already in use; "
    expected += "take another --port, or 0 for a free one\n"
    assert (69, "") == (done.code, done.out)
    assert done.err.endswith(f"ServiceException: {expected}")


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_temporary_state_is_said_to_be_lost(tmp_path: Path, *, is_kept: bool) -> None:
    """A line on stderr, which names the option; there is none with --state."""
    process = start("serve", "--port", "0", *(["--state", tmp_path] if is_kept else []))
    assert b"listening on http" in process.stdout.readline()
    process.terminate()
    done = finish(process)

    assert 0 == done.code
    assert is_kept is ("state: temporary, lost on exit; --state DIR keeps it\n" not in done.err)


@pytest.mark.parametrize("before", [0, 1], ids=["cold", "warm"])
def test_sigterm_answers_waiting_clients(tmp_path: Path, meeting: Meeting, before: int) -> None:
    """New connections are refused at once, a running invocation is answered; exit code 0."""
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
        (reply,) = answers_of([running], meeting)
        code = leaving.process.wait(20)
        idle.close()

    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(b'"word"')
    assert 0 == code


def test_a_state_directory_has_one_server(server: Server) -> None:
    """A second server names the process of the first, and exits with 75."""
    code, stderr = ended("--state", str(server.state))

    assert 75 == code
    assert f"in use by process {server.process.pid}" in stderr


def test_a_server_that_was_killed_goes_on(tmp_path: Path) -> None:
    """Functions are there, a Pending one becomes Active, and no partial upload is left."""
    uploads = tmp_path / "uploads"
    with (
        serving("--state", str(tmp_path)) as killed,
        contextlib.closing(killed.client()) as client,
        connect(killed) as half,
    ):
        create(client, "first", SLOW)
        half.sendall(head("/2015-03-31/functions", "Content-Length: 1000") + b"{")
        until(lambda: bool(list(uploads.iterdir())))
        # It is not Active before the server ends.
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


def test_many_threads_get_their_own_answers(server: Server, echo: str) -> None:
    """Each thread gets its own answer, with ten that send at once."""
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
