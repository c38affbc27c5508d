"""The supervisor's handle on a zygote; `sandbox.zygote_main` is the other end.

The supervisor itself never forks: it has threads, an event loop and megabytes of pages, and it
may be an app that embeds miniλ. A zygote is started by posix_spawn, forks on request, and reports.

A zygote ends by `close`, which closes the socket, or when the supervisor's pidfd tells it that the
supervisor has died. When it dies its workers die with it (PDEATHSIG), their exits are reported as
None, and the next `get` starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import signal
import socket
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from miniλ import journal
from miniλ.background import Background
from miniλ.errors import RuntimeMissing, ServiceError
from miniλ.runtimes import catalog
from miniλ.sandbox import processes

if TYPE_CHECKING:
    from miniλ.journal import Journal
    from miniλ.sandbox import Isolation, Sandbox

# The longest message, and the longest read of stderr.
MESSAGE = 65536
START_TIMEOUT = 20.0
FORK_TIMEOUT = 30.0
# What a zygote is given to end its workers; and after that, for its own SIGKILL.
CLOSE_TIMEOUT = 5.0
# Descriptors below are the child's own: see the file actions in `_spawn`.
ABOVE_STANDARD = 10


class Exit(NamedTuple):
    """How a worker's first process ended: its wait status (wait(2)) and CPU seconds."""

    status: int
    cpu_seconds: float


class Forked(NamedTuple):
    """A worker that has been forked. `exited` gives None if the zygote died before it knew."""

    pid: int
    pidfd: int
    exited: asyncio.Future[Exit | None]


class _NotThis(Exception):
    """The program is not the runtime that is wanted, or does not start."""


