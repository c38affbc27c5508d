"""The peers by name: a process pool or a server, started and called the same way."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from benchmarks import catalog, rounds, servers
from benchmarks.pools import ProcessPool, process_pool

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.rounds import Effort


class Peer(Protocol):
    """A peer that runs."""

    async def latencies(self, effort: Effort) -> list[float]:
        """Call one after the other; return the seconds of each call."""

    async def rate(self, effort: Effort, lanes: int) -> float:
        """Call `lanes` at once; return calls per second."""


def running(name: str, lanes: int) -> AbstractAsyncContextManager[Peer]:
    """Run a peer that takes up to `lanes` calls at once."""
    if name in (catalog.POOL, catalog.LOKY):
        return process_pool(name, lanes)
    return servers.running(name, lanes)


async def cold(name: str) -> float:
    """Start a peer; return the seconds until the first answer of a new pool or server."""
    began = time.perf_counter()
    async with running(name, 1) as peer:
        if isinstance(peer, ProcessPool):
            return await peer.cold()
        await peer.latencies(rounds.Effort(1, 0, 60.0))
        return time.perf_counter() - began


async def start_all(
    stack: contextlib.AsyncExitStack, names: Sequence[str], lanes: int
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Start the peers that are installed; return them, and a note for each of the others."""
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name in names:
        if not catalog.is_installed(name):
            absent[name] = catalog.NOT_INSTALLED
            continue
        rounds.progress(f"starting {name}")
        try:
            peers[name] = await stack.enter_async_context(running(name, lanes))
        except Exception as exc:  # noqa: BLE001 - the error is the note in its row
            absent[name] = f"did not start: {exc!r}"[:200]
    return peers, absent
