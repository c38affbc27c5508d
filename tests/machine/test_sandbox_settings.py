"""Settings of the sandbox: limits that are required, mechanisms left out; and user `nobody`."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import miniλ
from miniλ.errors import InvalidParameterValue, NotEnforced
from miniλ.sandbox import levels
from miniλ.settings import Settings
from tests.machine.places import (
    IS_ROOT,
    NEIGHBOUR,
    ROOT,
    as_nobody,
    program_for_nobody,
    settings_at,
)

# Settings


def _limits(settings: Settings) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with miniλ.Supervisor(settings=settings) as supervisor:
            return supervisor.limits

    return asyncio.run(main())


def test_a_requirement_that_is_not_met_is_an_error() -> None:
    """NotEnforced names the resource and its present limit."""
    with pytest.raises(NotEnforced, match="files is required to be hard, and is none"):
        _limits(settings_at("bare", require="files:hard"))


def test_a_supervisor_whose_requirements_are_met_starts() -> None:
    """A "soft" requirement is met by a hard limit as well."""
    limits = _limits(settings_at("bare", require="timeout:soft, descriptors:hard,files:none"))

    assert limits["descriptors"].startswith("hard")


@pytest.mark.parametrize(
    ("require", "code"), [("files:hard", 78), ("descriptors:hard", 0), ("fils:hard", 2)]
)
def test_the_command_line_requires(require: str, code: int, function_directory: Any) -> None:
    """Unmet requirements exit with 78, met ones run, unknown words are a usage error."""
    code_directory = function_directory("neighbour", app=NEIGHBOUR)
    target = f"{code_directory}:app.handler"
    command = subprocess.run(
        [
            *(sys.executable, "-m", "miniλ", "invoke", target, "--require", require),
            *("--sandbox", "bare"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert command.returncode == code, command.stderr
    assert (require.partition(":")[0] in command.stderr) is (code != 0)


@pytest.mark.parametrize(
    ("setting", "text", "word"),
    [
        ("without", "seccomp,landlok", "landlok"),
        ("without", "all", "all"),
        ("require", "memory:harder", "memory:harder"),
        ("require", "files:hard,brain:soft", "brain:soft"),
    ],
)
def test_unknown_words_are_refused(setting: str, text: str, word: str) -> None:
    """An unknown word is refused, and the message has it."""
    with pytest.raises(InvalidParameterValue, match=f"{setting}: '{word}' is none of"):
        _limits(Settings(sandbox="bare", **{setting: text}))  # type: ignore[arg-type]


def test_a_requirement_without_a_strength_is_refused_with_the_strengths() -> None:
    """The message has what to write."""
    expected = r"'memory' has no strength: write memory:hard \(or :soft, :none\)"
    with pytest.raises(InvalidParameterValue, match=expected):
        _limits(Settings(sandbox="bare", require="memory"))


CHANGES = {
    "seccomp": {"syscalls"},
    "landlock": {"files"},
    "namespaces": {"files", "siblings", "tmp"},
    "users": {"siblings"},
    "volumes": {"tmp"},
    "cgroup": {"memory", "cpu", "freeze"},
}


@pytest.fixture(scope="module")
def all_limits() -> dict[str, str]:
    """Return the limits with every mechanism that this host has."""
    return _limits(Settings())


@pytest.mark.parametrize("mechanism", levels.MECHANISMS)
def test_limits_change_with_a_mechanism_left_out(
    mechanism: str, all_limits: dict[str, str]
) -> None:
    """Each mechanism that is switched off changes the limits that it enforces (78)."""
    if not IS_ROOT and mechanism in ("users", "volumes"):
        pytest.skip(f"only root has {mechanism}")
    if mechanism == "cgroup" and not all_limits["memory"].startswith("hard"):
        pytest.skip("no cgroup on this host holds memory for this user")
    limits = _limits(Settings(without=mechanism))
    changed = {name for name in limits if limits[name] != all_limits[name]}

    assert changed >= CHANGES[mechanism]


# As user `nobody`

IMPORTED = (
    *("click", "msgspec", "psutil", "pytest", "_pytest", "py", "pluggy", "iniconfig"),
    *("packaging", "pygments", "pytest_timeout"),
)

FILES = ("test_escapes.py", "test_sandbox.py", "test_sandbox_kills.py", "test_sandbox_settings.py")


def test_the_sandbox_holds_without_root() -> None:
    """User `nobody`, without privileges, runs the tests of the sandbox, and they pass."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    program = program_for_nobody()
    root = Path(tempfile.mkdtemp(prefix="minilambda-test-"))
    try:
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("miniλ", "minilambda", "workers", "tests/machine"):
            shutil.copytree(ROOT / name, root / name, ignore=ignore)
        for name in ("pyproject.toml", "tests/conftest.py", "tests/__init__.py"):
            shutil.copy(ROOT / name, root / name)
        # Copies of what is imported: `nobody` may not read a virtual environment below /root.
        for name in IMPORTED:
            _copy_package(name, root)
        subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
        for name in ("home", "tmp"):
            (root / name).mkdir()
            (root / name).chmod(0o777)
        tests = subprocess.run(
            [
                *(*as_nobody(), program, "-m", "pytest", "-q", "-p", "pytest_timeout"),
                *("-p", "no:cacheprovider", "-o", "addopts=-ra"),
                *(str(root / "tests/machine" / name) for name in FILES),
            ],
            cwd=root,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
                "PYTHONPATH": str(root),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(root / "home"),
                "TMPDIR": str(root / "tmp"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert tests.returncode == 0, tests.stdout[-20000:] + tests.stderr[-2000:]
    match = re.search(r"(\d+) passed", tests.stdout)
    assert match is not None and int(match[1]) > 100, tests.stdout[-3000:]


def _copy_package(name: str, target: Path) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    if spec.submodule_search_locations:
        shutil.copytree(spec.submodule_search_locations[0], target / name)
    else:
        shutil.copy(spec.origin, target)
