"""This module is the state directory: who holds it, and what a dead holder left behind.

    lock           held with flock(2) while a supervisor lives; never removed while it may be held
    instance.json  the instance's id and cgroups, so that a later life can sweep them
    registry.db    functions and the ledger
    events.db      asynchronous events that are not over, and events.ballast, room for their end
    code/          packages, by sha256
    uploads/       what is on its way in over HTTP
    logs/          what functions printed, where it is kept
    tmp/           one directory or volume for each worker's /tmp
    walls/         empty: zygotes put the root of their workers together on it, unseen from here

Rule: a lock is the only proof of life. The kernel drops it with the last process that holds
it, whatever way that ends; a pid in a file may be anybody's by now. A directory whose lock is
free is swept: processes first, then cgroups, then files. Another instance's is never touched.
What will not go, because a process in it does not die, stays written down for the next sweep.
"""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from pathlib import Path

import msgspec

from miniλ.errors import ServiceError, StateInUse
from miniλ.sandbox import cgroups, processes, tmp, volumes
from miniλ.store import packages


class Instance(msgspec.Struct, frozen=True):
    """What a supervisor writes down about itself before it starts anything."""

    instance: str
    pid: int
    groups: list[str]
    # Earlier ones whose cgroups would not go.
    before: list[Instance] = []

    def every(self) -> list[Instance]:
        """Return this one and those before."""
        return [msgspec.structs.replace(self, before=[]), *self.before]

    def left(self) -> list[Instance]:
        """Return those that still have a cgroup."""
        return [each for each in self.every() if any(map(os.path.isdir, each.groups))]


class Remains(msgspec.Struct, frozen=True):
    """What was found of a dead supervisor, and removed."""

    instance: str
    processes: int
    paths: list[str]


class StateDir:
    """A state directory that we hold."""

    def __init__(
        self, path: Path, lock: int, instance: str, before: list[Instance], *, kept: bool
    ) -> None:
        self.path = path
        self.instance = instance
        self._own = Instance(instance, os.getpid(), [], before)
        self.kept = kept
        self.code = path / "code"
        self.tmp = path / "tmp"
        self.root_mount = path / "walls"
        self.uploads = path / "uploads"
        self.logs = path / "logs"
        self.registry = path / "registry.db"
        self.events = path / "events.db"
        self._lock = lock

    def write_down(self, groups: list[str]) -> None:
        """Keep what a sweep needs to know, before the first worker starts."""
        self._own = msgspec.structs.replace(self._own, groups=groups)
        _write(self.path, self._own.every())

    def close(self) -> None:
        """Leave the directory: as it is if it is kept, else without a trace if nothing is left."""
        left = self._own.left()
        if self.kept or left:
            tmp.empty(str(self.tmp))
            _write(self.path, left)
        else:
            tmp.remove(str(self.path))
        # Not close alone: a process that the app forked may hold a copy of the descriptor.
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)

    def collect(self, in_use: set[str]) -> None:
        """Remove packages that nobody has, and what a crash left on its way."""
        packages.collect(self.code, in_use)


def open_state(path: str | os.PathLike[str] | None) -> tuple[StateDir, list[Remains]]:
    """Take hold of a state directory, a temporary one for None; sweep what the dead left.

    Raises `StateInUse` where another supervisor holds it.
    """
    # The pid is for people who look at a list of cgroups; the rest makes it unique.
    instance = f"{os.getpid():06x}{os.urandom(3).hex()}"
    before: list[Instance] = []
    if path is None:
        base = _temporary_base()
        remains = [found for dead in sorted(base.iterdir()) if (found := _sweep_dead(dead))]
        directory = base / instance
    else:
        directory = Path(path).absolute()
        remains = []
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _lock(directory)
    except OSError as exc:
        msg = f"The state directory {directory} cannot be used: {exc}"
        raise ServiceError(msg) from exc
    if lock is None:
        msg = f"The state directory {directory} is in use by {_holder(directory)}"
        raise StateInUse(msg)
    if path is not None:
        found, before = _sweep(directory)
        remains += [found] if found else []
    state = StateDir(directory, lock, instance, before, kept=path is not None)
    state.code.mkdir(exist_ok=True)
    state.tmp.mkdir(exist_ok=True, mode=0o711)
    state.root_mount.mkdir(exist_ok=True)
    state.uploads.mkdir(exist_ok=True, mode=0o700)
    tmp.empty(str(state.uploads))
    return state, remains


def _temporary_base() -> Path:
    """Return the directory of all temporary states of this user, and nobody else's."""
    base = Path(tempfile.gettempdir()) / f"minilambda-{os.geteuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        msg = f"{base} belongs to somebody else: set TMPDIR or pass state="
        raise ServiceError(msg)
    return base


def _lock(directory: Path) -> int | None:
    """Lock a state directory; return the descriptor that holds it, None if somebody does."""
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


def _holder(directory: Path) -> str:
    try:
        document = (directory / "instance.json").read_bytes()
        return f"process {msgspec.json.decode(document, type=Instance).pid}"
    except (OSError, msgspec.MsgspecError):
        return "another supervisor"


def _sweep_dead(directory: Path) -> Remains | None:
    """Sweep and remove a temporary state whose supervisor is dead."""
    try:
        lock = _lock(directory)
    except OSError:
        return None  # removed by its owner meanwhile
    if lock is None:
        return None
    try:
        found, left = _sweep(directory)
        if not left:
            tmp.remove(str(directory))
    finally:
        os.close(lock)
    return found


def _sweep(directory: Path) -> tuple[Remains | None, list[Instance]]:
    """End what a dead supervisor left running and remove what it left lying about.

    Return that, and whose cgroups are left.
    """
    try:
        document = (directory / "instance.json").read_bytes()
        dead = msgspec.json.decode(document, type=Instance)
    except (OSError, msgspec.MsgspecError):
        return None, []  # it died before it started anything
    killed, removed = 0, []
    for each in dead.every():
        killed += processes.kill_marked(each.instance)
        removed += cgroups.sweep(each.groups, each.instance)
    scratch = directory / "tmp"
    if scratch.is_dir():
        removed += volumes.sweep(str(scratch))
        removed += [str(entry) for entry in scratch.iterdir()]
        tmp.empty(str(scratch))
    left = dead.left()
    _write(directory, left)
    return Remains(dead.instance, killed, removed), left


def _write(directory: Path, instances: list[Instance]) -> None:
    """Write down the first of these and those before it; nothing is no file."""
    path = directory / "instance.json"
    if instances:
        first = msgspec.structs.replace(instances[0], before=instances[1:])
        path.write_bytes(msgspec.json.encode(first))
    else:
        path.unlink(missing_ok=True)
