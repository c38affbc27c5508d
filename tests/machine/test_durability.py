"""Tests of accepted events: neither kill -9 nor a power cut loses one (C55, C65)."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ import journal
from miniλ.errors import ServiceError
from miniλ.events.queue import AsyncEvent, EventQueue, Record

from .conftest import OPEN, sweep

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
LIVES = 12
WAITING = 5
CONCURRENCY = 4

# Appends the id of each of its events to a file, in one system call.
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
                journal.EventEnded, lambda fact, last=last: fact.at > last
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
                printed = [life.stdout.readline() for _ in range(draw.randrange(1, 300))]
                life.kill()
                # Ids that it had printed before it died were accepted too.
                accepted += b"".join([*printed, life.stdout.read()]).decode().split()
        trouble = asyncio.run(_finish(state))
    finally:
        sweep(state)

    runs = Counter(marks.read_text(encoding="ascii").split())
    assert trouble == []
    assert len(accepted) >= LIVES
    assert set(accepted) - runs.keys() == set()
    twice = sum(count - 1 for count in runs.values())
    assert twice <= LIVES * CONCURRENCY
    # An event that was accepted but whose id was not printed may have run, too.
    assert len(runs.keys() - set(accepted)) <= LIVES * 8


# Says that it runs, and waits to be released: by FIFOs, whose open(2) waits for the other side.
HELD = """
def handler(event, context):
    open(f"{event}/runs", "w").close()
    open(f"{event}/go").close()
"""


async def _hold(place: Path) -> Callable[[], Awaitable[None]]:
    """Wait until the function runs; return the function that releases it."""
    await asyncio.to_thread(lambda: (place / "runs").open(encoding="ascii").close())

    async def let_go() -> None:
        await asyncio.to_thread(lambda: (place / "go").open("w", encoding="ascii").close())

    return let_go


def test_an_event_whose_end_is_not_written_runs_again(
    function_directory: Callable[..., Path], tmp_path: Path
) -> None:
    """A queue that has stopped says so once, not for each event; the next life runs them."""
    code, state = function_directory("held", app=HELD), tmp_path / "state"
    for name in ("runs", "go"):
        os.mkfifo(tmp_path / name)

    async def first() -> list[journal.Trouble]:
        async with miniλ.Supervisor(state) as supervisor:
            await supervisor.create_function(
                "held", code, "app.handler", timeout=20, reserved_concurrency=1
            )
            for _ in range(WAITING + 1):
                await supervisor.invoke_async("held", str(tmp_path))
            let_go = await _hold(tmp_path)
            supervisor.delivery._queue._database.execute("ALTER TABLE events RENAME TO aside")
            await let_go()
            await supervisor.journal.until(journal.Trouble, lambda fact: "end of" in fact.what)
            with pytest.raises(ServiceError, match="has stopped: no such table: events"):
                await supervisor.invoke_async("held", str(tmp_path))
            return supervisor.journal.story(journal.Trouble)

    async def second() -> list[str]:
        async with miniλ.Supervisor(state) as supervisor:
            for _ in range(WAITING + 1):
                let_go = await _hold(tmp_path)
                await let_go()
            await supervisor.delivery.quiet()
            return [fact.condition for fact in supervisor.journal.story(journal.EventEnded)]

    troubles = asyncio.run(first())
    with closing(sqlite3.connect(state / "events.db")) as database:
        database.execute("ALTER TABLE aside RENAME TO events")

    # Of the waiting events, one tries to begin.
    assert len(troubles) <= 2
    assert asyncio.run(second()) == ["Success"] * (WAITING + 1)


def test_an_event_that_supervisors_die_with_is_given_up(
    function_directory: Callable[..., Path], tmp_path: Path
) -> None:
    """After five deaths it does not run again, and is kept: it may be the cause (C60)."""
    code, state = function_directory("mark", app=MARK), tmp_path / "state"

    async def accept() -> None:
        async with miniλ.Supervisor(state) as supervisor:
            await supervisor.create_function("mark", code, "app.handler")
        queue = EventQueue(state / "events.db", durable=True)
        await queue.add(AsyncEvent("poison", "mark", "", b'"/marks"'), running=True)
        await queue.close()

    async def look() -> tuple[str, list[Record], int]:
        async with miniλ.Supervisor(state) as supervisor:
            over = await supervisor.journal.until(journal.EventEnded)
            records = await supervisor.delivery._queue.records()
            return over.condition, records, len(supervisor.journal.invocations)

    asyncio.run(accept())
    for _ in range(5):
        asyncio.run(EventQueue(state / "events.db", durable=True).close())  # a life that ended
        with closing(sqlite3.connect(state / "events.db")) as database, database:
            database.execute("UPDATE events SET is_running = crashes < 5, due = 0")
    condition, (record,), invocations = asyncio.run(look())

    assert (condition, invocations) == ("RetriesExhausted", 0)
    assert (record.request_id, record.document) == ("poison", '"/marks"')
    assert "5 times" in record.why


# A life of an event queue, which says what it is about to do and what it knows to be done. Its log
# is written back often, so that this is cut short as well.
WRITER = """
import asyncio, os, sys
from pathlib import Path
from miniλ.events.queue import AsyncEvent, EventQueue

def say(what, *numbers):
    for number in numbers:
        os.write(1, f"{what} {number}\\n".encode())

