"""Fill /tmp beyond its size: in two files, since a bound per file is not a bound of them all.

Stopped by a file system of exactly that size. A look twice a second, where there is none, comes
too late for who is quick.
"""

import os
import tempfile

MB = 1 << 20


def handler(event: dict, context: object) -> dict:
    written, why = 0, "nothing was refused"
    paths = [os.path.join(tempfile.gettempdir(), name) for name in ("one", "two")]
    for path in paths:
        with open(path, "wb") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, 264 * MB)
                written += 264
            except OSError as exc:
                why = exc.strerror
    for path in paths:
        os.unlink(path)
    return {"escaped": written > 512, "seen": f"{written} MB; {why}"}
