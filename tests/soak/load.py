"""The tasks of a soak: the load, the changes and the samples of one supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import random
import time
import traceback
from array import array
from typing import TYPE_CHECKING, Any

from miniλ import journal
from miniλ.errors import LambdaError
from miniλ.model import MB

from .mix import ABUSES, CHANGING, EVENTS_SHARE, FUNCTIONS, IN_BACKGROUND, VARYING, WORKS
from .premises import Premises
from .report import progress
from .verdicts import IN_USE, judge

if TYPE_CHECKING:
    from pathlib import Path

    import miniλ

    from .results import Result

CONCURRENCY = 4
WARM_UP_SHARE, WARM_UP_MOST = 0.2, 60.0
# Seconds between two updates, deletions or kills of the zygote.
CHANGE_SECONDS = (8.0, 12.0)
# Seconds from the death of a zygote within which the deaths of its idle workers are known. An
# invocation that began earlier may have got a dead worker.
GRACE = 0.2
# Seconds that an answer, or the end of a worker, may take; and then the return of its leases.
PATIENCE, PUT_AWAY = 30.0, 10.0
# The number of failures and troubles whose text is kept, in all and of each kind.
KEPT, KEPT_OF_A_KIND = 30, 3


class Soak:
    """The load, the changes and the samples of one supervisor."""

    def __init__(self, supervisor: miniλ.Supervisor, result: Result, directory: Path) -> None:
        self._supervisor = supervisor
        self._result = result
        self._directory = directory
        self._random = random.Random(result.seed)
        self.premises = Premises(supervisor)
        self._began = time.monotonic()
        self._end = 0.0
        # When the zygote, or a function, was last missing: (from, until).
        self._zygote = (0.0, 0.0)
        self._deleted: dict[str, tuple[float, float]] = {}
        # The versions of `changing` whose update has begun, and whose update has ended.
        self._begun = self._done = 0
        self._last_fact = 0.0
        self._living: set[str] = set()

    async def run(self) -> None:
        """Warm up, measure idle, apply the load, measure idle again, and judge."""
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
        self._result.rows = judge(self._result, before, after, loaded)

    # Functions

    def _write(self, version: int) -> Path:
        """Write the code of a version of `changing`; each version is another package."""
        directory = self._directory / f"changing-{version}"
        directory.mkdir(exist_ok=True)
        (directory / "app.py").write_text(CHANGING.format(version=version), encoding="utf-8")
        return directory

    async def _create(self, name: str) -> None:
        """Create a function of the mix with its first configuration."""
        create = self._supervisor.create_function
        if name in ABUSES:
            await create(name, FUNCTIONS / "abuse", f"app.{name}", **ABUSES[name].options)
            return
        work = WORKS[name]
        code = FUNCTIONS / work.code if work.code else self._write(self._done)
        await create(name, code, "app.handler", memory_size=work.memory_size, timeout=20)

    async def _create_all(self) -> None:
        """Create all functions of the mix."""
        for name in (*WORKS, *ABUSES):
            await self._create(name)
        hello = FUNCTIONS / WORKS["hello"].code
        await self._supervisor.create_function(IN_BACKGROUND, hello, "app.handler", timeout=20)

    # Load

    async def _load(self, seconds: float) -> None:
        """Invoke, change and sample for these seconds."""
        began = time.monotonic()
        self._end = began + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._invoke_on(random.Random(self._random.random())))
            group.create_task(self._change_on())
            group.create_task(self._sample_on())
        self._result.seconds += time.monotonic() - began

    async def _invoke_on(self, draw: random.Random) -> None:
        """Invoke functions one after the other; `draw` chooses them."""
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
        """Hand in an asynchronous event; the journal says when it is over."""
        self._result.invocations[IN_BACKGROUND] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._supervisor.invoke_async(IN_BACKGROUND, WORKS["hello"].event)
            self._result.events["accepted"] += 1
        except Exception:  # noqa: BLE001 - every event must be accepted
            self._fail(f"{IN_BACKGROUND}: an event is refused", traceback.format_exc())

    async def _abuse(self, name: str) -> None:
        """Invoke a function that misbehaves, and check that it ends in an allowed way."""
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
        """Invoke; return "answered" or the kind of failure, the answer and the log."""
        self._result.invocations[name] += 1
        try:
            async with asyncio.timeout(2 * PATIENCE):
                response = await self._supervisor.invoke(name, event, wait=PATIENCE)
        except LambdaError as exc:
            return type(exc).__name__, None, str(exc)
        except Exception as exc:  # noqa: BLE001 - a hang (TimeoutError), or our own bug
            return type(exc).__name__, None, traceback.format_exc()
        failure = response.failure
        if failure is not None:
            return failure.error_type, None, response.log
        needs_log = name in ("logging", "prints")
        return "answered", response.payload, response.log if needs_log else ""

    def _refuse(self, name: str, end: str, log: str, began: float) -> None:
        """Count an unexpected end, unless a change of ours at that time excuses it."""
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
        """Count a failure that has no excuse; keep the logs of the first KEPT."""
        result = self._result
        result.unexpected[what] += 1
        if len(result.failures) < KEPT and result.unexpected[what] <= KEPT_OF_A_KIND:
            result.failures.append((what, time.monotonic() - self._began, log[-2048:]))

    # Changes

    async def _change_on(self) -> None:
        """Make a change every CHANGE_SECONDS: each kind once, in random order, then again."""
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
        """Update the code of `changing`; later invocations must run the new version."""
        self._begun += 1
        await self._supervisor.update_function_code("changing", self._write(self._begun))
        self._done = self._begun

    async def _update_configuration(self) -> None:
        """Change the memory size of a random function."""
        name = self._random.choice(list(WORKS))
        size = WORKS[name].memory_size + self._random.choice([0, 64, 128])
        await self._supervisor.update_function_configuration(name, memory_size=size)

    async def _delete(self) -> None:
        """Delete a random function and create it again."""
        name = self._random.choice([*WORKS, *ABUSES])
        began = time.monotonic()
        self._deleted[name] = (began, math.inf)
        await self._supervisor.delete_function(name)
        await asyncio.sleep(0.2)
        await self._create(name)
        self._deleted[name] = (began, time.monotonic())

    async def _kill_zygote(self) -> None:
        """Kill the zygote; all of its workers die with it."""
        facts = self._supervisor.journal
        pid = facts.story(journal.ZygoteStarted)[-1].pid
        began = time.monotonic()
        self._zygote = (began, math.inf)
        os.kill(pid, 9)
        async with asyncio.timeout(PATIENCE):
            await facts.until(journal.ZygoteDied, lambda fact: fact.pid == pid)
        self._zygote = (began, time.monotonic() + GRACE)

    # Samples

    async def _sample_on(self) -> None:
        """Take a sample once a second."""
        while time.monotonic() < self._end:
            await self._sample()
            await asyncio.sleep(1.0)

    async def _sample(self) -> dict[str, int]:
        """Take a sample, show it, and read the facts since the last one."""
        counts = await asyncio.to_thread(self.premises.count)
        self._read_facts()
        result = self._result
        at, total = time.monotonic() - self._began, result.invocations.total()
        counts["troubles"] = result.facts["Trouble"]
        for what, value in {"at": at, "invocations": total, **counts}.items():
            result.samples.setdefault(what, array("d")).append(value)
        progress(
            f"{at:,.0f} s of {result.minutes * 60:,.0f}: {total:,} invocations, "
            f"{result.unexpected.total()} unexpected, RSS {counts['RSS'] / MB:.1f} MB, "
            f"{counts['processes']} processes"
        )
        return counts

    def _read_facts(self) -> None:
        """Count the new facts of the journal, and keep the set of living workers."""
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
                case journal.EventEnded(condition=condition):
                    self._result.events[condition] += 1
                case journal.Trouble(what=what) if len(self._result.troubles) < KEPT:
                    self._result.troubles.append(what)

    async def _idle(self, before: dict[str, int] | None) -> dict[str, int]:
        """Delete all functions; return a sample after their workers and leases are gone.

        Waits until the counts equal those of `before`, or without it for a second without a change.
        """
        await self._work("hello")  # a cold start: the zygote, and what is kept ahead
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
            counts = await self._sample() | {"workers": len(self._living)}
            counted = {what: n for what, n in counts.items() if what not in ("RSS", *IN_USE)}
            unchanged = unchanged + 1 if counted == last else 0
            last = counted
            is_settled = unchanged >= 4 and (
                before is None or all(before[what] == n for what, n in counted.items())
            )
            if is_settled or time.monotonic() > deadline:
                return counts
            await asyncio.sleep(0.25)

    async def _end_events(self) -> None:
        """Wait until all events are over."""
        last = 0.0
        while self._supervisor.delivery.count:
            over = await self._supervisor.journal.until(
                journal.EventEnded, lambda fact, last=last: fact.at > last
            )
            last = over.at
