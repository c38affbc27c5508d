"""Tests of archives: what is honest is unpacked, however it was written."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import struct
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from miniλ.errors import InvalidParameterValue
from miniλ.store import archives
from tests.unit.store.zips import (
    APP,
    DEFLATED,
    DIRECTORY,
    LINK,
    Member,
    as_file,
    assemble,
    publish,
    quick,
    tree,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_zip_is_unpacked(store: Path) -> None:
    """Stored or deflated, with entries for directories or without, in any order."""
    code = publish(
        assemble(
            Member(b"lib/", mode=DIRECTORY),
            Member(b"app.py", APP, method=DEFLATED),
            Member(b"deep/er/x.py", b"x"),
            Member(b"deep/", mode=DIRECTORY),
            Member(b"./here", b""),
            Member("λ.py".encode(), APP),
            Member(b"./", mode=DIRECTORY),
            Member(b"empty", b"", method=DEFLATED, flags=1 << 3),
            Member(b"nothing", b"", method=DEFLATED, compressed=0),
        ),
        store,
    )

    expected = ["app.py", "deep", "deep/er", "deep/er/x.py", "empty", "here", "lib"]
    expected += ["nothing", "λ.py"]
    assert expected == tree(code)
    assert APP == (code / "app.py").read_bytes()
    assert b"x" == (code / "deep/er/x.py").read_bytes()
    assert (code / "lib").is_dir()


def test_large_content_comes_in_pieces(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is the same for every size of a piece."""
    content = b"".join(b"%d" % number for number in range(20_000))
    data = assemble(Member(b"a", content, method=DEFLATED), Member(b"b", content))
    for size in (1, 7, 1000, 1 << 20):
        monkeypatch.setattr(archives, "PIECE", size)
        code = publish(data, store)

        assert content == (code / "a").read_bytes() == (code / "b").read_bytes()
        shutil.rmtree(code)


def test_nothing_is_setuid_or_writable_for_all(store: Path) -> None:
    """Files are 0644, or 0755 with any execute bit; directories are 0755."""
    code = publish(
        assemble(
            Member(b"setuid", mode=stat.S_IFREG | 0o6755),
            Member(b"mine", mode=stat.S_IFREG | 0o700),
            Member(b"all", mode=stat.S_IFREG | 0o666),
            Member(b"none", mode=stat.S_IFREG),
            Member(b"dos", mode=0),
            Member(b"d/", mode=stat.S_IFDIR | 0o1777),
        ),
        store,
    )

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in code.iterdir()}
    files = {"setuid": 0o755, "mine": 0o755, "all": 0o644, "none": 0o644, "dos": 0o644}
    assert {**files, "d": 0o755} == modes


def test_our_umask_is_not_the_workers(store: Path) -> None:
    """A worker that runs as another user can read the code under any umask of ours."""
    before = os.umask(0o077)
    try:
        code = publish(assemble(Member(b"d/app.py", APP)), store)
    finally:
        os.umask(before)

    modes = [stat.S_IMODE((code / name).stat().st_mode) for name in ("", "d", "d/app.py")]
    assert [0o755, 0o755, 0o644] == modes


def test_links_that_stay_inside_are_kept(store: Path) -> None:
    """To what comes later, to all of it, to nowhere; as they are written."""
    links = {"lib/up.py": "../app.py", "all": ".", "lib/top": "..", "nowhere": "lib/missing"}
    links |= {"long": "./" * 511 + "x"}
    code = publish(
        assemble(
            *(Member(name.encode(), text.encode(), LINK) for name, text in links.items()),
            as_file("app.py"),
        ),
        store,
    )

    assert links == {name: os.readlink(code / name) for name in links}
    assert APP == (code / "lib/up.py").read_bytes()


def test_names_may_differ_in_their_case_only(store: Path) -> None:
    """As on Linux: a Makefile beside a makefile is two files."""
    code = publish(assemble(as_file("App.py"), as_file("app.py")), store)

    assert ["App.py", "app.py"] == tree(code)


@pytest.mark.parametrize(
    "name", ["x" * 255, "d/" * 63 + "x", "λ" * 127, "ab:c", "d/a:b", "..a", "a.."]
)
def test_a_name_that_just_keeps_the_rules_is_unpacked(store: Path, name: str) -> None:
    """Values at the limits are allowed, and names that only look as if they broke a rule."""
    code = publish(assemble(as_file(name)), store)

    assert APP == (code / name).read_bytes()


