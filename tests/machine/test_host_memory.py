"""Memory that runs out on the host of a supervisor.

It runs out in a cgroup around a supervisor and its workers together, which stands for the host:
the workers have no memory limit of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ import journal
from miniλ.sandbox import cgroups, hierarchies

from .conftest import NEIGHBOUR, Bench, start, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from miniλ.sandbox import Isolation

MB = 1 << 20
# Repeated here: a wrong one in the package fails these tests.
WORKER_SCORE, ZYGOTE_SCORE = 1000, 500
CAP_SYS_RESOURCE = 24


def score(pid: int) -> int:
    """Return the oom_score_adj of a process."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def may_not_lower(isolation: Isolation) -> bool:
    """Return whether a worker cannot lower its score.

    By Landlock, or because the zygote raised it with CAP_SYS_RESOURCE on the host; the same
    capability in a user namespace does not count.
    """
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    had_right = bool(capabilities >> CAP_SYS_RESOURCE & 1) and isolation.namespaces != "user"
    return bool(isolation.landlock) or had_right


def test_workers_are_the_first_to_be_killed_for_memory(run_bench: Callable[..., None]) -> None:
    """Each worker, with its children, before its zygote, and that before us, for good (C72).

    The control is where neither Landlock nor the kernel forbids it: there a handler lowers it.
    """

    async def scenario(bench: Bench) -> None:
        supervisor = bench.supervisor
        zygote = (await supervisor.journal.until(journal.ZygoteStarted)).pid
        own = score(os.getpid())
        is_fixed = may_not_lower(supervisor.parts.equipment.choice.isolation)
        first, response = await supervisor.invoke("subject", "fine"), await bench.abuse()
        started = supervisor.journal.story(journal.WorkerStarted)

        assert score(zygote) == max(own, ZYGOTE_SCORE)
        assert first.report.worker_id == response.report.worker_id
        assert {score(w.pid) for w in started if w.function != "subject"} == {WORKER_SCORE}
        assert response.payload == [WORKER_SCORE, WORKER_SCORE if is_fixed else ZYGOTE_SCORE + 1]

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
    """A supervisor with a higher score has a zygote with at least that score (C72)."""
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

# Joins a cgroup, and runs a function in there that allocates more than there is. With "off" the
# scores of all processes below are set back to 0.
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
        # Until its memory is free; on a busy machine that takes longer than the next start.
        await supervisor.journal.until(
            journal.WorkerExited, lambda fact: fact.worker_id == bad.report.worker_id
        )
        good = await supervisor.invoke("subject", "fine")
        zygotes = len(supervisor.journal.story(journal.ZygoteStarted))
        print(json.dumps([bad.failure and bad.failure.error_message, good.payload, zygotes]))

asyncio.run(main(*sys.argv[1:]))
"""

EATER = """
import mmap, os

def handler(event, context):
    pieces, piece = [], b"x" * (1 << 16)  # small: a zygote is larger than we are
    while event == "mapped":
        pieces.append(mmap.mmap(-1, len(piece)))
        pieces[-1].write(piece)
    if event == "a file":
        file = os.memfd_create("eater")
        while True:
            os.write(file, piece)
    return event
"""


class SmallHost:
    """A cgroup with a memory limit of `SMALL`, for all processes that join it."""

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
                # Else the kernel would kill all of them at once.
                cgroups.write(f"{self.group.path}/memory.oom.group", "0")
        except BaseException:
            self.group.remove()
            raise

    def close(self) -> None:
        """Kill the processes in it, and remove it."""
        deadline = time.monotonic() + 10
        while self.group.members() and time.monotonic() < deadline:
            for pid in self.group.members():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.group.remove()


@pytest.fixture
def small() -> Iterator[SmallHost]:
    """Return a small host; skips where this host cannot make one."""
    try:
        host = SmallHost()
    except (OSError, KeyError) as exc:
        pytest.skip(f"a cgroup with a memory limit cannot be used here: {exc}")
    try:
        yield host
    finally:
        host.close()


class Eaten:
    """The end of a supervisor on a small host whose function allocates more than there is."""

    def __init__(self, small: SmallHost, arguments: list[str], state: Path) -> None:
        before = small.group.oom_kills()
        (door,) = small.group.procs_files()
        level, code, what, scores = arguments
        with start(EATEN, door, level, code, str(state), what, scores) as process:
            self.output, _ = process.communicate(timeout=50)
        self.exit_status = process.returncode
        self.killed = small.group.oom_kills() - before
        sweep(state)


@pytest.fixture
def eat(
    small: SmallHost, function_directory: Callable[..., Path], tmp_path: Path
) -> Callable[[str, str, str], Eaten]:
    """Return a runner: a level, the kind of memory that is allocated, scores "on" or "off"."""
    code = str(function_directory("eater", app=EATER))
    return lambda level, what, scores: Eaten(small, [level, code, what, scores], tmp_path / "state")


@pytest.mark.parametrize("what", ["mapped", "a file"])
@pytest.mark.parametrize("isolation", ["root", "bare"])
def test_a_host_without_memory_kills_workers_first(
    eat: Callable[[str, str, str], Eaten], isolation: str, what: str
) -> None:
    """The invocation fails as killed; supervisor, zygote and the next invocation work (C72).

    Memory in a file that is not mapped counts for no process, so all others are larger.
    """
    eaten = eat(isolation, what, "on")

    assert eaten.exit_status == 0
    message, payload, zygotes = json.loads(eaten.output)
    assert message.endswith("Runtime exited with error: signal: killed")
    assert (payload, zygotes) == ("fine", 1)
    assert eaten.killed >= 1


def test_without_scores_a_host_kills_the_largest_process(
    eat: Callable[[str, str, str], Eaten],
) -> None:
    """The control: without the scores the same function gets the supervisor killed."""
    eaten = eat("bare", "a file", "off")

    assert eaten.exit_status == -signal.SIGKILL
    assert eaten.output == ""
    assert eaten.killed >= 1
