"""What the host does to workers: a file system that hangs, memory that runs out.

A file system hangs here because it is frozen (ioctl_fsfreeze): who writes to it sleeps in D state
and does not even die of SIGKILL, until the thaw. Memory runs out in a cgroup around a supervisor
and its workers together, which stands for the host, since nothing else bounds those workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import miniλ
from miniλ import journal
from miniλ.model import Failure
from miniλ.sandbox import cgroups, hierarchies, namespaces, volumes
from miniλ.settings import Settings

from .conftest import CGROUPS, NEIGHBOUR, Bench, at, is_running, skip_without, sweep

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from miniλ.sandbox import Isolation

ROOT = Path(__file__).resolve().parents[2]
MB = 1 << 20
# Said again, so that a slip in the package is seen.
WORKER_SCORE, ZYGOTE_SCORE = 1000, 500
CAP_SYS_RESOURCE = 24


# A file system that hangs

FIFREEZE, FITHAW = 0xC0045877, 0xC0045878  # linux/fs.h
SECONDS = 5.0  # A SIGKILL may take so long; then nobody waits for it any more.

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
    """What freezes a file system and thaws it."""

    def __init__(self) -> None:
        self._directory = -1

    def freeze(self, path: str) -> None:
        """Freeze what is mounted at a path. The mount itself is not held: it may be unmounted."""
        mount = namespaces.detached(path, read_only=True)
        try:
            self._directory = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount)
        finally:
            os.close(mount)
        fcntl.ioctl(self._directory, FIFREEZE, 0)

    def thaw(self) -> None:
        """Let everybody write again; twice is once."""
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
        # What the handler calls it.
        self.event: dict[str, object] = {"write": self._path or "/tmp"}

    async def hang(self, supervisor: miniλ.Supervisor) -> int:
        """Freeze it under the subject's worker, or its child; return the pid of who hangs."""
        subject = await supervisor.journal.until(
            journal.WorkerStarted, lambda fact: fact.function == "subject"
        )
        return await self.hang_below(subject.pid)

    async def hang_below(self, pid: int) -> int:
        """Freeze it under the process that writes to it, which is this one or a child."""
        pattern = "state/tmp/512-*/file" if self.level == "root" else "disk/*/file"
        await until(lambda: any(self.base.glob(pattern)))
        (written,) = self.base.glob(pattern)
        self.ice.freeze(str(written.parent))
        worker = psutil.Process(pid)
        family = [pid, *(child.pid for child in worker.children(recursive=True))]
        await until(lambda: any(map(hangs, family)))
        return next(filter(hangs, family))

    def is_bound(self) -> bool:
        """Say whether a loop device still has an image of ours."""
        for path in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # cleared meanwhile
                if path.read_text().startswith(str(self.base)):
                    return True
        return False

    def close(self) -> None:
        """Thaw it, and remove what is left."""
        self.ice.thaw()
        if self._volumes is not None:
            made = self._volumes
            asyncio.run(until(lambda: made.close() == []))  # EBUSY while somebody is dying
        if self.state.exists():
            sweep(self.state)


def hangs(pid: int) -> bool:
    """Return whether a process is in D state."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_DISK_SLEEP
    return False


def no_thread_of_ours_hangs() -> bool:
    """Return whether none is in D state, or not for longer than a disk takes."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        stats = [path.read_text() for path in Path("/proc/self/task").glob("*/stat")]
        if not any(text.rpartition(")")[2].split()[0] == "D" for text in stats):
            return True
    return False


async def until(fact: Callable[[], bool]) -> None:
    """Wait for something that nobody tells."""
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110 - of a process, a file, a device
            await asyncio.sleep(0.01)


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Return a disk at a level; those that this host does not have are skipped."""
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
    """A timeout on time; concurrency, also what is reserved, comes back; the rest comes late (C71).

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
            # Room for others is made of who is idle: nobody waits for that of who does not die.
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
def test_no_more_may_fail_to_die_than_may_run(
    disk: Disk, function_directory: Callable[..., Path]
) -> None:
    """Each keeps its memory: beyond that a cold start is refused, and no caller waits (C71)."""

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
            await until(lambda: not supervisor._pool._workers)
            await bench.works()

    asyncio.run(scenario())


