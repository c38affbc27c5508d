"""Packages: code by its sha256, copied or unpacked once, published by rename.

    <sha256>       the code, as workers see it
    <sha256>.zip   the archive that it was uploaded as, if it was one
    .staging-...   a package on its way in or out; after a crash, garbage

Rule 1: a published package never changes. A function that is updated gets another directory, so a
running worker never sees half of an update, and the source directory may be edited or deleted.

Rule 2: a directory with a final name is whole, whenever the process ends; in a durable store also
whenever the machine does. Until then everything is written in a staging directory.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import uuid
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from miniλ.errors import EntityTooLarge, InvalidParameterValue, ServiceError
from miniλ.sandbox import tmp
from miniλ.store import archives, symlinks
from miniλ.store.archives import MAX_UNZIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from collections.abc import Set as AbstractSet

# Lambda's quotas for a zip: uploaded directly; and from S3, where its unzipped size counts.
MAX_ZIPPED = 52_428_800
MAX_OBJECT = 262_144_000
PIECE = 1 << 20

# Never part of a deployment, and large: not copied.
LEFT_OUT = frozenset({".git", ".hg", ".svn"})
# Copied, so that a warm cache stays warm, but not part of the sha256.
CACHES = frozenset({"__pycache__"})

# A machine that is short of something, or a disk that fails, is not the code's fault.
_NOT_THE_CODE = frozenset(
    {
        *(errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    }
)
# link(2) fails like this for a file on another file system, or with too many names already.
_NO_LINK = frozenset({errno.EMLINK, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV})

_libc = ctypes.CDLL(None, use_errno=True)


class Package(msgspec.Struct, frozen=True):
    """Code on disk: `sha256` as AWS writes it (base64), `size` in bytes, `path` a directory."""

    sha256: str
    size: int
    path: str


class Upload(msgspec.Struct, frozen=True):
    """An archive that came over the network: `publish` moves it, and no message has its path."""

    path: Path


def publish(
    source: str | os.PathLike[str] | Upload, store: Path, *, durable: bool = True
) -> Package:
    """Bring a directory or a .zip into the store; the same code twice is stored once.

    Of a .zip, sha256 and size are those of the file. If `durable`, the package is on disk when
    this returns. The file of an `Upload` is moved, any other source is copied.

    Raises `InvalidParameterValue` with what is wrong with the code, `EntityTooLarge` for a zip
    above 50 MB (250 MB for an `Upload`, which may be an object of S3), `ServiceError` if the code
    cannot be written. Nothing of it is left then.
    """
    uploaded = isinstance(source, Upload)
    location = source.path if isinstance(source, Upload) else source
    if not os.fspath(location):
        msg = "The code must be a directory or a .zip file, got an empty path"
        raise InvalidParameterValue(msg)
    path = Path(location)
    is_directory = path.is_dir()
    if not path.exists():
        msg = f"There is no {path}" if path.is_absolute() else f"There is no {path} (in {_cwd()})"
        raise InvalidParameterValue(msg)
    if not is_directory and not path.is_file():
        msg = f"The code is neither a directory nor a .zip file: {path}"
        raise InvalidParameterValue(msg)
    try:
        with _staging(store) as (staging, descriptor):
            if is_directory:
                digest, size = _Copy(path, staging / "code", store).run()
            else:
                bring = _move_archive if uploaded else _copy_archive
                digest, size = bring(path, staging / "zip")
                if not (store / digest.hex()).is_dir():
                    archives.unpack(staging / "zip", staging / "code", MAX_UNZIPPED)
            target = store / digest.hex()
            _publish_staged(staging, target, descriptor if durable else None)
    except InvalidParameterValue as exc:
        if uploaded:
            raise
        msg = f"{exc} ({path})"
        raise InvalidParameterValue(msg) from exc
    except (OSError, ValueError) as exc:
        number = exc.errno if isinstance(exc, OSError) else None
        if uploaded:
            msg = f"Uploaded file cannot be kept: {os.strerror(number or errno.EINVAL)}"
            raise ServiceError(msg) from exc
        msg = f"The code {path} cannot be read: {exc}"
        raise (ServiceError if number in _NOT_THE_CODE else InvalidParameterValue)(msg) from exc
    return Package(base64.b64encode(digest).decode(), size, str(target))


def _cwd() -> str:
    """Return the working directory, for a message."""
    try:
        return os.getcwd()
    except OSError:
        return "a working directory that was removed"


def merge(parts: Sequence[Path], store: Path, *, durable: bool = True) -> Path:
    """Return a directory in the store with several packages merged, later ones over earlier ones.

    This is /opt for a function's layers. Files are hard links to those of the parts. Raises
    `InvalidParameterValue` for more than Lambda's 250 MB, or if links of one part lead out
    through those of another; `ServiceError` if it cannot be written.
    """
    names = "\0".join(["layers", *(part.name for part in parts)])
    target = store / hashlib.sha256(names.encode()).hexdigest()
    try:
        with _staging(store) as (staging, descriptor):
            if not target.is_dir():
                _merge_into(staging / "code", parts)
            _publish_staged(staging, target, descriptor if durable else None)
    except OSError as exc:
        msg = f"The layers cannot be merged: {exc}"
        raise ServiceError(msg) from exc
    return target


def unzipped_size(package: Path) -> int:
    """Return the bytes of files and links of a published package."""
    return sum(
        entry.stat(follow_symlinks=False).st_size
        for _, entry in _walk(package)
        if not entry.is_dir(follow_symlinks=False)
    )


def kept_archive(package: Path) -> Path:
    """Return the path of a package's archive; there is a file if it was published as one."""
    return Path(f"{package}.zip")


