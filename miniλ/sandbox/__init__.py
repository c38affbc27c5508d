"""This module is the sandbox: what is around a worker, as data, and one function that enters it.

Rule 1: this package is the far side of fork. It runs in the zygote, in whatever Python from
3.9 the function asks for, so it knows the standard library only and imports neither asyncio
nor anything that is not ours.

Rule 2: what the host cannot enforce is a line in every report, never a silent omission: `levels`
probes once, and everybody else is told.

Theory of operation: `Isolation` is the same for every worker of a zygote, and is prepared ahead, by
`stand_by`, before it is known which worker it will be. A `Sandbox` is one worker's: the supervisor
leases what it needs (a cgroup, a /tmp, a user) and sends it to the zygote, and the child that
stands by calls `enter` before it touches anything of the function's. Every mechanism is a file of
its own beside this one; one that is not wanted or cannot be had here is a field that says so.
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import TYPE_CHECKING, NamedTuple

from miniλ.sandbox import cgroups, landlock, namespaces, processes, rlimits, seccomp, users

if TYPE_CHECKING:
    from miniλ.sandbox.namespaces import Box

# The descriptors of a worker besides 0, 1 and 2: see workers/PROTOCOL.md.
REQUEST_FD = 3
ANSWER_FD = 4

# What a worker reads besides its code, where there are no namespaces to hide the rest: the same as
# it finds in them.
_READABLE = (*namespaces.SYSTEM, *(f"/etc/{name}" for name in namespaces.ETC), "/proc")


class Isolation(NamedTuple):
    """What is around every worker of a zygote.

    `namespaces` is "" for none, "root", or "user" for those inside a user namespace; `landlock` is
    the ABI, 0 for none; `root` a directory to put the workers' root together on.
    """

    namespaces: str = ""
    landlock: int = 0
    seccomp: bool = False
    root: str = ""


class Sandbox(NamedTuple):
    """What is around one worker. Sizes are bytes; `group` rebuilds its cgroup on this side.

    `code` is the directory of its function, `layers` of its layers, "" for none; `visible` are
    others that it may read. `user` is None for the supervisor's own. `network` is whether it shares
    the host's.
    """

    worker_id: str
    group: tuple[str, ...]
    code: str
    tmp: str
    tmp_bytes: int
    data_bytes: int
    file_bytes: int | None
    descriptors: int
    processes: int | None
    visible: tuple[str, ...] = ()
    user: int | None = None
    network: bool = True
    layers: str = ""


class Handed(NamedTuple):
    """The descriptors that come with a Sandbox: three pipes, and what only the zygote can open.

    `joins` are the files of cgroups to join by; `mounts` what is to be attached, in the order of
    `places`. Without namespaces there are none.
    """

    request: int
    answer: int
    log: int
    joins: list[int]
    mounts: list[int]


class Standing(NamedTuple):
    """A worker that stands by: its isolation, prepared as far as all workers share it."""

    isolation: Isolation
    ruleset: landlock.Ruleset | None
    program: bytes | None


def settle_memory() -> None:
    """Do, once and last in the zygote, what keeps workers from copying what they share with it.

    A page that all only read is there once, however many they are. So the collector must not write
    to what exists now, and what was freed goes back to the kernel.
    """
    # A function of libc is an object that is made as it is first asked for.
    for module, names in ((users, ("prctl", "capset")), (namespaces, ("setns", "syscall"))):
        for name in names:
            getattr(module._libc, name)  # noqa: SLF001 - of this package
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # musl has none
        libc.malloc_trim(0)
    gc.disable()
    gc.freeze()


def stand_by(
    isolation: Isolation, box: Box | None, runtime: list[str], program: bytes | None
) -> Standing:
    """Do what every worker does, before it is known which: after fork, ahead of `enter`.

    `runtime` are the directories of the interpreter and of the workers' own programs, `program`
    is the seccomp filter.
    """
    os.setsid()
    processes.die_with_parent()
    os.umask(0o077)
    if box is not None:
        box.join()
    users.forbid_bounds()
    ruleset = None
    if isolation.landlock:
        ruleset = landlock.Ruleset(isolation.landlock)
        # In a root of its own a worker may read what is there: that is what it is made of.
        for path in ("/",) if box is not None else (*_READABLE, *runtime):
            ruleset.allow_reading(path)
        for name in namespaces.DEVICES:
            ruleset.allow_writing(f"/dev/{name}")
    return Standing(isolation, ruleset, program)


def places(sandbox: Sandbox) -> list[tuple[str, str, bool]]:
    """Return the mounts of a worker that has namespaces: source, target, whether read-only.

    /tmp is the first: one of the others may be inside it.
    """
    own = [(sandbox.tmp, namespaces.TMP, False), (sandbox.code, namespaces.TASK_ROOT, True)]
    if sandbox.layers:
        own.append((sandbox.layers, namespaces.LAYERS, True))
    return own + [(path, path, True) for path in sandbox.visible]


def enter(standing: Standing, sandbox: Sandbox, handed: Handed) -> None:
    """Become the worker. Runs in the forked child, before any code of the function.

    The order matters. The mark comes first, so that a sweep finds us from here on. Joining the
    cgroup and mounting need rights that the change of user gives up; PDEATHSIG comes after that
    change, which clears it silently. Landlock forbids mounts, so it follows them; seccomp comes
    after everything that needs a call it forbids. Descriptors are last: every step above may open
    some.

    Raises OSError where a step fails: the caller reports it and leaves.
    """
    isolation = standing.isolation
    processes.mark(sandbox.worker_id)
    cgroups.join(handed.joins)
    if isolation.namespaces:
        _attach(sandbox, handed.mounts)
    if not sandbox.network:
        namespaces.take_network_away()
    if isolation.namespaces == "user":
        namespaces.enter_user_namespace()  # where RLIMIT_NPROC counts this worker's alone
        users.forbid_bounds()
    rlimits.apply(sandbox.data_bytes, sandbox.file_bytes, sandbox.descriptors, sandbox.processes)
    if sandbox.user is not None:
        users.become(sandbox.user)
    users.drop_capabilities()
    processes.die_with_parent()
    if standing.ruleset is not None:
        _confine(standing.ruleset, sandbox, isolation)
    if standing.program is not None:
        seccomp.install(standing.program)
    _keep_only(handed.request, handed.answer, handed.log)


def _attach(sandbox: Sandbox, mounts: list[int]) -> None:
    """Mount what is this worker's own."""
    for descriptor, (_, target, _) in zip(mounts, places(sandbox)):  # noqa: B905 - Python 3.9
        # The zygote has made a place for each, but inside of /tmp, which is new.
        if namespaces.is_within(target, namespaces.TMP) and target != namespaces.TMP:
            before = os.umask(0o022)
            os.makedirs(target, 0o755, exist_ok=True)
            os.umask(before)
        namespaces.attach(descriptor, target)
    if sandbox.user is not None:
        os.chown(namespaces.TMP, sandbox.user, sandbox.user)


def _confine(ruleset: landlock.Ruleset, sandbox: Sandbox, isolation: Isolation) -> None:
    """Let the worker read its code and write its /tmp, and nothing else."""
    if not isolation.namespaces:
        for path in (sandbox.code, *sandbox.visible):
            ruleset.allow_reading(path)
        if sandbox.layers:
            ruleset.allow_reading(sandbox.layers)
    ruleset.allow_writing(namespaces.TMP if isolation.namespaces else sandbox.tmp)
    ruleset.enforce()


def _keep_only(request: int, answer: int, log: int) -> None:
    """Put the three pipes where the protocol has them and close everything else.

    The pipes come from the zygote with numbers above the protocol's own, so no dup2 below
    can hit one that is still needed.
    """
    os.dup2(request, REQUEST_FD, inheritable=False)
    os.dup2(answer, ANSWER_FD, inheritable=False)
    os.dup2(log, 1)
    os.dup2(log, 2)
    processes.close_from(ANSWER_FD + 1)
