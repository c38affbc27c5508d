"""This module is packages: code by its sha256, copied or unpacked once, published by rename.

Rule 1: what is published never changes. A function that is updated gets another directory, so
a running worker never sees half of an update, and a source directory that is edited or deleted
meanwhile hurts nobody.

Rule 2: an archive is not trusted. Names are checked before anything is written, bytes are
counted while they are inflated, links come last and only if they stay inside.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import lzma
import os
import stat
import uuid
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from miniλ.errors import InvalidParameterValue
from miniλ.sandbox import tmp

# Lambda quotas: 50 MB zipped for direct upload, 250 MB unzipped.
MAX_ZIPPED = 52_428_800
MAX_UNZIPPED = 262_144_000
MAX_ENTRIES = 65_535
MAX_NAME = 255
MAX_DEPTH = 64
MAX_LINK = 4095
PIECE = 1 << 20

# Never part of a deployment, and large.
LEFT_OUT = frozenset({".git", ".hg", ".svn"})
# Carried along, so that a warm cache stays warm, but not part of what the code is.
CACHES = frozenset({"__pycache__"})


class Package(msgspec.Struct, frozen=True):
    """Code on disk: `sha256` as AWS writes it (base64), `size` in bytes, `path` a directory."""

    sha256: str
    size: int
    path: str


def publish(source: str | os.PathLike[str], store: Path) -> Package:
    """Bring a directory or a .zip into the store; the same code twice is stored once.

    Raises `InvalidParameterValue` with the path and what is wrong with it.
    """
    if not os.fspath(source):
        msg = "The code must be a directory or a .zip file, got an empty path"
        raise InvalidParameterValue(msg)
    path = Path(source)
    staging = store / f".staging-{uuid.uuid4().hex}"
    staging.mkdir(mode=0o755)
    try:
        if path.is_dir():
            digest, size = _Copy(path, staging, store).run()
        elif path.is_file():
            digest, size = _unpack(path, staging)
        else:
            msg = f"The code is neither a directory nor a .zip file: {path}"
            raise InvalidParameterValue(msg)
        # Whatever our umask is: a worker may be another user.
        for directory, _, _ in os.walk(staging):
            os.chmod(directory, 0o755)  # noqa: S103 - the directory above is ours alone
        target = store / digest.hex()
        # Who comes second with the same code finds it there: its own copy is dropped.
        if not target.is_dir():
            try:
                staging.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    except (OSError, ValueError) as exc:
        msg = f"The code {path} cannot be read: {exc}"
        raise InvalidParameterValue(msg) from exc
    finally:
        tmp.remove(str(staging))
    return Package(base64.b64encode(digest).decode(), size, str(target))


def _too_large() -> InvalidParameterValue:
    return InvalidParameterValue(f"Unzipped size must be smaller than {MAX_UNZIPPED} bytes")


class _Copy:
    """A copy of a directory into the store, with its digest.

    A link to somewhere inside stays a link. A link that leads out is how people develop (a
    neighbour's package): what it leads to is copied, and counted, in its place. So is what
    is inside, but left out.
    """

    def __init__(self, source: Path, target: Path, store: Path) -> None:
        self._source, self._real, self._target = source, source.resolve(), target
        # The state directory may be inside the code, or be it: it is not part of it.
        state = (store.parent.resolve(), store.resolve())
        self._left_out = {(found.st_dev, found.st_ino) for found in map(Path.stat, state)}
        self._state = [path for path in state if self._real in path.parents]
        self._digest = hashlib.sha256()
        self._size = self._entries = 0

    def run(self) -> tuple[bytes, int]:
        """Copy all of it; return the digest and the bytes of code and data."""
        waiting = [Path()]
        while waiting:
            directory = waiting.pop()
            if len(directory.parts) > MAX_DEPTH:
                msg = f"The code is nested deeper than {MAX_DEPTH} directories: {directory}"
                raise InvalidParameterValue(msg)
            with os.scandir(self._source / directory) as entries:
                names = sorted({entry.name for entry in entries} - LEFT_OUT)
            below = [directory / name for name in names if self._entry(directory / name)]
            waiting += reversed(below)
        return self._digest.digest(), self._size

    def _note(self, kind: str, relative: Path, detail: object = "") -> None:
        if not CACHES.intersection(relative.parts):
            # No name holds a NUL, so no two packages give the same text.
            text = f"{kind}\0{relative}\0{detail}\0"
            self._digest.update(text.encode(errors="surrogateescape"))

    def _entry(self, relative: Path) -> bool:
        """Copy one entry; return whether it is a directory to go into."""
        # As many as an archive may have: links that fan out would else never end.
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            msg = f"The code has more than {MAX_ENTRIES} files and directories"
            raise InvalidParameterValue(msg)
        path, place = self._source / relative, self._target / relative
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False  # a link to nowhere
        if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
            return False  # sockets and devices are not code
        if path.is_symlink() and (inside := self._inside(path)) is not None:
            # Told anew, by its place in the copy: the text may lead through other links.
            link = os.path.relpath(self._target / inside, place.parent)
            place.symlink_to(link)
            self._note("link", relative, link)
            return False
        if stat.S_ISDIR(found.st_mode):
            if (found.st_dev, found.st_ino) in self._left_out:
                return False
            place.mkdir(mode=0o755)
            self._note("directory", relative)
            return True
        self._file(relative, path, place, found)
        return False

    def _inside(self, path: Path) -> Path | None:
        """Return where a link leads in the copy; None if that is not going to be there."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._real):
            return None
        inside = real.relative_to(self._real)
        in_state = any(real.is_relative_to(state) for state in self._state)
        return None if in_state or LEFT_OUT.intersection(inside.parts) else inside

    def _file(self, relative: Path, path: Path, place: Path, found: os.stat_result) -> None:
        executable = bool(found.st_mode & 0o111)
        counted = not CACHES.intersection(relative.parts)
        self._note("file", relative, f"{executable} {found.st_size}")
        with path.open("rb") as reader, place.open("xb") as writer:
            while data := reader.read(PIECE):
                self._size += len(data)
                if self._size > MAX_UNZIPPED:
                    raise _too_large()
                if counted:
                    self._digest.update(data)
                writer.write(data)
        place.chmod(0o755 if executable else 0o644)
        # A .pyc knows its source by modification time and size.
        os.utime(place, ns=(found.st_atime_ns, found.st_mtime_ns))


def _unpack(source: Path, target: Path) -> tuple[bytes, int]:
    size = source.stat().st_size
    if size > MAX_ZIPPED:
        msg = f"Zipped size must be smaller than {MAX_ZIPPED} bytes, {source} has {size}"
        raise InvalidParameterValue(msg)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    try:
        with zipfile.ZipFile(source) as archive:
            _extract(archive, target)
    # Each of the decompressors has its own error for damaged data; ValueError is a name or a
    # link that is no text.
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        ValueError,
    ) as exc:
        msg = f"Could not unzip uploaded file {source}: {exc}"
        raise InvalidParameterValue(msg) from exc
    return digest, size


