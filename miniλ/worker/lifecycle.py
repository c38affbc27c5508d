"""This module is the life of a worker, as a table. The README's diagram shows the same arrows."""

from __future__ import annotations

from typing import Literal

State = Literal["starting", "idle", "frozen", "busy", "stopping", "gone"]

# The whole life of a worker. Whatever is not in this table is a bug, and raises.
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

# Who may be given an invocation. An idle worker that dies, or is ended for what it did, stays in
# its list until it is buried.
AVAILABLE: frozenset[State] = frozenset({"idle", "frozen"})
