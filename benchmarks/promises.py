"""The promises: each one's sentence and limit, by name. A benchmark adds what it measured.

The sentences are the ones of docs/benchmarks.md and of the README, which quote them from the JSON.

Rule: a limit is a ratio against a floor of the same run, or a size in MB. A time alone depends on
the machine.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from benchmarks.report import Promise


class Bound(NamedTuple):
    """A promise that a value is at most, or at least, a limit; `sentence` has a {limit} to fill."""

    sentence: str
    side: Literal["at most", "at least"]
    limit: float
    unit: str = "x"

    @property
    def text(self) -> str:
        """The whole sentence."""
        return self.sentence.format(limit=f"{self.side} {self.limit:g}{self.unit}")

    def is_kept(self, value: float) -> bool:
        """Return whether a value is within the limit."""
        return value <= self.limit if self.side == "at most" else value >= self.limit


BOUNDS = {
    "invoke.pipe": Bound(
        "A warm `invoke` takes {limit} the time of a bare uvloop pipe with the same frames (p50)",
        "at most",
        2,
    ),
    "invoke.pool": Bound(
        "A warm `invoke` is {limit} faster than `ProcessPoolExecutor` called through asyncio (p50)",
        "at least",
        8,
    ),
    "invoke.sandbox": Bound(
        "With the whole sandbox a warm `invoke` takes {limit} the time with rlimits and cgroup "
        "alone",
        "at most",
        1.05,
    ),
    "invoke.functions": Bound(
        "With 1,000 functions registered a warm `invoke` takes {limit} the time with one",
        "at most",
        1.2,
    ),
    "throughput.pipe": Bound(
        "One call after the other reaches {limit} the calls per second of a bare uvloop pipe",
        "at least",
        0.5,
    ),
    "throughput.eight": Bound(
        "8 calls at once reach {limit} the calls per second of one at a time", "at least", 1
    ),
    "cold.root": Bound(
        "A cold start with the whole sandbox takes {limit} the time of a bare fork and handshake "
        "of a process with the same modules (p50)",
        "at most",
        6,
    ),
    "cold.landlock": Bound(
        "A cold start up to Landlock takes {limit} the time of that fork", "at most", 4
    ),
    "cold.limits": Bound(
        "A cold start with rlimits and cgroup alone takes {limit} the time of that fork",
        "at most",
        3,
    ),
    "density.worker": Bound(
        "An idle Python worker, with the init of its pid namespace, has {limit} of memory (PSS)",
        "at most",
        5,
        " MB",
    ),
    "density.supervisor": Bound("A supervisor has {limit} of memory (RSS)", "at most", 40, " MB"),
    "http.empty": Bound(
        "A warm invocation over HTTP takes {limit} the time of an empty aiohttp handler (p50)",
        "at most",
        2.5,
    ),
    "http.emulators": Bound(
        "A warm invocation over HTTP takes {limit} the time of the fastest Lambda emulator (p50)",
        "at most",
        0.5,
    ),
    "http.eight": Bound(
        "8 connections reach {limit} the calls per second of an empty aiohttp handler",
        "at least",
        0.5,
    ),
    "http.idle": Bound(
        "1,000 idle connections add {limit} to the memory of the server (RSS)",
        "at most",
        20,
        " MB",
    ),
    "http.create": Bound(
        "CreateFunction with a zip of 40 MB takes {limit} the time of `unzip` and `sync`",
        "at most",
        2,
    ),
    "http.update": Bound(
        "UpdateFunctionCode with a zip of 40 MB takes {limit} the time of `unzip` and `sync`",
        "at most",
        2,
    ),
    "events.accepted": Bound(
        "An asynchronous event is on disk and accepted in {limit} the time of a bare SQLite commit "
        "with a sync (p50), while others run and end",
        "at most",
        4,
    ),
    "events.over": Bound(
        "With 8 callers an asynchronous event is accepted, run and over in {limit} the time of one "
        "such commit",
        "at most",
        2,
    ),
}
# Promises whose measurement is not one number.
SENTENCES = {
    "density.left": (
        "500 workers started and stopped leave processes, descriptors, cgroups and directories as "
        "they were, and the memory of their supervisor within 4 MB"
    ),
}
NAMES = (*BOUNDS, *SENTENCES)


def bound(name: str, value: float, detail: str = "") -> Promise:
    """Return the promise of that name with its measured value and the figures behind it."""
    promise = BOUNDS[name]
    return Promise(
        promise=promise.text,
        measured=f"{value:.3g}{promise.unit}",
        kept=bool(promise.is_kept(value)),
        name=name,
        detail=detail,
    )


def checked(name: str, measured: str, *, kept: bool) -> Promise:
    """Return the promise of that name, which is kept or not, with a text of what was measured."""
    return Promise(promise=SENTENCES[name], measured=measured, kept=kept, name=name)
