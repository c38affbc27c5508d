"""Asynchronous events on real workers: they run, are retried when they fail, and end."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import sqlite3
import textwrap
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

import miniλ
from miniλ import journal, sync
from miniλ.events import delivery, outcomes
from miniλ.settings import Settings
from miniλ.store.registry import Change
from miniλ.store.resources import ALIAS, EVENT_INVOKE, Alias

from .conftest import OPEN

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from miniλ.events.queue import Record

SECONDS = 20
GRACE = 0.3
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:jobs"

# `note` appends a line to a file; `ask` calls the test and waits for its answer.
HEAD = """
import json, os, socket, time
calls = 0
def note(*what):
    file = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(file, json.dumps(what).encode() + b"\\n")
    os.close(file)
def ask(event, context):
    with socket.create_connection(("127.0.0.1", int(os.environ["DESK"]))) as connection:
        connection.sendall(json.dumps([event, context.aws_request_id]).encode())
        reply = connection.recv(100).decode()
    if reply == "fail":
        raise ValueError("told to")
    return reply
def handler(event, context):
    global calls
    calls += 1
"""
NOTE = "note(event, context.aws_request_id)\n"
FAIL = NOTE + "raise ValueError('no')\n"
ASK = NOTE + "return ask(event, context)\n"


class Call(NamedTuple):
    """A function that runs, and waits for the test to say how to end."""

    connection: socket.socket
    event: Any
    request_id: str

    def tell(self, what: str) -> None:
        """Let the function return that, or fail on "fail"."""
        self.connection.sendall(what.encode())


class Stage:
    """A supervisor, the file of notes of its functions, and the socket to the test."""

    supervisor: miniλ.Supervisor

    def __init__(self, path: Path, make: Callable[..., Path], undo: contextlib.ExitStack) -> None:
        self.state = path / "state"
        self._notes = path / "notes"
        self._notes.touch()
        self._make = make
        self._undo = undo
        self._desk = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._desk.setblocking(False)  # noqa: FBT003 - socket's own
        self.environment = {"NOTES": str(self._notes), "DESK": str(self._desk.getsockname()[1])}

    async def open(self, *, kept: bool = False, **chosen: Any) -> miniλ.Supervisor:
        """Open a supervisor on a state that is kept or not; retries and ends come soon."""
        values = {"without": OPEN, "event_retry": 0.05, "shutdown_grace": GRACE, **chosen}
        self.supervisor = miniλ.Supervisor(self.state if kept else None, Settings(**values))
        return await self.supervisor.__aenter__()

    async def reopen(self, **chosen: Any) -> miniλ.Supervisor:
        """Close the supervisor and open the next one on the state that is kept."""
        await self.supervisor.close()
        return await self.open(kept=True, **chosen)

    def code(self, body: str, module: str = "app") -> Path:
        """Return the code of a function with this body of its handler."""
        return self._make("code", **{module: HEAD + textwrap.indent(body, "    ")})

    async def create(self, body: str = NOTE, name: str = "f", **options: Any) -> None:
        """Create a function with this body of its handler."""
        await self.supervisor.create_function(
            name, self.code(body), "app.handler", environment=self.environment, **options
        )

    async def point(self, *aliases: str) -> None:
        """Publish the first version of f, and point aliases at it."""
        await self.supervisor.publish_version("f")
        for name in aliases:
            alias = Alias(function="f", name=name, version="1", revision="r")
            await self.supervisor.parts.registry.write(Change(ALIAS, "f", name, alias))

    async def rule(self, name: str = "f", **config: Any) -> None:
        """Configure events, as PutFunctionEventInvokeConfig does."""
        short, _, part = name.partition(":")
        await self.supervisor.parts.registry.write(Change(EVENT_INVOKE, short, part, config))

    async def called(self) -> Call:
        """Wait until a function asks."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SECONDS):
            connection, _ = await loop.sock_accept(self._desk)
            self._undo.enter_context(connection)
            return Call(connection, *json.loads(await loop.sock_recv(connection, 10_000)))

    async def until(self, kind: type[Any], wanted: Callable[[Any], bool] = lambda _: True) -> Any:
        """Wait for a fact, not for ever."""
        async with asyncio.timeout(SECONDS):
            return await self.supervisor.journal.until(kind, wanted)

    async def over(self, *request_ids: str) -> list[str]:
        """Wait until events are over; return how."""
        return [
            (await self.until(journal.EventEnded, lambda f, i=each: f.request_id == i)).condition
            for each in request_ids
        ]

    def story(self, kind: type[Any]) -> list[Any]:
        """Return the facts of a kind."""
        return self.supervisor.journal.story(kind)

    async def kept(self) -> list[tuple[Record, dict[str, Any]]]:
        """Return the records that could not be sent to their targets, and the documents in them."""
        records = await self.supervisor.delivery._queue.records()
        return [(record, json.loads(record.document)) for record in records]

    @property
    def notes(self) -> list[Any]:
        """The lines that functions have noted."""
        return [json.loads(line) for line in self._notes.read_text(encoding="utf-8").splitlines()]

    @property
    def runs(self) -> dict[str, int]:
        """The number of runs of each request, by the lines that functions have noted."""
        return Counter(request_id for _, request_id in self.notes)


