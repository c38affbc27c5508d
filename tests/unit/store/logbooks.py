"""What the tests of the logbook share: responses to note, and a loop to read them on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from miniλ.billing import BOOKS
from miniλ.model import Invoked, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from miniλ.store.logbook import Logbook, LogEvent

W1, W2 = "1" * 32, "2" * 32
# 2026-01-31T12:00:00Z
NOON = 1769860800.0
NOON_MS = 1769860800000
GROUP = "/aws/lambda/hello"
STREAM = f"2026/01/31/[$LATEST]{W1}"


def response(printed: bytes = b"hi\n", init_log: bytes = b"", **changes: Any) -> Response:
    """Return the response of an invocation that took 2 s but for the changes."""
    warm: dict[str, Any] = {
        "ended": 1.0,
        "function": "hello",
        "request_id": "8f5ab0a2-0000-4000-8000-000000000001",
        "seconds": 2.0,
        "init_seconds": None,
        "memory_size_mb": 128,
        "peak": 33 << 20,
        "worker_id": W1,
        "limits": {},
        "cold": False,
        "failed": False,
        "book": BOOKS["2025"],
    }
    return Response(b"null", Invoked(**{**warm, **changes}), printed, init_log)


def note(book: Logbook, response: Response, at: float) -> None:
    """Note a response in the stream of its worker, which began on 2026-01-31."""
    book.note(response, f"2026/01/31/[$LATEST]{response.invoked.worker_id}", at)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop of its own."""

    async def whole() -> None:
        await scenario()

    asyncio.run(whole())


def messages(events: list[LogEvent]) -> list[str]:
    """Return what was printed, without what Lambda prints around it."""
    around = ("START ", "END ", "REPORT ")
    return [event.message for event in events if not event.message.startswith(around)]
