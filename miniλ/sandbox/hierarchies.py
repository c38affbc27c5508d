"""This module is cgroup hierarchies: which one this host lets us use, and where groups come from.

`V2` (cgroup2), `Mixed` (v1 with cgroup2 beside it), `V1` (one hierarchy per controller) and
`NoCgroup` have the same verbs and say in `limits` what they hold. `open_hierarchy` chooses, by
doing: a directory is made, controllers are switched on, and what is refused is why another one is
taken.

Rule: groups are made ahead and recycled. Making one costs as much as a fork.

Kernel fact (cgroup-v2.rst, "No Internal Process Constraint"): a group of cgroup2 whose controllers
are switched on for those below it has no processes of its own. Where a subtree is delegated to us
we are in just that group, with whoever started us and whom we started: all go to a leaf in it,
`LEAF`, beside the groups of workers. It stays, as they stay in it, until the subtree goes.
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
# Who forks meanwhile is found by the next look.
LOOKS = 100


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
        there = set(read(f"{self.parent}/cgroup.controllers").split())
        if wanted & there - here:
            # Only who owns a delegated subtree may: elsewhere this is EACCES, and what is missing
            # is reported as not held.
            with contextlib.suppress(OSError):
                _switch_on(self.parent, sorted(wanted & there))
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
            rmdir(self.path)
        return left


class V1(Hierarchy):
    """cgroup v1: memory, cpu, pids and freezer, each where we are allowed to make groups."""

    kind = "v1"

    # By the names of v1's controllers; "" is cgroup2.
    wanted: tuple[str, ...] = ("memory", "cpu", "pids", "freezer")

    def __init__(self, instance: str) -> None:
        super().__init__()
        found = places()
        self.paths: dict[str, str] = {}
        for controller in self.wanted:
            if controller in found and os.access(found[controller], os.W_OK):
                self.paths[controller] = f"{found[controller]}/minilambda-{instance}"
        if not self.paths.keys() - {""}:
            msg = "no cgroup v1 controller that we may write"
            raise OSError(msg)
        self.directories = tuple(dict.fromkeys(self.paths.values()))
        self._count = 0
        made: list[str] = []
        try:
            for path in self.directories:
                os.mkdir(path, 0o755)
                made.append(path)
        except OSError:
            for path in made:
                os.rmdir(path)
            raise
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
                rmdir(path)
        return left


class Mixed(V1):
    """Limits by cgroup v1, kill and freeze by the cgroup2 beside it, which has no controllers."""

    kind = "mixed"
    wanted = ("memory", "cpu", "pids", "")

    def __init__(self, instance: str) -> None:
        super().__init__(instance)
        if not os.path.exists(f"{self.paths.get('', '/nonexistent')}/cgroup.kill"):
            for path in self.directories:
                os.rmdir(path)
            msg = "no cgroup2 beside v1 that we may write and that can kill"
            raise OSError(msg)
        self.limits["freeze"] = "hard: cgroup2 cgroup.freeze"
        self.limits["kill"] = "hard: cgroup2 cgroup.kill"

    def make(self, worker_id: str) -> Group:
        del worker_id  # a group outlives its worker: it is named by number
        self._count += 1
        memory, cpu, pids, unified = (
            f"{self.paths[name]}/g{self._count}" if name in self.paths else ""
            for name in self.wanted
        )
        group = MixedGroup(memory, cpu, pids, unified)
        group.create()
        return group


def open_hierarchy(choice: str, instance: str) -> tuple[Hierarchy, list[str]]:
    """Return the hierarchy for `choice`, and why better ones were not it.

    `choice` is auto, v2, mixed, v1 or none.

    "auto" takes the first whose memory limit is hard; then one that holds anything at all; then
    none. Raises OSError where a named choice cannot be had.
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
        # Closed at once: the next one may want the same directory.
        hierarchy.close()
        second = second or make
    return (NoCgroup() if second is None else second(instance)), refused


def _switch_on(parent: str, controllers: list[str]) -> None:
    """Switch controllers on for the groups below `parent`. Raises OSError."""
    # The root of all may have processes, and is the one that has no type. Elsewhere they would be
    # in the way of memory (EBUSY), and with cpu and pids alone it is worse: the group becomes the
    # root of a threaded subtree, and those below it can be used for nothing (EOPNOTSUPP).
    is_root = not os.path.exists(f"{parent}/cgroup.type")
    words = " ".join(f"+{controller}" for controller in controllers)
    for attempt in range(LOOKS):
        if not is_root:
            step_aside(parent)
        try:
            write(f"{parent}/cgroup.subtree_control", words)
        except OSError as exc:
            if exc.errno != errno.EBUSY or attempt == LOOKS - 1:
                raise
        else:
            return


def step_aside(parent: str) -> None:
    """Move every process of a group of cgroup2 into a leaf of it: ourselves, and who is beside."""
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
    """Return our own directory in each v1 hierarchy, by controller, and under "" in cgroup2.

    Whoever has stepped aside belongs where it came from.
    """
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
    if "" in found:
        found[""] = found[""].removesuffix(f"/{LEAF}")
    return found
