"""Directories for the tests of Landlock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """Three directories, `readable`, `writable` and `outside`, with the same entries in each."""
    for name in ("readable", "writable", "outside"):
        (tmp_path / name / "full").mkdir(parents=True)
        (tmp_path / name / "empty").mkdir()
        (tmp_path / name / "file").write_text(name)
        (tmp_path / name / "full" / "file").write_text(name)
    return tmp_path
