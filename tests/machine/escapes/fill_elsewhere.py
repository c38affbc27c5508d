"""Write anywhere but to /tmp, where no limit counts it.

Stopped by a read-only root directory, and by Landlock. The files are removed.
"""

import os
import tempfile

PLACES = ("/var/tmp", "/dev/shm", "/run", "/run/lock", "/", "/home", "/root", "/usr", "/etc", ".")


def handler(event: dict, context: object) -> dict:
    own = os.path.realpath(tempfile.gettempdir())
    places = {os.path.realpath(path) for path in PLACES}
    places |= {os.path.realpath(os.environ.get("LAMBDA_TASK_ROOT", "/"))}
    places |= {os.path.realpath(event["host_directory"]), os.path.realpath(os.path.expanduser("~"))}
    written = []
    for place in sorted(places - {own}):
        path = os.path.join(place, f"minilambda-escape-{os.getpid()}")
        try:
            with open(path, "wb") as file:
                file.write(b"x" * 4096)
            os.unlink(path)
            written.append(place)
        except OSError:
            continue
    return {"escaped": bool(written), "seen": f"written: {written}"}
