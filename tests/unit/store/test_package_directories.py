"""Tests of `packages`: a directory is copied as it was, or not at all."""

from __future__ import annotations

import base64
import os
import re
import stat
from pathlib import Path

import pytest

from miniλ.store import archives, packages
from miniλ.store.packages import publish
from tests.unit.store.code import APP, refused, tree


def test_a_directory_is_copied(source: Path, store: Path) -> None:
    """All files are there; the size is their sum, the path is the sha256."""
    (source / "lib").mkdir()
    (source / "lib" / "data.bin").write_bytes(bytes(range(256)))

    package = publish(source, store)

    assert tree(package.path) == ["app.py", "lib", "lib/data.bin"]
    assert (Path(package.path) / "app.py").read_bytes() == APP
    assert len(APP) + 256 == package.size
    digest = base64.b64decode(package.sha256)
    assert str(store / digest.hex()) == package.path
    assert len(digest) == 32


def test_a_path_may_be_a_string(source: Path, store: Path) -> None:
    """Str or PathLike, it is the same code."""
    assert publish(str(source), store) == publish(source, store)


def test_a_file_keeps_its_execute_bit_and_no_more(source: Path, store: Path) -> None:
    """Modes are 0755 or 0644: nothing is setuid, and nothing is writable for all."""
    for name, mode in (("run", 0o700), ("data", 0o666), ("setuid", 0o4711)):
        (source / name).write_bytes(b"x")
        (source / name).chmod(mode)

    copied = Path(publish(source, store).path)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in copied.iterdir()}
    assert modes == {"run": 0o755, "data": 0o644, "setuid": 0o755, "app.py": 0o644}


def test_a_file_keeps_its_modification_time(source: Path, store: Path) -> None:
    """A .pyc names its source's modification time."""
    os.utime(source / "app.py", ns=(1_000_000_007, 1_700_000_000_123_456_789))

    copied = Path(publish(source, store).path)

    assert (copied / "app.py").stat().st_mtime_ns == 1_700_000_000_123_456_789


def test_caches_come_along_and_do_not_count(source: Path, store: Path) -> None:
    """__pycache__ is copied, but a function that was run once is still the same code."""
    before = publish(source, store)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"x")

    after = publish(source, store)

    assert before.path == after.path
    assert before.sha256 == after.sha256


def test_caches_are_copied(source: Path, store: Path) -> None:
    """A warm cache stays warm."""
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "app.cpython-311.pyc").write_bytes(b"x")

    package = publish(source, store)

    assert "__pycache__/app.cpython-311.pyc" in tree(package.path)


@pytest.mark.parametrize("name", sorted(packages.LEFT_OUT))
def test_version_control_is_left_out(source: Path, store: Path, name: str) -> None:
    """The history of a function is never deployed, at any depth of the tree."""
    before = publish(source, store)
    (source / name).mkdir()
    (source / name / "objects").write_bytes(b"x")

    assert before == publish(source, store)
    assert tree(before.path) == ["app.py"]


def test_a_link_inside_is_kept(source: Path, store: Path) -> None:
    """A link to a neighbour is a link in the package too."""
    (source / "lib").mkdir()
    (source / "lib" / "up.py").symlink_to("../app.py")
    (source / "libs").symlink_to("lib")

    copied = Path(publish(source, store).path)

    assert Path("../app.py") == (copied / "lib" / "up.py").readlink()
    assert Path("lib") == (copied / "libs").readlink()
    assert (copied / "libs" / "up.py").read_bytes() == APP


def test_a_link_inside_is_told_anew(source: Path, store: Path) -> None:
    """Its text may be absolute, lead through another link, or out and in again."""
    (source / "a" / "b").mkdir(parents=True)
    (source.parent / "way").symlink_to(source / "a" / "b")
    (source / "a" / "absolute").symlink_to(source / "app.py")
    (source / "a" / "b" / "through").symlink_to(source.parent / "way" / ".." / ".." / "app.py")
    (source / "again").symlink_to("../source/a/b")

    copied = Path(publish(source, store).path)

    assert (copied / "a" / "absolute").readlink() == Path("../app.py")
    assert (copied / "a" / "b" / "through").readlink() == Path("../../app.py")
    assert (copied / "again").readlink() == Path("a/b")


def test_a_link_to_all_of_it_is_kept(source: Path, store: Path) -> None:
    """The directory itself is inside: it is not copied into itself."""
    (source / "a").mkdir()
    (source / "a" / "up").symlink_to("..")
    (source / "here").symlink_to(source)

    copied = Path(publish(source, store).path)

    assert (copied / "a" / "up").readlink() == Path("..")
    assert (copied / "here").readlink() == Path()
    assert tree(source) == tree(copied)


