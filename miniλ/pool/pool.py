"""All workers of a supervisor: leased to invocations, started when needed, ended when not.

Theory of operation: on the warm path (an idle worker of this version, and no waiter) a lease is one
look-up and one pop. Else the invocation waits. While invocations wait, `plan.plan`, a function of
values, is called after every change (a new invocation, a worker ready, an answer, an exit), and the
pool carries out what it returns. What is decided outside of it: Rule 1 of this room.

A worker ends by its keep-alive, by an update of its function, to make room, under memory pressure,
or by `close`. Which idle worker makes room or frees memory first: see `versions.GreedyDual`.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from miniλ import journal
from miniλ.background import Background
from miniλ.concurrency import UNRESERVED, AccountConcurrency, Concurrency
from miniλ.errors import ServiceError, SupervisorClosed, Throttled
from miniλ.model import MB
from miniλ.pool import capacity, limit_poll
from miniλ.pool.inherited_tmp import InheritedTmps
from miniλ.pool.plan import Admit, Assign, IdleWorker, Start, Stop, plan
from miniλ.pool.versions import GreedyDual, Version, Waiter
from miniλ.runtimes import environment
from miniλ.worker.lifecycle import AVAILABLE
from miniλ.worker.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from miniλ.model import FunctionConfiguration
    from miniλ.settings import Settings
    from miniλ.worker.equipment import Equipment
    from miniλ.worker.init_phase import InitResult

# The host's free memory is polled this often while workers are idle.
PRESSURE_SECONDS = 10.0

RESERVED_REASON = "ReservedFunctionConcurrentInvocationLimitExceeded"
UNRESERVED_REASON = "ConcurrentInvocationLimitExceeded"


class Pool:
    """All workers of one supervisor."""

    def __init__(
        self, equipment: Equipment, collect_code: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        """`collect_code` removes unused packages; it runs after a version is forgotten."""
        self._equipment = equipment
        self._collect_code = collect_code
        self._settings: Settings = equipment.settings
        self._loop = asyncio.get_running_loop()
        self.capacity = equipment.settings.concurrency or capacity.default_concurrency()
        self._workers: dict[str, Worker] = {}
        # By revision: the current ones, and old ones that a worker or a waiter still needs.
        self._versions: dict[str, Version] = {}
        self._current: dict[str, str] = {}
        self._account = AccountConcurrency(self.capacity)
        self._busy: set[Worker] = set()
        self._starting: Counter[str] = Counter()
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._waiters: dict[int, Waiter] = {}
        self._number = 0
        self._background = Background(equipment.journal, "Housekeeping of the pool failed")
        self._inherited = InheritedTmps(equipment.tmp_dirs, self._lives, self._background)
        self._clock = 0.0
        self._housekeeper: asyncio.TimerHandle | None = None
        # Whether the housekeeper is due within `freeze_after`, and not only for something later.
        self._will_freeze = False
        self._pressure_at = 0.0
        self._limit_poll: asyncio.Task[None] | None = None
        poll_failed = "The limit poll failed, and starts again with the next invocation"
        self._limit_polls = Background(equipment.journal, poll_failed)
        self._closed = False
        self._make_ahead()

    def __repr__(self) -> str:
        idle = len(self._idle_workers())
        return (
            f"<Pool {len(self._busy)} busy, {idle} idle, {self._starting.total()} starting, "
            f"{len(self._waiters)} waiting>"
        )

    # Versions

    def publish(self, function: FunctionConfiguration) -> None:
        """Make this revision current for its name and version; idle workers of the last one end."""
        before = self._versions.get(self._current.get(function.qualified, ""))
        greedy_dual = GreedyDual() if before is None else before.greedy_dual
        self._current[function.qualified] = function.revision
        concurrency = self._account.of(function.name)
        version = Version(function, concurrency, greedy_dual)
        self._versions[function.revision] = version
        if before is not None:
            before.is_current = False
            version.provisioned_target = before.provisioned_target
            self._stop_stale(function.name)
        self._fill(version)
        self._replan()

    def withdraw(self, function: FunctionConfiguration) -> None:
        """Forget a version; its idle workers end, its busy ones when they have answered."""
        self._versions[self._current.pop(function.qualified)].is_current = False
        self._stop_stale(function.name)

    def reserve(self, name: str, limit: int | None) -> None:
        """Set the reserved concurrency of a function, for all its versions; None removes it."""
        before = self._account.of(name)
        self._account.reserve(name, limit)
        concurrency = self._account.of(name)
        if concurrency is before:
            self._replan()
            return
        for version in self._versions.values():
            if version.function.name == name:
                version.concurrency = concurrency
        for waiter in self._waiters.values():
            if waiter.function.name == name and not waiter.admitted:
                waiter.concurrency = concurrency
        self._replan()

    def provision(self, function: FunctionConfiguration, count: int) -> None:
        """Keep `count` workers of a version initialised, used or not; 0 ends it."""
        version = self._versions[self._current[function.qualified]]
        version.provisioned_target, version.failure = count, ""
        self._fill(version)
        self._arm(self._settings.freeze_after)

    def provisioned_ready(self, function: FunctionConfiguration) -> tuple[int, str]:
        """Return how many provisioned workers are initialised, and why not all are, or ""."""
        version = self._versions[self._current[function.qualified]]
        ready = [worker for worker in self._live_workers(version) if worker.state != "starting"]
        return min(version.provisioned_target, len(ready)), version.failure

    def provisionable(self, function: FunctionConfiguration) -> int:
        """Return how many workers may be kept for a version: one is left for all others."""
        current = [version for version in self._versions.values() if version.is_current]
        others = sum(
            v.provisioned_target for v in current if v.function.qualified != function.qualified
        )
        return max(0, self.capacity - others - 1)

    def _live_workers(self, version: Version) -> list[Worker]:
        """Return the workers of a version that live and are not being ended."""
        revision = version.function.revision
        ending = ("stopping", "gone")
        return [
            w
            for w in self._workers.values()
            if w.function.revision == revision and w.state not in ending
        ]

    def _fill(self, version: Version) -> None:
        """Start the provisioned workers that are missing, unless an init phase of theirs failed."""
        if self._closed or not version.may_fill():
            return
        unkillable = self._unkillable()
        if unkillable > self.capacity:
            return
        missing = version.provisioned_target - len(self._live_workers(version))
        for _ in range(min(missing, self.capacity - len(self._workers) + unkillable)):
            self._start(version.function, environment.PROVISIONED)

    def concurrency(self, name: str) -> int:
        """Return the limit that a function's invocations count in: its own, or the unreserved."""
        return self._account.of(name).limit

    def reservable(self, name: str) -> int:
        """Return the concurrency that may be reserved for a function: 1 stays unreserved."""
        return self._account.reservable(name)

    def code_in_use(self) -> set[str]:
        """Return the packages of current versions, and of old ones whose workers still live."""
        functions = [version.function for version in self._versions.values()]
        return {path for f in functions for path in (f.code_path, f.layers_path) if path}

    def _version(self, worker: Worker) -> Version:
        return self._versions[worker.function.revision]

    def _stop_stale(self, name: str) -> None:
        for worker in self._idle_workers():
            if worker.function.name == name and self._is_stale(worker):
                self._stop(worker, "its function was updated or deleted")
        self._inherited.remove_of(lambda w: w.function.name == name and self._is_stale(w))
        self._forget_versions()

    def _forget_versions(self) -> None:
        """Forget old versions that no worker and no waiter needs, and remove their code."""
        used = {worker.function.revision for worker in (*self._workers.values(), *self._busy)}
        used |= {waiter.function.revision for waiter in self._waiters.values()}
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

    def lease(self, function: FunctionConfiguration) -> Worker | None:
        """Return an idle worker, or None: then `wait_for` one."""
        version = self._versions.get(function.revision)
        if version is None or not version.idle or self._waiters:
            return None
        concurrency = version.concurrency
        if concurrency.used >= concurrency.limit:
            return None
        while version.idle:
            worker = version.idle.pop()
            if worker.state in AVAILABLE:
                concurrency.used += 1
                worker.concurrency = concurrency
                self._occupy(worker, version)
                return worker
        return None

    def _occupy(self, worker: Worker, version: Version) -> None:
        """Count a worker as busy: for the priority of its function, and for the limit poll."""
        self._busy.add(worker)
        greedy_dual = version.greedy_dual
        greedy_dual.frequency += 1
        greedy_dual.clock = self._clock
        if self._limit_poll is None:
            self._limit_poll = self._limit_polls.start(self._poll_limits())

    async def wait_for(self, function: FunctionConfiguration, wait: float) -> Worker:
        """Return a worker that has been through its init phase, or whose init phase failed.

        Raises `Throttled` if the concurrency is used up: at once, or after `wait` seconds if that
        is above 0. Raises the error that kept a worker from starting.
        """
        while True:
            worker = await self._wait_once(function, wait)
            if worker.state in AVAILABLE or worker.initialised.result().status:
                return worker
            self.give_back(worker)  # it died between the hand-over and this turn of the loop

    async def _wait_once(self, function: FunctionConfiguration, wait: float) -> Worker:
        if self._closed:
            raise SupervisorClosed
        concurrency = self._versions[function.revision].concurrency
        if concurrency.used >= concurrency.limit and (
            wait <= 0 or self._queue_length() >= self._settings.queue_size
        ):
            raise self._throttled(function, concurrency)
        self._number += 1
        waiter = Waiter(self._number, function, concurrency, self._loop.create_future())
        self._waiters[waiter.number] = waiter
        self._replan()
        if not waiter.admitted and waiter.number in self._waiters:
            late = self._loop.call_later(wait, self._give_up, waiter)
            waiter.future.add_done_callback(lambda _: late.cancel())
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back(future.result())  # the hand-over came just before the cancel
            raise
        finally:
            if self._waiters.pop(waiter.number, None) is not None and waiter.admitted:
                self._give_back_concurrency(waiter.concurrency)

    def _queue_length(self) -> int:
        return sum(not waiter.admitted for waiter in self._waiters.values())

    def _give_up(self, waiter: Waiter) -> None:
        if not waiter.admitted and not waiter.future.done():
            waiter.future.set_exception(self._throttled(waiter.function, waiter.concurrency))

    def _throttled(self, function: FunctionConfiguration, concurrency: Concurrency) -> Throttled:
        reason = UNRESERVED_REASON if concurrency.name == UNRESERVED else RESERVED_REASON
        self._equipment.journal.record(
            journal.InvocationThrottled(function=function.name, reason=reason)
        )
        return Throttled(reason)

    def give_back(self, worker: Worker) -> None:
        """Take a worker back whose invocation is over: it is idle now, or it ends."""
        self._busy.discard(worker)
        function = worker.function
        version = self._versions[function.revision]
        worker.concurrency.used -= 1
        if worker.state == "idle":
            if self._closed:
                worker.stop("the supervisor closed")
            elif not version.is_current:
                worker.stop("its function was updated or deleted")
            elif function.keep_alive == 0:
                worker.stop("its keep-alive is 0")
            else:
                version.idle.append(worker)
                if not self._will_freeze:
                    self._will_freeze = True
                    self._arm(self._settings.freeze_after)
        elif worker.keeps_tmp:
            self._keep_tmp(worker)
        if self._waiters:
            self._replan()

    def give_back_later(self, worker: Worker) -> None:
        """Take a worker back, whose caller has left, when its init phase is over."""

        def give_back(_result: asyncio.Future[InitResult]) -> None:
            worker.idle_since = time.monotonic()
            self.give_back(worker)

        worker.initialised.add_done_callback(give_back)

    def _give_back_concurrency(self, concurrency: Concurrency) -> None:
        concurrency.used -= 1
        if self._waiters:
            self._replan()

    # Plan and carry out

    def _unkillable(self) -> int:
        """Return how many workers have a process that SIGKILL did not end.

        They do not count against the capacity, or less would be left than is reserved. But they
        hold memory: once there are more of them than the capacity, no worker is started.
        """
        return sum(worker.unkillable.done() for worker in self._workers.values())

    def _replan(self) -> None:
        if not self._waiters or self._closed:
            return
        unkillable = self._unkillable()
        actions = plan(
            [waiter.pending() for waiter in self._waiters.values() if not waiter.future.done()],
            [
                IdleWorker(worker.worker_id, worker.function.revision, self._priority(worker))
                for worker in self._idle_workers()
            ],
            self._starting,
            self.capacity - len(self._workers) + unkillable,
            self._account.free(),
            sum(w.state in ("stopping", "gone") for w in self._workers.values()) - unkillable,
        )
        for action in actions:
            match action:
                case Admit(number):
                    waiter = self._waiters[number]
                    waiter.admitted = True
                    waiter.concurrency.used += 1
                case Assign(number, worker_id):
                    worker = self._workers[worker_id]
                    self._version(worker).idle.remove(worker)
                    self._hand_over(worker, self._waiters[number])
                case Stop(worker_id, reason):
                    self._evict(self._workers[worker_id], reason)
                case Start(number) if unkillable > self.capacity:
                    error = ServiceError(f"{unkillable} workers do not die; no more are started")
                    self._waiters[number].future.set_exception(error)
                case Start(number):
                    self._start(self._waiters[number].function)

    def _hand_over(self, worker: Worker, waiter: Waiter) -> None:
        del self._waiters[waiter.number]
        worker.concurrency = waiter.concurrency
        self._occupy(worker, self._version(worker))
        waiter.future.set_result(worker)

    # Lives of workers

    def _start(
        self, function: FunctionConfiguration, initialization: str = environment.ON_DEMAND
    ) -> None:
        worker = Worker(
            self._equipment,
            function,
            self.give_back,
            self._settings.init_timeout,
            initialization=initialization,
        )
        self._starting[function.revision] += 1
        self._live(worker)
        worker.initialised.add_done_callback(lambda future: self._on_initialised(worker, future))

    def restart(self, failed: Worker, timeout: float) -> Worker:
        """Start a worker in place of one whose init phase failed, for the same invocation."""
        worker = Worker(
            self._equipment,
            failed.function,
            self.give_back,
            timeout,
            initialization=failed.initialization,
            repeats_init=True,
        )
        self._busy.discard(failed)
        worker.concurrency = failed.concurrency
        self._occupy(worker, self._version(worker))
        self._keep_tmp(failed)
        self._live(worker)
        return worker

    def _live(self, worker: Worker) -> None:
        self._workers[worker.worker_id] = worker
        task = self._loop.create_task(self._inherited.live(worker))
        self._lives[worker.worker_id] = task
        task.add_done_callback(lambda task: self._on_gone(worker, task))
        refill = functools.partial(self._refill, worker.function.revision)
        worker.unkillable.add_done_callback(refill)

    def _refill(self, revision: str, _unkillable: asyncio.Future[None]) -> None:
        """Start what waits for the room of a worker that does not die: it counts no more."""
        version = self._versions.get(revision)
        if version is not None:
            self._fill(version)
        self._replan()

    def _on_initialised(self, worker: Worker, future: asyncio.Future[InitResult]) -> None:
        """Give a worker whose init phase is over to the waiter of its version that came first."""
        function = worker.function
        self._starting[function.revision] -= 1
        error = future.exception()
        if error is None and worker.state == "idle":
            version = self._version(worker)
            version.failure = ""
            version.greedy_dual.cost = worker.initialised.result().seconds
            version.idle.append(worker)
            worker.idle_since = time.monotonic()
            self._arm(self._settings.freeze_after)
            # 1 ms later: an invocation waits for this worker now.
            self._loop.call_later(0.001, self._after_cold_start, function.ephemeral_storage)
        else:
            self._version(worker).failure = "FUNCTION_ERROR_INIT_FAILURE"
            waiters = self._waiters.values()
            waiter = next((w for w in waiters if w.takes_worker_of(function.revision)), None)
            if waiter is None:
                if worker.keeps_tmp:
                    self._keep_tmp(worker)
            elif error is None:
                # The invocation repeats the init phase, and is answered by how that goes.
                self._hand_over(worker, waiter)
            else:
                waiter.future.set_exception(error)
        self._replan()
        version = self._version(worker)
        if not version.is_current and worker in version.idle:
            # Its function was updated or deleted while it started, and no waiter was left.
            self._stop(worker, "its function was updated or deleted")

    def _on_gone(self, worker: Worker, task: asyncio.Task[None]) -> None:
        self._workers.pop(worker.worker_id, None)
        self._lives.pop(worker.worker_id, None)
        self._starting += Counter()  # drop the zeros
        version = self._version(worker)
        if worker in version.idle:
            version.idle.remove(worker)  # it died while it was idle
        if not version.is_current:
            self._forget_versions()
        self._fill(version)
        if not task.cancelled() and task.exception() is not None:
            # Not by `Background`, whose sentence cannot name the worker.
            what = f"{worker!r} was ended by an error, and is forgotten: {task.exception()!r}"
            self._equipment.journal.record(journal.Trouble(what=what))
        self._replan()

    def _keep_tmp(self, worker: Worker) -> None:
        if self._closed or self._is_stale(worker):
            self._inherited.remove(worker)
            return
        self._inherited.add(worker)
        self._arm(worker.function.keep_alive)

    def _stop(self, worker: Worker, reason: str) -> None:
        self._version(worker).idle.remove(worker)
        worker.stop(reason)

    def _evict(self, worker: Worker, reason: str) -> None:
        if not self._version(worker).provisioned_target:
            self._clock = max(self._clock, self._priority(worker))
        self._stop(worker, reason)

    def _priority(self, worker: Worker) -> float:
        version = self._version(worker)
        if version.provisioned_target:
            return math.inf
        return version.greedy_dual.priority(worker.function.memory_size)

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
        """Freeze workers that are idle for `freeze_after`, end those idle for their keep-alive."""
        self._housekeeper, self._will_freeze = None, False
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
                    self._will_freeze = True
        due += self._inherited.remove_expired(now)
        if self._idle_workers():
            if now - self._pressure_at >= PRESSURE_SECONDS:
                self._relieve_pressure()
            due.append(PRESSURE_SECONDS)
        if due:
            # 1 ms more: a timer that fires early by rounding would have to be set again.
            self._arm(min(due) + 0.001)

    def _is_provisioned(self, worker: Worker) -> bool:
        version = self._version(worker)
        target = version.provisioned_target
        return target > 0 and len(self._live_workers(version)) <= target

    def _after_cold_start(self, ephemeral_storage: int) -> None:
        if not self._closed:
            self._make_ahead()
            self._relieve_pressure()
            self._background.start(self._equipment.tmp_dirs.make_ahead(ephemeral_storage))

    def _relieve_pressure(self) -> None:
        """End idle workers, the cheapest first, while the host is short of memory."""
        self._pressure_at = time.monotonic()
        missing = capacity.missing_memory(self._settings.memory_reserve)
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
            what = f"No spare cgroup can be made: {exc}; cold starts make their own"
            self._equipment.journal.record(journal.Trouble(what=what))

    async def _poll_limits(self) -> None:
        try:
            await limit_poll.poll(self._equipment, self._busy)
        finally:
            self._limit_poll = None

    async def close(self) -> None:
        """End every worker, idle ones now and busy ones after the grace period; leave none."""
        self._closed = True
        if self._housekeeper is not None:
            self._housekeeper.cancel()
        for waiter in self._waiters.values():
            if not waiter.future.done():
                waiter.future.set_exception(SupervisorClosed())
        for worker in list(self._workers.values()):
            if worker in self._busy:
                continue  # it has the grace period, also if its invocation has yet to begin
            if worker.state in ("idle", "frozen"):
                worker.stop("the supervisor closed")
            elif worker.state == "starting":
                self._lives[worker.worker_id].cancel()
        deadline = self._loop.time() + self._settings.shutdown_grace
        while self._lives and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(self._lives.values(), timeout=left)
        # Once each: a life that is cancelled already is burying its worker.
        for life in [life for life in self._lives.values() if not life.cancelling()]:
            life.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)
        self._inherited.remove_of(lambda _: True)
        await self._limit_polls.cancel()
        await self._background.finish()
