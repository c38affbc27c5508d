"""This module is the soak: one supervisor under load and abuse, and what must not grow meanwhile.

    python -m tests.soak --minutes N [--seed S] [--json FILE] [--sandbox LEVEL] [--chaos 0.01]

Theory of operation: four tasks invoke functions that work, and now and then one that misbehaves, or
give a function an asynchronous event, of which none may be lost;
another one updates, deletes and creates functions and kills the zygote; another one looks at the
process from outside, once a second. Exit code 0 if all verdicts hold, 1 if not, 130 on Ctrl-C.

Rule 1: idle is compared to idle. What is kept ahead (groups, volumes, a forked child) is there in
both, so after the warm-up and at the end all functions are deleted, and what is left must be equal.

Rule 2: every answer is judged. A function that works may fail only by what was done to it in that
moment: Sandbox.Failure while a zygote dies, ResourceNotFound while it is deleted. An update is no
excuse: running invocations end on the old version. Abuses are each a function of their own.

Rule 3: what is bounded is full before it is measured: the journal is filled to what it remembers.

Rule 4: nothing of the soak's own grows but counters and samples, 8 bytes for each figure: 0.3 MB in
an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import hashlib
import math
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import traceback
from array import array
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import psutil

import miniλ
from miniλ import journal
from miniλ.errors import LambdaError
from miniλ.model import MB
from miniλ.sandbox import levels, processes
from miniλ.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping

FUNCTIONS = Path(__file__).parent / "functions"
CONCURRENCY = 4
WARM_UP_SHARE, WARM_UP_MOST = 0.2, 60.0
# Between two updates, deletions or kills of the zygote.
CHANGE_SECONDS = (8.0, 12.0)
# An idle worker's death is known so long after its zygote's. What fails later had a dead worker.
GRACE = 0.2
# How long an answer or the end of a worker may take, and then the return of what it leased.
PATIENCE, PUT_AWAY = 30.0, 10.0
# The RSS may grow by so much from idle to idle. It holds what allocators keep free for later, and
# that grows for hours, ever more slowly, with each log and large answer that falls elsewhere.
RSS_BOUND = 10 * MB
# So what is in use is counted as well, and that is exact: blocks of Python's allocator, and what of
# malloc's is not free. From idle to idle it may grow by so much, which is 1 or 2 bytes for each
# invocation of 20 minutes. Under load, where it also goes up and down with workers and answers, by
# three times that, in an hour or in a run that is shorter: half a block for each of a minute's.
IN_USE = {"Python blocks": 10_000, "malloc in use, kB": 1024}
UNDER_LOAD = 3
WINDOW = 5
# Failures and troubles of which the text is kept, and of each kind.
KEPT, KEPT_OF_A_KIND = 30, 3


class Work(NamedTuple):
    """A function that works: `weight` in the mix, an event and what it must answer."""

    code: str
    weight: int
    memory_size: int
    event: Any
    answer: Any


PIECES = b"".join(number.to_bytes(4, "big") * 65536 for number in range(4))
WORKS = {
    "hello": Work("hello", 40, 128, {"name": "Ada"}, {"message": "Hello, Ada!"}),
    "logging": Work("logging_app", 15, 256, {}, {"level": "WARNING"}),
    "disk": Work(
        "disk_load",
        8,
        512,
        {"mb": 1},
        {"bytes": MB, "sha256": hashlib.sha256(PIECES).hexdigest()},
    ),
    "cpu": Work("cpu_load", 8, 1024, {"operation": "primes", "n": 5000}, {"result": 669}),
    "processes": Work(
        "many_processes",
        1,
        1769,
        {"numbers": [2, 3]},
        {"squares": [4, 9], "processes": 3, "exit_codes": [0, 0], "subprocess": "processes 42"},
    ),
    "changing": Work("", 15, 192, {}, None),
}
# It is given asynchronous events, this share of all invocations, and is never deleted.
IN_BACKGROUND, EVENTS_SHARE = "in_background", 0.02
# Its code is written anew for each version.
CHANGING = "def handler(event, context):\n    return {version}\n"
# Where it lay and beside what: a worker that died with its zygote leaves a file.
VARYING = frozenset({"directory", "beside"})


class Abuse(NamedTuple):
    """A function that misbehaves: how an invocation of it may end, and what it is given."""

    ends: frozenset[str]
    options: dict[str, Any]


def _abuse(*ends: str, **options: Any) -> Abuse:
    """Return an abuse; half a GB is a third of a CPU, so that it comes to its end."""
    return Abuse(frozenset(ends), {"memory_size": 512, "timeout": 20, **options})


OUT_OF_MEMORY = ("MemoryError", "Runtime.ExitError")
# By the handler's name in functions/abuse.
ABUSES = {
    "exits": _abuse("Runtime.ExitError"),
    "kills_itself": _abuse("Runtime.ExitError"),
    "segfaults": _abuse("Runtime.ExitError"),
    "raises": _abuse("ValueError"),
    "sleeps": _abuse("Sandbox.Timedout", timeout=1),
    "eats_private": _abuse(*OUT_OF_MEMORY, memory_size=128),
    "eats_shared": _abuse(*OUT_OF_MEMORY, memory_size=128),
    # Its worker ends with each answer, else daemons would add up to the process limit.
    "leaves_children": _abuse("answered left", keep_alive=0),
    # On a tmpfs it is memory that is full first; where /tmp is a directory, a look ends it.
    "fills_tmp": _abuse("answered No space left on device", "Runtime.ExitError"),
    "prints": _abuse("answered printed"),
    "garbles": _abuse("Runtime.TruncatedResponse"),
    "answers_hugely": _abuse("Function.ResponseSizeTooLarge"),
    "closes_all": _abuse("Runtime.ExitError", "Runtime.TruncatedResponse"),
}


class Row(msgspec.Struct, frozen=True):
    """A verdict: what, how much at the beginning and at the end, and whether that holds."""

    what: str
    begin: str
    end: str
    holds: bool


class Result(msgspec.Struct, kw_only=True):
    """All that a soak found; the JSON is this."""

    where: str
    minutes: float
    seed: int
    chaos: float
    limits: dict[str, str] = {}
    seconds: float = 0.0
    invocations: Counter[str] = msgspec.field(default_factory=Counter)
    changes: Counter[str] = msgspec.field(default_factory=Counter)
    # How invocations ended that we disturbed ourselves, and how the abuses did.
    excused: Counter[str] = msgspec.field(default_factory=Counter)
    abuses: dict[str, Counter[str]]
    unexpected: Counter[str] = msgspec.field(default_factory=Counter)
    # The first ones: what, when, log.
    failures: list[tuple[str, float, str]] = []
    # Asynchronous events: accepted, and over by how they ended.
    events: Counter[str] = msgspec.field(default_factory=Counter)
    facts: Counter[str] = msgspec.field(default_factory=Counter)
    troubles: list[str] = []
    rows: list[Row] = []
    samples: dict[str, array[float]] = {}


class Premises:
    """What a supervisor has on this machine, seen from outside, also once it is closed."""

    def __init__(self, supervisor: miniλ.Supervisor) -> None:
        state = supervisor._state
        self.instance = state.instance
        self.path = os.path.realpath(state.path)
        document = (state.path / "instance.json").read_bytes()
        self.groups: list[str] = msgspec.json.decode(document)["groups"]
        self._process = psutil.Process()

    def look(self) -> dict[str, int]:
        """Count; reads /proc and /sys for some milliseconds, so it belongs into a thread."""
        return {
            "RSS": self._process.memory_info().rss,
            **_in_use(),
            "descriptors": len(self.descriptors()),
            "cgroups": len(self.cgroups()),
            "mounts": len(self.mounts()),
            "loop devices": len(self.loops()),
            "entries of tmp": len(_listed(f"{self.path}/tmp")),
            "packages": len(_listed(f"{self.path}/code")),
            "processes": len(self._process.children(recursive=True)),
        }

    def left(self) -> list[str]:
        """Name what is there of a supervisor that has closed."""
        found = [*self.cgroups(), *self.mounts(), *self.loops()]
        found += [f"process {pid}" for pid in processes.marked(self.instance)]
        found += [repr(child) for child in self._process.children(recursive=True)]
        return found + [self.path] * os.path.exists(self.path)

    def descriptors(self) -> list[str]:
        """Return what is open here, but for a file of each spare group that has been used."""
        found = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own
                target = os.readlink(f"/proc/self/fd/{name}")
                if not (target.startswith(tuple(self.groups)) and os.path.exists(target)):
                    found.append(target)
        return found

    def cgroups(self) -> list[str]:
        """Return the directories of all groups, the supervisor's own included."""
        return [path for group in self.groups for path, _, _ in os.walk(group)]

    def mounts(self) -> list[str]:
        """Return the mount points in the state directory, as we and as our zygotes see them."""
        points = []
        for pid in ("self", *(child.pid for child in self._process.children())):
            with contextlib.suppress(OSError):  # gone meanwhile
                lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
                points += [line.split(" ")[4] for line in lines]
        return [point for point in points if point.startswith(f"{self.path}/")]

    def loops(self) -> list[str]:
        """Return the loop devices that are bound to a file in the state directory."""
        found = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # let go meanwhile
                if file.read_text(encoding="utf-8").startswith(f"{self.path}/"):
                    found.append(f"/dev/{file.parts[3]}")
        return found


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h: mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _in_use() -> dict[str, int]:
    """Return what this process has allocated and not freed; malloc's only where glibc says it."""
    found = {"Python blocks": sys.getallocatedblocks()}
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is not None:
        mallinfo.restype = _Mallinfo
        info = mallinfo()
        found["malloc in use, kB"] = (info.uordblks + info.hblkhd) // 1024
    return found


