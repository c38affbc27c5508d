"""Sandbox: what is around a worker, and how the worker gets into it.

Rule 1: all of this room is standard library only, and without asyncio (pyproject.toml, import
contract "The far side of fork knows the standard library only"). Most of it runs in the zygote, in
each Python from 3.9 that a function asks for; levels, hierarchies, volumes and tmp run in the
supervisor.

Rule 2: a limit that the host cannot enforce is a line in every report, never a silent omission.
`probe` tries namespaces, users, Landlock and seccomp; `hierarchies` and `volumes` try their own;
`levels` names what is missing.

Theory of operation: what all workers share is prepared by `stand_by`, in a child that is forked
before it is known which worker it will be. The supervisor leases what one worker needs (a cgroup, a
/tmp, a user) and sends it to the zygote as a `Sandbox`; the standby child calls `enter` with it
before it touches code of the function. Each mechanism is one file. A mechanism that is switched
off, or that the host lacks, is an empty value: landlock=0, user=None.
"""

# Reading order:
#
#     probe, levels                            which mechanisms work here; what holds how hard
#     start, zygote_main                       the process that forks workers
#     namespaces                               root directory, pids, mounts
#     landlock, seccomp, users, rlimits        what a process may do
#     processes                                how processes are found and ended without a cgroup
#     cgroups, hierarchies                     memory, CPU and process limits of a process tree
#     tmp, volumes                             the private /tmp: a directory, or a file system
#
# This is a comment because docstrings stay in the memory of the zygote.

from __future__ import annotations

import ctypes
import gc
import os
from typing import TYPE_CHECKING, NamedTuple

from miniλ.sandbox import cgroups, landlock, namespaces, processes, rlimits, seccomp, users

if TYPE_CHECKING:
    from miniλ.sandbox.namespaces import WorkerNamespaces

# The descriptors of a worker besides 0, 1 and 2: see workers/PROTOCOL.md.
REQUEST_FD = 3
ANSWER_FD = 4

# What a worker reads besides its code, if no mount namespace hides the rest: the same paths that
# it would find in one.
_READABLE = (*namespaces.SYSTEM, *(f"/etc/{name}" for name in namespaces.ETC), "/proc")


