"""Tests of the registry: what was put survives a restart, and so does the bill."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from miniλ.billing import BOOKS, Usage
from miniλ.errors import ServiceError
from miniλ.journal import Trouble
from miniλ.model import LATEST, FunctionConfiguration, Invoked
from miniλ.store import registry
from miniλ.store.registry import Change, Registry, read_usage
from miniλ.store.resources import ALIAS, FUNCTION, NUMBER, TAGS, Alias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a registry may be made."""
    return tmp_path / "registry.db"


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Registry]:
    """Yield the registry at this path, open."""
    opened_registry = Registry(path, durable=False)
    try:
        yield opened_registry
    finally:
        await opened_registry.close()


def function(name: str, **changes: Any) -> FunctionConfiguration:
    """Return a function of this name."""
    fine: dict[str, Any] = {
        "handler": "app.handler",
        "runtime": "python3.12",
        "revision": "r1",
        "code_sha256": "c2hh",
        "code_size": 12,
        "code_path": "/code/1",
    }
    return FunctionConfiguration(name=name, **{**fine, **changes})


async def put(kept: Registry, one: FunctionConfiguration) -> None:
    """Write $LATEST of a function."""
    await kept.write(Change(FUNCTION, one.name, LATEST, one))


async def delete(kept: Registry, name: str) -> None:
    """Forget $LATEST of a function."""
    await kept.write(Change(FUNCTION, name, LATEST, None))


def functions(kept: Registry) -> dict[str, FunctionConfiguration]:
    """Return $LATEST of all functions."""
    return {name: kept.parts(FUNCTION, name)[LATEST] for name in kept.names(FUNCTION)}


def invoked(
    name: str = "f",
    duration_ms: float = 1.0,
    init_ms: float | None = None,
    memory: int = 128,
) -> Invoked:
    """Return the fact of an invocation."""
    return Invoked(
        ended=1.0,
        function=name,
        request_id="r1",
        seconds=duration_ms / 1000,
        init_seconds=None if init_ms is None else init_ms / 1000,
        memory_size_mb=memory,
        peak=30 << 20,
        worker_id="w1",
        limits={},
        cold=init_ms is not None,
        failed=False,
        book=BOOKS["2025"],
    )


async def turns_until(fact: Callable[[], bool]) -> None:
    """Let the loop turn until this is so. Nothing of ours could tell us: it is a timer."""
    while not fact():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0)


def month() -> str:
    """Return this month, in UTC, as the ledger writes it."""
    return time.strftime("%Y-%m", time.gmtime())


# Functions


def test_a_new_registry_is_empty(path: Path) -> None:
    """It makes its tables itself."""

    async def scenario() -> None:
        async with opened(path) as kept:
            assert functions(kept) == {}
            assert await kept.usage("2025") == []

    asyncio.run(scenario())
    assert path.is_file()


def test_a_function_is_there_after_a_restart(path: Path) -> None:
    """With everything that it has."""
    ada = function("ada", environment={"AB": "λ"}, reserved_concurrency=0, keep_alive=0.5)

    async def scenario() -> None:
        async with opened(path) as kept:
            await put(kept, function("bob"))
            await put(kept, ada)
        async with opened(path) as again:
            assert list(functions(again)) == ["ada", "bob"]
            assert ada == functions(again)["ada"]

    asyncio.run(scenario())


def test_a_function_is_on_disk_before_put_returns(path: Path) -> None:
    """Another connection sees the row, while the registry is open."""

    async def scenario() -> None:
        async with opened(path) as kept:
            await put(kept, function("ada"))

            with closing(sqlite3.connect(path)) as other:
                assert other.execute("SELECT name FROM resources").fetchall() == [("ada",)]

    asyncio.run(scenario())


def test_the_last_put_of_a_name_counts(path: Path) -> None:
    """An update replaces the row."""

    async def scenario() -> None:
        async with opened(path) as kept:
            await put(kept, function("ada", timeout=1))
            await put(kept, function("ada", timeout=2))
            assert functions(kept)["ada"].timeout == 2
        async with opened(path) as again:
            assert functions(again)["ada"].timeout == 2
            assert len(functions(again)) == 1

    asyncio.run(scenario())


