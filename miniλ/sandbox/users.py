"""Users and privileges: a worker's user, and no way for it to gain more.

With root, each worker runs as a user and a group of its own, leased from a range that no
other program is known to use: then RLIMIT_NPROC counts its processes alone, and no other worker may
signal, trace or read it. Without root a worker runs as the supervisor's user.

In both cases its capabilities are dropped, all sets of them, and a program that it execs gains none
(PR_SET_NO_NEW_PRIVS).

Sources: credentials(7), capabilities(7), prctl(2), kernel doc userspace-api/no_new_privs.rst.
"""

from __future__ import annotations

import ctypes
import os

PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION_3 = 0x20080522

# Above the ranges of distributions, systemd (61184 to 65519) and container engines (subuid(5), from
# 100,000 up to some hundreds of millions), and below 2^31, which some programs take for negative.
FIRST = 1_900_000_000
COUNT = 65_536

_libc = ctypes.CDLL(None, use_errno=True)


class Users:
    """Users for workers, each for one at a time; a group has the number of its user.

    Supervisors do not know of each other: each begins at a random number of the range. If two lease
    the same user all the same, pid namespaces keep the workers apart.
    """

    def __init__(self, first: int = FIRST, count: int = COUNT) -> None:
        self._first = first
        self._count = count
        self._next = int.from_bytes(os.urandom(4), "little") % count
        self._leased: set[int] = set()

    def lease(self) -> int:
        """Return a user that no worker of this supervisor has. Raises OSError if all are leased."""
        for _ in range(self._count):
            user = self._first + self._next
            self._next = (self._next + 1) % self._count
            if user not in self._leased:
                self._leased.add(user)
                return user
        msg = f"all {self._count} users from {self._first} on are leased"
        raise OSError(msg)

    def give_back(self, user: int) -> None:
        """Take back a user whose last process has ended."""
        self._leased.discard(user)


def become(user: int) -> None:
    """Change to this user and its group, and no other groups, for good. Raises OSError."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # A change of user leaves /proc/self to root (PR_SET_DUMPABLE in prctl(2)).
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct of capset(2)."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct of capset(2): one of two, 32 capabilities each."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


_header = _Header(CAPABILITY_VERSION_3, 0)
_nothing = (_Data * 2)()


def drop_bounding_set() -> None:
    """Empty the bounding set, so that no file's capabilities count (needs CAP_SETPCAP)."""
    # Without it the set stays as it is, and PR_SET_NO_NEW_PRIVS alone forbids them.
    capability = 0
    while _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1


def drop_capabilities() -> None:
    """Drop all capabilities; programs that are exec'ed gain none. Raises OSError."""
    _libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    if _libc.capset(ctypes.byref(_header), _nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")


def probe() -> bool:
    """Return whether this process can change to another user: root may lack CAP_SETUID.

    Tries it in a forked child.
    """
    if os.geteuid() != 0:
        return False
    pid = os.fork()
    if pid == 0:
        try:
            become(FIRST)
        except BaseException:  # noqa: BLE001 - it is the status, and this copy ends here
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0
