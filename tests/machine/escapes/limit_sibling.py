"""Change the limits of the supervisor and of other workers (prlimit(2)): 0 s of CPU kills.

Stopped by seccomp, and behind it by a pid namespace. The limits are only read here, which needs the
same rights.
"""

import ctypes

from linux import call, first

RLIMIT_CPU = 0


def handler(event: dict, context: object) -> dict:
    def look(pid: int) -> str:
        limits = (ctypes.c_uint64 * 2)()
        call("prlimit", pid, RLIMIT_CPU, None, ctypes.byref(limits))
        return f"the CPU seconds of {pid} may be limited"

    return first(lambda: look(event["supervisor"]), lambda: look(event["sibling"]))