def test_a_deleted_function_stays_deleted(path: Path) -> None:
    """Deleting one that is not there is fine."""

    async def scenario() -> None:
        async with opened(path) as kept:
            await put(kept, function("ada"))
            await delete(kept, "ada")
            await delete(kept, "never")
            assert functions(kept) == {}
        async with opened(path) as again:
            assert functions(again) == {}

    asyncio.run(scenario())


def test_puts_at_once_are_all_kept(path: Path) -> None:
    """One thread writes: they queue, and none fails with a lock."""

    async def scenario() -> None:
        names = {f"f{number}" for number in range(30)}
        async with opened(path) as kept:
            await asyncio.gather(*(put(kept, function(name)) for name in names))
        async with opened(path) as again:
            assert names == functions(again).keys()

    asyncio.run(scenario())


def test_a_put_that_fails_is_not_remembered(path: Path) -> None:
    """Memory says what the disk says."""

    async def scenario() -> None:
        async with opened(path) as kept:
            kept._database.execute("DROP TABLE resources")

            with pytest.raises(ServiceError, match="The registry cannot be written"):
                await put(kept, function("ada"))
            assert functions(kept) == {}
            assert not kept._database.in_transaction

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "content",
    [b"not a database, but text that is long enough " * 40, b"SQLite format 3\0" * 99],
)
def test_a_file_that_is_no_registry_is_refused(path: Path, content: bytes) -> None:
    """With its path, and closed."""
    path.write_bytes(content)

    async def scenario() -> None:
        with pytest.raises(ServiceError, match=r"The registry .*registry\.db cannot be read"):
            Registry(path, durable=False)

    asyncio.run(scenario())


def test_a_registry_where_none_can_be_is_refused(tmp_path: Path) -> None:
    """A directory that is missing, or a directory where the file should be."""

    async def scenario() -> None:
        for place in (tmp_path / "missing" / "registry.db", tmp_path):
            with pytest.raises(ServiceError, match="cannot be read"):
                Registry(place, durable=False)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        "no json",
        "[" * 100_000,
        msgspec.json.encode(function("f")).decode().replace(":128,", ":64,"),
    ],
    ids=["empty", "text", "deep", "64 MB"],
)
def test_a_row_that_is_no_function_is_refused(path: Path, document: str) -> None:
    """Edited by hand, or of another version: an error of ours, and nothing stays open."""
    before = set(os.listdir("/proc/self/fd"))

    async def scenario() -> None:
        async with opened(path):
            pass
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "INSERT INTO resources VALUES ('function', 'f', '$LATEST', ?)", (document,)
            )

        with pytest.raises(ServiceError, match="cannot be read"):
            Registry(path, durable=False)

    asyncio.run(scenario())
    assert before == set(os.listdir("/proc/self/fd"))


# The ledger


def test_usage_is_billed_by_every_book(path: Path) -> None:
    """What the books of 2018, 2020 and 2025 make of two invocations, one of them cold."""

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(invoked(duration_ms=120.4))
            kept.note(invoked(duration_ms=0.5, init_ms=80.2))

            for book, billed in (
                ("2018", 200 + 100),
                ("2020", 121 + 1),
                ("2025", 121 + 81),
            ):
                assert [Usage(month(), "f", 128, 2, billed)] == await kept.usage(book)

    asyncio.run(scenario())


def test_usage_is_kept_by_function_and_memory_size(path: Path) -> None:
    """Sorted, and each with its own sum."""

    async def scenario() -> None:
        async with opened(path) as kept:
            for name, memory in (("b", 128), ("a", 256), ("a", 128), ("b", 128)):
                kept.note(invoked(name, memory=memory))

            got = [(u.function, u.memory_size_mb, u.requests) for u in await kept.usage("2020")]
            assert got == [("a", 128, 1), ("a", 256, 1), ("b", 128, 2)]

    asyncio.run(scenario())


