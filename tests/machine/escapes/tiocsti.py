"""Type into a terminal outside: ioctl(2) with TIOCSTI, or with TIOCLINUX to paste.

Stopped by seccomp. There is no descriptor -1, so nothing is typed: EBADF is the kernel's own
answer, which shows that no filter refused the call.
"""

import ctypes
import errno

from linux import libc

TIOCSTI, TIOCLINUX = 0x5412, 0x541C


def handler(event: dict, context: object) -> dict:
    seen = []
    for request in (TIOCSTI, TIOCLINUX):
        libc.ioctl(-1, request, 0)
        seen.append(errno.errorcode[ctypes.get_errno()])
    return {"escaped": "EBADF" in seen, "seen": " ".join(seen)}
