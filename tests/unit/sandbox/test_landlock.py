"""Tests of Landlock: masks as values, and the accesses that a confined child really loses.

Every refusal has its control: the same attempt succeeds in a child that is not confined.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import landlock
from tests.unit.sandbox.confinement import (
    ABI,
    REASON,
    RUNTIME,
    confined,
    free,
    list_,
    needs_landlock,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# Masks


@pytest.mark.parametrize(
    ("version", "handled"),
    [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (7, 0xFFFF),
     (99, 0xFFFF)],
)  # fmt: skip
def test_a_ruleset_handles_all_accesses_of_its_abi(version: int, handled: int) -> None:
    """An access that the kernel does not have is EINVAL, one left out is allowed everywhere."""
    assert handled == landlock._handled(version)


@pytest.mark.parametrize(
    ("version", "scoped"),
    [(0, False), (1, False), (2, False), (3, False), (4, False), (5, False), (6, True), (7, True)],
)
def test_signals_and_abstract_sockets_are_scoped_from_abi_six(
    version: int, *, scoped: bool
) -> None:
    """Both came with Linux 6.12."""
    assert scoped == landlock.scopes_signals(version)
    assert (3 if scoped else 0) == landlock._scoped(version)


@pytest.mark.parametrize("version", range(1, 8))
def test_a_file_is_given_rights_of_files_only(version: int) -> None:
    """For each ABI and access, so that the kernel does not refuse the rule."""
    files = 0b1100_0000_0000_0111  # ioctl, truncate; read, write, execute
    for access in (landlock.READING, landlock.WRITING):
        for kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFIFO):
            granted = landlock._granted(access, kind) & landlock._handled(version)
            assert granted & landlock.READ_FILE
            assert granted & ~files == 0


def test_reading_grants_nothing_that_writes() -> None:
    """Execute, read and list, as a value, before the ABI's mask."""
    assert landlock._granted(landlock.READING, stat.S_IFDIR) == 0b1101
    assert landlock._granted(landlock.READING, stat.S_IFREG) == 0b0101
    assert landlock._granted(landlock.READING, stat.S_IFCHR) == 0b0101


def test_writing_grants_all_but_devices() -> None:
    """All of the sixteen except making devices, and ioctl beneath a directory."""
    missing = landlock.MAKE_CHAR | landlock.MAKE_BLOCK | landlock.IOCTL_DEV

    assert landlock._granted(landlock.WRITING, stat.S_IFDIR) == 0xFFFF & ~missing


def test_only_a_device_that_is_listed_for_writing_takes_ioctl() -> None:
    """A regular file has no use for it, and reading /dev/urandom needs none."""
    takes_ioctl = {
        kind: bool(landlock._granted(landlock.WRITING, kind) & landlock.IOCTL_DEV)
        for kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR)
    }

    assert takes_ioctl == {
        stat.S_IFREG: False, stat.S_IFCHR: True, stat.S_IFBLK: True, stat.S_IFDIR: False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSYS, "built without Landlock"),
        (errno.EOPNOTSUPP, "add lsm=landlock,"),
        (errno.EPERM, "seccomp"),
    ],
)
def test_the_reason_why_landlock_is_missing_is_one_line(number: int, words: str) -> None:
    """An operator reads what to do, for each errno of the kernel."""
    line = landlock._why_none(number)

    assert words in line
    assert "\n" not in line


# The probe


def test_a_probe_and_the_abi_agree() -> None:
    """Without an ABI there is a reason; a reason is one line."""
    assert ABI >= 0
    assert ABI > 0 or REASON
    assert "\n" not in REASON


@needs_landlock
def test_a_probe_confines_only_its_child() -> None:
    """The process that calls it can still read everything afterwards."""
    assert free(landlock.probe) == ""
    assert os.listdir("/")


@needs_landlock
def test_a_probe_fails_inside_sixteen_rulesets() -> None:
    """The kernel stacks no more than that (E2BIG): an ABI is not enough."""

    def nest_and_probe() -> str:
        for _ in range(15):
            ruleset = landlock.Ruleset(ABI)
            ruleset.allow_reading("/")
            ruleset.enforce()
        return landlock.probe()

    reason = confined(nest_and_probe, reading=("/",))

    assert reason.startswith("it is refused: ")
    assert os.strerror(errno.E2BIG) in reason


# Rulesets


@needs_landlock
def test_a_ruleset_is_closed_once() -> None:
    """By `close`, by `enforce`, or by both, and never a later descriptor of the same number."""
    ruleset = landlock.Ruleset(ABI)
    descriptor = ruleset._descriptor
    assert not os.get_inheritable(descriptor)

    ruleset.close()
    with open("/dev/null", "rb") as file:
        ruleset.close()
        with pytest.raises(OSError, match="landlock_restrict_self"):
            ruleset.enforce()
        assert file.read() == b""


@needs_landlock
def test_enforcing_closes_the_ruleset() -> None:
    """A worker keeps no descriptor that the protocol does not have."""

    def count() -> None:
        before = os.listdir("/proc/self/fd")
        ruleset = landlock.Ruleset(ABI)
        ruleset.allow_reading("/")
        ruleset.enforce()
        assert os.listdir("/proc/self/fd") == before

    assert confined(count, reading=("/",)) == ""


@needs_landlock
def test_a_ruleset_is_shared_with_a_forked_child(places: Path) -> None:
    """A rule that the child adds counts for its parent: so the enforcing process makes it."""

    def share() -> None:
        ruleset = landlock.Ruleset(ABI)
        pid = os.fork()
        if pid == 0:
            ruleset.allow_reading(str(places / "readable"))
            os._exit(0)
        os.waitpid(pid, 0)
        ruleset.enforce()
        read(places / "readable")

    assert confined(share, reading=("/",)) == ""


