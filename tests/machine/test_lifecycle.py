"""The ends of a worker: its supervisor closes or is killed, its zygote is killed, it is idle."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import miniλ
from miniλ import journal, model
from miniλ.sandbox import hierarchies
from miniλ.settings import Settings
from miniλ.worker.equipment import NO_CONTEXT

from .conftest import OPEN, skip_without, sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Bench

ROOT = Path(__file__).resolve().parents[2]


def test_a_killed_zygote_costs_the_invocations_in_flight(
    run_bench: Callable[..., None],
) -> None:
    """Workers die with their zygote: Sandbox.Failure; the next invocation has another (C57)."""

    async def scenario(bench: Bench) -> None:
        journal_ = bench.supervisor.journal
        zygote = (await journal_.until(journal.ZygoteStarted)).pid
        first = await bench.supervisor.invoke("subject", "fine")
        pending = asyncio.create_task(bench.supervisor.invoke("subject", "sleep"))
        await bench.supervisor.invoke("neighbour", 1)
        os.kill(zygote, signal.SIGKILL)
        response = await pending

        assert response.failure is not None
        assert response.failure.error_type == "Sandbox.Failure"
        await bench.gone(first)
        await bench.works()
        assert (await bench.supervisor.invoke("neighbour", 2)).payload == 2
        assert len(journal_.story(journal.ZygoteStarted)) == 2

    run_bench("time.sleep(60)", scenario, timeout=30)


def test_a_zygote_killed_while_workers_are_idle_is_not_noticed(
    run_bench: Callable[..., None],
) -> None:
    """An idle worker that died with its zygote is not leased (C57)."""

    async def scenario(bench: Bench) -> None:
        first = await bench.supervisor.invoke("subject", "fine")
        zygote = (await bench.supervisor.journal.until(journal.ZygoteStarted)).pid
        os.kill(zygote, signal.SIGKILL)
        await bench.gone(first)

        await bench.works()

    run_bench("return 1", scenario)


def test_a_frozen_worker_goes_with_its_zygote(run_bench: Callable[..., None]) -> None:
    """A SIGKILL waits for the thaw in cgroup v1: a frozen worker does not outlive its zygote."""

    async def scenario(bench: Bench) -> None:
        first = await bench.supervisor.invoke("subject", "fine")
        await bench.supervisor.journal.until(journal.WorkerFrozen)
        zygote = (await bench.supervisor.journal.until(journal.ZygoteStarted)).pid
        os.kill(zygote, signal.SIGKILL)
        await bench.gone(first)

        await bench.works()

    run_bench("return 1", scenario)


def test_a_worker_that_died_while_idle_costs_nothing(run_bench: Callable[..., None]) -> None:
    """An invocation that the dead worker has not read is run by another worker, not failed."""

    async def scenario(bench: Bench) -> None:
        await bench.supervisor.invoke("subject", "fine")
        started = await bench.supervisor.journal.until(journal.WorkerStarted)
        pidfd = os.pidfd_open(started.pid)
        os.kill(started.pid, signal.SIGKILL)
        # Seen here, and not by the supervisor, which has had no turn of the loop.
        select.select([pidfd], [], [])
        os.close(pidfd)
        response = await bench.supervisor.invoke("subject", "fine")

        assert response.payload == "fine"
        assert response.report.cold

    run_bench("return 1", scenario)


def test_workers_of_a_deleted_function_end_when_they_are_ready(
    run_bench: Callable[..., None], function_directory: Callable[..., Path]
) -> None:
    """A worker that is ready after its function was deleted, without a waiter, does not stay."""
    source = "import os, time\ntime.sleep(os.urandom(1)[0] / 500)\ndef handler(e, c): return e\n"

    async def scenario(bench: Bench) -> None:
        supervisor = bench.supervisor
        code = function_directory("slow", app=source)
        await supervisor.create_function("slow", code, "app.handler", memory_size=1769)
        await asyncio.gather(*(supervisor.invoke("slow", n) for n in range(6)))
        await supervisor.delete_function("slow")

        for started in supervisor.journal.story(journal.WorkerStarted):
            if started.function == "slow":
                await supervisor.journal.until(
                    journal.WorkerExited, lambda fact, own=started: fact.worker_id == own.worker_id
                )

    run_bench("return 1", scenario)


# A supervisor in a process of its own: its handler locks a file and leaves a daemon that holds
# the lock too; the supervisor says so and waits to be ended.
HOLDER = """
import asyncio, signal, sys
import miniλ
from miniλ.settings import Settings

