"""One event loop for one command: what is open is closed before the process ends.

SIGTERM and SIGINT cancel the command, so that its supervisor stops its workers; the exit code is
then 128 plus the signal's number, as in a shell.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

from miniλ.cli.exit_codes import fail
from miniλ.errors import LambdaError
from miniλ.sync import new_loop

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run(work: Coroutine[Any, Any, int], stop: asyncio.Event | None = None) -> int:
    """Run a command's coroutine; return its exit code.

    With `stop`, the first signal sets that event and the command ends by itself; the second one
    cancels it.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()

        def end(task: asyncio.Future[int], number: int) -> None:
            if stop is None or stop.is_set():
                task.cancel(number)
            else:
                stop.set()

        async def until_signal() -> int:
            task = asyncio.ensure_future(work)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, end, task, number)
            return await task

        try:
            return runner.run(until_signal())
        except asyncio.CancelledError as exc:
            return 128 + int(exc.args[0] if exc.args else signal.SIGTERM)
        except LambdaError as exc:
            fail(exc)