def test_a_source_behind_a_link_is_the_same_code(source: Path, store: Path) -> None:
    """The path to the directory is not part of the code."""
    (source / "link").symlink_to("app.py")
    (source.parent / "way").symlink_to(source)

    assert publish(source, store) == publish(source.parent / "way", store)


@pytest.mark.parametrize(
    "link",
    ["missing", "app.py/below", "/nonexistent/file", "../missing", "fifo"],
)
def test_a_link_to_nowhere_is_left_out(source: Path, store: Path, link: str) -> None:
    """Inside or outside, below a file, or to what is no code."""
    os.mkfifo(source / "fifo")
    before = publish(source, store)
    (source / "nowhere").symlink_to(link)

    assert before == publish(source, store)
    assert tree(before.path) == ["app.py"]


@pytest.mark.parametrize("link", ["circle", "other", "../source/circle"])
def test_a_link_in_a_circle_is_refused(source: Path, store: Path, link: str) -> None:
    """The message has its path."""
    (source / "circle").symlink_to(link)
    (source / "other").symlink_to("circle")

    refused(source, store, "cannot be read: .*/source/circle")


@pytest.mark.parametrize("name", sorted(packages.LEFT_OUT))
def test_a_link_to_what_is_left_out_is_copied(source: Path, store: Path, name: str) -> None:
    """As a link it would lead nowhere: what it leads to comes in its place."""
    (source / "lib" / name / "d").mkdir(parents=True)
    (source / "lib" / name / "d" / "x").write_bytes(b"x")
    (source / "lib" / name / "d" / "back").symlink_to("../../../app.py")
    (source / "file").symlink_to(f"lib/{name}/d/x")
    (source / "directory").symlink_to(f"lib/{name}/d")

    package = publish(source, store)
    copied = Path(package.path)

    expected = ["app.py", "directory", "directory/back", "directory/x", "file", "lib"]
    assert expected == tree(copied)
    assert not (copied / "file").is_symlink()
    assert not (copied / "directory").is_symlink()
    assert (copied / "file").read_bytes() == (copied / "directory" / "x").read_bytes() == b"x"
    assert (copied / "directory" / "back").readlink() == Path("../app.py")
    assert len(APP) + 2 == package.size


def test_a_link_to_a_file_outside_is_copied(source: Path, store: Path) -> None:
    """Its content is in the package: editing the file afterwards changes nothing."""
    shared = source.parent / "shared.py"
    shared.write_bytes(b"ONE = 1\n")
    (source / "relative.py").symlink_to("../shared.py")
    (source / "absolute.py").symlink_to(shared)

    copied = Path(publish(source, store).path)
    shared.write_bytes(b"ONE = 2\n")

    for name in ("relative.py", "absolute.py"):
        assert not (copied / name).is_symlink()
        assert (copied / name).read_bytes() == b"ONE = 1\n"


def test_a_link_to_a_directory_outside_is_copied(source: Path, store: Path) -> None:
    """A link to a package of a neighbouring directory is common in development."""
    shared = source.parent / "shared"
    shared.mkdir()
    (shared / "util.py").write_bytes(b"ONE = 1\n")
    (source / "shared").symlink_to(shared)

    copied = Path(publish(source, store).path)

    assert not (copied / "shared").is_symlink()
    assert (copied / "shared" / "util.py").read_bytes() == b"ONE = 1\n"


def test_what_a_linked_directory_holds_is_part_of_the_code(source: Path, store: Path) -> None:
    """An edit behind the link is another package: an update brings it."""
    shared = source.parent / "shared"
    shared.mkdir()
    (shared / "util.py").write_bytes(b"ONE = 1\n")
    (source / "shared").symlink_to(shared)
    before = publish(source, store)
    (shared / "util.py").write_bytes(b"ONE = 2\n")

    after = publish(source, store)

    assert (Path(after.path) / "shared" / "util.py").read_bytes() == b"ONE = 2\n"
    assert before.sha256 != after.sha256


