"""Open what the supervisor keeps: the registry, the /tmp of others, its directory.

Stopped by a root directory of its own, in which there is none of it; without, by Landlock.
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