def test_an_archive_may_follow_something_else(store: Path) -> None:
    """An interpreter line, as zipapp writes it: offsets count from the archive."""
    code = publish(b"#!/usr/bin/env python3\n" + assemble(as_file("app.py")), store)

    assert ["app.py"] == tree(code)


@pytest.mark.parametrize("comment", [b"hello", b"PK\5\6", b"x" * 0xFFFF])
def test_a_zip_may_have_a_comment(store: Path, comment: bytes) -> None:
    """Also a comment that looks like the end of a zip."""
    whole = assemble(as_file("app.py"))
    data = whole[:-2] + struct.pack("<H", len(comment)) + comment

    assert ["app.py"] == tree(publish(data, store))


class Stream(io.RawIOBase):
    """A file without seek: zipfile then writes sizes behind the content."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        """Be written."""
        return True

    def write(self, data: object) -> int:
        """Take bytes."""
        self.data += memoryview(data)  # type: ignore[arg-type]
        return len(memoryview(data))  # type: ignore[arg-type]


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("seekable", [False, True])
def test_what_zipfile_writes_is_unpacked(store: Path, *, zip64: bool, seekable: bool) -> None:
    """Also as zip64, and as a stream."""
    target = io.BytesIO() if seekable else Stream()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("empty")
        for name in ("app.py", "λ/é.py"):
            with archive.open(name, "w", force_zip64=zip64) as file:
                file.write(APP)
    data = target.getvalue() if isinstance(target, io.BytesIO) else bytes(target.data)

    code = publish(data, store)

    assert ["app.py", "empty", "λ", "λ/é.py"] == tree(code)
    assert APP == (code / "app.py").read_bytes() == (code / "λ/é.py").read_bytes()


def test_zip64_sizes_are_read_where_they_are(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Size, compressed size and offset in the extra field, and the count in the zip64 end."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 10)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("app.py", "b.py"):
            archive.writestr(name, APP)
    data = target.getvalue()

    code = publish(data, store)

    assert b"PK\6\6" in data
    assert APP == (code / "app.py").read_bytes() == (code / "b.py").read_bytes()


@pytest.mark.skipif(shutil.which("zip") is None, reason="Info-ZIP's zip is not installed")
def test_what_zip_writes_is_unpacked(tmp_path: Path, store: Path) -> None:
    """Info-ZIP's zip, with links and execute bits: the most common way to make a package."""
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    (source / "app.py").write_bytes(APP * 50)
    (source / "λ.py").write_bytes(APP)
    (source / "lib" / "up").symlink_to("../app.py")
    (source / "run").write_bytes(b"#!/bin/sh\n")
    (source / "run").chmod(0o750)
    subprocess.run(["zip", "-qry", tmp_path / "made.zip", "."], cwd=source, check=True)

    code = publish((tmp_path / "made.zip").read_bytes(), store)

    assert tree(source) == tree(code)
    assert APP * 50 == (code / "lib" / "up").read_bytes()
    assert stat.S_IMODE((code / "run").stat().st_mode) == 0o755


names = st.lists(
    st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), max_size=8)
    .map(lambda text: f"n{text}")
    .filter(lambda text: len(text.encode()) < 200 and not text.startswith("n:")),
    min_size=1,
    max_size=4,
).map("/".join)


@quick
@given(contents=st.dictionaries(names, st.binary(max_size=300), min_size=1, max_size=8))
def test_we_read_what_zipfile_reads(tmp_path: Path, contents: dict[str, bytes]) -> None:
    """For any names and contents: the same files, or none where two share a place."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    try:
        code = publish(target.getvalue(), store)
    except InvalidParameterValue as exc:
        assert "in one place" in str(exc)  # noqa: PT017 - it is one of two outcomes
        return

    assert contents == {name: (code / name).read_bytes() for name in contents}


@quick
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5
    ),
)
def test_a_zip_with_wrong_bytes_is_unpacked_or_refused(
    tmp_path: Path, changes: list[tuple[int, int]]
) -> None:
    """Any damage is InvalidParameterValue or none, and leaves nothing half done."""
    data = bytearray(
        assemble(
            Member(b"app.py", APP, method=DEFLATED),
            Member(b"d/", mode=DIRECTORY),
            Member(b"d/l", b"../app.py", LINK),
        )
    )
    for place, value in changes:
        data[place % len(data)] = value
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    with contextlib.suppress(InvalidParameterValue):
        publish(bytes(data), store)

    assert [] == [path for path in store.iterdir() if path.name.startswith(".")]
    assert ["store"] == os.listdir(tmp_path)
