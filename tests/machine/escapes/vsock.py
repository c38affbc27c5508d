"""Talk to the hypervisor: a socket of AF_VSOCK, which no network namespace parts.

Stopped by seccomp, for which the family does not exist.
"""

import socket

from linux import first

AF_VSOCK = 40


def handler(event: dict, context: object) -> dict:
    def make() -> str:
        with socket.socket(AF_VSOCK, socket.SOCK_STREAM):
            return "a socket to the hypervisor"

    return first(make)
