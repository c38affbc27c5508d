"""A short invocation wakes its worker on the supervisor's core, and its handler does not see it.

The affinity of a process is read while the process is stopped: it has been pinned, and has not run
yet.
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


class Subject:
    """A supervisor with one function, and its workers' processes."""

    def __init__(self, supervisor: miniλ.Supervisor) -> None:
        self.supervisor = supervisor

    async def short(self) -> Response:
        """Invoke until an invocation was shorter than 1 ms; return its response."""
        while True:
            response = await self.supervisor.invoke("subject", None)
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
        """Invoke a worker that is stopped; return its affinity when it wakes, and its response."""
        os.kill(pid, signal.SIGSTOP)
        try:
            pending = asyncio.ensure_future(self.supervisor.invoke("subject", event))
            await asyncio.sleep(0)  # a turn: the frame is written
            cores = sorted(os.sched_getaffinity(pid))
        finally:
            os.kill(pid, signal.SIGCONT)
        return cores, await pending


@pytest.fixture
def run_subject(function_directory: Callable[..., Path]) -> Callable[..., None]:
    """Return a runner of scenarios with a `Subject`."""
    code = function_directory("subject", app=textwrap.dedent(HANDLER))

    async def play(scenario: Callable[[Subject], Awaitable[None]]) -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("subject", code, "app.handler", memory_size=1769)
            await scenario(Subject(supervisor))

    def run(scenario: Callable[[Subject], Awaitable[None]]) -> None:
        asyncio.run(play(scenario))

    return run


def test_a_short_invocation_wakes_here_and_has_every_core(run_subject: Callable[..., None]) -> None:
    """The worker is pinned to one core for the wake-up; handler and children have all cores."""

    async def scenario(subject: Subject) -> None:
        before = await subject.short()
        pid = await subject.pid(before.report.worker_id)
        cores, response = await subject.woken(pid, "look")

        assert len(cores) == 1
        assert response.payload == [ALL, ALL]
        assert response.report.worker_id == before.report.worker_id

    run_subject(scenario)


def test_a_longer_invocation_is_left_to_the_kernel(run_subject: Callable[..., None]) -> None:
    """A worker whose last invocation took 5 ms is not pinned: the loop would wait for it."""

    async def scenario(subject: Subject) -> None:
        before = await subject.supervisor.invoke("subject", "work")
        pid = await subject.pid(before.report.worker_id)
        cores, _ = await subject.woken(pid, "look")

        assert cores == ALL

    run_subject(scenario)


def test_while_others_run_no_worker_is_pinned(run_subject: Callable[..., None]) -> None:
    """Concurrent invocations are not put on one core."""

    async def scenario(subject: Subject) -> None:
        before = await subject.short()
        busy = asyncio.ensure_future(subject.supervisor.invoke("subject", "wait"))
        await asyncio.sleep(0)  # it takes the worker that was idle
        other = await subject.short()
        pid = await subject.pid(other.report.worker_id)
        cores, _ = await subject.woken(pid, "look")
        # It waits in its own directory, which is not hidden here.
        function = subject.supervisor.get_function("subject")
        (Path(function.code_path) / "go").touch()

        assert cores == ALL
        assert (await busy).report.worker_id == before.report.worker_id

    run_subject(scenario)


def test_answers_that_are_there_at_once_let_others_run(run_subject: Callable[..., None]) -> None:
    """A caller that invokes in a row leaves turns of the event loop to other tasks."""

    async def scenario(subject: Subject) -> None:
        await subject.short()
        turns = 0
        rounds = 10 * IN_A_ROW

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        for _ in range(rounds):
            await subject.supervisor.invoke("subject", None)
        task.cancel()

        assert turns >= rounds // (IN_A_ROW + 1)

    run_subject(scenario)


def test_with_one_core_there_is_nothing_to_choose() -> None:
    """A supervisor with one core pins no worker; one with more does."""
    pins: list[bool] = []
    once = threading.Event()

    def confined() -> None:
        own = threading.get_native_id()
        os.sched_setaffinity(own, ALL[:1])
        pins.append(Affinity().pin(own))
        os.sched_setaffinity(own, ALL)
        pins.append(Affinity().pin(own))
        pins.append(len(os.sched_getaffinity(own)) == 1)
        once.set()

    threading.Thread(target=confined).start()
    once.wait()

    assert pins == [False, True, True]


def test_a_process_that_is_gone_is_not_pinned() -> None:
    """A process that has been reaped cannot be pinned, and that is no error."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

    assert not Affinity().pin(pid)
