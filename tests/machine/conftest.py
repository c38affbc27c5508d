"""The levels that a machine test runs at: each cgroup hierarchy of this host, none, and walls."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import miniλ
from miniλ import journal, sync
from miniλ.sandbox import hierarchies
from miniλ.settings import Settings
from miniλ.store import state_dir

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

# Where a handler and its test talk through files and processes of the host, what would hide those
# is left out. How the whole sandbox holds is asserted by test_sandbox.py.
OPEN = "namespaces,landlock"
CGROUPS = ("mixed", "v1", "v2", "none")
# Levels of the sandbox, with the cgroup that belongs to them.
WALLS = ("root", "cgroup", "userns", "landlock")

NEIGHBOUR = "def handler(event, context):\n    return event\n"


@pytest.fixture(autouse=True)
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what hides the host, also in programs that a test starts."""
    monkeypatch.setenv("MINILAMBDA_WITHOUT", OPEN)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test at every cgroup level, and within walls if it asks nothing of the host."""
    if "level" not in metafunc.fixturenames:
        return
    asked = inspect.signature(metafunc.function).parameters.keys()
    within = "run_bench" in asked and not asked & {"tmp_path", "level"}
    metafunc.parametrize("level", (*CGROUPS, *(WALLS if within else ())), indirect=True)


@pytest.fixture
def level(request: pytest.FixtureRequest) -> str:
    """Return a level; those that this host does not have are skipped with the reason."""
    chosen = str(request.param)
    skip_without(chosen)
    return chosen


def skip_without(level: str) -> None:
    """Skip a test where this host, or this user, does not have a level."""
    if level == "root" and os.geteuid() != 0:
        pytest.skip("level root cannot be used here: only root can")
    if level == "cgroup" and not is_delegated():
        pytest.skip("no cgroup2 is delegated to this user, who is not root")
    if level in CGROUPS:
        try:
            hierarchy, _ = hierarchies.open_hierarchy(level, "probe")
        except OSError as exc:
            pytest.skip(f"cgroup {level} cannot be used here: {exc}")
        hierarchy.close()


@functools.cache
def holds(cgroup: str, resource: str) -> bool:
    """Return whether a cgroup hierarchy, which this host has, limits a resource hard."""
    hierarchy, _ = hierarchies.open_hierarchy(cgroup, "probe")
    hierarchy.close()
    return hierarchy.limits[resource].startswith("hard")


@functools.cache
def is_delegated() -> bool:
    """Return whether we have, without root, a cgroup2 that holds memory."""
    try:
        return os.geteuid() != 0 and holds("v2", "memory")
    except OSError:
        return False


def at(level: str) -> dict[str, Any]:
    """Return the settings of a level."""
    return {"sandbox": level} if level in WALLS else {"cgroup": level, "without": OPEN}


def sweep(directory: Path) -> None:
    """Remove what a killed supervisor left, as the next one would: also where a test fails."""
    held, _ = state_dir.open_state(directory)
    held.close()


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

    async def gone(self, response: miniλ.Response) -> journal.WorkerExited:
        """Wait until no process of the worker that gave this response is left."""
        worker_id = response.report.worker_id
        return await self.supervisor.journal.until(
            journal.WorkerExited, lambda fact: fact.worker_id == worker_id
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
            chosen = Settings(**{**at(level), **(settings or {})})
            async with miniλ.Supervisor(settings=chosen) as supervisor:
                neighbour = function_directory("neighbour", app=NEIGHBOUR)
                subject = function_directory("subject", app=source)
                await supervisor.create_function("neighbour", neighbour, "app.handler")
                await supervisor.create_function("subject", subject, "app.handler", **limits)
                await scenario(Bench(supervisor))

                assert supervisor.journal.story(journal.Trouble) == []

        asyncio.run(main())

    return run


ECHO = """
import os

def handler(event, context):
    if event == "fail":
        raise ValueError("no")
    if event == "stage":
        return os.environ.get("STAGE")
    return event
"""


@pytest.fixture(scope="module")
def uvloop_has_its_pipe() -> None:
    """The first uvloop of a process makes a pipe for signals that stays: no leak of ours."""
    with asyncio.Runner(loop_factory=sync.new_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture
def echo(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that returns its event."""
    return function_directory("echo", app=ECHO)


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a maker of event loops: an app brings asyncio's or uvloop's."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not on this machine")
    maker: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return maker
