"""What the disk does to the event queue: it is full, and it fails.

A disk that is full is one of its own, a small tmpfs that a file fills up. A disk that fails is
a process of its own, whose writes are refused by the kernel with anything but ENOSPC.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import ServiceError
from miniλ.events.queue import AsyncEvent, EventQueue, Record, now
from miniλ.store import writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

MB = 1 << 20
# Numbers once more, so that a slip in the package is noticed.
BALLAST, MIN_FREE = 4 * MB, 8 * MB
SIZE = 32 * MB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("a disk of its own cannot be used here: only root can mount")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a disk of its own cannot be used here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        # Also where a failed test has a file open on it.
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@asynccontextmanager
async def open_queue(place: Path) -> AsyncIterator[EventQueue]:
    """Yield the durable event queue of a disk, open."""
    queue = EventQueue(place / "events.db", durable=True)
    try:
        yield queue
    finally:
        await queue.close()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop of its own, with a timeout that shows where it waits."""

    async def whole() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(whole())


def free(place: Path) -> int:
    """Return the free bytes of a disk."""
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize


def fill(place: Path, leave: int = 0) -> None:
    """Fill a disk with a file, but for `leave` bytes."""
    file = os.open(place / "filler", os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(file, 0, free(place) - leave)
    finally:
        os.close(file)
    assert leave == free(place)


def clear(place: Path) -> None:
    """Remove what fills a disk."""
    (place / "filler").unlink()


def has_ballast(place: Path) -> bool:
    """Say whether the ballast of a queue is there, whole."""
    ballast = place / "events.ballast"
    return ballast.exists() and BALLAST == ballast.stat().st_blocks * 512


def new_event(size: int = 1000) -> AsyncEvent:
    """Return an event with a payload of `size` bytes."""
    return AsyncEvent("r", "f", "$LATEST", b'"%s"' % (b"x" * (size - 2)))


# Full


def test_a_full_disk_refuses_an_event(disk: Path) -> None:
    """The message says what is free and what is needed; no event is there, the ballast stays."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            await queue.add(new_event())
            assert has_ballast(disk)
            fill(disk, MIN_FREE - 4096)
            expected = r"cannot be queued: 7 MB are free where .*events\.db is, and 8 are needed"
            with pytest.raises(ServiceError, match=expected):
                await queue.add(new_event())
            clear(disk)
            fill(disk)
            with pytest.raises(ServiceError, match="0 MB are free"):
                await queue.add(new_event(), new_event())
            assert has_ballast(disk)
            clear(disk)
        async with open_queue(disk) as again:
            assert [1] == [number for number, _, _ in again.backlog]

    run(scenario)


def test_events_run_and_end_on_a_full_disk(disk: Path) -> None:
    """Those that were accepted before: the ballast is given back for them."""

    async def scenario() -> None:
        due = now() + 1000
        async with open_queue(disk) as queue:
            numbers = await queue.add(*(new_event() for _ in range(100)))
            fill(disk)
            assert numbers == [event.number for event in await queue.claim(numbers)]
            # One transaction each, and more of them than there is room for in the log.
            for number in numbers[:50]:
                await queue.put_back(number, due, 1, 1)
            for number in numbers[50:99]:
                await queue.remove(number, Record("r", "t", "null", "why"))
            assert [101] == await queue.remove(100, new_event())
            assert not (disk / "events.ballast").exists()
            clear(disk)
        async with open_queue(disk) as again:
            assert [*((number, "f", due) for number in numbers[:50])] == again.backlog[:50]
            assert [101] == [number for number, _, _ in again.backlog[50:]]
            assert 49 == len(await again.records())

    run(scenario)


def test_a_disk_with_room_again_takes_events(disk: Path) -> None:
    """Without a restart, and the ballast is there as before."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            await queue.add(new_event())
            fill(disk)
            await queue.claim([1])
            for attempt in range(50):
                await queue.put_back(1, 1.0, attempt, 0)
            with pytest.raises(ServiceError, match=r"\d MB are free"):
                await queue.add(new_event())
            assert not has_ballast(disk)
            clear(disk)
            assert [2] == await queue.add(new_event())
            assert has_ballast(disk)

    run(scenario)


@pytest.fixture
def _unlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the check of free space pass, as where another program fills the disk just after it."""
    monkeypatch.setattr(writer, "MIN_FREE", -64 * MB)


def test_more_than_there_is_room_for_is_refused(disk: Path) -> None:
    """An event needs its size twice: for the log, and for the file."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            fill(disk, MIN_FREE + MB)
            with pytest.raises(ServiceError, match=r"9 MB are free .* 10 are needed"):
                await queue.add(new_event(MB))
            assert [1] == await queue.add(new_event())

    run(scenario)


@pytest.mark.usefixtures("_unlooked")
def test_what_does_not_fit_is_refused_and_the_rest_is_done(disk: Path) -> None:
    """There is free space, but not for all of this: the ends beside it are written."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            await queue.add(*(new_event() for _ in range(4)))
            fill(disk, MIN_FREE + MB // 2)
            _, refused, claimed, _, removed = await asyncio.gather(
                queue.claim([1]),
                queue.add(*(new_event(MB) for _ in range(10))),
                queue.claim([2]),
                queue.put_back(3, 1.0, 1, 1),
                queue.remove(4),
                return_exceptions=True,
            )
            assert isinstance(refused, ServiceError)
            assert "database or disk is full" in str(refused)
            assert isinstance(claimed, list) and [2] == [event.number for event in claimed]
            assert [] == removed
            clear(disk)
        async with open_queue(disk) as again:
            assert [1, 2, 3] == [number for number, _, _ in again.backlog]
            assert (3, "f", 1.0) == again.backlog[2]

    run(scenario)


@pytest.mark.usefixtures("_unlooked")
def test_what_did_not_fit_takes_no_room(disk: Path) -> None:
    """An event that fits is accepted after one that did not: the disk is as it was."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            await queue.add(new_event())
            fill(disk, MIN_FREE + MB // 2)
            with pytest.raises(ServiceError, match="disk is full"):
                await queue.add(*(new_event(MB) for _ in range(10)))
            assert MIN_FREE <= free(disk)
            assert [2] == await queue.add(new_event())

    run(scenario)


def test_large_events_end_together_on_a_full_disk(disk: Path) -> None:
    """As many as a function has concurrency, and each as large as an event may be."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            for _ in range(6):
                await queue.add(new_event(1024 * 1024))
                queue._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # The events are in the file: the log is empty, as after any start.
        async with open_queue(disk) as queue:
            fill(disk)
            await queue.claim([1, 2, 3, 4, 5, 6])
            await asyncio.gather(*(queue.put_back(number, 1.0, 2, 2) for number in (1, 2, 3)))
            await asyncio.gather(*(queue.remove(number) for number in range(1, 7)))
            clear(disk)
        async with open_queue(disk) as again:
            assert [] == again.backlog

    run(scenario)


def test_a_queue_opens_on_a_full_disk(disk: Path) -> None:
    """With the ballast's room: events that were accepted run, and end, after a restart too."""

    async def scenario() -> None:
        async with open_queue(disk) as queue:
            await queue.add(new_event())
        fill(disk)
        async with open_queue(disk) as again:
            assert [1] == [number for number, _, _ in again.backlog]
            await again.claim([1])
            await again.remove(1)
            clear(disk)
        async with open_queue(disk) as later:
            assert [] == later.backlog

    run(scenario)


# Failing

# Accepts events; then the disk fails, and works again. Prints all results, as JSON.
FAILING = """
import asyncio, json, os, pathlib, resource, sys
from miniλ.errors import ServiceError
from miniλ.events.queue import AsyncEvent, EventQueue

how, path = sys.argv[1:]
event = AsyncEvent("r", "f", "$LATEST", b"{}")
log = path + "-wal"

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def descriptor():
    for name in os.listdir("/proc/self/fd"):
        if os.path.islink(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}") == log:
            return int(name)

async def main():
    queue = EventQueue(pathlib.Path(path), durable=True)
    results = []

    async def ask(step):
        try:
            results.append(await step)
        except ServiceError as exc:
            results.append(str(exc))

    await ask(queue.add(event, event))
    written = descriptor()
    whole = os.dup(written)
    if how == "limit":
        limit(os.path.getsize(log) + 100)
    else:
        os.dup2(os.open(log, os.O_RDONLY), written)
    await ask(queue.add(event))
    limit(resource.RLIM_INFINITY)
    os.dup2(whole, written)
    await ask(queue.add(event))
    await ask(queue.claim([1]))
    await ask(queue.remove(1))
    print(json.dumps(results), flush=True)
    os._exit(0)  # nothing is written when it is closed

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["limit", "descriptor"])
def test_a_disk_that_fails_ends_the_queue(tmp_path: Path, how: str) -> None:
    """Also when it works again, until a new start: that finds all that was accepted."""
    path = tmp_path / "events.db"
    child = subprocess.run(
        [sys.executable, "-c", FAILING, how, str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ("", 0) == (child.stderr, child.returncode)
    accepted, *refused = json.loads(child.stdout)

    assert [1, 2] == accepted
    stopped = f"The event queue {path} has stopped: disk I/O error. What was accepted is in it"
    assert 4 == len(refused)
    assert all(str(message).startswith(stopped) for message in refused)

    async def scenario() -> None:
        async with open_queue(tmp_path) as again:
            assert "" == again.damage
            assert [1, 2] == [number for number, _, _ in again.backlog]
            assert [0, 0] == [event.crashes for event in await again.claim([1, 2])]
            assert [3] == await again.add(new_event())

    run(scenario)
