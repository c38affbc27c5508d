"""Tests of the system call filter: its program in an interpreter, and in processes under it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from miniλ.sandbox import seccomp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MACHINES = ["x86_64", "aarch64"]
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_I386 = 0x40000003
AUDIT_ARM = 0x40000028

ALLOW = 0x7FFF0000
KILL = 0x80000000
EPERM = 0x00050000 | errno.EPERM
ENOSYS = 0x00050000 | errno.ENOSYS
EAFNOSUPPORT = 0x00050000 | errno.EAFNOSUPPORT

GARBAGE = 0xDEADBEEF << 32

# Number on x86_64, number on aarch64, from asm/unistd_64.h and asm-generic/unistd.h: written
# down here again, so that a slip in one table is seen in the other.
# fmt: off
PLAIN = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112),
    "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "init_module": (175, 105), "ioperm": (173, None), "iopl": (172, None),
    "kexec_file_load": (320, 294), "kexec_load": (246, 104), "keyctl": (250, 219),
    "lookup_dcookie": (212, 18), "mbind": (237, 235), "migrate_pages": (256, 238),
    "modify_ldt": (154, None), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "open_tree_attr": (467, 467), "perf_event_open": (298, 241), "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117),
    "quotactl": (179, 60), "quotactl_fd": (443, 443), "reboot": (169, 142),
    "request_key": (249, 218), "set_mempolicy": (238, 237), "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162), "sethostname": (170, 161), "setns": (308, 268),
    "settimeofday": (164, 170), "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116),
    "umount2": (166, 39), "unshare": (272, 97), "userfaultfd": (323, 282), "vhangup": (153, 58),
}
ABSENT = {
    "clone3": (435, 435), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
}
CONDITIONAL = {
    "clone": (56, 220), "ioctl": (16, 29), "mknod": (133, None), "mknodat": (259, 33),
    "personality": (135, 92), "prlimit64": (302, 261), "socket": (41, 198),
}
ALLOWED = {
    "execve": (59, 221), "exit_group": (231, 94), "file_setattr": (469, 469), "futex": (202, 98),
    "get_mempolicy": (239, 236), "getpid": (39, 172), "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444), "landlock_restrict_self": (446, 446), "mmap": (9, 222),
    "openat": (257, 56), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "prctl": (157, 167), "read": (0, 63), "rseq": (334, 293), "seccomp": (317, 277),
    "socketpair": (53, 199), "wait4": (61, 260), "write": (1, 64),
}
# fmt: on
NUMBERS = {**PLAIN, **ABSENT, **CONDITIONAL, **ALLOWED}

# The calls whose verdict hangs on an argument: name, arguments, verdict. The high halves are
# garbage that the kernel does not look at.
CASES = [
    ("clone", (0x003D0F00,), ALLOW),  # pthread_create of glibc
    ("clone", (0x01200000 | signal.SIGCHLD,), ALLOW),  # fork
    ("clone", (0x00004100 | signal.SIGCHLD,), ALLOW),  # vfork
    ("clone", (GARBAGE | 0x003D0F00,), ALLOW),
    ("clone", (0x7E02000000000000,), ALLOW),
    ("clone", (0x80,), ALLOW),  # not CLONE_NEWTIME here, but a part of the exit signal
    ("clone", (0x00020000,), EPERM),  # NEWNS
    ("clone", (0x02000000,), EPERM),  # NEWCGROUP
    ("clone", (0x04000000,), EPERM),  # NEWUTS
    ("clone", (0x08000000,), EPERM),  # NEWIPC
    ("clone", (0x10000000,), EPERM),  # NEWUSER
    ("clone", (0x20000000,), EPERM),  # NEWPID
    ("clone", (0x40000000,), EPERM),  # NEWNET
    ("clone", (GARBAGE | 0x10000000 | signal.SIGCHLD,), EPERM),
    ("socket", (1, 1, 0), ALLOW),  # AF_UNIX
    ("socket", (2, 0o2000001, 6), ALLOW),  # AF_INET, SOCK_STREAM | SOCK_CLOEXEC
    ("socket", (10, 2, 17), ALLOW),  # AF_INET6, SOCK_DGRAM
    ("socket", (16, 3, 0), ALLOW),  # AF_NETLINK, which getaddrinfo opens
    ("socket", (17 << 32 | 2, 10 << 32 | 1, 0), ALLOW),
    ("socket", (17, 3, 0), EAFNOSUPPORT),  # AF_PACKET
    ("socket", (38, 5, 0), EAFNOSUPPORT),  # AF_ALG
    ("socket", (40, 1, 0), EAFNOSUPPORT),  # AF_VSOCK
    ("socket", (GARBAGE | 17, 3, 0), EAFNOSUPPORT),
    ("socket", (GARBAGE | 38, 5, 0), EAFNOSUPPORT),
    ("socket", (GARBAGE | 40, 1, 0), EAFNOSUPPORT),
    ("socket", (2, 10, 0), EAFNOSUPPORT),  # SOCK_PACKET, which the kernel turns into AF_PACKET
    ("socket", (2, GARBAGE | 0o2004000 | 10, 0), EAFNOSUPPORT),
    ("socketpair", (40, 1, 0), ALLOW),
    ("ioctl", (0, 0x5401), ALLOW),  # TCGETS
    ("ioctl", (0, 0x5412 << 32), ALLOW),
    ("ioctl", (0x5412, 0), ALLOW),
    ("ioctl", (0, 0x5412), EPERM),
    ("ioctl", (0, 0x541C), EPERM),
    ("ioctl", (0, GARBAGE | 0x5412), EPERM),
    ("ioctl", (0, GARBAGE | 0x541C), EPERM),
    ("ioctl", (0, 0xFFFFFFFF00005412), EPERM),
    ("prlimit64", (0, 7), ALLOW),  # its own, as getrlimit(2) of glibc asks
    ("prlimit64", (GARBAGE, 7), ALLOW),
    ("prlimit64", (1, 7), EPERM),
    ("prlimit64", (GARBAGE | 4711, 7), EPERM),
    ("personality", (0,), ALLOW),
    ("personality", (0xFFFFFFFF,), ALLOW),
    ("personality", (0xFFFFFFFFFFFFFFFF,), ALLOW),
    ("personality", (GARBAGE,), ALLOW),
    ("personality", (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
    ("personality", (8,), EPERM),  # PER_LINUX32
    ("personality", (GARBAGE | 8,), EPERM),
    ("mknod", (0, stat.S_IFIFO | 0o600), ALLOW),
    ("mknod", (0, stat.S_IFSOCK | 0o600), ALLOW),
    ("mknod", (0, 0o7777), ALLOW),
    ("mknod", (0, stat.S_IFCHR | 0o666), EPERM),
    ("mknod", (0, stat.S_IFBLK), EPERM),
    ("mknod", (0, GARBAGE | 0xBEEF0000 | stat.S_IFCHR), EPERM),
    ("mknodat", (0, 0, stat.S_IFIFO | 0o600), ALLOW),
    ("mknodat", (0, 0, stat.S_IFSOCK | 0o600), ALLOW),
    ("mknodat", (0, 0, stat.S_IFREG | 0o600), ALLOW),
    ("mknodat", (0, stat.S_IFCHR, 0), ALLOW),
    ("mknodat", (0, 0, stat.S_IFCHR | 0o666), EPERM),
    ("mknodat", (0, 0, stat.S_IFBLK | 0o7777), EPERM),
    ("mknodat", (0, 0, GARBAGE | 0xBEEF0000 | stat.S_IFBLK), EPERM),
]


class Instruction(NamedTuple):
    """One struct sock_filter."""

    code: int
    if_true: int
    if_false: int
    value: int


def decode(program: bytes) -> list[Instruction]:
    """Return the instructions of a program."""
    return [Instruction(*fields) for fields in struct.iter_unpack("=HBBI", program)]


class Interpreter:
    """Classic BPF as seccomp_filter.rst has it; remembers every step it ever took."""

    def __init__(self, machine: str) -> None:
        self.instructions = decode(seccomp.program(machine))
        self.audit = AUDIT[machine]
        self.steps: set[tuple[int, bool]] = set()
        self.length = 0

    def run(self, number: int, arguments: tuple[int, ...] = (), audit: int | None = None) -> int:
        """Return the verdict over a call; `length` is how many instructions it took."""
        six = (*arguments, *(0,) * (6 - len(arguments)))
        audit = self.audit if audit is None else audit
        data = struct.pack("<IIQ6Q", number, audit, 0x7F0000001234, *six)
        accumulator = position = self.length = 0
        while True:
            code, if_true, if_false, value = self.instructions[position]
            self.length += 1
            is_true = True
            if code == 0x06:
                self.steps.add((position, True))
                return value
            if code == 0x20:
                assert value % 4 == 0
                (accumulator,) = struct.unpack_from("<I", data, value)
            elif code == 0x54:
                accumulator &= value
            elif code == 0x15:
                is_true = accumulator == value
            elif code == 0x35:
                is_true = accumulator >= value
            else:
                raise ValueError(f"unknown instruction {code:#x} at {position}")
            self.steps.add((position, is_true))
            position += 1 + (if_true if is_true else if_false)


def numbers(table: dict[str, tuple[int | None, int | None]], machine: str) -> dict[str, int]:
    """Return the numbers of a table on a machine, without the names that it lacks."""
    column = MACHINES.index(machine)
    found = {name: pair[column] for name, pair in table.items()}
    return {name: number for name, number in found.items() if number is not None}


def cases(machine: str) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Return number, arguments and verdict of every case that the machine has."""
    known = numbers(NUMBERS, machine)
    for name, arguments, verdict in CASES:
        if name in known:
            yield known[name], arguments, verdict


