"""Test a handler where it will run: in a worker, with its limits.

    pip install PATH/TO/CLONE pytest        # copy this file and handlers/ to your project
    pytest test_handler.py

In the clone, whose pytest options need plugins of the extra `test`:

    pip install '.[test]'
    python -m pytest -n 0 examples/test_handler.py

The fixture here opens one supervisor for all tests. The pytest plugin (docs/testing.md) needs less
code, and opens one for each test: no test sees a worker of another one, at 0.2 s each.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import minilambda

if TYPE_CHECKING:
    from collections.abc import Iterator

HANDLERS = Path(__file__).parent / "handlers"


@pytest.fixture(scope="session")
def supervisor() -> Iterator[minilambda.SyncSupervisor]:
    """One supervisor for all tests: opening it takes longest."""
    with minilambda.SyncSupervisor() as opened:
        yield opened


@pytest.fixture(scope="session")
def price(supervisor: minilambda.SyncSupervisor) -> str:
    """Return the name of the function under test."""
    return supervisor.create_function("price", HANDLERS, "orders.price", timeout=1).name


def test_an_order_has_a_total(supervisor: minilambda.SyncSupervisor, price: str) -> None:
    """The payload is the decoded answer, and the log is what the handler printed."""
    response = supervisor.invoke(price, {"order": 7, "items": ["tea", "tea"]})

    assert response.payload == {"order": 7, "total": 7.0}
    assert "order 7 costs 7.0" in response.log


def test_an_item_that_is_not_sold_is_a_failure(
    supervisor: minilambda.SyncSupervisor, price: str
) -> None:
    """A handler that raises does not raise here: the failure is what an AWS client would get."""
    response = supervisor.invoke(price, {"order": 8, "items": ["coal"]})

    assert response.failure is not None
    assert response.failure.error_type == "KeyError"
