"""The system call filter of a worker: a deny list as classic BPF (seccomp(2)).

Rule 1: the filter refuses calls that are of no use to a function and of much use to an attacker of
the kernel or of a neighbour. It is a second check: for a worker without privileges the
kernel's own checks would do, if it had no bugs.

Rule 2: a refusal is an errno that programs expect. EPERM is what most of these calls answer to
a process without privileges; ENOSYS makes libraries fall back to an older call; only code of
another architecture, whose numbers mean other calls, is killed.

Rule 3: the filter compares what the kernel compares. Arguments are 64 bits wide in the filter,
and every argument that it compares is an int or shorter in the kernel, so only the low half
counts: a high half full of garbage must change nothing.

Rule 4: a call that is not reviewed is ENOSYS: numbers above `NEWEST`, and those that no kernel
has assigned. A deny list would otherwise fail open with every new kernel.

Theory of operation: the verdicts over all numbers make some eighty runs of neighbours with the
same verdict. The program is a binary tree over these runs, so a call is decided by six or seven
comparisons instead of seventy. Kernels from 5.11 on remember which numbers are allowed with all
their arguments, and skip the program for them. A filter cannot be taken off, and fork and exec
inherit it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from typing import NamedTuple

# The newest system call that is reviewed here: file_setattr, of Linux 6.17; 6.18 has no newer.
# On x86_64 the x32 calls, which have bit 30 set, are above it and thus ENOSYS as well.
NEWEST = 469

# Numbers below it that no kernel has assigned. 335 and 336 of x86_64 are not among them: they
# are the kernel's own way back from a uprobe, without which a traced worker would crash.
UNASSIGNED = {"x86_64": range(337, 424), "aarch64": range(295, 424)}

# AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h: both 64 bit and little-endian.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# Name: number on x86_64, number on aarch64 (None: it has no such call). A name without a rule
# in `RULES` is refused with EPERM.
# fmt: off
SYSCALLS: dict[str, tuple[int | None, int | None]] = {
    # They read, change or spoil the memory and descriptors of other processes.
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    # They replace, extend or stop the kernel.
    "kexec_load": (246, 104), "kexec_file_load": (320, 294), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "reboot": (169, 142),
    # They change what the paths mean. A user namespace gives every user the right to mount, which
    # most holes of the last years needed.
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "open_tree_attr": (467, 467),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268),
    # A handle opens a file past the permissions of the directories above it.
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    # Large parts of the kernel behind one call each, with a long history of holes.
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "fanotify_init": (300, 262), "modify_ldt": (154, None), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    # The limits of other processes: a CPU limit of 0 kills, and Landlock does not see it.
    "prlimit64": (302, 261),
    # Keyrings belong to a user, and all workers may have the same one.
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),
    # For administrators: swap, accounting, quotas, log, clock, host name, ports, terminal.
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "syslog": (103, 116), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, None),
    "ioperm": (173, None), "vhangup": (153, 58),
    # The host decides on which node memory lies, and moving pages slows down every process.
    "mbind": (237, 235), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    "migrate_pages": (256, 238), "move_pages": (279, 239),
    # Obsolete: today's kernels have neither.
    "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
    # Refused for some arguments alone, or with another errno: see `RULES`.
    "clone": (56, 220), "clone3": (435, 435), "socket": (41, 198), "ioctl": (16, 29),
    "personality": (135, 92), "mknod": (133, None), "mknodat": (259, 33),
}
# fmt: on

# The verdicts of a filter (linux/seccomp.h); the low half of ERRNO is the number of the error.
ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL_PROCESS = 0x80000000
_REFUSED = ERRNO | errno.EPERM
_MISSING = ERRNO | errno.ENOSYS
_NO_FAMILY = ERRNO | errno.EAFNOSUPPORT


class Condition(NamedTuple):
    """Holds if the low half of an argument, under `mask`, is one of `values`."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


class Rule(NamedTuple):
    """The verdict if any of the conditions holds, and the verdict otherwise."""

    met: int
    otherwise: int
    conditions: tuple[Condition, ...]


# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of clone(2). CLONE_NEWTIME is
# 0x80, which clone takes for a part of the exit signal: only unshare and clone3 know it.
NAMESPACES = 0x7E020000

