"""Talk to a process of the host through a socket that is a file, such as a container engine's.

Stopped by a root directory of its own, which has none.
"""

import socket

from linux import first


def handler(event: dict, context: object) -> dict:
    def connect() -> str:
        with socket.socket(socket.AF_UNIX) as ours:
            ours.connect(event["socket"])
            return f"connected to {event['socket']}"

    return first(connect)
