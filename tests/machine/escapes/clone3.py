"""Make a user namespace by clone3(2), whose flags are in memory, which no filter reads.

Stopped by seccomp with ENOSYS: libraries fall back to clone.
"""

import os
import struct

from linux import CLONE_NEWUSER, call, first_in_children


def handler(event: dict, context: object) -> dict:
    def clone() -> str:
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, and no stack.
        arguments = struct.pack("8Q", CLONE_NEWUSER, 0, 0, 0, 17, 0, 0, 0)
        pid = call("clone3", arguments, len(arguments))
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "a child in a user namespace of its own"

    return first_in_children(clone)
