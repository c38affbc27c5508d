"""Delivery of asynchronous events: from accepted to ended.

Theory of operation: an event is in the queue on disk (in a state directory that is kept) before its
caller gets 202, and until its end is written. Due events wait here by function, first in first out;
as many of them run at once as the function has concurrency. `outcomes` decides what becomes of an
event when its invocation has ended.

Rule: what comes of an event is written in the transaction that ends it: both are on disk, or
neither is.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from miniλ import journal
from miniλ.background import Background
from miniλ.errors import (
    LambdaError,
    RequestTooLarge,
    ResourceNotFound,
    ServiceError,
    SupervisorClosed,
    Throttled,
)
from miniλ.events import queue
from miniλ.events.outcomes import MIN_PAUSE, End, Outcomes, Retry
from miniλ.events.queue import AsyncEvent, QueuedEvent

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from miniλ.events.queue import EventQueue
    from miniλ.functions import Functions
    from miniλ.invoker import Invoker
    from miniλ.journal import Journal
    from miniλ.pool.pool import Pool

# Lambda quota: an asynchronous event may have 1 MB (since October 2025).
MAX_EVENT = 1024 * 1024
# Seconds that an event waits for a worker; then it is put back, and another one is tried.
WAIT = 60.0
# Seconds between two comparisons of due times with the clock, at most.
MAX_SLEEP = 30.0
# Pending events of a supervisor; above this a caller is throttled, with Lambda's reason.
MAX_PENDING = 100_000
QUEUE_FULL = "FunctionInvocationRateLimitExceeded"
# The error type of an invocation that failed by the supervisor's fault, not the function's.
SANDBOX_FAILURE = "Sandbox.Failure"


def too_large(size: int | str) -> RequestTooLarge:
    """Return the error for an event of `size` bytes."""
    msg = f"{size} byte payload is too large for the Event invocation type "
    return RequestTooLarge(f"{msg}(limit {MAX_EVENT} bytes)")


class Delivery:
    """The asynchronous events of one supervisor."""

    _functions: Functions
    _pool: Pool
    _invoker: Invoker
    _outcomes: Outcomes

    def __init__(self, queue: EventQueue, facts: Journal, retry: float) -> None:
        """`retry`: seconds before the first retry of a function that failed."""
        self._queue = queue
        self._journal = facts
        self._retry = retry
        # By function: the numbers of due events, and how many run.
        self._due: dict[str, deque[int]] = {}
        self._running: Counter[str] = Counter()
        # By function: how many have ended and could not write that.
        self._unwritten: Counter[str] = Counter()
        # Functions whose events could not be claimed; tried again after MIN_PAUSE.
        self._on_hold: set[str] = set()
        # A heap of events that are due later: (due, number, function).
        self._later: list[tuple[float, int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        # `accept` raises these to its caller.
        self._tasks = Background(
            facts,
            "A task of event delivery failed; its events run again after the next start",
            self._on_task_end,
            expects=LambdaError,
        )
        self._is_open = False
        # Set while no task runs and no event is due.
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.count = 0

    def __repr__(self) -> str:
        return f"<Delivery {self.count} events, {self._running.total()} running>"

    # Open and close

    def open(self, functions: Functions, pool: Pool, invoker: Invoker) -> None:
        """Begin with the backlog of the previous supervisor; call it when functions are loaded."""
        self._functions, self._pool, self._invoker = functions, pool, invoker
        self._outcomes = Outcomes(functions, self._journal, self._retry)
        self._is_open = True
        if self._queue.damage:
            self._trouble(self._queue.damage)
        backlog, self._queue.backlog = self._queue.backlog, []
        self.count = len(backlog)
        self._later = [(due, number, function) for number, function, due in backlog]
        heapq.heapify(self._later)
        self._wake()

    def stop(self) -> None:
        """Begin no more invocations; running ones go on."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()

    async def drain(self, seconds: float) -> None:
        """Wait `seconds` at most until nothing runs or is due, if the queue is not kept on disk."""
        if not self._queue.durable:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.quiet(), seconds)

    async def quiet(self) -> None:
        """Wait until nothing runs or is due and all ends are written; retries may be due later."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Write how the last invocations ended, and close; the pool has ended them by now."""
        self.stop()
        await self._tasks.finish()
        await self._queue.close()

    # Accept

    async def accept(self, event: AsyncEvent) -> None:
        """Accept an event; in a state directory that is kept, it is on disk when this returns.

        It then runs also after a crash. Raises `RequestTooLarge`, `Throttled` above MAX_PENDING,
        and `ServiceError` if it cannot be written.
        """
        if not self._is_open:
            raise SupervisorClosed
        if len(event.payload) > MAX_EVENT:
            raise too_large(len(event.payload))
        if self.count >= MAX_PENDING:
            raise Throttled(QUEUE_FULL)
        # A task of its own: a caller that is cancelled meanwhile does not undo it.
        await asyncio.shield(self._background(self._accept(event)))

    async def _accept(self, event: AsyncEvent) -> None:
        function = event.function
        if function in self._due or not self._room(function):
            (number,) = await self._queue.add(event)
            self._on_accepted(function, number)
            return
        # It runs at once: accepting and claiming it is one commit.
        self._running[function] += 1
        try:
            (number,) = await self._queue.add(event, running=True)
        except BaseException:
            self._on_ended(function)
            raise
        self.count += 1
        self._background(self._deliver(QueuedEvent(number, event, queue.now(), 0, 0, 0)))

    def _on_accepted(self, function: str, number: int) -> None:
        self.count += 1
        self._add_due(function, number)
        self._begin(function)

    def _add_due(self, function: str, number: int) -> None:
        self._due.setdefault(function, deque()).append(number)
        self._quiet.clear()

    # When

    def _wake(self) -> None:
        """Begin the events that are due, and set a timer for the next one."""
        now = queue.now()
        woken = set()
        while self._later and self._later[0][0] <= now:
            _, number, function = heapq.heappop(self._later)
            self._add_due(function, number)
            woken.add(function)
        for function in woken:
            self._begin(function)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later and self._is_open:
            # The loop's clock stands still while the machine sleeps, and `now` does not.
            pause = min(self._later[0][0] - now, MAX_SLEEP)
            self._timer = self._loop.call_later(pause, self._wake)

    def _begin(self, function: str) -> None:
        """Begin due events of a function, as many as it has concurrency for."""
        waiting = self._due.get(function)
        if not waiting or not self._is_open or function in self._on_hold or self._queue.has_stopped:
            return
        numbers = [waiting.popleft() for _ in range(min(self._room(function), len(waiting)))]
        if not waiting:
            del self._due[function]
        if numbers:
            self._running[function] += len(numbers)
            self._background(self._claim(function, numbers))

    def _room(self, function: str) -> int:
        """Return how many more events of a function may run."""
        # At least one: an event of a function that may not run has to get to its end.
        used = self._running[function] + self._unwritten[function]
        return max(0, max(1, self._pool.concurrency(function)) - used)

    async def _claim(self, function: str, numbers: list[int]) -> None:
        try:
            claimed = await self._queue.claim(numbers)
        except ServiceError as exc:
            again = "" if self._queue.has_stopped else f"; tried again in {MIN_PAUSE:g} s"
            self._trouble(f"{len(numbers)} events of {function} cannot begin: {exc}{again}")
            self._hold(function, numbers)
            return
        damaged = len(numbers) - len(claimed)
        if damaged:
            self._trouble(
                f"{damaged} events of {function} were damaged on disk and do not run: see their "
                "records in `minilambda events`"
            )
            self.count -= damaged
            self._on_ended(function, damaged)
        for queued in claimed:
            self._background(self._deliver(queued))

    def _hold(self, function: str, numbers: list[int]) -> None:
        """Let the events of a function wait for MIN_PAUSE, these first, in their order."""
        self._due.setdefault(function, deque()).extendleft(reversed(numbers))
        self._on_hold.add(function)
        self._on_ended(function, len(numbers))

        def release() -> None:
            self._on_hold.discard(function)
            self._begin(function)

        self._loop.call_later(MIN_PAUSE, release)

    def _on_ended(self, function: str, count: int = 1) -> None:
        self._running[function] -= count
        if not self._running[function]:
            del self._running[function]
        self._begin(function)

    # One event

    async def _deliver(self, queued: QueuedEvent) -> None:
        """Run an event, and return when its outcome is written."""
        event = queued.event
        try:
            outcome = await self._run(queued)
        except Exception as exc:  # noqa: BLE001 - after a bug the event is retried
            self._trouble(
                f"event {event.request_id} of {event.function} is tried again: {exc!r}, which is a "
                "bug; please report it"
            )
            outcome = self._retry_for(queued, repr(exc))
        # Its end may be written in one commit with the beginning of the next.
        self._on_ended(event.function)
        try:
            await self._write(queued, outcome)
        except ServiceError as exc:
            again = "" if self._queue.has_stopped else f"tried again each {MIN_PAUSE:g} s; "
            self._trouble(
                f"the end of event {event.request_id} of {event.function} is not written: {exc}; "
                f"{again}until it is, a restart runs the event again"
            )
            self._unwritten[event.function] += 1
            await self._write_later(queued, outcome)
            self._unwritten[event.function] -= 1
            self._begin(event.function)

    async def _write_later(self, queued: QueuedEvent, outcome: Retry | End) -> None:
        """Write an outcome, each second until it is written or delivery stops.

        An event whose outcome is not written counts a crash at the next start, and runs again.
        """
        while self._is_open:
            await asyncio.sleep(MIN_PAUSE)
            with contextlib.suppress(ServiceError):
                await self._write(queued, outcome)
                return

    async def _write(self, queued: QueuedEvent, outcome: Retry | End) -> None:
        request_id, function = queued.event.request_id, queued.event.function
        if isinstance(outcome, Retry):
            pause = outcome.due - queue.now()
            await self._queue.put_back(
                queued.number, outcome.due, outcome.attempts, outcome.refusals
            )
            heapq.heappush(self._later, (outcome.due, queued.number, function))
            self._wake()
            self._journal.record(
                journal.EventRetried(
                    request_id=request_id, function=function, seconds=pause, why=outcome.why
                )
            )
            return
        numbers = await self._queue.remove(queued.number, *outcome.outcomes)
        self.count -= 1
        events = [each for each in outcome.outcomes if isinstance(each, AsyncEvent)]
        for event, number in zip(events, numbers, strict=True):
            self._on_accepted(event.function, number)
        self._journal.record(
            journal.EventEnded(
                request_id=request_id, function=function, condition=outcome.condition
            )
        )

    async def _run(self, queued: QueuedEvent) -> Retry | End:
        """Invoke the function, if the event may run; return what becomes of the event."""
        event, outcomes = queued.event, self._outcomes
        if not self._is_open:
            return outcomes.retry_for_close(queued)
        try:
            end = outcomes.end_without_run(queued)
            if end is not None:
                return end
            function = self._functions.resolve(event.function, event.qualifier)
            response = await self._invoker.invoke(
                function, event.payload, event.context, event.request_id, WAIT
            )
        except ResourceNotFound as exc:
            return outcomes.end_of_deleted(queued, str(exc))
        except LambdaError as exc:
            return self._retry_for(queued, str(exc))
        if response.invoked.error_type == SANDBOX_FAILURE:
            return self._retry_for(queued, SANDBOX_FAILURE)
        return outcomes.after_response(queued, response)

    def _retry_for(self, queued: QueuedEvent, why: str) -> Retry:
        if self._is_open:
            return self._outcomes.retry_for_refusal(queued, why)
        return self._outcomes.retry_for_close(queued)

    def _trouble(self, what: str) -> None:
        self._journal.record(journal.Trouble(what=what))

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._quiet.clear()
        return self._tasks.start(work)

    def _on_task_end(self) -> None:
        if not self._tasks and not self._due:
            self._quiet.set()