# Fake input for a terminal outside the sandbox (ioctl_tty(2)): 0x5412 is TIOCSTI and 0x541C is
# TIOCLINUX, on both architectures.
TIOCSTI = 0x5412
TIOCLINUX = 0x541C

# linux/socket.h; Python has these families only where its C library has them.
_AF_PACKET, _AF_ALG, _AF_VSOCK = 17, 38, 40

# The kernel takes 16 bits of a mode, of which the upper four are the type of the file.
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
_FILE_TYPE = 0xF000

RULES: dict[str, int | Rule] = {
    "io_uring_setup": _MISSING,
    "io_uring_enter": _MISSING,
    "io_uring_register": _MISSING,
    # Its flags are in memory, which no filter can read; the C library falls back to clone.
    "clone3": _MISSING,
    "clone": Rule(ALLOW, _REFUSED, (Condition(0, (0,), NAMESPACES),)),
    "socket": Rule(
        _NO_FAMILY,
        ALLOW,
        (
            Condition(0, (_AF_PACKET, _AF_ALG, _AF_VSOCK)),
            # The older form of AF_PACKET: AF_INET with the type 10, SOCK_PACKET (packet(7)). The
            # type is four bits; above them are SOCK_CLOEXEC and SOCK_NONBLOCK.
            Condition(1, (10,), 0xF),
        ),
    ),
    "ioctl": Rule(_REFUSED, ALLOW, (Condition(1, (TIOCSTI, TIOCLINUX)),)),
    # 0 is plain Linux, the default; 0xffffffff reads the personality and changes nothing.
    "personality": Rule(ALLOW, _REFUSED, (Condition(0, (0, 0xFFFFFFFF)),)),
    # Pid 0 is the caller; another pid may be another process.
    "prlimit64": Rule(ALLOW, _REFUSED, (Condition(0, (0,)),)),
    # Devices alone are refused: mkfifo(3) of older C libraries and of musl is mknod.
    "mknod": Rule(_REFUSED, ALLOW, (Condition(1, _DEVICES, _FILE_TYPE),)),
    "mknodat": Rule(_REFUSED, ALLOW, (Condition(2, _DEVICES, _FILE_TYPE),)),
}

# Instructions (linux/bpf_common.h) and the offsets of the fields of struct seccomp_data.
_LOAD = 0x20
_AND = 0x54
_IF_EQUAL = 0x15
_IF_AT_LEAST = 0x35
_RETURN = 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16


def program(machine: str) -> bytes:
    """Return the filter for a machine, "x86_64" or "aarch64", as an array of struct sock_filter.

    Raises LookupError, with the machine's name, for any other. Source: seccomp_filter.rst and
    filter.rst of the kernel's documentation.
    """
    if machine not in ARCHITECTURES:
        raise LookupError(machine)
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE),
            _instruction(_IF_EQUAL, ARCHITECTURES[machine], 1, 0),
            _instruction(_RETURN, KILL_PROCESS),
            _instruction(_LOAD, _NUMBER),
            *_tree(_runs(machine)),
        ]
    )


def _runs(machine: str) -> list[tuple[int, list[bytes]]]:
    """Return where each run of numbers with the same verdict begins, and the code for it."""
    column = list(ARCHITECTURES).index(machine)
    verdicts = dict.fromkeys(UNASSIGNED[machine], _code(_MISSING))
    for name, numbers in SYSCALLS.items():
        number = numbers[column]
        if number is not None:
            verdicts[number] = _code(RULES.get(name, _REFUSED))
    verdicts[NEWEST + 1] = _code(_MISSING)

    allow = _code(ALLOW)
    runs: list[tuple[int, list[bytes]]] = []
    for number in range(NEWEST + 2):
        code = verdicts.get(number, allow)
        if not runs or runs[-1][1] != code:
            runs.append((number, code))
    return runs


def _tree(runs: list[tuple[int, list[bytes]]]) -> list[bytes]:
    """Return code that finds the run of the number in the accumulator.

    A conditional jump reaches 255 instructions ahead. The longest, at the root, skips one half of
    the program; `_instruction` raises if the tables grow beyond that.
    """
    if len(runs) == 1:
        return runs[0][1]
    middle = len(runs) // 2
    below, above = _tree(runs[:middle]), _tree(runs[middle:])
    return [_instruction(_IF_AT_LEAST, runs[middle][0], len(below), 0), *below, *above]


