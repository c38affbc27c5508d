"""Tests of the system call filter: processes under it."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.sandbox import seccomp
from tests.unit.sandbox.syscall_numbers import (
    ALLOW,
    ENOSYS,
    GARBAGE,
    KILL,
    NUMBERS,
    numbers,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
    """Run `action` in a forked child; return its result, or the text of its exception."""
    reader, writer = os.pipe()
    with open(reader, "rb") as answers, open(writer, "wb", buffering=0) as answer:
        child = os.fork()
        if child == 0:
            try:
                try:
                    if filtered:
                        enter()
                    result = action()
                except BaseException as error:  # noqa: BLE001 - the parent asserts on it
                    result = repr(error)
                answer.write(json.dumps(result).encode())
            finally:
                os._exit(0)
        answer.close()
        text = answers.read()
        status = os.waitpid(child, 0)[1]
    assert status == 0
    return json.loads(text)


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


def test_the_probe_reports_a_refused_filter() -> None:
    """Where both calls are refused, the reason is a line with the errno."""

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


def test_the_probe_reports_a_killed_child() -> None:
    """A sandbox around us may kill instead of refuse: no answer is no success."""

    def probe_inside() -> str:
        surround_seccomp(KILL)
        return seccomp.probe()

    why = in_child(probe_inside, filtered=False)

    assert why.startswith("a process under the filter ended without an answer, status ")


def test_the_probe_reports_an_ioctl_that_was_refused_before() -> None:
    """Under a filter that refuses the same call, the probe cannot tell, and reports that."""
    why = in_child(seccomp.probe)

    assert (
        why
        == f"ioctl(TIOCSTI) gave errno {errno.EPERM} before the filter and {errno.EPERM} under it"
    )


def test_the_probe_reports_an_error_of_the_host() -> None:
    """Without a free descriptor it raises nothing."""

    def probe_without_descriptors() -> str:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
        return seccomp.probe()

    why = in_child(probe_without_descriptors, filtered=False)

    assert why == f"cannot try the filter: [Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}"


def test_the_probe_reports_an_unknown_machine() -> None:
    """PER_LINUX32 changes the machine's name, on kernels that have the 32 bit calls."""

    def probe_elsewhere() -> list[str]:
        call("personality", 8)
        return [os.uname().machine, seccomp.probe()]

    machine, why = in_child(probe_elsewhere, filtered=False)

    assert why == ("" if machine == MACHINE else f"no system call numbers for {machine}")


def test_a_sandbox_without_seccomp_leaves_prctl() -> None:
    """Where seccomp(2) is ENOSYS, the filter is installed by prctl(2) and holds."""

    def enter_by_prctl() -> list[str]:
        surround_seccomp(ENOSYS)
        before = [call("seccomp", 1, 0, 0), call("ptrace", 99, -1)]
        seccomp.install(seccomp.program(MACHINE))
        return [*before, call("ptrace", 99, -1)]

    assert in_child(enter_by_prctl, filtered=False) == ["ENOSYS", "ESRCH", "EPERM"]


@pytest.mark.parametrize("program", [b"", b"\x06\x00\x00\x00\x00\x00\x00", b"\xff" * 8])
def test_an_invalid_program_is_refused(program: bytes) -> None:
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
        # There is no type 15, which the kernel checks before the family.
        ("socket", (17, 15, 0), "EINVAL", "EAFNOSUPPORT"),
        ("socket", (38, 15, 0), "EINVAL", "EAFNOSUPPORT"),
        ("socket", (GARBAGE | 40, 15, 0), "EINVAL", "EAFNOSUPPORT"),
        ("socket", (1, 10, 0), "ESOCKTNOSUPPORT", "EAFNOSUPPORT"),
    ],
)
def test_the_filter_refuses_what_the_kernel_would_not(
    name: str, arguments: tuple[int, ...], without: str, under: str
) -> None:
    """The same call twice: without the filter the kernel gives another answer."""
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
def test_an_allowed_call_works_under_the_filter(name: str, arguments: tuple[int, ...]) -> None:
    """Its verdict is ALLOW, and the kernel does it."""
    assert in_child(lambda: call(name, *arguments)) == "done"


def test_another_filter_and_landlock_may_still_come() -> None:
    """A function, or a browser in it, may sandbox itself further."""
    # Flag 1 makes landlock_create_ruleset return the ABI; older kernels have no Landlock.
    reached = in_child(lambda: [call("seccomp", 1, 0, 0), call("landlock_create_ruleset", 0, 0, 1)])

    assert reached[0] == "EFAULT"
    assert reached[1] == in_child(lambda: call("landlock_create_ruleset", 0, 0, 1), filtered=False)


def test_fifos_and_sockets_are_made_under_the_filter(tmp_path: Path) -> None:
    """Only devices are refused; processes of a function talk through files of these kinds."""

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
        texts: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                with server.accept()[0] as peer:
                    peer.sendall(peer.recv(100).upper())

            thread = threading.Thread(target=answer)
            thread.start()
            with socket.create_connection(server.getsockname()) as client:
                client.sendall(b"hello")
                texts.append(client.recv(100).decode())
            thread.join()
        one, other = socket.socketpair()
        with one, other:
            one.sendall(b"pair")
            texts.append(other.recv(100).decode())
        return texts

    assert in_child(echo) == ["HELLO", "pair"]


def test_threads_inherit_the_filter() -> None:
    """A call that is refused to a worker is refused to its threads."""

    def try_in_a_thread() -> list[str]:
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append(call("unshare", 0)))
        thread.start()
        thread.join()
        return results

    assert in_child(try_in_a_thread) == ["EPERM"]
