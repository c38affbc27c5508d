"""Signal the supervisor, with signal 0, which only checks the right to.

Stopped by a pid namespace, in which it has no pid, and by Landlock's scope (ABI 6).
"""

import os
import signal

from linux import first


def handler(event: dict, context: object) -> dict:
    pid = event["supervisor"]

    def by_pidfd() -> str:
        descriptor = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(descriptor, 0)
        finally:
            os.close(descriptor)
        return f"a pidfd of {pid} may be signalled"

    return first(lambda: os.kill(pid, 0) or f"{pid} may be signalled", by_pidfd)
