"""Tests of Landlock: masks as values, and what a confined child of ours really cannot do.

Every refusal has its control: the same attempt succeeds in a child that is not confined.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import termios
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import landlock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ABI = landlock.abi()
REASON = landlock.probe()
needs_landlock = pytest.mark.skipif(REASON != "", reason=f"Landlock cannot be used here: {REASON}")

# What an interpreter needs to start: itself, its library, the C library and the loader's index.
RUNTIME = [
    sys.base_prefix,
    sys.prefix,
    str(Path(sys.executable).resolve().parent),
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
]


def free(probe: Callable[[], object]) -> str:
    """Return how `probe` went in a child: "", the name of its errno, or what it returned."""
    return _in_a_child(probe, lambda: None)


def confined(
    probe: Callable[[], object],
    reading: tuple[object, ...] = (),
    writing: tuple[object, ...] = (),
    version: int = ABI,
) -> str:
    """Return how `probe` went in a child that was given no more than these paths."""

    def confine() -> None:
        ruleset = landlock.Ruleset(version)
        for path in reading:
            ruleset.allow_reading(str(path))
        for path in writing:
            ruleset.allow_writing(str(path))
        assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
        ruleset.enforce()

    return _in_a_child(probe, confine)


def _in_a_child(probe: Callable[[], object], prepare: Callable[[], None]) -> str:
    end, start = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12: the watchdog of pytest's faulthandler counts as a thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        said = "it died"
        try:
            prepare()
            try:
                said = str(probe() or "")
            except OSError as error:
                said = errno.errorcode[error.errno or 0]
        except BaseException:  # noqa: BLE001 - pytest must not go on in this copy of it
            said = traceback.format_exc()
        finally:
            os.write(start, said.encode()[:4096])
            os._exit(0)
    os.close(start)
    with os.fdopen(end, "rb") as file:
        said = file.read().decode()
    assert os.waitpid(pid, 0) == (pid, 0)
    return said


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Three directories, `readable`, `writable` and `outside`, with the same things in them."""
    for name in ("readable", "writable", "outside"):
        (tmp_path / name / "full").mkdir(parents=True)
        (tmp_path / name / "empty").mkdir()
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "full" / "file").write_text(name)
    return tmp_path


def read(directory: Path) -> None:
    assert (directory / "full" / "file").read_text() == directory.name


def list_(directory: Path) -> None:
    assert "file" in os.listdir(directory)


def write(directory: Path) -> None:
    (directory / "file").write_text("more")
    assert (directory / "file").read_text() == "more"


def append(directory: Path) -> None:
    with (directory / "file").open("a") as file:
        file.write("more")


def truncate(directory: Path) -> None:
    os.truncate(directory / "file", 0)
    assert (directory / "file").stat().st_size == 0


def create(directory: Path) -> None:
    (directory / "new").touch()


def rename(directory: Path) -> None:
    (directory / "file").rename(directory / "renamed")


def move(directory: Path) -> None:
    (directory / "file").rename(directory / "full" / "moved")


def unlink(directory: Path) -> None:
    (directory / "file").unlink()


def make_directory(directory: Path) -> None:
    (directory / "made").mkdir()


def remove_directory(directory: Path) -> None:
    (directory / "empty").rmdir()


def symlink(directory: Path) -> None:
    (directory / "symlink").symlink_to("file")


def link(directory: Path) -> None:
    (directory / "link").hardlink_to(directory / "file")


def make_pipe(directory: Path) -> None:
    os.mkfifo(directory / "pipe")


def make_socket(directory: Path) -> None:
    # Relative, because sun_path ends at 108 bytes; only a child of ours has moved.
    os.chdir(directory)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")


READS = [read, list_]
WRITES = [
    write, append, truncate, create, rename, move, unlink, make_directory, remove_directory,
    symlink, link, make_pipe, make_socket,
]  # fmt: skip


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


# Files


@needs_landlock
@pytest.mark.parametrize("do", READS)
def test_what_is_listed_can_be_read(places: Path, do: Callable[[Path], None]) -> None:
    """Below a readable directory and below a writable one."""
    lists = {"reading": (places / "readable",), "writing": (places / "writable",)}

    assert confined(lambda: do(places / "readable"), **lists) == ""
    assert confined(lambda: do(places / "writable"), **lists) == ""