def _listed(path: str) -> list[str]:
    """List a directory; one that is gone has nothing in it."""
    return os.listdir(path) if os.path.isdir(path) else []


class Soak:
    """The load, the changes and the looks at one supervisor."""

    def __init__(self, supervisor: miniλ.Supervisor, result: Result, scratch: Path) -> None:
        self._supervisor = supervisor
        self._result = result
        self._scratch = scratch
        self._random = random.Random(result.seed)
        self.premises = Premises(supervisor)
        self._began = time.monotonic()
        self._end = 0.0
        # When what was lost last: (from, until).
        self._zygote = (0.0, 0.0)
        self._deleted: dict[str, tuple[float, float]] = {}
        # The version of `changing`: whose update has begun, and whose is over.
        self._begun = self._done = 0
        self._last_fact = 0.0
        self._living: set[str] = set()

    async def run(self) -> None:
        """Warm up, be idle, bear the load, be idle, and judge."""
        for _ in range(journal.REMEMBERED):
            name = os.urandom(16).hex()
            self._supervisor.journal.record(journal.WorkerStopped(worker_id=name, reason="filled"))
        self._last_fact = time.monotonic()
        minutes = self._result.minutes
        warm_up = min(minutes * 60 * WARM_UP_SHARE, WARM_UP_MOST)
        await self._create_all()
        for name in ABUSES:
            await self._abuse(name)
        await self._load(warm_up)
        before = await self._idle(None)
        first = len(self._result.samples["at"])
        await self._create_all()
        await self._load(minutes * 60 - warm_up)
        loaded = {what: sample[first:] for what, sample in self._result.samples.items()}
        after = await self._idle(before)
        self._judge(before, after, loaded)

    # Functions

    def _write(self, version: int) -> Path:
        """Write the code of a version of `changing`: no two are the same package."""
        directory = self._scratch / f"changing-{version}"
        directory.mkdir(exist_ok=True)
        (directory / "app.py").write_text(CHANGING.format(version=version), encoding="utf-8")
        return directory

    async def _create(self, name: str) -> None:
        """Create one of our functions as it is at first."""
        create = self._supervisor.create_function
        if name in ABUSES:
            await create(name, FUNCTIONS / "abuse", f"app.{name}", **ABUSES[name].options)
            return
        work = WORKS[name]
        code = FUNCTIONS / work.code if work.code else self._write(self._done)
        await create(name, code, "app.handler", memory_size=work.memory_size, timeout=20)

    async def _create_all(self) -> None:
        """Create all of our functions."""
        for name in (*WORKS, *ABUSES):
            await self._create(name)
        hello = FUNCTIONS / WORKS["hello"].code
        await self._supervisor.create_function(IN_BACKGROUND, hello, "app.handler", timeout=20)

    # Load

    async def _load(self, seconds: float) -> None:
        """Invoke, change and look for so long."""
        began = time.monotonic()
        self._end = began + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._invoke_on(random.Random(self._random.random())))
            group.create_task(self._change_on())
            group.create_task(self._look_on())
        self._result.seconds += time.monotonic() - began

    async def _invoke_on(self, draw: random.Random) -> None:
        """Invoke one after the other; `draw` says what."""
        names, weights = list(WORKS), [work.weight for work in WORKS.values()]
        while time.monotonic() < self._end:
            if draw.random() < self._result.chaos:
                await self._abuse(draw.choice(list(ABUSES)))
            elif draw.random() < EVENTS_SHARE:
                await self._accept()
            else:
                await self._work(draw.choices(names, weights)[0])

    async def _work(self, name: str) -> None:
        """Invoke a function that works, and check its answer."""
        began, done = time.monotonic(), self._done
        end, answer, log = await self._invoke(name, WORKS[name].event)
        if end != "answered":
            self._refuse(name, end, log, began)
            return
        if isinstance(answer, dict):
            answer = {key: value for key, value in answer.items() if key not in VARYING}
        if name == "changing":
            right = answer in range(done, self._begun + 1)
        else:
            right = answer == WORKS[name].answer
        if name == "logging":
            right = right and "order 7 is lost" in log
        if not right:
            self._refuse(name, f"answered {answer!r}"[:200], log, began)

    async def _accept(self) -> None:
        """Have an event accepted; that it is over is a fact."""
        self._result.invocations[IN_BACKGROUND] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._supervisor.invoke_async(IN_BACKGROUND, WORKS["hello"].event)
            self._result.events["accepted"] += 1
        except Exception:  # noqa: BLE001 - none may be refused
            self._fail(f"{IN_BACKGROUND}: an event is refused", traceback.format_exc())

    async def _abuse(self, name: str) -> None:
        """Invoke a function that misbehaves, and check that it ended in a way it may."""
        began = time.monotonic()
        end, answer, log = await self._invoke(name, {})
        if end == "answered":
            end = f"answered {answer}"[:60]
        self._result.abuses[name][end] += 1
        if end == "answered printed" and not ("bytes of log left out" in log and len(log) < 2 * MB):
            end += ", and the log was not cut"
        if end not in ABUSES[name].ends:
            self._refuse(name, end, log, began)

    async def _invoke(self, name: str, event: Any) -> tuple[str, Any, str]:
        """Invoke; return "answered" or what went wrong, the answer and the log."""
        self._result.invocations[name] += 1
        try:
            async with asyncio.timeout(2 * PATIENCE):
                response = await self._supervisor.invoke(name, event, wait=PATIENCE)
        except LambdaError as exc:
            return type(exc).__name__, None, str(exc)
        except Exception as exc:  # noqa: BLE001 - a hang (TimeoutError), or a bug of ours
            return type(exc).__name__, None, traceback.format_exc()
        failure = response.failure
        if failure is not None:
            return failure.error_type, None, response.log
        needs_log = name in ("logging", "prints")
        return "answered", response.payload, response.log if needs_log else ""

    def _refuse(self, name: str, end: str, log: str, began: float) -> None:
        """Count what should not have been, unless what we did at that time excuses it."""
        excuses = {
            "Sandbox.Failure": self._zygote,
            "ResourceNotFound": self._deleted.get(name, (0.0, 0.0)),
        }
        since, until = excuses.get(end, (0.0, 0.0))
        if since <= time.monotonic() and began <= until:
            self._result.excused[end] += 1
            return
        self._fail(f"{name}: {end}", log)

    def _fail(self, what: str, log: str) -> None:
        """Count what nothing excuses, and keep the log of the first ones."""
        result = self._result
        result.unexpected[what] += 1
        if len(result.failures) < KEPT and result.unexpected[what] <= KEPT_OF_A_KIND:
            result.failures.append((what, time.monotonic() - self._began, log[-2048:]))

    # Changes

    async def _change_on(self) -> None:
        """Change something every ten seconds or so: each kind once, in any order, then again."""
        waiting: list[str] = []
        while True:
            pause = self._random.uniform(*CHANGE_SECONDS)
            if time.monotonic() + pause > self._end:
                return
            await asyncio.sleep(pause)
            if not waiting:
                waiting = ["update_code", "update_configuration", "delete", "kill_zygote"]
                self._random.shuffle(waiting)
            kind = waiting.pop()
            self._result.changes[kind] += 1
            try:
                await getattr(self, f"_{kind}")()
            except Exception:  # noqa: BLE001 - none of them may fail
                self._fail(kind, traceback.format_exc())

    async def _update_code(self) -> None:
        """Give `changing` a new version; who is invoked when that is done sees it."""
        self._begun += 1
        await self._supervisor.update_function_code("changing", self._write(self._begun))
        self._done = self._begun

    async def _update_configuration(self) -> None:
        """Give some function more memory, or less again."""
        name = self._random.choice(list(WORKS))
        size = WORKS[name].memory_size + self._random.choice([0, 64, 128])
        await self._supervisor.update_function_configuration(name, memory_size=size)

    async def _delete(self) -> None:
        """Delete some function and create it again."""
        name = self._random.choice([*WORKS, *ABUSES])
        began = time.monotonic()
        self._deleted[name] = (began, math.inf)
        await self._supervisor.delete_function(name)
        await asyncio.sleep(0.2)
        await self._create(name)
        self._deleted[name] = (began, time.monotonic())

    async def _kill_zygote(self) -> None:
        """Kill the zygote, and with it every worker."""
        facts = self._supervisor.journal
        pid = facts.story(journal.ZygoteStarted)[-1].pid
        began = time.monotonic()
        self._zygote = (began, math.inf)
        os.kill(pid, 9)
        async with asyncio.timeout(PATIENCE):
            await facts.until(journal.ZygoteDied, lambda fact: fact.pid == pid)
        self._zygote = (began, time.monotonic() + GRACE)

    # Looks

    async def _look_on(self) -> None:
        """Look once a second."""
        while time.monotonic() < self._end:
            await self._look()
            await asyncio.sleep(1.0)

    async def _look(self) -> dict[str, int]:
        """Take a sample, show it, and read the facts since the last one."""
        found = await asyncio.to_thread(self.premises.look)
        self._read_facts()
        result = self._result
        at, total = time.monotonic() - self._began, result.invocations.total()
        found["troubles"] = result.facts["Trouble"]
        for what, value in {"at": at, "invocations": total, **found}.items():
            result.samples.setdefault(what, array("d")).append(value)
        _progress(
            f"{at:,.0f} s of {result.minutes * 60:,.0f}: {total:,} invocations, "
            f"{result.unexpected.total()} unexpected, RSS {found['RSS'] / MB:.1f} MB, "
            f"{found['processes']} processes"
        )
        return found

    def _read_facts(self) -> None:
        """Count the facts that are new, and know from them which workers live."""
        new: list[journal.Fact] = []
        for fact in reversed(self._supervisor.journal.facts):
            if fact.at <= self._last_fact:
                break
            new.append(fact)
        for fact in reversed(new):
            self._last_fact = fact.at
            self._result.facts[type(fact).__name__] += 1
            match fact:
                case journal.WorkerStarted(worker_id=worker_id):
                    self._living.add(worker_id)
                case journal.WorkerExited(worker_id=worker_id):
                    self._living.discard(worker_id)
                case journal.EventOver(condition=condition):
                    self._result.events[condition] += 1
                case journal.Trouble(what=what) if len(self._result.troubles) < KEPT:
                    self._result.troubles.append(what)

    async def _idle(self, before: dict[str, int] | None) -> dict[str, int]:
        """Delete all functions; return how it is when their workers are gone and all is put away.

        If we were like that before, wait to be so again; else for a second without a change.
        """
        await self._work("hello")  # so that there is a zygote, and what a cold start keeps ahead
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._end_events()
        for function in self._supervisor.list_functions():
            await self._supervisor.delete_function(function.name)
        self._read_facts()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for worker_id in list(self._living):
                    await self._supervisor.journal.until(
                        journal.WorkerExited, lambda fact, own=worker_id: fact.worker_id == own
                    )
        self._read_facts()
        gc.collect()
        deadline, unchanged, last = time.monotonic() + PUT_AWAY, 0, {}
        while True:
            found = await self._look() | {"workers": len(self._living)}
            counted = {what: n for what, n in found.items() if what not in ("RSS", *IN_USE)}
            unchanged = unchanged + 1 if counted == last else 0
            last = counted
            is_settled = unchanged >= 4 and (
                before is None or all(before[what] == n for what, n in counted.items())
            )
            if is_settled or time.monotonic() > deadline:
                return found
            await asyncio.sleep(0.25)

    async def _end_events(self) -> None:
        """Wait until all events are over."""
        last = 0.0
        while self._supervisor.delivery.count:
            over = await self._supervisor.journal.until(
                journal.EventOver, lambda fact, last=last: fact.at > last
            )
            last = over.at

    # Verdicts

    def _judge(
        self, before: dict[str, int], after: dict[str, int], loaded: dict[str, array[float]]
    ) -> None:
        """Compare idle to idle, and fit lines to what is in use under load (least squares).

        Through the least of each WINDOW: what a log or a large answer takes for a moment is not
        growth.
        """
        rows = self._result.rows = [
            Row(
                f"RSS, MB: at most {RSS_BOUND / MB:.0f} more",
                f"{before['RSS'] / MB:.1f}",
                f"{after['RSS'] / MB:.1f}",
                after["RSS"] - before["RSS"] <= RSS_BOUND,
            )
        ]
        at = loaded["at"]
        starts = range(0, len(at) - WINDOW + 1, WINDOW)
        for what in IN_USE.keys() & after.keys():
            bound = IN_USE[what]
            more = after[what] - before[what]
            rows.append(
                Row(
                    f"{what}: at most {bound:,} more",
                    f"{before[what]:,}",
                    f"{after[what]:,}",
                    more <= bound,
                )
            )
            least = [min(loaded[what][first : first + WINDOW]) for first in starts]
            line = statistics.linear_regression([at[first] for first in starts], least)
            grown = line.slope * min(3600.0, at[-1] - at[0])
            rows.append(
                Row(
                    f"{what}: under load at most {bound * UNDER_LOAD:,} more",
                    "",
                    f"{grown:+,.0f}",
                    grown <= bound * UNDER_LOAD,
                )
            )
        for what, value in after.items():
            if what not in ("RSS", *IN_USE, "troubles", "workers"):
                rows.append(
                    Row(f"{what}: equal", str(before[what]), str(value), value == before[what])
                )
        for what, count in {
            "workers of deleted functions": before["workers"] + after["workers"],
            "accepted events that did not end well": (
                self._result.events["accepted"] - self._result.events["Success"]
            ),
            "troubles in the journal": self._result.facts["Trouble"],
            "unexpected failures": self._result.unexpected.total(),
        }.items():
            rows.append(Row(f"{what}: none", "", str(count), not count))


