"""The levels that a machine test runs at: each cgroup hierarchy that this host has, and none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import miniλ
from miniλ import journal
from miniλ.sandbox import hierarchies
from miniλ.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

# The handlers of these tests talk to the test through files and processes of the host: what would
# hide those is left out. How the whole sandbox holds is asserted by test_sandbox.py, and by
# tests/conformance, whose handlers do not notice it.
OPEN = "namespaces,landlock"

NEIGHBOUR = "def handler(event, context):\n    return event\n"


@pytest.fixture(autouse=True)
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what hides the host, also in programs that a test starts."""
    monkeypatch.setenv("MINILAMBDA_WITHOUT", OPEN)


@pytest.fixture(params=["v1", "v2", "none"])
def level(request: pytest.FixtureRequest) -> str:
    """Return a cgroup level; those that this host does not have are skipped with the reason."""
    try:
        hierarchy, _ = hierarchies.open_hierarchy(request.param, "probe")
    except OSError as exc:
        pytest.skip(f"cgroup {request.param} cannot be used here: {exc}")
    hierarchy.close()
    return str(request.param)


def is_running(pid: int) -> bool:
    """Return whether a process runs or could; one that only waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Bench:
    """A supervisor with a function under test and a neighbour that must not notice."""

    def __init__(self, supervisor: miniλ.Supervisor) -> None:
        self.supervisor = supervisor

    async def abuse(self, event: object = "abuse", **options: Any) -> miniλ.Response:
        """Invoke the function under test while its neighbour works; return its response."""
        async with asyncio.TaskGroup() as group:
            bad = group.create_task(self.supervisor.invoke("subject", event, **options))
            while not bad.done():
                beside = await self.supervisor.invoke("neighbour", {"still": "here"})
                assert beside.payload == {"still": "here"}
                await asyncio.wait([bad], timeout=0.05)
        return bad.result()

    async def works(self) -> None:
        """Assert that the next invocation of the function under test works."""
        response = await self.supervisor.invoke("subject", "fine")

        assert response.payload == "fine", response.log

    async def gone(self, response: miniλ.Response) -> journal.WorkerGone:
        """Wait until no process of the worker that gave this response is left."""
        worker_id = response.report.worker_id
        return await self.supervisor.journal.until(
            journal.WorkerGone, lambda fact: fact.worker_id == worker_id
        )


@pytest.fixture
def run_bench(level: str, function_directory: Callable[..., Path]) -> Callable[..., None]:
    """Return a runner: it opens a bench for a handler's source and runs a scenario on it.

    The source gets `event`; on "fine" it returns "fine", else it runs the given body.
    """

    def run(
        body: str,
        scenario: Callable[[Bench], Awaitable[None]],
        settings: dict[str, Any] | None = None,
        **limits: Any,
    ) -> None:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        source = (
            "import os, sys, time, signal, threading, ctypes, json, subprocess\n"
            "def abuse(event, context):\n" + lines + "def handler(event, context):\n"
            "    return 'fine' if event == 'fine' else abuse(event, context)\n"
        )

        async def main() -> None:
            options: dict[str, Any] = {"cgroup": level, "without": OPEN, **(settings or {})}
            chosen = Settings(**options)
            async with miniλ.Supervisor(settings=chosen) as supervisor:
                neighbour = function_directory("neighbour", app=NEIGHBOUR)
                subject = function_directory("subject", app=source)
                await supervisor.create_function("neighbour", neighbour, "app.handler")
                await supervisor.create_function("subject", subject, "app.handler", **limits)
                await scenario(Bench(supervisor))

                assert supervisor.journal.story(journal.Trouble) == []

        asyncio.run(main())

    return run
