"""Tests of the event queue: what was accepted is on disk, in order, until its end is written."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from miniλ.errors import ServiceError
from miniλ.events import queue
from miniλ.events.queue import AsyncEvent, PendingEvents, Record, now, read
from miniλ.model import MB
from miniλ.store import writer
from tests.unit.events.queues import (
    TEXTS,
    context_of,
    execute,
    new_event,
    numbers,
    open_queue,
    run,
    transactions,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_new_queue_is_empty(path: Path) -> None:
    """The tables are made at opening, and no damage is reported."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            assert [] == queue.backlog
            assert "" == queue.damage
            assert [] == await queue.records()

    run(scenario)


def test_numbers_go_up_and_are_never_used_again(path: Path) -> None:
    """Neither when the last event is removed, nor when all are and the queue is opened again."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            assert [1, 2] == await queue.add(new_event(), new_event())
            await queue.remove(2)
            assert [3] == await queue.add(new_event())
            await queue.remove(1)
            await queue.remove(3)
        async with open_queue(path) as again:
            assert [] == again.backlog
            assert [4] == await again.add(new_event())

    run(scenario)


def test_what_was_accepted_is_there_after_a_restart(path: Path) -> None:
    """With number, function and due time, in the order in which it came."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            before = now()
            await queue.add(new_event("b"), new_event("a"))
            await queue.add(new_event("c"))
            after = now()
        async with open_queue(path) as again:
            assert [(1, "b"), (2, "a"), (3, "c")] == [event[:2] for event in again.backlog]
            dues = [due for _, _, due in again.backlog]
            assert all(before <= due <= after for due in dues)

    run(scenario)


def test_an_event_is_on_disk_when_it_is_accepted(path: Path) -> None:
    """Another connection sees the row, while the queue is open."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event("ada"))

            assert [("ada",)] == execute(path, "SELECT function FROM events")

    run(scenario)


@pytest.mark.parametrize("texts", [TEXTS, (None,) * 4, (None, TEXTS[1], None, TEXTS[3])])
def test_an_event_comes_back_as_it_was_given(path: Path, texts: tuple[str | None, ...]) -> None:
    """With every text that may be left out, and without."""
    original = AsyncEvent("r-1", "hello", "7", b'{"a": 1.0}', context_of(texts))

    async def scenario() -> None:
        async with open_queue(path) as queue:
            before = now()
            await queue.add(original)
            after = now()
        async with open_queue(path) as again:
            [event] = await again.claim([1])

            assert (1, original) == event[:2]
            assert before <= event.accepted <= after
            assert (0, 0, 0) == event[3:]

    run(scenario)


@pytest.mark.parametrize(
    "payload", [b"0", b"", bytes(range(256)) * (MB // 256)], ids=["0", "none", "1 MB"]
)
def test_a_payload_comes_back_byte_for_byte(path: Path, payload: bytes) -> None:
    """Of any bytes and any size."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event(payload=payload))
        async with open_queue(path) as again:
            [event] = await again.claim([1])
            assert payload == event.event.payload

    run(scenario)


# Claimed, put back, removed


def test_events_are_claimed_in_the_order_they_are_asked_for(path: Path) -> None:
    """A number without an event is left out."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event("a"), new_event("b"), new_event("c"))
            await queue.remove(2)

            events = await queue.claim([3, 2, 99, 1])
            assert [(3, "c"), (1, "a")] == [(each.number, each.event.function) for each in events]

    run(scenario)


def test_an_event_that_is_put_back_keeps_its_counters(path: Path) -> None:
    """Due time, attempts and refusals are kept, after a restart too; it is no crash."""

    async def scenario() -> None:
        due = now() + 1000.25
        async with open_queue(path) as queue:
            await queue.add(new_event())
            [first] = await queue.claim([1])
            await queue.put_back(1, due, 2, 3)
        async with open_queue(path) as again:
            assert [(1, "f", due)] == again.backlog
            [event] = await again.claim([1])
            assert first._replace(attempts=2, refusals=3) == event

    run(scenario)


def test_an_event_that_ran_at_the_end_of_a_life_counts_a_crash(path: Path) -> None:
    """It is due a second later, then two, then four: it may be the cause of the crash."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event(), new_event())
            await queue.claim([1])
        for crashes, pause in ((1, 1), (2, 2), (3, 4)):
            before = now()
            async with open_queue(path) as again:
                after = now()
                (_, _, due), (_, _, other) = again.backlog
                assert before + pause <= due <= after + pause
                assert other < before
                [event] = await again.claim([1])
                assert (crashes, 0, 0) == (event.crashes, event.attempts, event.refusals)

    run(scenario)


