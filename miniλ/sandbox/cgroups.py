"""Control groups: memory, CPU and process limits of a worker's whole process tree.

Four implementations with the same verbs: `V2Group` (cgroup2), `V1Group` (one hierarchy per
controller), `MixedGroup` (limits by v1, kill and freeze by cgroup2) and `NoGroup` (signals alone).
`hierarchies` makes them. A group's key is a tuple of strings, from which the far side of fork
rebuilds it.

Rule 1: every write is os.write. CPython's buffered files report an error of write(2) at close,
where the garbage collector swallows it, and a refused limit would look like a set one.

Rule 2: a worker joins its group itself, before it runs anything: moving a process from outside
races with what it forks.

Kernel facts (cgroup-v1/memory.rst, cgroup-v2.rst, measured on 6.18): a task frozen by v1 stays
in D with a SIGKILL pending until it is thawed, v2 kills frozen tasks; the CPU quota is at least
1,000 us and the period stays at 100 ms, since a shorter one makes a 5 ms job wait for slices.
"""

from __future__ import annotations

import errno
import os
import signal
import time

from miniλ.sandbox import processes

PERIOD_US = 100_000
MINIMUM_QUOTA_US = 1000
PAGE = os.sysconf("SC_PAGE_SIZE")

# v1 takes -1 for "no limit"; a read gives the highest limit back instead, page-aligned.
UNLIMITED = "-1"


def write(path: str, value: str) -> None:
    """Write one value to one control file. Raises OSError with the path in it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    except OSError as exc:
        raise OSError(exc.errno, f"cannot write {value!r}: {exc.strerror}", path) from exc
    finally:
        os.close(descriptor)


def read(path: str) -> str:
    """Read one control file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 65536).decode()
    finally:
        os.close(descriptor)


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def join(files: list[int]) -> None:
    """Move the calling process into the groups whose cgroup.procs these are; closes them.

    The zygote opens them: a worker with a mount namespace of its own does not see cgroupfs.
    """
    for descriptor in files:
        try:
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)


