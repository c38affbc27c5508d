"""A supervisor at a place, which many tests share.

A place is a level of the sandbox without some mechanisms, written as in "root-seccomp".
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import shutil
import socket
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from miniλ import journal
from miniλ.runtimes import catalog
from miniλ.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import ThreadPoolExecutor

ROOT = Path(__file__).resolve().parents[2]
ESCAPES = Path(__file__).parent / "escapes"
MB = 1 << 20
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
# Lambda's numbers (developer guide), repeated here: a wrong one in the package fails these tests.
DESCRIPTORS = PROCESSES = 1024
MB_PER_CPU = 1769

ANY = ("bare", "landlock", "userns", "cgroup", "root")
CONFINED = ("landlock", "userns", "cgroup", "root")
NAMESPACED = ("userns", "cgroup", "root")
# Namespaces stop what they claim to stop also without Landlock.
ALONE = (*CONFINED, "root-landlock")
LEVELS = tuple(level for level in ANY if IS_ROOT or level != "root")
# Two places without a sandbox: a plain process with one descriptor too many, and that as `nobody`.
NO_SANDBOX, NO_SANDBOX_NOBODY = "plain", "plain nobody"


def settings_at(place: str, **more: Any) -> Settings:
    sandbox, _, without = place.partition("-")
    return Settings(sandbox=sandbox, without=without, **more)  # type: ignore[arg-type]


def left_below(directory: Path) -> list[str]:
    """Return mounts, and files that a loop device is bound to, below a directory."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    paths = [line.split()[4] for line in lines]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # unbound meanwhile
            paths.append(path.read_text(encoding="utf-8").strip())
    return [path for path in paths if path.startswith(f"{directory}/")]


NEIGHBOUR = "def handler(event, context):\n    return event\n"


class Place:
    """An open supervisor at a place, with a neighbour function that must keep working."""

    def __init__(self, name: str, supervisor: miniλ.Supervisor, host: Path) -> None:
        self.name = name
        self.supervisor = supervisor
        self.host = host
        self.event: dict[str, Any] = {}

    async def open(self, sockets: contextlib.ExitStack) -> None:
        """Start the neighbour, and make on the host the targets of the escapes."""
        supervisor = self.supervisor
        (self.host / "code").mkdir()
        (self.host / "code" / "app.py").write_text(NEIGHBOUR, encoding="utf-8")
        (self.host / "file").write_text("precious", encoding="utf-8")
        halves = [uuid.uuid4().hex, uuid.uuid4().hex]
        self.secret = "".join(halves)
        sockets.callback(os.environ.pop, "CANARY_OF_MINILAMBDA", None)
        os.environ["CANARY_OF_MINILAMBDA"] = self.secret
        function = await supervisor.create_function(
            "neighbour", self.host / "code", "app.handler", environment={"SECRET": self.secret}
        )
        await self.neighbour()
        (started,) = supervisor.journal.story(journal.WorkerStarted)
        (worker,) = supervisor.parts.pool._workers.values()
        assert worker.tmp_dir is not None
        abstract = f"minilambda-{uuid.uuid4().hex}"
        for address in ("\0" + abstract, str(self.host / "socket")):
            listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen(64)
        network = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        key = int.from_bytes(os.urandom(3), "little") + 1
        libc = ctypes.CDLL(None, use_errno=True)
        segment = libc.shmget(key, 4096, 0o1000 | 0o600)
        assert segment >= 0
        sockets.callback(libc.shmctl, segment, 0, None)
        self.event = {
            "registry": str(supervisor.parts.registry.path),
            "code": function.code_path,
            "tmp": worker.tmp_dir.path,
            "supervisor": os.getpid(),
            "sibling": started.pid,
            "abstract": abstract,
            "socket": str(self.host / "socket"),
            "port": network.getsockname()[1],
            "host_file": str(self.host / "file"),
            "host_directory": str(self.host),
            "halves": halves,
            "key": key,
            "pid_namespace": os.readlink("/proc/self/ns/pid"),
            "token": uuid.uuid4().hex,
        }

    async def neighbour(self) -> None:
        """Assert that the neighbour answers."""
        response = await self.supervisor.invoke("neighbour", {"still": "here"})

        assert response.payload == {"still": "here"}

    @contextlib.asynccontextmanager
    async def subject(self, code: Path, handler: str, **options: Any) -> Any:
        """Create the function under test; delete it, and wait for its workers, afterwards."""
        supervisor = self.supervisor
        before = asyncio.all_tasks()
        options = {"memory_size": 512, "timeout": 25, **options}
        await supervisor.create_function("subject", code, handler, **options)
        try:
            yield supervisor
        finally:
            await supervisor.delete_function("subject")
            # A worker has ended when its tasks have; the limit poll goes on for the neighbour.
            tasks = asyncio.all_tasks() - before - {supervisor.parts.pool._limit_poll}
            await asyncio.wait(tasks - {asyncio.current_task()})
        assert supervisor.journal.story(journal.Trouble) == []

    async def beside(self, event: dict[str, Any]) -> miniλ.Response:
        """Invoke the function under test while its neighbour works."""
        async with asyncio.TaskGroup() as group:
            bad = group.create_task(self.supervisor.invoke("subject", event))
            while not bad.done():
                await self.neighbour()
                await asyncio.wait([bad], timeout=0.05)
        return bad.result()

    async def attempt(self, escape: str, **options: Any) -> dict[str, Any]:
        """Run an escape twice, beside the neighbour; return its verdict."""
        async with self.subject(ESCAPES, f"{escape}.handler", **options):
            response = await self.beside(self.event)
            assert response.failure is None, (response.failure, response.log)
            again = await self.supervisor.invoke("subject", self.event)
            assert again.failure is None, (again.failure, again.log)
            assert again.payload["escaped"] is response.payload["escaped"]
            await self.neighbour()
        return dict(response.payload)


class Runner:
    """A place and the loop that its supervisor lives on."""

    def __init__(self, place: Place, loop: asyncio.Runner, thread: ThreadPoolExecutor) -> None:
        self.place = place
        self._loop = loop
        self._thread = thread

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Run a scenario, and wait for the scans of /proc that it started in the thread."""
        try:
            return self._loop.run(scenario)
        finally:
            self._thread.submit(int).result()


def as_nobody() -> list[str]:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not on this machine")
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@functools.cache
def program_for_nobody() -> str:
    """Return an interpreter of our version that user `nobody` may run; skips without one."""
    # Its sys.executable must run as well: workers are started by that.
    check = "import subprocess, sys; subprocess.run([sys.executable, '-V'], check=True)"
    for program in catalog.candidates(catalog.own()):
        command = [*as_nobody(), program, "-I", "-c", check]
        if subprocess.run(command, capture_output=True, cwd="/", check=False).returncode == 0:
            return program
    pytest.skip(f"no {catalog.own()} on this machine that an unprivileged user may run")


every_level = pytest.mark.parametrize("at", LEVELS, indirect=True, scope="module")
in_namespaces = pytest.mark.parametrize(
    "at", [level for level in LEVELS if level in NAMESPACED], indirect=True, scope="module"
)