async def main(code, state, lock, level):
    settings = Settings(cgroup=level, without="namespaces,landlock")
    async with miniλ.Supervisor(state or None, settings) as supervisor:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        try:
            await supervisor.create_function("holder", code, "app.handler", timeout=60)
        except miniλ.ResourceConflict:
            pass
        await supervisor.invoke("holder", {"lock": lock})
        waiting = asyncio.create_task(supervisor.invoke("holder", {"sleep": True}))
        other = asyncio.create_task(supervisor.invoke("holder", {}))
        await other
        print("ready", supervisor.parts.state.path, flush=True)
        await ended.wait()

asyncio.run(main(*sys.argv[1:]))
"""

LOCKER = """
import fcntl, os, time

def handler(event, context):
    if "sleep" in event:
        time.sleep(50)
    if "lock" in event:
        global kept
        kept = open(event["lock"], "w")
        fcntl.flock(kept, fcntl.LOCK_SH)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writer, b"x")
                time.sleep(600)
            os._exit(0)
        os.wait()
        os.read(reader, 1)
"""


class Holder:
    """A supervisor in a child process, with workers and a daemon that hold a lock."""

    def __init__(self, code: Path, state: str, lock: Path, level: str) -> None:
        self.lock = lock
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(code), state, str(lock), level],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
            },
        )
        assert self.process.stdout is not None
        word, _, path = self.process.stdout.readline().partition(" ")
        assert word == "ready"
        self.state = Path(path.strip())
        self.tree = psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number: int) -> int:
        """End the supervisor by a signal; return how it exited."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def zygote(self) -> int:
        """Return the pid of its zygote."""
        return next(child.pid for child in self.tree if child.ppid() == self.process.pid)

    def groups(self) -> list[Path]:
        """Return the cgroups of this supervisor that are there."""
        mine = f"minilambda-{self.process.pid:06x}*"
        return [p for place in hierarchies.places().values() for p in Path(place).glob(mine)]

    def is_locked(self) -> bool:
        """Return whether a worker or its daemon lives: it holds the lock."""
        with self.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def wait_unlocked(self) -> None:
        """Wait until no process holds the lock: flock(2) itself waits."""
        with self.lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)


@pytest.fixture
def hold(
    level: str, function_directory: Callable[..., Path], tmp_path: Path
) -> Callable[..., Holder]:
    """Return a starter of Holders at this level."""
    code = function_directory("holder", app=textwrap.dedent(LOCKER))

    def start(state: str = "") -> Holder:
        return Holder(code, state, tmp_path / "lock", level)

    return start


def test_sigterm_leaves_nothing(hold: Callable[..., Holder]) -> None:
    """Closing ends workers, daemons, cgroups and the temporary state (C58)."""
    holder = hold()
    assert holder.is_locked()

    assert holder.end(signal.SIGTERM) == 0
    assert not holder.is_locked()
    assert not any(child.is_running() for child in holder.tree)
    assert holder.groups() == []
    assert not holder.state.exists()


def test_kill_9_of_the_supervisor_leaves_no_process(hold: Callable[..., Holder]) -> None:
    """Its zygote sees it and takes everything along, also a daemon; the next start sweeps (C55)."""
    holder = hold()

    assert holder.end(signal.SIGKILL) == -signal.SIGKILL
    holder.wait_unlocked()
    assert holder.state.exists()
    sweep = asyncio.run(_open_once(None))
    assert [fact for fact in sweep if isinstance(fact, journal.StateSwept)]
    assert not holder.state.exists()
    assert holder.groups() == []


