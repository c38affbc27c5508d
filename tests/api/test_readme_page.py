"""The tutorial docs/server.md, done as a newcomer does it: top to bottom, in one directory.

The blocks of `sh` are one script, run by sh with the page's own commands on PATH; the one that
starts the server runs beside it. A block of `text` is what its block of `sh` shows, and must be
all of that: "..." is any part of a line, and on a line of its own any lines. A block after a
comment `not run` is left out.

Two things are replaced: the port, since another server may have it, and the runtime, which is
that of the interpreter that runs us.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from miniλ import settings
from miniλ.gateway.http import keys
from tests.api.conftest import RUNTIME, STOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
PORT, PYTHON = "9001", "python3.11"
SERVE = "minilambda serve"
MARK = "-- the next block --"

_BLOCK = re.compile(r"^(<!-- not run.*?-->\n)?```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Step(NamedTuple):
    """A block of commands, and the block that shows what they print ("" without one)."""

    commands: str
    shown: str


def blocks(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    return [text for _, name, text in _BLOCK.findall(PAGE) if name == language]


def steps(port: int) -> list[Step]:
    """Return what the page has its reader do."""
    to_do: list[Step] = []
    page = PAGE.replace(PORT, str(port)).replace(PYTHON, RUNTIME)
    for left_out, language, text in _BLOCK.findall(page):
        if language == "sh" and not left_out:
            to_do.append(Step(text, ""))
        elif language == "text":
            assert not to_do[-1].shown, text
            to_do[-1] = to_do[-1]._replace(shown=text)
    return to_do


def pattern(shown: str) -> str:
    """Return the expression of what is shown."""
    lines = []
    for line in shown.splitlines():
        parts = ".*".join(re.escape(part) for part in line.split("..."))
        lines.append(r"(?:.*\n)*?" if line == "..." else parts + r"\n")
    return "".join(lines)


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a newcomer that has just installed everything."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    for command in ("minilambda", "aws", "curl", "python3", "sh", "sed"):
        if shutil.which(command, path=path) is None:
            pytest.skip(f"{command} is not on PATH")
    known = ("AWS_", "MINILAMBDA_ENDPOINT_URL")
    others = {name: value for name, value in os.environ.items() if not name.startswith(known)}
    home = tmp_path / "home"
    home.mkdir()
    return {**others, "PATH": path, "HOME": str(home)}


@pytest.fixture
def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return the directory that the reader is in."""
    made = tmp_path / "reader"
    made.mkdir()
    return made


@pytest.fixture
def served(surroundings: dict[str, str], free_port: int, directory: Path) -> Iterator[str]:
    """Run the block that starts the server; return what it prints when it listens."""
    (step,) = (step for step in steps(free_port) if step.commands.startswith(SERVE))
    process = subprocess.Popen(
        ["sh", "-c", f"exec {step.commands}"],
        cwd=directory,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )
    with process:
        assert process.stdout is not None
        try:
            yield "".join(process.stdout.readline() for _ in step.shown.splitlines())
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)

    assert 0 == process.returncode


@pytest.mark.timeout(110)
def test_the_page_does_what_it_shows(
    surroundings: dict[str, str], free_port: int, directory: Path, served: str
) -> None:
    """Each block prints what stands below it, and nothing else."""
    to_do = steps(free_port)
    (serve,) = (step for step in to_do if step.commands.startswith(SERVE))
    others = [step for step in to_do if step is not serve]
    assert re.fullmatch(pattern(serve.shown), served), served
    script = "\n".join(f"{step.commands}\necho\necho {MARK}" for step in others)
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=directory,
        env=surroundings,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        check=False,
        text=True,
        encoding="utf-8",
    )

    assert 0 == done.returncode, done.stdout
    # A tab looks like a space.
    printed = done.stdout.replace("\t", " ").split(f"{MARK}\n")[:-1]
    assert len(others) == len(printed)
    for step, text in zip(others, printed, strict=True):
        # An empty line is the mark's own; what has no newline at its end, as an answer to curl,
        # ends with it.
        assert re.fullmatch(pattern(step.shown) + r"\n?", text), f"{step.commands}\n{text}"


def test_the_settings_of_the_page_are_settings(tmp_path: Path) -> None:
    """Both files are read as they are shown."""
    chosen, allowed = blocks("toml")
    (tmp_path / "settings.toml").write_text(chosen, encoding="utf-8")
    (tmp_path / "keys.toml").write_text(allowed, encoding="utf-8")
    (tmp_path / "keys.toml").chmod(0o600)
    loaded = settings.load(tmp_path / "settings.toml", {})
    read = keys.load(tmp_path / "keys.toml")

    assert loaded.auth == settings.AuthSettings("keys.toml")
    assert loaded.s3 == settings.S3Settings("http://127.0.0.1:9000", "code", "...")
    assert read.may("AKIADEPLOY", "lambda:DeleteFunction", "hello")
    assert read.may("AKIAORDERS", "lambda:InvokeFunction", "orders-in")
    assert not read.may("AKIAORDERS", "lambda:InvokeFunction", "hello")
    assert not read.may("AKIAORDERS", "lambda:GetFunction", "orders-in")
