"""A file system that hangs under a worker.

It hangs because it is frozen (ioctl_fsfreeze(2)): a process that writes to it sleeps in D state,
and does not die of SIGKILL before the thaw.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import miniλ
from miniλ import journal
from miniλ.model import Failure
from miniλ.sandbox import namespaces, volumes
from miniλ.settings import Settings
from miniλ.worker import process_tree, zygote

from .conftest import CGROUPS, NEIGHBOUR, Bench, at, is_running, skip_without, start, sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


ROOT = Path(__file__).resolve().parents[2]


# A file system that hangs

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
# How long the supervisor waits for a SIGKILL to end a process: 5 s, and here as short as a kill of
# a healthy process never takes.
SECONDS = 1.0


@pytest.fixture(autouse=True)
def _short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "BURIAL_TIMEOUT", SECONDS)
    monkeypatch.setattr(zygote, "CLOSE_TIMEOUT", SECONDS)


# Writes to a directory, or has a child do that and waits for it.
WRITER = """
import os

def handler(event, context):
    if event == "fine":
        return event
    if event.get("child") and os.fork():
        os.wait()
    while True:
        with open(event["write"] + "/file", "w") as file:
            file.write("x")
"""


class Ice:
    """Freezes a file system and thaws it."""

    def __init__(self) -> None:
        self._directory = -1

    def freeze(self, path: str) -> None:
        """Freeze the file system mounted at a path, which can still be unmounted there."""
        mount = namespaces.clone_mount(path, read_only=True)
        try:
            self._directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
        finally:
            os.close(mount)
        fcntl.ioctl(self._directory, FIFREEZE, 0)

    def thaw(self) -> None:
        """Thaw the file system. Idempotent."""
        if self._directory >= 0:
            directory, self._directory = self._directory, -1
            try:
                fcntl.ioctl(directory, FITHAW, 0)
            finally:
                os.close(directory)


class Disk:
    """The file system that a worker hangs on: at level root its own /tmp, else one of the host."""

    def __init__(self, base: Path, level: str) -> None:
        self.base = base
        self.level = level
        self.state = base / "state"
        self.ice = Ice()
        self._volumes = None if level == "root" else volumes.Volumes(str(base / "disk"), spares=0)
        self._path = self._volumes.lease(8).path if self._volumes else ""
        # The path at which the handler finds it.
        self.event: dict[str, object] = {"write": self._path or "/tmp"}

    async def hang(self, supervisor: miniλ.Supervisor) -> int:
        """Freeze it under the subject's worker or its child; return the pid that hangs."""
        subject = await supervisor.journal.until(
            journal.WorkerStarted, lambda fact: fact.function == "subject"
        )
        return await self.hang_below(subject.pid)

    async def hang_below(self, pid: int) -> int:
        """Freeze it under the process that writes to it, which is this one or a child."""
        pattern = "state/tmp/512-*/file" if self.level == "root" else "disk/*/file"
        await until(lambda: any(self.base.glob(pattern)))
        (file,) = self.base.glob(pattern)
        self.ice.freeze(str(file.parent))
        worker = psutil.Process(pid)
        family = [pid, *(child.pid for child in worker.children(recursive=True))]
        await until(lambda: any(map(hangs, family)))
        return next(filter(hangs, family))

    def is_bound(self) -> bool:
        """Return whether a loop device is still bound to an image of ours."""
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # cleared meanwhile
                if path.read_text().startswith(str(self.base)):
                    return True
        return False

    def close(self) -> None:
        """Thaw it, and remove volumes and state."""
        self.ice.thaw()
        if self._volumes is not None:
            pool = self._volumes
            asyncio.run(until(lambda: pool.close() == []))  # EBUSY while a process is dying
        if self.state.exists():
            sweep(self.state)


def hangs(pid: int) -> bool:
    """Return whether a process is in D state."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_DISK_SLEEP
    return False


def no_thread_of_ours_hangs() -> bool:
    """Return whether there is a moment, within 5 s, in which no thread is in D state."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        stats = [path.read_text() for path in Path("/proc/self/task").glob("*/stat")]
        if not any(text.rpartition(")")[2].split()[0] == "D" for text in stats):
            return True
    return False


