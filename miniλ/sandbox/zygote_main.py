"""This module is the zygote: a small, single-threaded, secret-free process that forks workers.

    python -I -S -u zygote_main.py PACKAGES WORKERS SUPERVISOR_PID

Theory of operation: the supervisor starts one zygote per interpreter, by exec, with one end of
a SOCK_SEQPACKET socket as descriptor 3. Each message is a small JSON object:

    supervisor to zygote  {"fork": Sandbox}, with the descriptors [request, answer, log]
    zygote to supervisor  {"ready": pid}
                          {"forked": worker id, "pid": n}, with [pidfd of the worker]
                          {"refused": worker id, "why": text}
                          {"exited": pid, "status": wait status, "rusage": {...}}

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


def main(packages: str, workers: str, supervisor: int) -> None:
    """Serve until the supervisor is gone; then take everything below along."""
    os.setsid()
    _close_all_above(CONTROL_FD)
    sys.path.append(packages)
    from miniλ.sandbox import Sandbox, enter, processes, rlimits  # noqa: PLC0415

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
    groups: dict[int, tuple[str, ...]] = {}
    # What exists now is shared by every worker: keep the collector from writing to it.
    gc.collect()
    gc.disable()
    gc.freeze()
    _send(control, {"ready": os.getpid(), "python": sys.version_info[:2]})

    while True:
        for descriptor, _ in watched.poll():
            if descriptor == wakeup:
                os.read(wakeup, MESSAGE)
                _reap(control, groups)
            elif descriptor != CONTROL_FD or not _serve(control, groups, Sandbox, enter, bootstrap):
                _end(groups)
                return


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
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _serve(control, groups, sandbox_type, enter, bootstrap) -> bool:  # noqa: ANN001
    """Answer one message; return False when the supervisor has closed its end."""
    try:
        message, descriptors, _, _ = socket.recv_fds(control, MESSAGE, 3)
    except OSError:
        return False
    if not message:
        return False
    sandbox = sandbox_type(**json.loads(message)["fork"])
    try:
        pid = os.fork()
    except OSError as exc:  # EAGAIN or ENOMEM: this worker cannot be, we go on
        _send(control, {"refused": sandbox.worker_id, "why": str(exc)})
        pid = -1
    if pid == 0:
        _become_worker(sandbox, enter, bootstrap, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    if pid > 0:
        groups[pid] = tuple(sandbox.group)
        watcher = os.pidfd_open(pid)
        _send(control, {"forked": sandbox.worker_id, "pid": pid}, [watcher])
        os.close(watcher)
    return True


def _become_worker(sandbox, enter, bootstrap, descriptors) -> None:  # noqa: ANN001
    """Enter the sandbox and run the worker. Never returns, and never runs our exit handlers."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        # The kernel kills us with the zygote from here on; it may be gone already.
        zygote = os.getppid()
        enter(sandbox, *descriptors)
        if os.getppid() == zygote:
            status = bootstrap.main(sandbox.tmp)
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - nobody above will catch it, and the log pipe is open
        os.write(2, traceback.format_exc().encode()[-4096:])
    finally:
        os._exit(status & 0xFF)


def _reap(control, groups) -> None:  # noqa: ANN001
    """Wait for every child that has ended, and say how: also for orphans that nobody asked of."""
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if groups.pop(pid, None) is not None:
            rusage = {
                "user": usage.ru_utime,
                "system": usage.ru_stime,
                "max_rss_kb": usage.ru_maxrss,
            }
            _send(control, {"exited": pid, "status": status, "rusage": rusage})


def _send(control, message, descriptors=()) -> None:  # noqa: ANN001
    try:
        socket.send_fds(control, [json.dumps(message).encode()], descriptors)
    except OSError:
        return  # the supervisor is gone: the loop sees that next


def _end(groups) -> None:  # noqa: ANN001
    """Kill every worker with all its processes: the supervisor is gone and asks for nothing."""
    from miniλ.sandbox import cgroups, processes  # noqa: PLC0415 - imported long since

    for key in groups.values():
        try:
            cgroups.rebuild(key).kill()
        except OSError:
            continue  # its cgroup is gone: then so are its processes
    processes.kill_children()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
