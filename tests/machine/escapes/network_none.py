"""Reach a port of the host, and interfaces other than the loopback, in spite of network="none".

Stopped by a network namespace of its own.
"""

import socket

from linux import first


def handler(event: dict, context: object) -> dict:
    def connect() -> str:
        with socket.create_connection(("127.0.0.1", event["port"]), timeout=2):
            return f"port {event['port']} of the host was reached"

    def interfaces() -> str:
        names = [name for _, name in socket.if_nameindex() if name != "lo"]
        if not names:
            raise OSError("the loopback is the only interface")
        return f"interfaces {names}"

    return first(connect, interfaces)
