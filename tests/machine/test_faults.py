"""Handlers that misbehave: each costs one failed invocation of its function, nothing else.

Every test runs at each cgroup level of the host, beside a neighbour that is invoked meanwhile
and must not notice, and ends with an invocation that works.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from miniλ import journal
from miniλ.model import Failure

from .conftest import is_running

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Bench

EXITS = [
    ("os._exit(0)", "Runtime exited without providing a reason"),
    ("sys.exit()", "Runtime exited without providing a reason"),
    ("os._exit(3)", "Runtime exited with error: exit status 3"),
    ("sys.exit(4)", "Runtime exited with error: exit status 4"),
    ("os.kill(os.getpid(), 9)", "Runtime exited with error: signal: killed"),
    ("os.abort()", "Runtime exited with error: signal: aborted"),
    ("ctypes.string_at(0)", "Runtime exited with error: signal: segmentation fault"),
]


@pytest.mark.parametrize(("body", "message"), EXITS)
def test_a_worker_that_ends_is_an_exit_error(
    run_bench: Callable[..., None], body: str, message: str
) -> None:
    """Exit, signal and segfault read as Lambda words them; the next invocation works (A1-A4)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()
        expected = Failure(
            error_type="Runtime.ExitError",
            error_message=f"RequestId: {response.request_id} Error: {message}",
        )

        assert response.failure == expected
        assert response.report.error_type == "Runtime.ExitError"
        assert "Runtime.OutOfMemory" not in response.log
        await bench.gone(response)
        await bench.works()

    run_bench(body, scenario)


def test_no_core_file_is_left(run_bench: Callable[..., None], tmp_path: Path) -> None:
    """A segfault writes no core file, neither to /tmp nor beside the code (A4)."""

    async def scenario(bench: Bench) -> None:
        await bench.abuse()
        places = [Path(bench.supervisor.get_function("subject").code_path), tmp_path]
        response = await bench.supervisor.invoke("subject", "list")

        assert [path for place in places for path in place.rglob("core*")] == []
        assert response.payload == []

    body = "if event == 'list': return os.listdir(os.environ['TMPDIR'])\nctypes.string_at(0)"
    run_bench(body, scenario)


def test_protocol_descriptors_closed(run_bench: Callable[..., None]) -> None:
    """A handler that closes its descriptors fails within a second, and is replaced (A6)."""

    async def scenario(bench: Bench) -> None:
        began = time.monotonic()
        response = await bench.abuse()

        assert response.failure is not None
        assert response.failure.error_type in (
            "Runtime.ExitError",
            "Runtime.TruncatedResponse",
        )
        assert time.monotonic() - began < 1
        await bench.works()

    run_bench("os.closerange(3, 1024)", scenario)


FORGERIES = {
    "garbage": "os.write(4, b'not a frame' * 100)",
    "a head that is no JSON": "os.write(4, b'\\x04\\0\\0\\0\\0\\0\\0\\0}}}}')",
    "another id": (
        "head = json.dumps({'type': 'response', 'id': 'somebody-else'}).encode()\n"
        "os.write(4, len(head).to_bytes(4, 'little') + bytes(4) + head)"
    ),
    "a length of 4 GB": "os.write(4, b'\\xff' * 8)",
}


@pytest.mark.parametrize("body", FORGERIES.values(), ids=FORGERIES)
def test_forged_frames_end_the_worker(run_bench: Callable[..., None], body: str) -> None:
    """Bytes that are no frame, or of another invocation, are refused at their head (A7-A9)."""

    async def scenario(bench: Bench) -> None:
        before = psutil.Process().memory_info().rss
        response = await bench.abuse()

        assert response.failure is not None
        assert response.failure.error_type == "Runtime.TruncatedResponse"
        assert psutil.Process().memory_info().rss - before < 16 << 20
        await bench.works()

    run_bench(body + "\ntime.sleep(60)", scenario, timeout=10)


def test_a_second_answer_ends_the_worker(run_bench: Callable[..., None]) -> None:
    """The first answer counts; the second, out of turn, ends the worker (A8)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.payload == "first"
        gone = await bench.gone(response)
        assert gone.cause == "Runtime exited with error: signal: killed"
        await bench.works()

    body = (
        "head = json.dumps({'type': 'response', 'id': context.aws_request_id}).encode()\n"
        "body = b'\"first\"'\n"
        "frame = len(head).to_bytes(4, 'little') + len(body).to_bytes(4, 'little') + head + body\n"
        "os.write(4, frame)\n"
        "return 'second'"
    )
    run_bench(body, scenario)


def test_half_a_frame_is_a_timeout(run_bench: Callable[..., None]) -> None:
    """A worker that answers half a frame and sleeps is timed out (A10)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.failure is not None
        assert response.failure.error_type == "Sandbox.Timedout"
        await bench.works()

    run_bench("os.write(4, b'\\x20\\0\\0\\0')\ntime.sleep(60)", scenario, timeout=1)


