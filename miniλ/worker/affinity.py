"""CPU affinity: a worker wakes on the core that its supervisor runs on.

To wake a process on another core takes 20 us and more. On the same core it takes 2 us, and the
kernel, which prefers a process that slept, runs it before write(2) returns. The kernel's own choice
is the other core, which is idle: wrong for work of some microseconds, and sched_setaffinity(2)
is the only way to choose.

Rule: a worker is pinned for the wake-up alone. The frame that it wakes for says `pinned`, and it
unpins itself before the handler runs: the handler, its threads and its children have all cores.
"""

from __future__ import annotations

import ctypes
import os

# Python 3.11 has no os.sched_getcpu. `PyDLL` keeps the interpreter's lock, which `CDLL` would
# release and take again: that costs more than the call.
_core_here = ctypes.PyDLL(None).sched_getcpu
# Invocations in a row that may be answered without a turn of the event loop.
IN_A_ROW = 15


class Affinity:
    """The cores of this host, and how often they were used for a wake-up."""

    def __init__(self) -> None:
        self._each = [{core} for core in range(os.cpu_count() or 1)]
        # With one core there is no choice to make.
        self._are_many = len(os.sched_getaffinity(0)) > 1
        self._turn = 0

    def pin(self, pid: int) -> bool:
        """Pin a process that sleeps to the supervisor's core; return whether it is pinned."""
        if not self._are_many:
            return False
        try:
            os.sched_setaffinity(pid, self._each[_core_here()])
        except (OSError, IndexError):
            return False  # it has exited, or the host has more cores than at the start
        return True

    def may_poll(self) -> bool:
        """Return whether the answer may be read at once, and not by the event loop.

        Not in every invocation: a caller that awaits answers which are there already never lets the
        event loop run other tasks.
        """
        self._turn = (self._turn + 1) % (IN_A_ROW + 1)
        return self._turn > 0