def test_kill_9_of_supervisor_and_zygote_is_swept(hold: Callable[..., Holder]) -> None:
    """With both gone at once the next start of a supervisor ends what is left (C55, C70)."""
    holder = hold()
    zygote = holder.zygote()
    os.kill(zygote, signal.SIGSTOP)  # it must not see the supervisor go
    holder.end(signal.SIGKILL)
    os.kill(zygote, signal.SIGKILL)
    asyncio.run(_open_once(None))

    assert not holder.is_locked()
    assert holder.groups() == []
    assert not holder.state.exists()


def test_a_kept_state_is_swept_by_its_next_supervisor(
    hold: Callable[..., Holder], tmp_path: Path
) -> None:
    """A state directory keeps its functions; what a killed supervisor left in it is removed."""
    state = tmp_path / "state"
    holder = hold(str(state))
    holder.end(signal.SIGKILL)
    holder.wait_unlocked()

    async def look() -> miniλ.Response:
        async with miniλ.Supervisor(state) as supervisor:
            assert [f.name for f in supervisor.list_functions()] == ["holder"]
            return await supervisor.invoke("holder", {})

    assert asyncio.run(look()).failure is None
    assert list((state / "tmp").iterdir()) == []
    assert holder.groups() == []


# A supervisor whose worker is frozen by cgroup v1; prints the pids of worker and zygote, and waits.
FREEZER = """
import asyncio, sys
import miniλ
from miniλ import journal

async def main(code, state):
    settings = miniλ.Settings(cgroup="v1")
    async with miniλ.Supervisor(state, settings) as supervisor:
        await supervisor.create_function("frozen", code, "app.handler")
        await supervisor.invoke("frozen", {})
        await supervisor.journal.until(journal.WorkerFrozen)
        (started,) = supervisor.journal.story(journal.WorkerStarted)
        (zygote,) = supervisor.journal.story(journal.ZygoteStarted)
        print(started.pid, zygote.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("victims", ["supervisor", "supervisor and zygote"])
def test_a_frozen_worker_goes_with_its_supervisor(
    function_directory: Callable[..., Path], tmp_path: Path, victims: str
) -> None:
    """Not even the end of its pid namespace kills a worker that cgroup v1 has frozen: it is thawed.

    By its zygote; by the next supervisor, where that was killed too.
    """
    skip_without("v1")
    code = function_directory("frozen", app="def handler(event, context): return event\n")
    environment = {name: text for name, text in os.environ.items() if name != "MINILAMBDA_WITHOUT"}
    state = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-c", FREEZER, str(code), str(state)],
        stdout=subprocess.PIPE,
        env={**environment, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )
    try:
        with process:
            assert process.stdout is not None
            worker, zygote = map(int, process.stdout.readline().split())
            pidfd = os.pidfd_open(worker)
            groups = json.loads((state / "instance.json").read_bytes())["groups"]
            process.kill()
            if victims == "supervisor and zygote":
                os.kill(zygote, signal.SIGKILL)
                process.wait()
                sweep(state)
        ended, _, _ = select.select([pidfd], [], [], 10)
        os.close(pidfd)
        assert ended
    finally:
        sweep(state)

    assert len(groups) == 4
    assert [path for path in groups if Path(path).exists()] == []


def test_the_living_are_not_swept(hold: Callable[..., Holder]) -> None:
    """Another supervisor's start touches nothing of one that lives (C70)."""
    holder = hold()
    facts = asyncio.run(_open_once(None))

    assert not [fact for fact in facts if isinstance(fact, journal.StateSwept)]
    assert all(child.is_running() for child in holder.tree)
    assert holder.is_locked()
    holder.end(signal.SIGTERM)


async def _open_once(state: str | None) -> list[journal.Fact]:
    async with miniλ.Supervisor(state) as supervisor:
        return list(supervisor.journal.facts)


def test_two_supervisors_cannot_share_a_state(tmp_path: Path) -> None:
    """The second says which process holds the directory (C68)."""

    async def scenario() -> None:
        async with miniλ.Supervisor(tmp_path / "state"):
            with pytest.raises(miniλ.StateInUse, match=f"process {os.getpid()}"):
                await miniλ.Supervisor(tmp_path / "state").__aenter__()

    asyncio.run(scenario())


