"""A function that tries to break the limits of its own worker; `../doctor.py` invokes it.

Each `probe_` does one thing that a limit forbids and returns {"held": bool, "seen": text}. A worker
that is killed for it returns nothing, and the doctor reads that from the failure. `miniλ/sandbox/
probe.py` is about the kernel instead: which mechanisms it gives, before there is a worker.

Rule 1: an exception of a probe says that the limit was not tried, MemoryError excepted.

Rule 2: the standard library only, in any Python that a function can have.
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
    """Run the probe that the event names."""
    return globals()["probe_" + event["probe"]](event)


def probe_memory(event):
    """Touch twice the memory size, shared: RLIMIT_DATA does not count such pages."""
    try:
        memory = mmap.mmap(-1, 2 * event["megabytes"] * MB)
    except OSError as exc:
        return {"held": True, "seen": exc.strerror}
    for start in range(0, len(memory), 4096):
        memory[start] = 1
    time.sleep(2)  # a soft limit is polled every 100 ms
    return {"held": False, "seen": f"{len(memory) // MB} MB were touched"}


def probe_cpu(event):
    """Spin for half a second and measure which share of a CPU this process got."""
    began, used = time.monotonic(), time.process_time()
    while time.monotonic() < began + 0.5:
        pass
    share = (time.process_time() - used) / (time.monotonic() - began)
    return {"held": share < 2 * event["share"], "seen": f"{share:.0%} of a CPU"}


def probe_processes(event):
    """Fork until the kernel refuses."""
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


def probe_descriptors(event):
    """Open descriptors until the kernel refuses."""
    opened, why = [], "none was refused"
    try:
        while len(opened) < event["count"] + 50:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as exc:
        why = exc.strerror
    for descriptor in opened:
        os.close(descriptor)
    return {"held": len(opened) < event["count"], "seen": f"{len(opened)} open, {why}"}


def probe_tmp(event):
    """Fill /tmp beyond its size, in two files: a limit per file does not limit their sum."""
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
    time.sleep(event["wait"])  # longer than the interval at which a soft limit is polled
    for name in ("one", "two"):
        os.unlink(os.path.join(os.environ["TMPDIR"], name))
    return {"held": written <= event["megabytes"] * MB, "seen": f"{written // MB} MB, {why}"}


def probe_timeout(event):
    """Never return, with every signal blocked that can be."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        time.sleep(1)


def probe_files(event):
    """Read a file of the supervisor's."""
    try:
        with open(event["path"], "rb") as file:
            seen = f"{len(file.read())} bytes of {event['path']} were read"
    except OSError as exc:
        return {"held": True, "seen": exc.strerror}
    return {"held": False, "seen": seen}


def probe_sockets(event):
    """Connect to a Unix socket of the supervisor's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(event["path"])
        except OSError as exc:
            return {"held": True, "seen": exc.strerror}
    return {"held": False, "seen": "it was connected to"}


def probe_siblings(event):
    """Send the supervisor signal 0, which only checks the permission (kill(2))."""
    try:
        os.kill(event["pid"], 0)
    except OSError as exc:
        return {"held": True, "seen": exc.strerror}
    return {"held": False, "seen": f"process {event['pid']} may be signalled"}


def probe_syscalls(event):
    """Call ptrace(2) with PTRACE_TRACEME, which seccomp forbids and no function needs."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(0, 0, 0, 0) == 0:
        return {"held": False, "seen": "ptrace worked"}
    return {"held": True, "seen": os.strerror(ctypes.get_errno())}


def probe_network(event):
    """Connect to a port of the host's loopback."""
    try:
        with socket.create_connection(("127.0.0.1", event["port"]), timeout=1):
            return {"held": False, "seen": f"port {event['port']} of the host was reached"}
    except OSError as exc:
        return {"held": True, "seen": exc.strerror or str(exc)}


def probe_freeze(event):
    """Start a thread that counts beyond the answer; the next invocation returns its count."""
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


def probe_kill(event):
    """Leave a daemon: reparented, in a session of its own, without environment or open pipes."""
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