def test_an_event_may_be_accepted_as_one_that_runs(path: Path) -> None:
    """As if it were claimed in the same moment: a supervisor that dies then counts a crash."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            seen = transactions(queue)
            assert [1] == await queue.add(new_event(), running=True)
            assert 1 == len(seen)
            await queue.add(new_event())
        before = now()
        async with open_queue(path) as again:
            (_, _, due), (_, _, other) = again.backlog
            assert other < before < before + 1 <= due <= now() + 1
            assert [1, 0] == [event.crashes for event in await again.claim([1, 2])]

    run(scenario)


def test_a_crash_is_counted_once(path: Path) -> None:
    """An event that has not run again since is not counted by the next start."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            await queue.claim([1])
        async with open_queue(path) as again:
            backlog = again.backlog
        async with open_queue(path) as later:
            assert backlog == later.backlog
            [event] = await later.claim([1])
            assert 1 == event.crashes

    run(scenario)


def test_a_pause_after_crashes_is_bounded(path: Path) -> None:
    """After any number of crashes an event is due within minutes."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            await queue.claim([1])
        execute(path, "UPDATE events SET crashes = 1000")
        async with open_queue(path) as again:
            [(_, _, due)] = again.backlog
            assert 200 < due - now() <= 256
            [event] = await again.claim([1])
            assert 1001 == event.crashes

    run(scenario)


def test_a_removed_event_stays_removed(path: Path) -> None:
    """Others stay; removing a number without an event is fine."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event(), new_event())
            assert [] == await queue.remove(1)
            assert [] == await queue.remove(99)
        async with open_queue(path) as again:
            assert [2] == numbers(again)

    run(scenario)


def test_what_comes_of_an_event_is_there_when_it_is_removed(path: Path) -> None:
    """Events are due now, and records are kept; the numbers of the events are returned."""
    record = Record("request-f", "arn:aws:sqs:x", '{"λ":1.0}', "no such service")

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            before = time.time()
            assert [2, 3] == await queue.remove(1, new_event("a"), record, new_event("b"))
            after = time.time()
        async with open_queue(path) as again:
            assert [(2, "a"), (3, "b")] == [event[:2] for event in again.backlog]
            [kept] = await again.records()
            assert record == kept._replace(written=0.0)
            assert before <= kept.written <= after

    run(scenario)


@pytest.mark.parametrize("table", ["events", "records"])
def test_an_event_is_removed_with_what_comes_of_it_or_not_at_all(path: Path, table: str) -> None:
    """Where either cannot be written, nothing is, and the event runs again."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            execute(
                path,
                f"CREATE TRIGGER no BEFORE INSERT ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'not this one'); END",
            )
            with pytest.raises(ServiceError, match="not this one"):
                await queue.remove(1, Record("r", "t", "null", "why"), new_event("a"))
        execute(path, "DROP TRIGGER no")
        async with open_queue(path) as again:
            assert [(1, "f")] == [event[:2] for event in again.backlog]
            assert [] == await again.records()

    run(scenario)


def test_the_newest_records_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target that cannot be reached does not fill the disk."""
    monkeypatch.setattr(queue, "MAX_RECORDS", 3)

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(*(new_event() for _ in range(5)))
            for number in range(1, 6):
                await queue.remove(number, Record(f"r-{number}", "t", "null", "why"))

            assert ["r-3", "r-4", "r-5"] == [each.request_id for each in await queue.records()]
            assert [(3,)] == execute(path, "SELECT count(*) FROM records")

    run(scenario)


