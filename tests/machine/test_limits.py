"""Limits of CPU, memory, /tmp, processes and descriptors: each is held, and costs no other worker.

Every test runs at each cgroup level of the host, as those of test_faults.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import miniλ
from miniλ import journal
from miniλ.sandbox import processes

from .conftest import OPEN, holds

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Bench


@pytest.mark.parametrize(
    "body",
    ["while True: pass", "for _ in range(64): threading.Thread(target=spin).start()"],
)
def test_a_spinning_handler_gets_its_share(
    run_bench: Callable[..., None], level: str, body: str
) -> None:
    """128 MB are 7.2% of a CPU, with 1 thread or 64: asserted from the process's CPU time (A16)."""

    async def scenario(bench: Bench) -> None:
        await bench.works()
        response = await bench.abuse()
        cpu = [line.removeprefix("cpu ") for line in response.log.splitlines() if "cpu " in line]
        used, elapsed = map(float, cpu[0].split())

        assert used / elapsed <= 0.0724 * 1.5

    source = (
        "start, began = time.monotonic(), time.process_time()\n"
        "def spin():\n"
        "    while time.monotonic() - start < 3: pass\n"
        + body.replace("while True: pass", "spin()")
        + "\nspin()\n"
        "print('cpu', time.process_time() - began, time.monotonic() - start)\n"
        "os._exit(0)\n"
    )
    if not holds(level, "cpu"):
        pytest.skip(f"cgroup {level} does not hold the CPU here: nice is soft")
    run_bench(source, scenario, timeout=20)


def test_private_memory_without_end_is_a_memory_error(
    run_bench: Callable[..., None],
) -> None:
    """10 GB of private memory: Python gets a clean MemoryError, and goes on (A24)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.failure is not None
        assert response.failure.error_type == "MemoryError"
        await bench.works()

    run_bench("return len(bytearray(10 << 30))", scenario)


EATERS = {
    "private, in small steps": "kept = []\nwhile True: kept.append(bytearray(1 << 20))",
    "shared": (
        "import mmap\nkept = []\n"
        "while True:\n    kept.append(mmap.mmap(-1, 1 << 24)); kept[-1].write(b'x' * (1 << 24))"
    ),
    "in 20 children": (
        "for _ in range(20):\n"
        "    if os.fork() == 0:\n"
        "        kept = bytearray(b'x') * (60 << 20)\n"
        "        time.sleep(60)\n"
        "time.sleep(60)"
    ),
}


@pytest.mark.parametrize("body", EATERS.values(), ids=EATERS)
def test_memory_without_end_ends_the_worker(
    run_bench: Callable[..., None], level: str, body: str
) -> None:
    """Touched memory, private, shared or of children, ends at the limit, with its failure (A24)."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.failure is not None
        if response.failure.error_type != "MemoryError":
            assert response.failure.error_type == "Runtime.ExitError"
            assert response.failure.error_message.endswith("signal: killed")
            assert "Runtime.OutOfMemory" in response.log
        if holds(level, "memory"):
            assert response.report.max_memory_used_mb <= 128
        await bench.works()

    run_bench(body, scenario, timeout=30)


SHARED_MEMORY = """
import mmap
def handler(event, context):
    if "fifo" in event:
        return open(event["fifo"]).read()
    memory = mmap.mmap(-1, event["mb"] << 20)
    for _ in range(event["mb"]):
        memory.write(b"x" * (1 << 20))
    return open(event["ends"]).read()
"""


@pytest.mark.parametrize("failures", [1, 0], ids=["after a failed poll", "control"])
def test_a_poll_that_fails_does_not_end_the_limits(
    function_directory: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    failures: int,
) -> None:
    """No descriptor was left for one scan of /proc: a Trouble, and the next invocation is polled.

    The second invocation waits for a fifo without a writer, to its timeout if no poll ends it.
    """
    fifos = [str(tmp_path / name) for name in ("first", "second")]
    for fifo in fifos:
        os.mkfifo(fifo)

    async def main() -> None:
        loop, polled, calls = asyncio.get_running_loop(), asyncio.Event(), [0]
        memory = processes.memory

        def memory_or_failure(marks: list[str]) -> dict[str, int]:
            calls[0] += 1
            loop.call_soon_threadsafe(polled.set)
            if calls[0] <= failures:
                raise OSError(errno.EMFILE, "Too many open files")
            return memory(marks)

        monkeypatch.setattr(processes, "memory", memory_or_failure)
        settings = miniλ.Settings(cgroup="none", without=OPEN)
        async with miniλ.Supervisor(settings=settings) as supervisor:
            directory = function_directory("f", app=SHARED_MEMORY)
            await supervisor.create_function("f", directory, "app.handler", timeout=5)
            first = asyncio.create_task(supervisor.invoke("f", {"fifo": fifos[0]}))
            await polled.wait()
            if failures:
                async with asyncio.timeout(10):
                    await supervisor.journal.until(journal.Trouble)
            await asyncio.to_thread(Path(fifos[0]).write_text, "polled")
            assert (await first).payload == "polled"

            second = await supervisor.invoke("f", {"mb": 300, "ends": fifos[1]})

            assert "Runtime.OutOfMemory" in second.log
            troubles = [fact.what for fact in supervisor.journal.story(journal.Trouble)]
            assert ["Too many open files" in what for what in troubles] == [True] * failures

    asyncio.run(main())


