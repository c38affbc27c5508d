"""Rounds: contestants take turns in one run, and a figure is the median of its rounds.

Rule 1: contestants are interleaved (A B C A B C ...). A machine that is shared, or whose scheduler
moves two processes to two cores and back, is noisy; a floor that was measured a minute earlier does
not compare.

Rule 2: if placement matters, all contestants are placed alike. Two processes on one core answer
each other several times faster than on two, and the scheduler places each pair differently: the
same floor is 7 µs in one round and 45 µs in the next. `place` holds this process and its
descendants on one core, and frees them again. miniλ reads its cores once, when it starts, so one is
started for each placement (`placed`).

Rule 3: a round begins with calls that are not counted: the worker was idle, and perhaps frozen,
during the turns of the others.

Rule 4: a peer that fails loses its row. A floor or miniλ that fails ends the run.
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
    """The size of a measurement: `rounds`, each of `calls` calls or `seconds`, the shorter one."""

    rounds: int
    calls: int
    seconds: float


class Contestant(NamedTuple):
    """One participant; `round` plays one round and returns its figures by name."""

    name: str
    round: Callable[[], Awaitable[dict[str, float]]]
    is_peer: bool = False


class Figure(msgspec.Struct, frozen=True):
    """The median of the rounds, and each round. `unit` is s, calls/s, bytes or empty."""

    unit: str
    value: float
    rounds: list[float]

    @property
    def text(self) -> str:
        """The value in the unit of its size: µs or ms, MB, or its own."""
        if self.unit == "s":
            micro = self.value < 1e-3
            return f"{self.value * 1e6:.1f} µs" if micro else f"{self.value * 1e3:.2f} ms"
        if self.unit == "bytes":
            return f"{self.value / 2**20:.2f} MB"
        return f"{self.value:,.0f} {self.unit}".strip()


class Played(NamedTuple):
    """The result of all rounds: figures by contestant and name; a note for each that failed."""

    figures: dict[str, dict[str, Figure]]
    failed: dict[str, str]

    def value(self, name: str, figure: str) -> float:
        """Return the value of one figure of one contestant."""
        return self.figures[name][figure].value

    def amounts(self, name: str, other: str, figure: str) -> str:
        """Return one figure of two contestants as text: `13.8 µs to 7.4 µs`."""
        return f"{self.figures[name][figure].text} to {self.figures[other][figure].text}"


async def play(contestants: Sequence[Contestant], rounds: int, unit: str) -> Played:
    """Let all contestants play `rounds` rounds in turn; return the medians."""
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
                figure: Figure(unit, statistics.median(series), series)
                for figure, series in figures.items()
            }
            for name, figures in values.items()
        },
        failed,
    )


def place(where: str) -> None:
    """Hold this process and its descendants on one core (`ONE_CORE`), or on all (`FREE`)."""
    cores = {max(_CORES)} if where == ONE_CORE else _CORES
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            for task in os.listdir(f"/proc/{process.pid}/task"):
                os.sched_setaffinity(int(task), cores)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile


@contextlib.contextmanager
def placed(where: str) -> Iterator[None]:
    """Start processes in this block on one core, or free; this process is free afterwards."""
    place(where)
    try:
        yield
    finally:
        place(FREE)


async def latencies(
    call: Callable[[], Awaitable[object]], effort: Effort, warm_up: int = WARM_UP
) -> list[float]:
    """Call one after the other; return the seconds of each call."""
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
    """Call all at once, each again after its answer; return calls per second."""
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
    """Return the value that a `share` of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def spread(values: Sequence[float], *percents: int) -> dict[str, float]:
    """Return the percentiles as figures of a round: p50, p99 ..."""
    return {f"p{percent}": quantile(values, percent / 100) for percent in percents}


def progress(text: str) -> None:
    """Show the current step on a terminal; an empty text clears the line."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
