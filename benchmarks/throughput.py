"""The benchmark of throughput: calls per second, one at a time and eight at once.

The floor is the bare uvloop pipe: one worker, one call at a time, with all processes on one core
(see the second rule of `rounds`) and with free placement. Eight at once have all cores; they do not
reach eight times one, since they share the caller's event loop.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from benchmarks import catalog, floors, ours, peers, promises, report, rounds
from benchmarks.rounds import Contestant, Effort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

FULL = Effort(rounds=15, calls=8000, seconds=1.0)
QUICK = Effort(rounds=4, calls=1200, seconds=0.2)

OURS = "miniλ"
LANES = 8
ONE_CORE = "one at a time, one core"
ONE = "one at a time"
AT_ONCE = f"{LANES} at once"


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure the floor, miniλ and the named peers."""
    effort = QUICK if quick else FULL

    async def both(
        held: Callable[[], Awaitable[float]], free: Callable[[], Awaitable[float]]
    ) -> dict[str, float]:
        rounds.place(rounds.ONE_CORE)
        on_one = await held()
        rounds.place(rounds.FREE)
        return {ONE_CORE: on_one, ONE: await free()}

    async def floor() -> dict[str, float]:
        def rate() -> Awaitable[float]:
            return rounds.rate([loop.call], effort)

        return await both(rate, rate)

    async def mine() -> dict[str, float]:
        figures = await both(
            lambda: rounds.rate([held.call], effort), lambda: rounds.rate([one.call], effort)
        )
        return {**figures, AT_ONCE: await rounds.rate([one.call] * LANES, effort)}

    def of_peer(name: str, peer: peers.Peer) -> Contestant:
        async def play() -> dict[str, float]:
            figures = await both(lambda: peer.rate(effort, 1), lambda: peer.rate(effort, 1))
            if name not in catalog.ONE_AT_A_TIME:
                figures[AT_ONCE] = await peer.rate(effort, LANES)
            return figures

        return Contestant(name, play, is_peer=True)

    async with contextlib.AsyncExitStack() as stack:
        loop = floors.LoopPipe(stack)
        with rounds.placed(rounds.ONE_CORE):
            held = await stack.enter_async_context(ours.running())
        one = await stack.enter_async_context(ours.running())
        running, absent = await peers.start_all(stack, [catalog.POOL, *names], LANES)
        contestants = [Contestant(loop.name, floor), Contestant(OURS, mine)]
        contestants += [of_peer(name, peer) for name, peer in running.items()]
        # Starts eight workers; not counted.
        await rounds.rate([one.call] * LANES, Effort(1, 20 * LANES, 10.0))
        played = await rounds.play(contestants, effort.rounds, "calls/s")
        limits = one.limits
    of_floor = played.value(OURS, ONE_CORE) / played.value(loop.name, ONE_CORE)
    of_one = played.value(OURS, AT_ONCE) / played.value(OURS, ONE)
    rows = []
    for row in report.rows(
        played,
        [loop.name, OURS, catalog.POOL, *names],
        {f"{ONE_CORE} / floor": (loop.name, ONE_CORE)},
        absent,
    ):
        ratios = dict(row.ratios)
        if AT_ONCE in row.figures:
            ratios[f"{AT_ONCE} / {ONE}"] = row.figures[AT_ONCE].value / row.figures[ONE].value
        rows.append(report.Row(row.name, row.figures, ratios, row.note))
    return report.Result(
        benchmark="throughput",
        about="Warm invocations of hello per second: the median of the rounds.",
        rows=rows,
        promises=[
            promises.bound(
                "throughput.pipe",
                of_floor,
                f"{played.amounts(OURS, loop.name, ONE_CORE)}; with free placement "
                f"{played.amounts(OURS, loop.name, ONE)}",
            ),
            promises.bound("throughput.eight", of_one, played.figures[OURS][AT_ONCE].text),
        ],
        limits=limits,
    )
