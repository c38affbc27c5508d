"""Make a user namespace, with every capability in it: by unshare(2) and by clone(2).

Stopped by seccomp.
"""

import os

from linux import CLONE_NEWUSER, first_in_children, libc, unshare_user


def handler(event: dict, context: object) -> dict:
    def by_unshare() -> str:
        unshare_user()
        return f"user {os.geteuid()} of a namespace of our own"

    def by_clone() -> str:
        number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
        pid = libc.syscall(number, CLONE_NEWUSER | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        if pid < 0:
            raise PermissionError("clone was refused")
        os.waitpid(pid, 0)
        return "clone made one"

    return first_in_children(by_unshare, by_clone)
