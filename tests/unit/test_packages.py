"""Tests of packages: code arrives as it was, or not at all."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import stat
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ import packages
from miniλ.errors import InvalidParameterValue
from miniλ.packages import publish

APP = b"def handler(event, context):\n    return event\n"
LINK = stat.S_IFLNK | 0o777


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


def entry(name: str, mode: int = 0o644) -> zipfile.ZipInfo:
    """Return a zip entry with this name, exactly, and this mode."""
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def pack(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    """Return a zip archive with these entries, whatever their names are."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # zipfile says when a name comes twice
        with zipfile.ZipFile(buffer, "w") as archive:
            for info, content in entries:
                archive.writestr(info, content)
    return buffer.getvalue()


def archive_of(tmp_path: Path, *entries: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """Return the path of a zip file with these entries."""
    path = tmp_path / "code.zip"
    path.write_bytes(pack(*entries))
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
    deep = source.joinpath(*["d"] * packages.MAX_DEPTH)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x")

    copied = Path(publish(source, store).path)

    assert copied.joinpath(*["d"] * 64, "file").read_bytes() == b"x"


@pytest.mark.parametrize("depth", [65, 300])
def test_a_directory_that_is_too_deep_is_refused(source: Path, store: Path, depth: int) -> None:
    """The message says how deep it may be, and where it is deeper."""
    source.joinpath(*["d"] * depth).mkdir(parents=True)

    refused(source, store, f"nested deeper than 64 directories: {'/'.join('d' * 65)}$")


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


def test_an_archive_is_unpacked(tmp_path: Path, store: Path) -> None:
    """The sha256 and the size are those of the archive, as Lambda has them."""
    code = archive_of(
        tmp_path,
        (entry("lib/", stat.S_IFDIR | 0o755), b""),
        (entry("app.py"), APP),
        (entry("deep/er/x.py", stat.S_IFREG | 0o600), b"x"),
    )

    package = publish(code, store)

    assert tree(package.path) == ["app.py", "deep", "deep/er", "deep/er/x.py", "lib"]
    assert (Path(package.path) / "app.py").read_bytes() == APP
    digest = hashlib.sha256(code.read_bytes()).digest()
    assert base64.b64encode(digest).decode() == package.sha256
    assert code.stat().st_size == package.size


def test_an_unpacked_file_keeps_its_execute_bit_and_no_more(tmp_path: Path, store: Path) -> None:
    """An archive cannot bring a setuid file."""
    code = archive_of(
        tmp_path,
        (entry("run", stat.S_IFREG | 0o4755), b"x"),
        (entry("plain", stat.S_IFREG | 0o666), b"x"),
        (entry("dos", 0), b"x"),
    )

    copied = Path(publish(code, store).path)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in copied.iterdir()}
    assert modes == {"run": 0o755, "plain": 0o644, "dos": 0o644}


def test_a_link_inside_an_archive_is_kept(tmp_path: Path, store: Path) -> None:
    """Links are made last, so their targets may come after them."""
    code = archive_of(tmp_path, (entry("lib/up.py", LINK), b"../app.py"), (entry("app.py"), APP))

    copied = Path(publish(code, store).path)

    assert Path("../app.py") == (copied / "lib" / "up.py").readlink()
    assert (copied / "lib" / "up.py").read_bytes() == APP


def test_the_same_archive_twice_is_stored_once(tmp_path: Path, store: Path) -> None:
    """The same bytes have the same path."""
    code = archive_of(tmp_path, (entry("app.py"), APP))

    assert publish(code, store) == publish(code, store)
    assert len(list(store.iterdir())) == 1


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "a/../../evil.py",
        "a/../b",
        "..",
        "../",
        "/evil.py",
        "//evil.py",
        "a\\b",
        "..\\evil.py",
        "C:\\evil.py",
        "a\0b",
        "app.py\0.txt",
        "x" * 256,
        "d/" + "λ" * 128,
        "d/" * 64 + "x",
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, store: Path, name: str) -> None:
    """Zip-slip, absolute names, NUL, backslashes, and names too long for a file system."""
    code = archive_of(tmp_path, (entry("app.py"), APP), (entry(name), b"x"))

    refused(code, store, "a name that cannot be unpacked safely")


def test_an_empty_name_is_refused(tmp_path: Path, store: Path) -> None:
    """A file has to be called something."""
    code = archive_of(tmp_path, (entry(""), b"x"))

    refused(code, store, "a name that cannot be unpacked safely")


def test_a_name_that_comes_twice_is_refused(tmp_path: Path, store: Path) -> None:
    """Which of the two would it be? Scanners and runtimes disagree."""
    code = archive_of(tmp_path, (entry("app.py"), APP), (entry("app.py"), b"evil"))

    refused(code, store, "a name that cannot be unpacked safely: 'app.py'")


