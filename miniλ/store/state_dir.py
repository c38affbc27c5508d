"""The state directory: which supervisor holds it, and what a dead one left behind.

    lock           held with flock(2) while a supervisor lives; never removed while it may be held
    instance.json  the instance's id and cgroups, for the sweep after its death
    registry.db    functions and the ledger
    events.db      pending asynchronous events; events.ballast is room for their ends
    code/          packages, by sha256
    uploads/       HTTP bodies on their way in
    logs/          what functions printed, if logs are kept
    tmp/           one directory or volume for each worker's /tmp
    root/          empty: a zygote mounts the root of its workers on it, unseen from outside

Rule: a lock is the only proof of life. The kernel drops it with the last process that holds it,
however that process ends; a pid in a file may be another process's by now. A directory whose lock
is free is swept: processes first, then cgroups, then files. A directory whose lock is held is not
touched. A cgroup that cannot be removed, because a process in it does not die, stays in
instance.json for the next sweep.

Temporary states of one user share a directory, and every supervisor that opens sweeps it. So a
temporary state is made and locked, and its lock tried by a sweep, under the lock of that directory.
The lock file is removed last, also by `close`: a sweep never finds a state without one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from miniλ.errors import ServiceError, StateInUse
from miniλ.sandbox import cgroups, processes, tmp, volumes
from miniλ.store import packages

if TYPE_CHECKING:
    from collections.abc import Iterator


class Instance(msgspec.Struct, frozen=True):
    """What a supervisor writes to instance.json before it starts a process."""

    instance: str
    pid: int
    groups: list[str]
    # Earlier instances whose cgroups could not be removed.
    before: list[Instance] = []

    def every(self) -> list[Instance]:
        """Return this instance and the earlier ones."""
        return [msgspec.structs.replace(self, before=[]), *self.before]

    def with_cgroups(self) -> list[Instance]:
        """Return the instances that still have a cgroup."""
        return [each for each in self.every() if any(map(os.path.isdir, each.groups))]


class SweepReport(msgspec.Struct, frozen=True):
    """What was left of a dead supervisor, and is removed: processes killed, paths deleted."""

    instance: str
    processes: int
    paths: list[str]


class StateDir:
    """A state directory that this process holds, and the paths in it."""

    def __init__(
        self, path: Path, lock: int, instance: str, before: list[Instance], *, kept: bool
    ) -> None:
        self.path = path
        self.instance = instance
        self._own = Instance(instance, os.getpid(), [], before)
        self.kept = kept
        self.code = path / "code"
        self.tmp = path / "tmp"
        self.root_mount = path / "root"
        self.uploads = path / "uploads"
        self.logs = path / "logs"
        self.registry = path / "registry.db"
        self.events = path / "events.db"
        self._lock = lock

    def write_down(self, groups: list[str]) -> None:
        """Write what a sweep needs to instance.json; call this before the first worker starts."""
        self._own = msgspec.structs.replace(self._own, groups=groups)
        _write(self.path, self._own.every())

    def close(self) -> None:
        """Unlock the directory, and remove it if it is temporary and no cgroup is left."""
        left = self._own.with_cgroups()
        if self.kept or left:
            tmp.empty(str(self.tmp))
            _write(self.path, left)
        else:
            _remove(self.path)
        _unlock(self._lock)

    def collect(self, in_use: set[str]) -> None:
        """Remove packages that are not in use, and the staging directories of a crash."""
        packages.collect(self.code, in_use)


def open_state(path: str | os.PathLike[str] | None) -> tuple[StateDir, list[SweepReport]]:
    """Lock a state directory, a temporary one for None, and sweep what dead supervisors left.

    Raises `StateInUse` if another supervisor holds it, `ServiceError` if it cannot be used.
    """
    # The pid is for an operator who reads a list of cgroups; the random part makes it unique.
    instance = f"{os.getpid():06x}{os.urandom(3).hex()}"
    before: list[Instance] = []
    base = None
    reports: list[SweepReport] = []
    if path is None:
        base = _temporary_base()
        reports = [report for dead in sorted(base.iterdir()) if (report := _sweep_dead(dead))]
        directory = base / instance
    else:
        directory = Path(path).absolute()
    try:
        with _lock_base(base) if base is not None else contextlib.nullcontext():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = _lock(directory)
    except OSError as exc:
        msg = f"The state directory {directory} cannot be used: {exc}"
        raise ServiceError(msg) from exc
    if lock is None:
        msg = (
            f"The state directory {directory.resolve()} is in use by {_holder(directory)}: "
            "stop it, or take another state directory"
        )
        raise StateInUse(msg)
    if path is not None:
        report, before = _sweep(directory)
        reports += [report] if report else []
    state = StateDir(directory, lock, instance, before, kept=path is not None)
    state.code.mkdir(exist_ok=True)
    state.tmp.mkdir(exist_ok=True, mode=0o711)
    state.root_mount.mkdir(exist_ok=True)
    with contextlib.suppress(OSError):
        (directory / "walls").rmdir()  # the older name of root/
    state.uploads.mkdir(exist_ok=True, mode=0o700)
    tmp.empty(str(state.uploads))
    return state, reports


def _temporary_base() -> Path:
    """Return the directory of all temporary states of this user; refuse another user's."""
    base = Path(tempfile.gettempdir()) / f"minilambda-{os.geteuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        msg = f"{base} belongs to another user: set TMPDIR or pass state="
        raise ServiceError(msg)
    return base


