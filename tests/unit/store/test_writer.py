"""Tests of the writer: group commit, and what a step hears when it cannot be written.

The registry and the event queue write through it; what they have in common is tested here.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import ServiceError
from miniλ.store import database
from miniλ.store.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

SQL = {"migration 1": "CREATE TABLE t (number INTEGER UNIQUE, content TEXT);"}
either = pytest.mark.parametrize("fail_stop", [False, True])


@asynccontextmanager
async def open_writer(path: Path, *, fail_stop: bool = False) -> AsyncIterator[Writer]:
    """Yield a writer of a table, open."""
    connection = database.connect(path, SQL, durable=True)
    writer = Writer(connection, path, "The table", fail_stop=fail_stop)
    try:
        yield writer
    finally:
        await writer.close()


def insert(number: int, content: str = "") -> Callable[[sqlite3.Connection], int]:
    """Return the work that inserts a row and returns its number."""

    def work(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?, ?)", (number, content))
        return number

    return work


def execute(*statements: str) -> Callable[[sqlite3.Connection], None]:
    """Return the work that carries out SQL."""

    def work(connection: sqlite3.Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    return work


def rows(path: Path) -> list[int]:
    """Return the numbers that another connection sees, in the order of their insertion."""
    with closing(sqlite3.connect(path)) as other:
        return [number for (number,) in other.execute("SELECT number FROM t ORDER BY rowid")]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop of its own, for at most 10 s."""

    async def whole() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(whole())


def transactions(writer: Writer) -> list[str]:
    """Return a list that each transaction from now on adds itself to."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement.startswith("BEGIN"):
            seen.append(statement)

    writer._database.set_trace_callback(trace)
    return seen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a database may be made."""
    return tmp_path / "table.db"


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 0)])
def test_a_durable_database_syncs_each_commit(path: Path, durable: bool, level: int) -> None:  # noqa: FBT001
    """PRAGMA synchronous is FULL (2) or OFF (0), with any defaults of SQLite; the log is WAL."""
    with closing(database.connect(path, SQL, durable=durable)) as connection:
        assert (level,) == connection.execute("PRAGMA synchronous").fetchone()
        assert ("wal",) == connection.execute("PRAGMA journal_mode").fetchone()


def test_steps_that_come_together_are_one_transaction(path: Path) -> None:
    """The first goes at once; all that came meanwhile go together, in order; each hears its own."""

    async def scenario() -> None:
        async with open_writer(path) as writer:
            seen = transactions(writer)
            results = await asyncio.gather(*(writer.run(insert(at)) for at in range(50, 0, -1)))

            assert list(range(50, 0, -1)) == results == rows(path)
            assert 2 == len(seen)

    run(scenario)


def test_a_step_is_committed_when_it_is_done(path: Path) -> None:
    """Another connection sees its row, and does not before."""

    async def scenario() -> None:
        async with open_writer(path) as writer:
            step = writer.run(insert(1))
            assert not step.done()
            await step
            assert [1] == rows(path)

    run(scenario)


def test_a_patient_step_waits_for_company(path: Path) -> None:
    """It is in the transaction of the next urgent step; alone it waits 2 ms."""

    async def scenario() -> None:
        async with open_writer(path) as writer:
            seen = transactions(writer)
            await asyncio.gather(writer.run(insert(1), is_patient=True), writer.run(insert(2)))
            assert 1 == len(seen)
            await writer.run(insert(3), is_patient=True)
            assert [1, 2, 3] == rows(path)

    run(scenario)


def test_a_caller_that_leaves_takes_no_step_along(path: Path) -> None:
    """Cancelled while they wait: their rows are there all the same, and others hear their own."""

    async def scenario() -> None:
        async with open_writer(path) as writer:
            steps = [writer.run(insert(number)) for number in range(4)]
            await asyncio.sleep(0)  # the first is on its way, the others wait
            steps[0].cancel()
            steps[2].cancel()
            assert [1, 3] == [await steps[1], await steps[3]]
            assert [0, 1, 2, 3] == rows(path)

    run(scenario)


def test_a_writer_closes_when_all_is_written(path: Path) -> None:
    """Also steps that wait, and steps that came while it was closing."""

    async def scenario() -> None:
        async with open_writer(path) as writer:
            steps = [writer.run(insert(number)) for number in range(3)]
            steps.append(writer.run(insert(3), is_patient=True))
            closing_writer = asyncio.create_task(writer.close())
            await asyncio.sleep(0)
            steps.append(writer.run(insert(4)))
            await closing_writer
            assert [0, 1, 2, 3, 4] == [step.result() for step in steps] == rows(path)
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                writer._database.execute("SELECT 1")
            writer._thread = writer._thread.__class__(1)  # so that it closes once more, below

    run(scenario)


