"""Floors: the least that the same work can cost on this machine, now.

Rule: a floor does only what it must. Its processes are plain interpreters (-I -S) with a loop of
three lines, and its frames are encoded once; they have the length and the shape of the frames that
miniλ sends for the same invocation.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from benchmarks import rounds
from benchmarks.ours import EVENT, GREETING
from miniλ.invoker import encode_event, new_request_id
from miniλ.worker import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.rounds import Effort

# Answers each read with the same bytes.
_ECHO = """
import os, sys
answer = bytes.fromhex(sys.argv[1])
while os.read(0, 65536):
    os.write(1, answer)
"""
# Forks once per byte: "c" is the child's first byte, "r" is written when the child is reaped.
_FORK = """
import os, sys
for name in sys.argv[1:]:
    __import__(name)
while os.read(0, 1):
    pid = os.fork()
    if pid == 0:
        os.write(1, b"c")
        os._exit(0)
    os.waitpid(pid, 0)
    os.write(1, b"r")
"""
# Does nothing until its stdin ends.
_IDLE = "import os; os.write(1, b'r'); os.read(0, 1)"
# An asyncio application that does nothing, on the same loop as miniλ's.
_IDLE_LOOP = """
import asyncio, os, sys
try:
    import uvloop
    loop = uvloop.new_event_loop()
except ImportError:
    loop = asyncio.new_event_loop()
loop.add_reader(0, loop.stop)
os.write(1, b'r')
loop.run_forever()
"""
LEAVE_TIMEOUT = 5.0


def frames() -> tuple[bytes, bytes]:
    """Return the frames of one invocation of hello: the request and the answer."""
    request_id = new_request_id()
    head = wire.InvokeFrame(
        id=request_id,
        deadline_ms=int(time.time() * 1000),
    )
    request = wire.encode(head, encode_event(EVENT))
    # As the Python worker encodes it, with the spaces of the standard library's json.
    answer = json.dumps({"type": "response", "id": request_id}).encode()
    body = json.dumps(GREETING).encode()
    return request, wire.PREFIX.pack(len(answer), len(body)) + answer + body


@contextlib.contextmanager
def interpreter(
    program: str, *arguments: str, flags: tuple[str, ...] = ("-I", "-S")
) -> Iterator[tuple[int, int, int]]:
    """Run a program; yield its pid, stdin and stdout. It is ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, *flags, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.pid, process.stdin.fileno(), process.stdout.fileno()
        finally:
            process.stdin.close()
            try:
                process.wait(LEAVE_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def idle(*, loop: bool = False) -> Iterator[int]:
    """Run an interpreter that does nothing, bare or with an event loop; yield its pid."""
    flags = () if loop else ("-I", "-S")
    with interpreter(_IDLE_LOOP if loop else _IDLE, flags=flags) as (pid, _, answer):
        os.read(answer, 1)
        yield pid


class BlockingPipe:
    """The frames over two pipes, from a caller that blocks."""

    name = "bare pipe, blocking"

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._frame, answer = frames()
        _, self._in, self._out = stack.enter_context(interpreter(_ECHO, answer.hex()))

    async def latencies(self, effort: Effort) -> list[float]:
        """Call one after the other; return the seconds of each call."""
        clock, read, write = time.perf_counter, os.read, os.write
        frame, request, answer = self._frame, self._in, self._out
        taken = []
        for _ in range(rounds.WARM_UP):
            write(request, frame)
            read(answer, 65536)
        end = clock() + effort.seconds
        for _ in range(effort.calls):
            began = clock()
            write(request, frame)
            read(answer, 65536)
            ended = clock()
            taken.append(ended - began)
            if ended > end:
                break
        return taken


class LoopPipe:
    """The frames over two pipes, from the event loop: add_reader, a future, one write."""

    name = "bare pipe, uvloop"

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self._frame, answer = frames()
        self._length = len(answer)
        _, self._in, self._out = stack.enter_context(interpreter(_ECHO, answer.hex()))
        os.set_blocking(self._out, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._out, self._readable)
        stack.callback(self._loop.remove_reader, self._out)
        self._future: asyncio.Future[bytes] = self._loop.create_future()

    def _readable(self) -> None:
        data = os.read(self._out, 65536)
        if len(data) != self._length:
            self._loop.remove_reader(self._out)
            self._future.set_exception(EOFError("the process of the floor has ended"))
            return
        self._future.set_result(data)

    def call(self) -> asyncio.Future[bytes]:
        """Send the frame; return the future of the answer."""
        self._future = self._loop.create_future()
        os.write(self._in, self._frame)
        return self._future


# The modules that a Python worker needs: JSON, AWS's logging, traces, and its sandbox. The cost of
# a fork grows with the pages that the parent has mapped and with the fork handlers of its modules
# (those of `threading`, which `logging` imports, most of all), so the floor of a cold start imports
# them too.
WORKER_MODULES = ("json", "logging", "traceback", "socket", "ctypes", "resource")


class BareFork:
    """A fork of a small single-threaded process: from the request to the child's first byte."""

    def __init__(
        self, stack: contextlib.AsyncExitStack, name: str, modules: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        _, self._in, self._out = stack.enter_context(interpreter(_FORK, *modules))

    async def start(self) -> float:
        """Fork once; return the seconds to the child's first byte, after the child is reaped."""
        began = time.perf_counter()
        os.write(self._in, b"f")
        first = os.read(self._out, 1)
        taken = time.perf_counter() - began
        if first != b"c" or os.read(self._out, 1) != b"r":
            raise EOFError("the process of the floor that forks has ended")
        return taken