def test_a_transition_that_must_not_be_tells_the_story(run_bench: Callable[..., None]) -> None:
    """The last facts of a worker that was frozen often, invocations included, and no more."""

    async def scenario(bench: Bench) -> None:
        supervisor = bench.supervisor
        await bench.works()
        (worker,) = (
            w for w in supervisor.parts.pool._workers.values() if w.function.name == "subject"
        )
        for _ in range(20):
            worker.freeze()
            await bench.works()
            await bench.works()

        with pytest.raises(AssertionError, match=r"cannot be ready; its story: \.\.\. ") as got:
            worker._move("ready")
        assert str(got.value).endswith(" frozen thawed answered*2" * 7)
        pending = asyncio.create_task(supervisor.invoke("subject", "sleep"))
        await asyncio.sleep(0)
        with pytest.raises(AssertionError, match=r"cannot be invoked; its story: .* invoked$"):
            worker.invoke("id", b"", NO_CONTEXT)
        assert (await pending).payload == "fine"

    run_bench("time.sleep(0.1)\nreturn 'fine'", scenario, {"freeze_after": 60.0})


def test_a_worker_is_frozen_after_each_invocation(run_bench: Callable[..., None]) -> None:
    """50 ms after each, also if the pool has something else to do later: memory, an old /tmp."""

    async def scenario(bench: Bench) -> None:
        await bench.abuse("die")  # its /tmp is kept for 10 minutes
        times: list[float] = []
        for _ in range(4):
            response = await bench.supervisor.invoke("subject", "fine")

            def is_next(fact: journal.WorkerFrozen, own: str = response.report.worker_id) -> bool:
                return fact.worker_id == own and fact.at not in times

            async with asyncio.timeout(5):
                fact = await bench.supervisor.journal.until(journal.WorkerFrozen, is_next)
            times.append(fact.at)

        assert times == sorted(times)

    run_bench("os.abort()", scenario)


def test_keep_alive_ends_idle_workers(run_bench: Callable[..., None]) -> None:
    """An idle worker is frozen after the grace, and ends after its keep-alive."""

    async def scenario(bench: Bench) -> None:
        response = await bench.supervisor.invoke("subject")
        worker_id = response.report.worker_id
        frozen = await bench.supervisor.journal.until(
            journal.WorkerFrozen, lambda fact: fact.worker_id == worker_id
        )
        stopped = await bench.supervisor.journal.until(
            journal.WorkerStopped, lambda fact: fact.worker_id == worker_id
        )

        assert frozen.at < stopped.at
        assert stopped.reason == "its keep-alive is over"
        await bench.gone(response)

    run_bench("return 1", scenario, keep_alive=0.3)


def test_sigterm_lets_a_worker_say_goodbye(run_bench: Callable[..., None], tmp_path: Path) -> None:
    """An idle, frozen worker gets SIGTERM and its grace, and may use both."""
    path = tmp_path / "goodbye"

    async def scenario(bench: Bench) -> None:
        response = await bench.supervisor.invoke("subject", str(path))
        await bench.supervisor.journal.until(journal.WorkerFrozen)
        await bench.supervisor.delete_function("subject")
        gone = await bench.gone(response)

        assert path.read_text() == "goodbye"
        assert gone.cause == "Runtime exited with error: exit status 7"

    body = (
        "def leave(*_):\n    open(event, 'w').write('goodbye')\n    os._exit(7)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
    )
    run_bench(body, scenario)


def test_a_worker_that_will_not_go_is_killed(run_bench: Callable[..., None]) -> None:
    """After the grace comes SIGKILL."""

    async def scenario(bench: Bench) -> None:
        response = await bench.supervisor.invoke("subject")
        await bench.supervisor.delete_function("subject")
        gone = await bench.gone(response)

        assert gone.cause == "Runtime exited with error: signal: killed"

    run_bench("signal.signal(signal.SIGTERM, signal.SIG_IGN)", scenario, {"shutdown_grace": 0.2})


