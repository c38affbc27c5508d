"""Servers with short deadlines and few places, and functions on them: what hostile clients meet."""

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


# Seconds are short here, so that they end within a test; a look is taken more often.
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
# Few may come, and who says nothing is soon gone.
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


# What is no HTTP

RUN = invocation("quiet")


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
