"""This module is packages: code by its sha256, copied or unpacked once, published by rename.

Rule 1: what is published never changes. A function that is updated gets another directory, so
a running worker never sees half of an update, and a source directory that is edited or deleted
meanwhile hurts nobody.

Rule 2: an archive is not trusted. Names are checked before anything is written, bytes are
counted while they are inflated, links come last and only if they stay inside.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import stat
import uuid
import zipfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import msgspec

from miniλ.errors import InvalidParameterValue
from miniλ.sandbox import tmp

if TYPE_CHECKING:
    from collections.abc import Iterator

# Lambda quotas: 50 MB zipped for direct upload, 250 MB unzipped.
MAX_ZIPPED = 52_428_800
MAX_UNZIPPED = 262_144_000
MAX_ENTRIES = 65_535
MAX_NAME = 255
MAX_DEPTH = 64
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
    path = Path(source)
    staging = store / f".staging-{uuid.uuid4().hex}"
    staging.mkdir(mode=0o755)
    try:
        if path.is_dir():
            digest, size = _copy(path, staging)
        elif path.is_file():
            digest, size = _unpack(path, staging)
        else:
            msg = f"The code is neither a directory nor a .zip file: {path}"
            raise InvalidParameterValue(msg)
        target = store / digest.hex()
        # Who comes second with the same code finds it there: its own copy is dropped.
        if not target.is_dir():
            try:
                staging.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    except OSError as exc:
        msg = f"The code {path} cannot be read: {exc}"
        raise InvalidParameterValue(msg) from exc
    finally:
        tmp.remove(str(staging))
    return Package(base64.b64encode(digest).decode(), size, str(target))


def _too_large() -> InvalidParameterValue:
    return InvalidParameterValue(f"Unzipped size must be smaller than {MAX_UNZIPPED} bytes")


def _files(top: Path) -> Iterator[Path]:
    """Yield what is below `top`, sorted, links not followed."""
    for entry in sorted(os.scandir(top), key=lambda entry: entry.name):
        if entry.name in LEFT_OUT:
            continue
        yield Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            yield from _files(Path(entry.path))


def _copy(source: Path, target: Path) -> tuple[bytes, int]:
    digest, size = hashlib.sha256(), 0
    for path in _files(source):
        relative = path.relative_to(source)
        place = target / relative
        mode = path.lstat().st_mode
        counted = not CACHES.intersection(relative.parts)
        if stat.S_ISDIR(mode):
            place.mkdir(mode=0o755)
            continue
        if stat.S_ISLNK(mode):
            link = os.readlink(path)
            # A link out of the directory would not be there on Lambda either, but a link to
            # a neighbour's package is how people develop: its content is copied.
            if _stays_inside(relative, link):
                place.symlink_to(link)
                digest.update(f"link {relative} {link}\0".encode(errors="surrogateescape"))
                continue
            if path.is_dir():
                shutil.copytree(path, place, symlinks=True)
                digest.update(f"tree {relative} {path.resolve()}\0".encode(errors="surrogateescape"))
                continue
            mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            continue  # sockets and devices are not code
        executable = bool(mode & 0o111)
        if counted:
            name = f"file {relative} {executable} {path.stat().st_size}\0"
            digest.update(name.encode(errors="surrogateescape"))
        with path.open("rb") as reader, place.open("xb") as writer:
            while data := reader.read(PIECE):
                size += len(data)
                if size > MAX_UNZIPPED:
                    raise _too_large()
                if counted:
                    digest.update(data)
                writer.write(data)
        place.chmod(0o755 if executable else 0o644)
        # A .pyc knows its source by modification time and size.
        times = path.stat()
        os.utime(place, ns=(times.st_atime_ns, times.st_mtime_ns))
    return digest.digest(), size


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
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as exc:
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
        link = archive.read(entry).decode()
        if not _stays_inside(Path(name), link):
            msg = f"The archive holds a link that leads out of it: {entry.filename!r} -> {link!r}"
            raise InvalidParameterValue(msg)
        (target / name).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        (target / name).symlink_to(link)


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
