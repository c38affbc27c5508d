"""Archives: an untrusted zip becomes a directory, or is refused.

Rule 1: the directory of the archive is checked as a whole before anything is written: the number of
entries, their names and kinds, that no two share a place or bytes, and the sum of their sizes.

Rule 2: nothing in it is believed. An entry inflates to exactly the bytes that it declares, with the
checksum that it declares, or the whole archive is refused.

Rule 3: links are made last, so that nothing is written through one, and only if they stay inside.

A zip is, by APPNOTE.TXT 6.3.10 of PKWARE:

    (local header | name | extra | data) ... | (central header | name | extra | comment) ... | end

Python's zipfile is not used: it reads a million entries (4 s, 590 MB) before a caller can count
them, takes entries that overlap, cuts names at NUL, and has four decompressors, one of which
allocates a dictionary of the size that the archive asks for.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import unicodedata
import zlib
from typing import TYPE_CHECKING, NamedTuple

from miniλ.errors import InvalidParameterValue
from miniλ.store import symlinks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Lambda's quota for code and layers together, unzipped.
MAX_UNZIPPED = 262_144_000
MAX_ENTRIES = 65_535
MAX_NAME = 255
MAX_DEPTH = 64
# Less than PATH_MAX (4,096): the directory above takes a part of it. It also bounds the text of a
# link, all of which are in memory at one time.
MAX_PATH = 1024
PIECE = 1 << 20

# Lambda's message for any damage to a zip.
DAMAGED = "Could not unzip uploaded file. Please check your file, then try to upload again."
EMPTY = "Uploaded file must be a non-empty zip"

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_NUMBER = struct.Struct("<Q")
# The id of the zip64 extra field, and the 32-bit value that says that a size is in it.
_ZIP64 = 1
_ELSEWHERE = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8
# General purpose flags: encrypted in one of three ways, or a patch to another archive.
_ENCRYPTED = 1 << 0 | 1 << 6 | 1 << 13
_PATCH = 1 << 5
_DRIVE = re.compile(rb"[A-Za-z]:")


class _ZipEntry(NamedTuple):
    name: str  # as a relative path: no "." in it, no slash at its end
    kind: int  # S_IFDIR, S_IFREG or S_IFLNK
    executable: bool
    method: int
    checksum: int
    compressed: int
    size: int
    start: int  # of its data


def unpack(archive: Path, target: Path, limit: int) -> None:
    """Unpack a zip of at most `limit` bytes unzipped into `target`, a directory that is made.

    Files are 0644 or 0755, directories 0755. Raises `InvalidParameterValue`, whose message has no
    path but those in the archive; the caller then removes what is written of `target`.
    """
    descriptor = os.open(archive, os.O_RDONLY | os.O_CLOEXEC)
    try:
        entries = _read_entries(descriptor)
        directories = _check_places(entries)
        if sum(entry.size for entry in entries) > limit:
            raise too_large(limit)
        # chmod, since mkdir applies the umask: a worker may run as another user.
        for directory in ["", *directories]:
            place = os.path.join(target, directory)
            os.mkdir(place)
            os.chmod(place, 0o755)  # noqa: S103 - `store.packages` made its parent 0700
        texts = {}
        for entry in entries:
            if entry.kind == stat.S_IFREG:
                _write(descriptor, entry, os.path.join(target, entry.name))
            elif entry.kind == stat.S_IFLNK:
                texts[entry.name] = _link_text(descriptor, entry)
        symlinks.check(texts, directories)
        for name, text in texts.items():
            os.symlink(text, os.path.join(target, name))
    finally:
        os.close(descriptor)


def too_large(limit: int) -> InvalidParameterValue:
    """Return the error for code of more than `limit` bytes, in Lambda's words."""
    return InvalidParameterValue(f"Unzipped size must be smaller than {limit} bytes")


def _damage_error(what: str = "") -> InvalidParameterValue:
    return InvalidParameterValue(f"{DAMAGED} {what}" if what else DAMAGED)


# The directory of the archive


def _read_entries(descriptor: int) -> list[_ZipEntry]:
    """Return the entries in the order of their data."""
    count, start, central, shift = _central_directory(descriptor)
    headers = []
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(central):
            raise _damage_error()
        header = _CENTRAL.unpack_from(central, at)
        name_at = at + _CENTRAL.size
        extra_at = name_at + header[10]
        at = extra_at + header[11] + header[12]
        if header[0] != b"PK\1\2" or at > len(central):
            raise _damage_error()
        raw, extra = central[name_at:extra_at], central[extra_at : extra_at + header[11]]
        size, compressed, offset = _sizes(header, extra)
        headers.append((shift + offset, raw, header, compressed, size))
    if at != len(central):
        raise _damage_error()
    headers.sort()
    entries = []
    end = 0
    for offset, raw, header, compressed, size in headers:
        # Bytes that belong to two entries would make a small archive large.
        if offset < end:
            raise _damage_error(f"The content of {_shown(raw)} overlaps with another's")
        data = _data_start(descriptor, offset, raw)
        end = data + compressed
        if end > start:
            raise _damage_error(f"The content of {_shown(raw)} overlaps with the directory")
        entries.append(_entry(raw, header, compressed, size, data))
    return entries