@pytest.mark.parametrize("disk", ["root", "none"], indirect=True)
def test_closing_does_not_wait_for_who_does_not_die(
    disk: Disk, function_directory: Callable[..., Path]
) -> None:
    """It ends within its bound, answers who waits and says what is left; a thaw ends that (C71)."""

    async def scenario() -> list[str]:
        async with _opened(disk, function_directory, timeout=60) as bench:
            supervisor = bench.supervisor
            pending = asyncio.create_task(supervisor.invoke("subject", disk.event))
            pid = await disk.hang(supervisor)
            groups = list(supervisor._pool._equipment.hierarchy.directories)
            pidfd = os.pidfd_open(pid)
            began = time.monotonic()
            await supervisor.close()
            # The grace, the wait for the SIGKILL, and the zygote's.
            assert time.monotonic() - began < 2 + SECONDS + SECONDS + 3
            response = await pending

        assert response.failure is not None
        assert response.failure.error_type == "Sandbox.Failure"
        assert hangs(pid)
        assert no_thread_of_ours_hangs()
        said = [fact.what for fact in supervisor.journal.story(journal.Trouble)]
        assert f"[{pid}] do not die" in said[0]
        assert [what.startswith("cgroups that will not go") for what in said[1:]] == [True] * bool(
            groups
        )

        disk.ice.thaw()
        assert ended(pidfd)
        return groups

    groups = asyncio.run(scenario())
    asyncio.run(until(lambda: disk.level != "root" or not disk.is_bound()))
    assert str(disk.state) not in Path("/proc/self/mountinfo").read_text()
    # Nobody was there to remove them when they became empty.
    asyncio.run(_open_once(disk.state))
    assert [path for path in groups if Path(path).exists()] == []


async def _open_once(state: Path) -> None:
    async with miniλ.Supervisor(state, Settings(sandbox="root")):
        pass


def ended(pidfd: int) -> bool:
    """Wait until a process has ended; closes its pidfd."""
    ready, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    return bool(ready)


# A supervisor at level root whose worker writes to its /tmp; says its pids and waits.
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
    """The next supervisor works beside it; the first one after the thaw sweeps (C71)."""
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


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program of ours, which may have everything that a host gives."""
    environment = {name: text for name, text in os.environ.items() if name != "MINILAMBDA_WITHOUT"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )


# Memory that runs out


def score(pid: int) -> int:
    """Return the oom_score_adj of a process."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def may_not_lower(isolation: Isolation) -> bool:
    """Return whether a worker's score stays: by Landlock, or because who raised it had the right.

    That is a capability on the host, and counts for nothing in a user namespace.
    """
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    had_right = bool(capabilities >> CAP_SYS_RESOURCE & 1) and isolation.namespaces != "user"
    return bool(isolation.landlock) or had_right


def test_workers_are_the_first_to_be_killed_for_memory(run_bench: Callable[..., None]) -> None:
    """Each worker, with its children, before its zygote, and that before us; it stays so (C72).

    The control is where neither Landlock nor the kernel holds it: there a handler lowers it.
    """

    async def scenario(bench: Bench) -> None:
        supervisor = bench.supervisor
        zygote = (await supervisor.journal.until(journal.ZygoteStarted)).pid
        own = score(os.getpid())
        held = may_not_lower(supervisor._choice.isolation)
        first, response = await supervisor.invoke("subject", "fine"), await bench.abuse()
        started = supervisor.journal.story(journal.WorkerStarted)

        assert score(zygote) == max(own, ZYGOTE_SCORE)
        assert first.report.worker_id == response.report.worker_id
        assert {score(w.pid) for w in started if w.function != "subject"} == {WORKER_SCORE}
        assert response.payload == [WORKER_SCORE, WORKER_SCORE if held else ZYGOTE_SCORE + 1]

    body = (
        "reader, writer = os.pipe()\n"
        "name = '/proc/self/oom_score_adj'\n"
        "if os.fork() == 0:\n"
        "    os.write(writer, open(name).read().encode())\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "try:\n"
        "    with open(name, 'w') as file: file.write('501')\n"
        "except PermissionError: pass\n"
        "return [int(os.read(reader, 16)), int(open(name).read())]"
    )
    run_bench(body, scenario)


def test_a_higher_score_of_ours_is_not_lowered(function_directory: Callable[..., Path]) -> None:
    """Who is told to be killed early has a zygote that is killed no later (C72)."""
    before = score(os.getpid())

    async def scenario() -> list[int]:
        async with miniλ.Supervisor() as supervisor:
            code = function_directory("neighbour", app=NEIGHBOUR)
            await supervisor.create_function("neighbour", code, "app.handler")
            await supervisor.invoke("neighbour")
            started = (
                supervisor.journal.story(journal.ZygoteStarted),
                supervisor.journal.story(journal.WorkerStarted),
            )
            return [score(fact.pid) for facts in started for fact in facts]

    raised = max(before, ZYGOTE_SCORE + 200)
    Path("/proc/self/oom_score_adj").write_text(str(raised))
    try:
        assert asyncio.run(scenario()) == [raised, WORKER_SCORE]
    finally:
        Path("/proc/self/oom_score_adj").write_text(str(before))


SMALL = 300 * MB

