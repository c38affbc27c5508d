"""The benchmark of a cold start: from the invocation to the answer of a new worker.

Each start waits until the worker before it has exited, and 5 ms more, in which the supervisor
removes its cgroup and /tmp. Neither is counted, and the floor waits as well.

A start has three parts: until the supervisor learns of the fork, until the worker is ready (it has
entered its sandbox and loaded the handler), and until its first answer arrives.

The cost of a sandbox mechanism is the difference to a start without it. The zygote forks a child
and makes its namespaces ahead of the start, between two of them. That is not counted; `density`
measures the memory of it.

A peer starts completely: a new pool of one process in a program that runs, or a new server with its
function. Those starts take seconds, so each round has one.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from benchmarks import catalog, floors, ours, peers, promises, report, rounds
from benchmarks.rounds import Contestant, Effort
from miniλ.sandbox import levels

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

FULL = Effort(rounds=15, calls=20, seconds=5.0)
QUICK = Effort(rounds=4, calls=10, seconds=0.5)

OURS = "miniλ, the whole sandbox"
LANDLOCK = "miniλ, up to Landlock"
LIMITS = "miniλ, rlimits and cgroup"
PLAIN = "miniλ, rlimits only"
CASES: dict[str, dict[str, str]] = {
    OURS: {},
    **{f"  without {name}": {"without": name} for name in levels.MECHANISMS},
    LANDLOCK: {"sandbox": "landlock"},
    LIMITS: {"without": "seccomp,landlock,namespaces"},
    PLAIN: {"sandbox": "bare", "without": "seccomp", "cgroup": "none"},
}
PARTS = {
    "invocation_to_fork": "of it: invocation to fork",
    "fork_to_ready": "of it: fork to ready",
    "ready_to_answer": "of it: ready to answer",
}
PAUSE = 0.005
WARM_UP = 2


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure the floor, miniλ and the named peers."""
    effort = QUICK if quick else FULL
    wanted = [catalog.POOL, *names]
    absent = {name: catalog.NOT_INSTALLED for name in wanted if not catalog.is_installed(name)}
    parts: dict[str, dict[str, list[float]]] = {OURS: {}, PLAIN: {}}

    async def starts(start: Callable[[], Awaitable[float]]) -> dict[str, float]:
        taken = []
        for number in range(WARM_UP + effort.calls):
            await asyncio.sleep(PAUSE)
            seconds = await start()
            if number >= WARM_UP:
                taken.append(seconds)
        return rounds.spread(taken, 50, 90)

    def of_ours(name: str, mine: ours.Ours) -> Contestant:
        async def one() -> float:
            start = await mine.start()
            for part in PARTS if name in parts else ():
                parts[name].setdefault(part, []).append(getattr(start, part))
            return start.total

        return Contestant(name, lambda: starts(one))

    def of_peer(name: str) -> Contestant:
        async def play() -> dict[str, float]:
            return {"p50": await peers.cold(name)}

        return Contestant(name, play, is_peer=True)

    async with contextlib.AsyncExitStack() as stack:
        fork = floors.BareFork(stack, "bare fork and handshake", floors.WORKER_MODULES)
        empty = floors.BareFork(stack, "the same, of an empty interpreter")
        mine = {
            name: await stack.enter_async_context(ours.running(keep_alive=0, **settings))
            for name, settings in CASES.items()
        }
        contestants = [
            Contestant(fork.name, lambda: starts(fork.start)),
            Contestant(empty.name, lambda: starts(empty.start)),
            *(of_ours(name, supervisor) for name, supervisor in mine.items()),
            *(of_peer(name) for name in wanted if name not in absent),
        ]
        played = await rounds.play(contestants, effort.rounds, "s")
        limits = mine[OURS].limits
    against = {"x bare fork": (fork.name, "p50")}
    rows = []
    for row in report.rows(played, [fork.name, empty.name, *CASES, *wanted], against, absent):
        rows.append(row)
        rows += _parts(parts.get(row.name, {}), played.value(fork.name, "p50"))

    def promise(promise_name: str, name: str) -> report.Promise:
        ratio = played.value(name, "p50") / played.value(fork.name, "p50")
        return promises.bound(promise_name, ratio, played.amounts(name, fork.name, "p50"))

    return report.Result(
        benchmark="cold",
        about="Cold starts of hello, from the invocation to the answer: the median of the rounds.",
        rows=rows,
        promises=[
            promise("cold.root", OURS),
            promise("cold.landlock", LANDLOCK),
            promise("cold.limits", LIMITS),
        ],
        limits=limits,
    )


def _parts(parts: dict[str, list[float]], floor: float) -> list[report.Row]:
    """Return a row for each part of a start, over all starts and warm-ups."""
    rows = []
    for part, taken in parts.items():
        figures = {
            name: rounds.Figure("s", value, [value])
            for name, value in rounds.spread(taken, 50, 90).items()
        }
        ratio = {"x bare fork": figures["p50"].value / floor}
        rows.append(report.Row(f"  {PARTS[part]}", figures, ratio))
    return rows