@contextlib.contextmanager
def _lock_base(base: Path) -> Iterator[None]:
    """Lock the directory of all temporary states: held for two system calls, so this waits."""
    descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        _unlock(descriptor)


def _lock(directory: Path) -> int | None:
    """Return the descriptor that locks a state directory; None if another process holds it."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _unlock(descriptor: int) -> None:
    # Not close alone: a process that the app forked may hold a copy of the descriptor.
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _holder(directory: Path) -> str:
    try:
        document = (directory / "instance.json").read_bytes()
        return f"process {msgspec.json.decode(document, type=Instance).pid}"
    except (OSError, msgspec.MsgspecError):
        return "another supervisor"


def _sweep_dead(directory: Path) -> SweepReport | None:
    """Sweep and remove a temporary state whose supervisor is dead."""
    try:
        with _lock_base(directory.parent):
            # A supervisor that died early has made no lock: then this one makes it.
            lock = _lock(directory)
    except OSError:
        return None  # its owner has removed it meanwhile
    if lock is None:
        return None
    try:
        report, left = _sweep(directory)
        if not left:
            _remove(directory)
    finally:
        _unlock(lock)
    return report


def _remove(directory: Path) -> None:
    """Remove a temporary state, if it is still there; its lock is the last to go."""
    with contextlib.suppress(FileNotFoundError):
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    tmp.remove(entry.path)
                elif entry.name != "lock":
                    os.unlink(entry.path)
        with _lock_base(directory.parent):  # or a sweep would make a lock in between
            os.unlink(directory / "lock")
            directory.rmdir()


def _sweep(directory: Path) -> tuple[SweepReport | None, list[Instance]]:
    """Kill the processes and remove the files that a dead supervisor left.

    Returns a report, None if it had started nothing, and the instances whose cgroups are left.
    """
    try:
        document = (directory / "instance.json").read_bytes()
        dead = msgspec.json.decode(document, type=Instance)
    except (OSError, msgspec.MsgspecError):
        return None, []  # it died before it started a process
    killed, removed = 0, []
    for each in dead.every():
        killed += processes.kill_marked(each.instance)
        removed += cgroups.sweep(each.groups, each.instance)
    tmp_dirs = directory / "tmp"
    if tmp_dirs.is_dir():
        removed += volumes.sweep(str(tmp_dirs))
        removed += [str(entry) for entry in tmp_dirs.iterdir()]
        tmp.empty(str(tmp_dirs))
    left = dead.with_cgroups()
    _write(directory, left)
    return SweepReport(dead.instance, killed, removed), left


def _write(directory: Path, instances: list[Instance]) -> None:
    """Write instances to instance.json, the newest first; remove the file if there are none."""
    path = directory / "instance.json"
    if instances:
        first = msgspec.structs.replace(instances[0], before=instances[1:])
        path.write_bytes(msgspec.json.encode(first))
    else:
        path.unlink(missing_ok=True)
