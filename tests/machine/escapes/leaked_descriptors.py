"""Use a descriptor that was left open: of the supervisor, the zygote or another worker.

Stopped by closing all but the protocol's five (workers/PROTOCOL.md) before the function's code.
"""

import os


def handler(event: dict, context: object) -> dict:
    descriptors = []
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 4:
            try:
                descriptors.append(f"{name}: {os.readlink(f'/proc/self/fd/{name}')}")
            except OSError:
                continue  # the listing's own
    return {"escaped": bool(descriptors), "seen": "; ".join(descriptors) or "0 to 4"}
