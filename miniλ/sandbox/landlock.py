"""Landlock: a worker opens the files that rules allow, and no others (landlock(7)).

Rule 1: a ruleset is an object of the kernel behind a descriptor. A forked child shares it, and
a rule that one side adds counts for both, so a ruleset is made in the process that enforces it.

Rule 2: the rules for what every function needs are added first, before it is known which function
it will be, and those of the function after them. Only `enforce` cannot be undone.

Rule 3: there is no "best effort". `probe` tells whether it works, and the caller decides.

Theory of operation: a ruleset names the accesses that it handles, and each of them is refused from
`enforce` on, unless the file or a directory above it has a rule that grants it. It holds for the
calling thread and everything that it forks or execs afterwards, for good, for root as well. Each
ABI of Landlock has more accesses than the one before; a ruleset handles those that the kernel has.
A confined process also loses, without a rule, ptrace(2) of processes outside, calls with the same
check (process_vm_readv, pidfd_getfd, and environ, maps, mem, fd, root and cwd in /proc), and
mount(2) and its relatives.

Obligation of the caller: drop CAP_PERFMON and CAP_SYS_ADMIN. With either of them Linux 6.18 still
shows environ, maps and smaps of every process, because it checks for CAP_PERFMON where ptrace was
refused.

What it does not stop, in any ABI from 1 to 7: stat, chdir, access, chmod, chown, utime and
setxattr of a path that cannot be opened; descriptors that are open already; connecting to a
UNIX socket that has a path, such as Docker's; System V shared memory; niceness, affinity and
limits of processes of the same user; command lines and lists of descriptors in /proc, where
/proc is listed; the network: its rules, which have TCP ports and no UDP, are not used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

# The accesses to files, as uapi/linux/landlock.h has them. ABI 1:
EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_CHAR = 1 << 6
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
MAKE_SOCK = 1 << 9
MAKE_FIFO = 1 << 10
MAKE_BLOCK = 1 << 11
MAKE_SYM = 1 << 12
# ABI 2, kernel 5.19. In ABI 1 the kernel refuses every rename and link from one directory to
# another (EXDEV), also between two that are writable.
REFER = 1 << 13
# ABI 3, kernel 6.2. Before it, truncate(2) empties every file that its mode lets this user write,
# with a rule or without; only open(O_TRUNC) is a write, and refused in every ABI.
TRUNCATE = 1 << 14
# ABI 5, kernel 6.10.
IOCTL_DEV = 1 << 15

# ABI 6, kernel 6.12: these stay within the processes confined together.
SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
SCOPE_SIGNAL = 1 << 1

READING = EXECUTE | READ_FILE | READ_DIR
# No MAKE_CHAR and no MAKE_BLOCK: root could make the disk's device in its /tmp, and read the disk.
WRITING = (
    READING | WRITE_FILE | TRUNCATE | REFER | REMOVE_DIR | REMOVE_FILE
    | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM
)  # fmt: skip
# A rule on a file that is no directory may hold only these: EINVAL otherwise.
ON_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

# The same numbers on every architecture but Alpha.
_CREATE_RULESET = 444
_ADD_RULE = 445
_RESTRICT_SELF = 446
_NAMES = {
    _CREATE_RULESET: "landlock_create_ruleset",
    _ADD_RULE: "landlock_add_rule",
    _RESTRICT_SELF: "landlock_restrict_self",
}

_VERSION_FLAG = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

# Packed by hand: each is used for one call, and ctypes would make a class for each.
_ruleset_attributes = struct.Struct("=QQQ")  # handled_access_fs, handled_access_net, scoped
_path_beneath_attributes = struct.Struct("=Qi")  # allowed_access, parent_fd; packed, 12 bytes

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# Each as wide as a register, pointers and numbers alike; bytes are passed as their address.
_syscall.argtypes = [ctypes.c_long] + [ctypes.c_void_p] * 4
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def abi() -> int:
    """Return the version of Landlock that the kernel offers, 0 if it offers none.

    Also 0 if a seccomp filter around the supervisor refuses the system call. Source:
    landlock_create_ruleset(2), LANDLOCK_CREATE_RULESET_VERSION. Raises nothing.
    """
    return max(_version(), 0)


def scopes_signals(version: int) -> bool:
    """Return whether a ruleset of this ABI also stops signals to processes outside.

    Signals and abstract UNIX sockets came together, with ABI 6. Source: landlock(7), SCOPE
    FLAGS. Raises nothing.
    """
    return bool(_scoped(version) & SCOPE_SIGNAL)


def probe() -> str:
    """Return "" if Landlock keeps a process from a file, else one line with the reason.

    Tries it in a forked child: the kernel may have it, and a filter or 16 rulesets around this
    process refuse it. Since it forks, it is not for a process with threads. Source: landlock(7).
    Raises OSError if the kernel has no process or descriptor left.
    """
    version = _version()
    if version <= 0:
        return _why_none(-version)
    reading, writing = os.pipe()
    try:
        pid = os.fork()
        if pid == 0:
            line = "the process that tried it died"
            try:
                line = _try(version)
            except OSError as error:
                line = f"it is refused: {error}"
            finally:
                # No caller may go on in this copy of the process.
                os.write(writing, line.encode("utf-8", "replace"))
                os._exit(0)
        os.close(writing)
        writing = -1
        report = b""
        # The status tells an empty line from a child that was killed.
        while chunk := os.read(reading, 4096):
            report += chunk
        status = os.waitpid(pid, 0)[1]
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
    return report.decode("utf-8", "replace") if status == 0 else "the process that tried it died"


class Ruleset:
    """The accesses that one process will have, from `enforce` on. See the rules above."""

    def __init__(self, version: int) -> None:
        """Make a ruleset that allows nothing, of ABI `version`: at most `abi()`.

        Source: landlock_create_ruleset(2). Raises OSError: ENOSYS or EOPNOTSUPP without
        Landlock, EMFILE, or EINVAL for a version that the kernel does not have.
        """
        self._handled = _handled(version)
        attributes = _ruleset_attributes.pack(self._handled, 0, _scoped(version))
        # An older kernel takes the longer struct if the fields that it does not have are zero. The
        # kernel sets O_CLOEXEC itself.
        self._descriptor = _call(_CREATE_RULESET, attributes, len(attributes), 0, 0)

    def allow_reading(self, path: str) -> None:
        """Allow to read, list and execute `path` and all beneath it.

        A path that does not exist is skipped: lists of runtime directories name /lib64 on hosts
        without one. It stays refused if it is made later. A symbolic link stands for its present
        target. Source: landlock_add_rule(2). Raises OSError with the path.
        """
        try:
            self._allow(path, READING)
        except (FileNotFoundError, NotADirectoryError):
            return

    def allow_writing(self, path: str) -> None:
        """Allow to read, execute, write, make, rename and remove all beneath `path`.

        Not to remove or rename `path` itself, which is an access to the directory above, and not
        to make devices. A `path` that is one file or device can be written and truncated, and
        the device takes ioctl(2); devices beneath a directory do not. Source:
        landlock_add_rule(2). Raises OSError with the path, also if it does not exist.
        """
        self._allow(path, WRITING)

    def enforce(self) -> None:
        """Confine this thread, and all that it forks or execs from now on, and close the ruleset.

        The caller has set no_new_privs, and has no other threads: those are not confined. Source:
        landlock_restrict_self(2). Raises OSError: EPERM without no_new_privs, E2BIG inside 16
        rulesets. The ruleset is closed in each case.
        """
        try:
            _call(_RESTRICT_SELF, self._descriptor, 0, 0, 0)
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptor. Idempotent; enforced rules stay. Raises nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _allow(self, path: str, access: int) -> None:
        # O_PATH needs no permission on the file itself, and never blocks on a pipe or device.
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            granted = _granted(access, os.fstat(descriptor).st_mode) & self._handled
            attributes = _path_beneath_attributes.pack(granted, descriptor)
            _call(_ADD_RULE, self._descriptor, _PATH_BENEATH, attributes, 0)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(descriptor)


def _handled(version: int) -> int:
    """Return every access to files that this ABI has: all up to its newest, without gaps."""
    newest = MAKE_SYM
    if version >= 2:  # noqa: PLR2004 - the ABIs are named where the accesses are
        newest = REFER
    if version >= 3:  # noqa: PLR2004
        newest = TRUNCATE
    if version >= 5:  # noqa: PLR2004
        newest = IOCTL_DEV
    return newest * 2 - 1


def _scoped(version: int) -> int:
    """Return every scope that this ABI has."""
    return SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if version >= 6 else 0  # noqa: PLR2004


def _granted(access: int, mode: int) -> int:
    """Return the part of `access` that a rule on a file of this mode may hold."""
    if stat.S_ISDIR(mode):
        return access
    if access & WRITE_FILE and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
        # A device that is allowed by its own path has to work: a GPU is driven by ioctls.
        access |= IOCTL_DEV
    return access & ON_A_FILE


def _try(version: int) -> str:
    """Confine this process to one file; return "" if that holds, else the reason why not."""
    allowed, refused = os.__file__, __file__
    # Both must be readable before, or a refusal would prove nothing.
    for path in (allowed, refused):
        _read(path)
    if _prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    ruleset = Ruleset(version)
    ruleset.allow_reading(allowed)
    ruleset.enforce()
    try:
        _read(allowed)
    except PermissionError:
        return f"it refuses a file that a rule allows, {allowed}"
    try:
        _read(refused)
    except PermissionError:
        return ""
    return f"it is enforced, and yet {refused} can be read"


def _read(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.read(descriptor, 1)
    finally:
        os.close(descriptor)


def _why_none(number: int) -> str:
    """Return the reason for the errno with which the kernel refuses to name its version."""
    if number == errno.ENOSYS:
        return "the kernel is built without Landlock (it needs 5.13 or newer)"
    if number == errno.EOPNOTSUPP:
        return "Landlock is off: add lsm=landlock,... to the kernel's command line"
    reason = os.strerror(number)
    return f"the system call is refused, by a seccomp filter around this process: {reason}"


def _version() -> int:
    """Return the ABI, or the negative errno."""
    try:
        return _call(_CREATE_RULESET, 0, 0, _VERSION_FLAG, 0)
    except OSError as error:
        return -(error.errno or errno.ENOSYS)


def _call(number: int, *arguments: object) -> int:
    result: int = _syscall(number, *arguments)
    if result < 0:
        failed = ctypes.get_errno()
        raise OSError(failed, f"{_NAMES[number]}: {os.strerror(failed)}")
    return result
