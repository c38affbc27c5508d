"""The life of a worker as a table, and the story of one life.

The diagram in docs/architecture.md is this table: `tests/unit/test_readme.py` keeps them equal.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

State = Literal["starting", "idle", "frozen", "busy", "stopping", "gone"]

# The whole life of a worker. A transition that is not in this table is a bug, and raises.
TRANSITIONS: dict[State, dict[str, State]] = {
    "starting": {"ready": "idle", "stopped": "stopping", "exited": "gone"},
    "idle": {
        "invoked": "busy",
        "frozen": "frozen",
        "stopped": "stopping",
        "exited": "gone",
    },
    "frozen": {"thawed": "idle", "stopped": "stopping", "exited": "gone"},
    "busy": {"answered": "idle", "stopped": "stopping", "exited": "gone"},
    "stopping": {"stopped": "stopping", "exited": "gone"},
    "gone": {},
}

# The states in which a worker may get an invocation. An idle worker that dies or is killed stays in
# the pool's list of idle workers until its processes are gone, so the pool reads its state as well.
AVAILABLE: frozenset[State] = frozenset({"idle", "frozen"})

# A worker that is frozen and thawed between invocations adds two facts for each.
REMEMBERED_FACTS = 16


class Story:
    """The last facts of one worker's life, for the message of a transition that must not be.

    "invoked" and "answered" come with every invocation, and are not written down: the number of
    invocations at each other fact says how many there were between two of them.
    """

    __slots__ = ("_facts", "_is_whole")

    def __init__(self) -> None:
        self._is_whole = True
        # Fact, invocations until then, whether one of them was in flight.
        self._facts: deque[tuple[str, int, bool]] = deque(maxlen=REMEMBERED_FACTS)

    def add(self, fact: str, invocations: int, *, in_flight: bool) -> None:
        """Write down a fact that is neither "invoked" nor "answered"."""
        self._is_whole = len(self._facts) < REMEMBERED_FACTS
        self._facts.append((fact, invocations, in_flight))

    def text(self, invocations: int, *, in_flight: bool) -> str:
        """Return the story until now, oldest first: `ready answered*3 frozen thawed invoked`."""
        words = [] if self._is_whole else ["..."]
        before = 0 if self._is_whole else self._facts[0][1]
        for fact, until, busy in [*self._facts, ("", invocations, in_flight)]:
            # An invocation that was in flight at "stopped" is not in flight at "exited".
            answered = until - before - busy
            if answered > 0:
                words.append("answered" if answered == 1 else f"answered*{answered}")
            if until > before and busy:
                words.append("invoked")
            before = until
            words.append(fact)
        return " ".join(words).rstrip()