def archive(package: Path, target: Path) -> None:
    """Make a zip of a package that was a directory; `target` must not exist.

    The same package gives the same bytes: caches are left out, as of the sha256. Raises
    `InvalidParameterValue` for names that a zip cannot hold; there is no `target` then.
    """
    try:
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as packed:
            for relative, entry in _walk(package):
                if not CACHES.intersection(relative.split("/")):
                    _pack(packed, relative, entry)
    except UnicodeEncodeError as exc:
        target.unlink()
        msg = f"The code has a name that is no UTF-8, so no zip can hold it: {exc.object!r}"
        raise InvalidParameterValue(msg) from exc


def _pack(packed: zipfile.ZipFile, relative: str, entry: os.DirEntry[str]) -> None:
    mode = entry.stat(follow_symlinks=False).st_mode
    # Without a date_time its time is 1980, the first that a zip can have: always the same bytes.
    info = zipfile.ZipInfo(f"{relative}/" if stat.S_ISDIR(mode) else relative)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = mode << 16
    if not stat.S_ISREG(mode):
        packed.writestr(info, os.readlink(entry.path) if stat.S_ISLNK(mode) else "")
        return
    with open(entry.path, "rb") as reader, packed.open(info, "w") as writer:
        shutil.copyfileobj(reader, writer, PIECE)


def collect(store: Path, in_use: AbstractSet[str]) -> None:
    """Remove everything but these packages and their archives.

    No `publish` may run meanwhile: a package is not in use until it is published.
    """
    for entry in store.iterdir():
        if str(entry.with_suffix("")) in in_use:
            continue
        # Renamed before it is removed, so that half a package never has a final name.
        with _staging(store) as (staging, _):
            entry.rename(staging / "code")


