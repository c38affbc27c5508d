"""SQLite files: how one is opened and brought up to date.

The SQL of a file is in named blocks, `-- name: what it does`. Blocks named `migration 1`, `2` and
so on bring an older file up to date, in this order; PRAGMA user_version counts them.

What is promised (sqlite.org, "PRAGMA synchronous", WAL): FULL fsyncs the log after each commit,
so a commit survives power loss on a disk that honours flush; with OFF it survives a crash of this
process only.
"""

from __future__ import annotations

import contextlib
import sqlite3
from importlib import resources
from typing import TYPE_CHECKING

from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def statements(room: str, file: str) -> dict[str, str]:
    """Return the blocks of the SQL file of a room, such as "miniλ.store", by name."""
    text = resources.files(room).joinpath(file).read_text(encoding="utf-8")
    blocks = text.split("-- name: ")[1:]
    return {name.strip(): sql for name, _, sql in (block.partition("\n") for block in blocks)}


def connect(path: Path, sql: dict[str, str], *, durable: bool) -> sqlite3.Connection:
    """Open or make a database, for one thread at a time; `durable=False` for a temporary state.

    Raises `sqlite3.Error`, and `InvalidParameterValue` for a schema of a later version.
    """
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        # At each opening: synchronous is not kept in the file, and builds differ in its default.
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={'FULL' if durable else 'OFF'}")
        _migrate(database, sql)
    except BaseException:
        database.close()
        raise
    return database


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a database for reading; another process may have it open."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    with contextlib.closing(connection):
        yield connection


def _migrate(database: sqlite3.Connection, sql: dict[str, str]) -> None:
    done = int(database.execute("PRAGMA user_version").fetchone()[0])
    last = sum(name.startswith("migration ") for name in sql)
    if done > last:
        msg = (
            f"it was written by a later version (schema {done}, known up to {last}): start that "
            "version, or use another state directory"
        )
        raise InvalidParameterValue(msg)
    for number in range(done + 1, last + 1):
        steps = sql[f"migration {number}"]
        database.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version={number}; COMMIT;")
