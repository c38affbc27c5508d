"""This module is the zygote: a small, single-threaded, secret-free process that forks workers.

    python -I -S -u start.py {"packages": ..., "workers": ..., "supervisor": ..., "isolation": {}}

Theory of operation: the supervisor starts one zygote per interpreter, by exec, with one end of
a SOCK_SEQPACKET socket as descriptor 3. Each message is a small JSON object:

    supervisor to zygote  a Sandbox, with the descriptors [request, answer, log], and then, where
                          /tmp is a volume, a mount of it
                          {"release": path}: a /tmp that nobody will use again
    zygote to supervisor  {"ready": pid, "python": [3, 11]}
                          {"forked": worker id, "pid": n}, with [pidfd of the worker]
                          {"refused": worker id, "why": text}
                          {"exited": pid, "status": wait status, "rusage": {...}}

One child is forked ahead: a fork, the namespaces, and the pages that a child copies as it starts,
are most of a cold start. It has done what every worker does, and waits to be told which one it is.

Rule 1: nothing of a function passes through here, neither its environment nor its code: the
worker reads that from its own pipe, after it has entered its sandbox.

Rule 2: the zygote is the parent of its workers and the subreaper of what they orphan, so it
reaps. It never signals a worker while the supervisor lives: that decides. A worker that has ended
takes its box along: whoever is left in its pid namespace is killed.

Rule 3: when the supervisor goes, whatever way, everything below here dies. The socket's end is
not enough to know it: a process that the embedding app forked may hold a copy of the other end,
so the supervisor's pidfd is watched too.

Rule 4: pids that are said to the supervisor are its own: a zygote that has namespaces lives in a
pid namespace, in which everybody has another number.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NamedTuple

CONTROL_FD = 3
# Workers' pipes must arrive on numbers above the protocol's own (see sandbox._keep_only).
RESERVED_FD = 4
MESSAGE = 65536
# The next child is forked when the last one is likely to be ready: a fork at the same time would
# slow it down, most of all as it joins its cgroups (they take a lock that forks hold).
FORK_AHEAD_MS = 2
# How often a child that cannot stand by is followed by another one, for one worker.
ATTEMPTS = 3

# Messages are the supervisor's, whole and without white space: `json.loads` would do no more than
# this, and each function that a worker runs is some pages that it copies.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def main(packages: str, workers: str, supervisor: int, isolation: dict[str, Any]) -> None:
    """Serve until the supervisor is gone; then take everything below along."""
    os.setsid()
    os.umask(0o022)
    from miniλ.sandbox import (  # noqa: PLC0415 - only now
        Isolation,
        namespaces,
        processes,
        rlimits,
        settle_memory,
    )

    sys.path.remove(packages)
    processes.raise_oom_score(processes.ZYGOTE_OOM_SCORE)
    # What an embedding app left inheritable is not ours, nor any function's.
    processes.close_from(CONTROL_FD + 1)
    # The interpreter itself, not a virtual environment's link to it: that is somebody's packages,
    # and what a worker starts would have them.
    sys.executable = os.path.realpath(sys.executable)
    bootstrap = load_bootstrap(workers)
    rlimits.shrink_thread_stacks()
    # Everything above 3 is closed: this gets number 4, and keeps it from a worker's pipe.
    assert os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) == RESERVED_FD
    pidfd = os.pidfd_open(supervisor)
    if os.getppid() != supervisor:
        return
    around = Isolation(**isolation)
    root = None
    if around.namespaces:
        namespaces.settle(user=around.namespaces == "user")
        root = namespaces.Root(around.root, workers)
    processes.adopt_orphans()
    control = socket.socket(fileno=CONTROL_FD)
    wakeup, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    watched = select.poll()
    watched.register(control, select.POLLIN)
    watched.register(wakeup, select.POLLIN)
    watched.register(pidfd, select.POLLIN)
    bootstrap.prepare()
    zygote = ZygoteProcess(control, bootstrap, around, root, workers)
    settle_memory()
    zygote.fork_ahead()
    _send(control, {"ready": os.getpid(), "python": sys.version_info[:2]})

    while True:
        ready = watched.poll(FORK_AHEAD_MS if zygote.ahead is None else None)
        if not ready:
            zygote.try_fork_ahead()
        for descriptor, _ in ready:
            if descriptor == wakeup:
                os.read(wakeup, MESSAGE)
                zygote.reap()
            elif descriptor != CONTROL_FD or not zygote.serve():
                zygote.end()
                return


class Child(NamedTuple):
    """A worker that was forked: its pid for the supervisor, its cgroup, the init of its box."""

    pid: int
    group: tuple[str, ...]
    init: int


class Ahead(NamedTuple):
    """The child that stands by: its pid here, our end of its socket, the init of its box or 0."""

    pid: int
    socket: socket.socket
    init: int


class ZygoteProcess:
    """What the zygote knows: its isolation, its workers by pid, and the child that stands by."""

    def __init__(self, control: socket.socket, bootstrap, isolation, root, workers: str) -> None:  # noqa: ANN001 - see below
        from miniλ.sandbox import seccomp  # noqa: PLC0415 - imported long since

        self.control = control
        self.bootstrap = bootstrap
        self.isolation = isolation
        self.root = root
        prefixes = {os.path.realpath(path) for path in (sys.base_prefix, sys.prefix)}
        self.runtime = sorted({*prefixes, workers})
        # A function may bring modules of any name, ours included: a worker lets go of these. Found
        # here: who looks through all names writes to each, which copies the page it is on.
        self.ours = [n for n in sys.modules if n.partition(".")[0] in ("miniλ", "__main__")]
        self.kept: list[object] = []
        # Pure, and the same for all: made here, once.
        self.program = seccomp.program(os.uname().machine) if isolation.seccomp else None
        self.workers: dict[int, Child] = {}
        self.ahead: Ahead | None = None
        # Without root a /tmp is a tmpfs that is mounted here, until it is released.
        self.mounted: set[str] = set()
        self.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def fork_ahead(self) -> None:
        """Fork the next worker; it waits on a socket of its own. Raises OSError."""
        from miniλ.sandbox import namespaces  # noqa: PLC0415 - imported long since

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        box = None
        try:
            if self.root is not None:
                box = namespaces.open_box(self.root, self.pid_namespace)
            try:
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._become_worker(theirs, box)
            finally:
                if box is not None:
                    namespaces.close_box(self.pid_namespace)
                    box.close()
        except OSError:
            ours.close()
            theirs.close()
            if box is not None:
                _end_box(box.init)
            raise
        theirs.close()
        self.ahead = Ahead(pid, ours, 0 if box is None else box.init)

    def serve(self) -> bool:
        """Answer one message; return False when the supervisor has closed its end."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.control, MESSAGE, 4)
        except OSError:
            return False
        if not message:
            return False
        asked = _scan(message.decode(), 0)[0]
        if "release" in asked:
            self._release(asked["release"])
            return True
        try:
            worker, pidfd = self._hand_over(message, asked, descriptors)
        except OSError as exc:  # this worker cannot be, we go on
            _send(self.control, {"refused": asked["worker_id"], "why": str(exc)})
        else:
            _send(self.control, {"forked": asked["worker_id"], "pid": worker.pid}, [pidfd])
            os.close(pidfd)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _hand_over(
        self, message: bytes, asked: dict[str, Any], given: list[int]
    ) -> tuple[Child, int]:
        """Tell the child that stands by who it is; return it and its pidfd."""
        from miniλ.sandbox import Sandbox, cgroups  # noqa: PLC0415 - imported long since

        sandbox = Sandbox(**asked)
        pipes, volume = given[:3], given[3:]
        joins: list[int] = []
        mounts: list[int] = []
        why = ""
        try:
            doors = cgroups.rebuild(tuple(sandbox.group)).doors()
            joins += [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in doors]
            if self.root is not None:
                self._open_mounts(sandbox, mounts, has_volume=bool(volume))
            for _ in range(ATTEMPTS):
                if self.ahead is None:
                    self.fork_ahead()
                assert self.ahead is not None
                ahead, self.ahead = self.ahead, None
                try:
                    socket.send_fds(
                        ahead.socket,
                        [bytes([len(joins)]) + message],
                        [*pipes, *joins, *volume, *mounts],
                    )
                except OSError:
                    # It could not stand by, and said why, or somebody killed it meanwhile.
                    why = _last_words(ahead.socket)
                    _end_box(ahead.init)
                    continue
                finally:
                    ahead.socket.close()
                pidfd = os.pidfd_open(ahead.pid)
                pid = self._outside(pidfd) if self.root is not None else ahead.pid
                worker = Child(pid, tuple(sandbox.group), ahead.init)
                self.workers[ahead.pid] = worker
                return worker, pidfd
        finally:
            for descriptor in joins + mounts:
                os.close(descriptor)
        raise OSError(why or "who stood by was killed")

    def _open_mounts(self, sandbox, opened: list[int], *, has_volume: bool) -> None:  # noqa: ANN001
        """Open what the worker will mount: only we still see the host's files.

        A volume comes from the supervisor, which mounted it where we do not see it.
        """
        from miniλ.sandbox import namespaces, places  # noqa: PLC0415 - imported long since

        if not has_volume and sandbox.tmp not in self.mounted:
            size = f"mode=700,size={sandbox.tmp_bytes},nr_inodes={sandbox.tmp_bytes // 4096}"
            flags = namespaces.MS_NOSUID | namespaces.MS_NODEV
            namespaces.mount("minilambda", sandbox.tmp, "tmpfs", flags, size)
            self.mounted.add(sandbox.tmp)
        for source, target, read_only in places(sandbox):
            if target == namespaces.TMP and has_volume:
                continue
            self.root.place(target)
            opened.append(namespaces.detached(source, read_only=read_only))

    def _release(self, path: str) -> None:
        """Unmount a /tmp; who still uses it keeps it until it leaves."""
        from miniλ.sandbox import namespaces  # noqa: PLC0415 - imported long since

        if path in self.mounted:
            self.mounted.discard(path)
            try:
                namespaces.unmount(path)
            except OSError:
                return  # its directory is gone already, and the mount with it

    def _outside(self, pidfd: int) -> int:
        """Return the pid that the supervisor sees: the mount of /proc here is still the host's."""
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
            for line in file:
                if line.startswith(b"Pid:"):
                    return int(line.split()[1])
        raise ProcessLookupError("the worker is gone")

    def try_fork_ahead(self) -> None:
        """Fork the next worker, if the kernel lets us now."""
        try:
            self.fork_ahead()
        except OSError:
            return  # no process to be had now: the next worker asks again, and is told why

    def reap(self) -> None:
        """Wait for every child that has ended, and say how; also for orphans of workers."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.ahead is not None and pid == self.ahead.pid:
                # It could not stand by. Who asks for it next is told why, by its socket.
                _end_box(self.ahead.init)
                self.ahead = self.ahead._replace(init=0)
            worker = self.workers.pop(pid, None)
            if worker is not None:
                _end_box(worker.init)
                rusage = {
                    "user": usage.ru_utime,
                    "system": usage.ru_stime,
                    "max_rss_kb": usage.ru_maxrss,
                }
                _send(self.control, {"exited": worker.pid, "status": status, "rusage": rusage})

    def end(self) -> None:
        """Kill every worker with all its processes: the supervisor is gone, nobody asks."""
        from miniλ.sandbox import cgroups, processes  # noqa: PLC0415 - imported long since

        # First the groups: whoever cgroup v1 has frozen dies of nothing before it is thawed.
        for worker in self.workers.values():
            try:
                cgroups.rebuild(worker.group).kill()
            except OSError:
                continue  # its cgroup is gone: then so are its processes
        if self.root is None:
            processes.kill_children()
        # Else we are the init of a pid namespace: whoever is in it dies with us.

    def _become_worker(self, waiting: socket.socket, box) -> None:  # noqa: ANN001 - see above
        """Stand by, enter the sandbox and run the worker. Never returns, nor runs exit handlers."""
        from miniλ.sandbox import (  # noqa: PLC0415 - imported long since
            Handed,
            Sandbox,
            enter,
            processes,
            stand_by,
        )

        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # The C function: `signal.signal` makes enums of what was there, thirty pages to copy.
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                _signal.signal(number, _signal.SIG_DFL)
            _signal.signal(signal.SIGINT, signal.default_int_handler)
            processes.raise_oom_score(processes.WORKER_OOM_SCORE)
            self.bootstrap.stand_by()
            try:
                standing = stand_by(self.isolation, box, self.runtime, self.program)
            except OSError as exc:
                waiting.send(str(exc).encode(errors="replace")[:4096])
                raise
            message, descriptors, _, _ = socket.recv_fds(waiting, MESSAGE, 253)
            # The zygote's end is closed if it is gone; else the kernel kills us with it.
            if message:
                first, last = 3, 3 + message[0]
                joins, mounts = descriptors[first:last], descriptors[last:]
                request, answer, log = descriptors[:3]
                handed = Handed(request, answer, log, joins, mounts)
                try:
                    enter(standing, Sandbox(**_scan(message[1:].decode(), 0)[0]), handed)
                except OSError as exc:
                    os.write(log, f"The sandbox cannot be entered: {exc}\n".encode())
                    raise
                # They are kept: to take them apart would write to the pages that they share with
                # the zygote. And multiprocessing runs the file of __main__ again in what it spawns:
                # not this one.
                self.kept = [sys.modules.pop(name) for name in self.ours]
                sys.modules["__main__"] = type(sys)("__main__")
                status = self.bootstrap.main()
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
            if status and not isinstance(exc.code, int):
                os.write(2, f"{exc.code}\n".encode(errors="backslashreplace"))
        except BaseException:  # noqa: BLE001 - nobody above will catch it, and the log pipe is open
            os.write(2, traceback.format_exc().encode()[-4096:])
        finally:
            os._exit(status & 0xFF)


def _end_box(init: int) -> None:
    """Kill the init of a box, and with it all that is in there; 0 is none."""
    if init:
        try:
            os.kill(init, signal.SIGKILL)
        except ProcessLookupError:
            return  # it died by itself


def _last_words(waiting: socket.socket) -> str:
    try:
        return waiting.recv(MESSAGE, socket.MSG_DONTWAIT).decode(errors="replace")
    except OSError:
        return ""


def load_bootstrap(workers: str):  # noqa: ANN201 - a module that only exists at run time
    """Import the Python worker from its file, under a name that no function will import."""
    path = os.path.join(workers, "python", "bootstrap.py")
    spec = importlib.util.spec_from_file_location("minilambda_bootstrap", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _send(control, message, descriptors=()) -> None:  # noqa: ANN001
    try:
        socket.send_fds(control, [json.dumps(message).encode()], descriptors)
    except OSError:
        return  # the supervisor is gone: the loop sees that next
