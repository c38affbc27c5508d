"""Tests of packages: code arrives as it was, or not at all."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import InvalidParameterValue, ServiceError
from miniλ.store import archives, packages
from miniλ.store.packages import archive, kept_archive, merge, publish, unzipped_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

APP = b"def handler(event, context):\n    return event\n"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return an empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a directory with one module in it."""
    path = tmp_path / "source"
    path.mkdir()
    (path / "app.py").write_bytes(APP)
    return path


def zipped(tmp_path: Path, contents: dict[str, bytes], name: str = "code.zip") -> Path:
    """Return a zip file with these contents."""
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for inner, content in contents.items():
            archive.writestr(inner, content)
    return path


def tree(path: Path | str) -> list[str]:
    """Return the relative paths of everything below, sorted."""
    return sorted(str(each.relative_to(path)) for each in Path(path).rglob("*"))


def refused(code: Path | str, store: Path, match: str | None = None) -> None:
    """See that the code is refused, with this message, and nothing of it is left."""
    outside = tree(store.parent)

    with pytest.raises(InvalidParameterValue, match=match):
        publish(code, store)

    assert list(store.iterdir()) == []
    assert outside == tree(store.parent)


# Directories


def test_a_directory_is_copied(source: Path, store: Path) -> None:
    """All of it is there; the size is that of the files, the path is the sha256."""
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
    """A .pyc knows its source by it."""
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
    """Nobody deploys the history of a function, at whatever depth it is."""
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
    """Its text may be absolute, or lead through a link, or out and in again."""
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
    """Which way the directory was found is not part of the code."""
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
    """A neighbour's package is how people develop."""
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
    """A link from outside to what is inside is one in the copy, by its place there."""
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
    """Sockets, FIFOs and devices are no code, and nobody waits for one."""
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
    """All of it, whatever it is called, and also where a link leads to it."""
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
    refused(tmp_path / name, store, "neither a directory nor a .zip file: .*")


