"""Tests of the README: what it draws and says is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from miniλ.states import TRANSITIONS

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_state_diagram_is_the_table() -> None:
    """Every arrow of the diagram is a transition, and every transition an arrow."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", README, flags=re.MULTILINE))
    table = {(a, b, fact) for a, row in TRANSITIONS.items() for fact, b in row.items()}

    assert drawn == table


def test_every_file_of_the_map_exists() -> None:
    """The map of the code names files and directories that are there."""
    rows = README.partition("## The code, in reading order")[2].partition("\n## ")[0]
    root = Path(__file__).resolve().parents[2]
    paths = re.findall(r"`((?:miniλ|workers|tests|benchmarks)/[\w/.λ]*)`", rows)

    assert len(paths) > 10
    assert [path for path in paths if not (root / path).exists()] == []