class Zygote:
    """One running zygote."""

    def __init__(
        self, runtime: str, program: str, pid: int, control: socket.socket, stderr: int
    ) -> None:
        self.runtime = runtime
        self.program = program
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._control = control
        self._stderr = stderr
        self._pidfd = os.pidfd_open(pid)
        self._ready: asyncio.Future[list[int]] = self._loop.create_future()
        self._forks: dict[str, asyncio.Future[Forked]] = {}
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._exits: dict[int, asyncio.Future[Exit | None]] = {}
        self.dead: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(control.fileno(), self._receive)
        self._loop.add_reader(self._pidfd, self._died)

    def __repr__(self) -> str:
        state = "dead" if self.dead.done() else f"{len(self._exits)} workers"
        return f"<Zygote {self.runtime} {self.pid} {state}>"

    @classmethod
    async def start(cls, runtime: str, program: str, isolation: Isolation, instance: str) -> Zygote:
        """Start a zygote; raises _NotThis if `program` is no interpreter of this runtime."""
        pid, control, stderr = _spawn(program, isolation, instance)
        zygote = cls(runtime, program, pid, control, stderr)
        try:
            version = await asyncio.wait_for(zygote._ready, START_TIMEOUT)
        except (TimeoutError, ServiceError) as exc:
            reason = zygote._reason()
            await zygote.close()
            msg = f"{program}: {reason or 'it did not start'}"
            raise _NotThis(msg) from exc
        except BaseException:
            await zygote.close()
            raise
        if f"python{version[0]}.{version[1]}" != runtime:
            await zygote.close()
            msg = f"{program} is python{version[0]}.{version[1]}"
            raise _NotThis(msg)
        return zygote

    async def fork(self, sandbox: Sandbox, descriptors: list[int]) -> Forked:
        """Fork a worker. `descriptors`: its request, answer and log pipes, and a mount if any.

        The mount is of its /tmp, if that is a volume. The zygote gets copies: the caller closes
        its own.

        Raises `ServiceError` if the kernel refuses a process, or the zygote dies.
        """
        if self.dead.done():
            msg = "the zygote died"
            raise ServiceError(msg)
        future: asyncio.Future[Forked] = self._loop.create_future()
        message = msgspec.json.encode(_in_utf8(sandbox))
        self._forks[sandbox.worker_id] = future
        self._unsent.append((message, descriptors))
        if len(self._unsent) == 1:
            self._send()
        try:
            # In a burst the zygote forks one after the other; a stopped zygote forks none.
            async with asyncio.timeout(FORK_TIMEOUT):
                return await future
        except asyncio.CancelledError:
            # The fork was reported just before the cancel: its only owner is here.
            if future.done() and not future.cancelled() and future.exception() is None:
                _kill_ownerless(future.result().pidfd)
            raise
        except TimeoutError as exc:
            msg = f"the zygote did not fork within {FORK_TIMEOUT:g} s"
            raise ServiceError(msg) from exc
        finally:
            self._forks.pop(sandbox.worker_id, None)

    def release(self, path: str) -> None:
        """Unmount a /tmp that will not be used again, if the zygote mounted one there."""
        if not self.dead.done():
            release = {"release": catalog.in_utf8(path)}
            self._unsent.append((msgspec.json.encode(release), []))
            if len(self._unsent) == 1:
                self._send()

    def _send(self) -> None:
        """Send what the socket takes now; the rest follows when it is writable."""
        while self._unsent:
            message, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._send)
                return
            except OSError:
                self._died()
                return
            self._unsent.popleft()
        self._loop.remove_writer(self._control.fileno())

    def _receive(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._died()
                return
            self._take(msgspec.json.decode(data), descriptors)

    def _take(self, message: dict[str, object], descriptors: list[int]) -> None:
        match message:
            case {"forked": str(worker_id), "pid": int(pid)}:
                exited: asyncio.Future[Exit | None] = self._loop.create_future()
                self._exits[pid] = exited
                future = self._forks.get(worker_id)
                if future is None or future.done():
                    # `fork` has timed out or was cancelled: the worker has no owner.
                    _kill_ownerless(descriptors[0])
                else:
                    os.set_inheritable(descriptors[0], False)  # noqa: FBT003
                    future.set_result(Forked(pid, descriptors[0], exited))
            case {"exited": int(pid), "status": int(status), "rusage": dict(usage)}:
                waiting = self._exits.pop(pid, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(Exit(status, usage["user"] + usage["system"]))
            case {"refused": str(worker_id), "why": str(why)}:
                future = self._forks.get(worker_id)
                if future is not None and not future.done():
                    msg = f"The kernel refuses another process: {why}"
                    future.set_exception(ServiceError(msg))
            case {"ready": int(), "python": list(version)} if not self._ready.done():
                self._ready.set_result(version)

    def _died(self) -> None:
        if self.dead.done():
            return
        self.dead.set_result(None)
        self._unsent.clear()
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._loop.remove_reader(self._pidfd)
        error = ServiceError("the zygote died")
        waiting: list[asyncio.Future[Forked] | asyncio.Future[list[int]]] = [*self._forks.values()]
        waiting.append(self._ready)
        for future in waiting:
            if not future.done():
                future.set_exception(error)
        if self._ready.done() and not self._ready.cancelled():
            self._ready.exception()  # else asyncio complains if `start` was cancelled
        for exited in self._exits.values():
            if not exited.done():
                exited.set_result(None)
        self._exits.clear()

    def _reason(self) -> str:
        """Return the line of the zygote's stderr that says why it did not start.

        That is the last line of a traceback; of other text the first line: pyenv's shims print
        the reason, and then a page of help.
        """
        with contextlib.suppress(OSError):
            text = os.read(self._stderr, MESSAGE).decode(errors="replace")
            lines = [line.strip() for line in text.split("\n") if line.strip()]
            if lines:
                return lines[-1 if "Traceback (most recent call last):" in lines else 0]
        return ""

    async def close(self) -> None:
        """End the zygote: it kills its workers when the socket closes."""
        self._died()
        # Not close alone: a process that the app forked may hold a copy of this end.
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        try:
            if not await _ended(self._pidfd, CLOSE_TIMEOUT):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
                await _ended(self._pidfd, CLOSE_TIMEOUT)
        finally:
            os.close(self._pidfd)
            os.close(self._stderr)
            # An embedding app may reap every child it sees, this one included.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 - it has ended: no wait


def _in_utf8(sandbox: Sandbox) -> dict[str, object]:
    """Return a sandbox as the zygote is sent it: see `catalog.in_utf8`."""
    fields: dict[str, object] = sandbox._asdict()
    for name in ("code", "tmp", "layers"):
        fields[name] = catalog.in_utf8(getattr(sandbox, name))
    fields["visible"] = [catalog.in_utf8(path) for path in sandbox.visible]
    return fields


def _kill_ownerless(pidfd: int) -> None:
    """Kill a worker without an owner; the zygote reaps it."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


async def _ended(pidfd: int, timeout: float) -> bool:  # noqa: ASYNC109 - one wait, one bound
    """Wait until the process of a pidfd has ended, at most `timeout`; return whether it has."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def end() -> None:
        loop.remove_reader(pidfd)
        ended.set_result(None)

    loop.add_reader(pidfd, end)
    try:
        await asyncio.wait_for(ended, timeout)
    except TimeoutError:
        return False
    else:
        return True
    finally:
        loop.remove_reader(pidfd)


def _spawn(program: str, isolation: Isolation, instance: str) -> tuple[int, socket.socket, int]:
    """Start a zygote; return its pid, the supervisor's end of its socket and its stderr to read.

    It is marked as this instance's, so that the next supervisor can find and end what is left of
    this one, also a program that is no zygote. Workers write their own ids over the mark.
    """
    main = catalog.sandbox_program("start.py")
    isolation = isolation._replace(root=catalog.in_utf8(isolation.root))
    arguments: list[str | bytes] = [
        program,
        "-I",  # no import path from the environment or the current directory
        "-S",  # no site-packages: a function brings its own
        "-u",  # every print is written at once, and a crash loses none
        main,
        # Bytes: the zygote's locale is UTF-8, and this process's may be another.
        msgspec.json.encode(
            {
                "packages": catalog.in_utf8(str(catalog.packages_directory())),
                "workers": catalog.in_utf8(str(catalog.workers_directory())),
                "supervisor": os.getpid(),
                "isolation": isolation._asdict(),
            }
        ),
    ]
    # None of the supervisor's secrets: a worker can read the environment that its zygote had.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_CTYPE": "C.UTF-8",
        processes.MARK: instance.ljust(processes.MARK_LENGTH, "-"),
    }
    for name in ("LD_LIBRARY_PATH", "HOME", "PYENV_ROOT"):
        if name in os.environ:
            environment[name] = os.environ[name]  # an interpreter may need them to start
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    our_stderr, their_stderr = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    # In an app that closed its standard descriptors these may have numbers below 4, and a file
    # action below would overwrite one before it is copied.
    control = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, ABOVE_STANDARD)
    stderr = fcntl.fcntl(their_stderr, fcntl.F_DUPFD_CLOEXEC, ABOVE_STANDARD)
    try:
        pid = os.posix_spawn(
            program,
            arguments,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
                (os.POSIX_SPAWN_DUP2, control, 3),
            ],
            setsigdef=[signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
            setsigmask=[],
        )
    except OSError as exc:
        ours.close()
        os.close(our_stderr)
        msg = f"{program}: {exc.strerror}"
        raise _NotThis(msg) from exc
    finally:
        theirs.close()
        for descriptor in (their_stderr, control, stderr):
            os.close(descriptor)
    ours.setblocking(False)  # noqa: FBT003
    return pid, ours, our_stderr


