"""A program: one supervisor with hello, and nothing beside it, to be weighed.

    python -m benchmarks.lone STATE_DIRECTORY CODE_DIRECTORY

A line on stdin is a JSON command, a line on stdout its answer:

    {"do": "workers", "count": n}  ends the workers of hello, and starts n; their pids
    {"do": "batch", "count": n}    starts n workers of another function, ends them; how many

Rule: it imports what an application that embeds miniλ needs, and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from miniλ import Supervisor, journal
from miniλ.settings import Settings

# More than any batch. On a machine that is busy 500 init phases at once take their time.
SETTINGS = Settings(concurrency=600, init_timeout=120.0)
HANDLER = "app.handler"
WAIT = 120.0
READY_WAIT = 20.0


class Lone:
    """The supervisor and what it is told."""

    def __init__(self, supervisor: Supervisor, code: str) -> None:
        self._supervisor = supervisor
        self._code = code
        self._hello: list[journal.WorkerStarted] = []

    async def _start(self, name: str, count: int) -> list[journal.WorkerStarted]:
        """Invoke until `count` workers of the function live; return them.

        As many are started as there are invocations at once without a worker, but the first
        to be ready answer for the others: that all have answered says nothing of the last.
        """
        calls = [self._supervisor.invoke(name, {"name": "Ada"}, wait=WAIT) for _ in range(count)]
        for response in await asyncio.gather(*calls):
            if response.is_failure:
                raise RuntimeError(response.log)
        facts = self._supervisor.journal
        gone = {fact.worker_id for fact in facts.story(journal.WorkerExited)}
        ready: set[str] = set()
        # Whoever is not there after so long never comes, and is missing from the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WAIT):
                while len(ready - gone) < count:
                    found = await facts.until(
                        journal.WorkerReady,
                        lambda fact: fact.function == name and fact.worker_id not in ready,
                    )
                    ready.add(found.worker_id)
        live = ready - gone
        return [f for f in facts.story(journal.WorkerStarted) if f.worker_id in live]

    async def workers(self, count: int) -> list[int]:
        """Have `count` idle workers of hello; return their pids.

        All are new: one that is idle would answer for all of them, one after the other.
        """
        if self._hello:
            await self._supervisor.delete_function("hello")
            await self._gone(self._hello)
        await self._supervisor.create_function("hello", self._code, HANDLER)
        self._hello = await self._start("hello", count)
        return [fact.pid for fact in self._hello]

    async def _gone(self, started: list[journal.WorkerStarted]) -> None:
        for own in started:
            await self._supervisor.journal.until(
                journal.WorkerExited, lambda fact, own=own: fact.worker_id == own.worker_id
            )

    async def batch(self, count: int) -> int:
        """Start and end `count` workers; return how many lived at once."""
        await self._supervisor.create_function("batch", self._code, HANDLER)
        started = await self._start("batch", count)
        await self._supervisor.delete_function("batch")
        await self._gone(started)
        return len(started)


async def main(state: str, code: str) -> None:
    """Serve commands until stdin ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Supervisor(state=state, settings=SETTINGS) as supervisor:
        lone = Lone(supervisor, code)
        while line := await reader.readline():
            command = json.loads(line)
            answer = await getattr(lone, command.pop("do"))(**command)
            os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        new_loop = asyncio.new_event_loop
    else:
        new_loop = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2]))
