"""The benchmark of density: what workers and a supervisor weigh, and leave.

PSS counts a page shared by n processes as a n-th in each: what one more worker costs. So others
that run the same interpreter make a worker look lighter, by most of a megabyte: weigh where there
are none.
The supervisor runs in a program of its own (`lone`), so that nothing of the benchmark's is
weighed; it is asked by pipe and looked at from outside, by /proc.

What 500 workers leave is measured after a batch of ten: the first worker of a process
brings things that stay, a thread and spare cgroups, and that is no leak. Their memory is
measured from the first 500 to the second: the journal remembers, and the allocator keeps.
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

from benchmarks import floors, peers, report, rounds
from benchmarks.ours import HELLO
from benchmarks.peers import ProcessPool

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.rounds import Figure

MB = 2**20
REPOSITORY = HELLO.parents[2]
COUNTS = (1, 10, 50)
BATCH = 500
FIRST_BATCH = 10
# What is put away after the last process is gone: pipes, cgroups, directories.
SETTLE_TIMEOUT = 10.0
# From one batch to the next. The journal is not full yet: 500 workers are some 2,500 facts.
GROWTH = 4 * MB

SUPERVISOR = "supervisor with hello, RSS"
LOOP = "bare uvloop process, RSS"


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Weigh workers, a supervisor and what is left after many workers."""
    del names  # a server's workers are not told apart from the server
    counts = COUNTS[:2] if quick else COUNTS
    rows: list[report.Row] = []
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as scratch:
        state = Path(scratch) / "state"
        command = [sys.executable, "-m", "benchmarks.lone", str(state), str(HELLO)]
        async with peers.program(command, cwd=REPOSITORY, talks=True) as process:
            lone = ProcessPool(process)
            rounds.progress("weighing a supervisor")
            await lone.ask(do="workers", count=1)
            supervisor = _rss(process.pid)
            heaviest = 0.0
            for count in counts:
                rounds.progress(f"weighing {count} workers")
                pids = await lone.ask(do="workers", count=count)
                row = await _workers(count, pids)  # type: ignore[arg-type]
                rows += row
                heaviest = max(heaviest, row[0].figures["each"].value)
            rounds.progress("starting and ending workers")
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
    measured = (
        f"{lived} in {taken:.1f} s, RSS {grown / MB:+.1f} MB, "
        f"more: {', '.join(more) or 'nothing'}, left when closed: {left}"
    )
    return report.Result(
        benchmark="density",
        about="Memory of idle workers and of a supervisor; what is left of many workers.",
        rows=rows,
        promises=[
            report.bound("idle Python worker, PSS", heaviest / MB, 5, "at most", " MB"),
            report.bound("supervisor, RSS", supervisor / MB, 40, "at most", " MB"),
            report.Promise(
                f"{BATCH} workers leave everything where it was",
                measured,
                kept=not more and grown <= GROWTH and not left and lived == BATCH,
            ),
        ],
    )


async def _workers(count: int, pids: Sequence[int]) -> list[report.Row]:
    """Weigh idle workers, and as many bare interpreters and processes of a pool."""
    if len(pids) != count:
        raise RuntimeError(f"{len(pids)} workers live where {count} were asked for")
    found = {f"miniλ, {count} workers, PSS": await _weighed(pids)}
    with contextlib.ExitStack() as stack:
        bare = [stack.enter_context(floors.idle()) for _ in range(count)]
        floor = [_pss(pid) for pid in bare]
    async with peers.process_pool(peers.POOL, count) as pool:
        found[f"{peers.POOL}, {count} workers, PSS"] = [_pss(pid) for pid in await pool.pids()]
    found[f"bare interpreter, {count} of them, PSS"] = floor
    return [
        report.Row(
            name,
            {"each": _bytes(sizes)},
            {"x floor": statistics.median(sizes) / statistics.median(floor)},
        )
        for name, sizes in found.items()
    ]


def _bytes(sizes: Iterable[int]) -> Figure:
    found = [float(size) for size in sizes]
    return rounds.Figure("bytes", statistics.median(found), found)


def _pair(what: str, before: dict[str, int], after: dict[str, int]) -> dict[str, Figure]:
    unit = "bytes" if what == "RSS" else ""
    return {
        "before": rounds.Figure(unit, before[what], [before[what]]),
        "after": rounds.Figure(unit, after[what], [after[what]]),
    }


# Looking at it from outside


async def _weighed(pids: Sequence[int]) -> list[int]:
    """Weigh workers until nothing changes any more: the next one is forked ahead just then.

    Until it is, its share of what all have in common is on them: half a megabyte, where one lives.
    """
    deadline = time.monotonic() + SETTLE_TIMEOUT
    last: list[int] = []
    while time.monotonic() < deadline:
        found = [_pss_of_worker(pid) for pid in pids]
        if found == last:
            return found
        last = found
        await asyncio.sleep(0.25)
    return last


def _pss(pid: int) -> int:
    return _rollup(pid, "Pss:")


def _pss_of_worker(pid: int) -> int:
    """Return the PSS of a worker, and of the init of its pid namespace, where it has one."""
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
    """Return the supervisor's cgroups, as it wrote them down."""
    groups: list[str] = json.loads((state / "instance.json").read_bytes())["groups"]
    return groups


def _directories(top: str | Path) -> int:
    return sum(len(names) for _, names, _ in os.walk(top))


def _descendants(pid: int) -> int:
    found = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        children = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
        for child in children.split():
            with contextlib.suppress(OSError):  # gone meanwhile
                found += 1 + _descendants(int(child))
    return found


def _look(pid: int, state: Path) -> dict[str, int]:
    return {
        "processes": _descendants(pid),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "cgroups": sum(_directories(group) for group in _groups(state)),
        "directories": _directories(state),
        "RSS": _rss(pid),
    }


async def _settled(pid: int, state: Path, before: dict[str, int] | None) -> dict[str, int]:
    """Look until nothing changes any more, or nothing is above what it was before."""
    deadline = time.monotonic() + SETTLE_TIMEOUT
    last: dict[str, int] = {}
    while time.monotonic() < deadline:
        found = _look(pid, state)
        counted = {what: found[what] for what in found if what != "RSS"}
        if before is not None and all(counted[what] <= before[what] for what in counted):
            return found
        if before is None and counted == last:
            return found
        last = counted
        await asyncio.sleep(0.25)
    return _look(pid, state)


def _left(state: Path, groups: Sequence[str]) -> int:
    """Count what a closed supervisor left: its cgroups, and its workers' directories."""
    scratch = _directories(state / "tmp") if (state / "tmp").exists() else 0
    return scratch + sum(os.path.exists(group) for group in groups)
