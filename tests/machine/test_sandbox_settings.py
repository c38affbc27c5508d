"""What an operator requires of the sandbox and what he leaves out; and all of it as nobody."""

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


def test_what_is_required_and_not_held_is_an_error() -> None:
    """A requirement that is not met raises NotEnforced with the resource and what there is."""
    with pytest.raises(NotEnforced, match="files is required to be hard, and is none"):
        _limits(settings_at("bare", require="files:hard"))


def test_what_is_required_and_held_starts() -> None:
    """Requirements that are met start, "soft" also where it is hard."""
    held = _limits(settings_at("bare", require="timeout:soft, descriptors:hard,files:none"))

    assert held["descriptors"].startswith("hard")


@pytest.mark.parametrize(
    ("require", "code"), [("files:hard", 78), ("descriptors:hard", 0), ("fils:hard", 2)]
)
def test_the_command_line_requires(require: str, code: int, function_directory: Any) -> None:
    """Unmet requirements exit with 78, met ones run, words that are none are usage."""
    code_directory = function_directory("neighbour", app=NEIGHBOUR)
    target = f"{code_directory}:app.handler"
    done = subprocess.run(
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

    assert done.returncode == code, done.stderr
    assert (require.partition(":")[0] in done.stderr) is (code != 0)


@pytest.mark.parametrize(
    ("setting", "text", "word"),
    [
        ("without", "seccomp,landlok", "landlok"),
        ("without", "all", "all"),
        ("require", "memory", "memory"),
        ("require", "memory:harder", "memory:harder"),
        ("require", "files:hard,brain:soft", "brain:soft"),
    ],
)
def test_unknown_words_are_refused(setting: str, text: str, word: str) -> None:
    """A word that is none is refused, and the message has it."""
    with pytest.raises(InvalidParameterValue, match=f"{setting}: '{word}' is none of"):
        _limits(Settings(sandbox="bare", **{setting: text}))  # type: ignore[arg-type]


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
    """Return what is held here with everything that there is."""
    return _limits(Settings())


@pytest.mark.parametrize("mechanism", levels.MECHANISMS)
def test_what_is_left_out_is_said(mechanism: str, all_limits: dict[str, str]) -> None:
    """Each mechanism that is switched off changes what is said to be held (78)."""
    if not IS_ROOT and mechanism in ("users", "volumes"):
        pytest.skip(f"only root has {mechanism}")
    if mechanism == "cgroup" and not all_limits["memory"].startswith("hard"):
        pytest.skip("no cgroup on this host holds memory for this user")
    held = _limits(Settings(without=mechanism))
    changed = {name for name in held if held[name] != all_limits[name]}

    assert changed >= CHANGES[mechanism]


# As nobody

IMPORTED = (
    *("click", "msgspec", "psutil", "pytest", "_pytest", "py", "pluggy", "iniconfig"),
    *("packaging", "pygments", "pytest_timeout"),
)

FILES = ("test_escapes.py", "test_sandbox.py", "test_sandbox_kills.py", "test_sandbox_settings.py")


def test_the_same_holds_for_nobody() -> None:
    """A user without privileges runs these files, and they hold for him as well."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    program = program_for_nobody()
    root = Path(tempfile.mkdtemp(prefix="minilambda-test-"))
    try:
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("miniλ", "workers", "tests/machine"):
            shutil.copytree(ROOT / name, root / name, ignore=ignore)
        for name in ("pyproject.toml", "tests/conftest.py", "tests/__init__.py"):
            shutil.copy(ROOT / name, root / name)
        # Copies of what is imported: ours may be where nobody may look.
        for name in IMPORTED:
            _copy_package(name, root)
        subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
        for name in ("home", "tmp"):
            (root / name).mkdir()
            (root / name).chmod(0o777)
        done = subprocess.run(
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
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 100, done.stdout[-3000:]


def _copy_package(name: str, target: Path) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    if spec.submodule_search_locations:
        shutil.copytree(spec.submodule_search_locations[0], target / name)
    else:
        shutil.copy(spec.origin, target)