# Another boot of the machine


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file that says which boot this is."""
    file = tmp_path / "boot_id"
    file.write_text("first\n", encoding="ascii")
    monkeypatch.setattr(queue, "BOOT_ID", file)
    return file


def reboot(boot: Path) -> None:
    """Begin another boot."""
    boot.write_text("second\n", encoding="ascii")


def test_times_stay_while_the_machine_runs(path: Path, boot: Path) -> None:
    """The same boot: what the calendar does meanwhile changes nothing."""

    async def scenario() -> None:
        due = now() + 1000
        async with open_queue(path) as queue:
            await queue.add(new_event())
            [event] = await queue.claim([1])
            await queue.put_back(1, due, 0, 0)
        execute(path, "UPDATE events SET accepted_wall = accepted_wall - 5000")
        async with open_queue(path) as again:
            assert [(1, "f", due)] == again.backlog
            assert [event] == await again.claim([1])

    run(scenario)


@pytest.mark.parametrize(("moved", "age"), [(-100.0, 100.0), (5000.0, 0.0)])
def test_an_age_goes_on_after_a_reboot(path: Path, boot: Path, moved: float, age: float) -> None:
    """By the calendar, and never negative where that was set back; waiting events are due now."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            await queue.put_back(1, now() + 5000, 1, 2)
        execute(path, f"UPDATE events SET accepted_wall = accepted_wall + {moved}")
        reboot(boot)
        before = now()
        async with open_queue(path) as again:
            after = now()
            [(_, _, due)] = again.backlog
            assert before <= due <= after
            [event] = await again.claim([1])
            assert age <= after - event.accepted < age + 20
            assert event.accepted <= after
            assert (1, 2, 0) == event[3:]

    run(scenario)


def test_times_move_once_in_a_boot(path: Path, boot: Path) -> None:
    """An event that is put back after a reboot keeps its due time at later openings."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
        reboot(boot)
        due = now() + 5000
        async with open_queue(path) as queue:
            await queue.put_back(1, due, 0, 0)
        async with open_queue(path) as again:
            assert [(1, "f", due)] == again.backlog

    run(scenario)


def test_an_event_that_ran_when_the_machine_went_down_counts_a_crash(
    path: Path, boot: Path
) -> None:
    """It is due a second later, as after any crash."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            await queue.claim([1])
        reboot(boot)
        before = now()
        async with open_queue(path) as again:
            [(_, _, due)] = again.backlog
            assert before + 1 <= due <= now() + 1
            [event] = await again.claim([1])
            assert 1 == event.crashes

    run(scenario)


# Group commit


def test_steps_that_come_together_are_one_transaction(path: Path) -> None:
    """The first goes at once; all that came meanwhile go together, and each hears its own."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            seen = transactions(queue)
            added = await asyncio.gather(*(queue.add(new_event(f"f{at}")) for at in range(50)))

            assert 2 == len(seen)
            rows = execute(path, "SELECT number, function FROM events ORDER BY number")
            assert [(number, f"f{at}") for at, [number] in enumerate(added)] == rows

            [third], _, [first], _, last = await asyncio.gather(
                queue.claim([3]),
                queue.remove(4),
                queue.claim([1]),
                queue.put_back(5, 1.0, 1, 1),
                queue.add(new_event("last")),
            )
            assert (3, 1, [51]) == (third.number, first.number, last)
            assert 4 == len(seen)

    run(scenario)


def test_an_error_ends_the_queue(path: Path) -> None:
    """What is on disk is unknown then: every step fails, until the queue is opened again."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            queue._database.execute("ALTER TABLE events RENAME TO aside")
            with pytest.raises(ServiceError, match=r"events\.db has stopped: no such table"):
                await queue.claim([1])
            queue._database.execute("ALTER TABLE aside RENAME TO events")
            for step in (
                queue.add(new_event()),
                queue.claim([1]),
                queue.remove(1),
                queue.records(),
            ):
                with pytest.raises(ServiceError, match="has stopped: no such table"):
                    await step
        async with open_queue(path) as again:
            assert [1] == numbers(again)

    run(scenario)


