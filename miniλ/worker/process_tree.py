"""This module is a tree: all processes of one worker, and their end.

The first one is known by its pidfd, which cannot be anybody else's; those that it made, daemons
among them, by the group that they are in.

Rule: a SIGKILL takes effect when the kernel gets to it. A task in D state, on a file system that
hangs, may take for ever: after `BURIAL_TIMEOUT` it has `outlived`, and nobody waits for it any more
but who owns what it holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from miniλ import journal
from miniλ.sandbox.cgroups import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.journal import Fact

BURIAL_TIMEOUT = 5.0


class ProcessTree:
    """The processes of one worker. `gone` is done when the first has exited."""

    __slots__ = ("_loop", "_pidfd", "_record", "_timer", "_worker", "gone", "group", "outlived")

    def __init__(self, worker: object, record: Callable[[Fact], None]) -> None:
        """`worker` is who they are of, in what is recorded."""
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._record = record
        self._pidfd = -1
        self._timer: asyncio.TimerHandle | None = None
        self.group = Group()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.outlived: asyncio.Future[None] = self._loop.create_future()

    def take(self, pid: int, pidfd: int, on_exit: Callable[[], None]) -> None:
        """Begin with the first process; the pidfd is ours from now on."""
        self.group.leader = pid
        self._pidfd = pidfd
        self._loop.add_reader(pidfd, self._on_exit, on_exit)

    def _on_exit(self, on_exit: Callable[[], None]) -> None:
        self._loop.remove_reader(self._pidfd)
        on_exit()
        if not self.gone.done():
            self.gone.set_result(None)

    def has_exited(self) -> bool:
        """Return whether the first process has exited, also if the loop does not know yet."""
        if self._pidfd < 0:
            return self.gone.done()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: int) -> None:
        """Send the first process a signal, if it is there."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kill every process: the first now, the rest once the loop has turned.

        By then the answer is out: without a cgroup it is a look through /proc.
        """
        if self.gone.done():
            return
        self.signal(signal.SIGKILL)
        self._loop.call_soon(self._kill_group)
        if self._timer is None:
            pids = [self.group.leader]
            self._timer = self._loop.call_later(BURIAL_TIMEOUT, self._outlive, pids)

    def _kill_group(self) -> None:
        if self.gone.done():
            return  # then `end` is at it
        try:
            self.group.kill()
        except OSError as exc:
            self._record(journal.Trouble(what=f"{self._worker!r}: kill: {exc}"))

    def _outlive(self, pids: list[int]) -> None:
        """Say that processes do not die. What they hold stays theirs until they do."""
        what = f"{self._worker!r}: processes {pids} do not die of SIGKILL; does a file system hang?"
        self._record(journal.Trouble(what=what))
        self.outlived.set_result(None)

    async def first_ended(self) -> None:
        """Wait for the end of the first process, or until it has outlived its SIGKILL."""
        await asyncio.wait((self.gone, self.outlived), return_when=asyncio.FIRST_COMPLETED)

    def look_away(self) -> None:
        """Wait for the first process no more."""
        self._loop.remove_reader(self._pidfd)
        if self._timer is not None:
            self._timer.cancel()

    async def end(self) -> bool:
        """Kill what the first process left behind (daemons, children) and wait until it is gone.

        Return whether it is: where the supervisor closes, what has outlived a SIGKILL is left.
        """
        task = asyncio.current_task()
        deadline = time.monotonic() + BURIAL_TIMEOUT
        pause, longest = 0.001, 0.1
        while pids := self.group.members():
            self.group.kill()
            if time.monotonic() > deadline and not self.outlived.done():
                self._outlive(pids)
            if self.outlived.done():
                if task is None or task.cancelling():
                    return False
                longest = 1.0
            # v1 tells nobody when a group becomes empty: this is the one place that looks.
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        return True

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self._pidfd)
        self._pidfd = -1
