"""Tests of the journal: facts in order, listeners called, waiters woken once."""

from __future__ import annotations

import asyncio
import time

import pytest

from miniλ import journal
from miniλ.journal import Journal, Trouble, WorkerFrozen, WorkerStopped, WorkerThawed


def test_facts_are_kept_in_order() -> None:
    """The newest fact is the last one."""
    facts = [WorkerFrozen(worker_id="w"), WorkerThawed(worker_id="w"), Trouble(what="x")]
    kept = Journal()

    for fact in facts:
        kept.record(fact)

    assert facts == list(kept.facts)


def test_a_fact_knows_when_it_happened() -> None:
    """`at` is the monotonic clock, unless the caller passes a time."""
    before = time.monotonic()
    fact = Trouble(what="x")

    assert before <= fact.at <= time.monotonic()
    assert Trouble(at=1.5, what="x").at == 1.5


def test_a_fact_does_not_change() -> None:
    """Facts are frozen: what happened has happened."""
    fact = Trouble(what="x")

    with pytest.raises(AttributeError, match="immutable"):
        fact.what = "y"  # type: ignore[misc]


def test_only_the_last_facts_are_remembered() -> None:
    """A supervisor that runs for years does not grow by its journal."""
    kept = Journal()

    for number in range(journal.REMEMBERED + 3):
        kept.record(Trouble(what=str(number)))

    assert len(kept.facts) == journal.REMEMBERED
    assert kept.story(Trouble)[0].what == "3"


def test_every_listener_hears_every_fact() -> None:
    """Listeners are called in the order they were named, at once."""
    heard: list[tuple[str, journal.Fact]] = []
    kept = Journal(lambda f: heard.append(("first", f)), lambda f: heard.append(("second", f)))
    fact = Trouble(what="x")

    kept.record(fact)

    assert [("first", fact), ("second", fact)] == heard


def test_a_story_is_the_facts_of_one_kind() -> None:
    """Other kinds are left out, the order stays."""
    kept = Journal()
    for name in "ab":
        kept.record(WorkerFrozen(worker_id=name))
        kept.record(WorkerThawed(worker_id=name))

    assert [fact.worker_id for fact in kept.story(WorkerThawed)] == ["a", "b"]
    assert len(kept.story(journal.Fact)) == 4
    assert kept.story(Trouble) == []


def test_until_finds_what_has_happened_already() -> None:
    """A fact that is in the journal is returned at once."""

    async def scenario() -> None:
        kept = Journal()
        kept.record(WorkerStopped(worker_id="w", reason="old"))
        kept.record(WorkerStopped(worker_id="w", reason="new"))

        assert (await kept.until(WorkerStopped)).reason == "old"
        fact = await kept.until(WorkerStopped, lambda fact: fact.reason == "new")
        assert fact.reason == "new"

    asyncio.run(scenario())


def test_until_waits_for_what_will_happen() -> None:
    """A fact of another kind, or that is not wanted, wakes no waiter."""

    async def scenario() -> None:
        kept = Journal()
        waiter = asyncio.create_task(
            kept.until(WorkerStopped, lambda fact: fact.worker_id == "mine")
        )
        await asyncio.sleep(0)

        kept.record(Trouble(what="x"))
        kept.record(WorkerStopped(worker_id="other", reason="r"))
        await asyncio.sleep(0)
        assert not waiter.done()

        mine = WorkerStopped(worker_id="mine", reason="r")
        kept.record(mine)
        assert await waiter is mine
        assert kept._waiting == []

    asyncio.run(scenario())


def test_one_fact_wakes_everybody_who_waits_for_it() -> None:
    """Waiters do not take a fact away from each other."""

    async def scenario() -> None:
        kept = Journal()
        waiters = [asyncio.create_task(kept.until(Trouble)) for _ in range(3)]
        await asyncio.sleep(0)
        fact = Trouble(what="x")

        kept.record(fact)

        assert [fact] * 3 == await asyncio.gather(*waiters)

    asyncio.run(scenario())


def test_a_waiter_gets_the_first_fact_of_two() -> None:
    """Two facts before the waiter runs again: the first one counts, and nothing breaks."""

    async def scenario() -> None:
        kept = Journal()
        waiter = asyncio.create_task(kept.until(Trouble))
        await asyncio.sleep(0)

        kept.record(Trouble(what="first"))
        kept.record(Trouble(what="second"))

        assert (await waiter).what == "first"

    asyncio.run(scenario())


def test_a_waiter_that_left_is_forgotten_with_the_next_fact() -> None:
    """A cancelled `until` leaves nothing behind that a fact would trip over."""

    async def scenario() -> None:
        kept = Journal()
        waiter = asyncio.create_task(kept.until(Trouble))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter

        kept.record(WorkerFrozen(worker_id="w"))

        assert kept._waiting == []

    asyncio.run(scenario())
