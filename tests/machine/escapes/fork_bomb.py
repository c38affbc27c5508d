"""Fork until the kernel refuses, each child in a session of its own.

Stopped by a cgroup's pids.max, or by RLIMIT_NPROC where it counts this worker alone. The bomb is
bounded, and kills and reaps its children.
"""

import os
import signal


def handler(event: dict, context: object) -> dict:
    children, why = [], "nothing was refused"
    try:
        while len(children) <= event.get("processes", 1024):
            pid = os.fork()
            if pid == 0:
                os.setsid()
                signal.pause()
            children.append(pid)
    except OSError as exc:
        why = exc.strerror
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    is_limited = len(children) <= event.get("processes", 1024)
    return {"escaped": not is_limited, "seen": f"{len(children)} children; {why}"}
