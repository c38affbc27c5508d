"""The benchmark of a warm invocation: asked to answered, one after the other.

The blocking pipe is there for scale: on an event loop the other floor is the lowest.
Each round is played twice: with everybody on one core, which is what the promises are about,
and as the kernel likes. See the second rule of `rounds`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks import floors, ours, peers, report, rounds
from benchmarks.rounds import Contestant, Effort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks.ours import Ours

    # Plays one round: how long each of its calls took, in seconds.
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
        running, absent = await peers.start_all(stack, [peers.POOL, *names], 1)
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
        limits = one[rounds.FREE].limits
    return report.Result(
        benchmark="invoke",
        about=(
            "Warm invocation of hello, one after the other: the median of the rounds. Everybody "
            "is on one core, and for the last figure where the kernel likes."
        ),
        rows=report.rows(
            played,
            [blocking.name, loop.name, OURS, LIMITS, OURS_MANY, peers.POOL, *names],
            {"x uvloop pipe": (loop.name, "p50"), "x process pool": (peers.POOL, "p50")},
            absent,
        ),
        promises=_promises(played),
        limits=limits,
    )


def _promises(played: rounds.Played) -> list[report.Promise]:
    mine = played.value(OURS, "p50")
    floor = mine / played.value(floors.LoopPipe.name, "p50")
    faster = played.value(peers.POOL, "p50") / mine
    many = played.value(OURS_MANY, "p50") / mine
    limited = mine / played.value(LIMITS, "p50")
    return [
        report.bound("warm p50, times the bare uvloop pipe", floor, 2, "at most", "x"),
        report.bound("faster than ProcessPoolExecutor", faster, 8, "at least", "x"),
        report.bound("the whole sandbox, times rlimits and cgroup", limited, 1.05, "at most", "x"),
        report.bound(f"{MANY:,} functions, times one function", many, 1.2, "at most", "x"),
    ]
