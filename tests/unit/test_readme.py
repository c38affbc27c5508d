"""Tests of the README: what it draws and says is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from miniλ.worker.lifecycle import TRANSITIONS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_state_diagram_is_the_table() -> None:
    """Every arrow of the diagram is a transition, and every transition an arrow."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", README, flags=re.MULTILINE))
    table = {(a, b, fact) for a, row in TRANSITIONS.items() for fact, b in row.items()}

    assert drawn == table


def test_the_map_is_of_what_is_there() -> None:
    """The map of the code names files that exist, and every module of the package."""
    rows = README.partition("## The code, in reading order")[2].partition("\n## ")[0]
    root = Path(__file__).resolve().parents[2]
    named: set[Path] = set()
    for row in re.findall(r"^\| (`.*?) \| ", rows, flags=re.MULTILINE):
        directory = root
        for path in re.findall(r"`([\w/.λ]+\.\w+|(?:tests|benchmarks)[\w/]*)`", row):
            if path.startswith("."):
                continue  # another suffix of the file before it
            if path.partition("/")[0] in ("miniλ", "workers", "tests", "benchmarks"):
                directory = root / path.rpartition("/")[0]
                named.add(root / path)
            else:
                named.add(directory / path)
    modules = {path for path in (root / "miniλ").rglob("*.py") if not path.name.startswith("__")}

    assert [path for path in named if not path.exists()] == []
    assert modules - named == set()
