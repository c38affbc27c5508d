"""Attach to shared memory of a process of the host (shmget(2)), which is no file.

Stopped by an ipc namespace.
"""

from linux import call, first


def handler(event: dict, context: object) -> dict:
    return first(lambda: f"segment {call('shmget', event['key'], 0, 0)} is there")