def test_an_answer_byte_by_byte_is_an_answer(run_bench: Callable[..., None]) -> None:
    """Frames may come in any pieces (A10)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.payload == "slowly"

    body = (
        "head = json.dumps({'type': 'response', 'id': context.aws_request_id}).encode()\n"
        "body = b'\"slowly\"'\n"
        "frame = len(head).to_bytes(4, 'little') + len(body).to_bytes(4, 'little') + head + body\n"
        "for byte in frame: os.write(4, bytes([byte]))\n"
        "os._exit(0)"
    )
    run_bench(body, scenario)


def test_a_worker_that_never_reads_does_not_block_the_supervisor(
    run_bench: Callable[..., None],
) -> None:
    """6 MB for a worker that is stopped do not block the supervisor: it times out (A11)."""

    async def scenario(bench: Bench) -> None:
        first = await bench.supervisor.invoke("subject", {"stop": True})
        assert first.payload == "stopping"
        started = await bench.supervisor.journal.until(
            journal.WorkerStarted, lambda fact: fact.function == "subject"
        )
        # The kernel reports the stop to its parent only: polled here.
        while psutil.Process(started.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

        response = await bench.abuse({"fill": "x" * 6_000_000})

        assert response.failure is not None
        assert response.failure.error_type == "Sandbox.Timedout"
        await bench.works()

    # A child stops the worker the moment that it has answered, before it reads on.
    body = (
        "if 'stop' in event:\n"
        "    worker = os.getpid()\n"
        "    if os.fork() == 0:\n"
        "        state = lambda: open(f'/proc/{worker}/wchan').read()\n"
        "        while 'pipe' not in state(): pass\n"
        "        os.kill(worker, signal.SIGSTOP)\n"
        "        os._exit(0)\n"
        "    return 'stopping'\n"
        "return len(event['fill'])"
    )
    run_bench(body, scenario, {"freeze_after": 60.0}, timeout=2, memory_size=512)


PRINTS = {
    "a gigabyte without a line's end": "for _ in range(1024): os.write(1, b'x' * (1 << 20))",
    "many short lines": "for i in range(300_000): sys.stdout.write('line\\n')",
}


@pytest.mark.parametrize("body", PRINTS.values(), ids=PRINTS)
def test_endless_output_costs_bounded_memory(run_bench: Callable[..., None], body: str) -> None:
    """1 GB of output: the answer is right, the log is cut in its middle, memory stays (A12)."""

    async def scenario(bench: Bench) -> None:
        before = psutil.Process().memory_info().rss
        response = await bench.abuse()

        assert response.payload == "printed"
        assert len(response.log) < 2 << 20
        assert "bytes of log left out]" in response.log
        assert response.log.endswith("\t\n")
        assert psutil.Process().memory_info().rss - before < 32 << 20

    run_bench(f"{body}\nreturn 'printed'", scenario, timeout=60, memory_size=1769)


def test_odd_output_is_kept_as_it_is(run_bench: Callable[..., None]) -> None:
    """Binary, ANSI and carriage returns neither break the log nor forge a REPORT (A12)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.payload == "printed"
        assert "\x1b[31mred\r\n" in response.log
        assert response.log.count("END RequestId") == 1

    run_bench("os.write(1, b'\\xff\\x00\\x1b[31mred\\r\\n')\nreturn 'printed'", scenario)


def test_what_is_printed_between_invocations_is_in_no_log(
    run_bench: Callable[..., None], tmp_path: Path
) -> None:
    """A thread that prints between two invocations prints into neither's log (A13)."""
    go, done = tmp_path / "go", tmp_path / "done"
    os.mkfifo(go)
    os.mkfifo(done)

    async def scenario(bench: Bench) -> None:
        first = await bench.supervisor.invoke("subject", {"go": str(go), "done": str(done)})
        # Each open of a FIFO waits for the other side: the thread prints between the two.
        await asyncio.to_thread(go.write_text, "now")
        assert await asyncio.to_thread(done.read_text) == "printed"
        second = await bench.supervisor.invoke("subject", {})

        assert first.payload == second.payload == "answered"
        assert "late" not in first.log
        assert "late" not in second.log

    body = (
        "def late():\n"
        "    open(event['go']).read()\n"
        "    os.write(1, b'late\\n')\n"
        "    open(event['done'], 'w').write('printed')\n"
        "if event: threading.Thread(target=late).start()\n"
        "return 'answered'"
    )
    run_bench(body, scenario, {"freeze_after": 60.0})


