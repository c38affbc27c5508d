"""Tests of control groups without a kernel's: keys, quotas, files, the pool of spares."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import cgroups, hierarchies
from miniλ.sandbox.cgroups import (
    Group,
    NoGroup,
    V1Group,
    V2Group,
    nice,
    rebuild,
)
from miniλ.sandbox.hierarchies import Hierarchy, NoCgroup

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
GROUPS = [
    V2Group("/sys/fs/cgroup/minilambda-x/g1"),
    V1Group("/c/memory/g1", "/c/cpu/g1", "/c/pids/g1", "/c/freezer/g1"),
    V1Group("", "/c/cpu/g1", "", ""),
    NoGroup("w1"),
]


class Busy(Group):
    """A group that is busy, like one with a process that does not die, while `is_busy` is set."""

    def __init__(self, number: int) -> None:
        self.key = ("busy", f"/{number}")
        self.is_busy = False
        self.recycled = 0
        self.removed = False

    def recycle(self) -> None:
        """Count; a busy group raises EBUSY."""
        if self.is_busy:
            raise OSError(errno.EBUSY, "busy")
        self.recycled += 1

    def remove(self) -> None:
        """Record it; a busy group raises EBUSY."""
        if self.is_busy:
            raise OSError(errno.EBUSY, "busy")
        self.removed = True


class Busies(Hierarchy):
    """A hierarchy of such groups, with two spares."""

    spares = 2

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def make(self, worker_id: str) -> Group:  # noqa: ARG002 - the signature of every hierarchy
        """Make another group."""
        self.made += 1
        return Busy(self.made)


# Niceness


def test_a_whole_cpu_needs_no_niceness() -> None:
    """One CPU or more is not limited."""
    assert [nice(1.0), nice(1.5), nice(6.0)] == [0, 0, 0]


def test_each_step_is_a_quarter() -> None:
    """sched(7): the weights of two neighbours differ by a factor of 1.25."""
    assert [nice(0.8), nice(0.41), nice(0.11), nice(0.09)] == [1, 4, 10, 11]


@pytest.mark.parametrize("cpus", [0.0, 0.0001, 1e-300, -1.0])
def test_niceness_ends_at_nineteen(cpus: float) -> None:
    """There is no lower priority, and the search for one ends."""
    assert nice(cpus) == 19


def test_more_cpu_is_never_nicer() -> None:
    """From 128 MB to 10 GB the niceness falls, and its weight is no more than the CPU."""
    shares = [memory / 1769 for memory in range(128, 10241, 64)]
    levels = [nice(cpus) for cpus in shares]

    assert sorted(levels, reverse=True) == levels
    for cpus, level in zip(shares, levels, strict=True):
        assert math.pow(1.25, -level) <= max(cpus, 1.0)
        assert level == 0 or math.pow(1.25, -level) <= cpus * 1.000001


# Keys


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "-".join(group.key[:2]))
def test_a_group_is_rebuilt_from_its_key(group: Group) -> None:
    """The far side of fork needs only the key, also after a round through JSON."""
    for key in (group.key, tuple(json.loads(json.dumps(group.key)))):
        again = rebuild(key)

        assert type(group) is type(again)
        assert group.key == again.key


def test_a_group_of_v1_has_each_directory_once() -> None:
    """Cpu and cpuacct may be one mount: a directory is joined, made and removed once."""
    group = V1Group("/c/memory/g1", "/c/all/g1", "/c/all/g1", "")

    assert group.paths == ["/c/memory/g1", "/c/all/g1"]


def test_the_base_group_does_nothing() -> None:
    """Every method of a Group without a cgroup can be called, and has no effect."""
    group = Group()
    for verb in (
        group.procs_files,
        group.freeze,
        group.thaw,
        group.kill,
        group.recycle,
        group.remove,
    ):
        verb()
    group.limit(1, 1)
    group.throttle(0.5)

    assert (group.peak(), group.oom_kills(), group.members()) == (0, 0, [])


def test_signals_need_a_leader() -> None:
    """A group without its first process sends no signal: to pid 0 would be to ourselves."""
    group = NoGroup("w1")

    group.freeze()
    group.thaw()
    group.throttle(0.1)

    assert group.leader == 0


def test_a_leader_that_is_gone_is_no_error() -> None:
    """Its pid is above any that the kernel gives out."""
    group = NoGroup("w1")
    group.leader = 2**22 + 1

    group.throttle(0.1)
    group.thaw()
    group.freeze()


# Control files, in plain directories


def test_limits_of_v2_are_written_to_its_files(tmp_path: Path) -> None:
    """Memory with no swap and the whole group killed at once, tasks, and the CPU quota."""
    for name in (
        "memory.max",
        "memory.oom.group",
        "memory.swap.max",
        "pids.max",
        "cpu.max",
    ):
        (tmp_path / name).touch()
    group = V2Group(str(tmp_path))

    group.limit(134_217_728, 1024)
    group.throttle(0.5)

    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert texts == {
        "memory.max": "134217728",
        "memory.oom.group": "1",
        "memory.swap.max": "0",
        "pids.max": "1024",
        "cpu.max": "50000 100000",
    }


def test_a_group_of_v2_without_controllers_has_no_limits(tmp_path: Path) -> None:
    """No file is written or made: `limits` of the hierarchy reports them as missing."""
    group = V2Group(str(tmp_path))

    group.limit(134_217_728, 1024)
    group.throttle(0.5)

    assert list(tmp_path.iterdir()) == []
    assert (group.peak(), group.oom_kills()) == (0, 0)


@pytest.mark.parametrize(
    ("cpus", "quota"),
    [(None, "max"), (0.0, "1000"), (0.001, "1000"), (128 / 1769, "7235"), (1.0, "100000"),
     (10240 / 1769, "578858")],
)  # fmt: skip
def test_a_quota_is_at_least_a_millisecond(cpus: float | None, quota: str) -> None:
    """The kernel refuses less; None is no limit."""
    assert quota == cgroups._quota(cpus, "max")


def test_limits_of_v1_lift_the_swap_limit_first(tmp_path: Path) -> None:
    """The limit of memory and swap together may never be below that of memory: both get it."""
    for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        (tmp_path / name).touch()
    group = V1Group(str(tmp_path), "", "", "")

    group.limit(1000, 5)

    assert (tmp_path / "memory.limit_in_bytes").read_text() == "1000"
    assert (tmp_path / "memory.memsw.limit_in_bytes").read_text()[:4] == "1000"


def test_oom_kills_are_read_by_name(tmp_path: Path) -> None:
    """`oom_kill` is not `oom`, nor `oom_group_kill`."""
    (tmp_path / "memory.events").write_text("low 0\noom 5\noom_kill 3\noom_group_kill 1\n")

    assert V2Group(str(tmp_path)).oom_kills() == 3


def test_a_group_without_peak_reads_nothing(tmp_path: Path) -> None:
    """memory.peak came with kernel 5.19; before it, the peak is 0."""
    group = V2Group(str(tmp_path))

    assert group.peak() == 0
    assert group.peak() == 0


def test_a_recycled_group_of_v2_forgets_its_peak(tmp_path: Path) -> None:
    """Also one that was never read: the next worker must not report the peak of the last."""
    (tmp_path / "memory.peak").write_text("104857600\n")
    (tmp_path / "cgroup.freeze").write_text("0")
    group = V2Group(str(tmp_path))

    group.recycle()
    try:
        text = (tmp_path / "memory.peak").read_text()
    finally:
        if group._peak is not None and group._peak >= 0:
            os.close(group._peak)

    assert text.startswith("reset")


def test_a_read_only_peak_is_read(tmp_path: Path) -> None:
    """Before kernel 6.12 the peak cannot be reset: it is read, and its group is not reused."""
    # The mode of a file in sysfs binds root too, as that of a file in cgroup2 binds other users.
    source = Path("/sys/kernel/fscaps")
    (tmp_path / "memory.peak").symlink_to(source)
    group = V2Group(str(tmp_path))

    assert group.peak() == int(source.read_text()) == 1
    assert group._peak is not None
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            group.recycle()
    finally:
        os.close(group._peak)


def test_a_refused_write_says_which_file_and_value(tmp_path: Path) -> None:
    """An operator reads the path, and the value that was refused."""
    with pytest.raises(OSError, match=r"cgroup\.freeze"):
        V2Group(str(tmp_path)).freeze()
    with pytest.raises(OSError, match=r"cannot write '1'.*/dev/full"):
        cgroups.write("/dev/full", "1")


# Hierarchies


def test_spares_are_made_ahead_up_to_their_number() -> None:
    """One a call, so that the event loop is blocked for one mkdir only."""
    hierarchy = Busies()

    assert [hierarchy.make_ahead() for _ in range(3)] == [True, False, False]
    assert hierarchy.made == 2


def test_a_lease_takes_a_spare_before_it_makes_one() -> None:
    """A cold start finds its group ready."""
    hierarchy = Busies()
    hierarchy.make_ahead()

    leased = [hierarchy.lease("w1"), hierarchy.lease("w2")]

    assert [group.key for group in leased] == [("busy", "/1"), ("busy", "/2")]


def test_a_group_that_is_given_back_is_recycled() -> None:
    """It is reset, and leased again."""
    hierarchy = Busies()
    group = hierarchy.lease("w1")
    assert isinstance(group, Busy)

    hierarchy.give_back(group)

    assert group.recycled == 1
    assert hierarchy.lease("w2") is group


def test_a_group_beyond_the_spares_is_removed() -> None:
    """With enough spares, a group that is given back is removed."""
    hierarchy = Busies()
    group = hierarchy.lease("w1")
    assert isinstance(group, Busy)
    while hierarchy.make_ahead():
        pass

    hierarchy.give_back(group)

    assert group.removed


def test_a_busy_group_is_quarantined_and_removed_later() -> None:
    """EBUSY is a process in D state: the group is not leased, and its removal is retried."""
    hierarchy = Busies()
    group = hierarchy.lease("w1")
    assert isinstance(group, Busy)
    group.is_busy = True

    hierarchy.give_back(group)
    assert [group] == hierarchy.collect()
    assert hierarchy.lease("w2") is not group

    group.is_busy = False
    assert hierarchy.collect() == []
    assert group.removed


def test_close_returns_the_busy_paths() -> None:
    """Spares are removed; the path of a busy group is returned."""
    hierarchy = Busies()
    group = hierarchy.lease("w1")
    assert isinstance(group, Busy)
    group.is_busy = True
    hierarchy.give_back(group)
    hierarchy.make_ahead()
    (spare,) = hierarchy._spare
    assert isinstance(spare, Busy)

    assert hierarchy.close() == ["/1"]
    assert spare.removed


def test_no_cgroup_is_a_choice() -> None:
    """It has no spares and no directories, and each of its limits is soft or none."""
    hierarchy, reasons = hierarchies.open_hierarchy("none", "x")

    assert isinstance(hierarchy, NoCgroup)
    assert reasons == []
    assert hierarchy.make_ahead() is False
    assert {"memory", "cpu", "processes", "freeze", "kill"} == hierarchy.limits.keys()
    assert all(limit.startswith(("soft: ", "none: ")) for limit in hierarchy.limits.values())
    assert hierarchy.close() == []


# Joins a group, and answers each line with the directory of its own group.
MEMBER = """
import sys
from miniλ.sandbox import cgroups, hierarchies
cgroups.write(sys.argv[1] + "/cgroup.procs", "0")
for line in sys.stdin:
    print(hierarchies.places()[""], flush=True)