def test_usage_adds_up_over_restarts(path: Path) -> None:
    """Closing writes what was in memory; the next life adds to it."""

    async def scenario() -> None:
        for _ in range(3):
            async with opened(path) as kept:
                kept.note(invoked(duration_ms=10))

    asyncio.run(scenario())
    assert [Usage(month(), "f", 128, 3, 30)] == read_usage(path, "2025")


def test_usage_is_written_within_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash costs at most that second: a timer writes, without anybody asking."""
    monkeypatch.setattr(registry, "LEDGER_SECONDS", 0.0)

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(invoked())
            timer = kept._flush_timer
            assert timer is not None
            await turns_until(lambda: kept._flushing is not None)
            assert kept._flushing is not None
            await kept._flushing

            assert [usage.requests for usage in read_usage(path, "2025")] == [1]
            assert kept._flush_timer is None

    asyncio.run(scenario())


def test_one_timer_for_all_invocations_of_a_second(path: Path) -> None:
    """Noting costs no I/O: the second invocation finds the timer there."""

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(invoked())
            timer = kept._flush_timer
            kept.note(invoked())

            assert timer is not None
            assert kept._flush_timer is timer
            assert read_usage(path, "2025") == []

    asyncio.run(scenario())


def test_other_facts_are_not_usage(path: Path) -> None:
    """The journal tells everything; only invocations are billed."""

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(Trouble(what="x"))

            assert kept._flush_timer is None
            assert await kept.usage("2025") == []

    asyncio.run(scenario())


def test_usage_that_cannot_be_written_is_owed(path: Path) -> None:
    """A full disk loses nothing while we live: the next flush writes both."""

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(invoked())
            kept._database.execute("ALTER TABLE usage RENAME TO aside")
            with pytest.raises(ServiceError, match="The registry cannot be written"):
                await kept.flush()
            kept._database.execute("ALTER TABLE aside RENAME TO usage")
            kept.note(invoked())

            assert [usage.requests for usage in await kept.usage("2025")] == [2]

    asyncio.run(scenario())


def test_usage_that_cannot_be_written_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer that failed to write sets itself again."""
    monkeypatch.setattr(registry, "LEDGER_SECONDS", 0.0)

    async def scenario() -> None:
        async with opened(path) as kept:
            kept._database.execute("ALTER TABLE usage RENAME TO aside")
            kept.note(invoked())
            await turns_until(lambda: bool(kept._owed))
            kept._database.execute("ALTER TABLE aside RENAME TO usage")
            await turns_until(lambda: not kept._owed)

            assert [usage.requests for usage in read_usage(path, "2025")] == [1]

    asyncio.run(scenario())


def test_closing_says_what_could_not_be_written(path: Path) -> None:
    """The database is closed all the same."""

    async def scenario() -> None:
        kept = Registry(path, durable=False)
        kept.note(invoked())
        kept._database.execute("DROP TABLE usage")

        with pytest.raises(ServiceError, match="The registry cannot be written"):
            await kept.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            kept._database.execute("SELECT 1")

    asyncio.run(scenario())


def test_a_ledger_is_read_while_it_is_written(path: Path) -> None:
    """The command line reads what a supervisor has open; it changes nothing."""

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(invoked(duration_ms=3))
            await kept.flush()

            for book in BOOKS:
                assert await kept.usage(book) == read_usage(path, book)

    asyncio.run(scenario())


def test_a_ledger_in_an_odd_place_is_read(tmp_path: Path) -> None:
    """Question marks, percent signs and λ in a path are a path."""
    place = tmp_path / "a?b=c%20 #λ"
    place.mkdir()

    async def scenario() -> None:
        async with opened(place / "registry.db") as kept:
            kept.note(invoked())

    asyncio.run(scenario())
    assert [usage.requests for usage in read_usage(place / "registry.db", "2025")] == [1]


