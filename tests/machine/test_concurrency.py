"""Concurrency: one invocation at a time per worker, limits, throttles, queues."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ import journal
from miniλ.pool.capacity import default_concurrency

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Bench


def test_concurrent_invocations_have_workers_of_their_own(
    run_bench: Callable[..., None],
) -> None:
    """Four at once meet in four processes; four in turn are served by the last one used."""

    async def scenario(bench: Bench) -> None:
        many = await asyncio.gather(*(bench.supervisor.invoke("subject") for _ in range(4)))
        ids = {response.report.worker_id for response in many}
        turns = [await bench.supervisor.invoke("subject") for _ in range(4)]

        assert len(ids) == 4
        assert len({response.report.worker_id for response in turns}) == 1
        assert all(response.report.cold for response in many)
        assert not any(response.report.cold for response in turns)

    run_bench("time.sleep(0.2)", scenario)


def test_reserved_concurrency_throttles_at_once(run_bench: Callable[..., None]) -> None:
    """One may run; the rest is refused with Lambda's reason, and nothing else is lost (B40)."""

    async def scenario(bench: Bench) -> None:
        answers = await asyncio.gather(
            *(bench.supervisor.invoke("subject") for _ in range(100)),
            return_exceptions=True,
        )
        kinds = Counter(type(answer) for answer in answers)
        throttled = next(a for a in answers if isinstance(a, miniλ.Throttled))

        assert kinds == {miniλ.Response: 1, miniλ.Throttled: 99}
        assert throttled.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
        assert (throttled.code, throttled.status) == ("TooManyRequestsException", 429)
        await bench.works()

    run_bench("time.sleep(0.2)", scenario, reserved_concurrency=1)


def test_no_reserved_concurrency_means_no_invocation(
    run_bench: Callable[..., None],
) -> None:
    """Reserved concurrency 0 refuses everything (B42)."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(miniλ.Throttled):
            await bench.supervisor.invoke("subject")

    run_bench("return 1", scenario, reserved_concurrency=0)


def test_who_waits_is_served_in_order(run_bench: Callable[..., None]) -> None:
    """`wait` queues first come, first served, instead of being throttled."""

    async def scenario(bench: Bench) -> None:
        order: list[int] = []

        async def call(number: int) -> None:
            response = await bench.supervisor.invoke("subject", number, wait=30)
            order.append(response.payload)

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(call(number))

        assert order == list(range(10))
        assert len(bench.supervisor.journal.story(journal.InvocationThrottled)) == 0

    run_bench("return event", scenario, reserved_concurrency=1)


def test_waiting_ends_after_its_time(run_bench: Callable[..., None]) -> None:
    """An invocation that has waited for its `wait` is throttled."""

    async def scenario(bench: Bench) -> None:
        running = asyncio.create_task(bench.supervisor.invoke("subject"))
        await bench.supervisor.journal.until(
            journal.WorkerReady, lambda fact: fact.function == "subject"
        )
        with pytest.raises(miniλ.Throttled):
            await bench.supervisor.invoke("subject", wait=0.1)

        assert (await running).failure is None

    run_bench("time.sleep(0.5)", scenario, reserved_concurrency=1)


def test_the_queue_is_bounded(run_bench: Callable[..., None]) -> None:
    """Beyond `queue_size` an invocation is throttled at once."""

    async def scenario(bench: Bench) -> None:
        answers = await asyncio.gather(
            *(bench.supervisor.invoke("subject", wait=30) for _ in range(6)),
            return_exceptions=True,
        )

        assert Counter(type(a) for a in answers) == {miniλ.Response: 3, miniλ.Throttled: 3}

    run_bench("time.sleep(0.1)", scenario, {"queue_size": 2}, reserved_concurrency=1)


@pytest.mark.parametrize("limit", [None, 2])
def test_a_waiting_invocation_follows_its_functions_reservation(
    run_bench: Callable[..., None], limit: int | None
) -> None:
    """It begins as soon as the reservation is removed or raised."""

    async def scenario(bench: Bench) -> None:
        running = asyncio.create_task(bench.supervisor.invoke("subject", "sleep"))
        await bench.supervisor.journal.until(
            journal.WorkerReady, lambda fact: fact.function == "subject"
        )
        waiting = asyncio.create_task(bench.supervisor.invoke("subject", "fine", wait=60))
        await asyncio.sleep(0)
        await bench.supervisor.functions.reserve("subject", limit)
        async with asyncio.timeout(10):
            response = await waiting

        assert response.payload == "fine"
        assert not running.done()
        running.cancel()

    run_bench("time.sleep(600)", scenario, timeout=900, reserved_concurrency=1)


def test_a_function_cannot_have_more_than_the_host(run_bench: Callable[..., None]) -> None:
    """The total bounds unreserved functions; reserved concurrency is kept free for its function."""

    async def scenario(bench: Bench) -> None:
        await bench.supervisor.update_function_configuration("neighbour", reserved_concurrency=1)
        answers = await asyncio.gather(
            *(bench.supervisor.invoke("subject") for _ in range(6)),
            bench.supervisor.invoke("neighbour", "mine"),
            return_exceptions=True,
        )
        throttled = [a for a in answers if isinstance(a, miniλ.Throttled)]

        assert {t.reason for t in throttled} == {"ConcurrentInvocationLimitExceeded"}
        assert len(throttled) == 3
        assert answers[-1].payload == "mine"  # type: ignore[union-attr]

    run_bench("time.sleep(0.2)", scenario, {"concurrency": 4})


def test_idle_workers_make_room_for_others(run_bench: Callable[..., None]) -> None:
    """At the host's capacity the cheapest idle worker of another function goes."""

    async def scenario(bench: Bench) -> None:
        for _ in range(3):
            await asyncio.gather(
                bench.supervisor.invoke("subject"), bench.supervisor.invoke("subject")
            )
            assert (await bench.supervisor.invoke("neighbour", 7)).payload == 7
        reasons = {f.reason for f in bench.supervisor.journal.story(journal.WorkerStopped)}

        assert "made room" in reasons

    run_bench("time.sleep(0.1)", scenario, {"concurrency": 2})


def test_a_shared_cold_start(run_bench: Callable[..., None]) -> None:
    """A waiting invocation takes the first idle worker: no more workers start than callers."""

    async def scenario(bench: Bench) -> None:
        await asyncio.gather(*(bench.supervisor.invoke("subject", wait=30) for _ in range(20)))
        started = [
            fact
            for fact in bench.supervisor.journal.story(journal.WorkerStarted)
            if fact.function == "subject"
        ]

        assert len(started) <= 3

    run_bench("return 1", scenario, reserved_concurrency=3)


def test_reserving_more_than_there_is_is_refused(run_bench: Callable[..., None]) -> None:
    """The message says how much can be reserved."""

    async def scenario(bench: Bench) -> None:
        with pytest.raises(miniλ.InvalidParameterValue, match="7 can be reserved"):
            await bench.supervisor.update_function_configuration("subject", reserved_concurrency=8)

    run_bench("return 1", scenario, {"concurrency": 8})


def test_the_default_concurrency_follows_from_ram() -> None:
    """Between 8 and 1,000, on every host."""
    assert 8 <= default_concurrency() <= 1000
