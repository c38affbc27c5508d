"""Tests of what the pool knows of a version: eviction priority, waiters, provisioned workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniλ.concurrency import UNRESERVED, Concurrency
from miniλ.model import FunctionConfiguration
from miniλ.pool.plan import PendingInvocation
from miniλ.pool.versions import GreedyDual, Version, Waiter

FUNCTION = FunctionConfiguration(
    name="f",
    handler="app.handler",
    runtime="python3.12",
    revision="r1",
    code_sha256="c2hh",
    code_size=12,
    code_path="/code/1",
)


def greedy_dual(clock: float, frequency: int, cost: float) -> GreedyDual:
    """Return the figures of a function."""
    figures = GreedyDual()
    figures.clock, figures.frequency, figures.cost = clock, frequency, cost
    return figures


def waiter(*, admitted: bool) -> Waiter:
    """Return an invocation of `FUNCTION` that waits; call it on a loop."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    waits = Waiter(7, FUNCTION, Concurrency(UNRESERVED, 10), future)
    waits.admitted = admitted
    return waits


# Greedy-dual


def test_the_priority_is_the_papers() -> None:
    """Clock + frequency * cost / size (FaasCache, ASPLOS 2021)."""
    assert 10.0 + 6 * 0.5 / 128 == greedy_dual(10.0, 6, 0.5).priority(128)


def test_a_new_function_is_evicted_first() -> None:
    """It has neither invocations nor the cost of a cold start."""
    assert GreedyDual().priority(128) == 0.0


_clocks = st.floats(0, 1e6)
_frequencies = st.integers(1, 10_000)
_costs = st.floats(0.01, 10)
_sizes = st.integers(128, 10_240)


@settings(deadline=None, database=None)
@given(_clocks, _frequencies, _costs, _sizes)
def test_worth_is_kept(clock: float, frequency: int, cost: float, size: int) -> None:
    """More often, dearer to start, or used more recently: evicted later. Larger: not later."""
    priority = greedy_dual(clock, frequency, cost).priority(size)

    assert priority <= greedy_dual(clock, frequency + 1, cost).priority(size)
    assert priority <= greedy_dual(clock, frequency, cost * 2).priority(size)
    assert priority <= greedy_dual(clock + 1, frequency, cost).priority(size)
    assert priority >= greedy_dual(clock, frequency, cost).priority(size * 2)


def test_an_old_favourite_ages() -> None:
    """The clock passes it: a function that is invoked once now outlives it."""
    favourite = greedy_dual(0.0, 1000, 1.0)
    newcomer = greedy_dual(favourite.priority(128), 1, 0.1)

    assert favourite.priority(128) < newcomer.priority(128)


# Waiters


@pytest.mark.parametrize("admitted", [True, False])
def test_the_plan_sees_a_waiter_as_values(*, admitted: bool) -> None:
    """Number, revision, the name of its limit, and whether it counts there already."""

    async def main() -> PendingInvocation:
        return waiter(admitted=admitted).pending()

    assert PendingInvocation(7, "r1", UNRESERVED, admitted) == asyncio.run(main())


def test_a_waiter_takes_a_worker_of_its_revision_once() -> None:
    """If it is admitted, and neither handed over, refused nor cancelled."""

    async def main() -> None:
        assert waiter(admitted=True).takes_worker_of("r1")
        assert not waiter(admitted=True).takes_worker_of("r2")
        assert not waiter(admitted=False).takes_worker_of("r1")
        cancelled = waiter(admitted=True)
        cancelled.future.cancel()
        assert not cancelled.takes_worker_of("r1")

    asyncio.run(main())


# Versions


@pytest.mark.parametrize(
    ("target", "failure", "is_current", "may_fill"),
    [
        (2, "", True, True),
        (0, "", True, False),
        (2, "FUNCTION_ERROR_INIT_FAILURE", True, False),
        (2, "", False, False),
    ],
    ids=["provisioned", "not provisioned", "an init phase failed", "an old version"],
)
def test_provisioned_workers_are_started_while_none_failed(
    target: int, failure: str, *, is_current: bool, may_fill: bool
) -> None:
    """A failed init phase is not repeated for ever, and an old version gets no workers."""
    version = Version(FUNCTION, Concurrency(UNRESERVED, 10), GreedyDual())
    version.provisioned_target, version.failure = target, failure
    version.is_current = is_current

    assert may_fill == version.may_fill()
