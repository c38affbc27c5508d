"""What the pool knows of one version, of its place in the order of eviction, and of each waiter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from miniλ.pool.plan import PendingInvocation

if TYPE_CHECKING:
    import asyncio

    from miniλ.concurrency import Concurrency
    from miniλ.model import FunctionConfiguration
    from miniλ.worker.worker import Worker


class Waiter:
    """An invocation that waits for a worker, and the future that hands the worker over."""

    __slots__ = ("admitted", "concurrency", "function", "future", "number")

    def __init__(
        self,
        number: int,
        function: FunctionConfiguration,
        concurrency: Concurrency,
        future: asyncio.Future[Worker],
    ) -> None:
        self.number = number
        self.function = function
        self.concurrency = concurrency
        self.future = future
        self.admitted = False

    def pending(self) -> PendingInvocation:
        """Return the invocation as the plan sees it."""
        return PendingInvocation(
            self.number, self.function.revision, self.concurrency.name, self.admitted
        )

    def takes_worker_of(self, revision: str) -> bool:
        """Return whether a worker of this revision may be handed over to it now."""
        has_none = not self.future.done()
        return has_none and self.admitted and self.function.revision == revision


class GreedyDual:
    """The priority of a function's idle workers: the lowest is evicted first.

    Greedy-dual with size and frequency, as FaasCache has it for keep-alive (Fuerst and Sharma,
    ASPLOS 2021): priority = clock + frequency * cost / size. The pool's clock is the priority of
    the worker that was evicted last; a function's is the pool's clock when it was last invoked.
    """

    __slots__ = ("clock", "cost", "frequency")

    def __init__(self) -> None:
        self.clock = 0.0
        # Invocations, and the seconds of a cold start.
        self.frequency = 0
        self.cost = 0.0

    def priority(self, size: int) -> float:
        """Return the priority of a worker of this size (MB)."""
        return self.clock + self.frequency * self.cost / size


class Version:
    """One version of a function: its idle workers (the last to become idle is last), its limits."""

    __slots__ = (
        "concurrency",
        "failure",
        "function",
        "greedy_dual",
        "idle",
        "is_current",
        "provisioned_target",
    )

    def __init__(
        self, function: FunctionConfiguration, concurrency: Concurrency, greedy_dual: GreedyDual
    ) -> None:
        self.function = function
        self.idle: list[Worker] = []
        self.is_current = True
        # The limit that the next invocation counts in. One in flight stays in the limit that it
        # was counted in, which a change of the reservation does not change.
        self.concurrency = concurrency
        self.greedy_dual = greedy_dual
        # How many workers are kept initialised, and why there are fewer: Lambda's code, or "".
        self.provisioned_target = 0
        self.failure = ""

    def may_fill(self) -> bool:
        """Return whether provisioned workers may be started: it is current, and none failed."""
        return self.is_current and not self.failure and self.provisioned_target > 0
