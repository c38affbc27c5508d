"""Reach the network without having one: a port of the host, and interfaces but the loopback's.

Stopped by a network namespace of its own, for a function that asks for none.
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
            raise OSError("there is the loopback only")
        return f"interfaces {names}"

    return first(connect, interfaces)
