"""Tests of archives: every way of lying in a zip is refused, and what is honest is unpacked.

The rules are those of a package that comes over HTTP from somebody unknown: each of the tests
goes through `publish`, and looks for what is left behind.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import stat
import struct
import subprocess
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.errors import EntityTooLarge, InvalidParameterValue
from miniλ.store import archives, packages

if TYPE_CHECKING:
    from collections.abc import Callable

APP = b"def handler(event, context):\n    return event\n"
FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
STORED, DEFLATED = 0, 8
UNSAFE = "a name that cannot be unpacked safely"
DAMAGED = "Could not unzip uploaded file. Please check your file, then try to upload again."

quick = settings(
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Member(NamedTuple):
    """An entry as it is written: each field may be a lie. None is the truth."""

    name: bytes
    content: bytes = b""
    mode: int = FILE
    method: int = STORED
    flags: int = 0
    extra: bytes = b""
    size: int | None = None
    compressed: int | None = None
    checksum: int | None = None
    offset: int | None = None
    local_name: bytes | None = None

    def data(self) -> bytes:
        """Return the content as the archive has it."""
        if self.method != DEFLATED:
            return self.content
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflate.compress(self.content) + deflate.flush()

    def fields(self) -> bytes:
        """Return flags, method, time, checksum, sizes and the length of the name."""
        true = (zlib.crc32(self.content), len(self.data()), len(self.content))
        told = (self.checksum, self.compressed, self.size)
        return struct.pack(
            "<4H3LH",
            *(self.flags, self.method, 0, 0x21),
            *(one if other is None else other for one, other in zip(true, told, strict=True)),
            len(self.name),
        )

    def local(self) -> bytes:
        """Return the header in front of the content."""
        name = self.name if self.local_name is None else self.local_name
        length = struct.pack("<H", len(name))
        return b"PK\3\4\x14\0" + self.fields()[:-2] + length + b"\0\0" + name

    def central(self, offset: int) -> bytes:
        """Return the header in the directory."""
        place = offset if self.offset is None else self.offset
        rest = struct.pack("<4H2L", len(self.extra), 0, 0, 0, self.mode << 16, place)
        return b"PK\1\2\x14\3\x14\0" + self.fields() + rest + self.name + self.extra


def end(count: int, size: int, offset: int, comment: bytes = b"") -> bytes:
    """Return the end of a zip."""
    return (
        struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, len(comment)) + comment
    )


def assemble(*members: Member, count: int | None = None, gap: bytes = b"") -> bytes:
    """Return a zip of these, with a gap in front of each."""
    data, directory = b"", b""
    for member in members:
        data += gap
        directory += member.central(len(data))
        data += member.local() + member.data()
    return data + directory + end(count or len(members), len(directory), len(data))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return an empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


def publish(data: bytes, store: Path) -> Path:
    """Publish these bytes as an upload, and return where they were unpacked."""
    code = store.parent / "code.zip"
    code.write_bytes(data)
    return Path(packages.publish(packages.Upload(code), store, durable=False).path)


def tree(path: Path) -> list[str]:
    """Return the relative paths of everything below, sorted."""
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


def refused(data: bytes, store: Path, message: str) -> None:
    """See that these bytes are refused with this message, and leave nothing anywhere."""
    with pytest.raises(InvalidParameterValue) as caught:
        publish(data, store)

    assert message in str(caught.value)
    assert str(store.parent) not in str(caught.value)
    assert ["store"] == tree(store.parent)


def as_file(path: str) -> Member:
    return Member(path.encode(), APP)


def overlap_bomb() -> bytes:
    """Return entries of which each holds the next one's header and the same deflated zeros.

    The header is quoted as a stored block of deflate. As David Fifield's zip bomb does it.
    """
    zeros = bytes(1_000_000)
    kernel = Member(b"2", zeros, method=DEFLATED)
    header = kernel.local()
    quoted = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF)
    outer = Member(
        b"1",
        method=DEFLATED,
        size=len(header) + len(zeros),
        checksum=zlib.crc32(header + zeros),
        compressed=len(quoted) + len(header) + len(kernel.data()),
    )
    data = outer.local() + quoted + header + kernel.data()
    directory = outer.central(0) + kernel.central(len(outer.local()) + len(quoted))
    return data + directory + end(2, len(directory), len(data))


# Every entry of this table is what fault 53 calls the corpus: what it is, its bytes, the words.
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
    "both, told": (
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
    # What we do not take
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
    """With Lambda's words where they are known, without our paths, and nothing stays behind."""
    refused(make(), store, message)