@needs_landlock
@pytest.mark.parametrize("do", READS + WRITES)
def test_what_is_not_listed_is_refused(places: Path, do: Callable[[Path], None]) -> None:
    """The sibling of a readable and a writable directory, for root as for anybody."""
    outcome = confined(
        lambda: do(places / "outside"),
        reading=(places / "readable",),
        writing=(places / "writable",),
    )

    assert ("" if do is truncate and ABI < 3 else "EACCES") == outcome
    assert free(lambda: do(places / "outside")) == ""


@needs_landlock
@pytest.mark.parametrize("do", WRITES)
def test_what_is_readable_cannot_be_changed(places: Path, do: Callable[[Path], None]) -> None:
    """Neither files nor directories, by any verb."""
    outcome = confined(lambda: do(places / "readable"), reading=(places / "readable",))

    assert ("" if do is truncate and ABI < 3 else "EACCES") == outcome
    assert free(lambda: do(places / "readable")) == ""


@needs_landlock
@pytest.mark.parametrize("do", WRITES)
def test_what_is_writable_can_be_changed(places: Path, do: Callable[[Path], None]) -> None:
    """By every verb a function has for its /tmp; to another directory from ABI 2 only."""
    outcome = confined(lambda: do(places / "writable"), writing=(places / "writable",))

    assert ("EXDEV" if do is move and ABI < 2 else "") == outcome


@needs_landlock
def test_abi_one_moves_nothing_between_directories(places: Path) -> None:
    """It knows no REFER: also two writable directories are refused, with EXDEV as for mounts."""
    writable = places / "writable"

    assert confined(lambda: move(writable), writing=(writable,), version=1) == "EXDEV"
    assert confined(lambda: rename(writable), writing=(writable,), version=1) == ""


@needs_landlock
def test_abi_two_empties_what_it_cannot_open(places: Path) -> None:
    """It knows no TRUNCATE: truncate(2) passes, open(O_TRUNC) is a write and does not."""
    outside = places / "outside"
    version = min(ABI, 2)

    assert confined(lambda: write(outside), version=version) == "EACCES"
    assert confined(lambda: truncate(outside), version=version) == ""
    assert free(lambda: write(outside)) == ""


@needs_landlock
@pytest.mark.parametrize("version", range(1, ABI + 1))
def test_every_abi_up_to_the_kernels_is_enforced(places: Path, version: int) -> None:
    """A worker may be confined by less than the kernel has; reading is refused by each."""
    lists = {"reading": (places / "readable",), "writing": (places / "writable", "/dev/null")}

    assert confined(lambda: read(places / "readable"), **lists, version=version) == ""
    assert confined(lambda: write(places / "writable"), **lists, version=version) == ""
    assert confined(lambda: read(places / "outside"), **lists, version=version) == "EACCES"


@needs_landlock
@pytest.mark.parametrize("target", ["readable", "outside"])
def test_nothing_is_moved_out_of_what_is_writable(places: Path, target: str) -> None:
    """No rename and no hard link: neither a file of ours there, nor one of there replaced."""
    lists = {"reading": (places / "readable",), "writing": (places / "writable",)}
    source = places / "writable" / "file"

    def rename_out() -> None:
        source.rename(places / target / "escaped")

    def link_out() -> None:
        (places / target / "linked").hardlink_to(source)

    assert confined(rename_out, **lists) in ("EACCES", "EXDEV")
    assert confined(link_out, **lists) in ("EACCES", "EXDEV")
    assert free(link_out) == ""
    assert free(rename_out) == ""


@needs_landlock
@pytest.mark.parametrize("target", ["readable", "outside"])
def test_nothing_becomes_writable_by_a_link(places: Path, target: str) -> None:
    """A hard link into the writable directory would make a readable file writable."""

    def link_in() -> None:
        (places / "writable" / "linked").hardlink_to(places / target / "file")

    def rename_in() -> None:
        (places / target / "file").rename(places / "writable" / "taken")

    lists = {"reading": (places / "readable",), "writing": (places / "writable",)}

    assert confined(link_in, **lists) in ("EACCES", "EXDEV")
    assert confined(rename_in, **lists) in ("EACCES", "EXDEV")
    assert free(link_in) == ""
    assert free(rename_in) == ""


