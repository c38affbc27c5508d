"""This module is delivery: asynchronous events, from accepted to over.

Theory of operation: an event is in the queue on disk from before its caller hears 202 until its end
is written. Those that are due wait here by function, first come first served; as many of them run
as the function has concurrency. `outcomes` says what becomes of one when its invocation has ended.

Rule: what comes of an event is written in the transaction that ends it, so that neither can be
there without the other.
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
from miniλ.events.outcomes import LEAST_PAUSE, Again, Outcomes, Over
from miniλ.events.queue import Draft, QueuedEvent

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from miniλ.events.queue import EventQueue
    from miniλ.functions import Functions
    from miniλ.invoker import Invoker
    from miniλ.journal import Journal
    from miniλ.pool.pool import Pool

# Lambda quota: an asynchronous event may have 1 MB (since October 2025).
MAX_EVENT = 1024 * 1024
# An event waits so long for a worker before it makes room for others.
WAIT = 60.0
MOST_SLEEP = 30.0
# So many may wait; more are refused as Lambda refuses who is too fast.
MOST_EVENTS = 100_000
QUEUE_FULL = "FunctionInvocationRateLimitExceeded"
# What of ours makes an invocation fail, and not the function.
OURS = "Sandbox.Failure"


def too_large(size: int | str) -> RequestTooLarge:
    """Return the error for an event of so many bytes."""
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
        # By function, numbers that are due, and how many run; and (due, number, function).
        self._due: dict[str, deque[int]] = {}
        self._running: Counter[str] = Counter()
        # By function: how many have ended and could not write it; who waits for the disk.
        self._unwritten: Counter[str] = Counter()
        self._held: set[str] = set()
        self._later: list[tuple[float, int, str]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        # What an event is not accepted for is raised to its caller.
        self._tasks = Background(facts, "delivery", self._ended_task, expects=LambdaError)
        self._is_open = False
        # No task is left, and nothing is due.
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.count = 0

    def __repr__(self) -> str:
        return f"<Delivery {self.count} events, {self._running.total()} running>"

    # Open and close

    def open(self, functions: Functions, pool: Pool, invoker: Invoker) -> None:
        """Begin, with what an earlier life has left; once all functions are there."""
        self._functions, self._pool, self._invoker = functions, pool, invoker
        self._outcomes = Outcomes(functions, self._journal, self._retry)
        self._is_open = True
        if self._queue.lost:
            self._journal.record(journal.Trouble(what=self._queue.lost))
        found, self._queue.found = self._queue.found, []
        self.count = len(found)
        self._later = [(due, number, function) for number, function, due in found]
        heapq.heapify(self._later)
        self._wake()

    def stop(self) -> None:
        """Begin no more invocations; those that run may end."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()

    async def drain(self, seconds: float) -> None:
        """Wait until nothing runs or is due, at most so long, where nobody keeps what is left."""
        if not self._queue.durable:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.quiet(), seconds)

    async def quiet(self) -> None:
        """Wait until nothing runs or is due, and all ends are written; others may be due later."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Write how the last invocations ended, when the pool has ended them, and close."""
        self.stop()
        await self._tasks.finish()
        await self._queue.close()

    # Accept

    async def accept(self, draft: Draft) -> None:
        """Accept an event: it is on disk when this returns, and will run, whatever happens.

        Raises `RequestTooLarge`, `Throttled` where too many wait, and `ServiceError` where it
        cannot be kept.
        """
        if not self._is_open:
            raise SupervisorClosed
        if len(draft.payload) > MAX_EVENT:
            raise too_large(len(draft.payload))
        if self.count >= MOST_EVENTS:
            raise Throttled(QUEUE_FULL)
        # Of its own: a caller that leaves meanwhile does not undo it.
        await asyncio.shield(self._background(self._accept(draft)))

    async def _accept(self, draft: Draft) -> None:
        function = draft.function
        if function in self._due or not self._room(function):
            (number,) = await self._queue.add(draft)
            self._come(function, number)
            return
        # It runs at once: that it was accepted and that it runs is one commit.
        self._running[function] += 1
        try:
            (number,) = await self._queue.add(draft, running=True)
        except BaseException:
            self._ended(function)
            raise
        self.count += 1
        self._background(self._deliver(QueuedEvent(number, draft, queue.now(), 0, 0, 0)))

    def _come(self, function: str, number: int) -> None:
        self.count += 1
        self._is_due(function, number)
        self._begin(function)

    def _is_due(self, function: str, number: int) -> None:
        self._due.setdefault(function, deque()).append(number)
        self._quiet.clear()

    # When

    def _wake(self) -> None:
        """Let those begin whose time has come, and look again when the next one's has."""
        now = queue.now()
        woken = set()
        while self._later and self._later[0][0] <= now:
            _, number, function = heapq.heappop(self._later)
            self._is_due(function, number)
            woken.add(function)
        for function in woken:
            self._begin(function)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._later and self._is_open:
            # The loop's clock stands still while the machine sleeps: it is looked at now and then.
            pause = min(self._later[0][0] - now, MOST_SLEEP)
            self._timer = self._loop.call_later(pause, self._wake)

    def _begin(self, function: str) -> None:
        """Begin as many invocations of a function as it has concurrency."""
        waiting = self._due.get(function)
        if not waiting or not self._is_open or function in self._held or self._queue.has_stopped:
            return
        numbers = [waiting.popleft() for _ in range(min(self._room(function), len(waiting)))]
        if not waiting:
            del self._due[function]
        if numbers:
            self._running[function] += len(numbers)
            self._background(self._claim(function, numbers))

    def _room(self, function: str) -> int:
        """Return how many more events of a function may run."""
        # One at least: who may not run at all is told so.
        taken = self._running[function] + self._unwritten[function]
        return max(0, max(1, self._pool.concurrency(function)) - taken)

    async def _claim(self, function: str, numbers: list[int]) -> None:
        try:
            events = await self._queue.claim(numbers)
        except ServiceError as exc:
            self._trouble(f"events of {function} cannot begin: {exc}")
            self._hold(function, numbers)
            return
        damaged = len(numbers) - len(events)
        if damaged:
            self._trouble(f"{damaged} events of {function} are not what they were: see the records")
            self.count -= damaged
            self._ended(function, damaged)
        for event in events:
            self._background(self._deliver(event))

    def _hold(self, function: str, numbers: list[int]) -> None:
        """Come back in a while to events that are as they were, and to those behind them."""
        self._due.setdefault(function, deque()).extendleft(reversed(numbers))
        self._held.add(function)
        self._ended(function, len(numbers))

        def let_go() -> None:
            self._held.discard(function)
            self._begin(function)

        self._loop.call_later(LEAST_PAUSE, let_go)

    def _ended(self, function: str, count: int = 1) -> None:
        self._running[function] -= count
        if not self._running[function]:
            del self._running[function]
        self._begin(function)

    # One event

    async def _deliver(self, event: QueuedEvent) -> None:
        """Run an event, and write what becomes of it, until that is written."""
        try:
            outcome = await self._run(event)
        except Exception as exc:  # noqa: BLE001 - a bug of ours must not hold the event for ever
            self._trouble(f"event {event.draft.request_id} of {event.draft.function}: {exc!r}")
            outcome = self._refused(event, repr(exc))
        # Its end may be written in one commit with the beginning of the next.
        self._ended(event.draft.function)
        try:
            await self._write(event, outcome)
        except ServiceError as exc:
            self._trouble(f"the end of event {event.draft.request_id} is not written: {exc}")
            self._unwritten[event.draft.function] += 1
            await self._write_later(event, outcome)
            self._unwritten[event.draft.function] -= 1
            self._begin(event.draft.function)

    async def _write_later(self, event: QueuedEvent, outcome: Again | Over) -> None:
        """Try again until it is written, or we close: then it counts as a crash, and runs again."""
        while self._is_open:
            await asyncio.sleep(LEAST_PAUSE)
            with contextlib.suppress(ServiceError):
                await self._write(event, outcome)
                return

    async def _write(self, event: QueuedEvent, outcome: Again | Over) -> None:
        request_id, function = event.draft.request_id, event.draft.function
        if isinstance(outcome, Again):
            pause = outcome.due - queue.now()
            await self._queue.put_back(
                event.number, outcome.due, outcome.attempts, outcome.refusals
            )
            heapq.heappush(self._later, (outcome.due, event.number, function))
            self._wake()
            self._journal.record(
                journal.EventPutBack(
                    request_id=request_id, function=function, seconds=pause, why=outcome.why
                )
            )
            return
        numbers = await self._queue.remove(event.number, *outcome.then)
        self.count -= 1
        drafts = [each for each in outcome.then if isinstance(each, Draft)]
        for draft, number in zip(drafts, numbers, strict=True):
            self._come(draft.function, number)
        self._journal.record(
            journal.EventOver(request_id=request_id, function=function, condition=outcome.condition)
        )

    async def _run(self, event: QueuedEvent) -> Again | Over:
        """Invoke the function, if it may be; return what becomes of the event."""
        draft, outcomes = event.draft, self._outcomes
        if not self._is_open:
            return outcomes.interrupted(event)
        try:
            over = outcomes.before(event)
            if over is not None:
                return over
            function = self._functions.resolve(draft.function, draft.qualifier)
            response = await self._invoker.invoke(
                function, draft.payload, draft.context, draft.request_id, WAIT
            )
        except ResourceNotFound as exc:
            return outcomes.deleted(event, str(exc))
        except LambdaError as exc:
            return self._refused(event, str(exc))
        if response.invoked.error_type == OURS:
            return self._refused(event, OURS)
        return outcomes.answered(event, response)

    def _refused(self, event: QueuedEvent, why: str) -> Again:
        if self._is_open:
            return self._outcomes.refused(event, why)
        return self._outcomes.interrupted(event)

    def _trouble(self, what: str) -> None:
        self._journal.record(journal.Trouble(what=what))

    def _background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._quiet.clear()
        return self._tasks.start(work)

    def _ended_task(self) -> None:
        if not self._tasks and not self._due:
            self._quiet.set()