class Zygotes:
    """The zygotes of one supervisor: one for each runtime, started when it is first needed."""

    def __init__(self, facts: Journal, isolation: Isolation, instance: str) -> None:
        self._journal = facts
        self._isolation = isolation
        self._instance = instance
        self._running: dict[str, Zygote] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        self._programs: dict[str, str] = {}
        self._burials = Background(facts, "A zygote could not be closed")

    def running(self, runtime: str) -> Zygote | None:
        """Return the zygote of this runtime if it lives."""
        zygote = self._running.get(runtime)
        return None if zygote is None or zygote.dead.done() else zygote

    async def get(self, runtime: str) -> Zygote:
        """Return the zygote of this runtime, which it starts if none lives.

        Raises `RuntimeMissing`.
        """
        zygote = self.running(runtime)
        if zygote is not None:
            return zygote
        async with self._starting.setdefault(runtime, asyncio.Lock()):
            zygote = self.running(runtime)
            if zygote is None:
                zygote = await self._start(runtime)
            return zygote

    async def _start(self, runtime: str) -> Zygote:
        last = self._programs.get(runtime)
        failures = []
        for program in [last] if last else catalog.candidates(runtime):
            try:
                zygote = await Zygote.start(runtime, program, self._isolation, self._instance)
            except _NotThis as exc:
                failures.append(str(exc))
                continue
            self._programs[runtime] = program
            self._running[runtime] = zygote
            self._journal.record(journal.ZygoteStarted(runtime=runtime, pid=zygote.pid))
            zygote.dead.add_done_callback(functools.partial(self._bury, zygote))
            return zygote
        here = await asyncio.to_thread(catalog.here_text)
        msg = f"Runtime {runtime} is not on this machine; here: {here}. Put {runtime} on PATH"
        raise RuntimeMissing("; ".join([msg, *failures]))

    def release(self, path: str) -> None:
        """Have every zygote unmount a /tmp that will not be used again."""
        for zygote in self._running.values():
            zygote.release(path)

    def _bury(self, zygote: Zygote, _dead: asyncio.Future[None]) -> None:
        """Close the supervisor's side of a zygote that died."""
        if self._running.get(zygote.runtime) is not zygote:
            return  # by `close`, which waits for it
        del self._running[zygote.runtime]
        self._journal.record(journal.ZygoteDied(runtime=zygote.runtime, pid=zygote.pid))
        self._burials.start(zygote.close())

    async def close(self) -> None:
        """End all zygotes."""
        running, self._running = self._running, {}
        await asyncio.gather(*(zygote.close() for zygote in running.values()))
        await self._burials.finish()
