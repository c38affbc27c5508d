"""Mount something: a /proc, a tmpfs, a copy of what is mounted; with root of a user namespace.

Stopped by having no capability, and by seccomp, which refuses the calls and the namespace that
would give one. What is mounted is in a child's own mount namespace, and gone with it.
"""

import os
import tempfile

from linux import CLONE_NEWNS, call, first_in_children, unshare_user


def handler(event: dict, context: object) -> dict:
    def mount(kind: bytes) -> str:
        with tempfile.TemporaryDirectory() as point:
            call("mount", kind, point.encode(), kind, 0, 0)
            seen = os.listdir(point)[:3]
            if kind == b"proc":
                return f"proc shows {seen}"
            return "a tmpfs was mounted"

    def in_namespace(kind: bytes) -> str:
        unshare_user(CLONE_NEWNS)
        return mount(kind)

    return first_in_children(
        lambda: in_namespace(b"proc"),
        lambda: in_namespace(b"tmpfs"),
        lambda: call("open_tree", -100, b"/", 1),
        lambda: call("fsopen", b"tmpfs", 0),
    )
