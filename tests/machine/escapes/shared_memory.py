"""Leave memory behind that belongs to no process (shmget(2)), and read that of others.

Stopped by an ipc namespace, with whose end it is gone. The key says whether somebody has left it
there before us; the test removes it.
"""

import os

from linux import call

IPC_CREAT, IPC_EXCL = 0o1000, 0o2000


def handler(event: dict, context: object) -> dict:
    try:
        call("shmget", event["key"], 4096, IPC_CREAT | IPC_EXCL | 0o600)
    except FileExistsError:
        return {"escaped": True, "seen": "it is there"}
    except OSError as exc:
        return {"escaped": False, "seen": str(exc)}
    return {"escaped": False, "seen": f"it was left there by {os.getpid()}"}
