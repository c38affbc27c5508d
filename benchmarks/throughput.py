"""The benchmark of throughput: calls per second, one at a time and eight.

The floor is the bare uvloop pipe: one worker, one call at a time. Caller and workers share
the cores, so eight at once are not eight times one: the caller's loop is what they share.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks import floors, ours, peers, report, rounds
from benchmarks.rounds import Contestant, Effort

if TYPE_CHECKING:
    from collections.abc import Sequence

FULL = Effort(rounds=15, calls=8000, seconds=1.0)
QUICK = Effort(rounds=4, calls=1200, seconds=0.2)

OURS = "miniλ"
LANES = 8
ONE = "one at a time"
AT_ONCE = f"{LANES} at once"
# It has one worker and refuses a second call while the first runs.
ONE_AT_A_TIME = (peers.RIE,)


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure the floor, miniλ and the named peers."""
    effort = QUICK if quick else FULL

    async def floor() -> dict[str, float]:
        return {ONE: await rounds.rate([loop.call], effort)}

    async def mine() -> dict[str, float]:
        return {
            ONE: await rounds.rate([one.call], effort),
            AT_ONCE: await rounds.rate([one.call] * LANES, effort),
        }

    def of_peer(name: str, peer: peers.Peer) -> Contestant:
        async def play() -> dict[str, float]:
            figures = {ONE: await peer.rate(effort, 1)}
            if name not in ONE_AT_A_TIME:
                figures[AT_ONCE] = await peer.rate(effort, LANES)
            return figures

        return Contestant(name, play, is_peer=True)

    async with contextlib.AsyncExitStack() as stack:
        loop = floors.LoopPipe(stack)
        one = await stack.enter_async_context(ours.running())
        running, absent = await peers.start_all(stack, [peers.POOL, *names], LANES)
        contestants = [Contestant(loop.name, floor), Contestant(OURS, mine)]
        contestants += [of_peer(name, peer) for name, peer in running.items()]
        # Eight workers are started, and not counted.
        await rounds.rate([one.call] * LANES, Effort(1, 20 * LANES, 10.0))
        played = await rounds.play(contestants, effort.rounds, "calls/s")
        limits = one.limits
    of_floor = played.value(OURS, ONE) / played.value(loop.name, ONE)
    of_one = played.value(OURS, AT_ONCE) / played.value(OURS, ONE)
    found = []
    for row in report.rows(
        played,
        [loop.name, OURS, peers.POOL, *names],
        {f"{ONE} / floor": (loop.name, ONE)},
        absent,
    ):
        ratios = dict(row.ratios)
        if AT_ONCE in row.figures:
            both = row.figures[AT_ONCE].value, row.figures[ONE].value
            ratios[f"{AT_ONCE} / {ONE}"] = both[0] / both[1]
        found.append(report.Row(row.name, row.figures, ratios, row.note))
    return report.Result(
        benchmark="throughput",
        about="Warm invocations of hello per second: the median of the rounds.",
        rows=found,
        promises=[
            report.bound(
                "sequential, share of the bare uvloop pipe", of_floor, 0.5, "at least", "x"
            ),
            report.bound(f"{AT_ONCE}, times sequential", of_one, 1, "at least", "x"),
        ],
        limits=limits,
    )
