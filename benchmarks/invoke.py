"""The benchmark of a warm invocation: calls one after the other, from the call to the answer.

The blocking pipe is there for scale; of callers on an event loop, the uvloop pipe is the floor.
Each round is played twice: with all processes on one core, which the promises are about, and with
free placement. See the second rule of `rounds`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks import catalog, floors, ours, peers, promises, report, rounds
from benchmarks.rounds import Contestant, Effort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.ours import Ours
    from benchmarks.rounds import Played

    # Plays one round; returns the seconds of each call.
    Latencies: TypeAlias = Callable[[Effort], Awaitable[list[float]]]

FULL = Effort(rounds=15, calls=2000, seconds=1.0)
QUICK = Effort(rounds=5, calls=400, seconds=0.15)

OURS = "miniλ"
MANY = 1000
LIMITS = "miniλ, rlimits and cgroup"
OURS_MANY = f"miniλ, {MANY:,} functions"
P50_FREE = f"p50, {rounds.FREE}"


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure floors, miniλ and the named peers."""
    effort = QUICK if quick else FULL

    def spread(held: Latencies, free: Latencies) -> Callable[[], Awaitable[dict[str, float]]]:
        async def play() -> dict[str, float]:
            rounds.place(rounds.ONE_CORE)
            on_one = rounds.spread(await held(effort), 50, 99)
            rounds.place(rounds.FREE)
            anywhere = rounds.spread(await free(effort), 50)
            return {**on_one, P50_FREE: anywhere["p50"]}

        return play

    def latencies(call: Callable[[], Awaitable[object]]) -> Latencies:
        return lambda effort: rounds.latencies(call, effort)

    async with contextlib.AsyncExitStack() as stack:

        async def started(**options: Any) -> dict[str, Ours]:  # noqa: ANN401 - see ours.running
            both = {}
            for where in (rounds.ONE_CORE, rounds.FREE):
                with rounds.placed(where):
                    both[where] = await stack.enter_async_context(ours.running(**options))
            return both

        def mine(name: str, both: dict[str, Ours]) -> Contestant:
            held, free = (latencies(both[where].call) for where in (rounds.ONE_CORE, rounds.FREE))
            return Contestant(name, spread(held, free))

        blocking, loop = floors.BlockingPipe(stack), floors.LoopPipe(stack)
        rounds.progress("starting miniλ")
        one = await started()
        rounds.progress(f"creating {MANY} functions, twice")
        many = await started(functions=MANY)
        limited = await started(without="seccomp,landlock,namespaces")
        running, absent = await peers.start_all(stack, [catalog.POOL, *names], 1)
        contestants = [
            Contestant(blocking.name, spread(blocking.latencies, blocking.latencies)),
            Contestant(loop.name, spread(latencies(loop.call), latencies(loop.call))),
            mine(OURS, one),
            mine(LIMITS, limited),
            mine(OURS_MANY, many),
        ]
        contestants += [
            Contestant(name, spread(peer.latencies, peer.latencies), is_peer=True)
            for name, peer in running.items()
        ]
        played = await rounds.play(contestants, effort.rounds, "s")
        return result(played, names, absent, one[rounds.FREE].limits)


def result(
    played: Played, names: Sequence[str], absent: dict[str, str], limits: dict[str, str]
) -> report.Result:
    """Return the rows and promises of rounds that were played."""
    blocking, loop = floors.BlockingPipe.name, floors.LoopPipe.name
    return report.Result(
        benchmark="invoke",
        about=(
            "Warm invocations of hello, one after the other: the median of the rounds. All "
            f"processes are on one core; for the figure `{P50_FREE}` they run on any."
        ),
        rows=report.rows(
            played,
            [blocking, loop, OURS, LIMITS, OURS_MANY, catalog.POOL, *names],
            {"x uvloop pipe": (loop, "p50"), "x process pool": (catalog.POOL, "p50")},
            absent,
        ),
        promises=_promises(played),
        limits=limits,
    )


def _promises(played: Played) -> list[report.Promise]:
    loop = floors.LoopPipe.name
    mine = played.value(OURS, "p50")

    def against(other: str) -> str:
        one, free = played.amounts(OURS, other, "p50"), played.amounts(OURS, other, P50_FREE)
        return f"{one}; with free placement {free}"

    return [
        promises.bound("invoke.pipe", mine / played.value(loop, "p50"), against(loop)),
        promises.bound(
            "invoke.pool", played.value(catalog.POOL, "p50") / mine, against(catalog.POOL)
        ),
        promises.bound(
            "invoke.sandbox",
            mine / played.value(LIMITS, "p50"),
            played.amounts(OURS, LIMITS, "p50"),
        ),
        promises.bound(
            "invoke.functions",
            played.value(OURS_MANY, "p50") / mine,
            played.amounts(OURS_MANY, OURS, "p50"),
        ),
    ]
