"""Actions on files for the tests of Landlock, run in a confined child or in a free one."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import landlock

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Run `probe` in a child; return its result as text, "" for None, or the name of its errno."""
    return _in_a_child(probe, lambda: None)


def confined(
    probe: Callable[[], object],
    reading: tuple[object, ...] = (),
    writing: tuple[object, ...] = (),
    version: int = ABI,
) -> str:
    """Do as `free` does, in a child that is confined to these paths."""

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
        outcome = "it died"
        try:
            prepare()
            try:
                outcome = str(probe() or "")
            except OSError as error:
                outcome = errno.errorcode[error.errno or 0]
        except BaseException:  # noqa: BLE001 - pytest must not go on in this copy of it
            outcome = traceback.format_exc()
        finally:
            os.write(start, outcome.encode()[:4096])
            os._exit(0)
    os.close(start)
    with os.fdopen(end, "rb") as file:
        outcome = file.read().decode()
    assert os.waitpid(pid, 0) == (pid, 0)
    return outcome


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
    # Relative, because sun_path ends at 108 bytes; the chdir happens in a child.
    os.chdir(directory)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")


READS = [read, list_]
WRITES = [
    write, append, truncate, create, rename, move, unlink, make_directory, remove_directory,
    symlink, link, make_pipe, make_socket,
]  # fmt: skip
