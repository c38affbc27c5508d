"""Tests of recovery: which rows of a damaged file can be read, and that the file stays as it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from miniλ.events import recovery

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

PAGE = 4096
# No page behind the last row of a range is read: that page may be damaged.
SELECT = "SELECT number, text FROM rows WHERE number BETWEEN ?1 AND ?2 LIMIT 1 + ?2 - ?1"
ROWS = [(number, f"row {number} " + "x" * 3000) for number in range(1, 61)]


def make(path: Path, rows: Iterable[tuple[int, str]] = ()) -> Path:
    """Make a sound file, a page for a row, with nothing in its log."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        with database:
            database.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
            database.executemany("INSERT INTO rows VALUES (?, ?)", rows)
    return path


def damage(path: Path, first: int, size: int) -> bytes:
    """Write zeros into a file; return all that is in it then."""
    content = bytearray(path.read_bytes())
    content[first : first + size] = bytes(size)
    path.write_bytes(content)
    return bytes(content)


def page_of(path: Path, number: int) -> int:
    """Return where the page begins that a row is in."""
    return path.read_bytes().index(f"row {number} ".encode()) // PAGE * PAGE


def test_all_rows_of_a_sound_file_are_found(tmp_path: Path) -> None:
    """Each once, and as it is."""
    path = make(tmp_path / "a", ROWS)

    assert ROWS == recovery.rows(str(path), make(tmp_path / "sound"), SELECT)


def test_rows_around_a_damaged_page_are_found(tmp_path: Path) -> None:
    """Damaged pages in any places: each row but theirs is found once, in order."""
    path = make(tmp_path / "a", ROWS)
    for number in (10, 11, 40):
        damage(path, page_of(path, number), PAGE)

    rows = recovery.rows(str(path), make(tmp_path / "sound"), SELECT)
    assert [row for row in ROWS if row[0] not in {10, 11, 40}] == rows


@pytest.mark.parametrize("size", [16, 100])
def test_rows_without_a_head_are_found(tmp_path: Path, size: int) -> None:
    """A sound file's head is put on a copy, and the copy is gone afterwards."""
    path = make(tmp_path / "a", ROWS)
    sound = make(tmp_path / "sound")
    content, other = damage(path, 0, size), sound.read_bytes()

    assert ROWS == recovery.rows(str(path), sound, SELECT)
    assert (content, other) == (path.read_bytes(), sound.read_bytes())
    assert ["a", "sound"] == sorted(os.listdir(tmp_path))


def test_rows_without_a_head_and_a_page_are_found(tmp_path: Path) -> None:
    """Both at once."""
    path = make(tmp_path / "a", ROWS)
    damage(path, page_of(path, 30), PAGE)
    damage(path, 0, 100)

    rows = recovery.rows(str(path), make(tmp_path / "sound"), SELECT)
    assert [row for row in ROWS if row[0] != 30] == rows


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100, b"SQLite format 3\0" * 1000])
def test_where_there_is_nothing_nothing_is_found(tmp_path: Path, content: bytes) -> None:
    """It ends, leaves the file as it is, and nothing beside it."""
    path = tmp_path / "a"
    path.write_bytes(content)

    assert [] == recovery.rows(str(path), make(tmp_path / "sound"), SELECT)
    assert content == path.read_bytes()
    assert ["a", "sound"] == sorted(os.listdir(tmp_path))


def test_a_file_that_fails_too_often_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read until then is kept: a start does not take for ever."""
    path = make(tmp_path / "a", ROWS)
    damage(path, page_of(path, 60), PAGE)
    sound = make(tmp_path / "sound")

    assert ROWS[:59] == recovery.rows(str(path), sound, SELECT)
    # 1 to 2**62 fails, and each half that has row 60: after 57 halvings 1 to 64 is read as 1 to 32.
    monkeypatch.setattr(recovery, "MAX_FAILURES", 58)
    assert ROWS[:32] == recovery.rows(str(path), sound, SELECT)


def test_a_damaged_file_with_a_log_stays_as_it_is(tmp_path: Path) -> None:
    """Rows in the log of a crash are read, and not written into the file; the log stays too."""
    path = make(tmp_path / "a", ROWS[:40])
    with closing(sqlite3.connect(path)) as database:
        with database:
            database.executemany("INSERT INTO rows VALUES (?, ?)", ROWS[40:])
        crashed = tmp_path / "crashed"
        shutil.copy(path, crashed)
        shutil.copy(f"{path}-wal", f"{crashed}-wal")
    damage(crashed, page_of(crashed, 10), PAGE)
    before = {end: (tmp_path / f"crashed{end}").read_bytes() for end in ("", "-wal")}

    rows = recovery.rows(str(crashed), make(tmp_path / "sound"), SELECT)
    assert [row for row in ROWS if row[0] != 10] == rows
    assert before == {end: (tmp_path / f"crashed{end}").read_bytes() for end in ("", "-wal")}


def test_a_log_is_read_where_the_head_is_lost(tmp_path: Path) -> None:
    """Rows that are in the log alone are found as well."""
    path = make(tmp_path / "a", ROWS[:40])
    new = ROWS[39][1].replace("x", "y")
    with closing(sqlite3.connect(path)) as database:
        # As long as it was: its page alone is in the log, and not the first one.
        with database:
            database.execute("UPDATE rows SET text = ? WHERE number = 40", (new,))
        crashed = tmp_path / "crashed"
        shutil.copy(path, crashed)
        shutil.copy(f"{path}-wal", f"{crashed}-wal")
    damage(crashed, 0, 100)

    rows = recovery.rows(str(crashed), make(tmp_path / "sound"), SELECT)
    assert [*ROWS[:39], (40, new)] == rows
