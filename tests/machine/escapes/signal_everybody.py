"""Kill everybody who may be killed (kill(2) with -1).

Stopped by a pid namespace: everybody is who is in it. In one, and only there, it is really done;
elsewhere each process is asked with signal 0, which Landlock's scope refuses.
"""

import os
import signal


def handler(event: dict, context: object) -> dict:
    inside = os.readlink("/proc/self/ns/pid") != event["pid_namespace"]
    if inside:  # elsewhere it would be the end of everybody
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(-1, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        # Whoever else was hit misses the next invocation: the test looks.
        return {"escaped": False, "seen": f"a child of ours died of it: {status}"}
    mine = {os.getpid(), os.getppid()}
    hit = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in mine:
            try:
                os.kill(int(name), 0)
                hit.append(int(name))
            except OSError:
                continue
    return {"escaped": bool(hit), "seen": f"{len(hit)} processes may be signalled"}
