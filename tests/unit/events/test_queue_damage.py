"""Tests of the event queue: what is damaged on disk is noticed, and the rest is kept."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import ServiceError
from miniλ.events import recovery
from miniλ.events.queue import AsyncEvent, EventQueue, Record, now
from tests.unit.events.queues import (
    PAGE,
    TEXTS,
    context_of,
    execute,
    new_event,
    numbers,
    open_queue,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path


async def fill(path: Path, count: int) -> None:
    """Leave a queue with events that take a page each, more or less."""
    async with open_queue(path) as queue:
        await queue.add(*(new_event(f"f{at}", b'"%s"' % (b"x" * 3000)) for at in range(count)))


def damage(path: Path, first: int, size: int) -> bytes:
    """Write zeros into a file; return all that is in it then."""
    content = bytearray(path.read_bytes())
    content[first : first + size] = bytes(size)
    path.write_bytes(content)
    return bytes(content)


def content_of(path: Path) -> bytes:
    """Return all that is in a file."""
    return path.read_bytes()


def middle(path: Path) -> int:
    """Return where the page in the middle of a file begins."""
    return path.stat().st_size // PAGE // 2 * PAGE


def places(path: Path, what: bytes) -> list[int]:
    """Return where this is in a file."""
    return [match.start() for match in re.finditer(re.escape(what), path.read_bytes())]


def aside(path: Path) -> Path:
    """Return the one damaged file beside a queue; no file of the recovery is left."""
    here = set(os.listdir(path.parent)) - {path.name, f"{path.name}-wal", f"{path.name}-shm"}
    [name] = here
    assert name.startswith(f"{path.name}.corrupt-")
    return path.parent / name


def test_a_damaged_payload_never_runs(path: Path) -> None:
    """A flipped byte that the file system does not notice makes the event a record."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event("good"), new_event("bad", b'"one million"'), new_event("too"))
        [first] = places(path, b"one million")
        damage(path, first, 1)
        async with open_queue(path) as again:
            assert "" == again.damage
            assert [1, 2, 3] == numbers(again)
            events = await again.claim([1, 2, 3])
            assert ["good", "too"] == [event.event.function for event in events]
            [record] = await again.records()
            assert ("request-bad", "", "null", "it was damaged on disk") == record[:4]
        async with open_queue(path) as later:
            assert [1, 3] == numbers(later)

    run(scenario)


def test_a_head_that_is_lost_costs_no_event(path: Path) -> None:
    """All of them are read with another's head; the damaged file is beside it, as it was."""

    async def scenario() -> None:
        await fill(path, 100)
        content = damage(path, 0, 100)
        async with open_queue(path) as queue:
            kept = aside(path)
            assert list(range(1, 101)) == numbers(queue)
            assert content == kept.read_bytes()
            assert str(kept) in queue.damage
            assert "100 events could be read" in queue.damage
            assert "file is not a database" in queue.damage
            [event] = await queue.claim([100])
            assert ("f99", 3002) == (event.event.function, len(event.event.payload))
            assert [101] == await queue.add(new_event())

    run(scenario)


def test_a_page_that_is_lost_costs_what_was_in_it(path: Path) -> None:
    """A page holds one event here: all others are kept, its neighbours too."""

    async def scenario() -> None:
        await fill(path, 100)
        first = middle(path)
        [lost] = re.findall(rb"request-f(\d+)", content_of(path)[first : first + PAGE])
        content = damage(path, first, PAGE)
        async with open_queue(path) as queue:
            assert [number for number in range(1, 101) if number != int(lost) + 1] == numbers(queue)
            assert numbers(queue) == [each.number for each in await queue.claim(numbers(queue))]
            assert [] == await queue.records()
            assert "99 events could be read" in queue.damage
            assert content == content_of(aside(path))

    run(scenario)


@pytest.mark.parametrize("where", ["rows", "swap"])
def test_a_recovery_that_is_interrupted_begins_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """While it reads, or when the new file is whole: no event is lost, damage is reported."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(*(new_event() for _ in range(40)))
        damage(path, 0, 100)
        with monkeypatch.context() as patch:
            target = recovery if where == "rows" else EventQueue
            patch.setattr(target, "rows" if where == "rows" else "_swap", fail)
            with pytest.raises(ServiceError, match="cannot be read: no more room"):
                EventQueue(path, durable=False)
        async with open_queue(path) as again:
            assert list(range(1, 41)) == numbers(again)
            assert "was damaged" in again.damage
        async with open_queue(path) as last:
            assert "" == last.damage
            assert 40 == len(last.backlog)

    def fail(*_: object) -> None:
        message = "no more room"
        raise OSError(message)

    run(scenario)


def test_a_program_that_holds_the_file_does_not_stop_the_queue(path: Path) -> None:
    """A shell, or a backup: steps fail while it holds the file, and succeed afterwards."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            queue._database.execute("PRAGMA busy_timeout=20")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(ServiceError, match="cannot be written: database is locked"):
                    await queue.add(new_event())
                other.execute("ROLLBACK")
            assert [1] == await queue.add(new_event())

    run(scenario)


