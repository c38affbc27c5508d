"""Recovery of a damaged SQLite file: every row that can still be read.

Two ways, both on a copy: around the damage, by ranges of rowids that are halved until they can be
read; and, if no range can be read, with SQLite's header (the first 100 bytes) of a sound file. All
of a header but the number of pages can be taken from another file of the same schema.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# Failed reads after which the rest of a file is given up: a read takes microseconds.
MAX_FAILURES = 10_000
# Bytes of SQLite's header.
HEADER = 100


def rows(damaged: str, sound: Path, select: str) -> list[tuple[Any, ...]]:
    """Return the readable rows of a damaged file, which stays as it is.

    `select` takes a first and a last rowid. `sound` is a file with the same tables and an empty
    log.
    """
    copy = f"{damaged}.copy"
    for mend in (False, True):
        try:
            for end in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{damaged}{end}", f"{copy}{end}")
            if mend:
                _mend(copy, sound)
            readable = _readable(copy, select)
        finally:
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{copy}{end}")
        if readable:
            break
    return readable


def _mend(path: str, sound: Path) -> None:
    """Give a file the header of another, with its own number of pages.

    The header has the page size at byte 16, the number of pages at byte 28.

    Source: https://www.sqlite.org/fileformat.html, "The Database Header".
    """
    with sound.open("rb") as file:
        header = bytearray(file.read(HEADER))
    page = int.from_bytes(header[16:18], "big")
    header[28:32] = (os.path.getsize(path) // page).to_bytes(4, "big")
    with open(path, "r+b") as file:
        file.write(header)


def _readable(path: str, select: str) -> list[tuple[Any, ...]]:
    """Return the rows that can be read: all at once, else by halves."""
    readable: list[tuple[Any, ...]] = []
    ranges, failures = [(1, 1 << 62)], 0
    with contextlib.closing(sqlite3.connect(path)) as broken:
        while ranges and failures < MAX_FAILURES:
            first, last = ranges.pop()
            try:
                readable += broken.execute(select, (first, last)).fetchall()
            except sqlite3.DatabaseError:
                failures += 1
                if first < last:
                    middle = (first + last) // 2
                    ranges += [(middle + 1, last), (first, middle)]
    return readable
