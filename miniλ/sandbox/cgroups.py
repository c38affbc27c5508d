"""This module is control groups: memory, CPU and process limits of a worker's whole tree.

Three implementations with the same verbs: `V2` (cgroup2), `V1` (one hierarchy per controller)
and `NoCgroup`, which does with signals what can be done without. `probe` chooses one, by
doing. A group is known by a tuple of strings, so that the far side of fork can rebuild it.

Rule 1: every write is os.write. CPython's buffered files report an error of write(2) at close,
where the garbage collector swallows it, and a refused limit would look like a set one.

Rule 2: who joins is always the worker itself, before it runs anything: moving a process from
outside races with what it forks.

Kernel facts (cgroup-v1/memory.rst, cgroup-v2.rst, measured on 6.18): a task frozen by v1 stays
in D with a SIGKILL pending until it is thawed, v2 kills frozen tasks; the CPU quota is at least
1,000 us and the period stays at 100 ms, since a shorter one makes a 5 ms job wait for slices.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from miniλ.sandbox import processes

PERIOD_US = 100_000
MINIMUM_QUOTA_US = 1000

# v1's file for "no limit" takes -1; reads give this number back, page-aligned.
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


class Group:
    """One cgroup for one worker at a time. The verbs of all three implementations.

    `limit` and `throttle` come before the worker joins; `recycle` makes a group as new after
    the last process has left it, and raises OSError where only a new one will do.
    """

    key: tuple[str, ...] = ()
    # The worker's first process, set once it is forked; what is done by signals needs it.
    leader = 0

    def join(self) -> None:
        """Move the calling process in."""

    def limit(self, memory: int, pids: int) -> None:
        """Limit the memory (bytes, no swap) and the number of tasks."""

    def throttle(self, cpus: float | None) -> None:
        """Limit the CPU to so many; None is as much as there is. Here, by niceness."""
        if not self.leader or cpus is None or cpus >= 1:
            return
        try:
            os.setpriority(os.PRIO_PROCESS, self.leader, nice(cpus))
        except OSError:
            return  # gone meanwhile: a worker that died needs no niceness

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
        """Return the most memory that was charged, in bytes; 0 where nobody counts."""
        return 0

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed for memory since the group was made."""
        return 0

    def recycle(self) -> None:
        """Make the group as new."""

    def remove(self) -> None:
        """Remove the group; raises OSError (EBUSY) while a process is left."""


