"""Kill every process that may be killed (kill(2) with -1).

Stopped by a pid namespace: -1 reaches the processes in it. Only in one the signal is SIGKILL;
elsewhere each process gets signal 0, which Landlock's scope refuses.
"""

import os
import signal


def handler(event: dict, context: object) -> dict:
    inside = os.readlink("/proc/self/ns/pid") != event["pid_namespace"]
    if inside:  # elsewhere it would kill the host's processes
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(-1, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        # Another worker that was hit would fail the next invocation, which the test makes.
        return {"escaped": False, "seen": f"a child of ours died of it: {status}"}
    mine = {os.getpid(), os.getppid()}
    targets = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) not in mine:
            try:
                os.kill(int(name), 0)
                targets.append(int(name))
            except OSError:
                continue
    return {"escaped": bool(targets), "seen": f"{len(targets)} processes may be signalled"}
