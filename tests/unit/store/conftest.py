"""What tests of the store start with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.store.code import APP

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return an empty store."""
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a directory with one module in it."""
    path = tmp_path / "source"
    path.mkdir()
    (path / "app.py").write_bytes(APP)
    return path
