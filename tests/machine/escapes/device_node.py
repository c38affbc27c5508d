"""Make a device: null, and a disk.

Stopped by dropped capabilities, by seccomp, and by mounts with nodev.
"""

import os
import stat
import tempfile

from linux import first


def handler(event: dict, context: object) -> dict:
    def make(kind: int, number: int) -> str:
        path = os.path.join(tempfile.gettempdir(), "node")
        os.mknod(path, kind | 0o600, number)
        os.unlink(path)
        return "a device was made"

    return first(
        lambda: make(stat.S_IFCHR, os.makedev(1, 3)),
        lambda: make(stat.S_IFBLK, os.makedev(7, 0)),
    )
