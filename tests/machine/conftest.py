"""The levels of machine tests: each cgroup hierarchy of this host, none, and sandbox levels."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import miniλ
from miniλ import journal, sync
from miniλ.sandbox import hierarchies
from miniλ.settings import Settings
from miniλ.store import state_dir
from tests.machine.places import (
    NAMESPACED,
    NO_SANDBOX,
    NO_SANDBOX_NOBODY,
    ROOT,
    Place,
    Runner,
    left_below,
    settings_at,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

# A handler and its test may talk through files and processes of the host: these mechanisms, which
# would hide them, are left out. test_escapes.py and test_sandbox*.py test the whole sandbox.
OPEN = "namespaces,landlock"
CGROUPS = ("mixed", "v1", "v2", "none")
# Levels of the sandbox, each with the cgroup that it uses by default.
SANDBOX_LEVELS = ("root", "cgroup", "userns", "landlock")

GRACE = 0.3
NEIGHBOUR = "def handler(event, context):\n    return event\n"


@pytest.fixture(autouse=True)
def _open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the mechanisms that hide the host, also in programs that a test starts."""
    monkeypatch.setenv("MINILAMBDA_WITHOUT", OPEN)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test at every cgroup level, and at each sandbox level unless it uses host files."""
    if "level" not in metafunc.fixturenames:
        return
    names = inspect.signature(metafunc.function).parameters.keys()
    within = "run_bench" in names and not names & {"tmp_path", "level"}
    metafunc.parametrize("level", (*CGROUPS, *(SANDBOX_LEVELS if within else ())), indirect=True)


@pytest.fixture
def level(request: pytest.FixtureRequest) -> str:
    """Return a level; skips, with the reason, one that this host does not have."""
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
    return {"sandbox": level} if level in SANDBOX_LEVELS else {"cgroup": level, "without": OPEN}


def sweep(directory: Path) -> None:
    """Remove what a killed supervisor left, as the next supervisor would."""
    state, _ = state_dir.open_state(directory)
    state.close()


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _skip_where_missing(supervisor: miniλ.Supervisor, place: str) -> None:
    """Skip where the host lacks a mechanism of this level."""
    skip_without(place)
    choice = supervisor.parts.equipment.choice
    needed = {level: ["namespaces"] for level in NAMESPACED} | {"landlock": ["landlock"]}
    for mechanism in needed.get(place.partition("-")[0], []):
        if mechanism in choice.missing:
            pytest.skip(f"no {mechanism} on this host: {choice.missing[mechanism]}")


@pytest.fixture(scope="module", autouse=True)
def _young() -> Iterator[None]:
    """Keep the collector, which every test calls twice, from walking older objects."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", name="at")
def _at(request: pytest.FixtureRequest) -> Iterator[Runner | None]:
    """Open a supervisor at a place, for all tests there; assert that it leaves no mount or file."""
    name = request.param
    if name in (NO_SANDBOX, NO_SANDBOX_NOBODY):
        yield None
        return
    host = Path(tempfile.mkdtemp(prefix="minilambda-host-"))
    with asyncio.Runner() as loop, contextlib.ExitStack() as sockets:
        sockets.callback(shutil.rmtree, host)
        supervisor = miniλ.Supervisor(settings=settings_at(name, freeze_after=60.0))
        # One thread: a job has ended when a later one has (`Runner.run`).
        thread = ThreadPoolExecutor(1)
        loop.get_loop().set_default_executor(thread)
        loop.run(supervisor.__aenter__())
        state = supervisor.parts.state.path
        try:
            _skip_where_missing(supervisor, name)
            place = Place(name, supervisor, host)
            loop.run(place.open(sockets))
            yield Runner(place, loop, thread)
        finally:
            loop.run(supervisor.close())
        assert left_below(state) == []
        assert not state.exists()


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program of ours, without the mechanisms left out for this test (`_open`)."""
    environment = {name: text for name, text in os.environ.items() if name != "MINILAMBDA_WITHOUT"}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )


class Bench:
    """A supervisor with a function under test and a neighbour that must keep working."""

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

    The source gets `event`; on "fine" it returns "fine", else it runs the given body. The grace of
    closing is short: what runs until it is over is what a scenario has left hanging.
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
            chosen = Settings(**{"shutdown_grace": GRACE, **at(level), **(settings or {})})
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
    """Make the pipe for signals that the first uvloop of a process keeps: it is no leak of ours."""
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
