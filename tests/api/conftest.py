"""A real server process and real clients, for all tests of the HTTP API.

All tests of a file share one server: each makes functions with new names, and deletes them.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from miniλ.sandbox import hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

ROOT = Path(__file__).resolve().parents[2]
ROLE = "arn:aws:iam::000000000000:role/lambda"
REGION = "us-east-1"
RUNTIME = f"python3.{sys.version_info[1]}"
ECHO = "def handler(event, context):\n    return event\n"
START_SECONDS = 30
STOP_SECONDS = 40

_numbers = itertools.count(1)


def archive(**modules: str) -> bytes:
    """Return a .zip of modules: `archive(app="source")`."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for name, source in modules.items():
            archive_file.writestr(f"{name}.py", source)
    return memory.getvalue()


class Server:
    """A running `minilambda serve`, at `url`."""

    def __init__(self, process: subprocess.Popen[bytes], announcement: dict[str, Any]) -> None:
        self.process = process
        self.url: str = announcement["address"]
        self.port = int(self.url.rpartition(":")[2])
        self.state = Path(announcement["state"])

    def client(self, service: str = "lambda", key: str = "test", **options: Any) -> BaseClient:
        """Return a boto3 client of it that never retries."""
        options = {
            "retries": {"max_attempts": 0},
            "read_timeout": 60,
            "tcp_keepalive": False,
            **options,
        }
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=key,
            aws_secret_access_key="test",
            config=Config(**options),
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def serving(
    *arguments: str,
    program: tuple[str, ...] = ("-m", "miniλ"),
    stderr: IO[str] | None = None,
    **environment: str,
) -> Iterator[Server]:
    """Run `minilambda serve` on a free port, and end it. `program` are arguments of Python."""
    process = subprocess.Popen(
        [sys.executable, *program, "serve", "--port", "0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait(START_SECONDS)}"
        yield Server(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()


@pytest.fixture(autouse=True)
def nothing_survives() -> None:
    """Check nothing after each test: clients keep connections. `server` checks at its end."""


def left_by(pid: int) -> list[str]:
    """Return the state directories and cgroups that a server of this process id has left."""
    own = f"{pid:06x}*"
    base = Path(tempfile.gettempdir()) / f"minilambda-{os.geteuid()}"
    paths = list(base.glob(own))
    for place in hierarchies.places().values():
        paths += Path(place).glob(f"minilambda-{own}")
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that all tests of a file share."""
    with serving() as running:
        yield running
        code = running.stop()

    assert 0 == code
    assert [] == left_by(running.process.pid)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[BaseClient]:
    """Return a boto3 client of Lambda."""
    lambda_client = server.client()
    yield lambda_client
    lambda_client.close()


@pytest.fixture
def make_function(client: BaseClient) -> Iterator[Callable[..., str]]:
    """Return a maker of functions that are active; they are deleted after the test.

    Takes CreateFunction's parameters, and `source`, the module `app`; returns the name.
    """
    names: list[str] = []

    def make(source: str = ECHO, **parameters: Any) -> str:
        name = parameters.pop("FunctionName", f"f{next(_numbers)}")
        parameters.setdefault("Code", {"ZipFile": archive(app=source)})
        client.create_function(
            **{
                "FunctionName": name,
                "Runtime": RUNTIME,
                "Role": ROLE,
                "Handler": "app.handler",
                **parameters,
            }
        )
        names.append(name)
        client.get_waiter("function_active_v2").wait(
            FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
        )
        return name

    yield make
    for name in names:
        with contextlib.suppress(client.exceptions.ResourceNotFoundException):
            client.delete_function(FunctionName=name)


def updated(client: BaseClient, name: str) -> dict[str, Any]:
    """Wait until an update is over; return the configuration."""
    client.get_waiter("function_updated_v2").wait(
        FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    configuration: dict[str, Any] = client.get_function_configuration(FunctionName=name)
    return configuration


@pytest.fixture(scope="module")
def open_client(server: Server) -> Iterator[BaseClient]:
    """Return a client that lets the server find what is wrong."""
    opened = server.client(parameter_validation=False)
    yield opened
    opened.close()


class Listener:
    """A socket that functions of a test call, to tell that they run."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(30)
        self.port: int = self._socket.getsockname()[1]

    def accept(self) -> tuple[socket.socket, str]:
        """Wait for a call; return it, to be closed so that the function goes on, and its words."""
        connection, _ = self._socket.accept()
        connection.settimeout(30)
        with connection.makefile(encoding="ascii") as reader:
            return connection, reader.readline().strip()

    def heard(self) -> str:
        """Wait for a call, let the function go on, and return what it said."""
        connection, words = self.accept()
        connection.close()
        return words

    def close(self) -> None:
        """Hear nothing more."""
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Return a socket that functions can call."""
    opened = Listener()
    yield opened
    opened.close()
