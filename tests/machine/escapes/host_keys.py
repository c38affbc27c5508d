"""Read what only root may of the configuration that a worker needs parts of: private keys.

Stopped by a user of its own, for whom the permissions of files hold.
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
