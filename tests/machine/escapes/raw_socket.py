"""Read packets of the network: by a packet socket, a raw one, and as root of a user namespace.

Stopped by dropped capabilities, and by seccomp with EAFNOSUPPORT.
"""

import socket

from linux import CLONE_NEWNET, first_in_children, unshare_user


def handler(event: dict, context: object) -> dict:
    def packet() -> str:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0):
            return "a packet socket"

    def raw() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
            return "a raw socket"

    def in_namespace() -> str:
        unshare_user(CLONE_NEWNET)
        return packet()

    return first_in_children(packet, raw, in_namespace)