def test_damaged_records_cost_no_event(path: Path) -> None:
    """Damage on a page without events, which no read of an event meets, is found at opening."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(*(new_event(f"f{at}") for at in range(20)))
            records = [Record(f"r{at}", "t", f'"{"y" * 3000}"', "why") for at in range(20)]
            await queue.remove(20, *records)
        first = places(path, b"y" * 2000)[10]
        damage(path, first // PAGE * PAGE, PAGE)
        async with open_queue(path) as again:
            assert list(range(1, 20)) == numbers(again)
            assert "19 events could be read" in again.damage
            assert [] == await again.records()

    run(scenario)


def test_the_first_half_of_a_file_is_kept(path: Path) -> None:
    """A file that was cut: what is before the cut can be read."""

    async def scenario() -> None:
        await fill(path, 100)
        os.truncate(path, middle(path))
        content = content_of(path)
        async with open_queue(path) as queue:
            assert 40 <= len(queue.backlog) <= 50
            assert list(range(1, len(queue.backlog) + 1)) == numbers(queue)
            assert f"{len(queue.backlog)} events could be read" in queue.damage
            assert content == aside(path).read_bytes()

    run(scenario)


@pytest.mark.parametrize(
    "content",
    [b"not a database, but text that is long enough " * 400, b"SQLite format 3\0" * 99, b"short"],
    ids=["text", "heads", "short"],
)
def test_a_file_that_is_no_queue_does_not_keep_us_from_starting(path: Path, content: bytes) -> None:
    """It is moved aside as it is, and a new queue takes events."""
    path.write_bytes(content)

    async def scenario() -> None:
        async with open_queue(path) as queue:
            assert [] == queue.backlog
            assert "0 events could be read" in queue.damage
            assert content == aside(path).read_bytes()
            assert [1] == await queue.add(new_event())
        async with open_queue(path) as again:
            assert "" == again.damage
            assert [1] == numbers(again)

    run(scenario)


def test_an_event_that_was_read_from_a_damaged_file_is_what_it_was(path: Path) -> None:
    """Its texts and counters too; what ran counts a crash, and all others are due now."""
    original = AsyncEvent("r-1", "hello", "7", b"[1]", context_of(TEXTS))

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(original, new_event("ran"))
            await queue.claim([2])
            await queue.put_back(1, now() + 5000, 2, 3)
        damage(path, 0, 100)
        before = now()
        async with open_queue(path) as again:
            after = now()
            (_, _, due), (_, _, later) = again.backlog
            assert before <= due <= after
            assert before + 1 <= later <= after + 1
            event, ran = await again.claim([1, 2])
            counters = (event.attempts, event.refusals, event.crashes)
            assert (original, 2, 3, 0) == (event.event, *counters)
            assert 1 == ran.crashes

    run(scenario)


@pytest.mark.parametrize("column", ["client_context", "function"])
def test_a_text_that_was_damaged_stops_nobody_else(path: Path, column: str) -> None:
    """The text is no UTF-8 any more: the queue opens, and the other event runs and ends."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event("bad"), new_event("good"))
        execute(path, f"UPDATE events SET {column} = CAST(x'ff' AS TEXT) WHERE number = 1")
        async with open_queue(path) as again:
            events = await again.claim([1, 2])
            assert "good" == events[-1].event.function
            await again.remove(2)
        async with open_queue(path) as later:
            assert 2 not in numbers(later)

    run(scenario)


# What is not damage


def test_a_queue_of_a_later_version_is_left_alone(path: Path) -> None:
    """It is refused with the reason, not moved, and not changed."""

    async def scenario() -> None:
        await fill(path, 3)
        execute(path, "PRAGMA user_version=99")
        content = content_of(path)
        with pytest.raises(ServiceError, match=r"later version \(schema 99, known up to \d\)"):
            EventQueue(path, durable=True)

        assert content == content_of(path)
        assert [path.name] == os.listdir(path.parent)

    run(scenario)


def test_a_queue_where_none_can_be_is_refused(tmp_path: Path) -> None:
    """A directory that is missing, or a directory where the file should be; nothing is moved."""
    for place in (tmp_path / "missing" / "events.db", tmp_path):
        with pytest.raises(ServiceError, match=rf"The event queue {place} cannot be read"):
            EventQueue(place, durable=True)

    assert [] == os.listdir(tmp_path)
    assert [] == list(tmp_path.parent.glob("*.corrupt-*"))
