"""The benchmark of the HTTP front door: `minilambda serve` beside an empty aiohttp handler.

Server and floor are processes of their own, as the peers are, and all have the same light client,
which runs here: what it costs is in everybody's figures. A warm round is played twice, as in
`invoke`; eight connections likewise, and their promise is about all cores, as in `throughput`.

Idle connections are weighed in servers that do nothing else: what was freed after the rounds
would hide what they cost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import psutil

from benchmarks import deploy, peers, report, rounds
from benchmarks.ours import EVENT, GREETING, HELLO, MEMORY
from benchmarks.rounds import Contestant, Effort, Figure, Played
from benchmarks.servers import (
    INVOKE,
    Connection,
    Server,
    create_function,
    free_port,
    listening,
)
from benchmarks.throughput import AT_ONCE, LANES, ONE_AT_A_TIME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

FULL = Effort(rounds=15, calls=4000, seconds=1.0)
QUICK = Effort(rounds=3, calls=400, seconds=0.15)
DEPLOYS, QUICK_DEPLOYS = 7, 2

OURS = "miniλ"
EMPTY = "empty aiohttp handler"
P50_FREE = f"p50, {rounds.FREE}"
AT_ONCE_HELD = f"{AT_ONCE}, {rounds.ONE_CORE}"
IDLE = 1000
IDLE_MEMORY = f"{IDLE:,} idle"
DEPLOY = "deploy"
MB = 2**20
REPOSITORY = HELLO.parents[2]
STOP_SECONDS = 10.0

# Who does as Lambda's API does; functions-framework is a server for a function, and a row.
EMULATORS = (peers.RIE, peers.MINISTACK, peers.OFFLINE)

# Reads the body and answers as much as hello does, on the loop that miniλ takes.
_EMPTY = """
import sys
from aiohttp import web
try:
    from uvloop import new_event_loop
except ImportError:
    from asyncio import new_event_loop

async def answer(request):
    await request.read()
    return web.Response(body=sys.argv[2].encode(), content_type="application/json")

app = web.Application()
app.router.add_post("/{path:.*}", answer)
web.run_app(
    app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, loop=new_event_loop()
)
"""


class Process(NamedTuple):
    """A server in a process of its own."""

    pid: int
    port: int

    @property
    def rss(self) -> int:
        """The memory of the server itself, without its workers, in bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    @property
    def descriptors(self) -> int:
        """How many are open."""
        return int(psutil.Process(self.pid).num_fds())


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure miniλ's HTTP front door, its floors and the named peers that have one."""
    names = [name for name in names if name != peers.LOKY]  # it has no front door
    played, absent = await _rounds(names, QUICK if quick else FULL)
    figures = played.figures
    rounds.progress(f"opening {IDLE} connections")
    with _descriptors():
        for name, serving in ((EMPTY, _empty), (OURS, _serve)):
            async with serving() as process:
                grown = float(await _grown(process))
            figures[name][IDLE_MEMORY] = Figure("bytes", grown, [grown])
    async with _serve() as process:
        deployed = await deploy.play(process.port, QUICK_DEPLOYS if quick else DEPLOYS, DEPLOY)
    ratios = {
        "x empty": (EMPTY, "p50"),
        f"{AT_ONCE} / empty": (EMPTY, AT_ONCE),
        "x unzip": (deploy.UNZIP, DEPLOY),
    }
    everything = Played({**figures, **deployed.figures}, played.failed)
    return report.Result(
        benchmark="http",
        about=(
            "Hello by HTTP, one after the other and eight at once: the median of the rounds. "
            f"{IDLE_MEMORY}: what so many connections add to the server's memory. {DEPLOY}: "
            f"{deploy.SIZE // MB} MB, from asked to in force and on disk."
        ),
        rows=report.rows(
            everything, [EMPTY, OURS, *names, *deploy.NAMES], ratios, {**absent, **deploy.absent()}
        ),
        promises=_promises(everything),
    )


def _promises(played: Played) -> list[report.Promise]:
    warm = played.value(OURS, "p50")
    at_once = played.value(OURS, AT_ONCE) / played.value(EMPTY, AT_ONCE)
    idle = played.value(OURS, IDLE_MEMORY) / MB
    found = [
        report.bound(
            "warm p50, times an empty aiohttp handler",
            warm / played.value(EMPTY, "p50"),
            2.5,
            "at most",
            "x",
        ),
        report.bound(
            f"{LANES} connections, share of an empty aiohttp handler", at_once, 0.5, "at least", "x"
        ),
        report.bound(f"{IDLE:,} idle connections", idle, 20, "at most", " MB"),
    ]
    emulators = [name for name in EMULATORS if name in played.figures]
    if emulators:
        best = min(emulators, key=lambda name: played.value(name, "p50"))
        share = warm / played.value(best, "p50")
        promise = f"warm p50, share of the best emulator here, {best}"
        found.insert(1, report.bound(promise, share, 0.5, "at most", "x"))
    if deploy.UNZIP in played.figures:
        floor = played.value(deploy.UNZIP, DEPLOY)
        found += [
            report.bound(
                f"{name} of {deploy.SIZE // MB} MB, times unzip and sync",
                played.value(name, DEPLOY) / floor,
                2,
                "at most",
                "x",
            )
            for name in (deploy.CREATE, deploy.UPDATE)
        ]
    return found


