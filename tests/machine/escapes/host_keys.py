"""Read the parts of /etc that only root may read: private keys and passwords.

Stopped by a root directory of its own, which has the other parts alone; else by Landlock.
"""

import os

from linux import first

PLACES = ("/etc/ssl/private", "/etc/pki/tls/private", "/etc/shadow", "/etc/gshadow")


def handler(event: dict, context: object) -> dict:
    def look(path: str) -> str:
        if os.path.isdir(path):
            return f"{path}: {os.listdir(path)}"
        with open(path, "rb") as file:
            return f"{path}: {len(file.read())} bytes"

    return first(*(lambda path=path: look(path) for path in PLACES))
