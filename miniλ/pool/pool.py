"""This module is the pool: all workers, and which invocation gets which.

Theory of operation: the fast path (an idle worker of this version, nobody waiting) is one
look-up and one pop. Everything else is decided by `plan.plan`, a function of values that awaits
nothing: it is asked again after every change (a new invocation, a worker ready, an answer, an
exit), and the pool carries out what it returns. Nothing is decided anywhere else.

Who ends a worker: its keep-alive, an update of its function, memory pressure (greedy-dual, as
in FaasCache: the cheapest to make again, per MB, goes first), and `close`.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil

from miniλ import journal
from miniλ.background import Background
from miniλ.concurrency import UNRESERVED, AccountConcurrency, Concurrency
from miniλ.errors import ServiceError, SupervisorClosed, Throttled
from miniλ.model import MB
from miniλ.pool import limit_poll
from miniλ.pool.inherited_tmp import InheritedTmps
from miniλ.pool.plan import Admit, Ask, Assign, Idle, Start, Stop, plan
from miniλ.pool.versions import Version, Waiting, Worth
from miniλ.worker.lifecycle import AVAILABLE
from miniλ.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from miniλ.model import FunctionConfiguration, Invoked
    from miniλ.settings import Settings
    from miniλ.worker.equipment import Equipment, InitResult

# Idle workers are looked over this often for memory pressure.
PRESSURE_SECONDS = 10.0

RESERVED_REASON = "ReservedFunctionConcurrentInvocationLimitExceeded"
UNRESERVED_REASON = "ConcurrentInvocationLimitExceeded"


class Pool:
    """All workers of one supervisor."""

    def __init__(
        self, equipment: Equipment, collect_code: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """`collect_code` removes packages; it is run when a version has gone."""
        self._equipment = equipment
        self._collect_code = collect_code
        self._settings: Settings = equipment.settings
        self._loop = asyncio.get_running_loop()
        self.capacity = equipment.settings.concurrency or default_concurrency()
        self._workers: dict[str, Worker] = {}
        # By revision: current ones, and old ones whose invocations still run.
        self._versions: dict[str, Version] = {}
        self._current: dict[str, str] = {}
        self._shares = AccountConcurrency(self.capacity)
        self._busy: set[Worker] = set()
        self._coming: Counter[str] = Counter()
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[int, Waiting] = {}
        self._number = 0
        self._background = Background(equipment.journal, "in the background")
        self._inherited_tmps = InheritedTmps(equipment.tmp_dirs, self._lives, self._background)
        self._clock = 0.0
        self._housekeeper: asyncio.TimerHandle | None = None
        self._pressure_at = 0.0
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False
        self._make_ahead()

    def __repr__(self) -> str:
        idle = len(self._idle_workers())
        return (
            f"<Pool {len(self._busy)} busy, {idle} idle, {self._coming.total()} coming, "
            f"{len(self._waiting)} waiting>"
        )

    # Versions

    def publish(self, function: FunctionConfiguration) -> None:
        """Make this the current one of its name and version; idle workers of the last one end."""
        before = self._versions.get(self._current.get(function.qualified, ""))
        worth = Worth() if before is None else before.worth
        self._current[function.qualified] = function.revision
        share = self._shares.of(function.name)
        version = self._versions[function.revision] = Version(function, share, worth)
        if before is not None:
            before.is_current = False
            version.provisioned = before.provisioned
            self._retire(function.name)
        self._fill(version)
        self._replan()

    def withdraw(self, function: FunctionConfiguration) -> None:
        """Forget a version; its idle workers end, its busy ones when they have answered."""
        self._versions[self._current.pop(function.qualified)].is_current = False
        self._retire(function.name)

    def reserve(self, name: str, limit: int | None) -> None:
        """Let a function have so much concurrency for itself, in all its versions; None: none."""
        before = self._shares.of(name)
        self._shares.reserve(name, limit)
        share = self._shares.of(name)
        if share is before:
            self._replan()
            return
        for version in self._versions.values():
            if version.function.name == name:
                version.share = share
        self._replan()

    def provision(self, function: FunctionConfiguration, count: int) -> None:
        """Keep so many workers of a version initialised, whoever comes or not; 0 ends it."""
        version = self._versions[self._current[function.qualified]]
        version.provisioned, version.failed = count, ""
        self._fill(version)
        self._arm(self._settings.freeze_after)

    def provisioned(self, function: FunctionConfiguration) -> tuple[int, str]:
        """Return how many of a version's workers are initialised, and what its init phase said."""
        version = self._versions[self._current[function.qualified]]
        ready = [worker for worker in self._of(version) if worker.state != "starting"]
        return min(version.provisioned, len(ready)), version.failed

    def provisionable(self, function: FunctionConfiguration) -> int:
        """Return how many workers may be kept for a version: others' invocations need one."""
        current = [version for version in self._versions.values() if version.is_current]
        others = sum(v.provisioned for v in current if v.function.qualified != function.qualified)
        return max(0, self.capacity - others - 1)

    def _of(self, version: Version) -> list[Worker]:
        """Return the workers of a version that are there, or are coming."""
        revision = version.function.revision
        over = ("stopping", "gone")
        return [
            w
            for w in self._workers.values()
            if w.function.revision == revision and w.state not in over
        ]

    def _fill(self, version: Version) -> None:
        """Start what provisioned concurrency lacks; if the init phase fails, it stays short."""
        if self._closed or not version.is_current or version.failed or not version.provisioned:
            return
        outlived = self._outlived()
        if outlived > self.capacity:
            return
        missing = version.provisioned - len(self._of(version))
        for _ in range(min(missing, self.capacity - len(self._workers) + outlived)):
            self._start(version.function)

    def concurrency(self, name: str) -> int:
        """Return how many invocations of a function may run at once, with those it shares with."""
        return self._shares.of(name).limit

    def reservable(self, name: str) -> int:
        """Return the concurrency that may be reserved for a function: one must stay for others."""
        return self._shares.reservable(name)

    def code_in_use(self) -> set[str]:
        """Return the packages of current versions, and of old ones whose workers still live."""
        functions = [version.function for version in self._versions.values()]
        return {path for f in functions for path in (f.code_path, f.layers_path) if path}

    def _version(self, worker: Worker) -> Version:
        return self._versions[worker.function.revision]

    def _retire(self, name: str) -> None:
        for worker in self._idle_workers():
            if worker.function.name == name and self._is_stale(worker):
                self._stop(worker, "its function was updated or deleted")
        self._inherited_tmps.remove(lambda w: w.function.name == name and self._is_stale(w))
        self._forget_versions()

    def _forget_versions(self) -> None:
        """Forget old versions that nobody has a use for any more."""
        used = {worker.function.revision for worker in (*self._workers.values(), *self._busy)}
        used |= {waiting.function.revision for waiting in self._waiting.values()}
        gone = [r for r, v in self._versions.items() if not v.is_current and r not in used]
        for revision in gone:
            del self._versions[revision]
        if gone and not self._closed:
            self._background.start(self._collect_code())

    def _idle_workers(self) -> list[Worker]:
        return [w for v in self._versions.values() for w in v.idle if w.state in AVAILABLE]

    def _is_stale(self, worker: Worker) -> bool:
        version = self._versions.get(worker.function.revision)
        return version is None or not version.is_current

    # Invocations

    def take(self, function: FunctionConfiguration) -> Worker | None:
        """Return an idle worker at once, or None: then `wait_for` one."""
        version = self._versions.get(function.revision)
        if version is None or not version.idle or self._waiting:
            return None
        share = version.share
        if share.used >= share.limit:
            return None
        while version.idle:
            worker = version.idle.pop()
            if worker.state in AVAILABLE:
                share.used += 1
                worker.share = share
                self._occupy(worker, version)
                return worker
        return None

    def _occupy(self, worker: Worker, version: Version) -> None:
        """Count a worker as busy: for the keep-alive of its function, and to be looked after."""
        self._busy.add(worker)
        worth = version.worth
        worth.uses += 1
        worth.clock = self._clock
        if self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())

    async def wait_for(self, function: FunctionConfiguration, wait: float) -> Worker:
        """Return a worker that has been through its init phase, or whose init phase failed.

        Raises `Throttled` at once where the concurrency is used up, or after `wait` seconds
        if that is above 0; and whatever kept a worker from starting.
        """
        while True:
            worker = await self._wait_once(function, wait)
            if worker.state in AVAILABLE or worker.initialised.result().status:
                return worker
            self.release(worker)  # it died in the moment that it was handed over

    async def _wait_once(self, function: FunctionConfiguration, wait: float) -> Worker:
        if self._closed:
            raise SupervisorClosed
        share = self._versions[function.revision].share
        if share.used >= share.limit and (
            wait <= 0 or self._queue_length() >= self._settings.queue_size
        ):
            raise self._throttled(function, share)
        self._number += 1
        waiting = Waiting(self._number, function, share, self._loop.create_future())
        self._waiting[waiting.number] = waiting
        self._replan()
        if not waiting.admitted and waiting.number in self._waiting:
            late = self._loop.call_later(wait, self._give_up, waiting)
            waiting.future.add_done_callback(lambda _: late.cancel())
        try:
            return await waiting.future
        except asyncio.CancelledError:
            future = waiting.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.release(future.result())  # it was given a worker in the same moment
            raise
        finally:
            if self._waiting.pop(waiting.number, None) is not None and waiting.admitted:
                self._give_share_back(share)

    def _queue_length(self) -> int:
        return sum(not waiting.admitted for waiting in self._waiting.values())

    def _give_up(self, waiting: Waiting) -> None:
        if not waiting.admitted and not waiting.future.done():
            waiting.future.set_exception(self._throttled(waiting.function, waiting.share))

    def _throttled(self, function: FunctionConfiguration, share: Concurrency) -> Throttled:
        reason = UNRESERVED_REASON if share.name == UNRESERVED else RESERVED_REASON
        self._equipment.journal.record(
            journal.InvocationThrottled(function=function.name, reason=reason)
        )
        return Throttled(reason)

    def note(self, invoked: Invoked) -> None:
        """Record an invocation that ended before any worker had it."""
        self._equipment.journal.record(invoked)

    def release(self, worker: Worker) -> None:
        """Take a worker back whose invocation is over, whatever became of it."""
        self._busy.discard(worker)
        function = worker.function
        version = self._versions[function.revision]
        worker.share.used -= 1
        if worker.state == "idle":
            if self._closed or not version.is_current:
                worker.stop("its function was updated or deleted")
            elif function.keep_alive == 0:
                worker.stop("its keep-alive is 0")
            else:
                version.idle.append(worker)
                if self._housekeeper is None:
                    self._housekeeper = self._loop.call_later(
                        self._settings.freeze_after, self._keep_house
                    )
        elif worker.keeps_tmp:
            self._keep_tmp(worker)
        if self._waiting:
            self._replan()

    def _give_share_back(self, share: Concurrency) -> None:
        share.used -= 1
        if self._waiting:
            self._replan()

    # Plan and carry out

    def _outlived(self) -> int:
        """Return how many workers have outlived their SIGKILL.

        They take no room of others, or concurrency would not be what is reserved. But they keep
        their memory: where they are more than may live, no more are started.
        """
        return sum(worker.outlived.done() for worker in self._workers.values())

    def _replan(self) -> None:
        if not self._waiting or self._closed:
            return
        outlived = self._outlived()
        actions = plan(
            [
                Ask(
                    item.number,
                    item.function.revision,
                    item.share.name,
                    item.admitted,
                )
                for item in self._waiting.values()
                if not item.future.done()
            ],
            [
                Idle(worker.worker_id, worker.function.revision, self._priority(worker))
                for worker in self._idle_workers()
            ],
            self._coming,
            self.capacity - len(self._workers) + outlived,
            self._shares.free(),
            sum(w.state in ("stopping", "gone") for w in self._workers.values()) - outlived,
        )
        for action in actions:
            match action:
                case Admit(number):
                    waiting = self._waiting[number]
                    waiting.admitted = True
                    waiting.share.used += 1
                case Assign(number, worker_id):
                    worker = self._workers[worker_id]
                    self._version(worker).idle.remove(worker)
                    self._hand_over(worker, self._waiting[number])
                case Stop(worker_id, reason):
                    self._evict(self._workers[worker_id], reason)
                case Start(number) if outlived > self.capacity:
                    error = ServiceError(f"{outlived} workers do not die; no more are started")
                    self._waiting[number].future.set_exception(error)
                case Start(number):
                    self._start(self._waiting[number].function)

    def _hand_over(self, worker: Worker, waiting: Waiting) -> None:
        del self._waiting[waiting.number]
        worker.share = waiting.share
        self._occupy(worker, self._version(worker))
        waiting.future.set_result(worker)

    # Lives of workers

    def _start(self, function: FunctionConfiguration) -> None:
        worker = Worker(self._equipment, function, self.release, self._settings.init_timeout)
        self._coming[function.revision] += 1
        self._live(worker)
        worker.initialised.add_done_callback(lambda future: self._initialised(worker, future))

    def restart(self, failed: Worker, timeout: float) -> Worker:
        """Start a worker in place of one whose init phase failed, for the same invocation."""
        worker = Worker(self._equipment, failed.function, self.release, timeout, phase="invoke")
        self._busy.discard(failed)
        worker.share = failed.share
        self._occupy(worker, self._version(worker))
        self._keep_tmp(failed)
        self._live(worker)
        return worker

    def _live(self, worker: Worker) -> None:
        self._workers[worker.worker_id] = worker
        task = self._loop.create_task(self._inherited_tmps.live(worker))
        self._lives[worker.worker_id] = task
        task.add_done_callback(lambda task: self._gone(worker, task))
        outlives = functools.partial(self._make_up, worker.function.revision)
        worker.outlived.add_done_callback(outlives)

    def _make_up(self, revision: str, _outlived: asyncio.Future[None]) -> None:
        """A worker does not die: whoever waited for its room has room now."""
        version = self._versions.get(revision)
        if version is not None:
            self._fill(version)
        self._replan()

    def _initialised(self, worker: Worker, future: asyncio.Future[InitResult]) -> None:
        """The init phase is over: whoever waits longest for this version gets the worker."""
        function = worker.function
        self._coming[function.revision] -= 1
        error = future.exception()
        if error is None and worker.state == "idle":
            version = self._version(worker)
            version.failed = ""
            version.worth.cold_seconds = worker.initialised.result().seconds
            version.idle.append(worker)
            worker.idle_since = time.monotonic()
            self._arm(self._settings.freeze_after)
            # Not now: somebody waits for this worker.
            self._loop.call_later(0.001, self._after_cold_start, function.ephemeral_storage)
        else:
            self._version(worker).failed = "FUNCTION_ERROR_INIT_FAILURE"
            waiting = next(
                (
                    w
                    for w in self._waiting.values()
                    if w.admitted
                    and w.function.revision == function.revision
                    and not w.future.done()
                ),
                None,
            )
            if waiting is None:
                if worker.keeps_tmp:
                    self._keep_tmp(worker)
            elif error is None:
                # The invocation repeats the init phase, and hears how that went.
                self._hand_over(worker, waiting)
            else:
                waiting.future.set_exception(error)
        self._replan()
        version = self._version(worker)
        if not version.is_current and worker in version.idle:
            # Updated or deleted while it started, and nobody waited for it any more.
            self._stop(worker, "its function was updated or deleted")

    def _gone(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self._workers.pop(worker.worker_id, None)
        self._lives.pop(worker.worker_id, None)
        self._coming += Counter()  # drop the zeros
        version = self._version(worker)
        if worker in version.idle:
            version.idle.remove(worker)  # it died while it was idle
        if not version.is_current:
            self._forget_versions()
        self._fill(version)
        if not task.cancelled() and task.exception() is not None:
            what = f"{worker!r}: {task.exception()!r}"
            self._equipment.journal.record(journal.Trouble(what=what))
        self._replan()

    def _keep_tmp(self, worker: Worker) -> None:
        if self._closed or self._is_stale(worker):
            self._inherited_tmps.discard(worker)
            return
        self._inherited_tmps.add(worker)
        self._arm(worker.function.keep_alive)

    def _stop(self, worker: Worker, reason: str) -> None:
        self._version(worker).idle.remove(worker)
        worker.stop(reason)

    def _evict(self, worker: Worker, reason: str) -> None:
        if not self._version(worker).provisioned:
            self._clock = max(self._clock, self._priority(worker))
        self._stop(worker, reason)

    def _priority(self, worker: Worker) -> float:
        version = self._version(worker)
        if version.provisioned:
            return math.inf
        worth = version.worth
        return worth.clock + worth.uses * worth.cold_seconds / worker.function.memory_size

    # Housekeeping

    def _arm(self, seconds: float) -> None:
        if self._closed:
            return
        if self._housekeeper is not None:
            if self._housekeeper.when() <= self._loop.time() + seconds:
                return
            self._housekeeper.cancel()
        self._housekeeper = self._loop.call_later(seconds, self._keep_house)

    def _keep_house(self) -> None:
        """Freeze who has been idle for the grace, end who has been idle for the keep-alive."""
        self._housekeeper = None
        now = time.monotonic()
        due: list[float] = []
        for worker in self._idle_workers():
            age = now - worker.idle_since
            if age >= worker.function.keep_alive and not self._is_provisioned(worker):
                self._stop(worker, "its keep-alive is over")
                continue
            if age < worker.function.keep_alive:
                due.append(worker.function.keep_alive - age)
            if worker.state == "idle":
                if age >= self._settings.freeze_after:
                    worker.freeze()
                else:
                    due.append(self._settings.freeze_after - age)
        due += self._inherited_tmps.expire(now)
        if self._idle_workers():
            if now - self._pressure_at >= PRESSURE_SECONDS:
                self._relieve_pressure()
            due.append(PRESSURE_SECONDS)
        if due:
            # A timer that fires early by rounding would only come back: give it a millisecond.
            self._arm(min(due) + 0.001)

    def _is_provisioned(self, worker: Worker) -> bool:
        version = self._version(worker)
        return version.provisioned > 0 and len(self._of(version)) <= version.provisioned

    def _after_cold_start(self, ephemeral_storage: int) -> None:
        if not self._closed:
            self._make_ahead()
            self._relieve_pressure()
            self._background.start(self._equipment.tmp_dirs.make_ahead(ephemeral_storage))

    def _relieve_pressure(self) -> None:
        """End idle workers, the cheapest first, while the host is short of memory."""
        self._pressure_at = time.monotonic()
        memory = psutil.virtual_memory()
        missing = memory.total * self._settings.memory_reserve - memory.available
        for worker in sorted(self._idle_workers(), key=self._priority):
            if missing <= 0 or self._is_provisioned(worker):
                return
            missing -= max(worker.reported_rss, MB)
            self._evict(worker, "the host is short of memory")

    def _make_ahead(self) -> None:
        """Make spare cgroups, one per turn of the loop, so that a cold start finds one ready."""
        if self._closed:
            return
        try:
            if self._equipment.hierarchy.make_ahead():
                self._loop.call_soon(self._make_ahead)
        except OSError as exc:
            self._equipment.journal.record(journal.Trouble(what=f"no cgroup can be made: {exc}"))

    async def _watch(self) -> None:
        await limit_poll.watch(self._equipment, self._busy)
        self._watcher = None

    async def close(self) -> None:
        """End every worker: idle ones now, busy ones after the grace; nothing is left after it."""
        self._closed = True
        if self._housekeeper is not None:
            self._housekeeper.cancel()
        for waiting in self._waiting.values():
            if not waiting.future.done():
                waiting.future.set_exception(SupervisorClosed())
        for worker in list(self._workers.values()):
            if worker in self._busy:
                continue  # it has its grace, also if its invocation is only about to begin
            if worker.state in ("idle", "frozen"):
                worker.stop("the supervisor closed")
            elif worker.state == "starting":
                self._lives[worker.worker_id].cancel()
        deadline = self._loop.time() + self._settings.shutdown_grace
        while self._lives and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(self._lives.values(), timeout=left)
        # Once each: who has been cancelled is burying its worker.
        for life in [life for life in self._lives.values() if not life.cancelling()]:
            life.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)
        self._inherited_tmps.remove()
        if self._watcher is not None:
            self._watcher.cancel()
        await self._background.finish()


def default_concurrency() -> int:
    """Return how many invocations may run at once: 80% of RAM in workers of 128 MB, 8 to 1000.

    Lambda's account has 1,000. Here a function that calls itself must not eat the equipment.
    """
    return max(8, min(1000, int(psutil.virtual_memory().total * 0.8) // (128 * MB)))