@pytest.mark.parametrize(
    "data", [b"not a zip", APP * 100, assemble(as_file("a"))[:-1]], ids=["text", "script", "cut"]
)
def test_what_is_no_zip_is_refused_in_just_lambdas_words(store: Path, data: bytes) -> None:
    """A client that compares messages finds the one it knows."""
    with pytest.raises(InvalidParameterValue) as caught:
        publish(data, store)

    assert DAMAGED == str(caught.value)


def test_the_overlap_bomb_would_be_one(store: Path) -> None:
    """The one of the corpus is a zip but for that: each of its entries inflates by itself."""
    with zipfile.ZipFile(io.BytesIO(overlap_bomb())) as archive:
        sizes = [info.file_size for info in archive.infolist()]
        kernel = archive.read("2")

    assert sizes == [1_000_031, 1_000_000]
    assert bytes(1_000_000) == kernel


def test_a_truncated_zip_is_refused(store: Path) -> None:
    """Wherever the upload broke off."""
    whole = assemble(as_file("app.py"), Member(b"b.bin", bytes(range(256)), method=DEFLATED))
    for size in range(1, len(whole)):
        refused(whole[:size], store, DAMAGED)


def test_a_zip_of_too_many_entries_is_refused(store: Path) -> None:
    """65,536 of them: each costs an inode."""
    header = Member(b"x").central(0)
    directory = header * 65_536
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 65_536, 65_536, len(directory), 0
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(directory), 1)
    data = directory + record + locator + end(0xFFFF, len(directory), 0)

    refused(data, store, "The archive has 65536 entries, at most 65535 are allowed")


@pytest.mark.parametrize("told", [1, 65_535])
def test_a_million_entries_cost_no_memory(store: Path, told: int) -> None:
    """Whatever their number is said to be, what is above 65,535 is not looked at."""
    directory = Member(b"x").central(0) * 1_000_000
    data = directory + end(told, len(directory), 0)
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
    """50 MB of zeros that call themselves one byte cost a megabyte of memory, and no disk."""
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
    """Also if they are in no piece that was read."""
    length = len(Member(b"", APP, method=DEFLATED).data())
    entry = Member(b"a", APP, method=DEFLATED, compressed=length + 3)
    for size in (1, length, length + 1):
        monkeypatch.setattr(archives, "PIECE", size)

        refused(assemble(entry, as_file("b"), gap=b"..."), store, "not the size that it declares")


def test_texts_of_links_count(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As files do: a bomb may be one."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 100)

    refused(assemble(Member(b"a", b"./" * 60, LINK)), store, "smaller than 100 bytes")


def test_a_zip_that_is_too_large_is_refused(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever uploads it has counted to 50 MB; from S3 it may be larger. Nothing of it stays."""
    monkeypatch.setattr(packages, "MAX_OBJECT", 10)

    with pytest.raises(EntityTooLarge, match=r"^Zipped size must be smaller than 10 bytes$"):
        publish(assemble(as_file("a")), store)

    assert [] == tree(store)


# What is honest


def test_a_zip_is_unpacked(store: Path) -> None:
    """Stored or deflated, with its directories told or not, in any order."""
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
    """Whatever the size of a piece, the content is the same."""
    content = b"".join(b"%d" % number for number in range(20_000))
    data = assemble(Member(b"a", content, method=DEFLATED), Member(b"b", content))
    for size in (1, 7, 1000, 1 << 20):
        monkeypatch.setattr(archives, "PIECE", size)
        code = publish(data, store)

        assert content == (code / "a").read_bytes() == (code / "b").read_bytes()
        shutil.rmtree(code)


def test_nothing_is_setuid_or_writable_for_all(store: Path) -> None:
    """Files are 0644, or 0755 if somebody may run them; directories are 0755."""
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
    """A worker may be another user: it reads the code whatever our umask is."""
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
    """The limits are allowed, and so is what only looks like a rule's breach."""
    code = publish(assemble(as_file(name)), store)

    assert APP == (code / name).read_bytes()


def test_an_archive_may_follow_something_else(store: Path) -> None:
    """An interpreter line, as zipapp writes it: offsets count from the archive."""
    code = publish(b"#!/usr/bin/env python3\n" + assemble(as_file("app.py")), store)

    assert ["app.py"] == tree(code)


@pytest.mark.parametrize("comment", [b"hello", b"PK\5\6", b"x" * 0xFFFF])
def test_a_zip_may_have_a_comment(store: Path, comment: bytes) -> None:
    """Also one that looks like the end."""
    whole = assemble(as_file("app.py"))
    data = whole[:-2] + struct.pack("<H", len(comment)) + comment

    assert ["app.py"] == tree(publish(data, store))


class Stream(io.RawIOBase):
    """A file that cannot be sought: zipfile writes sizes behind the content then."""

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
    """Info-ZIP's, with links and execute bits; as most people make their packages."""
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
    """Whatever names and contents: the same files, or none where two share a place."""
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