@needs_landlock
def test_a_symlink_in_what_is_writable_opens_nothing(places: Path) -> None:
    """The file it leads to counts, not the place of the link."""

    def follow() -> None:
        link_ = places / "writable" / "way out"
        link_.unlink(missing_ok=True)
        link_.symlink_to(places / "outside" / "file")
        assert link_.read_text() == "outside"

    assert confined(follow, writing=(places / "writable",)) == "EACCES"
    assert free(follow) == ""


@needs_landlock
def test_one_file_is_listed_without_its_siblings(places: Path) -> None:
    """A rule on a file says nothing of its directory."""
    file = places / "outside" / "file"

    assert confined(file.read_text, reading=(file,)) == "outside"
    assert confined(lambda: file.write_text("more"), writing=(file,)) == "4"
    assert confined(lambda: read(places / "outside"), reading=(file,)) == "EACCES"
    assert confined(lambda: list_(places / "outside"), reading=(file,)) == "EACCES"
    assert free(lambda: list_(places / "outside")) == ""


@needs_landlock
def test_one_device_is_writable() -> None:
    """/dev/null takes what is written, and /dev/zero beside it is not even opened."""

    def use(path: str) -> None:
        with open(path, "r+b", buffering=0) as device:
            device.write(b"gone")

    assert confined(lambda: use("/dev/null"), writing=("/dev/null",)) == ""
    assert confined(lambda: use("/dev/zero"), writing=("/dev/null",)) == "EACCES"
    assert free(lambda: use("/dev/zero")) == ""


@needs_landlock
def test_ioctl_is_for_devices_listed_by_name() -> None:
    """Its own answer, that it is no terminal, comes from a device listed by its path only."""

    def ask() -> None:
        descriptor = os.open("/dev/null", os.O_RDWR)
        fcntl.ioctl(descriptor, termios.TCGETS, bytes(64))

    assert confined(ask, writing=("/dev/null",)) == "ENOTTY"
    assert confined(ask, writing=("/dev",)) == ("EACCES" if ABI >= 5 else "ENOTTY")
    assert free(ask) == "ENOTTY"


@needs_landlock
def test_no_device_is_made_where_all_else_is(places: Path) -> None:
    """Landlock answers before the kernel asks whether we may at all: root, or EPERM."""

    def make() -> None:
        os.mknod(places / "writable" / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    assert confined(make, writing=(places / "writable",)) == "EACCES"
    assert free(make) in ("", "EPERM")


@needs_landlock
def test_what_is_open_stays_open(places: Path) -> None:
    """A descriptor from before is used as before: the pipes of a worker are."""
    with (places / "outside" / "file").open("rb", buffering=0) as file:
        assert confined(lambda: file.read().decode()) == "outside"


@needs_landlock
def test_a_path_that_is_not_there_is_skipped_for_reading(places: Path) -> None:
    """Also beneath a file; the rules before and after it count. Made later, it stays refused."""
    late = places / "outside" / "late"
    lists = (late, places / "outside" / "file" / "x", places / "readable")

    def make_it_late() -> str:
        ruleset = landlock.Ruleset(ABI)
        ruleset.allow_reading(str(late))
        late.write_text("late")
        ruleset.enforce()
        return late.read_text()

    assert confined(lambda: read(places / "readable"), reading=lists) == ""
    assert confined(make_it_late, writing=("/",)) == "EACCES"
    assert free(late.read_text) == "late"


@needs_landlock
def test_a_path_that_is_not_there_is_an_error_for_writing(places: Path) -> None:
    """A worker without its /tmp is none; the error has the path."""
    ruleset = landlock.Ruleset(ABI)
    try:
        with pytest.raises(FileNotFoundError) as raised:
            ruleset.allow_writing(str(places / "nowhere"))
    finally:
        ruleset.close()

    assert raised.value.filename == str(places / "nowhere")


@needs_landlock
def test_a_rule_that_the_kernel_refuses_says_which_path() -> None:
    """A pipe has no place in the file system to put a rule on (EBADFD)."""
    end, start = os.pipe()
    ruleset = landlock.Ruleset(ABI)
    try:
        with pytest.raises(OSError, match="landlock_add_rule") as raised:
            ruleset.allow_reading(f"/proc/self/fd/{end}")
    finally:
        ruleset.close()
        os.close(end)
        os.close(start)

    assert raised.value.errno == errno.EBADFD
    assert raised.value.filename == f"/proc/self/fd/{end}"


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
