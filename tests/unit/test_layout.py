"""The layout of the project: short files, unit tests beside their subjects, one name a class.

Rule for unit tests: tests/unit/ROOM/test_X.py has its subject in miniλ/ROOM. Either miniλ/ROOM/X.py
or the room miniλ/ROOM/X exists; or X begins with the name of one and an underscore (test_queue_disk
is of queue); or the file's docstring names a module of that room in backticks (`queue`).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import PROOFS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "miniλ"
UNIT = ROOT / "tests" / "unit"
MAX_LINES = 600
# Subjects of these are the whole project: its prose, its layout, its README, its imports.
OF_THE_PROJECT = {
    "test_alias",
    "test_benchmarks",
    "test_layout",
    "test_lazy_import",
    "test_prose",
    "test_readme",
}
FILES = sorted(
    path
    for place in ("miniλ", "minilambda", "workers", "benchmarks", "tests", "examples")
    for path in (ROOT / place).rglob("*.py")
)
UNIT_TESTS = [path for path in sorted(UNIT.rglob("test_*.py")) if path.stem not in OF_THE_PROJECT]


def test_no_file_is_longer_than_600_lines() -> None:
    """The list is the files to split."""
    lengths = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in FILES
    }

    assert {} == {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


@pytest.mark.parametrize("test", UNIT_TESTS, ids=lambda path: str(path.relative_to(UNIT)))
def test_a_unit_test_is_in_the_room_of_its_subject(test: Path) -> None:
    """By the rule above."""
    room = PACKAGE / test.parent.relative_to(UNIT)
    modules = {path.stem for path in room.iterdir() if path.suffix == ".py" or path.is_dir()}
    docstring = ast.get_docstring(ast.parse(test.read_text(encoding="utf-8"))) or ""
    subject = test.stem.removeprefix("test_")
    in_docstring = {name.rpartition(".")[2] for name in re.findall(r"`([\w.]+)`", docstring)}
    by_name = {name for name in modules if subject == name or subject.startswith(f"{name}_")}

    assert by_name | (modules & in_docstring), f"names no module of {room}"


def test_a_proof_is_a_test() -> None:
    """Each name in tests/conftest.py's PROOFS is a function of a test file."""
    sources = [path.read_text(encoding="utf-8") for path in FILES if path.stem.startswith("test_")]

    assert set() == {
        name for name in PROOFS if not any(f"def {name}(" in source for source in sources)
    }


def test_a_class_name_is_one_class() -> None:
    """No name of a class is defined twice in the package."""
    names = Counter(
        node.name
        for path in PACKAGE.rglob("*.py")
        if "probes" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    )

    assert [] == [name for name, count in names.items() if count > 1]
