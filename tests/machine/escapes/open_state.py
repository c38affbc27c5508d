"""Open the supervisor's files: its directory, the registry, the /tmp of other workers.

Stopped by a root directory of its own, which has none of them; without one, by Landlock.
"""

import os

from linux import first, read


def handler(event: dict, context: object) -> dict:
    return first(
        lambda: read(event["registry"]),
        lambda: os.listdir(os.path.dirname(event["registry"])),
        lambda: os.listdir(event["tmp"]),
        lambda: os.close(os.open(event["registry"], os.O_WRONLY)) or "the registry may be written",
    )
