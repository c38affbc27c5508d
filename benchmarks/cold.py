"""The benchmark of a cold start: asked to answered, by a worker that is new.

Each start waits until the worker before it is gone, and a moment more, in which what it
left behind is put away: that is not counted, for the floor neither.

The three parts of a start: until the supervisor knows of the fork, until the worker is
ready (it entered its sandbox and loaded the handler), until its first answer is here.

What each mechanism of the sandbox costs is what a start costs less without it. The namespaces
and the fork are made ahead of the start, between two of them: that is not counted either, and
`density` says what it takes.

Peers start whole: a new pool of one process in a program that runs, a new server with its
function. There are few of those starts, since they take long.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from benchmarks import floors, ours, peers, report, rounds
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
    "asked_to_forked": "of it: asked to forked",
    "forked_to_ready": "of it: forked to ready",
    "ready_to_answered": "of it: ready to answered",
}
PAUSE = 0.005
WARM_UP = 2


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure the floor, miniλ and the named peers."""
    effort = QUICK if quick else FULL
    wanted = [peers.POOL, *names]
    absent = {name: peers.NOT_INSTALLED for name in wanted if not peers.is_installed(name)}
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
        async def start() -> float:
            found = await mine.start()
            for part in PARTS if name in parts else ():
                parts[name].setdefault(part, []).append(getattr(found, part))
            return found.total

        return Contestant(name, lambda: starts(start))

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
    found = []
    for row in report.rows(played, [fork.name, empty.name, *CASES, *wanted], against, absent):
        found.append(row)
        found += _parts(parts.get(row.name, {}), played.value(fork.name, "p50"))

    def ratio(name: str) -> float:
        return played.value(name, "p50") / played.value(fork.name, "p50")

    return report.Result(
        benchmark="cold",
        about="Cold start of hello, asked to answered: the median of the rounds.",
        rows=found,
        promises=[
            report.bound(f"{name}, times a bare fork", ratio(name), bound, "at most", "x")
            for name, bound in ((OURS, 6), (LANDLOCK, 4), (LIMITS, 3))
        ],
        limits=limits,
    )


def _parts(parts: dict[str, list[float]], floor: float) -> list[report.Row]:
    """Return a row for each part of a start, of all starts and warm-ups."""
    rows = []
    for part, taken in parts.items():
        figures = {
            name: rounds.Figure("s", value, [value])
            for name, value in rounds.spread(taken, 50, 90).items()
        }
        ratio = {"x bare fork": figures["p50"].value / floor}
        rows.append(report.Row(f"  {PARTS[part]}", figures, ratio))
    return rows