def _central_directory(descriptor: int) -> tuple[int, int, bytes, int]:
    """Return the number of entries, the start of the directory, its bytes, and the shift.

    The shift is the length of what comes before the archive, such as an interpreter line; offsets
    do not count it.
    """
    length = os.fstat(descriptor).st_size
    if length == 0:
        raise InvalidParameterValue(EMPTY)
    tail_at = max(0, length - _END.size - 0xFFFF)
    tail = os.pread(descriptor, length - tail_at, tail_at)
    at = len(tail)
    while True:
        at = tail.rfind(b"PK\5\6", 0, at)
        if at < 0:
            raise _damage_error()
        if at + _END.size > len(tail):
            continue
        _, disk, first_disk, here, count, size, offset, comment = _END.unpack_from(tail, at)
        # Its comment reaches to the last byte: else the end could be in two places.
        if at + _END.size + comment == len(tail):
            break
    end = tail_at + at
    locator = os.pread(descriptor, _LOCATOR.size, max(0, end - _LOCATOR.size))
    if locator.startswith(b"PK\6\7") and len(locator) == _LOCATOR.size:
        end -= _LOCATOR.size + _END64.size
        record = os.pread(descriptor, _END64.size, end) if end >= 0 else b""
        if not record.startswith(b"PK\6\6"):
            raise _damage_error()
        _, _, _, _, disk, first_disk, here, count, size, offset = _END64.unpack(record)
    shift = end - size - offset
    if disk or first_disk or here != count or shift < 0:
        raise _damage_error()
    if count == 0:
        raise InvalidParameterValue(EMPTY)
    if count > MAX_ENTRIES:
        msg = f"The archive has {count} entries, at most {MAX_ENTRIES} are allowed"
        raise InvalidParameterValue(msg)
    return count, end - size, os.pread(descriptor, size, end - size), shift


def _sizes(header: tuple[int, ...], extra: bytes) -> tuple[int, int, int]:
    """Return size, compressed size and offset, those above 4 GB from the zip64 extra field."""
    values = [header[9], header[8], header[16]]
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64:
            field = extra[at + 4 : at + 4 + length]
            for index, value in enumerate(values):
                if value == _ELSEWHERE:
                    if len(field) < _NUMBER.size:
                        raise _damage_error()
                    (values[index],) = _NUMBER.unpack_from(field)
                    field = field[_NUMBER.size :]
            break
        at += 4 + length
    size, compressed, offset = values
    return size, compressed, offset


def _data_start(descriptor: int, offset: int, raw: bytes) -> int:
    """Return where the data of an entry starts; its local header must have the same name."""
    local = os.pread(descriptor, _LOCAL.size + len(raw), offset)
    if len(local) != _LOCAL.size + len(raw):
        raise _damage_error()
    header = _LOCAL.unpack_from(local)
    if header[0] != b"PK\3\4" or header[9] != len(raw) or local[_LOCAL.size :] != raw:
        raise _damage_error(f"{_shown(raw)} has another name where its content is")
    return offset + len(local) + int(header[10])


def _entry(
    raw: bytes, header: tuple[int, ...], compressed: int, size: int, start: int
) -> _ZipEntry:
    flags, method, checksum, attributes = header[3], header[4], header[7], header[15]
    name = _checked_name(raw)
    if flags & (_ENCRYPTED | _PATCH):
        raise InvalidParameterValue(f"The archive is encrypted: {_shown(raw)}")
    if method not in (_STORED, _DEFLATED):
        raise _damage_error(
            f"{_shown(raw)} is compressed by method {method}: only deflate is known"
        )
    if method == _STORED and size != compressed:
        raise _damage_error(f"{_shown(raw)} has two sizes")
    mode = attributes >> 16
    named_directory = raw.endswith(b"/")
    kind = stat.S_IFMT(mode) or (stat.S_IFDIR if named_directory else stat.S_IFREG)
    if kind not in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK) or (
        named_directory != (kind == stat.S_IFDIR)
    ):
        msg = f"The archive holds something that is no file: {_shown(raw)}"
        raise InvalidParameterValue(msg)
    if kind == stat.S_IFDIR and size:
        raise _damage_error(f"{_shown(raw)} is a directory that has content")
    return _ZipEntry(name, kind, bool(mode & 0o111), method, checksum, compressed, size, start)


