"""Capacity: how many invocations this host has memory for, and how much of it is missing now."""

from __future__ import annotations

import psutil

from miniλ.model import MB


def default_concurrency() -> int:
    """Return how many invocations may run at once: 80% of RAM in workers of 128 MB, 8 to 1000.

    An account of Lambda has 1,000. Here a function that invokes itself must not use up the host.
    """
    return max(8, min(1000, int(psutil.virtual_memory().total * 0.8) // (128 * MB)))


def missing_memory(reserve: float) -> float:
    """Return how many bytes this fraction of RAM is above what is available; may be negative."""
    memory = psutil.virtual_memory()
    return float(memory.total * reserve - memory.available)
