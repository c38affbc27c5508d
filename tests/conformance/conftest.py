"""Handlers, their packages and interpreters: what the conformance tests are made from.

A test gives a handler's source or name and events, and gets responses: each goes through a
supervisor of its own, so no test sees a worker of another.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

import miniλ

if TYPE_CHECKING:
    from collections.abc import Callable

    from contract import Ask

    from miniλ import Response

FUNCTIONS = Path(__file__).resolve().parent.parent / "functions"
OWN = f"python3.{sys.version_info.minor}"
RUNTIMES = ["python3.9", "python3.10", "python3.11", "python3.12", "python3.13"]


@pytest.fixture
def deploy(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that writes a source text into a code directory and returns it."""
    code = tmp_path / "code"

    def deploy(source: str, file: str = "app.py") -> Path:
        path = code / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(source), encoding="utf-8")
        return code

    return deploy


@pytest.fixture
def ask(deploy: Callable[[str], Path]) -> Ask:
    """Return an `Ask`: its function is "asked", has 10 s, and a supervisor of its own."""

    def ask(
        code: str | Path,
        *events: object,
        handler: str = "app.handler",
        say: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[Response]:
        directory = deploy(code) if isinstance(code, str) else code

        async def scenario() -> list[Response]:
            async with miniλ.Supervisor() as supervisor:
                await supervisor.create_function(
                    "asked", directory, handler, **{"timeout": 10, **options}
                )
                return [await supervisor.invoke("asked", event, **(say or {})) for event in events]

        return asyncio.run(scenario())

    return ask


@pytest.fixture(scope="session")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from the name of a handler in tests/functions to its directory.

    If it has a requirements.txt its packages are beside it, installed once per session.
    If pip cannot install them the test is skipped, with the last line of pip's error.
    """
    built: dict[str, Path | str] = {}

    def find(name: str) -> Path:
        if name not in built:
            built[name] = _with_packages(FUNCTIONS / name, tmp_path_factory.mktemp(name))
        code = built[name]
        if isinstance(code, str):
            pytest.skip(code)
        return code

    return find


def _with_packages(source: Path, scratch: Path) -> Path | str:
    """Return a code directory with a handler's packages, or why pip did not make one."""
    requirements = source / "requirements.txt"
    if not requirements.exists():
        return source
    code = scratch / "code"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries=1"]
    pip += ["--disable-pip-version-check", "--no-compile", "--target", str(code)]
    done = subprocess.run(
        [*pip, "-r", str(requirements)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"pip: {done.stderr.strip().splitlines()[-1]}"
    shutil.copytree(source, code, dirs_exist_ok=True)
    return code


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Return each Python runtime of this machine; others are skipped by name."""
    name: str = request.param
    if name != OWN and not _is_here(name):
        pytest.skip(f"{name} is not on PATH")
    return name


@functools.cache
def _is_here(name: str) -> bool:
    """Return whether a program of that name runs: a version manager's stub may not."""
    for directory in os.get_exec_path():
        path = shutil.which(name, path=directory)
        if (
            path
            and not subprocess.run(
                [path, "-I", "-S", "-c", ""], capture_output=True, check=False
            ).returncode
        ):
            return True
    return False
