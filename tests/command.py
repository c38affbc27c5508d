"""The command line as a program, for tests: started, interrupted, and run to its end."""

from __future__ import annotations

import json
import os
import re
import signal
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


_OWN_TRACEBACK = re.compile(
    rb"(?:\A|^(?!\[ERROR\]).*\n)Traceback \(most recent call last\)", re.MULTILINE
)

# Runs its arguments with SIGINT's default action.
_INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Done(NamedTuple):
    """The result of a command: its exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its stdout, parsed as JSON."""
        return json.loads(self.out)


def left_by(pid: int, states: Path | None = None) -> list[Path]:
    """Return the temporary states and cgroups that a supervisor with this pid left behind."""
    base = states or Path(tempfile.gettempdir()) / f"minilambda-{os.geteuid()}"
    groups = [
        path
        for place in hierarchies.places().values()
        for path in Path(place).glob(f"minilambda-{pid:06x}*")
    ]
    return [*base.glob(f"{pid:06x}*"), *groups]


def start(*arguments: str | bytes | Path, env: dict[str, str] | None = None) -> Any:
    """Start the command; `env` is added to our environment. SIGINT ends it, also if we ignore it.

    A shell without job control starts its background jobs with SIGINT ignored, and a child inherits
    that through fork and exec (POSIX, Shell Command Language, 2.11).
    """
    launcher: list[str] = []
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        launcher = [sys.executable, "-I", "-S", "-c", _INTERRUPTIBLE]
    return subprocess.Popen(
        [*launcher, sys.executable, "-m", "miniλ", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: Any, stdin: bytes = b"") -> Done:
    """Wait for the command; check that it left no state, no cgroup and no traceback."""
    with process:
        out, err = process.communicate(stdin)

    assert left_by(process.pid) == []
    # A handler's traceback follows its [ERROR] line in the log; any other one is miniλ's.
    assert not _OWN_TRACEBACK.search(err), err.decode()
    return Done(process.returncode, out.decode(), err.decode())


def run(
    *arguments: str | bytes | Path, stdin: bytes = b"", env: dict[str, str] | None = None
) -> Done:
    """Run the command to its end."""
    return finish(start(*arguments, env=env), stdin)


def environment(url: str, **others: str) -> dict[str, str]:
    """Return the variables of a command that asks this server without a key."""
    none = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")
    return {**dict.fromkeys(none, ""), "MINILAMBDA_ENDPOINT_URL": url, **others}


def check_report(checks: Sequence[dict[str, str]]) -> None:
    """Assert that each resource has a level, and each gap a remedy (network needs none)."""
    limits = [f for f in checks if f["resource"] not in ("level", "missing", "runtimes")]
    assert {f["level"] for f in limits} <= {"hard", "soft", "none"}
    assert {"memory", "cpu", "processes", "timeout", "tmp"} <= {f["resource"] for f in limits}
    assert all(f["by"] for f in checks)
    gaps = {f["resource"] for f in limits if f["level"] != "hard" and not f["remedy"]}
    assert gaps <= {"network"}
    assert [catalog.own() in f["by"] for f in checks if f["resource"] == "runtimes"] == [True]
