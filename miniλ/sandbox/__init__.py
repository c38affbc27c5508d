"""This module is the sandbox: what is around a worker, as data, and one function that enters it.

Rule 1: this package is the far side of fork. It runs in the zygote, in whatever Python from
3.9 the function asks for, so it knows the standard library only and imports neither asyncio
nor anything that is not ours.

Rule 2: what the host cannot enforce is a line in `Sandbox.limits`, never a silent omission.

Theory of operation: the supervisor leases what a worker needs (a cgroup, a /tmp) and sends a
`Sandbox` to the zygote. The zygote forks, and the child calls `enter` before it touches
anything of the function's. Every mechanism is a file of its own beside this one.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from miniλ.sandbox import cgroups, processes, rlimits

# The descriptors of a worker besides 0, 1 and 2: see workers/PROTOCOL.md.
REQUEST_FD = 3
ANSWER_FD = 4


class Sandbox(NamedTuple):
    """What is around one worker. Sizes are bytes; `group` rebuilds its cgroup on this side."""

    worker_id: str
    group: tuple[str, ...]
    tmp: str
    data_bytes: int
    file_bytes: int
    descriptors: int
    processes: int | None


def stand_by() -> None:
    """Do what every worker does, before it is known which: after fork, ahead of `enter`."""
    os.setsid()
    processes.die_with_parent()
    os.umask(0o077)


def enter(sandbox: Sandbox, request: int, answer: int, log: int) -> None:
    """Become the worker. Runs in the forked child, before any code of the function.

    The order matters: the mark comes first, so that a sweep finds us from here on; the cgroup
    needs rights that later steps give up; namespaces, uid, Landlock and seccomp have their
    place between the cgroup and the limits, in that order, because each needs calls that the
    next forbids; descriptors last, because every step above may open some.

    Raises OSError where a step fails: the caller reports it and leaves.
    """
    processes.mark(sandbox.worker_id)
    cgroups.rebuild(sandbox.group).join()
    rlimits.apply(sandbox.data_bytes, sandbox.file_bytes, sandbox.descriptors, sandbox.processes)
    _keep_only(request, answer, log)


def _keep_only(request: int, answer: int, log: int) -> None:
    """Put the three pipes where the protocol has them and close everything else.

    The pipes come from the zygote with numbers above the protocol's own, so no dup2 below
    can hit one that is still needed.
    """
    os.dup2(request, REQUEST_FD, inheritable=False)
    os.dup2(answer, ANSWER_FD, inheritable=False)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # Not closerange: before Python 3.10 that is a system call per number, up to a million.
    for name in os.listdir("/proc/self/fd"):
        descriptor = int(name)
        if descriptor > ANSWER_FD:
            try:
                os.close(descriptor)
            except OSError:
                continue  # the listing's own descriptor is closed already