# Printing


def _progress(text: str) -> None:
    """Overwrite the line of a terminal; elsewhere, say nothing until the end."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:<100}")
        sys.stderr.flush()


def _table(*lines: list[str]) -> str:
    """Align columns below a head: numbers to the right, the first and the last to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for first, *middle, last in lines:
        cells = [cell.rjust(width) for cell, width in zip(middle, widths[1:], strict=False)]
        text.append("  ".join([first.ljust(widths[0]), *cells, last]))
    text.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def _listing(counts: Mapping[str, int]) -> str:
    """Return counts as a part of a sentence."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"


def _show(result: Result) -> str:
    """Return the report for a reader."""
    held = "; ".join(f"{what} {result.limits[what]}" for what in ("memory", "tmp", "files"))
    rows = [
        [row.what, row.begin, row.end, "holds" if row.holds else "BROKEN"] for row in result.rows
    ]
    ends = [[name, str(ends.total()), _listing(ends)] for name, ends in result.abuses.items()]
    total = result.invocations.total()
    parts = [
        f"Soak of {result.seconds:.0f} s, seed {result.seed}; {result.where}",
        f"a worker here: {held}",
        f"{total:,} invocations, {total / result.seconds:.0f} a second: "
        + _listing({name: result.invocations[name] for name in (*WORKS, IN_BACKGROUND)}),
        f"changes: {_listing(result.changes)}; excused by them: {_listing(result.excused)}",
        "",
        _table(["what", "beginning", "end", "verdict"], *rows),
        "",
        _table(["injected", "times", "ended"], *ends),
    ]
    for what, at, log in result.failures:
        parts += ["", f"UNEXPECTED at {at:.1f} s: {what}", log.replace("\r", "\n").rstrip()]
    parts += [f"TROUBLE: {what}" for what in result.troubles]
    return "\n".join(parts)


# Running


async def _soak(result: Result, sandbox: str | None) -> None:
    """Open a supervisor, soak it, close it, and look at what is left, however it ends."""
    settings = load()
    if sandbox is not None:
        settings = msgspec.structs.replace(settings, sandbox=sandbox)
    premises = None
    try:
        with tempfile.TemporaryDirectory(prefix="minilambda-soak-") as scratch:
            async with miniλ.Supervisor(settings=settings) as supervisor:
                result.limits = supervisor.limits
                soak = Soak(supervisor, result, Path(scratch))
                premises = soak.premises
                await soak.run()
    finally:
        _progress("")
        if premises is not None:
            left = premises.left()
            result.rows.append(Row("left when closed: nothing", "", str(len(left)), not left))
            sys.stderr.writelines(f"LEFT: {what}\n" for what in left)


def main(arguments: list[str] | None = None) -> int:
    """Run the soak of the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak a supervisor.")
    parser.add_argument("--minutes", type=float, default=1.0, help="of load, warm-up included")
    parser.add_argument("--seed", type=int, default=None, help="of the mix")
    parser.add_argument("--json", metavar="FILE", help="write everything to it")
    parser.add_argument("--sandbox", choices=levels.LEVELS, help="the highest level to use")
    parser.add_argument("--chaos", type=float, default=0.01, help="the share of abuses")
    options = parser.parse_args(arguments)
    if not 0.5 <= options.minutes < math.inf or not 0 <= options.chaos <= 1:
        parser.error("--minutes must be at least 0.5, and --chaos 0 to 1")
    python, kernel = platform.python_version(), platform.release()
    result = Result(
        where=f"miniλ {miniλ.__version__}, Python {python}, Linux {kernel}",
        minutes=options.minutes,
        seed=random.randrange(2**32) if options.seed is None else options.seed,
        chaos=options.chaos,
        abuses={name: Counter() for name in ABUSES},
    )
    try:
        asyncio.run(_soak(result, options.sandbox))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; closed\n")
        return 130
    sys.stdout.write(_show(result) + "\n")
    if options.json:
        text = msgspec.json.format(msgspec.json.encode(result, enc_hook=list), indent=2)
        Path(options.json).write_bytes(text + b"\n")
    return 0 if all(row.holds for row in result.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
