"""The rounds: how everything here is measured.

Rule 1: contestants are interleaved in one run (A B C A B C ...), and a figure is the median
of its rounds. A machine that is shared, or moves two processes to two cores and back, is
noisy; a floor that was measured yesterday, or a minute ago, says nothing.

Rule 2: where it matters, everybody is placed alike. Two processes on one core answer each
other several times faster than on two, the kernel moves them as it likes, and it does not
like the same for all: the same floor is 7 us in one round and 45 us in the next. `place`
holds this process and all below it on one core, and lets them go again. miniλ looks once, when
it starts, at the cores that it has: it is started for each placement by itself (`placed`).

Rule 3: a round begins with calls that are not counted: its worker was idle, and perhaps
frozen, while the others had their turn.

Rule 4: a peer that fails loses its row, not the run. A floor or miniλ that fails ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import psutil

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

WARM_UP = 50

ONE_CORE = "one core"
FREE = "free"
_CORES = os.sched_getaffinity(0)


class Effort(NamedTuple):
    """How long to look: `rounds`, each of `calls` or `seconds`, whichever ends first."""

    rounds: int
    calls: int
    seconds: float


class Contestant(NamedTuple):
    """Who takes part; `round` plays one round and returns its figures by name."""

    name: str
    round: Callable[[], Awaitable[dict[str, float]]]
    is_peer: bool = False


class Figure(msgspec.Struct, frozen=True):
    """The median of the rounds, and the rounds. `unit`: s, calls/s, bytes or empty."""

    unit: str
    value: float
    rounds: list[float]


class Played(NamedTuple):
    """What the rounds gave: figures by contestant and name, and who failed, and how."""

    figures: dict[str, dict[str, Figure]]
    failed: dict[str, str]

    def value(self, name: str, figure: str) -> float:
        """Return one figure of one contestant."""
        return self.figures[name][figure].value


async def play(contestants: Sequence[Contestant], rounds: int, unit: str) -> Played:
    """Let everybody play `rounds` rounds in turn; return the medians."""
    values: dict[str, dict[str, list[float]]] = {}
    failed: dict[str, str] = {}
    for number in range(rounds):
        for contestant in contestants:
            if contestant.name in failed:
                continue
            progress(f"round {number + 1}/{rounds}: {contestant.name}")
            try:
                figures = await contestant.round()
            except Exception as exc:
                if not contestant.is_peer:
                    raise
                failed[contestant.name] = f"failed: {exc!r}"[:200]
                values.pop(contestant.name, None)
                continue
            for figure, value in figures.items():
                values.setdefault(contestant.name, {}).setdefault(figure, []).append(value)
    progress("")
    return Played(
        {
            name: {
                figure: Figure(unit, statistics.median(found), found)
                for figure, found in figures.items()
            }
            for name, figures in values.items()
        },
        failed,
    )


def place(where: str) -> None:
    """Hold this process and all below it on one core (`ONE_CORE`), or let them go (`FREE`)."""
    cores = {max(_CORES)} if where == ONE_CORE else _CORES
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            for task in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(task), cores)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile


@contextlib.contextmanager
def placed(where: str) -> Iterator[None]:
    """Start what is started here on one core, or free, and be free afterwards."""
    place(where)
    try:
        yield
    finally:
        place(FREE)


async def latencies(
    call: Callable[[], Awaitable[object]], effort: Effort, warm_up: int = WARM_UP
) -> list[float]:
    """Call one after the other; return how long each took, in seconds."""
    clock = time.perf_counter
    end = clock() + effort.seconds
    for _ in range(warm_up):
        await call()
        if clock() > end:
            break
    taken: list[float] = []
    end = clock() + effort.seconds
    for _ in range(effort.calls):
        began = clock()
        await call()
        ended = clock()
        taken.append(ended - began)
        if ended > end:
            break
    return taken


async def rate(calls: Sequence[Callable[[], Awaitable[object]]], effort: Effort) -> float:
    """Call all at once, each again when it has its answer; return calls per second."""
    clock = time.perf_counter
    left = effort.calls
    done = 0

    async def lane(call: Callable[[], Awaitable[object]], end: float) -> None:
        nonlocal left, done
        while left > 0 and clock() < end:
            left -= 1
            await call()
            done += 1

    for call in calls:
        await call()
    began = clock()
    await asyncio.gather(*(lane(call, began + effort.seconds) for call in calls))
    return done / (clock() - began)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(values: Sequence[float], *percents: int) -> dict[str, float]:
    """Return the percentiles as figures of a round: p50, p99 ..."""
    return {f"p{percent}": quantile(values, percent / 100) for percent in percents}


def progress(text: str) -> None:
    """Say on a terminal what is happening; an empty text wipes the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