"""


@pytest.fixture
def group() -> Iterator[Path]:
    """Yield a group of this host's cgroup2, without processes."""
    path = Path(f"{hierarchies.places().get('', '/nonexistent')}/minilambda-{os.getpid()}-test")
    try:
        path.mkdir()
    except OSError as exc:
        pytest.skip(f"cgroup2 cannot be used here: {exc}")
    yield path
    for inner in path.glob("*/"):
        inner.rmdir()
    path.rmdir()


def test_processes_move_to_a_leaf_once(group: Path) -> None:
    """All processes of a group move to its leaf; `places` still returns the group itself."""
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        for _ in range(2)
    ]

    def own_groups() -> list[str]:
        answers = []
        for member in members:
            assert member.stdin is not None and member.stdout is not None
            member.stdin.write("where\n")
            member.stdin.flush()
            answers.append(member.stdout.readline().rstrip())
        return answers

    def inside(path: Path) -> set[int]:
        return {int(pid) for pid in (path / "cgroup.procs").read_text().split()}

    pids = {member.pid for member in members}
    try:
        assert own_groups() == [str(group)] * 2
        assert inside(group) == pids

        for _ in range(2):
            hierarchies.move_to_leaf(str(group))

            assert inside(group) == set()
            assert inside(group / hierarchies.LEAF) == pids
            assert own_groups() == [str(group)] * 2
    finally:
        for member in members:
            member.communicate()


@pytest.mark.parametrize("name", ["minilambda-other", "etc", "minilambda-", "xminilambda-me"])
def test_a_sweep_touches_only_its_own_name(tmp_path: Path, name: str) -> None:
    """The path comes from a file, which may have been changed."""
    group = tmp_path / name / "g1"
    group.mkdir(parents=True)

    assert cgroups.sweep([str(tmp_path / name)], "me") == []
    assert group.is_dir()


def test_a_sweep_of_missing_groups_does_nothing(tmp_path: Path) -> None:
    """A reboot has removed them."""
    assert cgroups.sweep([str(tmp_path / "minilambda-me")], "me") == []