class Group:
    """One cgroup for one worker at a time. The verbs of all implementations.

    `limit` and `throttle` come before the worker joins; `recycle` resets a group after the last
    process has left it, and raises OSError if the group cannot be reused.
    """

    key: tuple[str, ...] = ()
    # The worker's first process, set once it is forked; signals and niceness go to it.
    leader = 0

    def procs_files(self) -> list[str]:
        """Return the paths of the cgroup.procs files for `join`."""
        return []

    def limit(self, memory: int, pids: int) -> None:
        """Limit the memory (bytes, no swap) and the number of tasks."""

    def throttle(self, cpus: float | None) -> None:
        """Limit the CPU time to that of `cpus` CPUs, None for no limit. Here, by niceness."""
        if not self.leader or cpus is None or cpus >= 1:
            return
        try:
            os.setpriority(os.PRIO_PROCESS, self.leader, nice(cpus))
        except OSError:
            return  # the worker has died meanwhile

    def freeze(self) -> None:
        """Stop scheduling every process inside."""

    def thaw(self) -> None:
        """Schedule them again."""

    def kill(self) -> None:
        """Send SIGKILL to every process inside, also to frozen ones."""

    def members(self) -> list[int]:
        """Return the pids inside, zombies not counted."""
        return []

    def peak(self) -> int:
        """Return the most memory that was charged, in bytes; 0 if the kernel does not count."""
        return 0

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for memory since the group was made."""
        return 0

    def recycle(self) -> None:
        """Reset the group for the next worker."""

    def remove(self) -> None:
        """Remove the group; raises OSError (EBUSY) while a process is left."""


class V2Group(Group):
    """A group of cgroup2: one directory. A limit whose controller is not on is skipped."""

    def __init__(self, path: str) -> None:
        self.key = ("v2", path)
        self.path = path
        self._peak: int | None = None

    def create(self) -> None:
        """Make the directory."""
        os.mkdir(self.path, 0o755)

    def _has(self, name: str) -> bool:
        return os.path.exists(f"{self.path}/{name}")

    def procs_files(self) -> list[str]:
        return [f"{self.path}/cgroup.procs"]

    def limit(self, memory: int, pids: int) -> None:
        if self._has("memory.max"):
            write(f"{self.path}/memory.max", str(memory))
            _read_back(f"{self.path}/memory.max", memory)
            write(f"{self.path}/memory.oom.group", "1")
            if self._has("memory.swap.max"):
                write(f"{self.path}/memory.swap.max", "0")
        if self._has("pids.max"):
            write(f"{self.path}/pids.max", str(pids))

    def throttle(self, cpus: float | None) -> None:
        if self._has("cpu.max"):
            write(f"{self.path}/cpu.max", f"{_quota(cpus, 'max')} {PERIOD_US}")
        else:
            super().throttle(cpus)

    def freeze(self) -> None:
        write(f"{self.path}/cgroup.freeze", "1")

    def thaw(self) -> None:
        write(f"{self.path}/cgroup.freeze", "0")

    def kill(self) -> None:
        try:
            write(f"{self.path}/cgroup.kill", "1")
        except FileNotFoundError:  # before kernel 5.14
            for pid in self.members():
                _kill(pid)
            self.thaw()

    def members(self) -> list[int]:
        return [int(pid) for pid in read(f"{self.path}/cgroup.procs").split()]

    def peak(self) -> int:
        if self._peak is None:
            self._peak = self._open_peak()
        return int(os.pread(self._peak, 32, 0)) if self._peak >= 0 else 0

    def _open_peak(self) -> int:
        # Before kernel 6.12 its mode is read-only, and only root opens it for writing all the same:
        # see `recycle`.
        for flags in (os.O_RDWR, os.O_RDONLY):
            try:
                return os.open(f"{self.path}/memory.peak", flags | os.O_CLOEXEC)
            except OSError:
                continue
        return -1

    def oom_kills(self) -> int:
        if not self._has("memory.events"):
            return 0
        return _field(read(f"{self.path}/memory.events"), "oom_kill")

    def recycle(self) -> None:
        self.peak()  # opens memory.peak: a reset counts for the descriptor that wrote it
        if self._peak is not None and self._peak >= 0:
            os.write(self._peak, b"reset")  # kernel 6.12; an older one refuses: OSError, no reuse
        self.thaw()

    def remove(self) -> None:
        if self._peak is not None and self._peak >= 0:
            os.close(self._peak)
            self._peak = None
        rmdir(self.path)


class V1Group(Group):
    """A group of cgroup v1: one directory per controller."""

    def __init__(self, memory: str, cpu: str, pids: str, freezer: str) -> None:
        self.key = ("v1", memory, cpu, pids, freezer)
        self.paths = [path for path in dict.fromkeys(self.key[1:]) if path]
        self.memory, self.cpu, self.pids, self.freezer = memory, cpu, pids, freezer
        self._peak: int | None = None
        self._limited = (0, 0)

    def create(self) -> None:
        """Make the directories."""
        for path in self.paths:
            os.mkdir(path, 0o755)

    def procs_files(self) -> list[str]:
        return [f"{path}/cgroup.procs" for path in self.paths]

    def limit(self, memory: int, pids: int) -> None:
        if self._limited == (memory, pids):
            return  # recycled for a worker of the same size
        if self.memory:
            # memory+swap may never be below memory: lift it, set one, then the other.
            swap = f"{self.memory}/memory.memsw.limit_in_bytes"
            if os.path.exists(swap):
                write(swap, UNLIMITED)
            write(f"{self.memory}/memory.limit_in_bytes", str(memory))
            if os.path.exists(swap):
                write(swap, str(memory))
            _read_back(f"{self.memory}/memory.limit_in_bytes", memory)
        if self.pids:
            write(f"{self.pids}/pids.max", str(pids))
        self._limited = (memory, pids)

    def throttle(self, cpus: float | None) -> None:
        if self.cpu:
            write(f"{self.cpu}/cpu.cfs_quota_us", _quota(cpus, UNLIMITED))
        else:
            super().throttle(cpus)

    def freeze(self) -> None:
        if self.freezer:
            write(f"{self.freezer}/freezer.state", "FROZEN")

    def thaw(self) -> None:
        if self.freezer:
            write(f"{self.freezer}/freezer.state", "THAWED")

    def kill(self) -> None:
        # A frozen process cannot fork, so the list stays complete; only a thawed one dies.
        self.freeze()
        for pid in self.members():
            _kill(pid)
        self.thaw()

    def members(self) -> list[int]:
        if not self.paths:
            return []
        return [int(pid) for pid in read(f"{self.freezer or self.paths[0]}/cgroup.procs").split()]

    def peak(self) -> int:
        if not self.memory:
            return 0
        if self._peak is None:
            path = f"{self.memory}/memory.max_usage_in_bytes"
            self._peak = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return int(os.pread(self._peak, 32, 0))

    def oom_kills(self) -> int:
        if not self.memory:
            return 0
        return _field(read(f"{self.memory}/memory.oom_control"), "oom_kill")

    def recycle(self) -> None:
        self.thaw()
        if self.memory:
            # Page cache that the last worker charged would count for the next one.
            write(f"{self.memory}/memory.force_empty", "0")
            write(f"{self.memory}/memory.max_usage_in_bytes", "0")

    def remove(self) -> None:
        if self._peak is not None:
            os.close(self._peak)
            self._peak = None
        for path in self.paths:
            rmdir(path)


class MixedGroup(V1Group):
    """A group of v1 for limits, and one of cgroup2, without controllers, for kill and freeze.

    Hosts whose init uses v1 have both. cgroup2 kills a whole group in one write, frozen or not; v1
    needs a freezer, a list of pids and a signal to each.
    """

    def __init__(self, memory: str, cpu: str, pids: str, unified: str) -> None:
        super().__init__(memory, cpu, pids, "")
        self.key = ("mixed", memory, cpu, pids, unified)
        self.paths.append(unified)
        self.unified = V2Group(unified)

    def freeze(self) -> None:
        self.unified.freeze()

    def thaw(self) -> None:
        self.unified.thaw()

    def kill(self) -> None:
        self.unified.kill()

    def members(self) -> list[int]:
        return self.unified.members()


class NoGroup(Group):
    """No cgroup: the same verbs, done with signals to the worker's processes."""

    def __init__(self, worker_id: str) -> None:
        self.key = ("none", worker_id)
        self.worker_id = worker_id

    def _signal_group(self, number: int) -> None:
        if not self.leader:
            return
        try:
            os.killpg(self.leader, number)
        except OSError:
            return  # the group has ended meanwhile

    def freeze(self) -> None:
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_group(signal.SIGCONT)

    def kill(self) -> None:
        processes.kill_marked(self.worker_id)

    def members(self) -> list[int]:
        return sorted(processes.marked(self.worker_id))