def test_a_disk_that_is_gone_leaves_nobody_waiting(tmp_path: Path) -> None:
    """An add fails, where statvfs(2) fails too."""

    async def scenario() -> None:
        place = tmp_path / "state"
        place.mkdir()
        async with open_queue(place / "events.db", durable=True) as queue:
            await queue.add(new_event())
            shutil.rmtree(place)
            for _ in range(2):
                with pytest.raises(ServiceError):
                    await queue.add(new_event())

    run(scenario)


# Read by another process


def test_a_queue_is_read_while_it_is_open(path: Path) -> None:
    """By function: what waits, runs and has failed before, and when the next one is due."""
    record = Record("r", "t", "null", "why")

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(*(new_event(name) for name in ("b", "a", "b", "b", "over")))
            await queue.claim([3, 5])
            due = now() + 1000
            await queue.put_back(2, due, 2, 0)
            await queue.put_back(4, due, 0, 1)
            await queue.remove(5, record)
            before = now()
            (first, second), records = read(path)

            assert ("a", 1, 0, 1) == (first.function, first.waiting, first.running, first.failed)
            assert due - now() <= first.next_seconds <= due - before
            assert PendingEvents("b", 2, 1, 0, 0.0) == second
            assert [record] == [each._replace(written=0.0) for each in records]

    run(scenario)


@pytest.mark.parametrize("pause", [1000, -1000])
@pytest.mark.parametrize(
    ("read_in", "shift"),
    [
        ("the same boot", 0.0),
        *(("another boot", shift) for shift in (0.0, 1e6, -1e6)),
        *(("no known boot", shift) for shift in (0.0, 1e6, -1e6)),
    ],
)
def test_a_due_time_is_right_in_any_boot(
    path: Path, boot: Path, monkeypatch: pytest.MonkeyPatch, read_in: str, shift: float, pause: int
) -> None:
    """Another boot's clock is not compared: all of its events are due when a supervisor starts.

    `shift` is how far the clock of the boot that wrote the file is from this one's; where the
    kernel does not say which boot it is, the calendar counts.
    """
    if read_in == "no known boot":
        boot.unlink()

    async def scenario() -> None:
        with monkeypatch.context() as then:
            then.setattr(queue, "now", lambda: now() + shift)
            async with open_queue(path) as one:
                await one.add(new_event(), new_event(), new_event("running"))
                await one.claim([1, 3])
                await one.put_back(1, queue.now() + pause, 1, 0)
                await one.put_back(2, queue.now() + pause + 5, 1, 0)
        if read_in == "another boot":
            reboot(boot)
        (first, running), _ = read(path)

        expected = 0 if pause < 0 or read_in == "another boot" else pause
        assert max(0, expected - 20) <= first.next_seconds <= expected
        assert 0.0 == running.next_seconds
        async with open_queue(path) as again:
            if read_in == "another boot":  # what was shown is what happens
                assert max(due for number, _, due in again.backlog if number < 3) <= now()

    run(scenario)


def test_a_queue_that_is_not_there_is_not_made_by_reading(path: Path) -> None:
    """The message has the path."""
    with pytest.raises(ServiceError, match=r"The event queue .*events\.db cannot be read"):
        read(path)

    assert not path.exists()


# Ballast


def test_a_durable_queue_has_ballast(path: Path) -> None:
    """Room for a full disk: real blocks, and made again when it is missing."""
    ballast = path.with_suffix(".ballast")

    async def scenario() -> None:
        async with open_queue(path, durable=True) as queue:
            assert writer.BALLAST == ballast.stat().st_size
            assert writer.BALLAST <= ballast.stat().st_blocks * 512
            ballast.unlink()
            await queue.add(new_event())
            assert writer.BALLAST == ballast.stat().st_size

    run(scenario)


def test_a_queue_that_nobody_keeps_has_no_ballast(path: Path) -> None:
    """It takes events on a disk with little room too."""

    async def scenario() -> None:
        async with open_queue(path) as queue:
            await queue.add(new_event())
            assert not path.with_suffix(".ballast").exists()

    run(scenario)
