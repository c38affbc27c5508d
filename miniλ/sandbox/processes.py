"""Processes: how those of a worker are found and ended if no cgroup lists them.

Theory of operation: a worker's first process carries its worker id in its initial environment
block, the one that /proc/<pid>/environ shows. A child that it forks inherits the block; a program
that it execs gets the id by way of AWS_LAMBDA_LOG_STREAM_NAME. So a scan of /proc finds a
worker's processes also when they called setsid and their parents are gone. A process that
both clears its environment and execs escapes: that is why this is `soft`.

A worker id starts with the id of its supervisor's instance, so the same scan finds all processes
that a dead supervisor left behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# The same on every architecture, as all system calls that are younger than Linux 5.1.
SYS_CLOSE_RANGE = 436

# The zygote is started with this variable; `mark` overwrites its value in place.
MARK = "MINILAMBDA_WORKER"
MARK_LENGTH = 32

# They decide which process the kernel kills when the host runs out of memory
# (proc_pid_oom_score_adj(5)): each 1 counts as a thousandth of all memory. A worker is one
# invocation, so it is killed before any other process. A zygote takes all its workers along, so it
# comes after them: a worker that is smaller by half of all memory is still killed first. The zygote
# comes before the supervisor and before other processes of the host.
WORKER_OOM_SCORE = 1000
ZYGOTE_OOM_SCORE = 500


_libc = ctypes.CDLL(None, use_errno=True)
_libc.getenv.restype = ctypes.c_void_p
# Looked up now, in the zygote: a worker has emptied its environment when it is marked.
_mark_address = _libc.getenv(MARK.encode())


def adopt_orphans() -> None:
    """Become the parent of every orphan below (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def die_with_parent() -> None:
    """Be killed when the parent dies (prctl(2), PR_SET_PDEATHSIG).

    Call it again after every change of uid, which clears it silently. Advisory: the process
    can clear it itself, and its children do not inherit it.
    """
    if _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def raise_oom_score(least: int) -> None:
    """Be killed earlier than others when memory runs out; children and their programs inherit it.

    A score that is higher already, from a container engine, stays. If the zygote has
    CAP_SYS_RESOURCE, a worker cannot lower it again; else it can, to the supervisor's score, unless
    Landlock keeps it from writing to /proc.
    """
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)
        try:
            if int(os.read(descriptor, 16)) < least:
                os.pwrite(descriptor, str(least).encode(), 0)
        finally:
            os.close(descriptor)
    except OSError:
        pass  # no /proc, or one of another kernel: then the kernel's own order holds


def close_from(first: int) -> None:
    """Close every descriptor from this number on (close_range(2), Linux 5.9)."""
    if _libc.syscall(ctypes.c_long(SYS_CLOSE_RANGE), first, ctypes.c_uint(~0 & 0xFFFFFFFF), 0) == 0:
        return
    # Not closerange: before Python 3.10 that is a system call per number, up to a million.
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= first:
            try:
                os.close(int(name))
            except OSError:
                continue  # the listing's own descriptor is closed already


def mark(worker_id: str) -> None:
    """Write the worker id over the zygote's placeholder in the initial environment block."""
    if _mark_address:
        ctypes.memmove(_mark_address, worker_id.encode()[:MARK_LENGTH], MARK_LENGTH)


def marked(mark_: str) -> set[int]:
    """Return the pids whose environment holds `mark_`, and all their descendants."""
    return _marked(mark_, _scan())


def memory(marks: list[str]) -> dict[str, int]:
    """Return the memory (PSS, bytes) of the process tree behind each mark, by one scan of /proc."""
    processes = _scan()
    return {mark_: sum(_pss(pid) for pid in _marked(mark_, processes)) for mark_ in marks}


def tasks_of_user() -> int:
    """Return how many processes and threads this user has, which is what RLIMIT_NPROC counts."""
    total = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == os.getuid():
                total += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended meanwhile
    return total


def _scan() -> dict[int, tuple[int, bytes]]:
    """Return parent and environment of every other live process that this one may read."""
    processes = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            state, parent = _stat(name)
            if state not in (b"Z", b"X"):
                with open(f"/proc/{name}/environ", "rb") as file:
                    processes[int(name)] = (parent, file.read())
        except OSError:
            continue  # it has ended meanwhile, or belongs to another user
    return processes


def _marked(mark_: str, processes: dict[int, tuple[int, bytes]]) -> set[int]:
    needle = mark_.encode()
    pids = {pid for pid, (_, environment) in processes.items() if needle in environment}
    grew = True
    while grew:
        children = {pid for pid, (parent, _) in processes.items() if parent in pids} - pids
        pids |= children
        grew = bool(children)
    return pids


def _stat(name: str) -> tuple[bytes, int]:
    """Return state and parent of a process (proc_pid_stat(5))."""
    with open(f"/proc/{name}/stat", "rb") as file:
        # The command's name may hold spaces and parentheses: count from the last one.
        fields = file.read().rpartition(b")")[2].split()
    return fields[0], int(fields[1])


def _pss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended meanwhile
    return 0


def kill_marked(mark_: str) -> int:
    """Kill every process of a worker or an instance; return how many there were.

    They are stopped first: a stopped process cannot fork away from the list.
    """
    stopped: set[int] = set()
    while True:
        pids = marked(mark_)
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        if pids == marked(mark_) or pids <= stopped:
            for pid in pids:
                _signal(pid, signal.SIGKILL)
            return len(stopped | pids)
        stopped |= pids


def kill_children() -> None:
    """Kill and reap the children and adopted orphans of this process, for up to 5 s."""
    deadline = time.monotonic() + 5.0
    while time.monotonic() < deadline:
        children = _children()
        if not children:
            return
        for pid in children:
            _signal(pid, signal.SIGSTOP)
        for pid in children:
            _signal(pid, signal.SIGKILL)
        # As they die, their children become this process's: wait for one death, then list again.
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    children = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and _stat(name)[1] == os.getpid():
                children.append(int(name))
        except OSError:
            continue  # it has ended meanwhile
    return children


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return  # it has ended, or runs as another user now