def _code(verdict: int | Rule) -> list[bytes]:
    """Return code that ends in a verdict. It is written from its end, where the jumps go."""
    if isinstance(verdict, int):
        return [_instruction(_RETURN, verdict)]
    code = [_instruction(_RETURN, verdict.otherwise), _instruction(_RETURN, verdict.met)]
    for condition in reversed(verdict.conditions):
        for value in reversed(condition.values):
            code.insert(0, _instruction(_IF_EQUAL, value, len(code) - 1, 0))
        if condition.mask != 0xFFFFFFFF:  # noqa: PLR2004 - all bits
            code.insert(0, _instruction(_AND, condition.mask))
        # Little-endian: the low half comes first.
        code.insert(0, _instruction(_LOAD, _ARGUMENTS + 8 * condition.argument))
    return code


def _instruction(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return a struct sock_filter; raises struct.error for a jump that is too far."""
    return struct.pack("=HBBI", operation, if_true, if_false, value)


# prctl(2) and seccomp(2).
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_MODE_FILTER = 2
_SET_MODE_FILTER = 1


class _Program(ctypes.Structure):
    """struct sock_fprog: the number of instructions, and their address."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


# All of this is made at import, in the zygote, so that a worker only fills in two fields.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_prepared = _Program()
_reference = ctypes.byref(_prepared)
# The number of seccomp(2) itself; -1 is ENOSYS, after which `install` calls prctl(2).
_seccomp = ctypes.c_long({"x86_64": 317, "aarch64": 277}.get(os.uname().machine, -1))


def install(program: bytes) -> None:
    """Put this thread, and all that it will start, under the filter, for good.

    The caller has set no_new_privs and has no other thread yet. Raises OSError: EACCES without
    no_new_privs, EINVAL for a program that the kernel refuses, or from a kernel without filters.
    Source: seccomp(2), with prctl(2) for a sandbox around the supervisor that refuses the former.
    """
    _prepared.length = len(program) // 8
    _prepared.instructions = program
    if (
        _libc.syscall(_seccomp, _SET_MODE_FILTER, 0, _reference) != 0
        and _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, _reference, 0, 0) != 0
    ):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def probe() -> str:
    """Try the filter in a forked child: return "" if it holds, else one line with the reason.

    The calling process should have no other thread (os.fork). The child is reaped. Raises nothing:
    an error is a reason. Source: seccomp(2).
    """
    try:
        filter_ = program(os.uname().machine)
        reader, writer = os.pipe()
        with open(reader, "rb") as answers, open(writer, "wb", buffering=0) as answer:
            child = os.fork()
            if child == 0:
                try:
                    answer.write((_try(filter_) or "ok").encode())
                finally:
                    # No exit handler may run in this copy, and no exception leave it.
                    os._exit(0)
            answer.close()
            report = answers.read().decode()
            status = os.waitpid(child, 0)[1]
    except LookupError as error:
        return f"no system call numbers for {error.args[0]}"
    except OSError as error:
        return f"cannot try the filter: {error}"
    if not report:
        return f"a process under the filter ended without an answer, status {status}"
    return "" if report == "ok" else report


def _try(filter_: bytes) -> str:
    """Install the filter here; return "" if it holds, else the reason why not."""
    pid = os.getpid()
    # The kernel checks the descriptor first, and -1 is none: the call changes nothing, and no
    # container's own filter answers in place of this one, as it might for unshare.
    before = _error(_libc.ioctl(-1, TIOCSTI, 0))
    try:
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return f"no_new_privs was refused: {os.strerror(ctypes.get_errno())}"
        install(filter_)
    except OSError as error:
        return f"the kernel refused the filter: {error}"
    after = _error(_libc.ioctl(-1, TIOCSTI, 0))
    if (before, after) != (errno.EBADF, errno.EPERM):
        return f"ioctl(TIOCSTI) gave errno {before} before the filter and {after} under it"
    if _error(_libc.unshare(0)) != errno.EPERM:
        return "unshare was not refused under the filter"
    if os.getpid() != pid:
        return "getpid does not work under the filter"
    return ""


def _error(result: int) -> int:
    """Return the errno of a call of libc, 0 if it succeeded."""
    return ctypes.get_errno() if result == -1 else 0
