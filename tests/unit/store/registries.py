"""Registries for tests, open, with functions in them."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from miniλ.billing import BOOKS
from miniλ.model import LATEST, FunctionConfiguration, Invoked
from miniλ.store.registry import Change, Registry
from miniλ.store.resources import FUNCTION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@asynccontextmanager
async def open_registry(path: Path) -> AsyncIterator[Registry]:
    """Yield the registry at this path, open."""
    registry = Registry(path, durable=False)
    try:
        yield registry
    finally:
        await registry.close()


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
    """Let the loop turn until this is true; a timer of the registry has no other sign."""
    while not fact():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0)


def month() -> str:
    """Return this month, in UTC, as the ledger writes it."""
    return time.strftime("%Y-%m", time.gmtime())
