"""Shared by the escapes: system calls by number, and attempts in forked children."""

import contextlib
import ctypes
import os
from collections.abc import Callable

MACHINE = os.uname().machine
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "prlimit": 302, "process_vm_readv": 310, "add_key": 248, "keyctl": 250,
        "sched_setscheduler": 144, "ioprio_set": 251, "shmget": 29, "shmctl": 31,
        "mount": 165, "chroot": 161, "unshare": 272,
    },
    "aarch64": {
        "ptrace": 117, "prlimit": 261, "process_vm_readv": 270, "add_key": 217, "keyctl": 219,
        "sched_setscheduler": 119, "ioprio_set": 30, "shmget": 194, "shmctl": 195,
        "mount": 40, "chroot": 51, "unshare": 97,
    },
}[MACHINE] | {"open_tree": 428, "fsopen": 430, "io_uring_setup": 425, "clone3": 435}  # fmt: skip

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: object) -> int:
    """Make a system call; return what it returns, raise OSError with its name."""
    # Integers as wide as a register: a C int of ctypes leaves garbage in the upper half.
    wide = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *wide)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def unshare_user(flags: int = 0) -> None:
    """Move to a new user namespace, with every capability in it; `flags` adds namespaces."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", CLONE_NEWUSER | flags)
    # User 0 without capabilities may not write these maps, and has all capabilities without them.
    with contextlib.suppress(OSError):
        maps = (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1"))
        for name, text in maps:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)


def in_child(attempt: Callable) -> tuple:
    """Run an attempt in a forked child; return whether it worked, and its text or error.

    Changes that it makes to its process end with the child.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, f"+{attempt()}".encode())
        except Exception as exc:  # noqa: BLE001 - each kind is a refusal
            os.write(writer, f"-{exc}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    return text.startswith("+"), text[1:] or "the child was killed"


def first(*attempts: Callable) -> dict:
    """Try one attempt after the other; return the verdict of the first that works, or of all."""
    refusals = []
    for attempt in attempts:
        try:
            return {"escaped": True, "seen": str(attempt())}
        except (OSError, ValueError) as exc:
            refusals.append(str(exc))
    return {"escaped": False, "seen": "; ".join(refusals)}


def first_in_children(*attempts: Callable) -> dict:
    """Do as `first` does, each attempt in a child of its own."""
    outcomes = [in_child(attempt) for attempt in attempts]
    for works, seen in outcomes:
        if works:
            return {"escaped": True, "seen": seen}
    return {"escaped": False, "seen": "; ".join(seen for _, seen in outcomes)}


def pids() -> list:
    """Return the pids in /proc, without pid 1."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) > 1]


def read(path: str, count: int = 1 << 20) -> bytes:
    """Return the beginning of a file."""
    with open(path, "rb") as file:
        return file.read(count)
