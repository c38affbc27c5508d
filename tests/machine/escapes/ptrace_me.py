"""Be traced by the parent process: ptrace(2), PTRACE_TRACEME, a large part of the kernel.

Stopped by seccomp. Tried in a child, which exits at once.
"""

from linux import call, first_in_children


def handler(event: dict, context: object) -> dict:
    return first_in_children(lambda: call("ptrace", 0, 0, 0, 0))