@either
@pytest.mark.parametrize("bad", [insert(1), insert(9, "\ud800")], ids=["not unique", "no UTF-8"])
def test_a_step_that_cannot_be_carried_out_fails_alone(
    path: Path, bad: Callable[[sqlite3.Connection], int], *, fail_stop: bool
) -> None:
    """Nothing of it is there, and all that came with it are."""

    async def scenario() -> None:
        async with open_writer(path, fail_stop=fail_stop) as writer:
            steps = [writer.run(work) for work in (insert(0), insert(1), insert(2), bad, insert(3))]
            results = await asyncio.gather(*steps, return_exceptions=True)

            assert isinstance(results[3], ServiceError)
            assert str(results[3]).startswith("The table cannot be written: ")
            assert [0, 1, 2, 3] == rows(path)
            assert not writer.has_stopped

    run(scenario)


def test_an_error_of_a_table_is_one_steps(path: Path) -> None:
    """Without fail-stop others are written, and so are later steps when the table is there."""

    async def scenario() -> None:
        async with open_writer(path) as writer:
            await writer.run(execute("CREATE TABLE other (x)", "INSERT INTO other VALUES (1)"))
            steps = (insert(0), insert(1), execute("DELETE FROM gone"), insert(2))
            results = await asyncio.gather(*map(writer.run, steps), return_exceptions=True)
            assert ["0", "1", "The table cannot be written: no such table: gone", "2"] == [
                str(result) for result in results
            ]
            await writer.run(execute("ALTER TABLE other RENAME TO gone", "DELETE FROM gone"))
            assert [0, 1, 2] == rows(path)
            assert not writer.has_stopped

    run(scenario)


def test_an_io_error_is_not_retried(path: Path) -> None:
    """All steps of the transaction fail, and none is tried again alone; later ones are written."""
    tries = []

    def fail(_: sqlite3.Connection) -> None:
        tries.append(1)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR | 4 << 8  # SQLITE_IOERR_FSYNC
        raise error

    async def scenario() -> None:
        async with open_writer(path) as writer:
            steps = (insert(0), insert(1), fail, insert(2))
            first, *others = await asyncio.gather(*map(writer.run, steps), return_exceptions=True)
            assert 0 == first
            assert ["The table cannot be written: disk I/O error"] * 3 == [
                str(error) for error in others
            ]
            assert [1] == tries
            assert 3 == await writer.run(insert(3))
            assert [0, 3] == rows(path)
            assert not writer.has_stopped

    run(scenario)


def test_an_error_of_the_disk_ends_a_writer_that_is_fail_stop(path: Path) -> None:
    """Every step that came with it or comes after it hears so, also when the disk works again."""

    async def scenario() -> None:
        async with open_writer(path, fail_stop=True) as writer:
            await writer.run(insert(0))
            writer._database.execute("ALTER TABLE t RENAME TO aside")
            steps = [writer.run(insert(1)), writer.run(insert(2))]
            await asyncio.wait(steps)
            writer._database.execute("ALTER TABLE aside RENAME TO t")
            for step in (*steps, writer.run(insert(3))):
                with pytest.raises(ServiceError, match="The table has stopped: no such table: t"):
                    await step
            assert writer.has_stopped
            assert [0] == rows(path)

    run(scenario)


@either
def test_a_lock_of_another_program_passes(path: Path, *, fail_stop: bool) -> None:
    """A step fails after SQLite's timeout; the next one is written when the lock is gone."""

    async def scenario() -> None:
        async with open_writer(path, fail_stop=fail_stop) as writer:
            writer._database.execute("PRAGMA busy_timeout=0")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(ServiceError, match="database is locked"):
                    await writer.run(insert(1))
                other.execute("ROLLBACK")
            assert 2 == await writer.run(insert(2))
            assert [2] == rows(path)

    run(scenario)


@either
def test_a_full_disk_is_an_error_until_there_is_room(path: Path, *, fail_stop: bool) -> None:
    """Steps that fit are written, and the writer goes on; the file may have ten pages here."""

    async def scenario() -> None:
        async with open_writer(path, fail_stop=fail_stop) as writer:
            await writer.run(insert(0))
            writer._database.execute("PRAGMA max_page_count=10")
            steps = (insert(1), insert(2), insert(3, "x" * 100_000), execute("DELETE FROM t"))
            results = await asyncio.gather(*map(writer.run, steps), return_exceptions=True)
            assert [1, 2, "The table cannot be written: database or disk is full", None] == [
                str(each) if isinstance(each, ServiceError) else each for each in results
            ]
            assert [] == rows(path)
            writer._database.execute("PRAGMA max_page_count=1000")
            await writer.run(insert(3, "x" * 100_000))
            assert [3] == rows(path)

    run(scenario)
