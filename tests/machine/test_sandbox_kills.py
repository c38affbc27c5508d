"""No process outlives its supervisor or zygote when that is killed with SIGKILL, at any level."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import miniλ
from miniλ import journal
from miniλ.cli.doctor import carriers
from miniλ.store import state_dir
from tests.machine.conftest import skip_without
from tests.machine.places import (
    ESCAPES,
    LEVELS,
    NAMESPACED,
    ROOT,
    left_below,
    settings_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Death

DRIVER = """
import asyncio, json, sys
import miniλ
from miniλ import journal
from miniλ.settings import Settings

async def main(state, sandbox, code):
    async with miniλ.Supervisor(state, Settings(sandbox=sandbox)) as supervisor:
        await supervisor.create_function("subject", code, "daemon.handler", timeout=20)
        while line := await asyncio.to_thread(sys.stdin.readline):
            response = await supervisor.invoke("subject", {"token": line.strip()})
            story = supervisor.journal.story
            print(json.dumps({
                "payload": response.payload,
                "zygote": story(journal.ZygoteStarted)[-1].pid,
                "worker": story(journal.WorkerStarted)[-1].pid,
                "instance": supervisor.parts.state.instance,
                "missing": supervisor.parts.equipment.choice.missing,
                "deaths": len(story(journal.ZygoteDied)),
            }), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Driven:
    """A supervisor in a process of its own, which a test can kill."""

    def __init__(self, directory: Path, level: str) -> None:
        self.token = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(directory), level, str(ESCAPES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def invoke(self) -> dict[str, Any]:
        """Invoke the function that leaves a daemon; return the report of `DRIVER`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{self.token}\n")
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "namespaces" in report["missing"]:
            self.close()
            pytest.skip(f"no namespaces on this host: {report['missing']['namespaces']}")
        assert report["payload"]["escaped"] is False
        return report

    def close(self) -> None:
        """Kill it, if it still runs, and reap it."""
        self.process.kill()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Yield the path of a state directory, which is swept after the test."""
    yield tmp_path / "state"
    opened, _ = state_dir.open_state(tmp_path / "state")
    opened.close()


def _ended(pidfds: list[int], seconds: float = 5.0) -> bool:
    """Wait until all processes of pidfds have ended; return whether they did. Closes them."""
    try:
        return all(select.select([pidfd], [], [], seconds)[0] for pidfd in pidfds)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


VICTIMS = ("supervisor", "zygote", "init of the zygote", "supervisor and zygote")


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("sandbox", [level for level in LEVELS if level in NAMESPACED])
def test_no_process_outlives_a_kill(sandbox: str, victim: str, state: Path) -> None:
    """Worker and daemon end with each of these victims; the next supervisor sweeps the rest."""
    skip_without(sandbox)
    driven = Driven(state, sandbox)
    try:
        report = driven.invoke()
        inner = _children_of(report["zygote"])
        assert len(inner) == 1
        (daemon,) = carriers(driven.token)
        pids = [daemon.pid, report["worker"], report["zygote"], *inner, *_children_of(inner[0])]
        pidfds = [os.pidfd_open(pid) for pid in pids]
        victims = {
            "supervisor": [driven.process.pid],
            "zygote": [report["zygote"]],
            "init of the zygote": inner,
            "supervisor and zygote": [driven.process.pid, report["zygote"]],
        }[victim]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

        assert _ended(pidfds)
        assert carriers(driven.token) == []
        if "supervisor" not in victim:
            # The supervisor starts another zygote for the next invocation, and is killed as well.
            again = driven.invoke()
            assert again["deaths"] == 1
            daemons = [os.pidfd_open(process.pid) for process in carriers(driven.token)]
            os.kill(driven.process.pid, signal.SIGKILL)
            assert _ended(daemons)
    finally:
        driven.close()

    async def afterwards() -> None:
        async with miniλ.Supervisor(state, settings_at("bare")) as supervisor:
            (swept,) = supervisor.journal.story(journal.StateSwept)
            assert swept.instance == report["instance"]
            assert left_below(state.parent) == []
            assert list((state / "tmp").iterdir()) == []

    asyncio.run(afterwards())
    cgroups = Path("/sys/fs/cgroup").glob(f"**/minilambda-{report['instance']}*")
    assert list(cgroups) == []


@pytest.mark.parametrize("sandbox", ["landlock", "bare"])
def test_the_zygote_takes_daemons_along(sandbox: str, state: Path) -> None:
    """Without namespaces a killed supervisor's zygote ends workers and adopted daemons."""
    driven = Driven(state, sandbox)
    try:
        report = driven.invoke()
        (daemon,) = carriers(driven.token)
        pidfds = [os.pidfd_open(pid) for pid in (daemon.pid, report["worker"], report["zygote"])]
        driven.process.kill()

        assert _ended(pidfds)
    finally:
        driven.close()
        for process in carriers(driven.token):
            process.kill()
