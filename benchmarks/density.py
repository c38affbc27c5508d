"""The benchmark of density: the memory of workers and of a supervisor, and what 500 workers leave.

PSS counts a page that n processes share as 1/n in each: the cost of one more worker. Other
processes of the same interpreter therefore make a worker look up to a megabyte smaller: measure on
a host that has none.

The supervisor runs in a program of its own (`lone`), so that the benchmark's memory is not counted;
it gets commands by pipe, and is measured from outside, in /proc.

What 500 workers leave is measured after a batch of ten: the first worker of a process creates a
thread and spare cgroups, which stay and are no leak. Memory is compared after the first 500 and
after the second: the journal keeps facts, and the allocator keeps pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import catalog, floors, promises, report, rounds
from benchmarks.ours import HELLO
from benchmarks.pools import ProcessPool, process_pool
from benchmarks.programs import program

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.rounds import Figure

MB = 2**20
REPOSITORY = HELLO.parents[2]
COUNTS = (1, 10, 50)
BATCH = 500
FIRST_BATCH = 10
# Pipes, cgroups and directories are removed after the last process has exited.
SETTLE_TIMEOUT = 10.0
# Allowed from one batch to the next: the journal still grows, by some 2,500 facts for 500 workers.
GROWTH = 4 * MB

SUPERVISOR = "supervisor with hello, RSS"
LOOP = "bare uvloop process, RSS"


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure workers, a supervisor, and what 500 workers leave."""
    del names  # the workers of a server cannot be told from the server
    counts = COUNTS[:2] if quick else COUNTS
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as temporary:
        state = Path(temporary) / "state"
        command = [sys.executable, "-m", "benchmarks.lone", str(state), str(HELLO)]
        async with program(command, cwd=REPOSITORY, talks=True) as process:
            lone = ProcessPool(process)
            rounds.progress("measuring a supervisor")
            await lone.ask(do="workers", count=1)
            supervisor = _rss(process.pid)
            heaviest = 0.0
            medians: dict[int, str] = {}
            for count in counts:
                rounds.progress(f"measuring {count} workers")
                pids = await lone.ask(do="workers", count=count)
                row = await _workers(count, pids)  # type: ignore[arg-type]
                rows += row
                heaviest = max(heaviest, row[0].figures["each"].value)
                medians[count] = row[0].figures["each"].text
            rounds.progress("starting and stopping workers")
            await lone.ask(do="batch", count=FIRST_BATCH)
            before = await _settled(process.pid, state, None)
            await lone.ask(do="batch", count=BATCH)
            filled = await _settled(process.pid, state, before)
            before["RSS"] = filled["RSS"]
            began = time.monotonic()
            lived = await lone.ask(do="batch", count=BATCH)
            taken = time.monotonic() - began
            after = await _settled(process.pid, state, before)
            groups = _groups(state)
        left = _left(state, groups)
    with floors.idle(loop=True) as pid:
        bare = _rss(pid)
    rows.append(report.Row(LOOP, {"each": _bytes([bare])}))
    ratio = {"x floor": supervisor / bare}
    rows.append(report.Row(SUPERVISOR, {"each": _bytes([supervisor])}, ratio))
    rows += [
        report.Row(f"{what}, before and after {lived} workers", _pair(what, before, after))
        for what in before
    ]
    rounds.progress("")
    grown = after["RSS"] - before["RSS"]
    more = [what for what in before if what != "RSS" and after[what] > before[what]]
    sizes = ", ".join(f"{text} each of {count}" for count, text in medians.items())
    measured = (
        f"{lived} in {taken:.1f} s, RSS {grown / MB:+.1f} MB, "
        f"more: {', '.join(more) or 'nothing'}, left when closed: {left}"
    )
    return report.Result(
        benchmark="density",
        about=f"Memory of idle workers and of a supervisor; what {BATCH} workers leave.",
        rows=rows,
        promises=[
            promises.bound("density.worker", heaviest / MB, sizes),
            promises.bound("density.supervisor", supervisor / MB),
            promises.checked(
                "density.left",
                measured,
                kept=not more and grown <= GROWTH and not left and lived == BATCH,
            ),
        ],
    )


