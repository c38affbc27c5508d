"""A change whose caller is cancelled while the disk is slow: registry, pool and names agree."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest

import miniλ

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

ONE = "def handler(event, context):\n    return 1\n"
TWO = "def handler(event, context):\n    return 2\n"


@contextlib.asynccontextmanager
async def slow_disk(supervisor: miniλ.Supervisor) -> AsyncIterator[None]:
    """Hold the registry's thread meanwhile: a change waits for it, as for a disk."""
    gate, entered = threading.Event(), threading.Event()

    def wait(_connection: object) -> None:
        entered.set()
        assert gate.wait(20)

    step = supervisor.parts.registry._writer.run(wait)
    await asyncio.to_thread(entered.wait)
    try:
        yield
    finally:
        gate.set()
        await step


async def cancelled(supervisor: miniλ.Supervisor, change: Coroutine[Any, Any, Any]) -> None:
    """Cancel a change while its row is on the way to the disk; return when it has ended."""
    writer = supervisor.parts.registry._writer
    async with slow_disk(supervisor):
        task = asyncio.ensure_future(change)
        # Until its row is the next one that is written.
        while not writer._waiting and not task.done():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done(), "it holds its lock until the disk has answered"
    with pytest.raises(asyncio.CancelledError):
        await task


def run(scenario: Callable[[miniλ.Supervisor], Coroutine[Any, Any, None]]) -> None:
    """Run a scenario with an open supervisor."""

    async def main() -> None:
        async with miniλ.Supervisor() as supervisor:
            await scenario(supervisor)

    asyncio.run(main())


def test_a_cancelled_creation_is_a_function(function_directory: Callable[..., Path]) -> None:
    """It is in the registry, so it can be invoked, and deleted; its code is there."""
    code = function_directory("one", app=ONE)

    async def scenario(supervisor: miniλ.Supervisor) -> None:
        await cancelled(supervisor, supervisor.create_function("f", code, "app.handler"))

        await supervisor.functions.collect_code()
        assert 1 == (await supervisor.invoke("f")).payload
        await supervisor.delete_function("f")
        await supervisor.create_function("f", code, "app.handler")

    run(scenario)


def test_a_cancelled_update_is_what_runs(function_directory: Callable[..., Path]) -> None:
    """The new code is what the registry names, and what the next invocation runs."""
    one, two = function_directory("one", app=ONE), function_directory("two", app=TWO)

    async def scenario(supervisor: miniλ.Supervisor) -> None:
        await supervisor.create_function("f", one, "app.handler")
        assert 1 == (await supervisor.invoke("f")).payload

        await cancelled(supervisor, supervisor.update_function_code("f", two))

        assert 2 == (await supervisor.invoke("f")).payload

    run(scenario)


def test_a_cancelled_deletion_is_one(function_directory: Callable[..., Path]) -> None:
    """The function cannot be invoked any more, and its name is free."""
    code = function_directory("one", app=ONE)

    async def scenario(supervisor: miniλ.Supervisor) -> None:
        await supervisor.create_function("f", code, "app.handler")
        assert 1 == (await supervisor.invoke("f")).payload

        await cancelled(supervisor, supervisor.delete_function("f"))

        with pytest.raises(miniλ.ResourceNotFound):
            await supervisor.invoke("f")
        await supervisor.create_function("f", code, "app.handler")

    run(scenario)


def test_a_cancelled_version_can_be_invoked(function_directory: Callable[..., Path]) -> None:
    """And a reservation whose caller left is in force."""
    code = function_directory("one", app=ONE)

    async def scenario(supervisor: miniλ.Supervisor) -> None:
        await supervisor.create_function("f", code, "app.handler")

        await cancelled(supervisor, supervisor.publish_version("f"))
        assert 1 == (await supervisor.invoke("f:1")).payload

        await cancelled(supervisor, supervisor.functions.reserve("f", 0))
        with pytest.raises(miniλ.Throttled):
            await supervisor.invoke("f")

    run(scenario)
