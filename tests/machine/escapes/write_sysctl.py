"""Write what governs the kernel: /proc/sys, with whose core_pattern a crash runs any program.

Many of these files ask for no capability, only for user 0. Stopped by a user of its own, and by
Landlock. The file is opened, and nothing is written.
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