async def main(path):
    queue = EventQueue(Path(path), durable=True)
    queue._database.execute("PRAGMA wal_autocheckpoint=20")
    say("open", 0)
    for turn in range(12):
        events = [AsyncEvent(f"r{turn}-{n}", "f", "", b"[%d]" % n * 700) for n in range(4)]
        groups = await asyncio.gather(*(queue.add(event) for event in events))
        first, second, third, fourth = (number for (number,) in groups)
        say("accepted", first, second, third, fourth)
        await queue.claim([first, second, third])
        say("claimed", first, second)
        say("ending", first, third)
        (then,), _ = await asyncio.gather(
            queue.remove(first, AsyncEvent("then", "g", "", b"1")), queue.remove(third)
        )
        say("ended", first, third)
        say("accepted", then)
        await queue.put_back(second, 1e9 + turn, 1, 0)
        say("put-back", second)
    await queue.close()

asyncio.run(main(sys.argv[1]))
"""
SECTOR = 512
_CALL = re.compile(r'(\w+)\((?:(\d+)<([^>]*)>|"([^"]*)")(?:, (.*))?\) = (-?\d+)')


class Disk:
    """The files of a directory as a disk has them that keeps only what was flushed."""

    def __init__(self) -> None:
        self._flushed: dict[str, bytearray] = {}
        # What was written since: (offset, bytes), or a new length and None.
        self._since: dict[str, list[tuple[int, bytes | None]]] = {}

    def write(self, path: str, offset: int, data: bytes | None) -> None:
        """Write, or cut the file at `offset`."""
        self._flushed.setdefault(path, bytearray())
        self._since.setdefault(path, []).append((offset, data))

    def flush(self, path: str) -> None:
        """Keep all that was written to a file so far."""
        for offset, data in self._since.pop(path, []):
            _apply(self._flushed[path], offset, data)

    def unlink(self, path: str) -> None:
        """Forget a file."""
        self._flushed.pop(path, None)
        self._since.pop(path, None)

    def lose_power(self, directory: Path, draw: random.Random | None) -> None:
        """Write what a power cut leaves: flushed bytes, and with `draw` any sectors of the rest."""
        for path, flushed in self._flushed.items():
            content = bytearray(flushed)
            for offset, data in self._since.get(path, []) if draw else []:
                if data is None:
                    continue
                for start in range(0, len(data), SECTOR):
                    if draw is not None and draw.random() < 0.5:
                        _apply(content, offset + start, data[start : start + SECTOR])
            (directory / Path(path).name).write_bytes(content)


def _apply(content: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del content[offset:]
        content.extend(bytes(offset - len(content)))
    else:
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data


def _calls(trace: str) -> Iterator[tuple[str, str, str, int]]:
    """Yield name, path, further arguments and result of each system call when it has returned."""
    begun: dict[str, str] = {}
    for line in trace.splitlines():
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            begun[pid] = text.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
        match = _CALL.match(begun.pop(pid) + resumed[1] if resumed else text)
        if match is not None:
            name, _, path, plain, more, result = match.groups()
            yield name, _bytes(path or plain).decode(), more or "", int(result)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


class Model:
    """What the test knows of the events of a queue."""

    def __init__(self) -> None:
        self.is_open = False
        self.accepted: set[int] = set()
        self.ending: set[int] = set()
        self.ended: set[int] = set()

    def hear(self, line: str) -> None:
        """Take in a line of the writer's log."""
        what, _, number = line.partition(" ")
        if what == "open":
            self.is_open = True
        for known, word in (
            (self.accepted, "accepted"),
            (self.ending, "ending"),
            (self.ended, "ended"),
        ):
            if what == word:
                known.add(int(number))

    def check(self, directory: Path) -> None:
        """Open what a disk has left, and compare."""
        queue = EventQueue(directory / "events.db", durable=False)
        asyncio.run(queue.close())
        pending = {number for number, _, _ in queue.backlog}
        assert queue.damage == ""
        assert self.accepted - self.ending <= pending
        assert not pending & self.ended


def test_a_power_cut_at_any_moment_loses_no_event_that_was_accepted(tmp_path: Path) -> None:
    """What was flushed before an answer is enough, with any sectors of the rest or none (C65).

    Ended events stay ended too, and no damage is reported at any moment.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not on this machine")
    trace = tmp_path / "trace"
    calls = "write,pwrite64,fsync,fdatasync,ftruncate,unlink"
    command = [strace, "-f", "-y", "-xx", "-s", "65536", "-e", f"trace={calls}", "-o", str(trace)]
    subprocess.run(
        [*command, sys.executable, "-c", WRITER, str(tmp_path / "events.db")],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    disk, model, draw = Disk(), Model(), random.Random(1)
    cuts = 0
    for name, path, more, result in _calls(trace.read_text(encoding="ascii")):
        if name == "write" and path.endswith("/dev/null"):
            model.hear(_bytes(more.split('"')[1]).decode().strip())
        elif "/events.db" not in path or path.endswith("-shm") or result < 0:
            continue
        elif name == "pwrite64":
            _, text, after = more.split('"')
            disk.write(path, int(after.split(", ")[2]), _bytes(text)[:result])
        elif name == "ftruncate":
            disk.write(path, int(more), None)
        elif name == "unlink":
            disk.unlink(path)
        else:
            disk.flush(path)
        if model.is_open:
            cuts += 1
            for variant in (None, draw):
                image = tmp_path / "image"
                image.mkdir()
                disk.lose_power(image, variant)
                model.check(image)
                shutil.rmtree(image)
    assert cuts > 200
    assert len(model.ended) == 24
