"""This module is the watch: what holds a limit where neither the kernel nor a file system does.

It looks at busy workers only: who is idle is frozen, and uses what it used when it answered.
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

WATCH_SECONDS = 0.1
WATCH_TMP_ROUNDS = 5


async def watch(equipment: Equipment, busy: set[Worker]) -> None:
    """Look after the busy workers until there are none."""
    soft_memory = not equipment.limits["memory"].startswith("hard")
    soft_tmp = not equipment.limits["tmp"].startswith("hard")
    rounds = 0
    while busy:
        await asyncio.sleep(WATCH_SECONDS)
        rounds += 1
        now = time.monotonic()
        running = [w for w in busy if w.state == "busy" and now - w.started > WATCH_SECONDS]
        if soft_memory:
            await _watch_memory(running)
        else:
            for worker in running:
                worker.check_oom()
        if soft_tmp and rounds % WATCH_TMP_ROUNDS == 0:
            await _watch_tmp(running)


async def _watch_memory(busy: list[Worker]) -> None:
    used = await asyncio.to_thread(processes.memory, [w.worker_id for w in busy])
    for worker in busy:
        worker.peak = max(worker.peak, used[worker.worker_id])
        if used[worker.worker_id] > worker.function.memory_size * MB:
            worker.fail_for_memory(used[worker.worker_id])


async def _watch_tmp(busy: list[Worker]) -> None:
    for worker in busy:
        assert worker.tmp_dir is not None
        used = await asyncio.to_thread(tmp.used, worker.tmp_dir.path)
        if used > worker.function.ephemeral_storage * MB:
            worker.fail_for_tmp(used)
