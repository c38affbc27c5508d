"""The journal: the facts that happened on this supervisor, newest last.

The same facts drive billing and the tests. A fact is a frozen struct that is only formatted when it
is read, so recording one costs well under a microsecond.

Rule: listeners are fixed at construction, in `parts.wire`; there is no registration. Code that
waits for one fact uses `until`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec

from miniλ.model import Invoked

if TYPE_CHECKING:
    from collections.abc import Callable

# Facts that are kept for the story; older ones are dropped.
REMEMBERED = 10_000
# Invocations that are kept: few enough to stay in a CPU's cache, since each warm one adds one; and
# apart from the rest, so that a busy function does not drop the facts about workers.
REMEMBERED_INVOCATIONS = 1000


class Fact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened; `at` is in seconds of time.monotonic()."""

    at: float = msgspec.field(default_factory=time.monotonic)


class ZygoteStarted(Fact, frozen=True, gc=False):
    """A zygote is ready to fork workers of this runtime."""

    runtime: str
    pid: int


class ZygoteDied(Fact, frozen=True, gc=False):
    """A zygote has died, and its workers with it."""

    runtime: str
    pid: int


class WorkerStarted(Fact, frozen=True, gc=False):
    """A worker has been forked; its init phase begins."""

    worker_id: str
    function: str
    pid: int


class WorkerReady(Fact, frozen=True, gc=False):
    """The init phase of a worker is over."""

    worker_id: str
    function: str
    init_seconds: float


class InitFailed(Fact, frozen=True, gc=False):
    """The init phase of a worker failed or timed out: it runs again inside the invocation."""

    worker_id: str
    function: str
    status: str


class WorkerFrozen(Fact, frozen=True, gc=False):
    """An idle worker is frozen: the kernel does not schedule it."""

    worker_id: str


class WorkerThawed(Fact, frozen=True, gc=False):
    """A frozen worker is thawed: the kernel schedules it again."""

    worker_id: str


class WorkerStopped(Fact, frozen=True, gc=False):
    """The supervisor stops a worker, and why."""

    worker_id: str
    reason: str


class WorkerExited(Fact, frozen=True, gc=False):
    """No process of a worker is left; `cause` says how its first process ended."""

    worker_id: str
    function: str
    cause: str


class MechanismMissing(Fact, frozen=True, gc=False):
    """A mechanism of the sandbox that was wanted cannot be had on this host, and why."""

    mechanism: str
    why: str


class InvocationThrottled(Fact, frozen=True, gc=False):
    """An invocation was refused because of concurrency."""

    function: str
    reason: str


class EventRetried(Fact, frozen=True, gc=False):
    """An asynchronous event is retried in `seconds`, and why."""

    request_id: str
    function: str
    seconds: float
    why: str


class EventEnded(Fact, frozen=True, gc=False):
    """An asynchronous event has ended: `condition` is Lambda's, or FunctionDeleted."""

    request_id: str
    function: str
    condition: str


class StateSwept(Fact, frozen=True, gc=False):
    """What a dead supervisor left is removed: processes killed, paths deleted."""

    instance: str
    processes: int
    paths: list[str]


class Trouble(Fact, frozen=True, gc=False):
    """An error of miniλ that the supervisor survived, for the operator.

    `what` is a sentence: what happened, to which function, worker or file, and what to do or what
    happens next.
    """

    what: str


# An invocation that has ended is a fact too; `Invoked` is in `model`, since a response has it.
AnyFact: TypeAlias = Fact | Invoked

F = TypeVar("F", bound=AnyFact)


class Journal:
    """The facts of one supervisor, and its listeners."""

    def __init__(self, *listeners: Callable[[AnyFact], None]) -> None:
        self.facts: deque[Fact] = deque(maxlen=REMEMBERED)
        self.invocations: deque[Invoked] = deque(maxlen=REMEMBERED_INVOCATIONS)
        self._listeners = listeners
        self._waiting: list[tuple[Callable[[AnyFact], bool], asyncio.Future[AnyFact]]] = []

    def record(self, fact: AnyFact) -> None:
        """Keep a fact, and call the listeners with it."""
        if isinstance(fact, Invoked):
            self.invocations.append(fact)
        else:
            self.facts.append(fact)
        for listener in self._listeners:
            listener(fact)
        if self._waiting:
            self._wake(fact)

    def _wake(self, fact: AnyFact) -> None:
        for item in list(self._waiting):
            matches, future = item
            if future.done() or matches(fact):
                self._waiting.remove(item)
                if not future.done():
                    future.set_result(fact)

    async def until(self, kind: type[F], matches: Callable[[F], bool] = lambda _: True) -> F:
        """Return a fact of this kind: the oldest that is remembered, else the next to happen."""

        def is_match(fact: AnyFact) -> bool:
            return isinstance(fact, kind) and matches(fact)

        for fact in self.story(kind):
            if matches(fact):
                return fact
        future: asyncio.Future[AnyFact] = asyncio.get_running_loop().create_future()
        self._waiting.append((is_match, future))
        result = await future
        assert isinstance(result, kind)
        return result

    def story(self, kind: type[F]) -> list[F]:
        """Return the facts of this kind that are remembered, oldest first."""
        facts = self.invocations if issubclass(kind, Invoked) else self.facts
        return [fact for fact in facts if isinstance(fact, kind)]
