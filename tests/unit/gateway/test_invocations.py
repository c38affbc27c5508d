"""Invocations that outlive the request that began them: `invocations`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from miniλ.background import Background
from miniλ.errors import LambdaError, ServiceError
from miniλ.gateway import invocations
from miniλ.journal import Journal, Trouble
from miniλ.worker.answer_stream import AnswerStream

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from miniλ.model import Response


async def left(running: Coroutine[Any, Any, Response], journal: Journal) -> int:
    """Begin an invocation as a request does and leave; return how many were owned meanwhile."""
    owner = Background(journal, "a bug", expects=LambdaError)
    stream = AnswerStream()
    invocations.begin(owner, running, stream)
    running_at_once = len(owner)
    await owner.finish()
    assert [] == [piece async for piece in stream]
    return running_at_once


async def _raise(error: Exception) -> Response:
    raise error


def test_a_bug_in_an_invocation_without_a_client_is_in_the_journal() -> None:
    """Its stream ends too, and the task has an owner, so it is not collected while it runs."""
    journal = Journal()

    assert 1 == asyncio.run(left(_raise(RuntimeError("wrong")), journal))
    assert ["a bug: RuntimeError('wrong')"] == [each.what for each in journal.story(Trouble)]


def test_an_error_that_a_client_would_have_been_told_is_no_trouble() -> None:
    """A throttle, a closed supervisor: the client has left, and its stream ends."""
    journal = Journal()

    assert 1 == asyncio.run(left(_raise(ServiceError("closed")), journal))
    assert [] == journal.story(Trouble)