# Warm calls


async def _rounds(names: Sequence[str], effort: Effort) -> tuple[Played, dict[str, str]]:
    """Play the rounds of one call at a time and of eight; return both, and who is not here."""
    async with contextlib.AsyncExitStack() as stack:
        rounds.progress("starting servers")
        # For the rounds on one core, and for the free ones.
        running: dict[str, tuple[peers.Peer, peers.Peer]] = {}
        for name, serving in ((EMPTY, _empty), (OURS, _serve)):
            both = []
            for where in (rounds.ONE_CORE, rounds.FREE):
                with rounds.placed(where):
                    process = await stack.enter_async_context(serving())
                both.append(Server(process.port, INVOKE.format("hello"), LANES))
                stack.callback(both[-1].close)
            running[name] = both[0], both[1]
        others, absent = await peers.start_all(stack, names, LANES)
        running |= {name: (peer, peer) for name, peer in others.items()}
        # Workers are started, and not counted.
        for server in running[OURS]:
            await server.rate(Effort(1, 20 * LANES, 10.0), LANES)
        one = await rounds.play(
            [
                Contestant(name, _latencies(*each, effort), name in others)
                for name, each in running.items()
            ],
            effort.rounds,
            "s",
        )
        eight = await rounds.play(
            [
                Contestant(name, _rates(*each, effort), name in others)
                for name, each in running.items()
                if name not in (*ONE_AT_A_TIME, *one.failed)
            ],
            effort.rounds,
            "calls/s",
        )
    figures = {
        name: {**found, **eight.figures.get(name, {})} for name, found in one.figures.items()
    }
    return Played(figures, {**one.failed, **eight.failed}), absent


def _latencies(
    held: peers.Peer, free: peers.Peer, effort: Effort
) -> Callable[[], Awaitable[dict[str, float]]]:
    async def play() -> dict[str, float]:
        rounds.place(rounds.ONE_CORE)
        on_one = rounds.spread(await held.latencies(effort), 50, 99)
        rounds.place(rounds.FREE)
        anywhere = rounds.spread(await free.latencies(effort), 50)
        return {**on_one, P50_FREE: anywhere["p50"]}

    return play


def _rates(
    held: peers.Peer, free: peers.Peer, effort: Effort
) -> Callable[[], Awaitable[dict[str, float]]]:
    async def play() -> dict[str, float]:
        rounds.place(rounds.ONE_CORE)
        on_one = await held.rate(effort, LANES)
        rounds.place(rounds.FREE)
        return {AT_ONCE_HELD: on_one, AT_ONCE: await free.rate(effort, LANES)}

    return play


# Idle connections


async def _grown(process: Process) -> int:
    """Open many connections, each with one call; return by how many bytes the server grew."""
    path, event = INVOKE.format("hello"), json.dumps(EVENT).encode()
    first, *others = [Connection(process.port, path, event) for _ in range(1 + IDLE)]
    try:
        # Calls leave something too: facts, logs. What they leave first is there before.
        for _ in range(IDLE):
            await first.call()
        before, open_before = process.rss, process.descriptors
        for connection in others:
            await connection.call()
        if process.descriptors - open_before < IDLE:
            raise RuntimeError(
                f"{process.descriptors - open_before} of {IDLE} connections are open"
            )
        return process.rss - before
    finally:
        for connection in (first, *others):
            connection.close()


@contextlib.contextmanager
def _descriptors() -> Iterator[None]:
    """Have as many descriptors as we may; so have those that we start."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# Servers


@contextlib.asynccontextmanager
async def _empty() -> AsyncIterator[Process]:
    """Run the floor."""
    port = free_port()
    answer = json.dumps(GREETING)
    command = [sys.executable, "-I", "-c", _EMPTY, str(port), answer]
    async with peers.program(command) as process:
        await listening(process, port)
        yield Process(process.pid, port)


@contextlib.asynccontextmanager
async def _serve() -> AsyncIterator[Process]:
    """Run `minilambda serve` with hello."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as scratch:
        command = [sys.executable, "-m", "miniλ", "serve", "--port", str(port)]
        command += ["--state", str(Path(scratch) / "state")]
        async with peers.program(command, cwd=REPOSITORY) as process:
            try:
                await listening(process, port)
                await create_function(port, deploy.RUNTIME, MEMORY)
                await deploy.in_force(port, "hello")
                yield Process(process.pid, port)
            finally:
                # It ends its workers; killed, it would leave some of what they had.
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.shield(asyncio.to_thread(process.wait, STOP_SECONDS))