@pytest.mark.parametrize(
    "names",
    [
        ("app.py", "./app.py"),
        ("a/app.py", "a//app.py"),
        ("a", "a/"),
        ("a", "a/b"),
        ("a/b", "a"),
        (".", "x"),
    ],
)
def test_names_that_are_the_same_place_are_refused(
    tmp_path: Path, store: Path, names: tuple[str, ...]
) -> None:
    """Also written differently, or as a file and a directory."""
    code = archive_of(tmp_path, *[(entry(name), b"") for name in names])

    refused(code, store)


def test_an_encrypted_entry_is_refused(tmp_path: Path, store: Path) -> None:
    """There is nobody to ask for the password; the message says which entry it is."""
    code = archive_of(tmp_path, (entry("app.py"), APP))
    data = bytearray(code.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    code.write_bytes(data)

    refused(code, store, "The archive is encrypted: 'app.py'")


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_an_entry_that_is_no_file_is_refused(tmp_path: Path, store: Path, kind: int) -> None:
    """Devices, FIFOs and sockets are no code."""
    code = archive_of(tmp_path, (entry("odd", kind | 0o644), b""))

    refused(code, store, "something that is no file: 'odd'")


@pytest.mark.parametrize("link", ["/etc/passwd", "..", "../..", "../x", "a/../../x", "lib/../.."])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, store: Path, link: str) -> None:
    """The message shows where it leads."""
    code = archive_of(tmp_path, (entry("app.py"), APP), (entry("link", LINK), link.encode()))

    refused(code, store, "a link that leads out of it: 'link'")


def test_links_do_not_lead_out_together(tmp_path: Path, store: Path) -> None:
    """Each stays inside by its text, but the second goes through the first, and out."""
    code = archive_of(
        tmp_path,
        (entry("a/b/up", LINK), b"../.."),
        (entry("out", LINK), b"a/b/up/../../secret"),
    )
    (tmp_path / "secret").write_bytes(b"s")

    refused(code, store, "a link that leads out of it: 'out'")


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


def test_a_link_to_all_of_an_archive_is_kept(tmp_path: Path, store: Path) -> None:
    """The directory itself is inside."""
    code = archive_of(tmp_path, (entry("a/up", LINK), b".."), (entry("here", LINK), b"."))

    copied = Path(publish(code, store).path)

    assert (copied / "a" / "up").readlink() == Path("..")
    assert (copied / "here").readlink() == Path()


def test_a_store_behind_a_link_takes_links(tmp_path: Path, store: Path) -> None:
    """The state directory may be one: what is inside is inside all the same."""
    (tmp_path / "way").symlink_to(store)
    code = archive_of(tmp_path, (entry("link", LINK), b"app.py"), (entry("app.py"), APP))

    copied = Path(publish(code, tmp_path / "way").path)

    assert (copied / "link").read_bytes() == APP


@pytest.mark.parametrize(
    "links",
    [
        {"a": "a"},
        {"a": "b", "b": "a"},
        {"a": "d/b", "d/b": "../a/x"},
        {f"{number}": f"{number + 1}" for number in range(60)},
    ],
    ids=["itself", "two", "deeper", "sixty"],
)
def test_links_in_a_circle_are_refused(tmp_path: Path, store: Path, links: dict[str, str]) -> None:
    """Or more of them than the kernel would follow."""
    code = archive_of(
        tmp_path, *[(entry(name, LINK), link.encode()) for name, link in links.items()]
    )

    refused(code, store, "a link that leads to itself")


def test_no_link_is_made_through_a_link(tmp_path: Path, store: Path) -> None:
    """Links are no way to write outside: the third entry would be in the store."""
    code = archive_of(
        tmp_path,
        (entry("a/b/up", LINK), b"../.."),
        (entry("out", LINK), b"a/b/up/.."),
        (entry("out/planted", LINK), b"x"),
    )

    refused(code, store, "a link below another link: 'out/planted'")


@pytest.mark.parametrize("link", [b"", b"a\0b", b"\xff\xfe", b"x" * 5000])
def test_a_link_to_what_is_no_path_is_refused(tmp_path: Path, store: Path, link: bytes) -> None:
    """Nothing, NUL, bad UTF-8, or longer than a path can be."""
    code = archive_of(tmp_path, (entry("link", LINK), link))

    refused(code, store)