TIMEOUTS = {
    "sleeps": "time.sleep(60)",
    "ignores SIGTERM": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)",
    "blocks all signals": (
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "while True: time.sleep(1)"
    ),
    "catches everything": (
        "while True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass"
    ),
    "spins": "while True: pass",
}


@pytest.mark.parametrize("body", TIMEOUTS.values(), ids=TIMEOUTS)
def test_a_timeout_is_answered_at_its_deadline(run_bench: Callable[..., None], body: str) -> None:
    """Within 100 ms of the deadline, also if the handler resists it (A14, A15)."""

    async def scenario(bench: Bench) -> None:
        await bench.works()
        response = await bench.abuse()
        message = f"RequestId: {response.request_id} Error: Task timed out after 1.00 seconds"

        assert response.failure == Failure("Sandbox.Timedout", message)
        assert response.report.status == "timeout"
        assert 1000 <= response.report.duration_ms <= 1100
        assert f"{response.request_id} Task timed out after 1.00 seconds" in response.log
        assert "Status: timeout" in response.log
        await bench.gone(response)
        await bench.works()

    run_bench(body, scenario, timeout=1)


def test_the_whole_tree_ends_with_a_timeout(run_bench: Callable[..., None], tmp_path: Path) -> None:
    """A timeout kills children too, also orphans that called setsid (A15)."""
    path = tmp_path / "daemon"

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse({"path": str(path)})

        assert response.failure is not None
        await bench.gone(response)
        assert not is_running(int(path.read_text()))
        await bench.works()

    run_bench(DAEMON + "time.sleep(60)", scenario, timeout=1)


# Forks twice and calls setsid; the grandchild writes its pid and sleeps.
DAEMON = (
    "reader, writer = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if os.fork() == 0:\n"
    "        open(event['path'], 'w').write(str(os.getpid()))\n"
    "        os.write(writer, b'x')\n"
    "        time.sleep(600)\n"
    "    os._exit(0)\n"
    "os.wait()\n"
    "os.read(reader, 1)\n"
)


def test_a_daemon_lives_no_longer_than_its_worker(
    run_bench: Callable[..., None], tmp_path: Path
) -> None:
    """A daemonised grandchild outlives the invocation, not the worker (A20)."""
    path = tmp_path / "daemon"

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse({"path": str(path)})
        daemon = int(path.read_text())

        assert response.payload == "answered"
        assert is_running(daemon)
        await bench.supervisor.delete_function("subject")
        await bench.gone(response)
        assert not is_running(daemon)

    run_bench(DAEMON + "return 'answered'", scenario)