def _extract(archive: zipfile.ZipFile, target: Path) -> None:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        msg = f"The archive has {len(entries)} entries, at most {MAX_ENTRIES} are allowed"
        raise InvalidParameterValue(msg)
    seen: set[str] = set()
    links: list[tuple[zipfile.ZipInfo, PurePosixPath]] = []
    left = MAX_UNZIPPED
    for entry in entries:
        name = _checked_name(entry, seen)
        place = target / name
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if entry.is_dir():
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        elif kind == stat.S_IFLNK:
            links.append((entry, name))
        elif kind in (0, stat.S_IFREG):
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            with archive.open(entry) as reader, place.open("xb") as writer:
                left -= _inflate(reader, writer, left)
            place.chmod(0o755 if entry.external_attr >> 16 & 0o111 else 0o644)
        else:
            msg = f"The archive holds something that is no file: {entry.filename!r}"
            raise InvalidParameterValue(msg)
    for entry, name in links:
        left -= _link(archive, entry, target / name, target)
        if left < 0:
            raise _too_large()
    # Together they may lead where none leads alone.
    real = target.resolve()
    for _, name in links:
        _check_link(target / name, name, real)


def _check_link(place: Path, name: PurePosixPath, real: Path) -> None:
    """Refuse a link that leads out of `real`, whatever other links it goes through."""
    try:
        # The kernel follows 40 links at most: beyond that, or in a circle, nor do we.
        place.stat()
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            msg = f"The archive holds a link that leads to itself: {str(name)!r}"
            raise InvalidParameterValue(msg) from exc
    if not Path(os.path.realpath(place)).is_relative_to(real):
        msg = f"The archive holds a link that leads out of it: {str(name)!r}"
        raise InvalidParameterValue(msg)


def _link(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: Path, target: Path) -> int:
    """Make a link of the archive, never through another link; return the bytes of its text."""
    with archive.open(entry) as reader:
        data = reader.read(MAX_LINK + 1)
    if len(data) > MAX_LINK:
        msg = f"The archive holds a link of more than {MAX_LINK} bytes: {entry.filename!r}"
        raise InvalidParameterValue(msg)
    link = data.decode()
    inside = place.relative_to(target)
    if not _stays_inside(inside, link):
        msg = f"The archive holds a link that leads out of it: {entry.filename!r} -> {link[:80]!r}"
        raise InvalidParameterValue(msg)
    for parent in inside.parents:
        if (target / parent).is_symlink():
            msg = f"The archive holds a link below another link: {entry.filename!r}"
            raise InvalidParameterValue(msg)
    place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    place.symlink_to(link)
    return len(data)


def _inflate(reader: IO[bytes], writer: IO[bytes], left: int) -> int:
    written = 0
    while data := reader.read(PIECE):
        written += len(data)
        if written > left:
            raise _too_large()
        writer.write(data)
    return written


def _checked_name(entry: zipfile.ZipInfo, seen: set[str]) -> PurePosixPath:
    # zipfile cuts a name at its first NUL and keeps the whole one in orig_filename.
    raw = entry.orig_filename
    path = PurePosixPath(raw)
    bad = (
        not raw
        or "\0" in raw
        or "\\" in raw
        or path.is_absolute()
        or ".." in path.parts
        or len(path.parts) > MAX_DEPTH
        or any(len(part.encode(errors="surrogateescape")) > MAX_NAME for part in path.parts)
        or raw in seen
    )
    if bad:
        msg = f"The archive holds a name that cannot be unpacked safely: {raw!r}"
        raise InvalidParameterValue(msg)
    if entry.flag_bits & 1:
        msg = f"The archive is encrypted: {raw!r}"
        raise InvalidParameterValue(msg)
    seen.add(raw)
    return path


def _stays_inside(where: Path, link: str) -> bool:
    """Say whether a link at `where` (relative) leads to somewhere inside, by its text alone."""
    if os.path.isabs(link):
        return False
    target = os.path.normpath(os.path.join(where.parent, link))
    return target != ".." and not target.startswith("../")
