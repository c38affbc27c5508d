"""The limit poll: memory and /tmp of busy workers, if no cgroup or file system limits them.

Idle workers are not polled: they are frozen, and use what they used when they answered.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from miniλ.model import MB
from miniλ.sandbox import processes, tmp

if TYPE_CHECKING:
    from miniλ.worker.equipment import Equipment
    from miniλ.worker.worker import Worker

# Memory and OOM kills are polled at 10 Hz, /tmp, whose files are counted one by one, at 2 Hz.
POLL_SECONDS = 0.1
TMP_ROUNDS = 5


async def poll(equipment: Equipment, busy: set[Worker]) -> None:
    """Poll the busy workers, and end those above a limit, until there are no busy ones."""
    soft_memory = not equipment.limits["memory"].startswith("hard")
    soft_tmp = not equipment.limits["tmp"].startswith("hard")
    rounds = 0
    while busy:
        await asyncio.sleep(POLL_SECONDS)
        rounds += 1
        now = time.monotonic()
        running = [w for w in busy if w.state == "busy" and now - w.started > POLL_SECONDS]
        if soft_memory:
            await _poll_memory(running)
        else:
            for worker in running:
                worker.check_oom()
        if soft_tmp and rounds % TMP_ROUNDS == 0:
            await _poll_tmp(running)


async def _poll_memory(busy: list[Worker]) -> None:
    used = await asyncio.to_thread(processes.memory, [w.worker_id for w in busy])
    for worker in busy:
        worker.peak = max(worker.peak, used[worker.worker_id])
        if used[worker.worker_id] > worker.function.memory_size * MB:
            worker.fail_for_memory(used[worker.worker_id])


async def _poll_tmp(busy: list[Worker]) -> None:
    for worker in busy:
        assert worker.tmp_dir is not None
        used = await asyncio.to_thread(tmp.used, worker.tmp_dir.path)
        if used > worker.function.ephemeral_storage * MB:
            worker.fail_for_tmp(used)