def test_death_is_seen_although_a_grandchild_holds_the_pipes(
    run_bench: Callable[..., None], tmp_path: Path
) -> None:
    """Liveness is the process, not the end of its pipes: a dead worker fails at once (A21)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse({"path": str(tmp_path / "daemon")})

        assert response.failure is not None
        assert response.failure.error_type == "Runtime.ExitError"
        assert response.report.duration_ms < 2000
        await bench.works()

    run_bench(DAEMON + "os._exit(5)", scenario, timeout=30)


INITS = {
    "an error": ("raise ImportError('no such thing')", "Runtime.ImportModuleError"),
    "an exception": ("1 / 0", "ZeroDivisionError"),
    "a syntax error": ("def (", "Runtime.UserCodeSyntaxError"),
    "no handler": ("handler_ = None", "Runtime.HandlerNotFound"),
    "an exit": ("import sys; sys.exit(3)", "Runtime.ExitError"),
    "a kill": ("import os; os.kill(os.getpid(), 9)", "Runtime.ExitError"),
}


@pytest.mark.parametrize(("source", "error"), INITS.values(), ids=INITS)
def test_a_failed_init_is_repeated_once_and_reported(
    run_bench: Callable[..., None],
    function_directory: Callable[..., Path],
    source: str,
    error: str,
) -> None:
    """An init that fails runs again inside the invocation, once, and is answered (A18)."""

    async def scenario(bench: Bench) -> None:
        code = function_directory("broken", app=source)
        await bench.supervisor.create_function("broken", code, "app.handler")
        response = await bench.supervisor.invoke("broken")
        starts = [
            fact
            for fact in bench.supervisor.journal.story(journal.WorkerStarted)
            if fact.function == "broken"
        ]

        assert response.failure is not None
        assert response.failure.error_type == error
        assert len(starts) == 2
        assert "Phase: init\tStatus: error" in response.log
        assert "Phase: invoke\tStatus: error" in response.log

    run_bench("return 1", scenario)


def test_a_late_init_is_repeated_inside_the_timeout(
    run_bench: Callable[..., None], function_directory: Callable[..., Path]
) -> None:
    """A hanging import is ended at the init timeout, repeated, and times out (A17)."""

    async def scenario(bench: Bench) -> None:
        code = function_directory("late", app="while True: pass")
        await bench.supervisor.create_function("late", code, "app.handler", timeout=1)
        response = await bench.supervisor.invoke("late")

        assert response.failure is not None
        assert response.failure.error_type == "Sandbox.Timedout"
        assert "Phase: init\tStatus: timeout" in response.log
        assert response.report.duration_ms < 1200

    run_bench("return 1", scenario, {"init_timeout": 0.3})


def test_a_slow_init_succeeds_on_the_second_try(
    run_bench: Callable[..., None], function_directory: Callable[..., Path], tmp_path: Path
) -> None:
    """An init phase that was late once may succeed when it is repeated: it answers (A19)."""
    flag = tmp_path / "flag"

    async def scenario(bench: Bench) -> None:
        source = (
            "import os, time\n"
            f"if not os.path.exists({str(flag)!r}):\n"
            f"    open({str(flag)!r}, 'w').close()\n"
            "    time.sleep(60)\n"
            "def handler(event, context): return os.environ['TMPDIR']\n"
        )
        code = function_directory("slow", app=source)
        await bench.supervisor.create_function("slow", code, "app.handler")
        response = await bench.supervisor.invoke("slow")

        assert response.failure is None, response.log
        assert response.report.cold
        again = await bench.supervisor.invoke("slow")
        assert again.payload == response.payload
        assert not again.report.cold

    run_bench("return 1", scenario, {"init_timeout": 0.5})


def test_tmp_survives_a_crash_and_globals_do_not(run_bench: Callable[..., None]) -> None:
    """After a timeout the replacement finds /tmp as it was, and nothing in memory (A14)."""

    async def scenario(bench: Bench) -> None:
        assert (await bench.supervisor.invoke("subject", "write")).payload == [1, True]
        assert (await bench.abuse("sleep")).report.status == "timeout"
        response = await bench.supervisor.invoke("subject", "look")

        assert response.payload == [1, True]
        assert response.report.cold

    body = (
        "global count\n"
        "count = globals().get('count', 0) + 1\n"
        "path = os.environ['TMPDIR'] + '/kept'\n"
        "if event == 'write': open(path, 'w').close()\n"
        "if event == 'sleep': time.sleep(60)\n"
        "return [count, os.path.exists(path)]"
    )
    run_bench(body, scenario, timeout=1)


def test_warm_state_is_a_workers_own(run_bench: Callable[..., None]) -> None:
    """Globals stay in one worker; an update of code or configuration never shares them (A39)."""

    async def scenario(bench: Bench) -> None:
        counts = [(await bench.supervisor.invoke("subject")).payload for _ in range(3)]
        await bench.supervisor.update_function_configuration("subject", memory_size=256)
        after = (await bench.supervisor.invoke("subject")).payload

        assert counts == [1, 2, 3]
        assert after == 1

    run_bench("global n\nn = globals().get('n', 0) + 1\nreturn n", scenario)


def test_damage_ends_with_its_worker(run_bench: Callable[..., None]) -> None:
    """A handler that patches json, chdirs and closes its output hurts no other function (A37)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.payload == "damaged"
        assert (await bench.supervisor.invoke("neighbour", 1)).payload == 1
        await bench.works()

    body = (
        "json.dumps = json.loads = None\n"
        "os.chdir('/')\n"
        "os.umask(0)\n"
        "sys.stdout.close()\n"
        "for fd in (0, 1, 2): os.close(fd)\n"
        "return 'damaged'"
    )
    run_bench(body, scenario)


def test_the_process_is_ours(run_bench: Callable[..., None]) -> None:
    """The control for all of the above: the handler runs in another process, as its own user."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()
        (started,) = (
            fact
            for fact in bench.supervisor.journal.story(journal.WorkerStarted)
            if fact.worker_id == response.report.worker_id
        )

        assert started.pid != os.getpid()
        own_user = "user of its own" in response.report.limits["siblings"]
        assert (psutil.Process(started.pid).uids().real == os.getuid()) is not own_user
        # In a pid namespace it does not know that number, and is not the first in it.
        assert response.payload in (started.pid, 2)

    run_bench("return os.getpid()", scenario)
