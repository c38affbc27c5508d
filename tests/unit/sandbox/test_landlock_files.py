"""Tests of Landlock: each access to files, from a confined process.

Every refusal has its control: the same attempt succeeds in a child that is not confined.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import termios
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import landlock
from tests.unit.sandbox.confinement import (
    ABI,
    READS,
    WRITES,
    confined,
    free,
    list_,
    move,
    needs_landlock,
    read,
    rename,
    truncate,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Files


@needs_landlock
@pytest.mark.parametrize("do", READS)
def test_a_directory_with_a_rule_can_be_read(places: Path, do: Callable[[Path], None]) -> None:
    """Below a readable directory and below a writable one."""
    lists = {"reading": (places / "readable",), "writing": (places / "writable",)}

    assert confined(lambda: do(places / "readable"), **lists) == ""
    assert confined(lambda: do(places / "writable"), **lists) == ""


@needs_landlock
@pytest.mark.parametrize("do", READS + WRITES)
def test_a_directory_without_a_rule_is_refused(places: Path, do: Callable[[Path], None]) -> None:
    """The sibling of a readable and a writable directory, for root as for every user."""
    outcome = confined(
        lambda: do(places / "outside"),
        reading=(places / "readable",),
        writing=(places / "writable",),
    )

    assert ("" if do is truncate and ABI < 3 else "EACCES") == outcome
    assert free(lambda: do(places / "outside")) == ""


@needs_landlock
@pytest.mark.parametrize("do", WRITES)
def test_a_readable_directory_cannot_be_changed(places: Path, do: Callable[[Path], None]) -> None:
    """Neither its files nor its directories, by any call."""
    outcome = confined(lambda: do(places / "readable"), reading=(places / "readable",))

    assert ("" if do is truncate and ABI < 3 else "EACCES") == outcome
    assert free(lambda: do(places / "readable")) == ""


@needs_landlock
@pytest.mark.parametrize("do", WRITES)
def test_a_writable_directory_can_be_changed(places: Path, do: Callable[[Path], None]) -> None:
    """By every call that a function uses in its /tmp; a move between directories needs ABI 2."""
    outcome = confined(lambda: do(places / "writable"), writing=(places / "writable",))

    assert ("EXDEV" if do is move and ABI < 2 else "") == outcome


@needs_landlock
def test_abi_one_moves_nothing_between_directories(places: Path) -> None:
    """It has no REFER: a move between two writable directories is EXDEV, as between mounts."""
    writable = places / "writable"

    assert confined(lambda: move(writable), writing=(writable,), version=1) == "EXDEV"
    assert confined(lambda: rename(writable), writing=(writable,), version=1) == ""


@needs_landlock
def test_abi_two_empties_what_it_cannot_open(places: Path) -> None:
    """It has no TRUNCATE: truncate(2) passes, open(O_TRUNC) is a write and is refused."""
    outside = places / "outside"
    version = min(ABI, 2)

    assert confined(lambda: write(outside), version=version) == "EACCES"
    assert confined(lambda: truncate(outside), version=version) == ""
    assert free(lambda: write(outside)) == ""


@needs_landlock
@pytest.mark.parametrize("version", range(1, ABI + 1))
def test_every_abi_up_to_the_kernels_is_enforced(places: Path, version: int) -> None:
    """A ruleset may be of a lower ABI than the kernel's; each of them refuses reading."""
    lists = {"reading": (places / "readable",), "writing": (places / "writable", "/dev/null")}

    assert confined(lambda: read(places / "readable"), **lists, version=version) == ""
    assert confined(lambda: write(places / "writable"), **lists, version=version) == ""
    assert confined(lambda: read(places / "outside"), **lists, version=version) == "EACCES"


@needs_landlock
@pytest.mark.parametrize("target", ["readable", "outside"])
def test_no_file_leaves_a_writable_directory(places: Path, target: str) -> None:
    """Neither rename nor hard link puts a file of it into another directory."""
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
def test_no_file_becomes_writable_by_a_link(places: Path, target: str) -> None:
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
def test_a_symlink_in_a_writable_directory_opens_no_other(places: Path) -> None:
    """The rule for its target counts, not the directory of the link."""

    def follow() -> None:
        link_ = places / "writable" / "way out"
        link_.unlink(missing_ok=True)
        link_.symlink_to(places / "outside" / "file")
        assert link_.read_text() == "outside"

    assert confined(follow, writing=(places / "writable",)) == "EACCES"
    assert free(follow) == ""


@needs_landlock
def test_a_rule_on_a_file_excludes_its_siblings(places: Path) -> None:
    """It allows neither its directory nor the other files there."""
    file = places / "outside" / "file"

    assert confined(file.read_text, reading=(file,)) == "outside"
    assert confined(lambda: file.write_text("more"), writing=(file,)) == "4"
    assert confined(lambda: read(places / "outside"), reading=(file,)) == "EACCES"
    assert confined(lambda: list_(places / "outside"), reading=(file,)) == "EACCES"
    assert free(lambda: list_(places / "outside")) == ""


@needs_landlock
def test_one_device_is_writable() -> None:
    """/dev/null can be written, and /dev/zero beside it cannot be opened."""

    def use(path: str) -> None:
        with open(path, "r+b", buffering=0) as device:
            device.write(b"gone")

    assert confined(lambda: use("/dev/null"), writing=("/dev/null",)) == ""
    assert confined(lambda: use("/dev/zero"), writing=("/dev/null",)) == "EACCES"
    assert free(lambda: use("/dev/zero")) == ""


@needs_landlock
def test_ioctl_needs_a_rule_on_the_device_itself() -> None:
    """ENOTTY is the device's own answer: a rule on its directory is not enough from ABI 5."""

    def ask() -> None:
        descriptor = os.open("/dev/null", os.O_RDWR)
        fcntl.ioctl(descriptor, termios.TCGETS, bytes(64))

    assert confined(ask, writing=("/dev/null",)) == "ENOTTY"
    assert confined(ask, writing=("/dev",)) == ("EACCES" if ABI >= 5 else "ENOTTY")
    assert free(ask) == "ENOTTY"


@needs_landlock
def test_no_device_is_made_in_a_writable_directory(places: Path) -> None:
    """Landlock refuses before the kernel checks the capability, which gives EPERM without root."""

    def make() -> None:
        os.mknod(places / "writable" / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))

    assert confined(make, writing=(places / "writable",)) == "EACCES"
    assert free(make) in ("", "EPERM")


@needs_landlock
def test_an_open_descriptor_stays_usable(places: Path) -> None:
    """A descriptor from before `enforce` works as before, as a worker's pipes do."""
    with (places / "outside" / "file").open("rb", buffering=0) as file:
        assert confined(lambda: file.read().decode()) == "outside"


@needs_landlock
def test_a_missing_path_is_skipped_for_reading(places: Path) -> None:
    """Also one beneath a file; the other rules count. A file made there later stays refused."""
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
def test_a_missing_path_is_an_error_for_writing(places: Path) -> None:
    """A worker needs its /tmp; the error has the path."""
    ruleset = landlock.Ruleset(ABI)
    try:
        with pytest.raises(FileNotFoundError) as raised:
            ruleset.allow_writing(str(places / "nowhere"))
    finally:
        ruleset.close()

    assert raised.value.filename == str(places / "nowhere")


@needs_landlock
def test_the_error_of_a_refused_rule_has_the_path() -> None:
    """A pipe is in no file system, and takes no rule (EBADFD)."""
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
