"""Trace another worker, or read its memory by process_vm_readv(2).

Stopped by seccomp, and behind it by a pid namespace, a user of its own or Landlock. The tracer is
a child that exits at once, which ends the trace.
"""

import ctypes

from linux import call, first_in_children, pids

PTRACE_SEIZE = 0x4206


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def handler(event: dict, context: object) -> dict:
    sibling = event["sibling"]

    def seize() -> str:
        call("ptrace", PTRACE_SEIZE, sibling, 0, 0)
        return f"{sibling} was traced"

    def peek() -> str:
        if sibling not in pids():
            raise ProcessLookupError(f"{sibling} is not in /proc")
        with open(f"/proc/{sibling}/maps") as file:
            start = int(next(line for line in file if " rw-p " in line).partition("-")[0], 16)
        buffer = ctypes.create_string_buffer(8)
        here = _Vector(ctypes.addressof(buffer), 8)
        there = _Vector(start, 8)
        call("process_vm_readv", sibling, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
        return f"memory of {sibling} was read"

    return first_in_children(seize, peek)