async def _workers(count: int, pids: Sequence[int]) -> list[report.Row]:
    """Measure idle workers, and as many bare interpreters and processes of a pool."""
    if len(pids) != count:
        raise RuntimeError(f"{len(pids)} of {count} workers live")
    workers = "1 worker" if count == 1 else f"{count} workers"
    sizes_of = {f"miniλ, {workers}, PSS": await _settled_pss(pids)}
    with contextlib.ExitStack() as stack:
        bare = [stack.enter_context(floors.idle()) for _ in range(count)]
        floor = [_pss(pid) for pid in bare]
    async with process_pool(catalog.POOL, count) as pool:
        sizes_of[f"{catalog.POOL}, {workers}, PSS"] = [_pss(pid) for pid in await pool.pids()]
    sizes_of[f"bare interpreter, as many as {workers}, PSS"] = floor
    return [
        report.Row(
            name,
            {"each": _bytes(sizes)},
            {"x floor": statistics.median(sizes) / statistics.median(floor)},
        )
        for name, sizes in sizes_of.items()
    ]


def _bytes(sizes: Iterable[int]) -> Figure:
    values = [float(size) for size in sizes]
    return rounds.Figure("bytes", statistics.median(values), values)


def _pair(what: str, before: dict[str, int], after: dict[str, int]) -> dict[str, Figure]:
    unit = "bytes" if what == "RSS" else ""
    return {
        "before": rounds.Figure(unit, before[what], [before[what]]),
        "after": rounds.Figure(unit, after[what], [after[what]]),
    }


# Measured from outside, in /proc


async def _settled_pss(pids: Sequence[int]) -> list[int]:
    """Return the PSS of workers once it no longer changes, at most after 10 s.

    The zygote is forking the next worker ahead; until that child exists, its share of the common
    pages is counted in the others: half a megabyte, if one worker lives.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT
    last: list[int] = []
    while time.monotonic() < deadline:
        sizes = [_pss_of_worker(pid) for pid in pids]
        if sizes == last:
            return sizes
        last = sizes
        await asyncio.sleep(0.25)
    return last


def _pss(pid: int) -> int:
    return _rollup(pid, "Pss:")


def _pss_of_worker(pid: int) -> int:
    """Return the PSS of a worker, with the init of its pid namespace if it has one."""
    own = os.readlink(f"/proc/{pid}/ns/pid")
    if own == os.readlink("/proc/self/ns/pid"):
        return _pss(pid)
    total = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.readlink(f"/proc/{name}/ns/pid") == own:
                total += _pss(int(name))
    return total


def _rss(pid: int) -> int:
    return _rollup(pid, "Rss:")


def _rollup(pid: int, field: str) -> int:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def _groups(state: Path) -> list[str]:
    """Return the supervisor's cgroups, from its state directory."""
    groups: list[str] = json.loads((state / "instance.json").read_bytes())["groups"]
    return groups


def _directories(top: str | Path) -> int:
    return sum(len(names) for _, names, _ in os.walk(top))


def _descendants(pid: int) -> int:
    count = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        children = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
        for child in children.split():
            with contextlib.suppress(OSError):  # it exited meanwhile
                count += 1 + _descendants(int(child))
    return count


def _resources(pid: int, state: Path) -> dict[str, int]:
    return {
        "processes": _descendants(pid),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "cgroups": sum(_directories(group) for group in _groups(state)),
        "directories": _directories(state),
        "RSS": _rss(pid),
    }


async def _settled(pid: int, state: Path, before: dict[str, int] | None) -> dict[str, int]:
    """Return what the supervisor has, once it no longer changes or is not above `before`."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    last: dict[str, int] = {}
    while time.monotonic() < deadline:
        now = _resources(pid, state)
        counted = {what: now[what] for what in now if what != "RSS"}
        if before is not None and all(counted[what] <= before[what] for what in counted):
            return now
        if before is None and counted == last:
            return now
        last = counted
        await asyncio.sleep(0.25)
    return _resources(pid, state)


def _left(state: Path, groups: Sequence[str]) -> int:
    """Return the number of cgroups and workers' directories that a closed supervisor left."""
    directories = _directories(state / "tmp") if (state / "tmp").exists() else 0
    return directories + sum(os.path.exists(group) for group in groups)
