"""Tests of the system call filter: its program, in an interpreter of classic BPF."""

from __future__ import annotations

import signal
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

import pytest

from miniλ.sandbox import seccomp
from tests.unit.sandbox.syscall_numbers import (
    ABSENT,
    ALLOW,
    ALLOWED,
    CONDITIONAL,
    EAFNOSUPPORT,
    ENOSYS,
    EPERM,
    GARBAGE,
    KILL,
    MACHINES,
    NUMBERS,
    PLAIN,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
AUDIT_I386 = 0x40000003
AUDIT_ARM = 0x40000028


# The calls whose verdict depends on an argument: name, arguments, verdict. The high halves are
# garbage that the kernel ignores.
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
    """Classic BPF as in seccomp_filter.rst; records every step of every run."""

    def __init__(self, machine: str) -> None:
        self.instructions = decode(seccomp.program(machine))
        self.audit = AUDIT[machine]
        self.steps: set[tuple[int, bool]] = set()
        self.length = 0

    def run(self, number: int, arguments: tuple[int, ...] = (), audit: int | None = None) -> int:
        """Return the verdict over a call; sets `length` to the number of instructions."""
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


def cases(machine: str) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Return number, arguments and verdict of every case that the machine has."""
    known = numbers(NUMBERS, machine)
    for name, arguments, verdict in CASES:
        if name in known:
            yield known[name], arguments, verdict


# The program, in the interpreter


@pytest.mark.parametrize("machine", MACHINES)
def test_every_denied_call_gives_its_errno(machine: str) -> None:
    """For all arguments: EPERM, or ENOSYS where libraries fall back."""
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
def test_an_unreviewed_call_is_enosys(machine: str) -> None:
    """Newer calls, the x32 calls, and numbers that are no calls at all."""
    interpreter = Interpreter(machine)
    newer = [470, 471, 511, 512, 547, 1024, 2**31, 2**32 - 1]
    x32 = [0x40000000 | number for number in (0, 1, 101, 165, 512, 547)]

    assert seccomp.NEWEST == 469
    assert {interpreter.run(number) for number in newer + x32} == {ENOSYS}


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine: str) -> None:
    """For each number: 20 is getpid on i386 and writev on x86_64."""
    interpreter = Interpreter(machine)
    others = {AUDIT_I386, AUDIT_ARM, 0, 2**32 - 1, *AUDIT.values()} - {AUDIT[machine]}

    assert {interpreter.run(number, (), a) for number in (0, 20, 470) for a in others} == {KILL}


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_decide_as_in_the_kernel(machine: str) -> None:
    """Only by the bits that the kernel reads: garbage above them neither refuses nor allows."""
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
            # Offsets have no sign: they cannot go back. A jump with one target would be useless.
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
    """The error has the name, and no machine gets the numbers of another."""
    with pytest.raises(LookupError) as caught:
        seccomp.program(machine)

    assert caught.value.args == (machine,)


def test_a_jump_too_far_is_an_error() -> None:
    """A table that outgrows eight bits must not wrap around to a wrong verdict."""
    with pytest.raises(struct.error):
        seccomp._instruction(0x35, 0, 256, 0)
