"""The command line of the soak: `python -m tests.soak`."""

from __future__ import annotations

import argparse
import asyncio
import math
import platform
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import msgspec

import miniλ
from miniλ.sandbox import levels
from miniλ.settings import load

from .load import Soak
from .mix import ABUSES
from .report import progress, show
from .results import Result, Row


async def _soak(result: Result, sandbox: str | None) -> None:
    """Open a supervisor, soak it, close it, and list what is left, also after an error."""
    settings = load()
    if sandbox is not None:
        settings = msgspec.structs.replace(settings, sandbox=sandbox)
    premises = None
    try:
        with tempfile.TemporaryDirectory(prefix="minilambda-soak-") as directory:
            async with miniλ.Supervisor(settings=settings) as supervisor:
                result.limits = supervisor.limits
                soak = Soak(supervisor, result, Path(directory))
                premises = soak.premises
                await soak.run()
    finally:
        progress("")
        if premises is not None:
            left = premises.left()
            result.rows.append(Row("left when closed: nothing", "", str(len(left)), not left))
            sys.stderr.writelines(f"LEFT: {what}\n" for what in left)


def main(arguments: list[str] | None = None) -> int:
    """Run the soak of the command line; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Soak a supervisor.")
    parser.add_argument("--minutes", type=float, default=1.0, help="of load, warm-up included")
    parser.add_argument("--seed", type=int, default=None, help="of the mix")
    parser.add_argument("--json", metavar="FILE", help="write everything to it")
    parser.add_argument("--sandbox", choices=levels.LEVELS, help="the highest level to use")
    parser.add_argument("--chaos", type=float, default=0.01, help="the share of abuses")
    options = parser.parse_args(arguments)
    if not 0.5 <= options.minutes < math.inf or not 0 <= options.chaos <= 1:
        parser.error("--minutes must be at least 0.5, and --chaos 0 to 1")
    python, kernel = platform.python_version(), platform.release()
    result = Result(
        where=f"miniλ {miniλ.__version__}, Python {python}, Linux {kernel}",
        minutes=options.minutes,
        seed=random.randrange(2**32) if options.seed is None else options.seed,
        chaos=options.chaos,
        abuses={name: Counter() for name in ABUSES},
    )
    try:
        asyncio.run(_soak(result, options.sandbox))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; closed\n")
        return 130
    sys.stdout.write(show(result) + "\n")
    if options.json:
        text = msgspec.json.format(msgspec.json.encode(result, enc_hook=list), indent=2)
        Path(options.json).write_bytes(text + b"\n")
    return 0 if all(row.holds for row in result.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
