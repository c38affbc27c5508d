"""Tests of the private /tmp as a directory: a worker's files are removed and counted, no others."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import tmp

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Return the empty /tmp of a worker."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def nest(top: Path, depth: int, content: bytes = b"", name: str = "d") -> None:
    """Make `depth` directories in each other, and a file in the last."""
    here = os.open(top, DIRECTORY)
    try:
        for _ in range(depth):
            os.mkdir(name, dir_fd=here)
            deeper = os.open(name, DIRECTORY, dir_fd=here)
            os.close(here)
            here = deeper
        file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=here)
        try:
            os.write(file, content)
        finally:
            os.close(file)
    finally:
        os.close(here)


def on_disk(top: Path) -> int:
    """Return the bytes of everything below, each name by itself."""
    return sum(path.lstat().st_blocks * 512 for path in top.rglob("*"))


# Emptying and removing


def test_removing_a_missing_path_does_nothing(tmp_path: Path) -> None:
    """To remove is idempotent."""
    tmp.remove(str(tmp_path / "never"))


def test_emptying_keeps_the_directory(scratch: Path) -> None:
    """The directory stays, with its mode; everything below is removed."""
    (scratch / "file").write_bytes(b"x")
    (scratch / "directory" / "deeper").mkdir(parents=True)
    (scratch / "directory" / "file").write_bytes(b"x")
    scratch.chmod(0o700)

    tmp.empty(str(scratch))

    assert os.listdir(scratch) == []
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o700


def test_removing_takes_the_directory_too(scratch: Path) -> None:
    """Neighbours stay."""
    (scratch / "file").write_bytes(b"x")
    neighbour = scratch.parent / "neighbour"
    neighbour.mkdir()

    tmp.remove(str(scratch))

    assert not scratch.exists()
    assert neighbour.is_dir()


def test_a_link_is_removed_and_not_followed(scratch: Path) -> None:
    """Links to a file and to a directory outside: their targets stay as they were."""
    outside = scratch.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    (outside / "file").chmod(0o640)
    outside.chmod(0o751)
    (scratch / "d").mkdir()
    for place in (scratch, scratch / "d"):
        (place / "file").symlink_to(outside / "file")
        (place / "directory").symlink_to(outside)
        (place / "broken").symlink_to("nowhere")

    tmp.remove(str(scratch))

    assert not scratch.exists()
    assert (outside / "file").read_bytes() == b"precious"
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE(outside.stat().st_mode) == 0o751


def test_a_hard_link_is_removed_and_the_file_stays(scratch: Path) -> None:
    """Only the name is removed."""
    outside = scratch.parent / "file"
    outside.write_bytes(b"precious")
    os.link(outside, scratch / "file")

    tmp.remove(str(scratch))

    assert outside.read_bytes() == b"precious"


def test_a_top_that_is_a_link_is_not_emptied(scratch: Path) -> None:
    """A worker that replaced its directory by a link changes neither its target nor its mode."""
    (scratch / "file").write_bytes(b"precious")
    scratch.chmod(0o751)
    link = scratch.parent / "link"
    link.symlink_to(scratch)

    with pytest.raises(OSError, match="link"):
        tmp.remove(str(link))

    assert (scratch / "file").read_bytes() == b"precious"
    assert stat.S_IMODE(scratch.stat().st_mode) == 0o751


def test_fifos_and_sockets_are_removed(scratch: Path) -> None:
    """Neither is opened, which would wait for the other end."""
    (scratch / "d").mkdir()
    for place in (scratch, scratch / "d"):
        os.mkfifo(place / "fifo")
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(place / "socket"))

    tmp.remove(str(scratch))

    assert not scratch.exists()


def test_two_thousand_directories_in_each_other_are_removed(scratch: Path) -> None:
    """Deeper than a path can be long, and than Python can recurse."""
    nest(scratch, 2000)

    tmp.remove(str(scratch))

    assert not scratch.exists()


def test_a_wide_tree_is_removed(scratch: Path) -> None:
    """Directories that are moved up get different names."""
    for one in range(8):
        for two in range(8):
            (scratch / f"{one}" / f"{two}" / "three").mkdir(parents=True)
            (scratch / f"{one}" / f"{two}" / "three" / "file").write_bytes(b"x")

    tmp.remove(str(scratch))

    assert not scratch.exists()


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400, 0o500])
def test_directories_without_permissions_are_removed(scratch: Path, mode: int) -> None:
    """The owner changes the mode of a directory that it may not enter, root or not."""
    for path in (scratch / "a" / "b" / "c", scratch / "d"):
        path.mkdir(parents=True)
        (path / "file").write_bytes(b"x")
    for path in ("a/b/c", "a/b", "a", "d"):
        (scratch / path).chmod(mode)

    with _without_root(scratch):
        tmp.remove(str(scratch))

    assert not scratch.exists()


@pytest.mark.parametrize("mode", [0o000, 0o500])
def test_a_worker_cannot_lock_its_directory(scratch: Path, mode: int) -> None:
    """A worker may take every permission from its /tmp, which is removed all the same."""
    (scratch / "file").write_bytes(b"x")
    scratch.chmod(mode)

    with _without_root(scratch):
        tmp.remove(str(scratch))

    assert not scratch.exists()


@contextlib.contextmanager
def _without_root(path: Path) -> Iterator[None]:
    """Give `path` and the files below it to user `nobody`, and be that user, until the exit.

    Does nothing where the tests do not run as root: this user owns them already.
    """
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    for each in (path, *path.rglob("*")):
        os.chown(each, nobody, nobody)
    # Every directory above can be searched by others, for the time of the test.
    above = [p for p in path.parents if p.stat().st_mode & 0o011 != 0o011]
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in above}
    for p in above:
        p.chmod(modes[p] | 0o011)
    parent = path.parent
    os.chown(parent, nobody, -1)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)
        os.chown(parent, 0, -1)
        for p, mode in modes.items():
            p.chmod(mode)


def test_a_worker_may_use_names_like_ours(scratch: Path) -> None:
    """Names of directories that are moved up do not collide with names that a worker chose."""
    for number in range(1, 4):
        (scratch / f".lifted-{number}" / "full").mkdir(parents=True)
        (scratch / f".lifted-{number}" / "full" / "file").write_bytes(b"x")
    for number in range(4, 7):
        (scratch / f".lifted-{number}").write_bytes(b"x")
    for name in "abc":
        (scratch / name / "inner" / "most").mkdir(parents=True)

    tmp.remove(str(scratch))

    assert not scratch.exists()


def test_names_of_any_bytes_are_removed(scratch: Path) -> None:
    """Names may be no UTF-8, begin with a dash, or be as long as a name can be."""
    for name in (b"\xff\xfe", b"-rf", b"x" * 255, b"\n", b" "):
        os.mkdir(os.path.join(os.fsencode(scratch), name))
        (scratch / os.fsdecode(name) / "file").write_bytes(b"x")

    tmp.remove(str(scratch))

    assert not scratch.exists()


# Size


def test_an_empty_directory_uses_no_bytes(scratch: Path) -> None:
    """The same for a directory that does not exist."""
    assert tmp.used(str(scratch)) == 0
    assert tmp.used(str(scratch / "gone")) == 0


def test_the_size_is_the_blocks_on_disk(scratch: Path) -> None:
    """Files and directories count by their blocks, at any depth."""
    (scratch / "d" / "e").mkdir(parents=True)
    for path in (scratch / "one", scratch / "d" / "two", scratch / "d" / "e" / "three"):
        path.write_bytes(os.urandom(100_000))

    expected = on_disk(scratch)
    assert expected == tmp.used(str(scratch))
    assert expected >= 300_000


def test_directories_are_used_too(scratch: Path) -> None:
    """They occupy blocks like files: a function fills a disk with names alone, too."""
    for number in range(50):
        (scratch / f"{number}" / "d").mkdir(parents=True)

    assert on_disk(scratch) == tmp.used(str(scratch))


def test_a_hole_uses_no_bytes(scratch: Path) -> None:
    """A sparse file of 1 GB occupies no blocks."""
    with (scratch / "sparse").open("wb") as file:
        file.truncate(1 << 30)

    assert tmp.used(str(scratch)) < 1 << 20


def test_the_target_of_a_link_is_not_counted(scratch: Path) -> None:
    """Neither a file nor a directory behind a link counts; a loop ends."""
    outside = scratch.parent / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(os.urandom(1 << 20))
    (scratch / "file").symlink_to(outside / "file")
    (scratch / "directory").symlink_to(outside)
    (scratch / "loop").symlink_to(".")

    assert tmp.used(str(scratch)) < 1 << 20


def test_a_file_of_two_names_is_used_once(scratch: Path) -> None:
    """Hard links are names, not bytes: `git clone` makes many, in many directories."""
    (scratch / "d").mkdir()
    (scratch / "one").write_bytes(os.urandom(1 << 20))
    (scratch / "other").write_bytes(os.urandom(1 << 20))
    once = on_disk(scratch)
    for name in ("two", "d/three", "d/four"):
        os.link(scratch / "one", scratch / name)
    os.link(scratch / "other", scratch / "d" / "another")

    assert once == tmp.used(str(scratch))
    assert once >= 2 << 20


def test_a_file_with_a_name_elsewhere_is_used(scratch: Path) -> None:
    """A second name outside does not hide a file."""
    (scratch / "one").write_bytes(os.urandom(1 << 20))
    os.link(scratch / "one", scratch.parent / "outside")

    assert on_disk(scratch) == tmp.used(str(scratch))


@pytest.mark.parametrize(
    ("depth", "name"),
    [(2100, "d"), (20, "d" * 255), (40, "\N{GRINNING FACE}" * 63)],
    ids=["deep", "long", "four bytes a character"],
)
def test_a_file_deeper_than_a_path_can_be_long_is_used(
    scratch: Path, depth: int, name: str
) -> None:
    """PATH_MAX counts bytes, 4,096 of them: no directory tree hides a megabyte."""
    nest(scratch, depth, os.urandom(1 << 20), name)

    used = tmp.used(str(scratch))

    tmp.remove(str(scratch))
    assert used >= 1 << 20


def test_a_file_that_is_removed_meanwhile_counts_zero(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker removes a file during the count: the other files count."""
    (scratch / "a-vanishing").write_bytes(b"x")
    (scratch / "staying").write_bytes(os.urandom(1 << 20))
    scandir = os.scandir

    @contextlib.contextmanager
    def racing(directory: int) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Unlink the first file after it was listed and before its stat(2)."""
        with scandir(directory) as entries:
            files = sorted(entries, key=lambda entry: entry.name)
        os.unlink("a-vanishing", dir_fd=directory)
        yield iter(files)

    monkeypatch.setattr(tmp.os, "scandir", racing)
    used = tmp.used(str(scratch))
    monkeypatch.undo()

    assert [path.name for path in scratch.iterdir()] == ["staying"]
    assert on_disk(scratch) == used
    assert used >= 1 << 20
