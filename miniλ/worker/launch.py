"""The launch of a worker's process: three pipes, a sandbox, and a fork by the zygote."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from miniλ.model import FunctionConfiguration
    from miniλ.worker.equipment import Equipment
    from miniλ.worker.tmp_dirs import TmpDir
    from miniλ.worker.zygote import Forked, Zygote


class Ends(NamedTuple):
    """One side's ends of a worker's pipes: requests, answers, and what it prints."""

    request: int
    answer: int
    log: int


def pipes() -> tuple[Ends, Ends]:
    """Return the supervisor's and the worker's ends of new pipes."""
    request, our_request = os.pipe2(os.O_CLOEXEC)
    our_answer, answer = os.pipe2(os.O_CLOEXEC)
    our_log, log = os.pipe2(os.O_CLOEXEC)
    return Ends(our_request, our_answer, our_log), Ends(request, answer, log)


async def fork(
    zygote: Zygote,
    equipment: Equipment,
    function: FunctionConfiguration,
    worker_id: str,
    group: tuple[str, ...],
    tmp_dir: TmpDir,
    ends: Ends,
) -> Forked:
    """Have a zygote fork a worker with its ends of the pipes, which are closed here after.

    `group` is the key of its cgroup. Raises `ServiceError` as `Zygote.fork`, and OSError.
    """
    descriptors = [*ends]
    try:
        mount = tmp_dir.open_mount() if equipment.choice.isolation.namespaces else None
        if mount is not None:
            descriptors.append(mount)
        sandbox = equipment.sandbox(function, worker_id, group, tmp_dir.path, tmp_dir.user)
        return await zygote.fork(sandbox, descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
