"""Write settings of the kernel in /proc/sys: with core_pattern a crash runs any program.

Many of these files need user 0 and no capability. Stopped by a user of its own, by a read-only
mount, and by Landlock. The file is opened, and not written.
"""

import os

from linux import first

FILES = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger")


def handler(event: dict, context: object) -> dict:
    return first(
        *(
            lambda path=path: os.close(os.open(path, os.O_WRONLY)) or f"{path} may be written"
            for path in FILES
        )
    )
