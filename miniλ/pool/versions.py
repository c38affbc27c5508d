"""This module is what the pool notes: of each version, of its worth, of each who waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from miniλ.concurrency import Concurrency
    from miniλ.model import FunctionConfiguration
    from miniλ.worker.worker import Worker


class Waiting:
    """An Ask with what carries it out."""

    __slots__ = ("admitted", "function", "future", "number", "share")

    def __init__(
        self,
        number: int,
        function: FunctionConfiguration,
        share: Concurrency,
        future: asyncio.Future[Worker],
    ) -> None:
        self.number = number
        self.function = function
        self.share = share
        self.future = future
        self.admitted = False


class Worth:
    """What greedy-dual knows of a function: how often it is used, and what a cold start costs."""

    __slots__ = ("clock", "cold_seconds", "uses")

    def __init__(self) -> None:
        self.uses = 0
        self.cold_seconds = 0.0
        self.clock = 0.0


class Version:
    """What the pool knows of one version: its idle workers, the last one to become idle last."""

    __slots__ = ("failed", "function", "idle", "is_current", "provisioned", "share", "worth")

    def __init__(self, function: FunctionConfiguration, share: Concurrency, worth: Worth) -> None:
        self.function = function
        self.idle: list[Worker] = []
        self.is_current = True
        # What the next invocation takes from; a worker gives back to the one that it took from.
        self.share = share
        self.worth = worth
        # So many workers are kept initialised; what the last init phase that failed said.
        self.provisioned = 0
        self.failed = ""
