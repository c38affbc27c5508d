"""The peers that are HTTP servers: how each is started, and the client that calls them.

Rule 1: a server is ready when it accepts a connection, not after a fixed time.

Rule 2: the client costs as little as possible: keep-alive connections, a request that was encoded
once, and of the answer only the status and the length are parsed.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import catalog, rounds
from benchmarks.ours import EVENT, HANDLER, HELLO
from benchmarks.programs import program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator

    from benchmarks.rounds import Effort

HOST = "127.0.0.1"
START_TIMEOUT = 60.0
CALL_TIMEOUT = 30.0
FUNCTIONS = "/2015-03-31/functions"
INVOKE = f"{FUNCTIONS}/{{}}/invocations"
ROLE = "arn:aws:iam::000000000000:role/none"

# functions-framework calls a function with a Flask request.
FLASK_HANDLER = """
import sys
sys.path.insert(0, {hello!r})
from app import handler

def greet(request):
    return handler(request.get_json(), None)
"""
# The service of serverless-offline: hello, run by the first `python3` on PATH.
SERVERLESS = """
service: hello
frameworkVersion: "3"
provider: {name: aws, runtime: python3.11}
plugins: [serverless-offline]
functions: {hello: {name: hello, handler: app.handler}}
"""


class Connection:
    """One keep-alive connection that sends the same request again and again."""

    def __init__(self, port: int, path: str, body: bytes, method: str = "POST") -> None:
        self._port = port
        self._request = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
            f"Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self) -> bytes:
        """Send the request; return the body of the answer. Raises unless it is a success."""
        was_open = self._streams is not None
        try:
            return await self._exchange()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The server closed it: it was idle during the rounds of the other contestants.
            if not was_open:
                raise
            self.close()
            return await self._exchange()

    async def _exchange(self) -> bytes:
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(_length(head))
        if b"connection: close" in head:
            self.close()
        if not head.split(b" ", 2)[1].startswith(b"2") or b"x-amz-function-error" in head:
            raise RuntimeError(f"{head[:60]!r} {body[:200]!r}")
        return body

    def close(self) -> None:
        """Close the connection if it is open."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _length(head: bytes) -> int:
    _, _, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.split(b"\r\n", 1)[0] or 0)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


class Server:
    """Connections to a server that runs, as a `Peer`."""

    def __init__(self, port: int, path: str, lanes: int) -> None:
        event = json.dumps(EVENT).encode()
        self._connections = [Connection(port, path, event) for _ in range(lanes)]

    async def latencies(self, effort: Effort) -> list[float]:
        """Call one after the other; return the seconds of each call."""
        warm_up = rounds.WARM_UP if effort.calls else 1
        calls = rounds.latencies(self._connections[0].call, effort, warm_up)
        return await asyncio.wait_for(calls, 2 * effort.seconds + CALL_TIMEOUT)

    async def rate(self, effort: Effort, lanes: int) -> float:
        """Call `lanes` at once; return calls per second."""
        calls = rounds.rate([each.call for each in self._connections[:lanes]], effort)
        return await asyncio.wait_for(calls, effort.seconds + CALL_TIMEOUT)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()


@contextlib.asynccontextmanager
async def running(name: str, lanes: int) -> AsyncIterator[Server]:
    """Run a server with its function; end both afterwards."""
    port, second = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as temporary:
        command, environment, path = _recipe(name, port, second, Path(temporary))
        # Its temporary files are removed with our directory.
        environment["TMPDIR"] = temporary
        async with program(command, cwd=temporary, environment=environment) as process:
            await listening(process, port)
            if name == catalog.MINISTACK:
                await create_function(port, "python3.12", 1769)
            server = Server(port, path, lanes)
            try:
                yield server
            finally:
                server.close()


def _recipe(
    name: str, port: int, second: int, temporary: Path
) -> tuple[list[str], dict[str, str], str]:
    """Return a server's command, its environment and the path that invokes hello."""
    python = str(catalog.python(name))
    environment = {"PYTHONDONTWRITEBYTECODE": "1"}
    if name == catalog.RIE:
        command = [
            str(catalog.emulator(catalog.directory(name))),
            "--log-level",
            "error",
            "--runtime-interface-emulator-address",
            f"{HOST}:{port}",
            "--runtime-api-address",
            f"{HOST}:{second}",
            python,
            "-m",
            "awslambdaric",
            HANDLER,
        ]
        return command, {**environment, "PYTHONPATH": str(HELLO)}, INVOKE.format("function")
    if name == catalog.FRAMEWORK:
        source = temporary / "main.py"
        source.write_text(FLASK_HANDLER.format(hello=str(HELLO)), encoding="utf-8")
        command = [python, "-m", "functions_framework", "--target", "greet"]
        command += ["--source", str(source), "--host", HOST, "--port", str(port)]
        return command, environment, "/"
    if name == catalog.OFFLINE:
        (temporary / "serverless.yml").write_text(SERVERLESS, encoding="utf-8")
        shutil.copy(HELLO / "app.py", temporary)
        command = ["node", str(catalog.serverless()), "offline", "--host", HOST]
        command += ["--lambdaPort", str(port), "--httpPort", str(second)]
        # No telemetry, no update checks, and keys that no service accepts.
        environment["SLS_TELEMETRY_DISABLED"] = "1"
        environment["SLS_NOTIFICATIONS_MODE"] = "off"
        environment["AWS_ACCESS_KEY_ID"] = environment["AWS_SECRET_ACCESS_KEY"] = "none"
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return command, environment, INVOKE.format("hello")
    own = {
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": HOST,
        "STATE_DIR": str(temporary / "state"),
    }
    return [python, "-m", "ministack"], {**environment, **own}, INVOKE.format("hello")


def free_port() -> int:
    """Return a port that is free now; another program may take it before it is used."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


async def listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the server accepts a connection; raises if it ends, or after 60 s."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError as exc:
            if process.poll() is not None:
                msg = f"the server ended with {process.returncode}"
                raise RuntimeError(msg) from exc
            if time.monotonic() > deadline:
                msg = f"the server does not listen after {START_TIMEOUT:.0f} s"
                raise TimeoutError(msg) from exc
            # No event says when a server listens: it is polled every 2 ms.
            await asyncio.sleep(0.002)
        else:
            writer.close()
            return


async def create_function(port: int, runtime: str, memory_size: int) -> None:
    """Create hello by Lambda's API."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(os.path.join(HELLO, "app.py"), "app.py")
    document = {
        "FunctionName": "hello",
        "Runtime": runtime,
        "Role": ROLE,
        "Handler": HANDLER,
        "MemorySize": memory_size,
        "Code": {"ZipFile": base64.b64encode(archive.getvalue()).decode()},
    }
    connection = Connection(port, FUNCTIONS, json.dumps(document).encode())
    try:
        await asyncio.wait_for(connection.call(), CALL_TIMEOUT)
    finally:
        connection.close()