# Joins a cgroup, and runs a function in there that eats more than there is. With "off" the scores
# of all below are what they would be if nobody raised them.
EATEN = """
import asyncio, json, os, sys
import psutil
import miniλ
from miniλ import journal

async def main(door, level, code, state, what, scores):
    with open(door, "w") as file:
        file.write("0")
    without = "cgroup" if level == "root" else "cgroup,namespaces,landlock"
    settings = miniλ.Settings(cgroup="none", without=without)
    async with miniλ.Supervisor(state, settings) as supervisor:
        await supervisor.create_function(
            "subject", code, "app.handler", memory_size=1024, timeout=30
        )
        await supervisor.invoke("subject", "fine")
        if scores == "off":
            for process in psutil.Process().children(recursive=True):
                with open(f"/proc/{process.pid}/oom_score_adj", "w") as file:
                    file.write("0")
        bad = await supervisor.invoke("subject", what)
        good = await supervisor.invoke("subject", "fine")
        zygotes = len(supervisor.journal.story(journal.ZygoteStarted))
        print(json.dumps([bad.failure and bad.failure.error_message, good.payload, zygotes]))

asyncio.run(main(*sys.argv[1:]))
"""

EATER = """
import mmap, os

def handler(event, context):
    kept, piece = [], b"x" * (1 << 16)  # small: a zygote is larger than we are
    while event == "mapped":
        kept.append(mmap.mmap(-1, len(piece)))
        kept[-1].write(piece)
    if event == "a file":
        file = os.memfd_create("eater")
        while True:
            os.write(file, piece)
    return event
"""


class SmallHost:
    """A cgroup with little memory, for everybody who joins it."""

    def __init__(self) -> None:
        name = f"minilambda-{os.getpid():06x}-host"
        places = hierarchies.places()
        self.group: cgroups.V1Group | cgroups.V2Group
        if "memory" in places:
            self.group = cgroups.V1Group(f"{places['memory']}/{name}", "", "", "")
        else:
            self.group = cgroups.V2Group(f"{places['']}/{name}")
        self.group.create()
        try:
            self.group.limit(SMALL, 1024)
            if isinstance(self.group, cgroups.V2Group):
                # Or the kernel would kill all of them. There is none without the controller.
                cgroups.write(f"{self.group.path}/memory.oom.group", "0")
        except BaseException:
            self.group.remove()
            raise

    def close(self) -> None:
        """Kill who is in it, and remove it."""
        deadline = time.monotonic() + 10
        while self.group.members() and time.monotonic() < deadline:
            for pid in self.group.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.group.remove()


@pytest.fixture
def small() -> Iterator[SmallHost]:
    """Return a small host; skips where this one cannot have any."""
    try:
        host = SmallHost()
    except (OSError, KeyError) as exc:
        pytest.skip(f"a cgroup with a memory limit cannot be used here: {exc}")
    try:
        yield host
    finally:
        host.close()


class Eaten:
    """What became of a supervisor on a small host whose function eats more than there is."""

    def __init__(self, small: SmallHost, arguments: list[str], state: Path) -> None:
        before = small.group.oom_kills()
        (door,) = small.group.doors()
        level, code, what, scores = arguments
        with start(EATEN, door, level, code, str(state), what, scores) as process:
            self.said, _ = process.communicate(timeout=50)
        self.exit_status = process.returncode
        self.killed = small.group.oom_kills() - before
        sweep(state)


@pytest.fixture
def eat(
    small: SmallHost, function_directory: Callable[..., Path], tmp_path: Path
) -> Callable[[str, str, str], Eaten]:
    """Return what runs a function that eats: at a level, what it eats, scores "on" or "off"."""
    code = str(function_directory("eater", app=EATER))
    return lambda level, what, scores: Eaten(small, [level, code, what, scores], tmp_path / "state")


@pytest.mark.parametrize("what", ["mapped", "a file"])
@pytest.mark.parametrize("isolation", ["root", "bare"])
def test_a_host_without_memory_kills_workers_first(
    eat: Callable[[str, str, str], Eaten], isolation: str, what: str
) -> None:
    """The invocation fails as one that was killed; supervisor, zygote and the next work (C72).

    Memory in a file that is not mapped is in nobody's size, so that all others are larger.
    """
    eaten = eat(isolation, what, "on")

    assert eaten.exit_status == 0
    message, payload, zygotes = json.loads(eaten.said)
    assert message.endswith("Runtime exited with error: signal: killed")
    assert (payload, zygotes) == ("fine", 1)
    assert eaten.killed >= 1


def test_a_host_without_memory_kills_who_is_largest(
    eat: Callable[[str, str, str], Eaten],
) -> None:
    """The control: without the scores the same function costs the supervisor its life."""
    eaten = eat("bare", "a file", "off")

    assert eaten.exit_status == -signal.SIGKILL
    assert eaten.said == ""
    assert eaten.killed >= 1