class Isolation(NamedTuple):
    """The mechanisms around every worker of a zygote.

    `namespaces` is "" for none, "root", or "user" for those inside a user namespace; `landlock` is
    the ABI, 0 for none; `root` is a directory to mount the workers' root file system on.
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


class Descriptors(NamedTuple):
    """The descriptors that come with a Sandbox: three pipes, and files that the zygote opens.

    `procs_files` are the cgroup.procs files of the worker's cgroup; `mounts` are detached mounts,
    in the order of `mount_table`, none without namespaces.
    """

    request: int
    answer: int
    log: int
    procs_files: list[int]
    mounts: list[int]


class Preparation(NamedTuple):
    """What `stand_by` has prepared in a child for `enter` to finish."""

    isolation: Isolation
    ruleset: landlock.Ruleset | None
    program: bytes | None


def keep_pages_shared() -> None:
    """Keep workers from copying the zygote's memory; called once, last, in the zygote.

    A page that is only read exists once for all workers. So the collector must not write to the
    objects that exist now, and freed memory goes back to the kernel.
    """
    # ctypes makes the object for a function of libc at its first use.
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
    isolation: Isolation, spaces: WorkerNamespaces | None, runtime: list[str], program: bytes | None
) -> Preparation:
    """Prepare a forked child as far as all workers are alike; `enter` does the rest.

    `runtime` are the directories of the interpreter and of the workers' own programs, `program`
    is the seccomp filter. Raises OSError.
    """
    os.setsid()
    processes.die_with_parent()
    os.umask(0o077)
    if spaces is not None:
        spaces.join()
    users.drop_bounding_set()
    ruleset = None
    if isolation.landlock:
        ruleset = landlock.Ruleset(isolation.landlock)
        # The workers' root file system holds only what a worker may read.
        for path in ("/",) if spaces is not None else (*_READABLE, *runtime):
            ruleset.allow_reading(path)
        for name in namespaces.DEVICES:
            ruleset.allow_writing(f"/dev/{name}")
    return Preparation(isolation, ruleset, program)


def mount_table(sandbox: Sandbox) -> list[tuple[str, str, bool]]:
    """Return the mounts of a worker that has namespaces: source, target, whether read-only.

    /tmp is the first, because another mount may lie inside it.
    """
    mounts = [(sandbox.tmp, namespaces.TMP, False), (sandbox.code, namespaces.TASK_ROOT, True)]
    if sandbox.layers:
        mounts.append((sandbox.layers, namespaces.LAYERS, True))
    return mounts + [(path, path, True) for path in sandbox.visible]


def enter(preparation: Preparation, sandbox: Sandbox, descriptors: Descriptors) -> None:
    """Become the worker. Runs in the forked child, before any code of the function.

    The order matters. The mark comes first, so that a sweep finds it from here on. Joining the
    cgroup and mounting need rights that the change of user gives up; PDEATHSIG comes after that
    change, which clears it silently. Landlock forbids mounts, so it follows them; seccomp comes
    after everything that needs a call it forbids. Descriptors are last: every step above may open
    some.

    Raises OSError if a step fails: the caller reports it and exits.
    """
    isolation = preparation.isolation
    processes.mark(sandbox.worker_id)
    cgroups.join(descriptors.procs_files)
    if isolation.namespaces:
        _attach_mounts(sandbox, descriptors.mounts)
    if not sandbox.network:
        namespaces.unshare_network()
    if isolation.namespaces == "user":
        namespaces.enter_user_namespace()  # where RLIMIT_NPROC counts this worker's alone
        users.drop_bounding_set()
    rlimits.apply(sandbox.data_bytes, sandbox.file_bytes, sandbox.descriptors, sandbox.processes)
    if sandbox.user is not None:
        users.become(sandbox.user)
    users.drop_capabilities()
    processes.die_with_parent()
    if preparation.ruleset is not None:
        _enforce_landlock(preparation.ruleset, sandbox, isolation)
    if preparation.program is not None:
        seccomp.install(preparation.program)
    _arrange_descriptors(descriptors.request, descriptors.answer, descriptors.log)


def _attach_mounts(sandbox: Sandbox, mounts: list[int]) -> None:
    """Attach the mounts of this worker alone."""
    for descriptor, (_, target, _) in zip(mounts, mount_table(sandbox)):  # noqa: B905 - Python 3.9
        # The zygote has made a mount point for each, except inside /tmp, which is new.
        if namespaces.is_within(target, namespaces.TMP) and target != namespaces.TMP:
            before = os.umask(0o022)
            os.makedirs(target, 0o755, exist_ok=True)
            os.umask(before)
        namespaces.attach(descriptor, target)
    if sandbox.user is not None:
        os.chown(namespaces.TMP, sandbox.user, sandbox.user)


def _enforce_landlock(ruleset: landlock.Ruleset, sandbox: Sandbox, isolation: Isolation) -> None:
    """Confine the worker: it reads its code, writes its /tmp, and opens no other file."""
    if not isolation.namespaces:
        for path in (sandbox.code, *sandbox.visible):
            ruleset.allow_reading(path)
        if sandbox.layers:
            ruleset.allow_reading(sandbox.layers)
    ruleset.allow_writing(namespaces.TMP if isolation.namespaces else sandbox.tmp)
    ruleset.enforce()


def _arrange_descriptors(request: int, answer: int, log: int) -> None:
    """Put the three pipes at the protocol's numbers and close every other descriptor.

    The pipes come from the zygote with numbers above the protocol's own, so no dup2 below
    can hit one that is still needed.
    """
    os.dup2(request, REQUEST_FD, inheritable=False)
    os.dup2(answer, ANSWER_FD, inheritable=False)
    os.dup2(log, 1)
    os.dup2(log, 2)
    processes.close_from(ANSWER_FD + 1)
