"""Talk to the hypervisor through a socket of AF_VSOCK, which network namespaces do not confine.

Stopped by seccomp with EAFNOSUPPORT.
"""

import socket

from linux import first

AF_VSOCK = 40


def handler(event: dict, context: object) -> dict:
    def make() -> str:
        with socket.socket(AF_VSOCK, socket.SOCK_STREAM):
            return "a socket to the hypervisor"

    return first(make)