@pytest.mark.parametrize("link", [b"./" * 2047 + b"xy", b"./" * 4_000_000 + b"x"])
def test_a_link_of_more_than_a_path_is_not_inflated(
    tmp_path: Path, store: Path, link: bytes
) -> None:
    """Not further than 4,095 bytes: a bomb may be a link, too."""
    code = archive_of(tmp_path, (entry("link", LINK), link))
    tracemalloc.start()
    try:
        refused(code, store, "a link of more than 4095 bytes: 'link'")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 2_000_000


def test_a_link_of_just_a_path_is_kept(tmp_path: Path, store: Path) -> None:
    """4,095 bytes is what Linux takes."""
    link = b"./" * 2047 + b"x"
    code = archive_of(tmp_path, (entry("link", LINK), link), (entry("x"), APP))

    assert (Path(publish(code, store).path) / "link").read_bytes() == APP


def test_links_count(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes of links are counted like those of files: a bomb may be one."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)
    code = archive_of(tmp_path, (entry("link", LINK), b"./" * 2000 + b"x"))

    refused(code, store, "Unzipped size must be smaller than 1000 bytes")


def test_an_archive_that_inflates_to_too_much_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """250 MB, all entries together."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)
    code = archive_of(tmp_path, (entry("one"), b"x" * 600), (entry("two"), b"x" * 600))

    refused(code, store, "Unzipped size must be smaller than 1000 bytes")


def test_bytes_are_counted_and_not_believed(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive that says its entry has one byte has as many as it has: it is refused."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)
    code = archive_of(tmp_path, (entry("bomb"), b"x" * 100_000))
    data = bytearray(code.read_bytes())
    data[22:26] = struct.pack("<I", 1)
    place = data.index(b"PK\x01\x02") + 24
    data[place : place + 4] = struct.pack("<I", 1)
    code.write_bytes(data)

    refused(code, store)


def test_an_archive_that_is_too_large_is_not_opened(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """50 MB zipped, as for a direct upload."""
    monkeypatch.setattr(packages, "MAX_ZIPPED", 10)
    code = archive_of(tmp_path, (entry("app.py"), APP))

    refused(
        code,
        store,
        f"Zipped size must be smaller than 10 bytes, .* has {code.stat().st_size}",
    )


def test_an_archive_of_too_many_entries_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs an inode."""
    monkeypatch.setattr(packages, "MAX_ENTRIES", 2)
    code = archive_of(tmp_path, *[(entry(name), b"") for name in "abc"])

    refused(code, store, "The archive has 3 entries, at most 2 are allowed")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06", APP * 100])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, store: Path, content: bytes) -> None:
    """In Lambda's words, with the path."""
    code = tmp_path / "code.zip"
    code.write_bytes(content)

    refused(code, store, "Could not unzip uploaded file .*code.zip")


def test_a_truncated_archive_is_refused(tmp_path: Path, store: Path) -> None:
    """Wherever the upload broke off."""
    whole = pack((entry("app.py"), APP), (entry("b.bin"), bytes(range(256))))
    code = tmp_path / "code.zip"
    for size in range(0, len(whole), 7):
        code.write_bytes(whole[:size])

        refused(code, store, "Could not unzip uploaded file")


def test_an_archive_with_a_wrong_checksum_is_refused(tmp_path: Path, store: Path) -> None:
    """A flipped bit in stored content is found."""
    info = entry("app.py")
    info.compress_type = zipfile.ZIP_STORED
    code = archive_of(tmp_path, (info, APP))
    code.write_bytes(code.read_bytes().replace(b"handler", b"Handler"))

    refused(code, store, "Could not unzip uploaded file")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_broken_content_is_refused(
    tmp_path: Path, store: Path, method: int
) -> None:
    """What zlib, bz2 and lzma raise for bytes that are none of theirs stays inside."""
    info = entry("app.py")
    info.compress_type = method
    code = archive_of(tmp_path, (info, APP * 20))
    data = bytearray(code.read_bytes())
    for place in range(36 + 9, 36 + 9 + 12):
        data[place] = 0xFF
    code.write_bytes(data)

    refused(code, store)


@settings(
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5
    ),
)
def test_an_archive_with_wrong_bytes_is_unpacked_or_refused(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    """Any damage is InvalidParameterValue or none, and leaves nothing half done."""
    data = bytearray(
        pack((entry("app.py"), APP), (entry("d/"), b""), (entry("d/l", LINK), b"../app.py"))
    )
    for place, value in changes:
        data[place % len(data)] = value
    code, store = tmp_path / "code.zip", tmp_path / "store"
    code.write_bytes(data)
    store.mkdir(exist_ok=True)
    with contextlib.suppress(InvalidParameterValue):
        publish(code, store)

    assert [path for path in store.iterdir() if path.name.startswith(".")] == []
    assert {"code.zip", "store"} >= set(os.listdir(tmp_path))
