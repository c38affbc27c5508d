"""Tests of tasks that run beside their owner, on a real loop."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING

import pytest

from miniλ.background import Background
from miniλ.journal import Journal, Trouble

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def on_a_loop(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test that awaits."""

    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


@on_a_loop
async def test_what_is_started_runs_to_its_end() -> None:
    """`finish` waits for those that are started meanwhile, too."""
    ended = []
    background = Background(Journal(), "a test")

    async def second() -> None:
        ended.append("second")

    async def first() -> None:
        await asyncio.sleep(0)
        background.start(second())
        ended.append("first")

    background.start(first())
    await background.finish()

    assert (["first", "second"], 0) == (ended, len(background))


@on_a_loop
async def test_an_exception_is_trouble_in_the_journal() -> None:
    """The sentence says whose task it was, and what was raised."""
    journal = Journal()
    background = Background(journal, "the sweep")

    async def fail() -> None:
        raise OSError("no space")

    background.start(fail())
    await background.finish()

    assert ["the sweep: OSError('no space')"] == [each.what for each in journal.story(Trouble)]


@on_a_loop
async def test_an_expected_exception_is_the_callers() -> None:
    """It is raised where the task is awaited, and is no trouble."""
    journal = Journal()
    background = Background(journal, "a test", expects=LookupError)

    async def fail() -> None:
        raise KeyError("missing")

    task = background.start(fail())

    with pytest.raises(KeyError):
        await task
    assert [] == journal.story(Trouble)


@on_a_loop
async def test_cancelled_tasks_have_ended_when_cancel_returns() -> None:
    """The owner's callback runs after each task."""
    ends = []
    background = Background(Journal(), "a test", lambda: ends.append(len(background)))
    background.start(asyncio.Event().wait())
    background.start(asyncio.Event().wait())

    await background.cancel()

    assert [1, 0] == ends
