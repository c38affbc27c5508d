"""A part of the benchmark `http`: deploying 40 MB by Lambda's API, beside `unzip` and `sync -f`.

Rule 1: the time ends when the code is on disk and the function is Active and Successful.

Rule 2: each deploy has a new archive: a package that is in the store is not written again.

Rule 3: before each deploy all dirty pages of the machine are written (sync).
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import rounds
from benchmarks.ours import HANDLER, HELLO
from benchmarks.rounds import Contestant, Played
from benchmarks.servers import FUNCTIONS, ROLE, Connection

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE = 40 * 2**20
FILES = 200
TIMEOUT = 60.0

UNZIP = "unzip, sync -f"
CREATE = "miniλ, CreateFunction"
UPDATE = "miniλ, UpdateFunctionCode"
NAMES = (UNZIP, CREATE, UPDATE)
RUNTIME = f"python3.{sys.version_info[1]}"

# The floor: write all files, then one syncfs(2), as miniλ does. An fsync of each file takes far
# longer.
_UNZIP = 'unzip -q "$1" -d "$2" && sync -f "$2"'


def absent() -> dict[str, str]:
    """Return a note for the floor if a program that it needs is missing."""
    missing = [program for program in ("unzip", "sync") if shutil.which(program) is None]
    return {UNZIP: f"{missing[0]} is not installed"} if missing else {}


async def play(port: int, count: int, figure: str) -> Played:
    """Deploy `count` times to a server with the function hello; return the times as `figure`."""
    with tempfile.TemporaryDirectory(prefix="minilambda-benchmark-") as temporary:
        archive = Path(temporary) / "archive.zip"
        await asyncio.to_thread(_pack, archive)
        numbers = itertools.count(1)

        async def unzip() -> dict[str, float]:
            await asyncio.to_thread(_renew, archive, next(numbers))
            target = Path(temporary) / "unzipped"
            began = time.perf_counter()
            process = await asyncio.create_subprocess_exec(
                "sh", "-c", _UNZIP, "sh", archive, target
            )
            status = await process.wait()
            taken = time.perf_counter() - began
            if status:
                raise RuntimeError(f"unzip and sync ended with {status}")
            await asyncio.to_thread(shutil.rmtree, target)
            return {figure: taken}

        async def create() -> dict[str, float]:
            number = next(numbers)
            await asyncio.to_thread(_renew, archive, number)
            name = f"deployed-{number}"
            document = {
                "FunctionName": name,
                "Runtime": RUNTIME,
                "Role": ROLE,
                "Handler": HANDLER,
                "Code": {"ZipFile": _encoded(archive)},
            }
            taken = await _deploy(Connection(port, FUNCTIONS, _json(document)), port, name)
            await _once(Connection(port, f"{FUNCTIONS}/{name}", b"", "DELETE"))
            return {figure: taken}

        async def update() -> dict[str, float]:
            await asyncio.to_thread(_renew, archive, next(numbers))
            body = _json({"ZipFile": _encoded(archive)})
            change = Connection(port, f"{FUNCTIONS}/hello/code", body, "PUT")
            return {figure: await _deploy(change, port, "hello")}

        contestants = [Contestant(CREATE, create), Contestant(UPDATE, update)]
        if not absent():
            contestants.insert(0, Contestant(UNZIP, unzip))
        return await rounds.play(contestants, count, "s")


async def _deploy(change: Connection, port: int, name: str) -> float:
    """Request a change; return the seconds until it is in force."""
    began = time.perf_counter()
    await _once(change)
    await in_force(port, name)
    return time.perf_counter() - began


async def _once(connection: Connection) -> None:
    try:
        await asyncio.wait_for(connection.call(), TIMEOUT)
    finally:
        connection.close()


async def in_force(port: int, name: str) -> None:
    """Wait until the last change of a function is in force; raises if it failed."""
    question = Connection(port, f"{FUNCTIONS}/{name}/configuration", b"", "GET")
    try:
        async with asyncio.timeout(TIMEOUT):
            while True:
                configuration = json.loads(await question.call())
                states = configuration.get("State"), configuration.get("LastUpdateStatus")
                if states == ("Active", "Successful"):
                    return
                if "Failed" in states:
                    raise RuntimeError(f"the deploy of {name} failed: {configuration}")
                # Lambda's API has no event for it: polled every 2 ms.
                await asyncio.sleep(0.002)
    finally:
        question.close()


# The archive


def _pack(target: Path) -> None:
    """Write an archive of hello and of random files, which no compression makes smaller."""
    # Deflate stores random bytes as they are at any level; level 0 does not try to compress.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        archive.write(HELLO / "app.py", "app.py")
        for number in range(FILES):
            archive.writestr(f"data/{number}.bin", os.urandom(SIZE // FILES))


def _renew(archive: Path, number: int) -> None:
    """Make it another archive by one small file more; write all dirty pages of the machine."""
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(f"round-{number}", str(number))
    os.sync()


def _encoded(archive: Path) -> str:
    return base64.b64encode(archive.read_bytes()).decode()


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document).encode()
