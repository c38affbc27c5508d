"""This module is the zygote: a small, single-threaded, secret-free process that forks workers.

    python -I -S -u zygote_main.py PACKAGES WORKERS SUPERVISOR_PID

Theory of operation: the supervisor starts one zygote per interpreter, by exec, with one end of
a SOCK_SEQPACKET socket as descriptor 3. Each message is a small JSON object:

    supervisor to zygote  a Sandbox, with the descriptors [request, answer, log]
    zygote to supervisor  {"ready": pid, "python": [3, 11]}
                          {"forked": worker id, "pid": n}, with [pidfd of the worker]
                          {"refused": worker id, "why": text}
                          {"exited": pid, "status": wait status, "rusage": {...}}

One child is forked ahead: a fork, and the pages that a child copies as it starts, are most of
a cold start. It has done what every worker does, and waits to be told which one it is.

Rule 1: nothing of a function passes through here, neither its environment nor its code: the
worker reads that from its own pipe, after it has entered its sandbox.

Rule 2: the zygote is the parent of its workers and the subreaper of what they orphan, so it
reaps. It never signals a worker while the supervisor lives: that decides.

Rule 3: when the supervisor goes, whatever way, everything below here dies. The socket's end is
not enough to know it: a process that the embedding app forked may hold a copy of the other end,
so the supervisor's pidfd is watched too.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import traceback

CONTROL_FD = 3
# Workers' pipes must arrive on numbers above the protocol's own (see sandbox._keep_only).
RESERVED_FD = 4
MESSAGE = 65536
# The next child is forked when the last one is likely to be ready: a fork at the same time would
# slow it down, most of all as it joins its cgroups (they take a lock that forks hold).
FORK_AHEAD_MS = 2


def main(packages: str, workers: str, supervisor: int) -> None:
    """Serve until the supervisor is gone; then take everything below along."""
    os.setsid()
    _close_all_above(CONTROL_FD)
    sys.path.append(packages)
    from miniλ.sandbox import processes, rlimits  # noqa: PLC0415 - found only now

    sys.path.remove(packages)
    bootstrap = load_bootstrap(workers)
    processes.adopt_orphans()
    rlimits.shrink_thread_stacks()
    # Everything above 3 is closed: this gets number 4, and keeps it from a worker's pipe.
    assert os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) == RESERVED_FD
    control = socket.socket(fileno=CONTROL_FD)
    wakeup, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    watched = select.poll()
    watched.register(control, select.POLLIN)
    watched.register(wakeup, select.POLLIN)
    watched.register(os.pidfd_open(supervisor), select.POLLIN)
    if os.getppid() != supervisor:
        return
    # What exists now is shared by every worker: keep the collector from writing to it.
    gc.collect()
    gc.disable()
    gc.freeze()
    zygote = Zygote(control, bootstrap)
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


class Zygote:
    """What the zygote knows: its workers' cgroups, by pid, and the child that stands by."""

    def __init__(self, control: socket.socket, bootstrap) -> None:  # noqa: ANN001 - see below
        self.control = control
        self.bootstrap = bootstrap
        self.groups: dict[int, tuple[str, ...]] = {}
        self.ahead: tuple[int, socket.socket] | None = None

    def fork_ahead(self) -> None:
        """Fork the next worker; it waits on a socket of its own. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            _become_worker(theirs, self.bootstrap)
        theirs.close()
        self.ahead = (pid, ours)

    def serve(self) -> bool:
        """Answer one message; return False when the supervisor has closed its end."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.control, MESSAGE, 3)
        except OSError:
            return False
        if not message:
            return False
        sandbox = json.loads(message)
        try:
            pid = self._hand_over(message, descriptors)
        except OSError as exc:  # EAGAIN or ENOMEM: this worker cannot be, we go on
            _send(self.control, {"refused": sandbox["worker_id"], "why": str(exc)})
        else:
            self.groups[pid] = tuple(sandbox["group"])
            watcher = os.pidfd_open(pid)
            _send(self.control, {"forked": sandbox["worker_id"], "pid": pid}, [watcher])
            os.close(watcher)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _hand_over(self, message: bytes, descriptors: list[int]) -> int:
        """Tell the child that stands by who it is; return its pid."""
        while True:
            if self.ahead is None:
                self.fork_ahead()
            assert self.ahead is not None
            pid, waiting = self.ahead
            self.ahead = None
            try:
                socket.send_fds(waiting, [message], descriptors)
            except BrokenPipeError:
                continue  # somebody killed it while it stood by: another one
            finally:
                waiting.close()
            return pid

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
            if self.groups.pop(pid, None) is not None:
                rusage = {
                    "user": usage.ru_utime,
                    "system": usage.ru_stime,
                    "max_rss_kb": usage.ru_maxrss,
                }
                _send(self.control, {"exited": pid, "status": status, "rusage": rusage})

    def end(self) -> None:
        """Kill every worker with all its processes: the supervisor is gone, nobody asks."""
        from miniλ.sandbox import cgroups, processes  # noqa: PLC0415 - imported long since

        for key in self.groups.values():
            try:
                cgroups.rebuild(key).kill()
            except OSError:
                continue  # its cgroup is gone: then so are its processes
        processes.kill_children()


def _close_all_above(last: int) -> None:
    """Close what an embedding app left inheritable: it is not ours, nor any function's."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > last:
            try:
                os.close(int(name))
            except OSError:
                continue  # the listing's own descriptor


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


def _become_worker(waiting: socket.socket, bootstrap) -> None:  # noqa: ANN001 - see above
    """Stand by, enter the sandbox and run the worker. Never returns, nor runs exit handlers."""
    from miniλ.sandbox import Sandbox, enter, stand_by  # noqa: PLC0415 - imported long since

    status = 1
    try:
        zygote = os.getppid()
        stand_by()
        # The kernel kills us with the zygote from here on; it may be gone already.
        if os.getppid() == zygote:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            bootstrap.stand_by()
            message, descriptors, _, _ = socket.recv_fds(waiting, MESSAGE, 3)
            if message:
                sandbox = Sandbox(**json.loads(message))
                enter(sandbox, *descriptors)
                # A function may bring modules of any name, ours included.
                for name in [n for n in sys.modules if n.partition(".")[0] == "miniλ"]:
                    del sys.modules[name]
                status = bootstrap.main()
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
        if status and not isinstance(exc.code, int):
            os.write(2, f"{exc.code}\n".encode(errors="backslashreplace"))
    except BaseException:  # noqa: BLE001 - nobody above will catch it, and the log pipe is open
        os.write(2, traceback.format_exc().encode()[-4096:])
    finally:
        os._exit(status & 0xFF)


def _send(control, message, descriptors=()) -> None:  # noqa: ANN001
    try:
        socket.send_fds(control, [json.dumps(message).encode()], descriptors)
    except OSError:
        return  # the supervisor is gone: the loop sees that next


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
