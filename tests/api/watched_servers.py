"""Servers for hostile clients, with short deadlines and few places, and functions on them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import ROLE, RUNTIME, Server, archive
from tests.api.plain_http import Answer, Meeting, connect, head, invocation, watched

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from botocore.client import BaseClient


# Deadlines are short, so that they end within a test; connections are polled every 50 ms.
HASTY = """
from miniλ.gateway import downloads
from miniλ.gateway.http import bodies, connections

connections.HEAD_SECONDS = bodies.BODY_SECONDS = connections.READER_SECONDS = 0.6
connections.LINGER_SECONDS = 0.2
connections.POLL_SECONDS = 0.05
connections.MAX_CONNECTIONS = 64
downloads.SECONDS = -1

from miniλ.cli.main import main
main()
"""
# 8 connections at most, and an idle one ends after 0.5 s.
SMALL = """
from miniλ.gateway.http import connections

connections.MAX_CONNECTIONS = 8
connections.IDLE_SECONDS = 0.5

from miniλ.cli.main import main
main()
"""
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(event)\n    return event\n"
LARGE = "def handler(event, context):\n    return 'x' * 6_000_000\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that all tests of a file share, and that must not write to stderr."""
    with watched() as running:
        yield running
        code = running.stop()

    assert 0 == code


@pytest.fixture(scope="module")
def hasty() -> Iterator[Server]:
    """Return a server with short deadlines."""
    with watched(program=HASTY) as running:
        yield running


@pytest.fixture(scope="module")
def small() -> Iterator[Server]:
    """Return a server with places for 8 connections."""
    with watched(program=SMALL) as running:
        yield running


@pytest.fixture(scope="module")
def hasty_client(hasty: Server) -> Iterator[BaseClient]:
    """Return a client of the hasty server, with the functions of its tests."""
    client = hasty.client()
    for name, source in {"slow": SLOW, "large": LARGE}.items():
        create(client, name, source)
    yield client
    client.close()


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
    """Return the number of invocations of a function that have ended, by its log."""
    with contextlib.closing(server.client("logs")) as logs:
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return 0
    return sum(event["message"].startswith("REPORT ") for event in events)


def status_and_code(answer: Answer) -> tuple[int, str]:
    """Return the status of an answer and the code of its error."""
    return answer.status, answer.code


# Functions, and requests to them


@pytest.fixture(scope="module")
def echo(client: BaseClient) -> str:
    """Return a function that returns its event, for tests that do not count invocations."""
    create(client, "echo", "def handler(event, context):\n    return event\n")
    return "echo"


@pytest.fixture(scope="module")
def quiet(client: BaseClient) -> str:
    """Return a function that no test gets to run."""
    create(client, "quiet", "def handler(event, context):\n    return event\n")
    return "quiet"


# A client of AWS signs its requests; one without it is like curl's.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=test/20261124/us-east-1/lambda/aws4_request"
}


RUN = invocation("quiet")


def in_flight(server: Server, name: str, meeting: Meeting, count: int) -> list[socket.socket]:
    """Return connections that wait for the answers of running `GUEST`s, each at the meeting."""
    body = json.dumps({"port": meeting.port}).encode()
    running = []
    for _ in range(count):
        connection = connect(server)
        connection.sendall(head(invocation(name), f"Content-Length: {len(body)}") + body)
        running.append(connection)
        meeting.await_guest()
    return running


def answers_of(running: list[socket.socket], meeting: Meeting) -> list[bytes]:
    """Let all guests return "word"; return the answers."""
    while meeting.guests:
        with meeting.guests.pop() as guest:
            guest.sendall(b"word")
    answers = []
    for connection in running:
        with connection:
            reply = b""
            while not reply.endswith(b'"word"') and (piece := connection.recv(65536)):
                reply += piece
        answers.append(reply)
    return answers