def test_an_update_ends_old_workers_after_they_answered(
    run_bench: Callable[..., None],
) -> None:
    """A running invocation ends on the old configuration; the next has the new one (B43)."""

    async def scenario(bench: Bench) -> None:
        running = asyncio.create_task(bench.supervisor.invoke("subject", 0.5))
        await bench.supervisor.journal.until(
            journal.WorkerReady, lambda fact: fact.function == "subject"
        )
        await bench.supervisor.update_function_configuration(
            "subject", environment={"STAGE": "new"}
        )
        after = await bench.supervisor.invoke("subject", 0)
        before = await running

        assert before.payload is None
        assert after.payload == "new"
        await bench.gone(before)

    run_bench("time.sleep(event)\nreturn os.environ.get('STAGE')", scenario)


def test_an_invocation_whose_caller_left_runs_to_its_end(
    run_bench: Callable[..., None], tmp_path: Path
) -> None:
    """Cancelling the caller does not stop the function; it is billed, its worker kept (B47)."""
    path = tmp_path / "ended"

    async def scenario(bench: Bench) -> None:
        await bench.works()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(bench.supervisor.invoke("subject", str(path)), 0.05)
        assert not path.exists()
        invoked = await bench.supervisor.journal.until(
            model.Invoked, lambda fact: fact.report.duration_ms > 300
        )

        assert path.exists()
        assert not invoked.failed
        again = await bench.supervisor.invoke("subject", "fine")
        assert again.report.worker_id == invoked.report.worker_id

    run_bench("time.sleep(0.3)\nopen(event, 'w').close()", scenario)


def test_closing_gives_running_invocations_their_grace(
    level: str, function_directory: Callable[..., Path]
) -> None:
    """What ends within the grace is answered; the rest is Sandbox.Failure; then all are gone."""
    code = function_directory(
        "sleeper", app="import time\ndef handler(e, c):\n    time.sleep(e)\n    return e\n"
    )

    async def scenario() -> None:
        settings = Settings(cgroup=level, shutdown_grace=1.0, without=OPEN)  # type: ignore[arg-type]
        async with miniλ.Supervisor(settings=settings) as supervisor:
            await supervisor.create_function("sleeper", code, "app.handler", timeout=60)
            quick = asyncio.create_task(supervisor.invoke("sleeper", 0.3))
            slow = asyncio.create_task(supervisor.invoke("sleeper", 50))
            for count in (1, 2):
                await supervisor.journal.until(
                    journal.WorkerReady,
                    lambda _, n=count: len(supervisor.journal.story(journal.WorkerReady)) >= n,
                )
        with pytest.raises(miniλ.SupervisorClosed):
            await supervisor.invoke("sleeper", 0)

        assert (await quick).payload == 0.3
        failure = (await slow).failure
        assert failure is not None
        assert failure.error_type == "Sandbox.Failure"
        stopped = supervisor.journal.story(journal.WorkerStopped)
        assert ["the supervisor closed"] * 2 == [fact.reason for fact in stopped]

    asyncio.run(scenario())


def test_closing_ends_a_repeated_init_that_has_no_worker(
    function_directory: Callable[..., Path],
) -> None:
    """The zygote does not answer: the caller gets SupervisorClosed, and is not cancelled."""
    code = function_directory("late", app="while True: pass")

    async def scenario() -> None:
        settings = Settings(init_timeout=0.3, shutdown_grace=0.1, without=OPEN)
        async with miniλ.Supervisor(settings=settings) as supervisor:
            await supervisor.create_function("late", code, "app.handler", timeout=60)
            waiting = asyncio.create_task(supervisor.invoke("late"))
            await supervisor.journal.until(journal.WorkerStarted)
            (zygote,) = supervisor.journal.story(journal.ZygoteStarted)
            os.kill(zygote.pid, signal.SIGSTOP)
            await supervisor.journal.until(journal.InitFailed)
        with pytest.raises(miniλ.SupervisorClosed):
            await waiting

    asyncio.run(scenario())