def test_an_empty_path_is_not_the_working_directory(
    source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forgetting the path does not deploy whatever is here."""
    monkeypatch.chdir(source)

    refused("", store, "must be a directory or a .zip file, got an empty path")


# Archives


def test_an_archive_is_kept_beside_what_was_in_it(tmp_path: Path, store: Path) -> None:
    """The sha256 and the size are those of the file, as Lambda has them, and so is its name."""
    code = zipped(tmp_path, {"app.py": APP, "deep/er/x.py": b"x"})

    package = publish(code, store)

    assert tree(package.path) == ["app.py", "deep", "deep/er", "deep/er/x.py"]
    assert (Path(package.path) / "app.py").read_bytes() == APP
    digest = hashlib.sha256(code.read_bytes())
    assert base64.b64encode(digest.digest()).decode() == package.sha256
    assert code.stat().st_size == package.size
    assert {digest.hexdigest(), f"{digest.hexdigest()}.zip"} == set(os.listdir(store))
    assert code.read_bytes() == kept_archive(Path(package.path)).read_bytes()


def test_a_kept_archive_is_nobody_elses(tmp_path: Path, store: Path) -> None:
    """Whoever brought it may write into his file: ours is another."""
    code = zipped(tmp_path, {"app.py": APP})
    before = code.read_bytes()

    package = publish(code, store)
    with code.open("r+b") as file:
        file.write(b"evil")

    assert before == kept_archive(Path(package.path)).read_bytes()


def test_the_same_archive_twice_is_stored_once(tmp_path: Path, store: Path) -> None:
    """The same bytes have the same path, and are not unpacked again: there is no room for it."""
    code = zipped(tmp_path, {"zeros": bytes(100_000)})
    first = publish(code, store)
    with files_of_at_most(10_000):
        second = publish(code, store)

    assert first == second
    assert {first.path, f"{first.path}.zip"} == {str(path) for path in store.iterdir()}


def test_an_archive_that_was_not_kept_is_kept_the_next_time(tmp_path: Path, store: Path) -> None:
    """A store of an older version has none."""
    code = zipped(tmp_path, {"app.py": APP})
    kept = kept_archive(Path(publish(code, store).path))
    kept.unlink()

    publish(code, store)

    assert code.read_bytes() == kept.read_bytes()


def test_a_directory_has_no_archive(source: Path, store: Path) -> None:
    """One is made when somebody asks."""
    package = publish(source, store)

    assert [package.path] == [str(path) for path in store.iterdir()]
    assert not kept_archive(Path(package.path)).exists()


def test_a_message_has_the_path(tmp_path: Path, store: Path) -> None:
    """Who gave us a file is told which."""
    code = tmp_path / "code.zip"
    code.write_bytes(b"not a zip")

    refused(code, store, rf"^Could not unzip uploaded file\. .* \({code}\)$")


def test_a_store_behind_a_link_takes_links(tmp_path: Path, store: Path) -> None:
    """The state directory may be one: what is inside is inside all the same."""
    (tmp_path / "way").symlink_to(store)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "app.py").write_bytes(APP)
    (tmp_path / "source" / "link").symlink_to("app.py")

    copied = Path(publish(tmp_path / "source", tmp_path / "way").path)

    assert (copied / "link").read_bytes() == APP


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file become larger, as if the disk were full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("uploaded", [False, True])
@pytest.mark.parametrize("name", ["source", "code.zip"])
def test_a_disk_that_is_full_is_no_fault_of_the_code(
    tmp_path: Path, source: Path, store: Path, *, uploaded: bool, name: str
) -> None:
    """Another try may do, and nothing half written is in its way."""
    (source / "zeros").write_bytes(bytes(100_000))
    zipped(tmp_path, {"zeros": bytes(100_000)})
    before = tree(tmp_path)

    with files_of_at_most(10_000), pytest.raises(ServiceError, match="File too large") as caught:
        publish(packages.Upload(tmp_path / name) if uploaded else tmp_path / name, store)

    assert uploaded is not (str(tmp_path) in str(caught.value))
    moved = {"code.zip"} if uploaded else set()
    assert set(before) - moved == set(tree(tmp_path)) - moved


def test_a_store_that_is_gone_is_no_fault_of_an_upload(tmp_path: Path) -> None:
    """Whatever the system says of our own files."""
    code = zipped(tmp_path, {"app.py": APP})

    with pytest.raises(ServiceError, match=r"^Uploaded file cannot be kept: No such file"):
        publish(packages.Upload(code), tmp_path / "gone")


def test_the_same_code_at_the_same_time_is_stored_once(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who comes second finds it there: all have found nothing when the first gives the name."""
    code = zipped(tmp_path, {"app.py": APP, "b": bytes(1000)})
    everybody = threading.Barrier(4)
    real = packages._libc

    def syncfs(descriptor: int) -> int:
        everybody.wait(timeout=30)
        return int(real.syncfs(descriptor))

    monkeypatch.setattr(packages, "_libc", SimpleNamespace(syncfs=syncfs))
    with ThreadPoolExecutor(4) as pool:
        found = {package.path for package in pool.map(publish, [code] * 4, [store] * 4)}

    (path,) = found
    assert {path, f"{path}.zip"} == {str(each) for each in store.iterdir()}
    assert tree(path) == ["app.py", "b"]


# Layers


def layer(store: Path, **contents: str) -> Path:
    """Return a published package: of text, of links (with "->"), of directories ("/")."""
    source = store.parent / "layer"
    source.mkdir()
    for name, content in contents.items():
        path = source / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("->"):
            path.symlink_to(content[2:])
        elif content == "/":
            path.mkdir()
        else:
            path.write_text(content)
    package = Path(publish(source, store).path)
    shutil.rmtree(source)
    return package


def contents(path: Path) -> dict[str, str]:
    """Return a tree as `layer` takes it."""
    found = {}
    for name in tree(path):
        place = path / name
        key = name.replace("/", "__")
        if place.is_symlink():
            found[key] = f"->{place.readlink()}"
        elif not place.is_dir():
            found[key] = place.read_text()
        elif not list(place.iterdir()):
            found[key] = "/"
    return found


def test_layers_are_merged_in_order(store: Path) -> None:
    """What is in both is the later one's; the rest is everybody's."""
    one = layer(store, python__a="1", python__both="1", only="1")
    two = layer(store, python__both="2", python__b="2", empty="/")

    merged = merge([one, two], store)

    expected = {"python__a": "1", "python__both": "2", "python__b": "2", "only": "1", "empty": "/"}
    assert expected == contents(merged)
    assert {"python__a": "1", "python__both": "1", "only": "1"} == contents(one)
    assert {"python__both": "2", "python__b": "2", "empty": "/"} == contents(two)


def test_another_order_is_another_package(store: Path) -> None:
    """And the same order the same one, that is made once."""
    one, two = layer(store, a="1"), layer(store, a="2")

    merged = merge([one, two], store)
    other = merge([two, one], store)

    assert "2" == (merged / "a").read_text()
    assert "1" == (other / "a").read_text()
    assert merged == merge([one, two], store)
    assert 4 == len(list(store.iterdir()))


def test_merged_layers_cost_no_copies(store: Path) -> None:
    """What is published never changes, so a file may have more names."""
    one, two = layer(store, a="1"), layer(store, b="2", link="->b")

    merged = merge([one, two], store)

    assert (one / "a").samefile(merged / "a")
    assert (two / "b").samefile(merged / "b")
    assert stat.S_IMODE(merged.stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        ({"x": "file"}, {"x__y": "2"}, {"x__y": "2"}),
        ({"x__y": "1", "x__z__w": "1"}, {"x": "file"}, {"x": "file"}),
        ({"d__f": "1", "x": "->d"}, {"x__f": "2"}, {"d__f": "1", "x__f": "2"}),
        ({"f": "1", "x": "->f"}, {"x": "2"}, {"f": "1", "x": "2"}),
        ({"d__f": "1", "x__f": "1"}, {"e": "1", "x": "->e"}, {"d__f": "1", "e": "1", "x": "->e"}),
        ({"x": "/"}, {"x": "/", "y": "1"}, {"x": "/", "y": "1"}),
    ],
)
def test_whatever_is_later_takes_the_place(
    store: Path, lower: dict[str, str], upper: dict[str, str], expected: dict[str, str]
) -> None:
    """A file of a directory's, and the reverse; nothing is ever written through a link."""
    parts = [layer(store, **lower), layer(store, **upper)]

    assert expected == contents(merge(parts, store))
    assert [lower, upper] == [contents(part) for part in parts]