def _read_back(path: str, value: int) -> None:
    """Raise OSError unless the limit in force is the one written, rounded down by the kernel."""
    limit = read(path).strip()
    if not limit.isdigit() or not value - PAGE < int(limit) <= value:
        raise OSError(errno.EINVAL, f"{value} was written and {limit} is in force", path)


def nice(cpus: float) -> int:
    """Return the niceness whose weight is about `cpus` of one CPU's (sched(7): 1.25 a step)."""
    niceness, weight = 0, 1.0
    while weight > cpus and niceness < 19:  # noqa: PLR2004 - the kernel's lowest priority
        niceness, weight = niceness + 1, weight / 1.25
    return niceness


def rebuild(key: tuple[str, ...]) -> Group:
    """Return the group that has this key: on the far side of fork, or after a restart."""
    kind, *parts = key
    if kind == "v2":
        return V2Group(*parts)
    if kind == "v1":
        return V1Group(*parts)
    if kind == "mixed":
        return MixedGroup(*parts)
    return NoGroup(*parts)


def _quota(cpus: float | None, unlimited: str) -> str:
    if cpus is None:
        return unlimited
    return str(max(MINIMUM_QUOTA_US, int(cpus * PERIOD_US)))


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def rmdir(path: str) -> None:
    """Remove a group's directory, if it is still there. Raises OSError (EBUSY)."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


def sweep(paths: list[str], instance: str) -> list[str]:
    """Kill all processes in a dead instance's groups below `paths`; return the paths removed.

    The paths come from a file: only one that ends in the instance's own name is touched. The groups
    are swept together: a process of v1 is in several of them, and dies when its freezer is thawed.
    Takes up to 5 s if a process does not die.
    """
    own = [p for p in paths if os.path.basename(p) == f"minilambda-{instance}" and os.path.isdir(p)]
    groups = [f"{path}/{name}" for path in own for name in os.listdir(path)]
    groups = [group for group in groups if os.path.isdir(group)]
    deadline = time.monotonic() + 5.0
    while groups and time.monotonic() < deadline:
        groups = [group for group in groups if not _remove(group)]
        if groups:
            time.sleep(0.005)  # v1 has no event for a group that becomes empty
    busy = {os.path.dirname(group) for group in groups}
    for path in own:
        if path not in busy:
            rmdir(path)
    return [path for path in own if path not in busy]


def _remove(group: str) -> bool:
    """Kill all processes of a group and try to remove it; return whether it is gone."""
    try:
        _kill_all(group)
        os.rmdir(group)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _kill_all(group: str) -> None:
    for name, value in (("cgroup.kill", "1"), ("freezer.state", "THAWED")):
        if os.path.exists(f"{group}/{name}"):
            write(f"{group}/{name}", value)
    for pid in read(f"{group}/cgroup.procs").split():
        _kill(int(pid))
