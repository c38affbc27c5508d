"""Tests of what becomes of an event, by how its invocation ended: no worker, no queue file."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from miniλ import journal, names, traces
from miniλ.billing import BOOKS
from miniλ.errors import RecursiveInvocation, ResourceNotFound
from miniλ.events import queue
from miniλ.events.outcomes import End, Outcomes, Retry
from miniλ.events.queue import AsyncEvent, QueuedEvent, Record
from miniλ.functions import Functions
from miniλ.journal import Journal
from miniλ.model import Invoked, Response
from miniλ.store.registry import Change
from miniλ.store.resources import EVENT_INVOKE
from miniλ.worker.equipment import InvocationContext
from tests.unit.store.registries import function, open_registry, put

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

NOW = 100_000.0
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
SQS = "arn:aws:sqs:us-east-1:000000000000:jobs"
FAILED = b'{"errorMessage": "no", "errorType": "ValueError", "stackTrace": []}'


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "now", lambda: NOW)
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 1.0)


class Bench:
    """A function f, another one, and what decides about events of f; retries come after 60 s."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.facts = Journal()
        self.outcomes = Outcomes(functions, self.facts, 60.0)

    async def rule(self, **config: Any) -> None:
        """Configure the events of f, as PutFunctionEventInvokeConfig does."""
        await self.functions.registry.write(Change(EVENT_INVOKE, "f", "", config))

    async def send_to(self, on_success: str = "", on_failure: str = "") -> None:
        """Give f destinations."""
        targets = {"OnSuccess": on_success, "OnFailure": on_failure}
        await self.rule(
            DestinationConfig={name: {"Destination": arn} for name, arn in targets.items() if arn}
        )

    @property
    def troubles(self) -> list[str]:
        """What the operator reads."""
        return [fact.what for fact in self.facts.story(journal.Trouble)]


@asynccontextmanager
async def bench(path: Path, **changes: Any) -> AsyncIterator[Bench]:
    """Yield a bench on a new registry, with these fields of f."""

    async def prepare(_: object) -> None:
        raise NotImplementedError

    nothing: Any = None
    async with open_registry(path / "registry.db") as registry:
        await put(registry, function("f", **changes))
        await put(registry, function("other"))
        place = names.Place("us-east-1", "000000000000")
        yield Bench(Functions(registry, nothing, nothing, place, prepare, Journal()))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario on a loop of its own."""

    async def whole() -> None:
        await scenario()

    asyncio.run(whole())


def queued(trace_id: str | None = None, **state: Any) -> QueuedEvent:
    """Return an event of f that was accepted now, and is claimed for the first time."""
    event = AsyncEvent("r1", "f", "$LATEST", b'{"n": 1}', InvocationContext(trace_id=trace_id))
    counters = {"accepted": NOW, "attempts": 0, "refusals": 0, "crashes": 0, **state}
    return QueuedEvent(1, event, **counters)


def response(body: bytes = b"2") -> Response:
    """Return the response of f: a failure, if the body is FAILED."""
    invoked = Invoked(
        ended=1.0,
        function="f",
        request_id="r1",
        seconds=1.0,
        init_seconds=None,
        memory_size_mb=128,
        peak=1,
        worker_id="w1",
        limits={},
        cold=False,
        failed=body == FAILED,
        book=BOOKS["2025"],
    )
    return Response(body, invoked, b"")


# Before it runs


def test_a_fresh_event_runs(tmp_path: Path) -> None:
    """It is young, its function may run, and no supervisor died of it."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            assert here.outcomes.end_without_run(queued()) is None
            assert here.outcomes.end_without_run(queued(crashes=4)) is None

    run(scenario)


def test_an_event_that_is_too_old_ends(tmp_path: Path) -> None:
    """After 6 hours, or MaximumEventAgeInSeconds; without a destination nothing comes of it."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            end = here.outcomes.end_without_run
            assert end(queued(accepted=NOW - 6 * 3600 + 1)) is None
            assert End("EventAgeExceeded") == end(queued(accepted=NOW - 6 * 3600))

            await here.rule(MaximumEventAgeInSeconds=60)
            assert End("EventAgeExceeded") == end(queued(accepted=NOW - 60))

    run(scenario)


def test_an_event_of_a_function_that_may_not_run_ends(tmp_path: Path) -> None:
    """With a reserved concurrency of 0."""

    async def scenario() -> None:
        async with bench(tmp_path, reserved_concurrency=0) as here:
            assert End("ZeroReservedConcurrency") == here.outcomes.end_without_run(queued())

    run(scenario)


def test_an_event_that_supervisors_died_of_is_given_up(tmp_path: Path) -> None:
    """After 5 of them; the event itself is kept as a record, unless a destination gets one."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            end = here.outcomes.end_without_run(queued(crashes=5))
            assert end is not None
            assert "RetriesExhausted" == end.condition
            why = "a supervisor ended 5 times while it ran"
            assert (Record("r1", "", '{"n": 1}', why),) == end.outcomes
            assert ["event r1 of f is given up"] == [text.split(":")[0] for text in here.troubles]

            await here.send_to(on_failure=SQS)
            end = here.outcomes.end_without_run(queued(crashes=5))
            assert end is not None
            (record,) = end.outcomes
            assert isinstance(record, Record)
            assert SQS == record.target
            assert 5 == json.loads(record.document)["requestContext"]["approximateInvokeCount"]

    run(scenario)


