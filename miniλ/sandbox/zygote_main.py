"""The zygote: a small, single-threaded process without secrets that forks workers.

    python -I -S -u start.py {"packages": ..., "workers": ..., "supervisor": ..., "isolation": {}}

Theory of operation: the supervisor starts one zygote per interpreter, by exec, with one end of
a SOCK_SEQPACKET socket as descriptor 3. Each message is a small JSON object:

    supervisor to zygote  a Sandbox, with the descriptors [request, answer, log], and then, if
                          /tmp is a volume, a mount of it
                          {"release": path}: unmount this /tmp, no worker will use it again
    zygote to supervisor  {"ready": pid, "python": [3, 11]}
                          {"forked": worker id, "pid": n}, with [pidfd of the worker]
                          {"refused": worker id, "why": text}
                          {"exited": pid, "status": wait status, "rusage": {...}}

One child, the standby worker, is forked ahead: the fork, the namespaces, and the pages that a child
copies as it starts are most of a cold start. It waits for the Sandbox that it is to enter.

Rule 1: neither the environment nor the code of a function passes through here: the worker reads
them from its own pipe, after it has entered its sandbox.

Rule 2: the zygote is the parent of its workers and the subreaper of their orphans, so it reaps. It
signals no worker while the supervisor lives, which decides that. With a worker ends its init, and
with that the kernel kills all that is left in the worker's pid namespace.

Rule 3: when the supervisor ends, in any way, everything below here dies. End of file on the socket
is not enough to see it: a process that the embedding app forked may hold a copy of the other end,
so the supervisor's pidfd is polled too.

Rule 4: pids in messages are those that the supervisor sees. A zygote that has namespaces lives in a
pid namespace, in which its workers have other numbers.
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

from miniλ.sandbox import (
    Descriptors,
    Isolation,
    Sandbox,
    cgroups,
    enter,
    keep_pages_shared,
    mount_table,
    namespaces,
    processes,
    rlimits,
    seccomp,
    stand_by,
)

CONTROL_FD = 3
# Workers' pipes must arrive on numbers above the protocol's own (see sandbox._arrange_descriptors).
RESERVED_FD = 4
MESSAGE = 65536
# The next standby worker is forked when the last one is likely to be ready: a fork at the same time
# would slow it down, most of all as it joins its cgroups (which takes a lock that fork holds).
FORK_AHEAD_MS = 2
# How many standby workers are tried for one Sandbox before the supervisor hears an error.
ATTEMPTS = 3

# Messages come from the supervisor, whole and without white space, so `json.loads` would add only
# checks; each function that a worker calls is some pages that it copies.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def main(packages: str, workers: str, supervisor: int, isolation: dict[str, Any]) -> None:
    """Serve until the supervisor is gone; then kill everything below."""
    os.setsid()
    os.umask(0o022)
    sys.path.remove(packages)
    processes.raise_oom_score(processes.ZYGOTE_OOM_SCORE)
    # An embedding app may have left descriptors inheritable: no function gets them.
    processes.close_from(CONTROL_FD + 1)
    # The interpreter itself, not a virtual environment's link to it: programs that a worker starts
    # with sys.executable would import that environment's packages.
    sys.executable = os.path.realpath(sys.executable)
    bootstrap = load_bootstrap(workers)
    rlimits.shrink_thread_stacks()
    # Everything above 3 is closed, so this gets number 4, and no worker's pipe does.
    assert os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) == RESERVED_FD
    pidfd = os.pidfd_open(supervisor)
    if os.getppid() != supervisor:
        return
    mechanisms = Isolation(**isolation)
    rootfs = None
    if mechanisms.namespaces:
        namespaces.unshare_zygote(user=mechanisms.namespaces == "user")
        rootfs = namespaces.RootFilesystem(mechanisms.root, workers)
    processes.adopt_orphans()
    control = socket.socket(fileno=CONTROL_FD)
    wakeup, wakeup_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(wakeup, select.POLLIN)
    poller.register(pidfd, select.POLLIN)
    bootstrap.prepare()
    zygote = ZygoteProcess(control, bootstrap, mechanisms, rootfs, workers)
    keep_pages_shared()
    zygote.fork_ahead()
    _send(control, {"ready": os.getpid(), "python": sys.version_info[:2]})

    while True:
        ready = poller.poll(FORK_AHEAD_MS if zygote.standby is None else None)
        if not ready:
            zygote.try_fork_ahead()
        for descriptor, _ in ready:
            if descriptor == wakeup:
                os.read(wakeup, MESSAGE)
                zygote.reap()
            elif descriptor != CONTROL_FD or not zygote.serve():
                zygote.kill_all()
                return


class WorkerProcess(NamedTuple):
    """A worker: its pid for the supervisor, its cgroup's key, the pid of its init or 0."""

    pid: int
    group: tuple[str, ...]
    init: int


class StandbyWorker(NamedTuple):
    """The child forked ahead: its pid here, the zygote's end of its socket, its init's pid or 0."""

    pid: int
    socket: socket.socket
    init: int


