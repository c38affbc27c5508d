"""Tests of the ledger in `registry`: what functions used is added up, written, and billed."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from miniλ.billing import BOOKS, Usage
from miniλ.errors import ServiceError
from miniλ.journal import Trouble
from miniλ.store import registry
from miniλ.store.registry import Registry, read_usage
from tests.unit.store.registries import invoked, month, open_registry, turns_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a registry may be made."""
    return tmp_path / "registry.db"


def test_usage_is_billed_by_every_book(path: Path) -> None:
    """What the books of 2018, 2020 and 2025 make of two invocations, one of them cold."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
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
        async with open_registry(path) as kept:
            for name, memory in (("b", 128), ("a", 256), ("a", 128), ("b", 128)):
                kept.note(invoked(name, memory=memory))

            got = [(u.function, u.memory_size_mb, u.requests) for u in await kept.usage("2020")]
            assert got == [("a", 128, 1), ("a", 256, 1), ("b", 128, 2)]

    asyncio.run(scenario())


def test_usage_adds_up_over_restarts(path: Path) -> None:
    """Closing writes what was in memory; the next life adds to it."""

    async def scenario() -> None:
        for _ in range(3):
            async with open_registry(path) as kept:
                kept.note(invoked(duration_ms=10))

    asyncio.run(scenario())
    assert [Usage(month(), "f", 128, 3, 30)] == read_usage(path, "2025")


def test_usage_is_written_within_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash costs at most that second: a timer writes."""
    monkeypatch.setattr(registry, "LEDGER_SECONDS", 0.0)

    async def scenario() -> None:
        async with open_registry(path) as kept:
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
        async with open_registry(path) as kept:
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
        async with open_registry(path) as kept:
            kept.note(Trouble(what="x"))

            assert kept._flush_timer is None
            assert await kept.usage("2025") == []

    asyncio.run(scenario())


def test_usage_that_cannot_be_written_is_owed(path: Path) -> None:
    """A full disk loses nothing while the supervisor lives: the next flush writes both."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            kept.note(invoked())
            kept._database.execute("ALTER TABLE usage RENAME TO aside")
            with pytest.raises(ServiceError, match="The registry cannot be written"):
                await kept.flush()
            kept._database.execute("ALTER TABLE aside RENAME TO usage")
            kept.note(invoked())

            assert [usage.requests for usage in await kept.usage("2025")] == [2]

    asyncio.run(scenario())


def test_the_timer_goes_on_after_a_bug(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is no ServiceError does not end the flushes: the next one writes the usage."""
    monkeypatch.setattr(registry, "LEDGER_SECONDS", 0.0)
    failures: list[str] = []
    strftime = time.strftime

    def fail_once(*_: object) -> None:
        monkeypatch.setattr(time, "strftime", strftime)
        failures.append("once")
        raise ValueError

    async def scenario() -> None:
        async with open_registry(path) as kept:
            monkeypatch.setattr(time, "strftime", fail_once)
            kept.note(invoked())
            async with asyncio.timeout(10):
                await turns_until(lambda: read_usage(path, "2025") != [])

    asyncio.run(scenario())
    assert ["once"] == failures


@pytest.mark.parametrize("turns", [0, 1, 2])
@pytest.mark.parametrize("fails", [False, True])
def test_usage_is_counted_once_where_the_caller_has_gone(
    path: Path, turns: int, *, fails: bool
) -> None:
    """A flush that is cancelled, before or after it has begun, loses and doubles nothing."""

    async def scenario() -> None:
        async with open_registry(path) as kept:
            kept.note(invoked())
            if fails:
                kept._database.execute("ALTER TABLE usage RENAME TO aside")
            task = asyncio.create_task(kept.flush())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if fails:
                await turns_until(lambda: bool(kept._owed or kept._fresh or kept._invoked))
                kept._database.execute("ALTER TABLE aside RENAME TO usage")
            kept.note(invoked())
            assert [2] == [usage.requests for usage in await kept.usage("2025")]

    asyncio.run(scenario())


def test_usage_that_cannot_be_written_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer that failed to write sets itself again."""
    monkeypatch.setattr(registry, "LEDGER_SECONDS", 0.0)

    async def scenario() -> None:
        async with open_registry(path) as kept:
            kept._database.execute("ALTER TABLE usage RENAME TO aside")
            kept.note(invoked())
            await turns_until(lambda: bool(kept._owed))
            kept._database.execute("ALTER TABLE aside RENAME TO usage")
            await turns_until(lambda: read_usage(path, "2025") != [])

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
        async with open_registry(path) as kept:
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
        async with open_registry(place / "registry.db") as kept:
            kept.note(invoked())

    asyncio.run(scenario())
    assert [usage.requests for usage in read_usage(place / "registry.db", "2025")] == [1]


def test_a_ledger_that_is_not_there_is_an_error_of_ours(path: Path) -> None:
    """Reading makes none; the message has the path."""
    with pytest.raises(ServiceError, match=r"The ledger .*registry\.db cannot be read"):
        read_usage(path, "2025")

    assert not path.exists()


def test_a_ledger_of_something_else_is_an_error_of_ours(path: Path) -> None:
    """A database without our tables is refused."""
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
    """AWS bills in UTC; a month begins with UTC's, to the second, in every time zone."""
    gmtime, localtime = time.gmtime, time.localtime
    monkeypatch.setattr(registry.time, "time", lambda: seconds)
    monkeypatch.setattr(registry.time, "gmtime", lambda at=seconds: gmtime(at))
    # Half a day off, in either direction, so that a use of the local clock fails the test.
    off = 43_200 if expected == "2026-12" else -43_200
    monkeypatch.setattr(registry.time, "localtime", lambda at=seconds: localtime(at + off))

    async def scenario() -> None:
        async with open_registry(path) as kept:
            kept.note(invoked())

    asyncio.run(scenario())
    monkeypatch.undo()

    assert [usage.month for usage in read_usage(path, "2025")] == [expected]
