"""What every test has: nothing it started survives it, and helpers to make functions."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.sandbox import hierarchies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _children() -> set[str]:
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found |= set((task / "children").read_text().split())
        except FileNotFoundError:
            continue  # a thread that ended meanwhile
    return found


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue  # the listing's own
    return found


def _cgroups() -> set[str]:
    # Our own, by the pid in their names: other supervisors of this machine are not ours.
    own = f"minilambda-{os.getpid():06x}*"
    return {str(path) for place in hierarchies.places().values() for path in Path(place).glob(own)}


def _states() -> set[str]:
    base = Path(tempfile.gettempdir()) / f"minilambda-{os.geteuid()}"
    return {str(path) for path in base.glob(f"{os.getpid():06x}*")}


def belongings() -> dict[str, set[object]]:
    """Return what this process has: children, descriptors, cgroups, state directories."""
    return {
        "children": set(_children()),
        "descriptors": set(_descriptors()),
        "cgroups": set(_cgroups()),
        "states": set(_states()),
    }


def pytest_collection_finish() -> None:
    """Look at what tests make, from here on: modules stay, and looking at them takes minutes."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_survives() -> Iterator[None]:
    """No test leaves a process, a descriptor, a cgroup or a directory behind."""
    gc.collect()
    before = belongings()
    yield
    gc.collect()

    left = {what: now - before[what] for what, now in belongings().items() if now - before[what]}
    assert left == {}


@pytest.fixture
def function_directory(tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of code directories: `function_directory("hello", app="source")`."""

    def make(name: str, **modules: str) -> Path:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        for module, source in modules.items():
            (directory / f"{module}.py").write_text(source, encoding="utf-8")
        return directory

    return make
