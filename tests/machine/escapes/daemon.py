"""Leave a daemon: an orphan in a session of its own, with an empty environment.

Stopped, with its worker, by a cgroup or by the pid namespace that ends with its init. The test
searches for its argument after the worker's end.
"""

import os
import resource
import sys

PROGRAM = "import time; time.sleep(600)"


def handler(event: dict, context: object) -> dict:
    ready, started = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1024)):
                if descriptor not in (null, started):
                    try:
                        os.dup2(null, descriptor)
                    except OSError:
                        break
            # `started` is closed by exec: then `os.read` below returns.
            command = [sys.executable, "-I", "-S", "-c", PROGRAM, event["token"]]
            os.execve(sys.executable, command, {})
        os._exit(0)
    os.close(started)
    os.wait()
    os.read(ready, 1)
    os.close(ready)
    return {"escaped": False, "seen": "a daemon waits for the end of its worker"}
