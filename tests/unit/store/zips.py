"""Zips made byte by byte: each field of an entry may be a lie."""

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings

from miniλ.errors import InvalidParameterValue
from miniλ.store import packages

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
        declared = (self.checksum, self.compressed, self.size)
        return struct.pack(
            "<4H3LH",
            *(self.flags, self.method, 0, 0x21),
            *(one if other is None else other for one, other in zip(true, declared, strict=True)),
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
