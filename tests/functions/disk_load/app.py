"""Writes event["mb"] MB to its /tmp in pieces, and reads them back."""

import hashlib
import os
import tempfile

PIECE = 256 * 1024


def handler(event, context):
    """Return how many bytes were read back, their SHA-256, where they lay, and beside what.

    Piece i is the number i as 4 bytes, big-endian, over and over.
    """
    pieces = event["mb"] * 1024 * 1024 // PIECE
    descriptor, path = tempfile.mkstemp(prefix="load-")
    with os.fdopen(descriptor, "wb") as file:
        for number in range(pieces):
            file.write(number.to_bytes(4, "big") * (PIECE // 4))
        file.flush()
        os.fsync(file.fileno())
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
    directory = os.path.dirname(path)
    beside = [name for name in os.listdir(directory) if name != os.path.basename(path)]
    os.unlink(path)
    return {
        "bytes": size,
        "sha256": digest.hexdigest(),
        "directory": directory,
        "beside": beside,
    }