def test_a_child_out_of_memory_fails_the_invocation(
    run_bench: Callable[..., None], level: str
) -> None:
    """A handler that survives its child's OOM kill and answers has failed nevertheless (A25)."""
    if not holds(level, "memory"):
        pytest.skip(f"cgroup {level} has no memory controller here")

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.failure is not None
        assert response.failure.error_type == "Runtime.ExitError"
        assert "Runtime.OutOfMemory" in response.log
        await bench.gone(response)
        await bench.works()

    # The child is made the likelier victim, as any handler may make it.
    body = (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    open('/proc/self/oom_score_adj', 'w').write('1000')\n"
        "    import mmap\n"
        "    kept = []\n"
        "    while True: kept.append(mmap.mmap(-1, 1 << 24)); kept[-1].write(b'x' * (1 << 24))\n"
        "os.waitpid(child, 0)\n"
        "return 'survived'"
    )
    run_bench(body, scenario, timeout=30)


def test_a_full_tmp_ends_its_worker_only(run_bench: Callable[..., None]) -> None:
    """More than its size in /tmp is refused, or seen and ended; a large file too (A26)."""

    async def scenario(bench: Bench) -> None:
        many = await bench.abuse("many")
        assert many.failure is not None
        if bench.supervisor.limits["tmp"].startswith("hard"):
            assert "No space left on device" in many.failure.error_message
            return
        assert "/tmp holds" in many.failure.error_message
        await bench.gone(many)

        one = await bench.abuse("one")
        assert one.payload == "File too large"

    body = (
        "tmp = os.environ['TMPDIR']\n"
        "if event == 'one':\n"
        "    with open(tmp + '/one', 'wb') as file:\n"
        "        try:\n            file.truncate(600 << 20)\n"
        "        except OSError as exc: return exc.strerror\n"
        "for n in range(600):\n"
        "    with open(f'{tmp}/{n}', 'wb') as file: os.posix_fallocate(file.fileno(), 0, 1 << 20)\n"
        "time.sleep(60)"
    )
    # A /tmp that is a tmpfs counts as memory: it must be full before the memory is.
    run_bench(body, scenario, timeout=30, memory_size=1024)


def test_limits_are_what_lambda_has(run_bench: Callable[..., None]) -> None:
    """1,024 descriptors, no core files, a private /tmp of mode 0700; asserted from inside."""

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.payload == {
            "descriptors": [1024, 1024],
            "core": [0, 0],
            "open": ["0", "1", "2", "3", "4"],
            "tmp": 0o700,
            "opened": 1024 - 5,
        }

    body = (
        "import resource\n"
        "opened = []\n"
        "try:\n    while True: opened.append(os.dup(0))\n"
        "except OSError: pass\n"
        "for fd in opened: os.close(fd)\n"
        "fds = '/proc/self/fd/'\n"
        "listing = [n for n in os.listdir(fds) if os.path.exists(fds + n)]\n"
        "return {\n"
        "    'descriptors': resource.getrlimit(resource.RLIMIT_NOFILE),\n"
        "    'core': resource.getrlimit(resource.RLIMIT_CORE),\n"
        "    'open': sorted(listing),\n"
        "    'tmp': os.stat(os.environ['TMPDIR']).st_mode & 0o777,\n"
        "    'opened': len(opened),\n"
        "}"
    )
    run_bench(body, scenario)


def test_a_fork_bomb_meets_the_process_limit(run_bench: Callable[..., None], level: str) -> None:
    """1,024 processes and no more; the worker's end is the end of all of them (A22)."""
    if not holds(level, "processes"):
        pytest.skip(f"cgroup {level} has no pids controller here, and root has no RLIMIT_NPROC")

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()

        assert response.payload == 1023
        await bench.supervisor.delete_function("subject")
        await bench.gone(response)

    body = (
        "count = 0\n"
        "try:\n"
        "    while True:\n"
        "        if os.fork() == 0:\n"
        "            os.setsid()\n"
        "            signal.pause()\n"
        "        count += 1\n"
        "except OSError: return count"
    )
    run_bench(body, scenario, timeout=60, memory_size=2048)


def test_an_idle_worker_uses_no_cpu(run_bench: Callable[..., None], level: str) -> None:
    """A thread that goes on after the answer is frozen, and resumes with the next (A38)."""
    if level == "none":
        pytest.skip("SIGSTOP is asserted by the worker's state, below")

    async def scenario(bench: Bench) -> None:
        response = await bench.abuse()
        worker_id = response.report.worker_id
        await bench.supervisor.journal.until(
            journal.WorkerFrozen, lambda fact: fact.worker_id == worker_id
        )
        process = psutil.Process(response.payload)
        before = process.cpu_times()
        await asyncio.to_thread(_one_second_of_cpu)
        after = process.cpu_times()

        assert after.user + after.system - before.user - before.system <= 0.03
        again = await bench.supervisor.invoke("subject")
        assert again.payload == response.payload

    body = (
        "def spin():\n    while True: pass\n"
        "threading.Thread(target=spin, daemon=True).start()\n"
        "return os.getpid()"
    )
    run_bench(body, scenario)


def _one_second_of_cpu() -> None:
    """Use half a second of CPU time here: the worker could have used as much meanwhile."""
    end = time.thread_time() + 0.5
    while time.thread_time() < end:
        pass
