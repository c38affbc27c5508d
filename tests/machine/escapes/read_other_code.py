"""Read the code of another function.

Stopped by a root directory of its own, which has no other code; without one, by Landlock.
"""

import os

from linux import first, read


def handler(event: dict, context: object) -> dict:
    return first(
        lambda: os.listdir(event["code"]),
        lambda: read(os.path.join(event["code"], "app.py")),
        lambda: os.listdir(os.path.dirname(event["code"])),
    )