@pytest.fixture(scope="module", autouse=True)
def _uvloop_has_its_pipe() -> None:
    """Make the pipe for signals that the first uvloop of a process keeps: it is no leak of ours."""
    with asyncio.Runner(loop_factory=sync.new_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture
def stage(tmp_path: Path, function_directory: Callable[..., Path]) -> Iterator[Stage]:
    """Return a stage on which no supervisor is open."""
    with contextlib.ExitStack() as undo:
        yield Stage(tmp_path, function_directory, undo)


def staged(**chosen: Any) -> Callable[[Callable[[Stage], Awaitable[None]]], Callable[..., None]]:
    """Run a test on a stage where a supervisor is open, with settings; then it is closed."""

    def decorate(test: Callable[[Stage], Awaitable[None]]) -> Callable[..., None]:
        def run(stage: Stage) -> None:
            async def main() -> None:
                await stage.open(**chosen)
                try:
                    await test(stage)
                finally:
                    await stage.supervisor.close()

            asyncio.run(main())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


def to(success: str = "", failure: str = "") -> dict[str, Any]:
    """Return a DestinationConfig."""
    targets = {"OnSuccess": success, "OnFailure": failure}
    return {when: {"Destination": arn} if arn else {} for when, arn in targets.items()}


# It runs


@staged()
async def test_an_event_runs_and_is_over(stage: Stage) -> None:
    """The request id that is returned is the one that the function sees; nothing is left of it."""
    await stage.create()
    first = await stage.supervisor.invoke_async("f", {"n": 1})
    second = await stage.supervisor.invoke_async("f", payload=b" [2] ", request_id="mine")

    assert ["Success", "Success"] == await stage.over(first, second)
    assert [[[2], "mine"], [{"n": 1}, first]] == sorted(stage.notes, key=str)
    assert {first, second} == {each.request_id for each in stage.story(miniλ.model.Invoked)}
    assert 0 == stage.supervisor.delivery.count
    assert [] == stage.story(journal.Trouble)


@staged()
async def test_what_the_caller_says_reaches_each_run(stage: Stage) -> None:
    """Client context, identity, trace id and ARN, also the second time, which is a success."""
    body = """
sent = context.client_context
note(sent.custom, sent.env, context.identity.cognito_identity_id, context.function_version)
note(os.environ["_X_AMZN_TRACE_ID"], context.invoked_function_arn)
if calls == 1:
    raise ValueError("once")
"""
    trace_id = "Root=1-6743f0a1-0123456789abcdef01234567;Sampled=1"
    await stage.create(body)
    await stage.point("prod")
    request_id = await stage.supervisor.invoke_async(
        "f:prod",
        client_context={"custom": {"a": "é"}, "env": {"b": "c"}},
        identity={"cognitoIdentityId": "who"},
        trace_id=trace_id,
    )

    assert ["Success"] == await stage.over(request_id)
    notes = [[{"a": "é"}, {"b": "c"}, "who", "1"], [trace_id, f"{ARN}f:prod"]]
    assert [*notes, *notes] == stage.notes


def test_the_synchronous_face_accepts_events(stage: Stage) -> None:
    """It returns the request id; the function runs while the caller does something else."""
    with miniλ.SyncSupervisor(settings=Settings(without=OPEN)) as supervisor:
        supervisor.create_function(
            "f", stage.code(ASK), "app.handler", environment=stage.environment
        )
        request_id = supervisor.invoke_async("f", {"n": 1})
        call = asyncio.run(stage.called())
        call.tell("done")

        assert ({"n": 1}, request_id) == (call.event, call.request_id)
        with pytest.raises(miniλ.ResourceNotFound):
            supervisor.invoke_async("nobody")


# It runs again, and how many at once


@staged(event_retry=0.4)
async def test_a_function_that_fails_runs_three_times(stage: Stage) -> None:
    """With the same request id, after `event_retry` and then twice that; then it is over."""
    await stage.create(FAIL)
    request_id = await stage.supervisor.invoke_async("f", 1)

    assert ["RetriesExhausted"] == await stage.over(request_id)
    assert [[1, request_id]] * 3 == stage.notes
    first, second = stage.story(journal.EventRetried)
    assert (request_id, "f", "ValueError") == (first.request_id, first.function, first.why)
    assert 0.2 < first.seconds <= 0.4
    assert 0.6 < second.seconds <= 0.8


@staged(event_retry=0.01)
async def test_retries_are_as_many_as_was_said_of_what_was_asked_for(stage: Stage) -> None:
    """$LATEST, a version and an alias have rules of their own; without one there are two."""
    await stage.create(FAIL)
    await stage.point("prod", "beta")
    for name, retries in {"f": 1, "f:1": 0, "f:beta": 1}.items():
        await stage.rule(name, MaximumRetryAttempts=retries)
    expected = {"f": 2, "f:$LATEST": 2, "f:1": 1, "f:beta": 2, "f:prod": 3}
    ids = {await stage.supervisor.invoke_async(name): name for name in expected}

    assert ["RetriesExhausted"] * 5 == await stage.over(*ids)
    assert expected == {ids[each]: count for each, count in stage.runs.items()}


@staged()
async def test_timeouts_and_exits_are_the_functions_failures(stage: Stage) -> None:
    """They use up retries as what it raises does."""
    await stage.create(NOTE + "time.sleep(60)", "late", timeout=1)
    await stage.create(NOTE + "os._exit(3)", "gone")
    ids = []
    for name in ("late", "gone"):
        await stage.rule(name, MaximumRetryAttempts=1)
        ids.append(await stage.supervisor.invoke_async(name))

    assert ["RetriesExhausted"] * 2 == await stage.over(*ids)
    assert dict.fromkeys(ids, 2) == stage.runs
    back = {fact.function: fact.why for fact in stage.story(journal.EventRetried)}
    assert {"late": "Sandbox.Timedout", "gone": "Runtime.ExitError"} == back


@staged()
async def test_a_sandbox_that_is_lost_is_no_attempt(stage: Stage) -> None:
    """Where the zygote is killed the event runs again in about a second, and has its retries."""
    await stage.create(ASK)
    request_id = await stage.supervisor.invoke_async("f")
    await stage.called()
    for zygote in stage.story(journal.ZygoteStarted):
        os.kill(zygote.pid, signal.SIGKILL)
    lost = await stage.until(journal.EventRetried)
    for _ in range(3):
        (await stage.called()).tell("fail")

    assert "Sandbox.Failure" == lost.why
    assert 0.5 < lost.seconds <= 1.25
    assert ["RetriesExhausted"] == await stage.over(request_id)
    assert {request_id: 4} == stage.runs


@staged(queue_size=0)
async def test_a_throttle_is_no_attempt(stage: Stage) -> None:
    """Where no invocation may wait for a worker, the event runs about a second later."""
    await stage.create(ASK, reserved_concurrency=1)
    await stage.rule(MaximumRetryAttempts=0)
    synchronous = asyncio.create_task(stage.supervisor.invoke("f", "first"))
    call = await stage.called()
    request_id = await stage.supervisor.invoke_async("f", "second")
    refused = await stage.until(journal.EventRetried)
    call.tell("done")
    (await stage.called()).tell("done")

    assert "done" == (await synchronous).payload
    assert 0.5 < refused.seconds <= 1.25
    assert ["Success"] == await stage.over(request_id)
    assert 1 == stage.runs[request_id]


@staged()
async def test_a_retry_runs_the_code_of_now(stage: Stage) -> None:
    """A function that was updated while it ran the old code has its second chance."""
    await stage.create(ASK)
    request_id = await stage.supervisor.invoke_async("f")
    call = await stage.called()
    await stage.supervisor.update_function_code("f", stage.code("note('new', 'code')"))
    call.tell("fail")

    assert ["Success"] == await stage.over(request_id)
    assert [[None, request_id], ["new", "code"]] == stage.notes


@staged(queue_size=0)
async def test_reserved_concurrency_holds_for_events(stage: Stage) -> None:
    """With one at a time, of 40 events never two run at once, and all run, in their order."""
    body = "note('begin', event)\ntime.sleep(0.002)\nnote('end', event)\n"
    await stage.create(body, reserved_concurrency=1)
    ids = [await stage.supervisor.invoke_async("f", number) for number in range(40)]

    assert ["Success"] * 40 == await stage.over(*ids)
    assert [[what, n] for n in range(40) for what in ("begin", "end")] == stage.notes
    assert [] == stage.story(journal.InvocationThrottled)


@staged()
async def test_no_reserved_concurrency_ends_events_at_once(stage: Stage) -> None:
    """It is ZeroReservedConcurrency, without an invocation, and the record says so."""
    await stage.create(reserved_concurrency=0)
    await stage.rule(DestinationConfig=to(failure=QUEUE))
    request_id = await stage.supervisor.invoke_async("f", {"n": 1})

    assert ["ZeroReservedConcurrency"] == await stage.over(request_id)
    ((_, document),) = await stage.kept()
    assert 0 == document["requestContext"]["approximateInvokeCount"]
    assert {"n": 1} == document["requestPayload"]
    assert not document.keys() & {"responseContext", "responsePayload"}
    assert [] == stage.story(miniλ.model.Invoked)


@staged()
async def test_a_saturated_function_holds_nobody_else(stage: Stage) -> None:
    """While events of one function wait for their turn, another one's run."""
    await stage.create(ASK, "slow", reserved_concurrency=1)
    await stage.create(NOTE, "quick")
    slow = [await stage.supervisor.invoke_async("slow", number) for number in range(3)]
    call = await stage.called()
    quick = await stage.supervisor.invoke_async("quick")

    assert ["Success"] == await stage.over(quick)
    assert [quick] == [fact.request_id for fact in stage.story(journal.EventEnded)]
    call.tell("done")
    for _ in range(2):
        (await stage.called()).tell("done")
    assert ["Success"] * 3 == await stage.over(*slow)


# How it ends


@staged(kept=True)
async def test_an_event_that_is_too_old_does_not_run(stage: Stage) -> None:
    """An event that waited longer than MaximumEventAgeInSeconds is EventAgeExceeded."""
    await stage.create(ASK)
    await stage.rule(MaximumEventAgeInSeconds=60, DestinationConfig=to(failure=QUEUE))
    request_id = await stage.supervisor.invoke_async("f")
    await stage.called()
    await stage.supervisor.close()
    with contextlib.closing(sqlite3.connect(stage.state / "events.db")) as database, database:
        database.execute("UPDATE events SET accepted = accepted - 61")
        database.execute("UPDATE events SET accepted_wall = accepted_wall - 61")
    await stage.reopen()

    assert ["EventAgeExceeded"] == await stage.over(request_id)
    assert [] == stage.story(miniλ.model.Invoked)
    ((_, document),) = await stage.kept()
    assert "EventAgeExceeded" == document["requestContext"]["condition"]


@staged()
async def test_the_events_of_a_deleted_function_are_kept(stage: Stage) -> None:
    """One that runs ends; one that waits is FunctionDeleted, and an operator can read it."""
    await stage.create(ASK, reserved_concurrency=1)
    ids = [await stage.supervisor.invoke_async("f", number) for number in range(2)]
    call = await stage.called()
    await stage.supervisor.delete_function("f")
    call.tell("done")

    assert ["Success", "FunctionDeleted"] == await stage.over(*ids)
    (trouble,) = stage.story(journal.Trouble)
    assert all(each in trouble.what for each in (ids[1], f"{ARN}f"))
    assert [(ids[1], 1)] == [(record.request_id, event) for record, event in await stage.kept()]
    assert 0 == stage.supervisor.delivery.count


@staged(event_retry=0.01)
async def test_what_services_elsewhere_were_to_be_told_is_kept(stage: Stage) -> None:
    """Records, and dead letters (events with their ids and last failures), stay in our queue."""
    await stage.create("if event == {'n': 1}: raise ValueError('no')\nreturn 'fine'\n")
    await stage.rule(DestinationConfig=to(f"{QUEUE}-good"))
    dead_letter = {"DeadLetterConfig": {"TargetArn": f"{QUEUE}-dead"}}
    await stage.supervisor.functions.update("f", {"passthrough": dead_letter})
    good = await stage.supervisor.invoke_async("f", 2)
    assert ["Success"] == await stage.over(good)
    bad = await stage.supervisor.invoke_async("f", payload=b'{"n":  1}')
    assert ["RetriesExhausted"] == await stage.over(bad)

    (record, document), (letter, dead) = await stage.kept()
    assert (good, f"{QUEUE}-good") == (record.request_id, record.target)
    assert (bad, f"{QUEUE}-dead") == (letter.request_id, letter.target)
    assert (2, "fine") == (document["requestPayload"], document["responsePayload"])
    attributes = {name: tuple(each.values()) for name, each in dead["MessageAttributes"].items()}
    assert '{"n":  1}' == dead["MessageBody"]
    assert {
        "RequestID": ("String", bad),
        "ErrorCode": ("Number", "200"),
        "ErrorMessage": ("String", "no"),
    } == attributes
    assert [] == stage.story(journal.Trouble)


@staged()
async def test_functions_that_tell_each_other_are_stopped(stage: Stage) -> None:
    """B45: two functions that are each other's destination end after 16 rounds."""
    for name, other in (("ping", "pong"), ("pong", "ping")):
        await stage.create(f"note('{name}')", name)
        await stage.rule(name, DestinationConfig=to(f"{ARN}{other}"))
    await stage.supervisor.invoke_async("ping")

    assert "recursive loop" in (await stage.until(journal.Trouble)).what
    assert 1 == len(await stage.kept())
    assert {"ping": 16, "pong": 16} == Counter(name for (name,) in stage.notes)


# What is refused


@staged()
async def test_an_event_has_at_most_1_mb(stage: Stage) -> None:
    """One byte more is refused; what Lambda's words are is tested with the clients'."""
    body = b'"' + b"x" * (delivery.MAX_EVENT - 2) + b'"'
    await stage.create("note(len(event), context.aws_request_id)")
    with pytest.raises(miniλ.RequestTooLarge, match=r"1048577 byte.* 1048576 bytes"):
        await stage.supervisor.invoke_async("f", payload=body + b" ")
    request_id = await stage.supervisor.invoke_async("f", payload=body)

    assert ["Success"] == await stage.over(request_id)
    assert [[delivery.MAX_EVENT - 2, request_id]] == stage.notes


REFUSED: dict[str, list[Any]] = {
    "name": ["nobody", "f:7", f"{ARN}f:prod", "two words", 5],
    "request_id": ["", "a\nb", 5],
    "trace_id": ["", 5],
    "event": [object()],
    "payload": [b"{", "{}"],
    "client_context": [{"a": object()}],
}


@staged()
async def test_what_cannot_be_is_refused_as_by_invoke(stage: Stage) -> None:
    """The errors are the same for both, also after closing, and no event is accepted."""
    await stage.create()

    async def refused(**arguments: Any) -> type[Exception]:
        errors = []
        for method in (stage.supervisor.invoke, stage.supervisor.invoke_async):
            with pytest.raises(miniλ.LambdaError) as caught:
                await method(**{"name": "f", **arguments})
            errors.append((type(caught.value), str(caught.value)))
        assert errors[0] == errors[1]
        return errors[0][0]

    for name, values in REFUSED.items():
        for value in values:
            assert miniλ.SupervisorClosed is not await refused(**{name: value})
    assert 0 == stage.supervisor.delivery.count
    await stage.supervisor.close()
    assert miniλ.SupervisorClosed is await refused()
    stage.supervisor = miniλ.Supervisor()
    assert miniλ.SupervisorClosed is await refused()


# It outlives the supervisor


@staged(kept=True)
async def test_an_event_outlives_supervisors_that_are_closed_while_it_runs(stage: Stage) -> None:
    """However many: closing takes no longer than the grace, and costs no retry."""
    await stage.create(ASK, timeout=60)
    request_id = await stage.supervisor.invoke_async("f")
    for _ in range(outcomes.MAX_CRASHES + 1):
        assert request_id == (await stage.called()).request_id
        began = time.monotonic()
        await stage.supervisor.close()
        assert time.monotonic() - began < GRACE + 1
        await stage.reopen()
    for _ in range(3):
        (await stage.called()).tell("fail")

    assert ["RetriesExhausted"] == await stage.over(request_id)
    assert {request_id: outcomes.MAX_CRASHES + 1 + 3} == stage.runs
    assert [] == stage.story(journal.Trouble)


@staged(kept=True, shutdown_grace=SECONDS)
async def test_one_that_ends_within_the_grace_does_not_run_again(stage: Stage) -> None:
    """The end of its event is written while the supervisor closes."""
    await stage.create(ASK, timeout=60)
    request_id = await stage.supervisor.invoke_async("f")
    call = await stage.called()
    closing = asyncio.create_task(stage.supervisor.close())
    call.tell("done")
    await closing

    assert ["Success"] == await stage.over(request_id)
    assert 0 == (await stage.reopen()).delivery.count


@staged(kept=True, event_retry=1)
async def test_a_retry_outlives_the_supervisor(stage: Stage) -> None:
    """What waits for its retry while one closes is done by the next, as often as it would be."""
    await stage.create(FAIL)
    request_id = await stage.supervisor.invoke_async("f")
    await stage.until(journal.EventRetried)
    await stage.reopen()

    assert {request_id: 1} == stage.runs
    assert ["RetriesExhausted"] == await stage.over(request_id)
    assert {request_id: 3} == stage.runs


def test_events_of_an_apps_own_functions_wait_for_the_app(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decorated function is kept nowhere, its events are: they run when it is there again."""
    stage.code(ASK, "app_of_events")
    monkeypatch.syspath_prepend(tmp_path / "code")
    handler = importlib.import_module("app_of_events").handler
    stage.supervisor = miniλ.Supervisor(stage.state, Settings(without=OPEN, shutdown_grace=GRACE))
    stage.supervisor.function("mine", environment=stage.environment)(handler)

    async def main() -> None:
        async with stage.supervisor as supervisor:
            request_id = await supervisor.invoke_async("mine", [1])
            await stage.called()
        async with stage.supervisor:
            call = await stage.called()
            call.tell("done")

            assert ([1], request_id) == (call.event, call.request_id)
            assert ["Success"] == await stage.over(request_id)

    asyncio.run(main())
