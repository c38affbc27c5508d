"""This module is salvage: the rows of a damaged SQLite file that can still be read.

Two ways: around what is damaged, by ranges of rows that become smaller; and, where not even that
begins, with the head of a sound file: most of what is in a head can be had anew. Both in a copy.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# So often may a file not be read before it is given up: a probe takes microseconds.
MOST_FAILURES = 10_000
HEAD = 100


def rows(damaged: str, sound: Path, select: str) -> list[tuple[Any, ...]]:
    """Return what `select`, which takes a first and a last rowid, still finds in a damaged file.

    `sound` is a file with the same tables and nothing in its log; `damaged` stays as it is.
    """
    copy = f"{damaged}.copy"
    for mend in (False, True):
        try:
            for end in ("", "-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(f"{damaged}{end}", f"{copy}{end}")
            if mend:
                _mend(copy, sound)
            found = _readable(copy, select)
        finally:
            for end in ("", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{copy}{end}")
        if found:
            break
    return found


def _mend(path: str, sound: Path) -> None:
    """Give a file another's head, with its own length in it: bytes 16 and 28.

    Source: https://www.sqlite.org/fileformat.html, "The Database Header".
    """
    with sound.open("rb") as file:
        head = bytearray(file.read(HEAD))
    page = int.from_bytes(head[16:18], "big")
    head[28:32] = (os.path.getsize(path) // page).to_bytes(4, "big")
    with open(path, "r+b") as file:
        file.write(head)


def _readable(path: str, select: str) -> list[tuple[Any, ...]]:
    """Return the rows that can be read: by halves, where all of them cannot."""
    found: list[tuple[Any, ...]] = []
    ranges, failures = [(1, 1 << 62)], 0
    with contextlib.closing(sqlite3.connect(path)) as broken:
        while ranges and failures < MOST_FAILURES:
            first, last = ranges.pop()
            try:
                found += broken.execute(select, (first, last)).fetchall()
            except sqlite3.DatabaseError:
                failures += 1
                if first < last:
                    middle = (first + last) // 2
                    ranges += [(middle + 1, last), (first, middle)]
    return found