# The program, in the interpreter


@pytest.mark.parametrize("machine", MACHINES)
def test_every_denied_call_gives_its_errno(machine: str) -> None:
    """Whatever the arguments: EPERM, or ENOSYS where libraries fall back."""
    interpreter = Interpreter(machine)
    expected = dict.fromkeys(numbers(PLAIN, machine), EPERM)
    expected |= dict.fromkeys(numbers(ABSENT, machine), ENOSYS)
    known = numbers({**PLAIN, **ABSENT}, machine)

    for arguments in ((), (2**64 - 1,) * 6):
        assert {name: interpreter.run(known[name], arguments) for name in known} == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_the_tables_are_the_same(machine: str) -> None:
    """No name of the filter goes untested, and the numbers agree."""
    tested = numbers({**PLAIN, **ABSENT, **CONDITIONAL}, machine)

    assert tested == numbers(seccomp.SYSCALLS, machine)
    assert len(set(tested.values())) == len(tested)


@pytest.mark.parametrize("machine", MACHINES)
def test_everything_else_is_allowed(machine: str) -> None:
    """Each number up to the newest that is neither in the table nor without a call."""
    interpreter = Interpreter(machine)
    named = set(numbers({**PLAIN, **ABSENT, **CONDITIONAL}, machine).values())
    unassigned = {"x86_64": range(337, 424), "aarch64": range(295, 424)}[machine]
    others = [n for n in range(470) if n not in named and n not in unassigned]

    assert set(numbers(ALLOWED, machine).values()) <= set(others)
    assert {interpreter.run(n) for n in others} == {ALLOW}
    assert {interpreter.run(n, (2**64 - 1,) * 6) for n in others} == {ALLOW}
    assert {interpreter.run(n) for n in unassigned} == {ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_we_do_not_know_is_not_there(machine: str) -> None:
    """Newer calls, the x32 calls, and numbers that are no calls at all."""
    interpreter = Interpreter(machine)
    newer = [470, 471, 511, 512, 547, 1024, 2**31, 2**32 - 1]
    x32 = [0x40000000 | number for number in (0, 1, 101, 165, 512, 547)]

    assert seccomp.NEWEST == 469
    assert {interpreter.run(number) for number in newer + x32} == {ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine: str) -> None:
    """Whatever the number: 20 is getpid on i386 and writev on x86_64."""
    interpreter = Interpreter(machine)
    others = {AUDIT_I386, AUDIT_ARM, 0, 2**32 - 1, *AUDIT.values()} - {AUDIT[machine]}

    assert {interpreter.run(number, (), a) for number in (0, 20, 470) for a in others} == {KILL}


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide_as_in_the_kernel(machine: str) -> None:
    """Only the bits that the kernel looks at: garbage above them neither refuses nor allows."""
    interpreter = Interpreter(machine)

    for number, arguments, verdict in cases(machine):
        assert (number, arguments, interpreter.run(number, arguments)) == (
            number, arguments, verdict,
        )  # fmt: skip


@pytest.mark.parametrize("machine", MACHINES)
def test_every_way_through_the_program_is_taken(machine: str) -> None:
    """No instruction is dead, and both ways out of each jump have an input that takes them."""
    interpreter = Interpreter(machine)
    interpreter.run(0, (), AUDIT_I386)
    for number in (*range(472), 2**32 - 1):
        interpreter.run(number)
    for number, arguments, _ in cases(machine):
        interpreter.run(number, arguments)

    ways = set()
    for position, instruction in enumerate(interpreter.instructions):
        ways.add((position, True))
        if instruction.code in (0x15, 0x35):
            ways.add((position, False))
    assert interpreter.steps == ways


@pytest.mark.parametrize("machine", MACHINES)
def test_the_kernel_can_take_the_program(machine: str) -> None:
    """At most 4096 instructions; jumps go forward and stay inside; the end is a return."""
    instructions = decode(seccomp.program(machine))

    assert len(instructions) < 4096
    for position, instruction in enumerate(instructions):
        if instruction.code in (0x15, 0x35):
            # Offsets have no sign: they cannot go back. Two ways that meet decide nothing.
            assert instruction.if_true != instruction.if_false
            furthest = max(instruction.if_true, instruction.if_false)
            assert position + 1 + furthest < len(instructions)
    assert instructions[-1].code == 0x06


@pytest.mark.parametrize("machine", MACHINES)
def test_a_call_is_decided_in_a_few_steps(machine: str) -> None:
    """A call without conditions costs at most the depth of the tree, not the list."""
    interpreter = Interpreter(machine)
    lengths = []
    for number in range(471):
        if number not in numbers(CONDITIONAL, machine).values():
            interpreter.run(number)
            lengths.append(interpreter.length)

    # Three before the tree, seven in it, and the return.
    assert max(lengths) <= 11


@pytest.mark.parametrize("machine", ["riscv64", "i686", "aarch64_be", ""])
def test_another_machine_is_a_lookup_error(machine: str) -> None:
    """It carries the name: nobody gets the numbers of another machine."""
    with pytest.raises(LookupError) as caught:
        seccomp.program(machine)

    assert caught.value.args == (machine,)


def test_a_jump_too_far_is_an_error() -> None:
    """A table that outgrows eight bits must not wrap around to a wrong verdict."""
    with pytest.raises(struct.error):
        seccomp._instruction(0x35, 0, 256, 0)


# Processes under the filter

MACHINE = os.uname().machine
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def call(name: str, *arguments: int) -> str:
    """Make a system call by its name; return "done", or the name of its errno."""
    longs = [ctypes.c_ulong(argument & 2**64 - 1) for argument in arguments]
    result = LIBC.syscall(ctypes.c_long(numbers(NUMBERS, MACHINE)[name]), *longs)
    return "done" if result != -1 else errno.errorcode[ctypes.get_errno()]


def no_new_privileges() -> None:
    """Set what a filter without privileges needs (prctl(2), PR_SET_NO_NEW_PRIVS)."""
    assert LIBC.prctl(38, 1, 0, 0, 0) == 0


def enter() -> None:
    """Go under the filter, as a worker does."""
    no_new_privileges()
    seccomp.install(seccomp.program(MACHINE))


def in_child(action: Callable[[], Any], *, filtered: bool = True) -> Any:
    """Return what `action` returns in a forked child of ours, or what it raised as text."""
    reader, writer = os.pipe()
    with open(reader, "rb") as answers, open(writer, "wb", buffering=0) as answer:
        child = os.fork()
        if child == 0:
            try:
                try:
                    if filtered:
                        enter()
                    said = action()
                except BaseException as error:  # noqa: BLE001 - the parent asserts on it
                    said = repr(error)
                answer.write(json.dumps(said).encode())
            finally:
                os._exit(0)
        answer.close()
        said = answers.read()
        status = os.waitpid(child, 0)[1]
    assert status == 0
    return json.loads(said)


def test_the_probe_holds_here() -> None:
    """A kernel that runs these tests takes the filter, and refuses by it."""
    assert seccomp.probe() == ""


def surround(*instructions: tuple[int, int, int, int]) -> None:
    """Put a filter around this process, as a container may have one around us."""
    no_new_privileges()
    seccomp.install(b"".join(struct.pack("=HBBI", *fields) for fields in instructions))


def surround_seccomp(verdict: int) -> None:
    """Give seccomp(2) this verdict, and allow the rest."""
    surround(
        (0x20, 0, 0, 0),
        (0x15, 0, 1, numbers(NUMBERS, MACHINE)["seccomp"]),
        (0x06, 0, 0, verdict),
        (0x06, 0, 0, ALLOW),
    )


def test_the_probe_says_that_a_filter_was_refused() -> None:
    """Where both ways to a filter are shut, the answer is a line with the errno."""

    def probe_inside() -> str:
        surround(
            (0x20, 0, 0, 0),
            (0x15, 4, 0, numbers(NUMBERS, MACHINE)["seccomp"]),
            (0x15, 0, 2, numbers(NUMBERS, MACHINE)["prctl"]),
            (0x20, 0, 0, 16),
            (0x15, 1, 0, 22),  # PR_SET_SECCOMP
            (0x06, 0, 0, ALLOW),
            (0x06, 0, 0, ENOSYS),
        )
        return seccomp.probe()

    why = in_child(probe_inside, filtered=False)

    assert why == f"the kernel refused the filter: [Errno {errno.ENOSYS}] prctl(PR_SET_SECCOMP)"


def test_the_probe_says_that_its_child_was_killed() -> None:
    """A sandbox around us may kill instead of refuse: no answer is not a filter that holds."""

    def probe_inside() -> str:
        surround_seccomp(KILL)
        return seccomp.probe()

    why = in_child(probe_inside, filtered=False)

    assert why.startswith("a process under the filter ended without an answer, status ")


def test_the_probe_says_that_ioctl_was_refused_before() -> None:
    """Under a filter that denies the same, the probe proves nothing, and does not claim to."""
    why = in_child(seccomp.probe)

    assert (
        why
        == f"ioctl(TIOCSTI) gave errno {errno.EPERM} before the filter and {errno.EPERM} under it"
    )


def test_the_probe_says_that_there_is_no_child_to_ask() -> None:
    """Without a descriptor to spare it raises nothing."""

    def probe_without_descriptors() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        return seccomp.probe()

    why = in_child(probe_without_descriptors, filtered=False)

    assert why == f"cannot try the filter: [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"


def test_the_probe_says_that_it_does_not_know_the_machine() -> None:
    """PER_LINUX32 is another machine by name, on kernels that have the 32 bit calls."""

    def probe_elsewhere() -> list[str]:
        call("personality", 8)
        return [os.uname().machine, seccomp.probe()]

    machine, why = in_child(probe_elsewhere, filtered=False)

    assert why == ("" if machine == MACHINE else f"no system call numbers for {machine}")


def test_a_sandbox_without_seccomp_leaves_prctl() -> None:
    """Where seccomp(2) is not there, the filter comes by the older way and holds."""

    def enter_by_prctl() -> list[str]:
        surround_seccomp(ENOSYS)
        before = [call("seccomp", 1, 0, 0), call("ptrace", 99, -1)]
        seccomp.install(seccomp.program(MACHINE))
        return [*before, call("ptrace", 99, -1)]

    assert in_child(enter_by_prctl, filtered=False) == ["ENOSYS", "ESRCH", "EPERM"]


@pytest.mark.parametrize("program", [b"", b"\x06\x00\x00\x00\x00\x00\x00", b"\xff" * 8])
def test_what_is_no_program_is_refused(program: bytes) -> None:
    """The kernel's EINVAL is an OSError, and the process is as it was."""

    def install() -> list[Any]:
        no_new_privileges()
        try:
            seccomp.install(program)
        except OSError as error:
            return [error.errno, call("ptrace", 99, -1)]
        return []

    assert in_child(install, filtered=False) == [errno.EINVAL, "ESRCH"]


@pytest.mark.parametrize(
    ("name", "arguments", "without", "under"),
    [
        ("ptrace", (99, -1), "ESRCH", "EPERM"),
        ("process_vm_readv", (0, 0, 0, 0, 0, 0), "done", "EPERM"),
        ("pidfd_getfd", (-1, 0, 0), "EBADF", "EPERM"),
        ("setns", (-1, 0), "EBADF", "EPERM"),
        ("unshare", (0,), "done", "EPERM"),
        ("umount2", (0, 0), "EFAULT", "EPERM"),
        ("chroot", (0,), "EFAULT", "EPERM"),
        ("mknodat", (-100, 0, stat.S_IFCHR | 0o600, 0), "EFAULT", "EPERM"),
        ("mknodat", (-100, 0, GARBAGE | 0xBEEF0000 | stat.S_IFBLK, 0), "EFAULT", "EPERM"),
        ("personality", (0x0040000,), "done", "EPERM"),
        ("ioctl", (-1, 0x5412, 0), "EBADF", "EPERM"),
        ("ioctl", (-1, GARBAGE | 0x541C, 0), "EBADF", "EPERM"),
        # CLONE_NEWNS with CLONE_FS makes no process: the kernel calls it a contradiction.
        ("clone", (0x00020200, 0, 0, 0, 0), "EINVAL", "EPERM"),
        ("clone", (GARBAGE | 0x00020200, 0, 0, 0, 0), "EINVAL", "EPERM"),
        ("clone3", (0, 0), "EINVAL", "ENOSYS"),
        # There is no type 15, and the kernel says so before it looks for the family.
        ("socket", (17, 15, 0), "EINVAL", "EAFNOSUPPORT"),
        ("socket", (38, 15, 0), "EINVAL", "EAFNOSUPPORT"),
        ("socket", (GARBAGE | 40, 15, 0), "EINVAL", "EAFNOSUPPORT"),
        ("socket", (1, 10, 0), "ESOCKTNOSUPPORT", "EAFNOSUPPORT"),
    ],
)
def test_the_filter_refuses_what_the_kernel_would_not(
    name: str, arguments: tuple[int, ...], without: str, under: str
) -> None:
    """The same call twice: the kernel answers otherwise without the filter."""
    assert without == in_child(lambda: call(name, *arguments), filtered=False)
    assert under == in_child(lambda: call(name, *arguments))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("getpid", ()),
        ("personality", (0xFFFFFFFF,)),
        ("personality", (GARBAGE,)),
        ("socket", (1, 0o2000001, 0)),
        ("prctl", (3, 0, 0, 0, 0)),
    ],
)
def test_what_is_allowed_works_under_the_filter(name: str, arguments: tuple[int, ...]) -> None:
    """No verdict but ALLOW lets the kernel do it."""
    assert in_child(lambda: call(name, *arguments)) == "done"


