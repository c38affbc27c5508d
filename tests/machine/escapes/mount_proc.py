"""Mount something: a copy of /proc, any tree, a new tmpfs; with root of a user namespace.

Stopped by dropped capabilities, and by seccomp, which refuses these calls and the user namespace
that would give a capability. A mount is made in a child's own mount namespace, and ends with it.
"""

import os
import tempfile

from linux import CLONE_NEWNS, call, first_in_children, libc, unshare_user

MS_BIND, MS_REC, MNT_DETACH = 4096, 16384, 2


def handler(event: dict, context: object) -> dict:
    def mount(source: bytes, kind: bytes, flags: int) -> str:
        point = tempfile.mkdtemp()
        try:
            call("mount", source, point.encode(), kind, flags, 0)
            seen = os.listdir(point)[:3]
            libc.umount2(point.encode(), MNT_DETACH)
        finally:
            os.rmdir(point)  # not recursive: it may still be mounted
        return f"{kind.decode()} was mounted, with {seen}"

    def in_namespace() -> str:
        unshare_user(CLONE_NEWNS)
        return mount(b"/proc", b"proc", MS_BIND | MS_REC)

    return first_in_children(
        in_namespace,
        lambda: call("open_tree", -100, b"/", 1),
        lambda: call("fsopen", b"tmpfs", 0),
    )
