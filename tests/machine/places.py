"""A supervisor at a place: a level of the sandbox and what is left out of it; tests share it.

A place is written as a level and what is left out of it, as in "root-seccomp".
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
# Lambda's numbers (developer guide), said again: a slip in the package is to be seen here.
DESCRIPTORS = PROCESSES = 1024
MB_PER_CPU = 1769

ANY = ("bare", "landlock", "userns", "cgroup", "root")
CONFINED = ("landlock", "userns", "cgroup", "root")
BOXED = ("userns", "cgroup", "root")
# Namespaces hold alone what they claim, also where there is no Landlock.
ALONE = (*CONFINED, "root-landlock")
LEVELS = tuple(level for level in ANY if IS_ROOT or level != "root")
# Run as it is, in no sandbox, with a descriptor too many; and that as nobody.
PLAIN, PLAIN_NOBODY = "plain", "plain nobody"


def settings_at(place: str, **more: Any) -> Settings:
    sandbox, _, without = place.partition("-")
    return Settings(sandbox=sandbox, without=without, **more)  # type: ignore[arg-type]


def left_below(directory: Path) -> list[str]:
    """Return mounts, and files that a loop device is bound to, below a directory."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found = [line.split()[4] for line in mounts]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # unbound meanwhile
            found.append(path.read_text(encoding="utf-8").strip())
    return [path for path in found if path.startswith(f"{directory}/")]


NEIGHBOUR = "def handler(event, context):\n    return event\n"


class Place:
    """An open supervisor at a place, with a neighbour that must not notice what goes on."""

    def __init__(self, name: str, supervisor: miniλ.Supervisor, host: Path) -> None:
        self.name = name
        self.supervisor = supervisor
        self.host = host
        self.event: dict[str, Any] = {}

    async def open(self, sockets: contextlib.ExitStack) -> None:
        """Start the neighbour, and put up on the host what escapes look for."""
        supervisor = self.supervisor
        (self.host / "code").mkdir()
        (self.host / "code" / "app.py").write_text(NEIGHBOUR, encoding="utf-8")
        (self.host / "file").write_text("precious", encoding="utf-8")
        halves = [uuid.uuid4().hex, uuid.uuid4().hex]
        self.secret = "".join(halves)
        sockets.callback(os.environ.pop, "MINILAMBDA_CANARY", None)
        os.environ["MINILAMBDA_CANARY"] = self.secret
        function = await supervisor.create_function(
            "neighbour", self.host / "code", "app.handler", environment={"SECRET": self.secret}
        )
        await self.neighbour()
        (started,) = supervisor.journal.story(journal.WorkerStarted)
        (worker,) = supervisor._pool._workers.values()
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
            "registry": str(supervisor.registry.path),
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
        """Have a function under test; nothing of it is left afterwards."""
        supervisor = self.supervisor
        before = asyncio.all_tasks()
        options = {"memory_size": 512, "timeout": 25, **options}
        await supervisor.create_function("subject", code, handler, **options)
        try:
            yield supervisor
        finally:
            await supervisor.delete_function("subject")
            # Its workers live as long as their tasks do; the watch goes on for the neighbour.
            tasks = asyncio.all_tasks() - before - {supervisor._pool._watcher}
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
        """Let an escape loose, twice, beside the neighbour; return its verdict."""
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
        """Run a scenario of a test; a look through /proc that still goes on comes to its end."""
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
    """Return an interpreter of our version that nobody may run; skips where there is none."""
    # It must find itself as well: workers are started by what it takes for its own path.
    check = "import subprocess, sys; subprocess.run([sys.executable, '-V'], check=True)"
    for program in catalog.candidates(catalog.own()):
        command = [*as_nobody(), program, "-I", "-c", check]
        if subprocess.run(command, capture_output=True, cwd="/", check=False).returncode == 0:
            return program
    pytest.skip(f"no {catalog.own()} on this machine that an unprivileged user may run")


every_level = pytest.mark.parametrize("at", LEVELS, indirect=True, scope="module")
in_namespaces = pytest.mark.parametrize(
    "at", [level for level in LEVELS if level in BOXED], indirect=True, scope="module"
)
