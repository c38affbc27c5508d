"""The peers that are process pools: called through asyncio by the program `executors`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import catalog, rounds
from benchmarks.ours import HELLO
from benchmarks.programs import program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator

    from benchmarks.rounds import Effort


class ProcessPool:
    """A program that carries out commands: a line of JSON in, a line of JSON out."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    async def ask(self, **command: object) -> Any:  # noqa: ANN401 - each command has its own
        """Have the program carry out a command; return its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command).encode() + b"\n")
        answer = await asyncio.to_thread(_line, stdout.fileno())
        if not answer:
            raise EOFError("the program that carries out commands has ended")
        return json.loads(answer)

    async def latencies(self, effort: Effort) -> list[float]:
        """Call one after the other; return the seconds of each call."""
        command = {"calls": effort.calls, "seconds": effort.seconds}
        return await self.ask(do="latencies", warm_up=rounds.WARM_UP, **command)

    async def rate(self, effort: Effort, lanes: int) -> float:
        """Call `lanes` at once; return calls per second."""
        command = {"calls": effort.calls, "seconds": effort.seconds}
        return await self.ask(do="rate", lanes=lanes, **command)

    async def cold(self) -> float:
        """Return the seconds from the request to the answer of a new pool of one process."""
        return await self.ask(do="cold")

    async def pids(self) -> list[int]:
        """Return the pids of the pool's workers."""
        return await self.ask(do="pids")


def _line(descriptor: int) -> bytes:
    """Read one line; the program sends one for each command."""
    pieces = [b""]
    while not pieces[-1].endswith(b"\n"):
        piece = os.read(descriptor, 1 << 20)
        if not piece:
            return b""
        pieces.append(piece)
    return b"".join(pieces)


@contextlib.asynccontextmanager
async def process_pool(name: str, workers: int) -> AsyncIterator[ProcessPool]:
    """Run the program that calls a pool of `workers` processes."""
    kind, interpreter = {
        catalog.POOL: ("concurrent.futures", Path(sys.executable)),
        catalog.LOKY: ("loky", catalog.python(catalog.LOKY)),
    }[name]
    script = Path(__file__).with_name("executors.py")
    # -P: the script's directory has an `http` that is not the standard library's.
    command = [str(interpreter), "-P", str(script), kind, str(HELLO), str(workers)]
    async with program(command, talks=True) as process:
        yield ProcessPool(process)
