"""The plan: which invocation gets which worker, which workers start, and which end. Pure.

Rule: values in, values out. `plan` awaits nothing, reads no clock and changes no argument. While
invocations wait, the pool calls it after each change (a new invocation, a worker ready, an answer,
an exit, another limit), and carries out what it returns. While none waits, it is not called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence


class PendingInvocation(msgspec.Struct, frozen=True):
    """An invocation without a worker. `admitted`: it counts in its concurrency limit already."""

    number: int
    revision: str
    concurrency: str
    admitted: bool


class IdleWorker(msgspec.Struct, frozen=True):
    """A worker without an invocation; the lowest `priority` is the first to be ended."""

    worker_id: str
    revision: str
    priority: float


class Assign(msgspec.Struct, frozen=True):
    """Give this worker to this invocation."""

    number: int
    worker_id: str


class Admit(msgspec.Struct, frozen=True):
    """Count the invocation in its limit: it waits for a worker now, not for concurrency."""

    number: int


class Start(msgspec.Struct, frozen=True):
    """Start a worker of the version that this invocation is for."""

    number: int


class Stop(msgspec.Struct, frozen=True):
    """End an idle worker."""

    worker_id: str
    reason: str


Action: TypeAlias = Assign | Admit | Start | Stop


def plan(
    pending: Sequence[PendingInvocation],
    idle: Sequence[IdleWorker],
    starting: Counter[str],
    room: int,
    free: dict[str, int],
    ending: int = 0,
) -> list[Action]:
    """Return what to do next.

    `pending` are in the order they came; `idle` is in the order workers became idle; `starting`
    counts starting workers by revision; `room` is how many more workers may live; `free` is
    how many more invocations each concurrency limit allows; `ending` counts workers that end.
    """
    actions: list[Action] = []
    idle = list(idle)
    starting = starting.copy()
    free = dict(free)

    # Concurrency first. An invocation whose limit is used up waits on, and others may pass it.
    admitted: list[PendingInvocation] = []
    for invocation in pending:
        if not invocation.admitted:
            if free.get(invocation.concurrency, 0) <= 0:
                continue
            free[invocation.concurrency] -= 1
            actions.append(Admit(invocation.number))
        admitted.append(invocation)

    # Warm workers next, for all of them: no worker is stopped below while an invocation that it
    # could serve is pending.
    cold: list[PendingInvocation] = []
    for invocation in admitted:
        own = [worker for worker in idle if worker.revision == invocation.revision]
        if own:
            idle.remove(own[-1])
            actions.append(Assign(invocation.number, own[-1].worker_id))
        else:
            cold.append(invocation)

    # The rest, from cheapest to dearest:
    #
    # 1. A worker of its version is starting, and will take it: one cold start is shared.
    # 2. There is room: start a worker.
    # 3. Room is on its way: a worker is ending.
    # 4. An idle worker of another version makes room.
    #
    # Else, and after the third, it stays pending until the pool calls again.
    for invocation in cold:
        if starting[invocation.revision] > 0:
            starting[invocation.revision] -= 1
            continue
        if room <= 0:
            if ending > 0:
                ending -= 1
                continue
            if not idle:
                continue
            cheapest = min(idle, key=lambda worker: worker.priority)
            idle.remove(cheapest)
            actions.append(Stop(cheapest.worker_id, "made room"))
            room += 1
        room -= 1
        actions.append(Start(invocation.number))
    return actions
