"""This module is cores: having a worker wake on the one that its supervisor runs on.

To wake a process that sleeps on another core takes 20 us and more; on one's own it takes 2, and
the kernel, which prefers who slept, runs it before write(2) returns. Left to itself it takes the
other core, which is idle: for work of some microseconds the wrong choice, and
sched_setaffinity(2) is the only way to say so.

Rule: a worker is held for the wake-up alone. The frame that it wakes for says `pinned`, and it lets
go of itself before the handler runs: what a handler sees, and what its threads and children
inherit, are all the cores there are.
"""

from __future__ import annotations

import ctypes
import os

# Python 3.11 has no os.sched_getcpu. Not `CDLL`: it is too short to let another thread have the
# interpreter meanwhile.
_core_here = ctypes.PyDLL(None).sched_getcpu
# So many invocations in a row are answered without a turn of the event loop.
IN_A_ROW = 15


class Affinity:
    """The cores that this process may use, as they were when it began."""

    def __init__(self) -> None:
        self._each = [{core} for core in range(os.cpu_count() or 1)]
        # With one core there is nothing to choose.
        self._are_many = len(os.sched_getaffinity(0)) > 1
        self._turn = 0

    def hold(self, pid: int) -> bool:
        """Hold a process that sleeps to the core that we are on; return whether it is held."""
        if not self._are_many:
            return False
        try:
            os.sched_setaffinity(pid, self._each[_core_here()])
        except (OSError, IndexError):
            return False  # it is gone, or a core came that was not there
        return True

    def may_look(self) -> bool:
        """Return whether an answer may be looked for at once, and not by the event loop.

        Who awaits what is there already does not let others run: not for ever, therefore.
        """
        self._turn = (self._turn + 1) % (IN_A_ROW + 1)
        return self._turn > 0
