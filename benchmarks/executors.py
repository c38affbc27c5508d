"""A program that calls a process pool through asyncio and times the calls.

    python executors.py concurrent.futures|loky DIRECTORY WORKERS

It runs in a process of its own, for loky under loky's interpreter, so it imports the standard
library and uvloop only. A line on stdin is a JSON command, a line on stdout its answer:

    {"do": "latencies", "calls": n, "seconds": s, "warm_up": n}  [seconds, ...]
    {"do": "rate", "calls": n, "seconds": s, "lanes": n}         calls per second
    {"do": "cold"}       seconds from the call to the answer of a new pool of one process
    {"do": "pids"}       the pids of the workers, after all have started

Rule: the pool has its defaults, also its default start method.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import concurrent.futures

EVENT = {"name": "Ada"}


class Pool:
    """A pool, called through asyncio."""

    def __init__(self, kind: str, handler: object, workers: int) -> None:
        self._kind, self._handler, self._workers = kind, handler, workers
        self._loop = asyncio.get_running_loop()
        self._executor = self._new(workers)

    def _new(self, workers: int) -> concurrent.futures.Executor:
        return importlib.import_module(self._kind).ProcessPoolExecutor(workers)

    def _call(self, executor: concurrent.futures.Executor | None = None) -> asyncio.Future:
        return self._loop.run_in_executor(executor or self._executor, self._handler, EVENT, None)

    async def latencies(self, calls: int, seconds: float, warm_up: int) -> list[float]:
        """Call one after the other; return the seconds of each call."""
        clock = time.perf_counter
        for _ in range(warm_up):
            await self._call()
        taken = []
        end = clock() + seconds
        for _ in range(calls):
            began = clock()
            await self._call()
            ended = clock()
            taken.append(ended - began)
            if ended > end:
                break
        return taken

    async def rate(self, calls: int, seconds: float, lanes: int) -> float:
        """Call `lanes` at once; return calls per second."""
        clock = time.perf_counter
        await asyncio.gather(*(self._call() for _ in range(4 * self._workers)))
        left, done = calls, 0
        began = clock()

        async def lane() -> None:
            nonlocal left, done
            while left > 0 and clock() < began + seconds:
                left -= 1
                await self._call()
                done += 1

        await asyncio.gather(*(lane() for _ in range(lanes)))
        return done / (clock() - began)

    async def cold(self) -> float:
        """Create a pool of one process, call it, shut it down; return the seconds to the answer."""
        began = time.perf_counter()
        executor = self._new(1)
        await self._call(executor)
        taken = time.perf_counter() - began
        await asyncio.to_thread(executor.shutdown)
        return taken

    async def pids(self) -> list[int]:
        """Return the workers' pids; the pool starts them on demand, so all are called first."""
        naps = [
            self._loop.run_in_executor(self._executor, time.sleep, 0.2)
            for _ in range(self._workers)
        ]
        await asyncio.gather(*naps)
        return list(self._executor._processes)  # noqa: SLF001 - no public name has them

    async def close(self) -> None:
        """Shut the pool down."""
        await asyncio.to_thread(self._executor.shutdown)


async def main(kind: str, directory: str, workers: int) -> None:
    """Serve commands until stdin ends."""
    sys.path.insert(0, directory)
    pool = Pool(kind, importlib.import_module("app").handler, workers)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            answer = await getattr(pool, command.pop("do"))(**command)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        await pool.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
