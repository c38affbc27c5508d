"""Raise limits and priorities, and lower the score by which the kernel kills for memory.

Stopped by dropped capabilities. Each is tried in a child of its own.
"""

import ctypes
import os
import resource

from linux import call, first_in_children

SCHED_FIFO = 1


def handler(event: dict, context: object) -> dict:
    def limit(which: int) -> str:
        hard = resource.getrlimit(which)[1]
        if hard == resource.RLIM_INFINITY:
            raise ValueError("there is no limit to raise")
        resource.setrlimit(which, (hard + 1, hard + 1))
        return f"limit {which} was raised"

    def nice() -> str:
        os.nice(-5)
        return "a higher priority"

    def real_time() -> str:
        call("sched_setscheduler", 0, SCHED_FIFO, ctypes.byref(ctypes.c_int(1)))
        return "real time"

    def spare_us() -> str:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(b"-1000")
        return "never killed for memory"

    return first_in_children(
        lambda: limit(resource.RLIMIT_NOFILE),
        lambda: limit(resource.RLIMIT_DATA),
        lambda: limit(resource.RLIMIT_NPROC),
        nice,
        real_time,
        lambda: call("ioprio_set", 1, 0, 1 << 13) or "real time of the disk",
        spare_us,
    )
