"""The launch of a worker's process: three pipes, a sandbox, and a fork by the zygote."""

from __future__ import annotations

import contextlib
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

    def close(self) -> None:
        """Close all three."""
        for descriptor in self:
            os.close(descriptor)


def pipes() -> tuple[Ends, Ends]:
    """Return the supervisor's and the worker's ends of new pipes: all, or OSError and none."""
    with contextlib.ExitStack() as undo:
        made = []
        for _ in Ends._fields:
            pair = os.pipe2(os.O_CLOEXEC)
            for descriptor in pair:
                undo.callback(os.close, descriptor)
            made.append(pair)
        undo.pop_all()
    (request, our_request), (our_answer, answer), (our_log, log) = made
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
    """Have a zygote fork a worker with its ends of the pipes; the caller closes these.

    `group` is the key of its cgroup. Raises `ServiceError` as `Zygote.fork`, and OSError.
    """
    sandbox = equipment.sandbox(function, worker_id, group, tmp_dir.path, tmp_dir.user)
    mount = tmp_dir.open_mount() if equipment.choice.isolation.namespaces else None
    try:
        return await zygote.fork(sandbox, [*ends] if mount is None else [*ends, mount])
    finally:
        if mount is not None:
            os.close(mount)
