"""Leave the root directory: chroot(2) into a directory and climb by "..", with an open descriptor.

Stopped by seccomp, which refuses chroot and the user namespace that would allow it. Without it the
climb ends at the root of pivot_root: the old root is not above.
"""

import os
import tempfile

from linux import call, first_in_children, unshare_user


def handler(event: dict, context: object) -> dict:
    def climb() -> str:
        top = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
        below = tempfile.mkdtemp()
        try:
            call("chroot", below.encode())
            os.fchdir(top)
            for _ in range(64):
                os.chdir("..")
            call("chroot", b".")
        finally:
            os.close(top)
            os.rmdir(below)
        return f"chroot worked; the host's file is here: {os.path.exists(event['host_file'])}"

    def in_namespace() -> str:
        unshare_user()
        return climb()

    return first_in_children(climb, in_namespace)