def test_links_of_two_layers_do_not_lead_out_together(tmp_path: Path, store: Path) -> None:
    """Each stays inside its own layer, and in the other's directories it would not."""
    one = layer(store, a__b__up="->../..")
    two = Path(publish(linked(tmp_path, "x", "a/b/up/../y"), store).path)
    before = tree(store)

    with pytest.raises(InvalidParameterValue, match="A link leads out of the package: 'x'"):
        merge([one, two], store)

    assert before == tree(store)


def linked(tmp_path: Path, name: str, text: str) -> Path:
    """Return a zip file that holds one link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "linked.zip", "w") as archive:
        archive.writestr(info, text)
    return tmp_path / "linked.zip"


def test_layers_that_are_too_large_together_are_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Lambda's words, and what one hides of another counts."""
    one, two = layer(store, a="x" * 600), layer(store, a="y" * 600)
    before = tree(store)
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)
    words = "^Layers consume more than the available size of 1000 bytes$"

    with pytest.raises(InvalidParameterValue, match=words):
        merge([one, two], store)

    assert before == tree(store)


def test_layers_of_another_file_system_are_copied(store: Path) -> None:
    """A file has names on one file system only."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == store.stat().st_dev:
            pytest.skip("/dev/shm is where the temporary directory is")
        far = Path(other) / "far"
        far.mkdir()
        (far / "run").write_bytes(b"x")
        (far / "run").chmod(0o755)
        (far / "link").symlink_to("run")

        merged = merge([far, layer(store, a="1")], store)

    assert {"run": "x", "link": "->run", "a": "1"} == contents(merged)
    assert stat.S_IMODE((merged / "run").stat().st_mode) == 0o755


def test_a_layer_that_is_gone_is_no_fault_of_the_function(store: Path) -> None:
    """And half of the merged ones is not left."""
    one = layer(store, a="1")

    with pytest.raises(ServiceError, match=r"^The layers cannot be merged: .*/gone"):
        merge([one, store / "gone"], store)

    assert [one] == list(store.iterdir())


def test_the_unzipped_size_is_that_of_files_and_links(tmp_path: Path, store: Path) -> None:
    """Directories and the archive itself are not counted."""
    plain = publish(zipped(tmp_path, {"a": b"x" * 1000, "d/b": b"y" * 234}), store)
    link = publish(linked(tmp_path, "link", "somewhere"), store)

    assert 1234 == unzipped_size(Path(plain.path))
    assert len("somewhere") == unzipped_size(Path(link.path))


# Downloads


def test_an_archive_of_a_directory_brings_it_back(
    tmp_path: Path, source: Path, store: Path
) -> None:
    """Content, execute bits, links and empty directories: published again it is the same."""
    (source / "lib").mkdir()
    (source / "empty").mkdir()
    (source / "lib" / "up.py").symlink_to("../app.py")
    (source / "lib" / "λ.bin").write_bytes(bytes(range(256)) * 10_000)
    (source / "run").write_bytes(b"#!/bin/sh\n")
    (source / "run").chmod(0o700)
    package = Path(publish(source, store).path)

    archive(package, tmp_path / "made.zip")

    back = Path(publish(tmp_path / "made.zip", store).path)
    assert publish(package, store).sha256 == publish(back, store).sha256
    assert tree(package) == tree(back)


def test_an_archive_is_always_the_same(tmp_path: Path, source: Path, store: Path) -> None:
    """Whenever it is made, and whatever was cached beside the code."""
    (source / "b").mkdir()
    for name in ("b/x.py", "c.py", "b/w.py"):
        (source / name).write_bytes(APP)
    (source / "a").mkdir()
    first = Path(publish(source, store).path)
    archive(first, tmp_path / "first.zip")
    shutil.rmtree(first)
    (source / "b" / "__pycache__").mkdir()
    (source / "b" / "__pycache__" / "x.pyc").write_bytes(b"x")
    os.utime(source / "app.py", (1_000_000_000, 1_000_000_000))
    second = Path(publish(source, store).path)

    archive(second, tmp_path / "second.zip")

    assert first == second
    assert "b/__pycache__/x.pyc" in tree(second)
    with zipfile.ZipFile(tmp_path / "second.zip") as made:
        assert ["a/", "app.py", "b/", "c.py", "b/w.py", "b/x.py"] == made.namelist()
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_a_name_that_no_zip_can_hold_is_said(tmp_path: Path, source: Path, store: Path) -> None:
    """Lambda would not have taken it either; there is no half of an archive."""
    (source / os.fsdecode(b"\xff")).touch()
    package = Path(publish(source, store).path)

    with pytest.raises(InvalidParameterValue, match=r"a name that is no UTF-8.*'\\udcff'"):
        archive(package, tmp_path / "made.zip")

    assert not (tmp_path / "made.zip").exists()


# Whatever ends in the middle


def test_what_nobody_has_is_collected(tmp_path: Path, source: Path, store: Path) -> None:
    """With its archive, and with what a crash left; what is in use keeps both."""
    used = publish(zipped(tmp_path, {"app.py": APP}), store)
    publish(zipped(tmp_path, {"app.py": APP, "b": b""}), store)
    directory = publish(source, store)
    (store / ".staging-0" / "code" / "d").mkdir(parents=True)
    (store / ".staging-0" / "zip").touch()

    packages.collect(store, {used.path, directory.path})

    expected = {used.path, f"{used.path}.zip", directory.path}
    assert expected == {str(path) for path in store.iterdir()}
    assert tree(used.path) == ["app.py"]


def killed(moment: int, work: Callable[[], object]) -> bool:
    """Do this work in a child that SIGKILL ends at its n-th call of C; whether it came so far."""
    child = os.fork()
    if child == 0:
        calls = 0

        def count(_frame: object, event: str, _function: object) -> None:
            nonlocal calls
            calls += event == "c_call"
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.waitstatus_to_exitcode(status) == 0
        return False
    return True


def whole(path: Path) -> dict[str, str | bytes]:
    """Return a tree, its links and contents."""
    if not path.is_dir():
        return {"": path.read_bytes()}
    return {
        name: os.readlink(path / name)
        if (path / name).is_symlink()
        else "directory"
        if (path / name).is_dir()
        else (path / name).read_bytes()
        for name in tree(path)
    }


@pytest.mark.parametrize("what", ["archive", "directory", "layers", "collect"])
def test_a_crash_at_any_moment_leaves_no_half_package(
    tmp_path: Path, source: Path, what: str
) -> None:
    """SIGKILL before each call there is: what has its final name is whole, and can be had again."""
    (source / "d").mkdir()
    (source / "d" / "link").symlink_to("../app.py")
    (source / "d" / "b").write_bytes(b"b" * 10_000)
    code = zipped(tmp_path, {"app.py": APP, "d/b": b"b" * 10_000, "e/c": b""})
    before = tmp_path / "before"
    before.mkdir()
    parts = [publish(source, before), publish(code, before)]
    store = tmp_path / "work"

    def work(*, durable: bool = True) -> None:
        if what == "collect":
            packages.collect(store, {str(store / Path(parts[1].path).name)})
        elif what == "layers":
            merge([store / Path(part.path).name for part in parts], store, durable=durable)
        else:
            publish(source if what == "directory" else code, store, durable=durable)

    def start(store: Path) -> None:
        shutil.rmtree(store, ignore_errors=True)
        if what in ("collect", "layers"):
            shutil.copytree(before, store, symlinks=True)
        else:
            store.mkdir()

    start(store)
    known = {path.name: whole(path) for path in store.iterdir()}
    work()
    done = {path.name for path in store.iterdir()}
    known |= {path.name: whole(path) for path in store.iterdir()}
    moment = 0
    while True:
        moment += 1
        start(store)
        if not killed(moment, work):
            break
        final = {path.name: whole(path) for path in store.iterdir() if path.name[0] != "."}

        assert final == {name: known[name] for name in final}
        if what == "archive":  # without its own, code is taken for a directory's
            assert sorted(final) in ([], sorted(done), [max(done)])
        work(durable=False)
        packages.collect(store, {str(store / name) for name in done})
        assert done == {path.name for path in store.iterdir()}
    assert moment > 30


def traced(arguments: list[str], *options: str) -> tuple[list[str], str]:
    """Run `publish` under strace; return the calls that are about disks, and what it printed."""
    program = (
        "import sys; from pathlib import Path; from miniλ.store import packages\n"
        "print('start', flush=True)\n"
        "try: packages.publish(sys.argv[1], Path(sys.argv[2]), durable=sys.argv[3] == 'durable')\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    calls = "trace=syncfs,fsync,fdatasync,rename,renameat,renameat2,write"
    command = ["strace", "-f", "-qq", "-e", "signal=none", "-e", calls, *options]
    command += [sys.executable, "-B", "-c", program, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (FileNotFoundError, subprocess.CalledProcessError) as exc:
        pytest.skip(f"strace cannot be used here: {exc}")
    lines = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", done.stderr, re.MULTILINE)
    return [line for line in lines if line != "write"], done.stdout


def test_a_package_is_on_disk_before_it_has_its_name(tmp_path: Path, store: Path) -> None:
    """All of it first, then the names, the archive's before the code's, then the names are, too."""
    code = zipped(tmp_path, {"app.py": APP})

    calls, _ = traced([str(code), str(store), "durable"])
    assert ["syncfs", "rename", "rename", "fsync"] == calls

    again, _ = traced([str(code), str(store), "durable"])
    assert ["fsync"] == again


def test_a_state_that_nobody_keeps_waits_for_no_disk(tmp_path: Path, store: Path) -> None:
    """It is gone with its process anyway."""
    calls, _ = traced([str(zipped(tmp_path, {"app.py": APP})), str(store), "not"])

    assert ["rename", "rename"] == calls


def test_a_disk_that_fails_gives_no_package(tmp_path: Path, store: Path) -> None:
    """What could not be written is not published, and is our trouble."""
    code = zipped(tmp_path, {"app.py": APP})

    calls, printed = traced([str(code), str(store), "durable"], "-e", "inject=syncfs:error=EIO")

    assert ["syncfs"] == calls
    assert "ServiceError" in printed
    assert [] == list(store.iterdir())
