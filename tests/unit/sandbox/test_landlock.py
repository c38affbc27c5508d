"""Tests of Landlock: masks as values, and what a confined child of ours really cannot do.

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
def test_a_ruleset_handles_what_its_abi_knows(version: int, handled: int) -> None:
    """An access that the kernel does not know is EINVAL, one left out is allowed to all."""
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
    """Whatever the ABI and the access, so that the kernel does not refuse the rule."""
    files = 0b1100_0000_0000_0111  # ioctl, truncate; read, write, execute
    for access in (landlock.READING, landlock.WRITING):
        for kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFIFO):
            granted = landlock._granted(access, kind) & landlock._handled(version)
            assert granted & landlock.READ_FILE
            assert granted & ~files == 0


def test_reading_grants_nothing_that_writes() -> None:
    """Execute, read, list: as a value, whatever is handled."""
    assert landlock._granted(landlock.READING, stat.S_IFDIR) == 0b1101
    assert landlock._granted(landlock.READING, stat.S_IFREG) == 0b0101
    assert landlock._granted(landlock.READING, stat.S_IFCHR) == 0b0101


def test_writing_grants_all_but_devices() -> None:
    """Of the sixteen: not to make a character or block device, nor ioctl beneath a directory."""
    missing = landlock.MAKE_CHAR | landlock.MAKE_BLOCK | landlock.IOCTL_DEV

    assert landlock._granted(landlock.WRITING, stat.S_IFDIR) == 0xFFFF & ~missing


def test_only_a_device_that_is_listed_for_writing_takes_ioctl() -> None:
    """A regular file has no use for it, and reading /dev/urandom needs none."""
    asked = {
        kind: bool(landlock._granted(landlock.WRITING, kind) & landlock.IOCTL_DEV)
        for kind in (stat.S_IFREG, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR)
    }

    assert asked == {
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
def test_what_is_missing_is_said_in_one_line(number: int, words: str) -> None:
    """An operator reads what to do, for each way in which the kernel says no."""
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
def test_a_probe_confines_nobody_but_its_child() -> None:
    """Whoever asks can still read everything afterwards."""
    assert free(landlock.probe) == ""
    assert os.listdir("/")


@needs_landlock
def test_inside_sixteen_rulesets_a_probe_says_no() -> None:
    """The kernel stacks no more than that (E2BIG): having an ABI is not enough."""

    def nest_and_probe() -> str:
        for _ in range(15):
            ruleset = landlock.Ruleset(ABI)
            ruleset.allow_reading("/")
            ruleset.enforce()
        return landlock.probe()

    said = confined(nest_and_probe, reading=("/",))

    assert said.startswith("it is refused: ")
    assert os.strerror(errno.E2BIG) in said


# Rulesets


@needs_landlock
def test_a_ruleset_is_closed_once() -> None:
    """By `close`, by `enforce`, or by both, and never another's descriptor of that number."""
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
    """A worker does not carry a descriptor that the protocol does not have."""

    def count() -> None:
        before = os.listdir("/proc/self/fd")
        ruleset = landlock.Ruleset(ABI)
        ruleset.allow_reading("/")
        ruleset.enforce()
        assert os.listdir("/proc/self/fd") == before

    assert confined(count, reading=("/",)) == ""


@needs_landlock
def test_a_ruleset_is_shared_by_what_is_forked(places: Path) -> None:
    """Why it is made where it is enforced: a child's rule counts for its parent."""

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
def test_what_is_enforced_is_inherited_and_only_narrowed(places: Path) -> None:
    """A ruleset of the function's own cannot give back what ours took."""

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
def test_a_signal_reaches_nobody_outside() -> None:
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
    """A socket of ours that listens, without a file; the kernel chose its name."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("")
        listening.listen(8)
        yield listening.getsockname()


@needs_landlock
def test_an_abstract_socket_outside_is_not_connected(abstract: str) -> None:
    """From ABI 6; before, its name is open to whoever shares our network namespace."""

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(abstract)

    refused = "EPERM" if landlock.scopes_signals(ABI) else ""
    assert refused == confined(connect)
    assert free(connect) == ""


def drop_capabilities() -> None:
    """Give up what root has (capset(2)): with CAP_PERFMON, environ is read all the same."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0


@pytest.fixture
def stranger() -> Iterator[int]:
    """The pid of a process that is not confined, of our user, with no more rights than others."""
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
def test_what_proc_shows_of_others_is_refused(stranger: int, name: str) -> None:
    """Though /proc is listed and the user is the same: it asks as ptrace(2) does."""
    assert confined(lambda: look("self", name), reading=("/proc",)) == ""
    assert confined(lambda: look(stranger, name), reading=("/proc",)) == "EACCES"
    assert free(lambda: look(stranger, name)) == ""


@needs_landlock
@pytest.mark.parametrize("name", ["cmdline", "stat"])
def test_command_lines_of_others_are_seen(stranger: int, name: str) -> None:
    """A gap: whoever may list /proc reads them, so no secret is an argument."""
    assert confined(lambda: look(stranger, name), reading=("/proc",)) == ""
    assert confined(lambda: look(stranger, name)) == "EACCES"


# Gaps: what stands in the module's theory, so that nobody relies on more


@needs_landlock
def test_a_path_is_changed_though_it_cannot_be_opened(places: Path) -> None:
    """Mode and times are no access that Landlock knows, nor is whether a path exists."""
    file = places / "outside" / "file"

    assert confined(lambda: file.chmod(0o640)) == ""
    assert confined(lambda: os.utime(file, (0, 0))) == ""
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_mtime) == (0o640, 0)
    assert confined(file.exists) == "True"
    assert confined(lambda: read(places / "outside")) == "EACCES"


@needs_landlock
def test_a_socket_with_a_path_is_connected_though_it_is_not_listed(places: Path) -> None:
    """Its place in the file system is no access that Landlock knows: Docker's is such a one."""

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
    """Its own, the C library's and the loader's index are enough; without them it is refused."""

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
    """Exec does not end it, and no_new_privs keeps set-uid programs from doing so."""

    def run() -> str:
        source = f"print(open({str(places / 'outside' / 'file')!r}).read(), end='')"
        done = subprocess.run(
            [sys.executable, "-I", "-c", source], capture_output=True, check=False, text=True
        )
        return done.stdout or done.stderr.splitlines()[-1].partition(":")[0]

    assert confined(run, reading=(*RUNTIME, places / "readable")) == "PermissionError"
    assert free(run) == "outside"