async def until(fact: Callable[[], bool]) -> None:
    """Wait for a state that has no event: it is polled every 10 ms, for up to 10 s."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 - the state of a process, a file, a device
            await asyncio.sleep(0.01)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Return a disk at a level; skips a level that this host does not have."""
    level = str(getattr(request, "param", "root"))
    reason = volumes.probe(str(tmp_path))
    if reason:
        pytest.skip(f"loop volumes cannot be used here: {reason}")
    if level in CGROUPS:
        skip_without(level)
    made = Disk(tmp_path, level)
    try:
        yield made
    finally:
        made.close()


@contextlib.asynccontextmanager
async def _opened(
    disk: Disk, make: Callable[..., Path], concurrency: int | None = None, **limits: Any
) -> AsyncIterator[Bench]:
    """Open a bench whose subject writes to a disk."""
    settings = Settings(**at(disk.level), concurrency=concurrency)
    async with miniλ.Supervisor(disk.state, settings) as supervisor:
        neighbour = make("neighbour", app=NEIGHBOUR)
        subject = make("subject", app=WRITER)
        for name in ("neighbour", "third"):
            await supervisor.create_function(name, neighbour, "app.handler")
        await supervisor.create_function("subject", subject, "app.handler", **limits)
        yield Bench(supervisor)


EVERYWHERE = [(level, "itself") for level in ("root", *CGROUPS)]


@pytest.mark.parametrize(
    ("disk", "who"), [*EVERYWHERE, ("root", "its child"), ("none", "its child")], indirect=["disk"]
)
def test_a_worker_that_does_not_die_costs_its_invocation_only(
    disk: Disk, function_directory: Callable[..., Path], who: str
) -> None:
    """The timeout is on time and concurrency, reserved too, comes back; the exit comes late (C71).

    There is room for two workers, and one of the two does not die.
    """

    async def scenario() -> None:
        limits = {"timeout": 1, "reserved_concurrency": 1}
        async with _opened(disk, function_directory, concurrency=2, **limits) as bench:
            supervisor = bench.supervisor
            event = {**disk.event, "child": who == "its child"}
            abuse = asyncio.create_task(bench.abuse(event))
            pid = await disk.hang(supervisor)
            response = await abuse
            message = f"RequestId: {response.request_id} Error: Task timed out after 1.00 seconds"

            assert response.failure == Failure("Sandbox.Timedout", message)
            assert response.report.duration_ms <= 1100
            async with asyncio.timeout(SECONDS + 3):
                await bench.works()
            assert hangs(pid)
            assert no_thread_of_ours_hangs()
            # Room is made from the idle worker: no caller waits for the one that does not die.
            async with asyncio.timeout(10):
                assert (await supervisor.invoke("third", 1)).payload == 1
                assert (await supervisor.invoke("neighbour", 1)).payload == 1
            (trouble,) = supervisor.journal.story(journal.Trouble)
            assert f"[{pid}] do not die" in trouble.what
            gone = {fact.worker_id for fact in supervisor.journal.story(journal.WorkerExited)}
            assert response.report.worker_id not in gone

            disk.ice.thaw()
            async with asyncio.timeout(10):
                await bench.gone(response)
            assert not is_running(pid)
            await bench.works()
        await until(lambda: disk.level != "root" or not disk.is_bound())

    asyncio.run(scenario())


@pytest.mark.parametrize("disk", ["none"], indirect=True)
def test_workers_that_do_not_die_are_bounded(
    disk: Disk, function_directory: Callable[..., Path]
) -> None:
    """Each keeps its memory: beyond the bound a cold start is refused at once (C71)."""

    async def scenario() -> None:
        async with _opened(disk, function_directory, concurrency=1, timeout=1) as bench:
            supervisor = bench.supervisor
            pending = asyncio.create_task(supervisor.invoke("subject", disk.event))
            await disk.hang(supervisor)
            first = await pending
            second = await supervisor.invoke("subject", disk.event)
            async with asyncio.timeout(SECONDS + 3):
                with pytest.raises(miniλ.ServiceError, match="2 workers do not die"):
                    await supervisor.invoke("subject", "fine")

            for response in (first, second):
                assert response.failure is not None
                assert response.failure.error_type == "Sandbox.Timedout"
            disk.ice.thaw()
            await until(lambda: not supervisor.parts.pool._workers)
            await bench.works()

    asyncio.run(scenario())


