"""Resource limits of a worker (setrlimit(2)): the soft limit is also the hard one.

RLIMIT_AS is never used: Node, Go, Java and .NET reserve far more than they use, and crash or
hang under it. RLIMIT_DATA counts private writable mappings (kernel 4.7 and newer): brk, private
anonymous memory and thread stacks, touched or not. It gives Python a clean MemoryError. It does
not count shared mappings, and each child has its own, so a cgroup or a poll stands behind it.
"""

from __future__ import annotations

import ctypes
import resource

# RLIMIT_DATA counts memory that is mapped, not memory that is touched: `import numpy` maps some
# 100 MB and 64 threads map 64 stacks. The slack is the part that Lambda would not count.
DATA_SLACK = 160 * 1024 * 1024

# glibc gives each thread a stack of the soft RLIMIT_STACK, 8 MB: 64 threads would be 512 MB.
THREAD_STACK = 1024 * 1024


def apply(data: int, file: int | None, descriptors: int, processes: int | None) -> None:
    """Limit this process and its children. Raises OSError or ValueError if the kernel refuses.

    `file` is None if /tmp is a file system of its size; `processes` is None if a cgroup limits
    them, or if RLIMIT_NPROC does not bind (root).
    """
    # A core file would be a function's memory on the host's disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, _at_most(resource.RLIMIT_DATA, data))
    if file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, _at_most(resource.RLIMIT_FSIZE, file))
    resource.setrlimit(resource.RLIMIT_NOFILE, _at_most(resource.RLIMIT_NOFILE, descriptors))
    if processes is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, _at_most(resource.RLIMIT_NPROC, processes))


def _at_most(which: int, value: int) -> tuple[int, int]:
    """Return `value` as soft and hard limit, or this process's hard limit if that is lower."""
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    return (value, value)


def shrink_thread_stacks() -> None:
    """Give threads that C or Python starts from now on a stack of `THREAD_STACK`.

    glibc reads RLIMIT_STACK once, when a process starts, so a worker that was forked cannot
    change its threads' stacks with setrlimit; pthread_setattr_default_np(3) can. The main
    thread keeps its 8 MB.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "pthread_setattr_default_np"):
        return  # musl: its threads have 128 kB, less than `THREAD_STACK`
    attributes = ctypes.create_string_buffer(256)
    libc.pthread_attr_init(attributes)
    libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(THREAD_STACK))
    libc.pthread_setattr_default_np(attributes)
    libc.pthread_attr_destroy(attributes)
