"""This module is a function that tries to break what is said to hold it: see ../doctor.py.

Each `try_` does one thing that a limit forbids and returns {"held": bool, "seen": text}. One that
is killed for it does not return, and whoever invoked it sees that. Standard library only.
"""

import ctypes
import mmap
import os
import resource
import signal
import socket
import sys
import threading
import time

MB = 1024 * 1024
COUNTED = [0]


def handler(event, context):
    """Run the attempt that the event names."""
    return globals()["try_" + event["try"]](event)


def try_memory(event):
    """Touch twice the memory size, shared: RLIMIT_DATA does not see it."""
    held = mmap.mmap(-1, 2 * event["megabytes"] * MB)
    for start in range(0, len(held), 4096):
        held[start] = 1
    time.sleep(2)  # a poll may need a moment to see it
    return {"held": False, "seen": f"{len(held) // MB} MB were touched"}


def try_cpu(event):
    """Spin for half a second and see how much of it was ours."""
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() < began + 0.5:
        pass
    share = (time.process_time() - used) / (time.monotonic() - began)
    return {"held": share < 2 * event["share"], "seen": f"{share:.0%} of a CPU"}


def try_processes(event):
    """Fork until the kernel says no."""
    children, why = [], "none was refused"
    try:
        while len(children) < event["count"] + 50:
            pid = os.fork()
            if pid == 0:
                signal.pause()
            children.append(pid)
    except OSError as exc:
        why = exc.strerror
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"held": len(children) <= event["count"], "seen": f"{len(children)} forks, {why}"}


def try_descriptors(event):
    """Open until the kernel says no."""
    opened, why = [], "none was refused"
    try:
        while len(opened) < event["count"] + 50:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        why = exc.strerror
    for descriptor in opened:
        os.close(descriptor)
    return {"held": len(opened) < event["count"], "seen": f"{len(opened)} open, {why}"}


def try_tmp(event):
    """Fill /tmp beyond its size, in two files: a bound per file is not a bound of them all."""
    written = 0
    why = "nothing was refused"
    for name in ("one", "two"):
        path = os.path.join(os.environ["TMPDIR"], name)
        size = (event["megabytes"] // 2 + 8) * MB
        with open(path, "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
                written += size
            except OSError as exc:
                why = exc.strerror
    time.sleep(event["wait"])  # a look at its size may come only now and then
    for name in ("one", "two"):
        os.unlink(os.path.join(os.environ["TMPDIR"], name))
    return {"held": written <= event["megabytes"] * MB, "seen": f"{written // MB} MB, {why}"}


def try_timeout(event):
    """Never return, whatever signal comes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(1)


def try_files(event):
    """Read a file of the supervisor's."""
    try:
        with open(event["path"], "rb") as file:
            seen = f"{len(file.read())} bytes of {event['path']} were read"
    except OSError as exc:
        return {"held": True, "seen": exc.strerror}
    return {"held": False, "seen": seen}


def try_sockets(event):
    """Connect to a socket of the supervisor's that is a file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(event["path"])
        except OSError as exc:
            return {"held": True, "seen": exc.strerror}
    return {"held": False, "seen": "it was connected to"}


def try_siblings(event):
    """Send the supervisor a signal: 0, which only asks whether one may."""
    try:
        os.kill(event["pid"], 0)
    except OSError as exc:
        return {"held": True, "seen": exc.strerror}
    return {"held": False, "seen": f"process {event['pid']} may be signalled"}


def try_syscalls(event):
    """Trace ourselves by whoever wants to (ptrace(2), PTRACE_TRACEME), which is never needed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0, 0, 0, 0) == 0:
        return {"held": False, "seen": "ptrace worked"}
    return {"held": True, "seen": os.strerror(ctypes.get_errno())}


def try_network(event):
    """Reach a port of the host's."""
    try:
        with socket.create_connection(("127.0.0.1", event["port"]), timeout=1):
            return {"held": False, "seen": f"port {event['port']} of the host was reached"}
    except OSError as exc:
        return {"held": True, "seen": exc.strerror or str(exc)}


def try_freeze(event):
    """Count on in a thread after the answer; the second time, say how far that went."""
    if COUNTED[0]:
        before = COUNTED[0]
        COUNTED[0] = 0
        return {"counted": before}

    def count():
        COUNTED[0] = 1
        while COUNTED[0]:
            COUNTED[0] += 1
            time.sleep(0.001)

    threading.Thread(target=count, daemon=True).start()
    return {"counted": 0}


def try_kill(event):
    """Leave a daemon: nobody's child, in a session of its own, with nothing to know it by."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in range(resource.getrlimit(resource.RLIMIT_NOFILE)[0]):
                if descriptor != null:
                    try:
                        os.dup2(null, descriptor)
                    except OSError:
                        break
            code = "import time; time.sleep(600)"
            os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", code, event["token"]], {})
        os._exit(0)
    os.wait()
    return {}
