"""A short invocation wakes its worker on the supervisor's core, and its handler does not see it.

Where a process may run is read from /proc/PID/status while the process is stopped: it has been
woken, and has not run yet.
"""

from __future__ import annotations

import asyncio
import os
import signal
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from miniλ import journal
from miniλ.worker.affinity import IN_A_ROW, Affinity

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from miniλ.model import Response

ALL = sorted(os.sched_getaffinity(0))
SHORT_MS = 1.0
HANDLER = """
    import os, subprocess, sys, time

    LOOK = "import os; print(*sorted(os.sched_getaffinity(0)))"

    def handler(event, context):
        if event == "work":
            time.sleep(0.005)
        if event == "look":
            child = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, check=True)
            return [sorted(os.sched_getaffinity(0)), [int(core) for core in child.stdout.split()]]
        if event == "wait":
            while not os.path.exists("go"):
                time.sleep(0.001)
    """

pytestmark = pytest.mark.skipif(len(ALL) < 2, reason="there is one core here")


class Asked:
    """A supervisor with one function, and its workers' processes."""

    def __init__(self, supervisor: miniλ.Supervisor) -> None:
        self.supervisor = supervisor

    async def short(self) -> Response:
        """Invoke until an invocation was as short as the warm ones are."""
        while True:
            response = await self.supervisor.invoke("asked", None)
            assert not response.is_failure, response.body
            if response.report.duration_ms < SHORT_MS:
                return response

    async def pid(self, worker_id: str) -> int:
        """Return the process of a worker."""
        started = await self.supervisor.journal.until(
            journal.WorkerStarted, lambda fact: fact.worker_id == worker_id
        )
        return started.pid

    async def woken(self, pid: int, event: Any) -> tuple[list[int], Response]:
        """Invoke a worker that is stopped; return where it may run when it wakes, and answers."""
        os.kill(pid, signal.SIGSTOP)
        try:
            pending = asyncio.ensure_future(self.supervisor.invoke("asked", event))
            await asyncio.sleep(0)  # a turn: the frame is written
            cores = sorted(os.sched_getaffinity(pid))
        finally:
            os.kill(pid, signal.SIGCONT)
        return cores, await pending


@pytest.fixture
def run_asked(function_directory: Callable[..., Path]) -> Callable[..., None]:
    """Return what runs a scenario with an `Asked`."""
    code = function_directory("asked", app=textwrap.dedent(HANDLER))

    async def play(scenario: Callable[[Asked], Awaitable[None]]) -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("asked", code, "app.handler", memory_size=1769)
            await scenario(Asked(supervisor))

    def run(scenario: Callable[[Asked], Awaitable[None]]) -> None:
        asyncio.run(play(scenario))

    return run


def test_a_short_one_wakes_here_and_has_every_core(run_asked: Callable[..., None]) -> None:
    """The worker is held to one core for the wake-up; handler and children have all of them."""

    async def scenario(asked: Asked) -> None:
        before = await asked.short()
        pid = await asked.pid(before.report.worker_id)
        cores, response = await asked.woken(pid, "look")

        assert len(cores) == 1
        assert response.payload == [ALL, ALL]
        assert response.report.worker_id == before.report.worker_id

    run_asked(scenario)


def test_what_works_for_longer_is_left_to_the_kernel(run_asked: Callable[..., None]) -> None:
    """A worker whose last invocation took long is not held: it would keep the loop waiting."""

    async def scenario(asked: Asked) -> None:
        before = await asked.supervisor.invoke("asked", "work")
        pid = await asked.pid(before.report.worker_id)
        cores, _ = await asked.woken(pid, "look")

        assert cores == ALL

    run_asked(scenario)


def test_where_others_run_nobody_is_held(run_asked: Callable[..., None]) -> None:
    """Invocations at once are not put on one core."""

    async def scenario(asked: Asked) -> None:
        before = await asked.short()
        busy = asyncio.ensure_future(asked.supervisor.invoke("asked", "wait"))
        await asyncio.sleep(0)  # it has the worker that was idle
        other = await asked.short()
        pid = await asked.pid(other.report.worker_id)
        cores, _ = await asked.woken(pid, "look")
        # It waits in its own directory, which is not hidden here.
        function = asked.supervisor.get_function("asked")
        (Path(function.code_path) / "go").touch()

        assert cores == ALL
        assert (await busy).report.worker_id == before.report.worker_id

    run_asked(scenario)


def test_answers_that_are_there_at_once_let_others_run(run_asked: Callable[..., None]) -> None:
    """One who invokes in a row does not keep the loop for himself."""

    async def scenario(asked: Asked) -> None:
        await asked.short()
        turns = 0
        rounds = 10 * IN_A_ROW

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        for _ in range(rounds):
            await asked.supervisor.invoke("asked", None)
        task.cancel()

        assert turns >= rounds // (IN_A_ROW + 1)

    run_asked(scenario)


def test_with_one_core_there_is_nothing_to_choose() -> None:
    """A supervisor that has one core holds nobody; one that has more does."""
    held: list[bool] = []
    once = threading.Event()

    def confined() -> None:
        own = threading.get_native_id()
        os.sched_setaffinity(own, ALL[:1])
        held.append(Affinity().hold(own))
        os.sched_setaffinity(own, ALL)
        held.append(Affinity().hold(own))
        held.append(len(os.sched_getaffinity(own)) == 1)
        once.set()

    threading.Thread(target=confined).start()
    once.wait()

    assert held == [False, True, True]


def test_who_is_gone_is_not_held() -> None:
    """A process that has been reaped cannot be held, and that is no error."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

    assert not Affinity().hold(pid)
