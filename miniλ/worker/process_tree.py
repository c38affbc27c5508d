"""The process tree of one worker: how it is killed, and when it is gone.

The first process is known by its pidfd, which no other process can have; its children, daemons
among them, by the cgroup that they are in, or by their mark if there is no cgroup.

Rule: a SIGKILL takes effect when the kernel gets to it. A task in D state, on a file system that
hangs, may never get there. `BURIAL_TIMEOUT` seconds after its SIGKILL a tree is `unkillable`: then
only the owner of its cgroup, /tmp and user waits on.
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

# Seconds from a SIGKILL until a process that it has not ended is reported.
BURIAL_TIMEOUT = 5.0


class ProcessTree:
    """The processes of one worker. `gone` is done when the first has exited."""

    __slots__ = ("_loop", "_pidfd", "_record", "_timer", "_worker", "gone", "group", "unkillable")

    def __init__(self, worker: object, record: Callable[[Fact], None]) -> None:
        """`worker` owns the processes: facts name it by its repr."""
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._record = record
        self._pidfd = -1
        self._timer: asyncio.TimerHandle | None = None
        self.group = Group()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.unkillable: asyncio.Future[None] = self._loop.create_future()

    def take(self, pid: int, pidfd: int, on_exit: Callable[[], None]) -> None:
        """Begin with the first process; the pidfd is the tree's from now on, to close too."""
        self.group.leader = pid
        self._pidfd = pidfd
        self._loop.add_reader(pidfd, self._on_exit, on_exit)

    def _on_exit(self, on_exit: Callable[[], None]) -> None:
        self._loop.remove_reader(self._pidfd)
        on_exit()
        if not self.gone.done():
            self.gone.set_result(None)

    def has_exited(self) -> bool:
        """Return whether the first process has exited, also if the event loop has not seen it."""
        if self._pidfd < 0:
            return self.gone.done()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def signal(self, number: int) -> None:
        """Send the first process a signal, unless it has exited."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """Kill every process: the first now, the rest in the next turn of the event loop.

        By then the answer is sent: without a cgroup the rest is found by a scan of /proc.
        """
        if self.gone.done():
            return
        self.signal(signal.SIGKILL)
        self._loop.call_soon(self._kill_group)
        if self._timer is None:
            pids = [self.group.leader]
            self._timer = self._loop.call_later(BURIAL_TIMEOUT, self._report_unkillable, pids)

    def _kill_group(self) -> None:
        if self.gone.done():
            return  # `end` kills the rest
        try:
            self.group.kill()
        except OSError as exc:
            what = (
                f"{self._worker!r} cannot be killed by its cgroup: {exc}; "
                "its first process is killed, the others when that has exited"
            )
            self._record(journal.Trouble(what=what))

    def _report_unkillable(self, pids: list[int]) -> None:
        """Record that processes do not die. They keep their cgroup, /tmp and user until they do."""
        what = (
            f"{self._worker!r}: processes {pids} do not die of SIGKILL (does a file system hang?); "
            "until they do, they keep their memory, cgroup, /tmp and user"
        )
        self._record(journal.Trouble(what=what))
        self.unkillable.set_result(None)

    async def first_ended(self) -> None:
        """Wait for the end of the first process, or until the tree is unkillable."""
        await asyncio.wait((self.gone, self.unkillable), return_when=asyncio.FIRST_COMPLETED)

    def unregister(self) -> None:
        """Stop waiting for the first process."""
        self._loop.remove_reader(self._pidfd)
        if self._timer is not None:
            self._timer.cancel()

    async def end(self) -> bool:
        """Kill what the first process left behind (daemons, children) and wait until it is gone.

        Return whether it is: if the supervisor closes, an unkillable tree is left behind.
        """
        task = asyncio.current_task()
        deadline = time.monotonic() + BURIAL_TIMEOUT
        pause, longest = 0.001, 0.1
        while pids := self.group.members():
            self.group.kill()
            if time.monotonic() > deadline and not self.unkillable.done():
                self._report_unkillable(pids)
            if self.unkillable.done():
                if task is None or task.cancelling():
                    return False
                longest = 1.0
            # cgroup v1 has no event for a group that becomes empty. Polled: after 1 ms, then after
            # twice as long each time, up to 100 ms, or 1 s for an unkillable tree.
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
        return True

    def close(self) -> None:
        """Close the pidfd."""
        os.close(self._pidfd)
        self._pidfd = -1
