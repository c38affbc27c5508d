"""Mount something: a copy of /proc, any tree, a new tmpfs; with root of a user namespace.

Stopped by having no capability, and by seccomp, which refuses the calls and the namespace that
would give one. What is mounted is in a child's own mount namespace, and gone with it.
"""

import os
import tempfile

from linux import CLONE_NEWNS, call, first_in_children, unshare_user

MS_BIND, MS_REC = 4096, 16384


def handler(event: dict, context: object) -> dict:
    def mount(source: bytes, kind: bytes, flags: int) -> str:
        with tempfile.TemporaryDirectory() as point:
            call("mount", source, point.encode(), kind, flags, 0)
            return f"{kind.decode()} was mounted, with {os.listdir(point)[:3]}"

    def in_namespace() -> str:
        unshare_user(CLONE_NEWNS)
        return mount(b"/proc", b"proc", MS_BIND | MS_REC)

    return first_in_children(
        in_namespace,
        lambda: call("open_tree", -100, b"/", 1),
        lambda: call("fsopen", b"tmpfs", 0),
    )
