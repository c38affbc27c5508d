"""What makes the unit tests quick: there are hundreds, and each looks for garbage."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session", autouse=True)
def _modules_are_no_garbage() -> Iterator[None]:
    """Let `nothing_survives` collect what tests made, and not walk every module again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
