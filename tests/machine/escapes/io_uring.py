"""Set up an io_uring, whose requests no filter of system calls sees.

Stopped by seccomp, as if the kernel had none (ENOSYS).
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