class ZygoteProcess:
    """The zygote's state: its isolation, its workers by pid, and the standby worker."""

    def __init__(
        self,
        control: socket.socket,
        bootstrap,  # noqa: ANN001 - a module that only exists at run time
        isolation: Isolation,
        rootfs: namespaces.RootFilesystem | None,
        workers: str,
    ) -> None:
        self.control = control
        self.bootstrap = bootstrap
        self.isolation = isolation
        self.rootfs = rootfs
        prefixes = {os.path.realpath(path) for path in (sys.base_prefix, sys.prefix)}
        self.runtime = sorted({*prefixes, workers})
        # A function may bring modules of any name, also miniλ's: a worker removes these. They are
        # listed here, since a walk over sys.modules writes reference counts, which copies pages.
        self.own_modules = [n for n in sys.modules if n.partition(".")[0] in ("miniλ", "__main__")]
        self.removed_modules: list[object] = []
        # The filter is the same for all workers.
        self.program = seccomp.program(os.uname().machine) if isolation.seccomp else None
        self.workers: dict[int, WorkerProcess] = {}
        self.standby: StandbyWorker | None = None
        # Without volumes a /tmp is a tmpfs that is mounted here, until it is released.
        self.tmpfs_paths: set[str] = set()
        self.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def fork_ahead(self) -> None:
        """Fork the standby worker; it waits on a socket of its own. Raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        spaces = None
        try:
            if self.rootfs is not None:
                spaces = namespaces.open_namespaces(self.rootfs, self.pid_namespace)
            try:
                pid = os.fork()
                if pid == 0:
                    ours.close()
                    self._become_worker(theirs, spaces)
            finally:
                if spaces is not None:
                    namespaces.restore_pid_namespace(self.pid_namespace)
                    spaces.close()
        except OSError:
            ours.close()
            theirs.close()
            if spaces is not None:
                _kill_init(spaces.init)
            raise
        theirs.close()
        self.standby = StandbyWorker(pid, ours, 0 if spaces is None else spaces.init)

    def serve(self) -> bool:
        """Answer one message; return False when the supervisor has closed its end."""
        try:
            message, descriptors, _, _ = socket.recv_fds(self.control, MESSAGE, 4)
        except OSError:
            return False
        if not message:
            return False
        request = _scan(message.decode(), 0)[0]
        if "release" in request:
            self._release(request["release"])
            return True
        try:
            worker, pidfd = self._assign(message, request, descriptors)
        except OSError as exc:  # of this worker alone: the zygote serves on
            _send(self.control, {"refused": request["worker_id"], "why": str(exc)})
        else:
            _send(self.control, {"forked": request["worker_id"], "pid": worker.pid}, [pidfd])
            os.close(pidfd)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _assign(
        self, message: bytes, request: dict[str, Any], descriptors: list[int]
    ) -> tuple[WorkerProcess, int]:
        """Send the standby worker its Sandbox; return the worker and its pidfd. Raises OSError."""
        sandbox = Sandbox(**request)
        pipes, volume = descriptors[:3], descriptors[3:]
        procs_files: list[int] = []
        mounts: list[int] = []
        why = ""
        try:
            paths = cgroups.rebuild(tuple(sandbox.group)).procs_files()
            procs_files += [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in paths]
            if self.rootfs is not None:
                self._open_mounts(self.rootfs, sandbox, mounts, has_volume=bool(volume))
            for _ in range(ATTEMPTS):
                if self.standby is None:
                    self.fork_ahead()
                assert self.standby is not None
                standby, self.standby = self.standby, None
                try:
                    socket.send_fds(
                        standby.socket,
                        [bytes([len(procs_files)]) + message],
                        [*pipes, *procs_files, *volume, *mounts],
                    )
                except OSError:
                    # It failed to prepare itself, and sent its error; or it was killed meanwhile.
                    why = _read_error(standby.socket)
                    _kill_init(standby.init)
                    continue
                finally:
                    standby.socket.close()
                pidfd = os.pidfd_open(standby.pid)
                pid = self._host_pid(pidfd) if self.rootfs is not None else standby.pid
                worker = WorkerProcess(pid, tuple(sandbox.group), standby.init)
                self.workers[standby.pid] = worker
                return worker, pidfd
        finally:
            for descriptor in procs_files + mounts:
                os.close(descriptor)
        raise OSError(why or "the standby worker was killed")

    def _open_mounts(
        self,
        rootfs: namespaces.RootFilesystem,
        sandbox: Sandbox,
        mounts: list[int],
        *,
        has_volume: bool,
    ) -> None:
        """Append to `mounts` what the worker will attach: it does not see the host's files itself.

        Where /tmp is a volume, the supervisor has sent its mount.
        """
        if not has_volume and sandbox.tmp not in self.tmpfs_paths:
            size = f"mode=700,size={sandbox.tmp_bytes},nr_inodes={sandbox.tmp_bytes // 4096}"
            flags = namespaces.MS_NOSUID | namespaces.MS_NODEV
            namespaces.mount("minilambda", sandbox.tmp, "tmpfs", flags, size)
            self.tmpfs_paths.add(sandbox.tmp)
        for source, target, read_only in mount_table(sandbox):
            if target == namespaces.TMP and has_volume:
                continue
            rootfs.make_mount_point(target)
            mounts.append(namespaces.clone_mount(source, read_only=read_only))

    def _release(self, path: str) -> None:
        """Unmount a /tmp; a process that still uses it keeps it until it ends."""
        if path in self.tmpfs_paths:
            self.tmpfs_paths.discard(path)
            try:
                namespaces.unmount(path)
            except OSError:
                return  # its directory is gone already, and the mount with it

    def _host_pid(self, pidfd: int) -> int:
        """Return the pid that the supervisor sees: the mount of /proc here is still the host's."""
        with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
            for line in file:
                if line.startswith(b"Pid:"):
                    return int(line.split()[1])
        raise ProcessLookupError("the worker is gone")

    def try_fork_ahead(self) -> None:
        """Fork the standby worker, if the kernel allows it now."""
        try:
            self.fork_ahead()
        except OSError:
            return  # `_assign` tries again, and reports the error

    def reap(self) -> None:
        """Reap every child that has ended, orphans of workers too; report those of workers."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self.standby is not None and pid == self.standby.pid:
                # It failed to prepare itself. `_assign` finds the error in its socket.
                _kill_init(self.standby.init)
                self.standby = self.standby._replace(init=0)
            worker = self.workers.pop(pid, None)
            if worker is not None:
                _kill_init(worker.init)
                rusage = {
                    "user": usage.ru_utime,
                    "system": usage.ru_stime,
                    "max_rss_kb": usage.ru_maxrss,
                }
                _send(self.control, {"exited": worker.pid, "status": status, "rusage": rusage})

    def kill_all(self) -> None:
        """Kill every worker with all its processes: the supervisor is gone."""
        # First the groups: a process that cgroup v1 has frozen does not die before it is thawed.
        for worker in self.workers.values():
            try:
                cgroups.rebuild(worker.group).kill()
            except OSError:
                continue  # its cgroup is gone: then so are its processes
        if self.rootfs is None:
            processes.kill_children()
        # Else the zygote is the init of a pid namespace: all its processes die with it.

    def _become_worker(
        self, channel: socket.socket, spaces: namespaces.WorkerNamespaces | None
    ) -> None:
        """Stand by, enter the sandbox and run the worker. Never returns, nor runs exit handlers."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # The C function: `signal.signal` makes an enum of the old handler, 30 pages to copy.
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                _signal.signal(number, _signal.SIG_DFL)
            _signal.signal(signal.SIGINT, signal.default_int_handler)
            processes.raise_oom_score(processes.WORKER_OOM_SCORE)
            self.bootstrap.stand_by()
            try:
                preparation = stand_by(self.isolation, spaces, self.runtime, self.program)
            except OSError as exc:
                channel.send(str(exc).encode(errors="replace")[:4096])
                raise
            message, numbers, _, _ = socket.recv_fds(channel, MESSAGE, 253)
            # An empty message is end of file: the zygote is gone, and PDEATHSIG is on its way.
            if message:
                first, last = 3, 3 + message[0]
                procs_files, mounts = numbers[first:last], numbers[last:]
                request, answer, log = numbers[:3]
                descriptors = Descriptors(request, answer, log, procs_files, mounts)
                try:
                    enter(preparation, Sandbox(**_scan(message[1:].decode(), 0)[0]), descriptors)
                except OSError as exc:
                    os.write(log, f"The sandbox cannot be entered: {exc}\n".encode())
                    raise
                # The modules are kept: to free them would write to pages that are shared with the
                # zygote. __main__ is an empty module, because multiprocessing runs the file of
                # __main__ again in each process that it spawns.
                self.removed_modules = [sys.modules.pop(name) for name in self.own_modules]
                sys.modules["__main__"] = type(sys)("__main__")
                status = self.bootstrap.main()
        except SystemExit as exc:
            status = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
            if status and not isinstance(exc.code, int):
                os.write(2, f"{exc.code}\n".encode(errors="backslashreplace"))
        except BaseException:  # noqa: BLE001 - it is logged, and this copy ends below
            os.write(2, traceback.format_exc().encode()[-4096:])
        finally:
            os._exit(status & 0xFF)


def _kill_init(init: int) -> None:
    """Kill the init of a pid namespace, and with it all that is in there; 0 is none."""
    if init:
        try:
            os.kill(init, signal.SIGKILL)
        except ProcessLookupError:
            return  # it died before


def _read_error(channel: socket.socket) -> str:
    """Return the error that a standby worker sent before it ended, or ""."""
    try:
        return channel.recv(MESSAGE, socket.MSG_DONTWAIT).decode(errors="replace")
    except OSError:
        return ""


def load_bootstrap(workers: str):  # noqa: ANN201 - a module that only exists at run time
    """Import the Python worker from its file, under a name that no function imports."""
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
        return  # the supervisor is gone: the loop in `main` sees that next
