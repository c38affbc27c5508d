"""Set up an io_uring, whose requests bypass the filter of system calls.

Stopped by seccomp with ENOSYS.
"""

import ctypes
import os

from linux import call, first


def handler(event: dict, context: object) -> dict:
    def set_up() -> str:
        parameters = ctypes.create_string_buffer(120)
        os.close(call("io_uring_setup", 4, ctypes.byref(parameters)))
        return "an io_uring was made"

    return first(set_up)
