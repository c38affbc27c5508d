"""Cgroup hierarchies: the one that the supervisor may use here, and a pool of its groups.

`V2` (cgroup2), `Mixed` (v1 with cgroup2 beside it), `V1` (one hierarchy per controller) and
`NoCgroup` have the same verbs, and name in `limits` what each enforces. `open_hierarchy` chooses by
doing: it makes a directory and switches controllers on, and a refusal is the reason why it takes
the next one.

Rule: groups are made ahead and recycled. Making one costs as much as a fork.

Kernel fact (cgroup-v2.rst, "No Internal Process Constraint"): a group of cgroup2 whose controllers
are switched on for the groups below it has no processes of its own. The top group of a delegated
subtree has the supervisor in it, its parents and its children: all are moved to a leaf of it,
`LEAF`, beside the groups of workers. The leaf, with its processes, stays until the subtree is
removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

from miniλ.sandbox.cgroups import (
    Group,
    MixedGroup,
    NoGroup,
    V1Group,
    V2Group,
    read,
    rmdir,
    write,
)

LEAF = "minilambda"
# A process that forks while it is moved leaves a child behind: then all are listed and moved again.
MOVE_ATTEMPTS = 100


class Hierarchy:
    """A pool of groups: made ahead, leased, recycled, and removed at the end.

    `limits` has what a group of this hierarchy enforces by resource, as `hard: by what`,
    `soft: ...` or `none: ...`.
    """

    kind = "none"
    # The directories that a sweep visits after the supervisor was killed.
    directories: tuple[str, ...] = ()
    # OpenLambda keeps 16 ready; a lease of a spare then costs only the writes of its limits.
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
        """Make one spare group if there are too few; return whether more are missing."""
        if len(self._spare) < self.spares:
            self._spare.append(self.make(""))
        return len(self._spare) < self.spares

    def give_back(self, group: Group) -> None:
        """Take back a group without processes; it is recycled, removed or quarantined."""
        try:
            if len(self._spare) < self.spares:
                group.recycle()
                self._spare.append(group)
                return
        except OSError:
            pass  # it cannot be recycled: it is removed below
        self._quarantine.append(group)
        self.collect()

    def collect(self) -> list[Group]:
        """Retry the removal of quarantined groups; return those that are still busy (EBUSY)."""
        busy = []
        for group in self._quarantine:
            try:
                group.remove()
            except OSError:
                busy.append(group)
        self._quarantine = busy
        return busy

    def close(self) -> list[str]:
        """Remove every group and the directories above; return the paths that are still busy."""
        self._quarantine += self._spare
        self._spare = []
        return [path for group in self.collect() for path in group.key[1:]]


class NoCgroup(Hierarchy):
    """No cgroups: limits by rlimits, a poll, niceness and signals."""

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
        """Do nothing: a NoGroup is a name and signals, and is not reused."""


class V2(Hierarchy):
    """cgroup2, delegated to this user, or writable because this user is root."""

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
        needed = {"memory", "cpu", "pids"}
        here = set(read(f"{self.path}/cgroup.controllers").split())
        above = set(read(f"{self.parent}/cgroup.controllers").split())
        if needed & above - here:
            # EACCES unless the subtree is delegated to this user: then the limits of the missing
            # controllers are those of NoCgroup.
            with contextlib.suppress(OSError):
                _switch_on(self.parent, sorted(needed & above))
            here = set(read(f"{self.path}/cgroup.controllers").split())
        for controller in sorted(needed & here):
            write(f"{self.path}/cgroup.subtree_control", f"+{controller}")
        without = NoCgroup().limits
        self.limits = {
            "memory": "hard: cgroup2 memory.max" if "memory" in here else without["memory"],
            "cpu": "hard: cgroup2 cpu.max" if "cpu" in here else without["cpu"],
            "processes": "hard: cgroup2 pids.max" if "pids" in here else without["processes"],
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
        busy = super().close()
        if not busy:
            rmdir(self.path)
        return busy


class V1(Hierarchy):
    """cgroup v1: memory, cpu, pids and freezer, as far as this user may make groups in each."""

    kind = "v1"

    # The names of v1's controllers; "" is cgroup2.
    controllers: tuple[str, ...] = ("memory", "cpu", "pids", "freezer")

    def __init__(self, instance: str) -> None:
        super().__init__()
        parents = places()
        self.paths: dict[str, str] = {}
        for controller in self.controllers:
            if controller in parents and os.access(parents[controller], os.W_OK):
                self.paths[controller] = f"{parents[controller]}/minilambda-{instance}"
        if not self.paths.keys() - {""}:
            msg = "no cgroup v1 controller that this user may write"
            raise OSError(msg)
        self.directories = tuple(dict.fromkeys(self.paths.values()))
        self._count = 0
        new: list[str] = []
        try:
            for path in self.directories:
                os.mkdir(path, 0o755)
                new.append(path)
        except OSError:
            for path in new:
                os.rmdir(path)
            raise
        without = NoCgroup().limits
        has_freezer = "freezer" in self.paths
        self.limits = {
            "memory": "hard: cgroup1 memory" if "memory" in self.paths else without["memory"],
            "cpu": "hard: cgroup1 cpu quota" if "cpu" in self.paths else without["cpu"],
            "processes": "hard: cgroup1 pids" if "pids" in self.paths else without["processes"],
            "freeze": "hard: cgroup1 freezer" if has_freezer else "none: no freezer controller",
            "kill": "hard: cgroup1 freezer" if has_freezer else "soft: SIGKILL to cgroup.procs",
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
        busy = super().close()
        if not busy:
            for path in self.directories:
                rmdir(path)
        return busy


class Mixed(V1):
    """Limits by cgroup v1, kill and freeze by the cgroup2 beside it, which has no controllers."""

    kind = "mixed"
    controllers = ("memory", "cpu", "pids", "")

    def __init__(self, instance: str) -> None:
        super().__init__(instance)
        if not os.path.exists(f"{self.paths.get('', '/nonexistent')}/cgroup.kill"):
            for path in self.directories:
                os.rmdir(path)
            msg = "no cgroup2 beside v1 that this user may write and that can kill"
            raise OSError(msg)
        self.limits["freeze"] = "hard: cgroup2 cgroup.freeze"
        self.limits["kill"] = "hard: cgroup2 cgroup.kill"

    def make(self, worker_id: str) -> Group:
        del worker_id  # a group outlives its worker: it is named by number
        self._count += 1
        memory, cpu, pids, unified = (
            f"{self.paths[name]}/g{self._count}" if name in self.paths else ""
            for name in self.controllers
        )
        group = MixedGroup(memory, cpu, pids, unified)
        group.create()
        return group


def open_hierarchy(choice: str, instance: str) -> tuple[Hierarchy, list[str]]:
    """Return the hierarchy for `choice`, and the reasons against better ones.

    `choice` is auto, v2, mixed, v1 or none. "auto" takes the first whose memory limit is hard; else
    the first that can be used; else none. Raises OSError if a named choice cannot be used.
    """
    if choice == "none":
        return NoCgroup(), []
    refused: list[str] = []
    second: type[V2 | V1] | None = None
    for make in (V2, Mixed, V1):
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
            return hierarchy, refused
        refused.append(f"cgroup {make.kind}: no memory controller")
        # Closed at once: the next one may use the same directory.
        hierarchy.close()
        second = second or make
    return (NoCgroup() if second is None else second(instance)), refused


def _switch_on(parent: str, controllers: list[str]) -> None:
    """Switch controllers on for the groups below `parent`. Raises OSError."""
    # The root group may have processes; it alone has no cgroup.type. In any other group processes
    # keep memory from being switched on (EBUSY). With cpu and pids alone it is worse: the group
    # becomes the root of a threaded subtree, and the groups below it cannot be used (EOPNOTSUPP).
    is_root = not os.path.exists(f"{parent}/cgroup.type")
    words = " ".join(f"+{controller}" for controller in controllers)
    for attempt in range(MOVE_ATTEMPTS):
        if not is_root:
            move_to_leaf(parent)
        try:
            write(f"{parent}/cgroup.subtree_control", words)
        except OSError as exc:
            if exc.errno != errno.EBUSY or attempt == MOVE_ATTEMPTS - 1:
                raise
        else:
            return


def move_to_leaf(parent: str) -> None:
    """Move every process of a group of cgroup2, the supervisor among them, into its `LEAF`."""
    leaf = f"{parent}/{LEAF}"
    try:
        os.mkdir(leaf, 0o755)
    except FileExistsError:
        pass  # another supervisor has made it
    for pid in read(f"{parent}/cgroup.procs").split():
        try:
            write(f"{leaf}/cgroup.procs", pid)
        except ProcessLookupError:
            continue  # it ended meanwhile


def places() -> dict[str, str]:
    """Return the directory of the supervisor's group by v1 controller, and in cgroup2 ("").

    If the supervisor was moved to a leaf, it is the directory of the group above.
    """
    own: dict[str, str] = {}
    with open("/proc/self/cgroup", encoding=sys.getfilesystemencoding()) as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for controller in controllers.split(","):
                own[controller] = path
    directories: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding=sys.getfilesystemencoding()) as file:
        for line in file:
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split()[:3]
            root, point = fields.split()[3:5]
            names = {"cgroup2": [""], "cgroup": options.split(",")}.get(kind, [])
            for name in names:
                if name in own and name not in directories:
                    # In a container the mount may show a part of the hierarchy as the whole.
                    inside = own[name].removeprefix(root.rstrip("/")).strip("/")
                    directories[name] = os.path.join(point, inside).rstrip("/")
    if "" in directories:
        directories[""] = directories[""].removesuffix(f"/{LEAF}")
    return directories