class V2Group(Group):
    """A group of cgroup2: one directory. What a controller does not offer is left out."""

    def __init__(self, path: str) -> None:
        self.key = ("v2", path)
        self.path = path
        self._peak: int | None = None

    def create(self) -> None:
        """Make the directory."""
        os.mkdir(self.path, 0o755)

    def _has(self, name: str) -> bool:
        return os.path.exists(f"{self.path}/{name}")

    def join(self) -> None:
        write(f"{self.path}/cgroup.procs", "0")

    def limit(self, memory: int, pids: int) -> None:
        if self._has("memory.max"):
            write(f"{self.path}/memory.max", str(memory))
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
            try:
                self._peak = os.open(f"{self.path}/memory.peak", os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                self._peak = -1
        return int(os.pread(self._peak, 32, 0)) if self._peak >= 0 else 0

    def oom_kills(self) -> int:
        if not self._has("memory.events"):
            return 0
        return _field(read(f"{self.path}/memory.events"), "oom_kill")

    def recycle(self) -> None:
        self.peak()  # opens it: the reset is by descriptor
        if self._peak is not None and self._peak >= 0:
            os.write(self._peak, b"reset")  # kernel 6.12; older ones refuse, and we make anew
        self.thaw()

    def remove(self) -> None:
        if self._peak is not None and self._peak >= 0:
            os.close(self._peak)
            self._peak = None
        _rmdir(self.path)


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

    def join(self) -> None:
        for path in self.paths:
            write(f"{path}/cgroup.procs", "0")

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
        # Frozen, nobody can fork away from the list; and without the thaw nobody dies.
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
            # The page cache that the last worker charged must not count for the next one.
            write(f"{self.memory}/memory.force_empty", "0")
            write(f"{self.memory}/memory.max_usage_in_bytes", "0")

    def remove(self) -> None:
        if self._peak is not None:
            os.close(self._peak)
            self._peak = None
        for path in self.paths:
            _rmdir(path)


class NoGroup(Group):
    """The absent cgroup: the same verbs, done with signals to the worker's processes."""

    def __init__(self, worker_id: str) -> None:
        self.key = ("none", worker_id)
        self.worker_id = worker_id

    def _signal_group(self, number: int) -> None:
        if not self.leader:
            return
        try:
            os.killpg(self.leader, number)
        except OSError:
            return  # gone meanwhile

    def freeze(self) -> None:
        self._signal_group(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_group(signal.SIGCONT)

    def kill(self) -> None:
        processes.kill_marked(self.worker_id)

    def members(self) -> list[int]:
        return sorted(processes.marked(self.worker_id))


def nice(cpus: float) -> int:
    """Return the niceness whose weight is about `cpus` of one CPU's (sched(7): 1.25 a step)."""
    niceness, weight = 0, 1.0
    while weight > cpus and niceness < 19:  # noqa: PLR2004 - the kernel's lowest priority
        niceness, weight = niceness + 1, weight / 1.25
    return niceness


def rebuild(key: tuple[str, ...]) -> Group:
    """Return the group that has this key: on the far side of fork, or in a later life."""
    kind, *parts = key
    if kind == "v2":
        return V2Group(*parts)
    if kind == "v1":
        return V1Group(*parts)
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


def _rmdir(path: str) -> None:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return


class Hierarchy:
    """Where groups come from: made ahead, leased, recycled, and removed at the end.

    `limits` says what a group of this hierarchy enforces, as `hard: by what` or `soft: ...`.
    """

    kind = "none"
    # The directories that a sweep has to look at, should we die.
    directories: tuple[str, ...] = ()
    # OpenLambda keeps 16 ready; a lease then costs the writes of the limits and nothing else.
    spares = 8

    def __init__(self) -> None:
        self.limits: dict[str, str] = {}
        self._spare: list[Group] = []
        self._quarantine: list[Group] = []

    def make(self, worker_id: str) -> Group:
        """Make a group that no worker has used."""
        raise NotImplementedError

    def lease(self, worker_id: str) -> Group:
        """Return a group for a worker: a spare one, else a new one."""
        if self._spare:
            return self._spare.pop()
        return self.make(worker_id)

    def make_ahead(self) -> bool:
        """Make one spare group if there are too few; return whether more are wanted."""
        if len(self._spare) < self.spares:
            self._spare.append(self.make(""))
        return len(self._spare) < self.spares

    def give_back(self, group: Group) -> None:
        """Take a group back that no process is in; it is recycled, removed or quarantined."""
        try:
            if len(self._spare) < self.spares:
                group.recycle()
                self._spare.append(group)
                return
        except OSError:
            pass  # then it is not reused: removed below
        self._quarantine.append(group)
        self.collect()

    def collect(self) -> list[Group]:
        """Remove what could not be removed before; return what still cannot (EBUSY)."""
        left = []
        for group in self._quarantine:
            try:
                group.remove()
            except OSError:
                left.append(group)
        self._quarantine = left
        return left

    def close(self) -> list[str]:
        """Remove every group and the directories above; return the paths that would not go."""
        self._quarantine += self._spare
        self._spare = []
        return [path for group in self.collect() for path in group.key[1:]]


class NoCgroup(Hierarchy):
    """No hierarchy that we may write: limits by rlimits, a poll, niceness and signals."""

    spares = 0

    def __init__(self) -> None:
        super().__init__()
        self.limits = {
            "memory": "soft: RLIMIT_DATA and a poll of the process tree",
            "cpu": "soft: nice",
            "processes": "none: RLIMIT_NPROC does not bind root"
            if os.geteuid() == 0
            else "soft: RLIMIT_NPROC, shared by the user's processes",
            "freeze": "soft: SIGSTOP to the process group",
            "kill": "soft: a sweep of the process tree",
        }

    def make(self, worker_id: str) -> Group:
        return NoGroup(worker_id)

    def give_back(self, group: Group) -> None:
        """Nothing to take back: a NoGroup is a name and signals."""


class V2(Hierarchy):
    """cgroup2, delegated to us or ours as root."""

    kind = "v2"

    def __init__(self, instance: str) -> None:
        super().__init__()
        parent = places().get("")
        if parent is None:
            msg = "cgroup2 is not mounted"
            raise OSError(msg)
        self.parent = parent
        self.path = f"{self.parent}/minilambda-{instance}"
        self.directories = (self.path,)
        self._count = 0
        os.mkdir(self.path, 0o755)
        try:
            self._enable()
        except OSError:
            os.rmdir(self.path)
            raise

    def _enable(self) -> None:
        wanted = {"memory", "cpu", "pids"}
        here = set(read(f"{self.path}/cgroup.controllers").split())
        if not wanted <= here:
            # Only who owns a delegated subtree may: elsewhere this is EACCES or EBUSY ("no
            # internal processes"), and what is missing is reported as not held.
            for controller in sorted(wanted - here):
                try:
                    write(f"{self.parent}/cgroup.subtree_control", f"+{controller}")
                except OSError:
                    continue
            here = set(read(f"{self.path}/cgroup.controllers").split())
        for controller in sorted(wanted & here):
            write(f"{self.path}/cgroup.subtree_control", f"+{controller}")
        nothing = NoCgroup().limits
        self.limits = {
            "memory": "hard: cgroup2 memory.max" if "memory" in here else nothing["memory"],
            "cpu": "hard: cgroup2 cpu.max" if "cpu" in here else nothing["cpu"],
            "processes": "hard: cgroup2 pids.max" if "pids" in here else nothing["processes"],
            "freeze": "hard: cgroup2 cgroup.freeze",
            "kill": "hard: cgroup2 cgroup.kill"
            if os.path.exists(f"{self.path}/cgroup.kill")
            else "hard: cgroup2 SIGKILL to cgroup.procs",
        }

    def make(self, worker_id: str) -> Group:
        del worker_id  # a group outlives its worker: it is named by number
        self._count += 1
        group = V2Group(f"{self.path}/g{self._count}")
        group.create()
        return group

    def close(self) -> list[str]:
        left = super().close()
        if not left:
            _rmdir(self.path)
        return left


class V1(Hierarchy):
    """cgroup v1: memory, cpu, pids and freezer, each where we are allowed to make groups."""

    kind = "v1"

    def __init__(self, instance: str) -> None:
        super().__init__()
        found = places()
        self.paths: dict[str, str] = {}
        for controller in ("memory", "cpu", "pids", "freezer"):
            if controller in found and os.access(found[controller], os.W_OK):
                self.paths[controller] = f"{found[controller]}/minilambda-{instance}"
        if not self.paths:
            msg = "no cgroup v1 controller that we may write"
            raise OSError(msg)
        self.directories = tuple(dict.fromkeys(self.paths.values()))
        self._count = 0
        for path in self.directories:
            os.mkdir(path, 0o755)
        nothing = NoCgroup().limits
        frozen = "freezer" in self.paths
        self.limits = {
            "memory": "hard: cgroup1 memory" if "memory" in self.paths else nothing["memory"],
            "cpu": "hard: cgroup1 cpu quota" if "cpu" in self.paths else nothing["cpu"],
            "processes": "hard: cgroup1 pids" if "pids" in self.paths else nothing["processes"],
            "freeze": "hard: cgroup1 freezer" if frozen else "none: no freezer controller",
            "kill": "hard: cgroup1 freezer" if frozen else "soft: SIGKILL to cgroup.procs",
        }

    def make(self, worker_id: str) -> Group:
        del worker_id  # a group outlives its worker: it is named by number
        self._count += 1
        memory, cpu, pids, freezer = (
            f"{self.paths[controller]}/g{self._count}" if controller in self.paths else ""
            for controller in ("memory", "cpu", "pids", "freezer")
        )
        group = V1Group(memory, cpu, pids, freezer)
        group.create()
        return group

    def close(self) -> list[str]:
        left = super().close()
        if not left:
            for path in self.directories:
                _rmdir(path)
        return left


def open_hierarchy(choice: str, instance: str) -> tuple[Hierarchy, list[str]]:
    """Return the hierarchy for `choice` (auto, v2, v1, none), and why better ones were not it.

    "auto" takes the first whose memory limit is hard; then v1 or v2 that hold anything at
    all; then none. Raises OSError where a named choice cannot be had.
    """
    if choice == "none":
        return NoCgroup(), []
    refused: list[str] = []
    second: Hierarchy | None = None
    for make in (V2, V1):
        if choice not in ("auto", make.kind):
            continue
        try:
            hierarchy = make(instance)
        except OSError as exc:
            refused.append(f"cgroup {make.kind}: {exc}")
            if choice != "auto":
                raise
            continue
        if choice != "auto" or hierarchy.limits["memory"].startswith("hard"):
            if second is not None:
                second.close()
            return hierarchy, refused
        refused.append(f"cgroup {make.kind}: no memory controller")
        if second is None:
            second = hierarchy
        else:
            hierarchy.close()
    return (second or NoCgroup()), refused


def places() -> dict[str, str]:
    """Return our own directory in each v1 hierarchy, by controller, and under "" in cgroup2."""
    own: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding=sys.getfilesystemencoding()) as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                own[controller] = path
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding=sys.getfilesystemencoding()) as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()[:3]
            root, point = fields.split()[3:5]
            names = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, [])
            for name in names:
                if name in own and name not in found:
                    # A container sees its own part of the hierarchy mounted as the whole.
                    inside = own[name].removeprefix(root.rstrip("/")).strip("/")
                    found[name] = os.path.join(point, inside).rstrip("/")
    return found


def sweep(path: str, instance: str) -> bool:
    """Kill what is in the groups that a dead instance made below `path`, and remove them.

    The path comes from a file: only one that ends in the instance's own name is touched.
    """
    if os.path.basename(path) != f"minilambda-{instance}" or not os.path.isdir(path):
        return False
    groups = [entry.path for entry in os.scandir(path) if entry.is_dir()]
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        left = []
        for group in groups:
            _kill_all(group)
            try:
                os.rmdir(group)
            except FileNotFoundError:
                continue
            except OSError:
                left.append(group)
        if not left:
            _rmdir(path)
            return True
        groups = left
        time.sleep(0.005)  # v1 says nothing when a group becomes empty
    return False


def _kill_all(group: str) -> None:
    for name, value in (("cgroup.kill", "1"), ("freezer.state", "THAWED")):
        if os.path.exists(f"{group}/{name}"):
            write(f"{group}/{name}", value)
    for pid in read(f"{group}/cgroup.procs").split():
        _kill(int(pid))
