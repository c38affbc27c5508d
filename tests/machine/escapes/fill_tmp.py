"""Fill /tmp beyond its size: in two files, since RLIMIT_FSIZE limits each file alone.

Stopped by a file system of exactly that size. Without one the size is polled every 500 ms, which
is too slow for this function.
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