def test_another_filter_and_landlock_may_still_come() -> None:
    """A function, or a browser in it, may sandbox itself further."""
    # A zero version asks Landlock for nothing but its version; older kernels have none.
    reached = in_child(lambda: [call("seccomp", 1, 0, 0), call("landlock_create_ruleset", 0, 0, 1)])

    assert reached[0] == "EFAULT"
    assert reached[1] == in_child(lambda: call("landlock_create_ruleset", 0, 0, 1), filtered=False)


def test_fifos_and_sockets_are_made_under_the_filter(tmp_path: Path) -> None:
    """Only devices are refused; files of these kinds are how processes of a function talk."""

    def make() -> list[bool]:
        os.mkfifo(tmp_path / "fifo")
        os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
        os.mknod(tmp_path / "file")
        return [(tmp_path / "fifo").is_fifo(), (tmp_path / "socket").is_socket()]

    assert in_child(make) == [True, True]


def test_a_program_run_by_a_worker_is_under_its_filter() -> None:
    """Python starts programs under the filter, and they and their children inherit it."""
    number = numbers(NUMBERS, MACHINE)["ptrace"]
    inner = (
        "import ctypes; libc = ctypes.CDLL(None, use_errno=True);"
        f"libc.syscall({number}, 99, -1); print(ctypes.get_errno())"
    )
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"

    def run() -> str:
        done = subprocess.run([sys.executable, "-c", outer], capture_output=True, check=False)
        return (done.stdout + done.stderr).decode()

    assert in_child(run, filtered=False) == f"{errno.ESRCH}\n"
    assert in_child(run) == f"{errno.EPERM}\n"


def test_threads_and_sockets_work_under_the_filter() -> None:
    """A thread is a clone without namespaces, and TCP is a family like any other."""

    def echo() -> list[str]:
        heard: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                with server.accept()[0] as peer:
                    peer.sendall(peer.recv(100).upper())

            thread = threading.Thread(target=answer)
            thread.start()
            with socket.create_connection(server.getsockname()) as client:
                client.sendall(b"hello")
                heard.append(client.recv(100).decode())
            thread.join()
        one, other = socket.socketpair()
        with one, other:
            one.sendall(b"pair")
            heard.append(other.recv(100).decode())
        return heard

    assert in_child(echo) == ["HELLO", "pair"]


def test_threads_inherit_the_filter() -> None:
    """What a worker may not do, no thread of it may."""

    def try_in_a_thread() -> list[str]:
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(call("unshare", 0)))
        thread.start()
        thread.join()
        return results

    assert in_child(try_in_a_thread) == ["EPERM"]