@needs_landlock
def test_enforced_rules_can_only_be_narrowed(places: Path) -> None:
    """A ruleset of the function's own cannot grant an access that ours refuses."""

    def widen() -> None:
        ruleset = landlock.Ruleset(ABI)
        ruleset.allow_writing(str(places))
        ruleset.enforce()
        read(places / "readable")
        read(places / "outside")

    assert confined(widen, reading=(places / "readable",)) == "EACCES"
    assert free(lambda: read(places / "outside")) == ""


# Other processes


@needs_landlock
def test_a_signal_reaches_no_process_outside() -> None:
    """Not the parent, from ABI 6; before, the kernel lets it pass. Children stay reachable."""
    parent = os.getpid()

    def end_a_child() -> None:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL

    refused = "EPERM" if landlock.scopes_signals(ABI) else ""
    assert refused == confined(lambda: os.kill(parent, 0))
    assert free(lambda: os.kill(parent, 0)) == ""
    assert confined(end_a_child) == ""


@pytest.fixture
def abstract() -> Iterator[str]:
    """Yield the name of a listening socket without a file; the kernel chooses it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen(8)
        yield listening.getsockname()


@needs_landlock
def test_an_abstract_socket_outside_is_not_connected(abstract: str) -> None:
    """From ABI 6; before, any process in our network namespace connects by its name."""

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(abstract)

    refused = "EPERM" if landlock.scopes_signals(ABI) else ""
    assert refused == confined(connect)
    assert free(connect) == ""


def drop_capabilities() -> None:
    """Drop root's capabilities (capset(2)): with CAP_PERFMON, environ is readable all the same."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


@pytest.fixture
def stranger() -> Iterator[int]:
    """Yield the pid of a process of our user, not confined and without capabilities."""
    end, start = os.pipe()
    ready, say_ready = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as above
        pid = os.fork()
    if pid == 0:
        try:
            os.close(start)
            drop_capabilities()
            os.close(say_ready)
            os.read(end, 1)
        finally:
            os._exit(0)
    os.close(say_ready)
    assert os.read(ready, 1) == b""
    yield pid
    for descriptor in (start, end, ready):
        os.close(descriptor)
    os.waitpid(pid, 0)


def look(pid: object, name: str) -> None:
    drop_capabilities()
    path = f"/proc/{pid}/{name}"
    assert os.readlink(path) if Path(path).is_symlink() else Path(path).read_bytes()


@needs_landlock
@pytest.mark.parametrize("name", ["environ", "maps", "root", "cwd", "exe", "fd/0"])
def test_files_of_other_processes_in_proc_are_refused(stranger: int, name: str) -> None:
    """Though /proc has a rule and the user is the same: the kernel checks as for ptrace(2)."""
    assert confined(lambda: look("self", name), reading=("/proc",)) == ""
    assert confined(lambda: look(stranger, name), reading=("/proc",)) == "EACCES"
    assert free(lambda: look(stranger, name)) == ""


@needs_landlock
@pytest.mark.parametrize("name", ["cmdline", "stat"])
def test_command_lines_of_others_are_seen(stranger: int, name: str) -> None:
    """A gap: a process that may list /proc reads them, so no secret may be an argument."""
    assert confined(lambda: look(stranger, name), reading=("/proc",)) == ""
    assert confined(lambda: look(stranger, name)) == "EACCES"


# Gaps, as listed in the module's theory


@needs_landlock
def test_a_path_is_changed_though_it_cannot_be_opened(places: Path) -> None:
    """Landlock has no access for mode, times, or whether a path exists."""
    file = places / "outside" / "file"

    assert confined(lambda: file.chmod(0o640)) == ""
    assert confined(lambda: os.utime(file, (0, 0))) == ""
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_mtime) == (0o640, 0)
    assert confined(file.exists) == "True"
    assert confined(lambda: read(places / "outside")) == "EACCES"


@needs_landlock
def test_a_socket_with_a_path_is_connected_though_it_has_no_rule(places: Path) -> None:
    """Landlock has no access for connect(2): Docker's socket has a path."""

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{directory}/socket")

    directory = os.open(places / "outside", os.O_PATH)  # the whole path may be above 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{directory}/socket")
            listening.listen(8)
            assert confined(connect) == ""
            assert confined(lambda: list_(places / "outside")) == "EACCES"
    finally:
        os.close(directory)


# Programs


@needs_landlock
def test_an_interpreter_starts_where_its_directories_are_listed() -> None:
    """Its own, the C library's and the loader's cache are enough; without them it is refused."""

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-I", "-c", "import json, ssl; print(json.dumps(6 * 7), end='')"],
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        return done.stdout or done.stderr

    assert confined(run, reading=tuple(RUNTIME)) == "42"
    assert confined(run) == "EACCES"
    assert free(run) == "42"


@needs_landlock
def test_a_program_it_starts_is_as_confined(places: Path) -> None:
    """Exec does not end the confinement, and no_new_privs disables set-uid programs."""

    def run() -> str:
        source = f"print(open({str(places / 'outside' / 'file')!r}).read(), end='')"
        done = subprocess.run(
            [sys.executable, "-I", "-c", source], capture_output=True, check=False, text=True
        )
        return done.stdout or done.stderr.splitlines()[-1].partition(":")[0]

    assert confined(run, reading=(*RUNTIME, places / "readable")) == "PermissionError"
    assert free(run) == "outside"