@pytest.mark.parametrize("disk", ["root", "none"], indirect=True)
def test_closing_does_not_wait_for_a_worker_that_does_not_die(
    disk: Disk, function_directory: Callable[..., Path]
) -> None:
    """It ends in time, answers callers and names what is busy; a thaw ends the worker (C71)."""

    async def scenario() -> list[str]:
        async with _opened(disk, function_directory, timeout=60) as bench:
            supervisor = bench.supervisor
            pending = asyncio.create_task(supervisor.invoke("subject", disk.event))
            pid = await disk.hang(supervisor)
            groups = list(supervisor.parts.pool._equipment.hierarchy.directories)
            pidfd = os.pidfd_open(pid)
            began = time.monotonic()
            await supervisor.close()
            # The grace period, the wait for the worker's SIGKILL, and that for the zygote's.
            assert time.monotonic() - began < 2 + SECONDS + SECONDS + 3
            response = await pending

        assert response.failure is not None
        assert response.failure.error_type == "Sandbox.Failure"
        assert hangs(pid)
        assert no_thread_of_ours_hangs()
        first, *others = [fact.what for fact in supervisor.journal.story(journal.Trouble)]
        assert f"[{pid}] do not die" in first
        assert [what.startswith("Cgroups still have processes") for what in others] == [
            True
        ] * bool(groups)

        disk.ice.thaw()
        assert ended(pidfd)
        return groups

    groups = asyncio.run(scenario())
    asyncio.run(until(lambda: disk.level != "root" or not disk.is_bound()))
    assert str(disk.state) not in Path("/proc/self/mountinfo").read_text()
    # The cgroups became empty after the close: the next supervisor removes them.
    asyncio.run(_open_once(disk.state))
    assert [path for path in groups if Path(path).exists()] == []


async def _open_once(state: Path) -> None:
    async with miniλ.Supervisor(state, Settings(sandbox="root")):
        pass


def ended(pidfd: int) -> bool:
    """Wait up to 10 s until a process has ended; return whether it has. Closes its pidfd."""
    ready, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    return bool(ready)


# A supervisor at level root whose worker writes to its /tmp; prints the worker's pid and waits.
HUNG = """
import asyncio, sys
import miniλ
from miniλ import journal

async def main(code, state):
    async with miniλ.Supervisor(state, miniλ.Settings(sandbox="root")) as supervisor:
        await supervisor.create_function("subject", code, "app.handler", timeout=60)
        waiting = asyncio.create_task(supervisor.invoke("subject", {"write": "/tmp"}))
        worker = (await supervisor.journal.until(journal.WorkerStarted)).pid
        print(worker, flush=True)
        await waiting

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_killed_supervisors_worker_that_does_not_die_is_swept_in_the_end(
    disk: Disk, function_directory: Callable[..., Path]
) -> None:
    """The next supervisor works beside it; the first supervisor after the thaw sweeps it (C71)."""
    code = function_directory("subject", app=WRITER)
    process = start(HUNG, str(code), str(disk.state))
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        asyncio.run(disk.hang_below(pid))
        pidfd = os.pidfd_open(pid)
        groups = json.loads((disk.state / "instance.json").read_bytes())["groups"]
        process.kill()

    async def works() -> miniλ.Response:
        async with miniλ.Supervisor(disk.state, Settings(sandbox="root")) as supervisor:
            return await supervisor.invoke("subject", "fine")

    began = time.monotonic()
    assert asyncio.run(works()).payload == "fine"
    assert time.monotonic() - began < SECONDS + 5
    assert hangs(pid)

    disk.ice.thaw()
    assert ended(pidfd)
    asyncio.run(until(lambda: not disk.is_bound()))
    assert str(disk.state) not in Path("/proc/self/mountinfo").read_text()
    asyncio.run(_open_once(disk.state))
    assert [path for path in groups if Path(path).exists()] == []
