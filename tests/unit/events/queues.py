"""Event queues for tests, open, and read by a second connection."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

from miniλ.events.queue import AsyncEvent, EventQueue
from miniλ.worker.equipment import InvocationContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

PAGE = 4096
# Every text that may be left out.
TEXTS = ('{"custom":{"λ":1}}', '{"cognitoIdentityId":"i"}', "Root=1-0-0", "arn:aws:lambda:x")


@asynccontextmanager
async def open_queue(path: Path, *, durable: bool = False) -> AsyncIterator[EventQueue]:
    """Yield the event queue at this path, open."""
    queue = EventQueue(path, durable=durable)
    try:
        yield queue
    finally:
        await queue.close()


def context_of(texts: tuple[str | None, ...]) -> InvocationContext:
    """Return a context of these texts, in the order of its fields."""
    client_context, identity, trace_id, arn = texts
    return InvocationContext(
        client_context=client_context, identity=identity, trace_id=trace_id, arn=arn
    )


def new_event(name: str = "f", payload: bytes = b"{}") -> AsyncEvent:
    """Return an event for a function of this name."""
    return AsyncEvent(f"request-{name}", name, "$LATEST", payload)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop of its own, with a timeout that shows where it waits."""

    async def whole() -> None:
        async with asyncio.timeout(10):
            await scenario()

    asyncio.run(whole())


def execute(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Carry out SQL on a second connection; return the rows of the last statement."""
    rows: list[tuple[Any, ...]] = []
    with closing(sqlite3.connect(path)) as other, other:
        for statement in statements:
            rows = other.execute(statement).fetchall()
    return rows


def numbers(queue: EventQueue) -> list[int]:
    """Return the numbers of the events that were there when the queue was opened."""
    return [number for number, _, _ in queue.backlog]


def transactions(queue: EventQueue) -> list[str]:
    """Return a list that each transaction from now on adds itself to."""
    seen: list[str] = []

    def trace(statement: str) -> None:
        if statement.startswith("BEGIN"):
            seen.append(statement)

    queue._database.set_trace_callback(trace)
    return seen