def test_a_deleted_function_has_no_end_by_rules(tmp_path: Path) -> None:
    """`delivery` then takes the end of a deleted function: the event is kept as a record."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            gone = queued()._replace(event=AsyncEvent("r1", "gone", "$LATEST", b"7"))
            with pytest.raises(ResourceNotFound):
                here.outcomes.end_without_run(gone)
            end = here.outcomes.end_of_deleted(gone, "Function not found")
            assert End("FunctionDeleted", (Record("r1", "", "7", "Function not found"),)) == end
            assert 1 == len(here.troubles)

    run(scenario)


# After it ran


def test_a_success_ends_and_a_failure_is_retried_twice(tmp_path: Path) -> None:
    """After 60 s, and after twice that; each retry forgets refusals."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            after = here.outcomes.after_response
            assert End("Success") == after(queued(attempts=2), response())
            assert Retry(NOW + 60, 1, 0, "ValueError") == after(queued(), response(FAILED))
            second = queued(attempts=1, refusals=3)
            assert Retry(NOW + 120, 2, 0, "ValueError") == after(second, response(FAILED))
            assert End("RetriesExhausted") == after(queued(attempts=2), response(FAILED))

            await here.rule(MaximumRetryAttempts=0)
            assert End("RetriesExhausted") == after(queued(), response(FAILED))

    run(scenario)


def test_a_retry_is_due_when_its_event_gets_too_old(tmp_path: Path) -> None:
    """And not later: it then ends with EventAgeExceeded."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            await here.rule(MaximumEventAgeInSeconds=70)
            old = queued(accepted=NOW - 50)
            retry = here.outcomes.after_response(old, response(FAILED))
            assert isinstance(retry, Retry)
            assert NOW + 20 == retry.due
            assert NOW + 20 == here.outcomes.retry_for_refusal(old._replace(refusals=9), "x").due

    run(scenario)


def test_refusals_back_off_and_use_up_no_retry(tmp_path: Path) -> None:
    """After 1 s, 2 s, 4 s, and 300 s at most; at least half a second, also at the highest age."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            refuse = here.outcomes.retry_for_refusal
            for refusals, pause in ((0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (5000, 300)):
                event = queued(attempts=1, refusals=refusals)
                assert Retry(NOW + pause, 1, refusals + 1, "full") == refuse(event, "full")
            assert NOW + 0.5 == refuse(queued(accepted=NOW - 7 * 3600), "full").due
            closing = here.outcomes.retry_for_close(queued(attempts=1, refusals=2))
            assert Retry(NOW, 1, 2, "the supervisor closed") == closing

    run(scenario)


# What comes of it


@pytest.mark.parametrize("body", [b"2", FAILED])
def test_a_function_gets_its_record_as_an_event(tmp_path: Path, body: bytes) -> None:
    """The one of OnSuccess or of OnFailure, with a request id of its own."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            targets = [f"{ARN}other", f"{ARN}other:prod"]
            await here.send_to(*targets)
            end = here.outcomes.after_response(queued(attempts=2), response(body))
            assert isinstance(end, End)
            (event,) = end.outcomes
            assert isinstance(event, AsyncEvent)
            target = targets[body == FAILED]
            assert ("other", target.partition("other:")[2]) == (event.function, event.qualifier)
            assert event.request_id != "r1"
            assert target == event.context.arn
            assert {"n": 1} == json.loads(event.payload)["requestPayload"]

    run(scenario)


def test_a_record_for_a_service_is_kept(tmp_path: Path) -> None:
    """And the message of a dead-letter queue too, which gets failures only."""

    async def scenario() -> None:
        letters = {"DeadLetterConfig": {"TargetArn": SQS}}
        async with bench(tmp_path, passthrough=letters) as here:
            await here.send_to(
                on_success="arn:aws:s3:::results", on_failure="arn:aws:s3:::failures"
            )
            for body, expected in (
                (b"2", ["arn:aws:s3:::results"]),
                (FAILED, ["arn:aws:s3:::failures", SQS]),
            ):
                end = here.outcomes.after_response(queued(attempts=2), response(body))
                assert isinstance(end, End)
                assert expected == [e.target for e in end.outcomes if isinstance(e, Record)]
            assert [] == here.troubles

    run(scenario)


def test_a_record_for_another_region_is_kept(tmp_path: Path) -> None:
    """With the error, which the operator reads too."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            await here.send_to(on_success="arn:aws:lambda:eu-west-1:000000000000:function:other")
            end = here.outcomes.after_response(queued(), response())
            assert isinstance(end, End)
            (record,) = end.outcomes
            assert isinstance(record, Record)
            assert "not reachable in this region" in record.why
            assert 1 == len(here.troubles)

    run(scenario)


def test_a_function_that_is_its_own_destination_is_stopped(tmp_path: Path) -> None:
    """After 16 times in one chain its record is kept, and the operator hears of it."""

    async def scenario() -> None:
        async with bench(tmp_path) as here:
            await here.send_to(on_success=f"{ARN}f")
            trace_id: str | None = None
            for _ in range(traces.MAX_IN_CHAIN - 1):
                end = here.outcomes.after_response(queued(trace_id), response())
                assert isinstance(end, End)
                (event,) = end.outcomes
                assert isinstance(event, AsyncEvent)
                trace_id = event.context.trace_id
            assert trace_id is not None

            end = here.outcomes.after_response(queued(trace_id), response())
            assert isinstance(end, End)
            (record,) = end.outcomes
            assert isinstance(record, Record)
            assert "recursive loop" in record.why
            with pytest.raises(RecursiveInvocation):
                here.functions.extend_trace("f", trace_id, "r1")

    run(scenario)
