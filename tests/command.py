"""The command line as a program, for tests: started, and run to its end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from miniλ.runtimes import catalog
from miniλ.sandbox import hierarchies

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[1]

SUBJECT = """
import os, sys, time

def handler(event, context):
    match event:
        case "fail":
            raise ValueError("no")
        case "sleep":
            time.sleep(50)
        case "kill":
            os.kill(os.getpid(), 9)
        case "limits":
            return [context.memory_limit_in_mb, context.get_remaining_time_in_millis()]
        case "memory":
            try:
                bytearray(2 << 30)
            except MemoryError:
                return "caught"
        case {"env": name}:
            return os.environ.get(name)
        case {"say": text}:
            print(text)
            return text
        case {"hold": fifo}:
            global held
            held = open(fifo, "wb", buffering=0)
            held.write(b"held")
            time.sleep(50)
        case _:
            return event
"""


class Done(NamedTuple):
    """How a command ended: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed to stdout, as JSON."""
        return json.loads(self.out)


def left_by(pid: int, states: Path | None = None) -> list[Path]:
    """Return the temporary states and cgroups of a supervisor that was this process."""
    base = states or Path(tempfile.gettempdir()) / f"minilambda-{os.geteuid()}"
    groups = [
        path
        for place in hierarchies.places().values()
        for path in Path(place).glob(f"minilambda-{pid:06x}*")
    ]
    return [*base.glob(f"{pid:06x}*"), *groups]


def start(*arguments: str | bytes | Path, env: dict[str, str] | None = None) -> Any:
    """Start the command; `env` is on top of ours."""
    return subprocess.Popen(
        [sys.executable, "-m", "miniλ", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: Any, stdin: bytes = b"") -> Done:
    """Wait for the command; it leaves no state and no cgroup, however it ended."""
    with process:
        out, err = process.communicate(stdin)

    assert left_by(process.pid) == []
    # A handler's traceback is one line of its log; one that starts a line is ours.
    assert b"\nTraceback (most recent call last)" not in b"\n" + err, err.decode()
    return Done(process.returncode, out.decode(), err.decode())


def run(
    *arguments: str | bytes | Path, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Done:
    """Run the command to its end."""
    return finish(start(*arguments, env=env), stdin)


def environment(url: str, **others: str) -> dict[str, str]:
    """Return the variables of a command that asks this server, and signs nothing."""
    none = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")
    return {**dict.fromkeys(none, ""), "MINILAMBDA_ENDPOINT_URL": url, **others}


def check_findings(findings: Sequence[dict[str, str]]) -> None:
    """Assert that each resource has a level, and each gap a remedy (the network has none)."""
    limits = [f for f in findings if f["resource"] not in ("missing", "runtimes")]
    assert {f["level"] for f in limits} <= {"hard", "soft", "none"}
    assert {"memory", "cpu", "processes", "timeout", "tmp"} <= {f["resource"] for f in limits}
    assert all(f["by"] for f in findings)
    gaps = {f["resource"] for f in limits if f["level"] != "hard" and not f["remedy"]}
    assert gaps <= {"network"}
    assert [catalog.own() in f["by"] for f in findings if f["resource"] == "runtimes"] == [True]
