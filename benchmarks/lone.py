"""A program with one supervisor and the function hello; `density` measures it from outside.

    python -m benchmarks.lone STATE_DIRECTORY CODE_DIRECTORY

A line on stdin is a JSON command, a line on stdout its answer:

    {"do": "workers", "count": n}  stops the workers of hello and starts n; answers their pids
    {"do": "batch", "count": n}    starts and stops n workers of another function; answers n

Rule: it imports only what an application that embeds miniλ needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys

from miniλ import Supervisor, journal
from miniλ.settings import Settings

# More than any batch. On a busy machine 500 init phases at once take longer than 10 s.
SETTINGS = Settings(concurrency=600, init_timeout=120.0)
HANDLER = "app.handler"
WAIT = 120.0
READY_WAIT = 20.0


class Lone:
    """The commands, carried out by a supervisor."""

    def __init__(self, supervisor: Supervisor, code: str) -> None:
        self._supervisor = supervisor
        self._code = code
        self._hello: list[journal.WorkerStarted] = []

    async def _start(self, name: str, count: int) -> list[journal.WorkerStarted]:
        """Invoke until `count` workers of the function live; return them.

        A worker is started for each invocation that finds none idle, but the first workers to be
        ready answer for the others: the last worker may not be ready when all have answered.
        """
        calls = [self._supervisor.invoke(name, {"name": "Ada"}, wait=WAIT) for _ in range(count)]
        for response in await asyncio.gather(*calls):
            if response.is_failure:
                raise RuntimeError(response.log)
        facts = self._supervisor.journal
        gone = {fact.worker_id for fact in facts.story(journal.WorkerExited)}
        ready: set[str] = set()
        # A worker that is not ready after READY_WAIT failed, and is missing from the answer.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_WAIT):
                while len(ready - gone) < count:
                    fact = await facts.until(
                        journal.WorkerReady,
                        lambda fact: fact.function == name and fact.worker_id not in ready,
                    )
                    ready.add(fact.worker_id)
        live = ready - gone
        return [f for f in facts.story(journal.WorkerStarted) if f.worker_id in live]

    async def workers(self, count: int) -> list[int]:
        """Start `count` workers of hello; return their pids once they are idle.

        The old workers are stopped first: one that is idle would answer all invocations.
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
        """Start and stop `count` workers; return the number that lived at once."""
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