def test_a_ledger_that_is_not_there_is_an_error_of_ours(path: Path) -> None:
    """Reading makes none; the message has the path."""
    with pytest.raises(ServiceError, match=r"The ledger .*registry\.db cannot be read"):
        read_usage(path, "2025")

    assert not path.exists()


def test_a_ledger_of_something_else_is_an_error_of_ours(path: Path) -> None:
    """A database without our tables is none of ours."""
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE t (x)")

    with pytest.raises(ServiceError, match="no such table"):
        read_usage(path, "2025")


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1_798_761_599.0, "2026-12"), (1_798_761_600.0, "2027-01")]
)
def test_a_month_is_that_of_utc(
    path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: str
) -> None:
    """AWS bills in UTC; a month begins when it does, to the second, wherever we are."""
    gmtime, localtime = time.gmtime, time.localtime
    monkeypatch.setattr(registry.time, "time", lambda: seconds)
    monkeypatch.setattr(registry.time, "gmtime", lambda at=seconds: gmtime(at))
    # Half a day off, in either direction, so that a local clock would be seen.
    off = 43_200 if expected == "2026-12" else -43_200
    monkeypatch.setattr(registry.time, "localtime", lambda at=seconds: localtime(at + off))

    async def scenario() -> None:
        async with opened(path) as kept:
            kept.note(invoked())

    asyncio.run(scenario())
    monkeypatch.undo()

    assert [usage.month for usage in read_usage(path, "2025")] == [expected]


def test_changes_of_one_write_are_all_there_or_none(path: Path) -> None:
    """A change that cannot be written takes those that came with it along."""

    async def main() -> None:
        async with opened(path) as kept:
            with pytest.raises(TypeError):
                await kept.write(
                    Change(FUNCTION, "ada", LATEST, function("ada")),
                    Change(TAGS, "ada", "", {"no": object()}),
                )
            assert {} == functions(kept)
        async with opened(path) as again:
            assert {} == functions(again)

    asyncio.run(main())


def test_a_resource_comes_back_as_it_was(path: Path) -> None:
    """Each kind has its type, also after a restart; a part that was deleted is not there."""
    alias = Alias(function="ada", name="prod", version="3", revision="r", weights={"2": 0.25})

    async def main() -> None:
        async with opened(path) as kept:
            await kept.write(
                Change(ALIAS, "ada", "prod", alias),
                Change(ALIAS, "ada", "test", alias),
                Change(NUMBER, "ada", "", 3),
            )
            await kept.write(Change(ALIAS, "ada", "test", None))
        async with opened(path) as again:
            assert {"prod": alias} == again.parts(ALIAS, "ada")
            assert 3 == again.get(NUMBER, "ada")
            assert None is again.get(ALIAS, "ada", "test")
            assert {} == again.parts(ALIAS, "bob")

    asyncio.run(main())


def test_a_database_of_the_first_version_is_brought_up_to_date(path: Path) -> None:
    """Functions that an older miniλ wrote are still there; and it is not done twice."""
    ada = function("ada")
    with closing(sqlite3.connect(path)) as old:
        old.execute("CREATE TABLE functions (name TEXT PRIMARY KEY, document TEXT NOT NULL)")
        old.execute(
            "INSERT INTO functions VALUES (?, ?)", ("ada", msgspec.json.encode(ada).decode())
        )
        old.commit()

    async def main() -> None:
        for _ in range(2):
            async with opened(path) as kept:
                assert {"ada": ada} == functions(kept)

    asyncio.run(main())


def test_a_database_of_a_later_version_is_left_alone(path: Path) -> None:
    """What a later miniλ wrote is refused with the reason, and not changed."""
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=99")

    async def main() -> None:
        with pytest.raises(ServiceError, match=r"later version \(schema 99, known up to \d\)"):
            Registry(path, durable=False)

    asyncio.run(main())

    with closing(sqlite3.connect(path)) as newer:
        assert [] == newer.execute("SELECT * FROM sqlite_master").fetchall()