@contextlib.contextmanager
def _staging(store: Path) -> Iterator[tuple[Path, int]]:
    """Yield a staging directory, which is removed in the end, and the opened store.

    The store is opened first: since Linux 5.8, syncfs(2) reports all errors since then.
    """
    descriptor = os.open(store, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    staging = store / f".staging-{uuid.uuid4().hex}"
    try:
        staging.mkdir(mode=0o700)
        yield staging, descriptor
    finally:
        tmp.remove(str(staging))
        os.close(descriptor)


def _publish_staged(staging: Path, target: Path, store_descriptor: int | None) -> None:
    """Give staged files their final names; `store_descriptor` is None if none has to be durable.

    The archive comes first: code without an archive counts as published from a directory.
    """
    names = ((staging / "zip", kept_archive(target)), (staging / "code", target))
    fresh = [(old, new) for old, new in names if old.exists() and not new.exists()]
    # One syncfs: an fsync of each file takes ten times as long, on a slow disk a hundred times.
    if store_descriptor is not None and fresh and _libc.syncfs(store_descriptor) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")
    for old, new in fresh:
        try:
            old.rename(new)
        except OSError:
            # The same code was published meanwhile: this copy of it is dropped.
            if not new.exists():
                raise
    if store_descriptor is not None:
        os.fsync(store_descriptor)


def _move_archive(source: Path, target: Path) -> tuple[bytes, int]:
    """Move a zip into the store; return its digest and size."""
    shutil.move(source, target)
    size = target.stat().st_size
    if size > MAX_OBJECT:
        msg = f"Zipped size must be smaller than {MAX_OBJECT} bytes"
        raise EntityTooLarge(msg)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest(), size


def _copy_archive(source: Path, target: Path) -> tuple[bytes, int]:
    """Copy a zip, which its owner may change afterwards; return its digest and size."""
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while data := reader.read(PIECE):
            size += len(data)
            if size > MAX_ZIPPED:
                msg = f"Zipped size must be smaller than {MAX_ZIPPED} bytes"
                raise EntityTooLarge(msg)
            digest.update(data)
            writer.write(data)
    return digest.digest(), size


def _merge_into(code: Path, parts: Sequence[Path]) -> None:
    """Link or copy the files of packages into a new directory, later ones over earlier ones."""
    if sum(map(unzipped_size, parts)) > MAX_UNZIPPED:
        # Lambda's message, as its users report it.
        msg = f"Layers consume more than the available size of {MAX_UNZIPPED} bytes"
        raise InvalidParameterValue(msg)
    _make_directory(code)
    for part in parts:
        for relative, entry in _walk(part):
            place = code / relative
            directory = place.is_dir() and not place.is_symlink()
            if entry.is_dir(follow_symlinks=False):
                if not directory:
                    place.unlink(missing_ok=True)
                    _make_directory(place)
                continue
            if directory:
                tmp.remove(str(place))
            place.unlink(missing_ok=True)
            try:
                os.link(entry.path, place, follow_symlinks=False)
            except OSError as exc:
                if exc.errno not in _NO_LINK:
                    raise
                shutil.copy2(entry.path, place, follow_symlinks=False)
    merged = dict(_walk(code))
    symlinks.check(
        {name: os.readlink(entry.path) for name, entry in merged.items() if entry.is_symlink()},
        {name for name, entry in merged.items() if entry.is_dir(follow_symlinks=False)},
    )


def _make_directory(path: Path) -> None:
    # chmod, since mkdir applies the umask: a worker may run as another user.
    path.mkdir()
    path.chmod(0o755)


def _walk(root: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything below by its relative path, always in the same order, parents first."""
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(root / above) as unsorted:
            entries = sorted(unsorted, key=lambda entry: entry.name)
        for entry in entries:
            yield above + entry.name, entry
            if entry.is_dir(follow_symlinks=False):
                waiting.append(f"{above}{entry.name}/")


class _Copy:
    """A copy of a directory into the store, with its digest.

    A link to a place inside stays a link. A link that leads out is common in development (a package
    of a neighbouring directory): its target is copied, and counted, in its place. So is the target
    of a link to a place inside that is left out.
    """

    def __init__(self, source: Path, target: Path, store: Path) -> None:
        self._source, self._real, self._target = source, source.resolve(), target
        # A state directory inside the code, or that is the code, is left out.
        state = (store.parent.resolve(), store.resolve())
        self._left_out = {(status.st_dev, status.st_ino) for status in map(Path.stat, state)}
        self._state = [path for path in state if self._real in path.parents]
        self._digest = hashlib.sha256()
        self._size = self._entries = 0

    def run(self) -> tuple[bytes, int]:
        """Copy all of it; return the digest and the bytes of code and data."""
        _make_directory(self._target)
        waiting = [Path()]
        while waiting:
            directory = waiting.pop()
            if len(directory.parts) > archives.MAX_DEPTH:
                msg = (
                    f"The code is nested deeper than {archives.MAX_DEPTH} directories: {directory}"
                )
                raise InvalidParameterValue(msg)
            with os.scandir(self._source / directory) as entries:
                names = sorted({entry.name for entry in entries} - LEFT_OUT)
            below = [directory / name for name in names if self._entry(directory / name)]
            waiting += reversed(below)
        return self._digest.digest(), self._size

    def _note(self, kind: str, relative: Path, detail: object = "") -> None:
        if not CACHES.intersection(relative.parts):
            # No name holds a NUL, so two different packages never give the same text.
            text = f"{kind}\0{relative}\0{detail}\0"
            self._digest.update(text.encode(errors="surrogateescape"))

    def _entry(self, relative: Path) -> bool:
        """Copy one entry; return whether it is a directory to go into."""
        # The limit of an archive: directories that link to each other would have no end.
        self._entries += 1
        if self._entries > archives.MAX_ENTRIES:
            msg = f"The code has more than {archives.MAX_ENTRIES} files and directories"
            raise InvalidParameterValue(msg)
        path, place = self._source / relative, self._target / relative
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False  # a link to nowhere
        if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
            return False  # sockets, FIFOs and devices are not code
        if path.is_symlink() and (inside := self._inside(path)) is not None:
            # With a new text, by its place in the copy: the old one may lead through other links.
            link = os.path.relpath(self._target / inside, place.parent)
            place.symlink_to(link)
            self._note("link", relative, link)
            return False
        if stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in self._left_out:
                return False
            _make_directory(place)
            self._note("directory", relative)
            return True
        self._file(relative, path, place, status)
        return False

    def _inside(self, path: Path) -> Path | None:
        """Return where a link leads in the copy; None if the copy does not have that place."""
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._real):
            return None
        inside = real.relative_to(self._real)
        in_state = any(real.is_relative_to(state) for state in self._state)
        return None if in_state or LEFT_OUT.intersection(inside.parts) else inside

    def _file(self, relative: Path, path: Path, place: Path, status: os.stat_result) -> None:
        executable = bool(status.st_mode & 0o111)
        counted = not CACHES.intersection(relative.parts)
        self._note("file", relative, f"{executable} {status.st_size}")
        with path.open("rb") as reader, place.open("xb") as writer:
            while data := reader.read(PIECE):
                self._size += len(data)
                if self._size > MAX_UNZIPPED:
                    raise archives.too_large(MAX_UNZIPPED)
                if counted:
                    self._digest.update(data)
                writer.write(data)
        place.chmod(0o755 if executable else 0o644)
        # A .pyc knows its source by modification time and size.
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
