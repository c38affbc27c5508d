"""This module is the plan: which invocation gets which worker, who starts, who ends. Pure.

Rule: values in, values out. Nothing here awaits, reads a clock or changes anything; the pool
asks, and carries out what it is told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence


class Ask(msgspec.Struct, frozen=True):
    """An invocation without a worker. `admitted`: it counts in its share already."""

    number: int
    revision: str
    share: str
    admitted: bool


class Idle(msgspec.Struct, frozen=True):
    """A worker without an invocation; the lowest `priority` is the first to be ended."""

    worker_id: str
    revision: str
    priority: float


class Assign(msgspec.Struct, frozen=True):
    """Give this worker to this invocation."""

    number: int
    worker_id: str


class Admit(msgspec.Struct, frozen=True):
    """Count the invocation in its share: it waits for a worker now, not for concurrency."""

    number: int


class Start(msgspec.Struct, frozen=True):
    """Start a worker for the function that this invocation asks for."""

    number: int


class Stop(msgspec.Struct, frozen=True):
    """End an idle worker."""

    worker_id: str
    reason: str


Action: TypeAlias = Assign | Admit | Start | Stop


def plan(
    asks: Sequence[Ask],
    idle: Sequence[Idle],
    coming: Counter[str],
    room: int,
    free: dict[str, int],
    leaving: int = 0,
) -> list[Action]:
    """Decide what happens next. Values in, values out; nothing is awaited or changed.

    `asks` are in the order they came; `idle` is in the order workers became idle; `coming`
    counts starting workers by revision; `room` is how many more workers may live; `free` is
    how many more invocations each share may run.
    """
    actions: list[Action] = []
    idle = list(idle)
    coming = coming.copy()
    free = dict(free)

    # Concurrency first. Who finds none left waits on, and others may pass.
    admitted: list[Ask] = []
    for ask in asks:
        if not ask.admitted:
            if free.get(ask.share, 0) <= 0:
                continue
            free[ask.share] -= 1
            actions.append(Admit(ask.number))
        admitted.append(ask)

    # Warm workers next, for everybody: nobody's worker may be ended below while the
    # invocation that it could have served stands in the same queue.
    cold: list[Ask] = []
    for ask in admitted:
        own = [worker for worker in idle if worker.revision == ask.revision]
        if own:
            idle.remove(own[-1])
            actions.append(Assign(ask.number, own[-1].worker_id))
        else:
            cold.append(ask)

    # The rest, from cheapest to dearest:
    #
    # 1. A worker of its version is on its way, and will take it: one cold start is shared.
    # 2. There is room: start a worker.
    # 3. Room is on its way: somebody is leaving.
    # 4. An idle worker of another version makes room.
    #
    # Else, and after the third, it waits, and we are asked again.
    for ask in cold:
        if coming[ask.revision] > 0:
            coming[ask.revision] -= 1
            continue
        if room <= 0:
            if leaving > 0:
                leaving -= 1
                continue
            if not idle:
                continue
            cheapest = min(idle, key=lambda worker: worker.priority)
            idle.remove(cheapest)
            actions.append(Stop(cheapest.worker_id, "made room"))
            room += 1
        room -= 1
        actions.append(Start(ask.number))
    return actions
