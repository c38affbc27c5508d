"""The benchmark of the HTTP gateway: `minilambda serve` beside an empty aiohttp handler.

The server, the floor and the peers are processes of their own, and have the same light client,
which runs in this process: its cost is in the figures of all of them. A warm round is played twice,
as in `invoke`; so is one with eight connections, whose promise is about all cores, as in
`throughput`.

Idle connections are measured in new servers: memory that was freed after the rounds would be used
again, and hide their cost.
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

from benchmarks import catalog, deploy, peers, promises, report, rounds
from benchmarks.ours import EVENT, GREETING, HELLO, MEMORY
from benchmarks.programs import program
from benchmarks.rounds import Contestant, Effort, Figure, Played
from benchmarks.servers import (
    INVOKE,
    Connection,
    Server,
    create_function,
    free_port,
    listening,
)
from benchmarks.throughput import AT_ONCE, LANES

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

# Reads the body and answers as many bytes as hello, on the same loop as miniλ's.
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
        """The number of open descriptors."""
        return int(psutil.Process(self.pid).num_fds())


async def run(names: Sequence[str], *, quick: bool) -> report.Result:
    """Measure miniλ's gateway, its floors and the named peers that are HTTP servers."""
    names = [name for name in names if name != catalog.LOKY]  # it has no HTTP server
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
            "Invocations of hello over HTTP, one after the other and eight at once: the median of "
            f"the rounds. `{IDLE_MEMORY}`: the memory that {IDLE:,} connections add to the server. "
            f"`{DEPLOY}`: {deploy.SIZE // MB} MB, from the request to in force and on disk."
        ),
        rows=report.rows(
            everything, [EMPTY, OURS, *names, *deploy.NAMES], ratios, {**absent, **deploy.absent()}
        ),
        promises=_promises(everything),
    )


def _promises(played: Played) -> list[report.Promise]:
    warm = played.value(OURS, "p50")
    eight = played.value(OURS, AT_ONCE) / played.value(EMPTY, AT_ONCE)
    made = [
        promises.bound(
            "http.empty",
            warm / played.value(EMPTY, "p50"),
            f"{played.amounts(OURS, EMPTY, 'p50')}; with free placement "
            f"{played.amounts(OURS, EMPTY, P50_FREE)}",
        ),
        promises.bound("http.eight", eight, played.amounts(OURS, EMPTY, AT_ONCE)),
        promises.bound("http.idle", played.value(OURS, IDLE_MEMORY) / MB),
    ]
    emulators = [name for name in catalog.EMULATORS if name in played.figures]
    if emulators:
        best = min(emulators, key=lambda name: played.value(name, "p50"))
        detail = f"{played.amounts(OURS, best, 'p50')} of {best}"
        made.insert(1, promises.bound("http.emulators", warm / played.value(best, "p50"), detail))
    if deploy.UNZIP in played.figures:
        floor = played.value(deploy.UNZIP, DEPLOY)
        made += [
            promises.bound(
                promise_name,
                played.value(name, DEPLOY) / floor,
                played.amounts(name, deploy.UNZIP, DEPLOY),
            )
            for promise_name, name in (
                ("http.create", deploy.CREATE),
                ("http.update", deploy.UPDATE),
            )
        ]
    return made


# Warm calls


async def _rounds(names: Sequence[str], effort: Effort) -> tuple[Played, dict[str, str]]:
    """Play rounds of one call at a time and of eight; return both, and notes on absent peers."""
    async with contextlib.AsyncExitStack() as stack:
        rounds.progress("starting servers")
        # One for the rounds on one core, one for those with free placement.
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
        # Starts the workers; not counted.
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
                if name not in (*catalog.ONE_AT_A_TIME, *one.failed)
            ],
            effort.rounds,
            "calls/s",
        )
    figures = {
        name: {**figures, **eight.figures.get(name, {})} for name, figures in one.figures.items()
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
    """Open 1,000 connections, each with one call; return the growth of the server in bytes."""
    path, event = INVOKE.format("hello"), json.dumps(EVENT).encode()
    first, *others = [Connection(process.port, path, event) for _ in range(1 + IDLE)]
    try:
        # Calls add facts and logs, too. As many calls come first, so that the buffers are filled.
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
    """Raise the limit of open descriptors to the hard one, here and in programs started here."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# Servers


@contextlib.asynccontextmanager
async def _empty() -> AsyncIterator[Process]:
    """Run the floor: an aiohttp application with one handler."""
    port = free_port()
    answer = json.dumps(GREETING)
    command = [sys.executable, "-I", "-c", _EMPTY, str(port), answer]
    async with program(command) as process:
        await listening(process, port)
        yield Process(process.pid, port)


@contextlib.asynccontextmanager
async def _serve() -> AsyncIterator[Process]:
    """Run `minilambda serve` with the function hello."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as temporary:
        command = [sys.executable, "-m", "miniλ", "serve", "--port", str(port)]
        command += ["--state", str(Path(temporary) / "state")]
        async with program(command, cwd=REPOSITORY) as process:
            try:
                await listening(process, port)
                await create_function(port, deploy.RUNTIME, MEMORY)
                await deploy.in_force(port, "hello")
                yield Process(process.pid, port)
            finally:
                # SIGTERM first: a server that is killed leaves cgroups for the next one to sweep.
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.shield(asyncio.to_thread(process.wait, STOP_SECONDS))