def test_what_a_linked_directory_holds_counts(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of the unzipped size is not passed by a link."""
    shared = source.parent / "shared"
    shared.mkdir()
    (shared / "large").write_bytes(b"x" * 2000)
    (source / "shared").symlink_to(shared)
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)

    refused(source, store, "Unzipped size must be smaller than 1000 bytes")


def test_a_linked_directory_brings_no_link_out(source: Path, store: Path) -> None:
    """What is copied behind a link is treated like the rest: no link leads out."""
    shared = source.parent / "shared"
    shared.mkdir()
    (source.parent / "secret").write_bytes(b"s")
    (shared / "link").symlink_to(source.parent / "secret")
    (source / "shared").symlink_to(shared)

    copied = Path(publish(source, store).path)

    assert not (copied / "shared" / "link").is_symlink()
    assert (copied / "shared" / "link").read_bytes() == b"s"


def test_a_linked_directory_may_lead_back(source: Path, store: Path) -> None:
    """A link from outside to a place inside is a link in the copy, by its place there."""
    shared = source.parent / "some" / "where" / "shared"
    shared.mkdir(parents=True)
    (source / "lib").mkdir()
    (shared / "back.py").symlink_to(source / "app.py")
    (shared / "all").symlink_to(source)
    (source / "lib" / "shared").symlink_to(shared)

    copied = Path(publish(source, store).path)

    assert (copied / "lib" / "shared" / "back.py").readlink() == Path("../../app.py")
    assert (copied / "lib" / "shared" / "all").readlink() == Path("../..")
    assert (copied / "lib" / "shared" / "back.py").read_bytes() == APP


def test_a_linked_directory_that_holds_itself_is_refused(source: Path, store: Path) -> None:
    """A circle outside would be copied without end."""
    shared = source.parent / "shared"
    shared.mkdir()
    for name in ("one", "two"):
        (shared / name).symlink_to(".")
    (source / "shared").symlink_to(shared)

    refused(source, store, "cannot be read: .*/shared/one/one/.*")


def test_a_linked_directory_may_hold_a_fifo(source: Path, store: Path) -> None:
    """Sockets and FIFOs are no code, behind a link as elsewhere."""
    shared = source.parent / "shared"
    shared.mkdir()
    os.mkfifo(shared / "fifo")
    (source / "shared").symlink_to(shared)

    assert tree(publish(source, store).path) == ["app.py", "shared"]


def test_a_fifo_is_passed_over(source: Path, store: Path) -> None:
    """Sockets, FIFOs and devices are no code, and are not opened, which could wait for ever."""
    os.mkfifo(source / "fifo")

    assert tree(publish(source, store).path) == ["app.py"]


def test_the_same_directory_twice_is_stored_once(source: Path, store: Path) -> None:
    """The same code has the same path, and one copy."""
    first = publish(source, store)

    assert first == publish(source, store)
    assert len(list(store.iterdir())) == 1


def test_two_directories_with_the_same_files_are_the_same_code(source: Path, store: Path) -> None:
    """Where the code was, and when, is not part of what it is."""
    other = source.parent / "other"
    other.mkdir()
    (other / "app.py").write_bytes(APP)
    os.utime(other / "app.py", (1, 1))

    assert publish(source, store) == publish(other, store)


@pytest.mark.parametrize(
    "change", ["content", "name", "mode", "link", "target", "more", "empty", "file"]
)
def test_whatever_is_different_is_another_package(source: Path, store: Path, change: str) -> None:
    """Content, names, execute bits, links and directories are what code is."""
    (source / "other.py").write_bytes(APP)
    (source / "link").symlink_to("app.py")
    before = publish(source, store)
    if change == "content":
        (source / "app.py").write_bytes(APP.replace(b"event", b"Event"))
    elif change == "name":
        (source / "other.py").rename(source / "main.py")
    elif change == "mode":
        (source / "app.py").chmod(0o755)
    elif change == "link":
        (source / "link").rename(source / "links")
    elif change == "target":
        (source / "link").unlink()
        (source / "link").symlink_to("other.py")
    elif change == "file":
        (source / "link").unlink()
        (source / "link").write_bytes(APP)
    elif change == "more":
        (source / "more.py").touch()
    else:
        (source / "empty").mkdir()

    after = publish(source, store)

    assert before.path != after.path
    assert len(list(store.iterdir())) == 2
    assert tree(source) == tree(after.path)


def test_the_text_of_a_link_is_not_part_of_the_code(source: Path, store: Path) -> None:
    """Where it leads is."""
    (source / "link").symlink_to("app.py")
    before = publish(source, store)
    (source / "link").unlink()
    (source / "link").symlink_to("./../source/app.py")

    assert before == publish(source, store)


def test_a_space_is_not_where_a_name_ends(source: Path, store: Path) -> None:
    """`a` to `b c` and `a b` to `c` are links of two packages."""
    for name in ("b c", "c"):
        (source / name).write_bytes(b"x")
    (source / "a").symlink_to("b c")
    before = publish(source, store)
    (source / "a").unlink()
    (source / "a b").symlink_to("c")

    assert before.path != publish(source, store).path


def test_what_is_published_does_not_change(source: Path, store: Path) -> None:
    """An edit of the source is another package; the first is as it was."""
    first = Path(publish(source, store).path)
    (source / "app.py").write_bytes(b"broken")

    second = Path(publish(source, store).path)

    assert (first / "app.py").read_bytes() == APP
    assert (second / "app.py").read_bytes() == b"broken"


def test_an_empty_directory_is_a_package(tmp_path: Path, store: Path) -> None:
    """It will fail when it is imported, as on Lambda."""
    empty = tmp_path / "empty"
    empty.mkdir()

    package = publish(empty, store)

    assert package.size == 0
    assert tree(package.path) == []


def test_names_that_are_no_utf_8_are_names(source: Path, store: Path) -> None:
    """A directory may hold any bytes as names; they are copied as they are."""
    (source / os.fsdecode(b"\xff")).write_bytes(b"x")

    copied = publish(source, store).path

    assert b"\xff" in os.listdir(os.fsencode(copied))


def test_a_directory_that_is_too_large_is_refused(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """250 MB, all files together; caches count too, since they are copied."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 100)
    (source / "__pycache__").mkdir()
    (source / "__pycache__" / "x").write_bytes(b"x" * 60)

    refused(source, store, "Unzipped size must be smaller than 100 bytes")


def test_a_deep_directory_is_copied(source: Path, store: Path) -> None:
    """64 directories in each other, with a file in the last."""
    deep = source.joinpath(*["d"] * archives.MAX_DEPTH)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x")

    copied = Path(publish(source, store).path)

    assert copied.joinpath(*["d"] * 64, "file").read_bytes() == b"x"


@pytest.mark.parametrize("depth", [65, 300])
def test_a_directory_that_is_too_deep_is_refused(source: Path, store: Path, depth: int) -> None:
    """The message says how deep it may be, and where it is deeper."""
    source.joinpath(*["d"] * depth).mkdir(parents=True)

    refused(source, store, rf"deeper than 64 directories: {'/'.join('d' * 65)} \(")


def test_a_directory_outside_brings_no_links_that_lead_out_together(
    source: Path, store: Path
) -> None:
    """A link counts by where it leads, not by its text: what leads out is copied."""
    (source / "a" / "b").mkdir(parents=True)
    (source / "a" / "b" / "up").symlink_to("../..")
    (source / "out").symlink_to("a/b/up/../secret")
    (source.parent / "secret").write_bytes(b"s")

    copied = Path(publish(source, store).path)

    assert (copied / "a" / "b" / "up").readlink() == Path("../..")
    assert not (copied / "out").is_symlink()
    assert (copied / "out").read_bytes() == b"s"


def test_a_store_inside_the_source_is_not_copied_into_itself(source: Path) -> None:
    """`code="."` with the state directory below it: the store is no part of the code."""
    store = source / "state" / "code"
    store.mkdir(parents=True)

    package = publish(source, store)

    assert (Path(package.path) / "app.py").read_bytes() == APP
    assert tree(package.path) == ["app.py"]
    assert package == publish(source, store)


def test_a_state_directory_inside_the_source_is_left_out(source: Path) -> None:
    """All of it, under any name, and also where a link leads to it."""
    before = publish(source, make(source.parent / "elsewhere" / "code"))
    store = make(source / "lib" / "state" / "code")
    (source / "lib" / "state" / "registry.db").write_bytes(b"x")
    for name, link in (("state", "lib/state"), ("code", "lib/state/code")):
        (source / name).symlink_to(link)

    package = publish(source, store)

    assert tree(package.path) == ["app.py", "lib"]
    assert before.size == package.size


def test_a_link_into_the_state_directory_is_copied(source: Path) -> None:
    """As a link it would lead nowhere."""
    store = make(source / "state" / "code")
    (source / "state" / "shared.py").write_bytes(b"x")
    (source / "shared.py").symlink_to("state/shared.py")

    copied = Path(publish(source, store).path)

    assert tree(copied) == ["app.py", "shared.py"]
    assert not (copied / "shared.py").is_symlink()


def test_a_state_directory_that_is_the_source_is_not_copied_into_itself(
    source: Path,
) -> None:
    """The store is left out then, and links to the rest are links."""
    store = make(source / "code")
    (source / "link").symlink_to("app.py")

    copied = Path(publish(source, store).path)

    assert tree(copied) == ["app.py", "link"]
    assert (copied / "link").is_symlink()


def make(path: Path) -> Path:
    """Make a directory and those above it."""
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("name", ["missing", "missing.zip", "a\0b"])
def test_code_that_is_not_there_is_refused(tmp_path: Path, store: Path, name: str) -> None:
    """The message has the path."""
    refused(tmp_path / name, store, f"There is no {re.escape(str(tmp_path / name))}$")


def test_a_relative_path_is_refused_with_where_it_was_looked_for(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the working directory."""
    monkeypatch.chdir(tmp_path)

    refused("missing", store, rf"There is no missing \(in {re.escape(str(tmp_path))}\)$")


def test_an_empty_path_is_not_the_working_directory(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty path does not deploy the working directory."""
    monkeypatch.chdir(source)

    refused("", store, "must be a directory or a .zip file, got an empty path")
