"""Tests of what was accepted: neither kill -9 nor a power cut loses it (C55, C65)."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import miniλ
from miniλ import journal

from .conftest import OPEN, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
LIVES = 12
CONCURRENCY = 4

# Writes down the id of each event that it is given, in one system call.
MARK = """
import os

def handler(event, context):
    file = os.open(event, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, context.aws_request_id.encode() + b"\\n")
    os.close(file)
"""

# One life of a supervisor: it accepts events and says the id of each one that it has accepted.
LIFE = """
import asyncio, os, sys
import miniλ

async def accept(supervisor, marks):
    while True:
        request_id = await supervisor.invoke_async("mark", marks)
        os.write(1, request_id.encode() + b"\\n")

async def main(code, state, marks, concurrency, without):
    settings = miniλ.Settings(concurrency=int(concurrency), without=without)
    async with miniλ.Supervisor(state, settings) as supervisor:
        if not supervisor.list_functions():
            await supervisor.create_function("mark", code, "app.handler")
        await asyncio.gather(*(accept(supervisor, marks) for _ in range(8)))

asyncio.run(main(*sys.argv[1:]))
"""


async def _finish(state: Path) -> list[journal.Trouble]:
    """Run all events that are left; return what went wrong."""
    async with asyncio.timeout(60), miniλ.Supervisor(state) as supervisor:
        last = 0.0
        while supervisor.delivery.count:
            over = await supervisor.journal.until(
                journal.EventOver, lambda fact, last=last: fact.at > last
            )
            last = over.at
        return supervisor.journal.story(journal.Trouble)


def test_kill_9_loses_no_event_that_was_accepted(
    function_directory: Callable[..., Path], tmp_path: Path
) -> None:
    """Each has run once all lives are over; only what ran when one ended has run twice (C55)."""
    code, state, marks = (
        function_directory("mark", app=MARK),
        tmp_path / "state",
        tmp_path / "marks",
    )
    accepted: list[str] = []
    draw = random.Random()
    arguments = [str(code), str(state), str(marks), str(CONCURRENCY), OPEN]
    command = [sys.executable, "-c", LIFE, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        for _ in range(LIVES):
            with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as life:
                assert life.stdout is not None
                said = [life.stdout.readline() for _ in range(draw.randrange(1, 300))]
                life.kill()
                # What it had said before it died was accepted too.
                accepted += b"".join([*said, life.stdout.read()]).decode().split()
        trouble = asyncio.run(_finish(state))
    finally:
        sweep(state)

    runs = Counter(marks.read_text(encoding="ascii").split())
    assert trouble == []
    assert len(accepted) >= LIVES
    assert set(accepted) - runs.keys() == set()
    twice = sum(count - 1 for count in runs.values())
    assert twice <= LIVES * CONCURRENCY
    # An id that was accepted and could not be said any more is no one's loss, nor many.
    assert len(runs.keys() - set(accepted)) <= LIVES * 8
