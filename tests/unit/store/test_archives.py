"""Tests of archives: a zip that lies in any way is refused.

The rules are those of a package from an unknown client over HTTP: each test goes through
`publish`, and looks for what is left behind.
"""

from __future__ import annotations

import io
import resource
import stat
import struct
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import EntityTooLarge, InvalidParameterValue
from miniλ.store import archives, packages
from tests.unit.store.zips import (
    APP,
    DAMAGED,
    DEFLATED,
    DIRECTORY,
    FILE,
    LINK,
    UNSAFE,
    Member,
    as_file,
    assemble,
    end,
    overlap_bomb,
    publish,
    refused,
    tree,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The corpus of fault 53: what is wrong, the bytes, and the message.
CORPUS: dict[str, tuple[Callable[[], bytes], str]] = {
    # Names
    "zip-slip": (lambda: assemble(as_file("../evil.py")), UNSAFE),
    "zip-slip, deeper": (lambda: assemble(as_file("a/../../evil.py")), UNSAFE),
    "up and down again": (lambda: assemble(as_file("a/../b")), UNSAFE),
    "the directory above": (lambda: assemble(as_file("..")), UNSAFE),
    "the directory above, as one": (lambda: assemble(Member(b"../", mode=DIRECTORY)), UNSAFE),
    "absolute": (lambda: assemble(as_file("/evil.py")), UNSAFE),
    "absolute twice": (lambda: assemble(as_file("//evil.py")), UNSAFE),
    "a drive": (lambda: assemble(as_file("C:/evil.py")), UNSAFE),
    "a drive without a slash": (lambda: assemble(as_file("c:evil.py")), UNSAFE),
    "backslash": (lambda: assemble(as_file("a\\b")), UNSAFE),
    "backslashes up": (lambda: assemble(as_file("..\\evil.py")), UNSAFE),
    "NUL": (lambda: assemble(as_file("app.py\0.txt")), UNSAFE),
    "no name": (lambda: assemble(as_file("")), UNSAFE),
    "a dot": (lambda: assemble(as_file(".")), UNSAFE),
    "Latin-1": (lambda: assemble(Member(b"\xe9.py", APP)), UNSAFE),
    "a surrogate": (lambda: assemble(Member(b"\xed\xa0\x80.py", APP)), UNSAFE),
    "overlong UTF-8": (lambda: assemble(Member(b"\xc0\xae\xc0\xae/x", APP)), UNSAFE),
    "256 bytes": (lambda: assemble(as_file("x" * 256)), UNSAFE),
    "256 bytes of UTF-8": (lambda: assemble(as_file("d/" + "λ" * 128)), UNSAFE),
    "65 deep": (lambda: assemble(as_file("d/" * 64 + "x")), UNSAFE),
    "1,025 bytes": (lambda: assemble(as_file("/".join(["x" * 204] * 5) + "x")), UNSAFE),
    # Two things in one place
    "twice": (lambda: assemble(as_file("a"), as_file("a")), "two things in one place: 'a'"),
    "twice, longer": (lambda: assemble(as_file("app.py"), as_file("app.py")), "in one place"),
    "with a dot": (lambda: assemble(as_file("app.py"), as_file("./app.py")), "in one place"),
    "two slashes": (lambda: assemble(as_file("a/b"), as_file("a//b")), "in one place"),
    "a directory twice": (
        lambda: assemble(Member(b"a/", mode=DIRECTORY), Member(b"a/", mode=DIRECTORY)),
        "in one place",
    ),
    "é and é": (lambda: assemble(as_file("\u00e9"), as_file("e\u0301")), "in one place"),
    "below é and é": (lambda: assemble(as_file("\u00e9/1"), as_file("e\u0301/2")), "in one place"),
    "a file, then a directory": (lambda: assemble(as_file("a"), as_file("a/b")), "in one place"),
    "a directory, then a file": (lambda: assemble(as_file("a/b"), as_file("a")), "in one place"),
    "both, declared": (
        lambda: assemble(as_file("a"), Member(b"a/", mode=DIRECTORY)),
        "in one place",
    ),
    "below a file, deep": (lambda: assemble(as_file("a"), as_file("a/b/c")), "in one place"),
    # Links
    "link out": (lambda: assemble(Member(b"a", b"../x", LINK)), "A link leads out"),
    "link to /": (lambda: assemble(Member(b"a", b"/etc/passwd", LINK)), "A link leads out"),
    "link up": (lambda: assemble(Member(b"d/a", b"../..", LINK)), "A link leads out"),
    "link out by what is missing": (
        lambda: assemble(Member(b"a", b"d/../../x", LINK)),
        "A link leads out",
    ),
    "links out together": (
        lambda: assemble(Member(b"d/e/up", b"../..", LINK), Member(b"x", b"d/e/up/../y", LINK)),
        "A link leads out of the package: 'x'",
    ),
    "link, then written through": (
        lambda: assemble(Member(b"a", b".", LINK), as_file("a/evil.py")),
        "in one place",
    ),
    "written through, then link": (
        lambda: assemble(as_file("a/evil.py"), Member(b"a", b".", LINK)),
        "in one place",
    ),
    "link below a link": (
        lambda: assemble(Member(b"a", b".", LINK), Member(b"a/b", b"x", LINK)),
        "in one place",
    ),
    "link to itself": (lambda: assemble(Member(b"a", b"a", LINK)), "A link leads to itself"),
    "links in a circle": (
        lambda: assemble(Member(b"a", b"d/b", LINK), Member(b"d/b", b"../a/x", LINK)),
        "A link leads to itself",
    ),
    "link to nothing at all": (lambda: assemble(Member(b"a", b"", LINK)), "no path"),
    "link with NUL": (lambda: assemble(Member(b"a", b"x\0y", LINK)), "no path"),
    "link to what is no UTF-8": (lambda: assemble(Member(b"a", b"\xff", LINK)), "no path"),
    "link of 1,025 bytes": (
        lambda: assemble(Member(b"a", b"./" * 512 + b"x", LINK)),
        "more than 1024 bytes",
    ),
    # Kinds
    "FIFO": (lambda: assemble(Member(b"odd", mode=stat.S_IFIFO | 0o644)), "no file: 'odd'"),
    "character device": (lambda: assemble(Member(b"odd", mode=stat.S_IFCHR)), "no file: 'odd'"),
    "block device": (lambda: assemble(Member(b"odd", mode=stat.S_IFBLK)), "no file: 'odd'"),
    "socket": (lambda: assemble(Member(b"odd", mode=stat.S_IFSOCK)), "no file: 'odd'"),
    "a directory named as a file": (lambda: assemble(Member(b"odd", mode=DIRECTORY)), "no file"),
    "a file named as a directory": (lambda: assemble(Member(b"odd/", mode=FILE)), "no file"),
    "a link named as a directory": (lambda: assemble(Member(b"odd/", b"x", LINK)), "no file"),
    "a directory with content": (lambda: assemble(Member(b"d/", b"x", DIRECTORY)), DAMAGED),
    # Sizes
    "says more than there is": (
        lambda: assemble(Member(b"a", APP, method=DEFLATED, size=len(APP) + 1)),
        "not the size that it declares",
    ),
    "says less than there is": (
        lambda: assemble(Member(b"a", APP, method=DEFLATED, size=len(APP) - 1)),
        "not the size that it declares",
    ),
    "says it is one byte": (
        lambda: assemble(Member(b"a", bytes(5_000_000), method=DEFLATED, size=1)),
        "not the size that it declares",
    ),
    "says there is nothing": (
        lambda: assemble(Member(b"a", APP, method=DEFLATED, size=0)),
        "not the size that it declares",
    ),
    "stored, and two sizes": (lambda: assemble(Member(b"a", APP, size=1)), "has two sizes"),
    "stored, and too short": (
        lambda: assemble(Member(b"a", APP, compressed=5, size=5)),
        "not the checksum",
    ),
    "the stream is cut": (
        lambda: assemble(Member(b"a", APP * 9, method=DEFLATED, compressed=20)),
        "not the size that it declares",
    ),
    "bytes behind the stream": (
        lambda: assemble(
            Member(
                b"a", APP, method=DEFLATED, compressed=len(Member(b"", APP, method=8).data()) + 3
            ),
            as_file("b"),
            gap=b"...",
        ),
        "not the size that it declares",
    ),
    "another checksum": (lambda: assemble(Member(b"a", APP, checksum=7)), "not the checksum"),
    "above the limit": (
        lambda: assemble(Member(b"a", size=262_144_001, method=DEFLATED)),
        "Unzipped size must be smaller than 262144000 bytes",
    ),
    "above the limit together": (
        lambda: assemble(*(Member(b"%d" % n, size=131_072_001, method=DEFLATED) for n in (1, 2))),
        "Unzipped size must be smaller than 262144000 bytes",
    ),
    # Overlaps
    "overlap bomb": (overlap_bomb, "overlaps with another's"),
    "two entries, one content": (
        lambda: assemble(as_file("a"), as_file("a")._replace(offset=0)),
        "overlaps with another's",
    ),
    "content in the directory": (
        lambda: assemble(Member(b"a", APP, compressed=len(APP) + 1, size=len(APP) + 1)),
        "overlaps with the directory",
    ),
    "content far away": (lambda: assemble(Member(b"a", APP, offset=1 << 31)), DAMAGED),
    "no header at the offset": (lambda: assemble(Member(b"a", APP, offset=1)), DAMAGED),
    "another name at the content": (
        lambda: assemble(Member(b"a", APP, local_name=b"b")),
        "another name where its content is",
    ),
    "a longer name at the content": (
        lambda: assemble(Member(b"a", APP, local_name=b"ab")),
        "another name where its content is",
    ),
    # What is not supported
    "encrypted": (lambda: assemble(Member(b"a", APP, flags=1)), "encrypted: 'a'"),
    "encrypted strongly": (lambda: assemble(Member(b"a", APP, flags=1 << 6)), "encrypted: 'a'"),
    "a patch": (lambda: assemble(Member(b"a", APP, flags=1 << 5)), "encrypted: 'a'"),
    "bzip2": (lambda: assemble(Member(b"a", APP, method=12)), "compressed by method 12"),
    "LZMA": (lambda: assemble(Member(b"a", APP, method=14)), "compressed by method 14"),
    "two disks": (
        lambda: assemble(as_file("a"))[:-18] + b"\1\0" + assemble(as_file("a"))[-16:],
        DAMAGED,
    ),
    # No zip
    "no byte": (lambda: b"", "Uploaded file must be a non-empty zip"),
    "no entry": (lambda: end(0, 0, 0), "Uploaded file must be a non-empty zip"),
    "text": (lambda: b"not a zip", DAMAGED),
    "a script": (lambda: APP * 100, DAMAGED),
    "the end of the end": (lambda: b"PK\5\6", DAMAGED),
    "no directory": (lambda: end(1, 0, 0), DAMAGED),
    "more entries than there are": (lambda: assemble(as_file("a"), count=2), DAMAGED),
    "fewer entries than there are": (
        lambda: assemble(as_file("a"), as_file("b"), count=1),
        DAMAGED,
    ),
    "bytes behind the end": (lambda: assemble(as_file("a")) + b"\n", DAMAGED),
    "a directory that starts too late": (
        lambda: assemble(as_file("a"))[:-22] + end(1, 46 + 1, 1 << 20),
        DAMAGED,
    ),
    "a directory larger than the file": (
        lambda: assemble(as_file("a"))[:-22] + end(1, 1 << 20, 0),
        DAMAGED,
    ),
    "a zip64 size that is not there": (
        lambda: assemble(Member(b"a", APP, size=0xFFFFFFFF, extra=b"\1\0\4\0abcd")),
        DAMAGED,
    ),
    "a zip64 end that is not there": (
        lambda: b"PK\6\7" + bytes(16) + end(0xFFFF, 0, 0),
        DAMAGED,
    ),
}


@pytest.mark.parametrize(("make", "message"), CORPUS.values(), ids=CORPUS.keys())
def test_a_zip_that_breaks_a_rule_is_refused(
    store: Path, make: Callable[[], bytes], message: str
) -> None:
    """In Lambda's words where they are known, without our paths; nothing is left behind."""
    refused(make(), store, message)


@pytest.mark.parametrize(
    "data", [b"not a zip", APP * 100, assemble(as_file("a"))[:-1]], ids=["text", "script", "cut"]
)
def test_what_is_no_zip_is_refused_in_just_lambdas_words(store: Path, data: bytes) -> None:
    """A client that compares messages gets exactly Lambda's."""
    with pytest.raises(InvalidParameterValue) as caught:
        publish(data, store)

    assert DAMAGED == str(caught.value)


def test_the_overlap_bomb_would_be_one(store: Path) -> None:
    """The bomb of the corpus is otherwise a sound zip: each of its entries inflates by itself."""
    with zipfile.ZipFile(io.BytesIO(overlap_bomb())) as archive:
        sizes = [info.file_size for info in archive.infolist()]
        kernel = archive.read("2")

    assert sizes == [1_000_031, 1_000_000]
    assert bytes(1_000_000) == kernel


def test_a_truncated_zip_is_refused(store: Path) -> None:
    """At any byte where the upload broke off."""
    whole = assemble(as_file("app.py"), Member(b"b.bin", bytes(range(256)), method=DEFLATED))
    for size in range(1, len(whole)):
        refused(whole[:size], store, DAMAGED)


def test_a_zip_of_too_many_entries_is_refused(store: Path) -> None:
    """65,536 entries: each costs an inode."""
    header = Member(b"x").central(0)
    directory = header * 65_536
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 65_536, 65_536, len(directory), 0
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    data = directory + record + locator + end(0xFFFF, len(directory), 0)

    refused(data, store, "The archive has 65536 entries, at most 65535 are allowed")


@pytest.mark.parametrize("declared", [1, 65_535])
def test_a_million_entries_cost_no_memory(store: Path, declared: int) -> None:
    """Entries above 65,535 are not read, also where the end declares fewer."""
    directory = Member(b"x").central(0) * 1_000_000
    data = directory + end(declared, len(directory), 0)
    tracemalloc.start()
    try:
        refused(data, store, DAMAGED)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < len(directory) + 100_000_000


def test_directories_that_names_imply_count(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand names of 64 parts would be 63,000 directories."""
    monkeypatch.setattr(archives, "MAX_ENTRIES", 100)
    data = assemble(*(as_file(f"{number}/" + "d/" * 60 + "x") for number in (1, 2)))

    refused(data, store, "more than 100 files and directories")


def test_a_thousandfold_is_fine_up_to_the_limit(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros deflate 1:1000: that alone is no bomb, one byte above the limit is."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 20_000_000)
    allowed = assemble(Member(b"a", bytes(20_000_000), method=DEFLATED))
    above = assemble(Member(b"a", bytes(20_000_001), method=DEFLATED))

    assert len(allowed) < 21_000
    refused(above, store, "Unzipped size must be smaller than 20000000 bytes")
    assert (publish(allowed, store) / "a").stat().st_size == 20_000_000


def test_a_bomb_is_not_inflated_further_than_it_says(store: Path) -> None:
    """50 MB of zeros that are declared as one byte cost a megabyte of memory, and no disk."""
    data = assemble(Member(b"a", bytes(50_000_000), method=DEFLATED, size=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    tracemalloc.start()
    try:
        refused(data, store, "not the size that it declares")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert peak < 4_000_000


def test_bytes_behind_the_stream_are_found_wherever_they_are(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no piece that was read has them."""
    length = len(Member(b"", APP, method=DEFLATED).data())
    entry = Member(b"a", APP, method=DEFLATED, compressed=length + 3)
    for size in (1, length, length + 1):
        monkeypatch.setattr(archives, "PIECE", size)

        refused(assemble(entry, as_file("b"), gap=b"..."), store, "not the size that it declares")


def test_texts_of_links_count(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the content of files does: a bomb may be a link."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 100)

    refused(assemble(Member(b"a", b"./" * 60, LINK)), store, "smaller than 100 bytes")


def test_a_zip_that_is_too_large_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway limits an upload to 50 MB; an object from S3 may be larger. Nothing stays."""
    monkeypatch.setattr(packages, "MAX_OBJECT", 10)

    with pytest.raises(EntityTooLarge, match=r"^Zipped size must be smaller than 10 bytes$"):
        publish(assemble(as_file("a")), store)

    assert [] == tree(store)