def _checked_name(raw: bytes) -> str:
    """Return the relative path that a name means, "" for the directory itself."""
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    bad = (
        not (parts or raw.endswith(b"/"))
        or b"\0" in raw
        or b"\\" in raw
        or raw.startswith(b"/")
        or _DRIVE.match(raw)
        or b".." in parts
        or len(raw) > MAX_PATH
        or len(parts) > MAX_DEPTH
        or any(len(part) > MAX_NAME for part in parts)
    )
    try:
        name = b"/".join(parts).decode()
    except UnicodeDecodeError:
        bad = True
    if bad:
        msg = f"The archive holds a name that cannot be unpacked safely: {_shown(raw)}"
        raise InvalidParameterValue(msg)
    return name


def _shown(raw: bytes) -> str:
    return repr(raw[:100].decode(errors="backslashreplace"))


def _check_places(entries: list[_ZipEntry]) -> dict[str, bool]:
    """Return all directories, parents first; refuse two entries in one place.

    Names that differ only in their Unicode normal form are one place, since file systems disagree
    on whether they are the same. Upper and lower case are different, as they are on Linux.
    """
    directories: dict[str, bool] = {}  # the value: whether it has an entry of its own
    names: dict[str, str] = {}
    for entry in entries:
        *above, _ = entry.name.split("/")
        if above and (parent := "/".join(above)) not in directories:
            for depth in range(1, len(above) + 1):
                parent = "/".join(above[:depth])
                if parent not in directories:
                    _take(parent, names)
                    directories[parent] = False
        if entry.kind == stat.S_IFDIR and directories.get(entry.name) is False:
            directories[entry.name] = True
        elif entry.name:
            _take(entry.name, names)
            if entry.kind == stat.S_IFDIR:
                directories[entry.name] = True
    return directories


def _take(name: str, names: dict[str, str]) -> None:
    place = unicodedata.normalize("NFC", name)
    if place in names:
        msg = f"The archive holds two things in one place: {names[place]!r} and {name!r}"
        raise InvalidParameterValue(msg)
    names[place] = name
    # A directory that only a name implies costs an inode too, up to 63 for one name.
    if len(names) > MAX_ENTRIES:
        msg = f"The archive has more than {MAX_ENTRIES} files and directories"
        raise InvalidParameterValue(msg)


# The content of entries


def _write(descriptor: int, entry: _ZipEntry, place: str) -> None:
    with open(place, "xb") as file:
        # No other bits: an archive may ask for setuid.
        os.fchmod(file.fileno(), 0o755 if entry.executable else 0o644)
        file.writelines(_content(descriptor, entry))


def _link_text(descriptor: int, entry: _ZipEntry) -> str:
    if entry.size > MAX_PATH:
        msg = f"The archive holds a link of more than {MAX_PATH} bytes: {entry.name!r}"
        raise InvalidParameterValue(msg)
    raw = b"".join(_content(descriptor, entry))
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        msg = f"The archive holds a link that is no path: {entry.name!r} -> {_shown(raw)}"
        raise InvalidParameterValue(msg)
    return text


def _content(descriptor: int, entry: _ZipEntry) -> Iterator[bytes]:
    """Yield the content of an entry; raises as soon as it differs from what the entry declares."""
    # Zero bytes are no deflated stream, but some programs write an empty file like this.
    deflated = entry.method == _DEFLATED and entry.compressed > 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if deflated else None
    at, end = entry.start, entry.start + entry.compressed
    waiting = b""
    size = checksum = 0
    while True:
        if not waiting and at < end:
            waiting = os.pread(descriptor, min(PIECE, end - at), at)
            if not waiting:
                raise _damage_error()  # the file was truncated meanwhile
            at += len(waiting)
        if inflate is None:
            data, waiting = waiting, b""
        else:
            try:
                data = inflate.decompress(waiting, PIECE)
            except zlib.error as exc:
                raise _damage_error(f"{entry.name!r}: {exc}") from exc
            waiting = inflate.unconsumed_tail
        size += len(data)
        if size > entry.size:
            break
        checksum = zlib.crc32(data, checksum)
        yield data
        if inflate is not None and inflate.eof:
            break
        if not data and not waiting and at == end:
            break
    whole = at == end and (inflate is None or (inflate.eof and not inflate.unused_data))
    if size != entry.size or not whole:
        raise _damage_error(f"{entry.name!r} has not the size that it declares")
    if checksum != entry.checksum:
        raise _damage_error(f"{entry.name!r} has not the checksum that it declares")
