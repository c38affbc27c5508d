"""HTTP by hand, for requests that no client of AWS sends; and servers that must not log."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.api.conftest import ROOT, START_SECONDS, Server, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 20.0
# Seconds after which a server has read what it was sent.
PAUSE = 0.05
SERVE = "from miniλ.cli.main import main\nmain()\n"


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def code(self) -> str:
        """The error, by AWS's name; "" without one."""
        return self.headers.get("x-amzn-ErrorType", "")

    @property
    def document(self) -> Any:
        """The body, decoded from JSON."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The message of an error."""
        document = self.document
        return str(document.get("message", document.get("Message")))


def ask(
    server: Server,
    method: str,
    path: str,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own. A body that is an iterator goes in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS)
    try:
        connection.putrequest(method, path, skip_host="Host" in (headers or {}))
        is_chunked = body is not None and not isinstance(body, bytes)
        if is_chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        elif body is not None:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        # A server that refuses a request early closes while we send: the answer is readable still.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.endheaders(body, encode_chunked=is_chunked)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def invocation(name: str) -> str:
    """Return the path of Invoke for a function."""
    return f"/2015-03-31/functions/{name}/invocations"


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    """Return the head of a request, with a Host and these lines."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode(
        "latin-1"
    )


def connect(server: Server) -> socket.socket:
    """Return a connection to a server."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)


def rest(connection: socket.socket) -> bytes:
    """Return what comes until the server closes; a reset is an end too."""
    pieces = []
    try:
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


def say(connection: socket.socket, *parts: bytes) -> bytes:
    """Send parts, each after the server has read the one before; return what came meanwhile."""
    reply = b""
    for part in parts:
        # A server that has refused the request resets the connection; its answer is readable still.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            connection.sendall(part)
        if part is not parts[-1]:
            connection.settimeout(PAUSE)
            with contextlib.suppress(TimeoutError):
                reply += connection.recv(65536)
    connection.settimeout(SECONDS)
    return reply


def converse(server: Server, *parts: bytes) -> bytes:
    """Send parts as `say` does, and return all that comes until the server closes."""
    with connect(server) as connection:
        reply = say(connection, *parts)
        return reply + rest(connection)


def until(is_so: Callable[[], bool]) -> None:
    """Poll a condition until it is true; fail after `SECONDS`."""
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end, "it was not so in time"


def memory(server: Server, kind: str = "RssAnon") -> int:
    """Return the memory of a server, in bytes."""
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith(f"{kind}:"))
    return int(line.split()[1]) * 1024


@contextlib.contextmanager
def watched(*arguments: str, program: str = SERVE, **environment: str) -> Iterator[Server]:
    """Run `minilambda serve` by this program; it must not write to stderr."""
    with tempfile.TemporaryFile("w+") as stderr:
        with serving(*arguments, program=("-c", program), stderr=stderr, **environment) as server:
            yield server
        stderr.seek(0)
        text = stderr.read()

        assert "" == text


def ended(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a server that must not start; return its exit code and its stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "miniλ", "serve", "--port", "0", "--json", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=START_SECONDS,
        check=False,
    )
    assert "" == done.stdout
    return done.returncode, done.stderr


class Meeting:
    """A socket where functions announce that they run, and wait for the word that they return."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SECONDS)
        self.port: int = self._listener.getsockname()[1]
        self.guests: list[socket.socket] = []

    def await_guest(self) -> socket.socket:
        """Wait for a running function; it returns the bytes that the test writes to this socket."""
        guest, _ = self._listener.accept()
        guest.settimeout(SECONDS)
        self.guests.append(guest)
        return guest

    def close(self) -> None:
        """Close all connections: functions that still wait return."""
        for guest in (*self.guests, self._listener):
            guest.close()


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    """Return a meeting for functions made of `GUEST`."""
    place = Meeting()
    yield place
    place.close()


GUEST = """
import socket

def handler(event, context):
    print("it began")
    with socket.create_connection(("127.0.0.1", event["port"])) as host:
        word = host.recv(100).decode()
    print("it ended")
    return word
"""
