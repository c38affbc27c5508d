"""Read the environment, the memory map or the memory of another process in /proc.

Stopped by a pid namespace, whose /proc shows no other worker; without one, by Landlock, which
refuses each access for which the kernel checks the right to trace.
"""

import os

from linux import pids, read

OURS = ("environ", "maps", "mem", "auxv", "syscall")


def handler(event: dict, context: object) -> dict:
    seen = []
    for pid in [1, *pids()]:
        if pid == os.getpid():
            continue
        for name in OURS:
            try:
                path = f"/proc/{pid}/{name}"
                if name == "mem":
                    os.close(os.open(path, os.O_RDONLY))
                elif not read(path):
                    continue  # a kernel thread has none
                seen.append(path)
            except OSError:
                continue
    return {"escaped": bool(seen), "seen": " ".join(seen[:9]) or "no file of another process"}
