"""Misbehaves: each handler in a way of its own, and no further than a host can bear.

Whoever eats or fills stops well above the limit that should have ended it, and answers "not held".
"""

import ctypes
import mmap
import os
import signal
import time

MB = 1 << 20
# Above every memory size and /tmp that it is given.
FAR = 700
ANSWER_FD = 4


def exits(event, context):
    """Leave without an answer."""
    os._exit(3)


def kills_itself(event, context):
    """End by the signal that nobody can catch."""
    os.kill(os.getpid(), signal.SIGKILL)


def segfaults(event, context):
    """Read where nothing is."""
    ctypes.string_at(0)


def raises(event, context):
    """Fail as functions usually do."""
    raise ValueError("on purpose")


def sleeps(event, context):
    """Outlast the timeout."""
    time.sleep(60)


def eats_private(event, context):
    """Touch private memory, a megabyte at a time."""
    kept = [bytearray(b"x") * MB for _ in range(FAR)]
    return f"not held: {len(kept)} MB"


def eats_shared(event, context):
    """Touch shared memory, which no limit of a single process counts."""
    kept = []
    for _ in range(FAR // 16):
        kept.append(mmap.mmap(-1, 16 * MB))
        kept[-1].write(b"x" * (16 * MB))
    return f"not held: {len(kept) * 16} MB"


def leaves_children(event, context):
    """Fork: three children that nobody waits for, and a daemon that ignores SIGTERM."""
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(0.01)
            os._exit(0)
    middle = os.fork()
    if middle == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.waitpid(middle, 0)
    return "left"


def fills_tmp(event, context):
    """Fill /tmp and leave it so; where only a look holds it, wait to be seen.

    By names of its own: tempfile would first try to write, and a predecessor may have filled it.
    """
    for _ in range(FAR):
        path = os.path.join(os.environ["TMPDIR"], os.urandom(8).hex())
        try:
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, MB)
        except OSError as exc:
            return exc.strerror
    time.sleep(5)
    return "not held"


def prints(event, context):
    """Print 10 MB."""
    for _ in range(10):
        print("x" * (MB - 1))
    return "printed"


def garbles(event, context):
    """Write what is no frame where answers go."""
    os.write(ANSWER_FD, b"not a frame" * 100)
    time.sleep(60)


def answers_hugely(event, context):
    """Answer more than the 6 MB that there may be."""
    return "x" * (7 * MB)


def closes_all(event, context):
    """Close every descriptor, those of the protocol and of the log too."""
    os.closerange(0, 1024)
