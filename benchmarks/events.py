"""The benchmark of asynchronous events: the time to accept one, and to bring it to its end.

The floor is a bare commit: one row in an SQLite file of the same kind (WAL, synchronous=FULL), on
the same file system, in the caller's thread. An event takes two commits, one when it is accepted
and one when it is over; events that arrive together share them (group commit).

Rule 1: events run while others are accepted, and their ends are commits as well.

Rule 2: the queue is in a state directory that is kept. A temporary one is not synced.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import ours, promises, report, rounds
from benchmarks.rounds import Contestant, Effort
from miniλ.invoker import encode_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from benchmarks.rounds import Played

FULL = Effort(rounds=15, calls=1000, seconds=1.0)
QUICK = Effort(rounds=4, calls=200, seconds=0.2)

COMMIT = "a bare commit"
OURS = "miniλ, invoke_async"
CALLERS = 8
ACCEPTED = "accepted, p50"
OVER = f"over, {CALLERS} callers"


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure the floor and miniλ; no peer has events that survive a power cut."""
    effort = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as temporary:
        async with contextlib.AsyncExitStack() as stack:
            commit = stack.enter_context(_committing(Path(temporary) / "floor.db"))
            one = await stack.enter_async_context(ours.running(state=Path(temporary) / "state"))

            async def floor() -> dict[str, float]:
                return {ACCEPTED: await _p50(commit, effort)}

            async def mine() -> dict[str, float]:
                accepted = await _p50(one.accept, effort)
                await one.quiet()
                return {ACCEPTED: accepted, OVER: await _through(one, effort.calls)}

            contestants = [Contestant(COMMIT, floor), Contestant(OURS, mine)]
            played = await rounds.play(contestants, effort.rounds, "s")
            limits = one.limits
    return result(played, names, limits)


def result(played: Played, names: Sequence[str], limits: dict[str, str]) -> report.Result:
    """Return the rows and promises of rounds that were played."""
    floors = {"accepted / commit": (COMMIT, ACCEPTED)}
    accepted = played.value(OURS, ACCEPTED) / played.value(COMMIT, ACCEPTED)
    over = played.value(OURS, OVER) / played.value(COMMIT, ACCEPTED)
    absent = dict.fromkeys(names, "has no events that survive a power cut")
    return report.Result(
        benchmark="events",
        about="Asynchronous events of hello, in a queue on disk: the median of the rounds.",
        rows=report.rows(played, [COMMIT, OURS, *names], floors, absent),
        promises=[
            promises.bound("events.accepted", accepted, played.amounts(OURS, COMMIT, ACCEPTED)),
            promises.bound("events.over", over, f"{1 / played.value(OURS, OVER):,.0f} events/s"),
        ],
        limits=limits,
    )


async def _p50(call: Callable[[], Awaitable[object]], effort: Effort) -> float:
    return rounds.quantile(await rounds.latencies(call, effort), 0.5)


async def _through(one: ours.Ours, calls: int) -> float:
    """Return the seconds per event, from the first one accepted to the last one over."""

    async def caller() -> None:
        for _ in range(calls // CALLERS):
            await one.accept()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    await one.quiet()
    return (time.perf_counter() - began) / (calls // CALLERS * CALLERS)


@contextlib.contextmanager
def _committing(path: Path) -> Iterator[Callable[[], Awaitable[None]]]:
    """Yield a call that commits one row of an event's size to disk."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, payload BLOB)")
        payload = encode_event(ours.EVENT)

        async def commit() -> None:
            database.execute("INSERT INTO events (payload) VALUES (?)", (payload,))

        yield commit
