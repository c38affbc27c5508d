"""Asynchronous events as AWS's clients have them: accepted, run, delivered, kept."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.api.conftest import REGION, ROLE, RUNTIME, Server, archive, left_by, serving
from tests.api.plain_http import ask, invocation
from tests.api.refusals import MISSING, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient

ARN = f"arn:aws:lambda:{REGION}:000000000000:function"
TRACE_ID = "Root=1-6743f0a1-0123456789abcdef01234567;Sampled=1"
SECONDS = 20
# Sends the test what it sees, and does what the test answers.
ASKING = """
import json, os, socket

def handler(event, context):
    client = context.client_context
    seen = {
        "event": event,
        "request_id": context.aws_request_id,
        "trace_id": os.environ["_X_AMZN_TRACE_ID"],
        "arn": context.invoked_function_arn,
        "version": context.function_version,
        "custom": client and client.custom,
    }
    with socket.create_connection(("127.0.0.1", int(os.environ["DESK"]))) as connection:
        connection.sendall(json.dumps(seen).encode() + b"\\n")
        answer = connection.recv(100).decode()
    if answer == "fail":
        raise ValueError("told to")
    return answer
"""
# Tells its name, and goes on.
TELLING = """
import os, socket

def handler(event, context):
    with socket.create_connection(("127.0.0.1", int(os.environ["DESK"]))) as connection:
        connection.sendall(context.function_name.encode() + b"\\n")
"""


class Call(NamedTuple):
    """A function that runs, and waits for the test to say how it ends."""

    connection: socket.socket
    seen: dict[str, Any]

    def tell(self, what: str) -> None:
        """Let the function return that, or fail on "fail"."""
        self.connection.sendall(what.encode())
        self.connection.close()


class Desk:
    """Where functions call the test."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        self._undo = undo
        self._socket = undo.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))
        self.environment = {"Variables": {"DESK": str(self._socket.getsockname()[1])}}

    def _accept(self, seconds: float) -> tuple[socket.socket, str]:
        self._socket.settimeout(seconds)
        connection = self._undo.enter_context(self._socket.accept()[0])
        connection.settimeout(SECONDS)
        with connection.makefile(encoding="utf-8") as reader:
            return connection, reader.readline()

    def called(self) -> Call:
        """Wait until a function asks."""
        connection, line = self._accept(SECONDS)
        return Call(connection, json.loads(line))

    def names(self) -> Iterator[str]:
        """Yield the lines of functions that did not wait, and are over."""
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, line = self._accept(0)
                connection.close()
                yield line.strip()


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Return where functions call."""
    with contextlib.ExitStack() as undo:
        yield Desk(undo)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that retries soon."""
    with serving(MINILAMBDA_EVENT_RETRY="0.05") as running:
        yield running
        code = running.stop()

    assert 0 == code
    assert [] == left_by(running.process.pid)


@pytest.fixture
def asking(make_function: Callable[..., str], desk: Desk) -> str:
    """Return a function that asks what to do."""
    return make_function(ASKING, Environment=desk.environment, Timeout=60)


def send(client: BaseClient, name: str, payload: object = None, **parameters: Any) -> str:
    """Send an event; return its request id."""
    answer = client.invoke(
        FunctionName=name,
        InvocationType="Event",
        Payload=json.dumps(payload).encode(),
        **parameters,
    )
    assert 202 == answer["StatusCode"]
    return str(answer["ResponseMetadata"]["RequestId"])


def to(success: str = "", failure: str = "") -> dict[str, Any]:
    """Return a DestinationConfig."""
    line = {"OnSuccess": success, "OnFailure": failure}
    return {when: {"Destination": arn} for when, arn in line.items() if arn}


def make(client: BaseClient, name: str, source: str, desk: Desk, **parameters: Any) -> None:
    """Create a function on a server of a test's own."""
    client.create_function(
        FunctionName=name,
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": archive(app=source)},
        Environment=desk.environment,
        **parameters,
    )
    client.get_waiter("function_active_v2").wait(
        FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )


# Accepted


def test_the_answer_is_202_while_the_function_runs(
    client: BaseClient, desk: Desk, asking: str
) -> None:
    """Nothing of what it returns comes back, but the request id that it sees."""
    answer = client.invoke(FunctionName=asking, InvocationType="Event", Payload=b'{"a": 1}')
    call = desk.called()
    call.tell("fine")

    assert 202 == answer["StatusCode"]
    assert b"" == answer["Payload"].read()
    assert not answer.keys() & {"FunctionError", "ExecutedVersion", "LogResult"}
    assert {"a": 1} == call.seen["event"]
    assert answer["ResponseMetadata"]["RequestId"] == call.seen["request_id"]
    assert f"{ARN}:{asking}" == call.seen["arn"]


def test_a_qualifier_says_what_runs(client: BaseClient, desk: Desk, asking: str) -> None:
    """A version or an alias runs under the ARN of the request; an unknown one is a 404."""
    client.publish_version(FunctionName=asking)
    client.create_alias(FunctionName=asking, Name="prod", FunctionVersion="1")
    for qualifier, version in (("1", "1"), ("prod", "1"), ("$LATEST", "$LATEST")):
        send(client, asking, Qualifier=qualifier)
        call = desk.called()
        call.tell("fine")
        assert (f"{ARN}:{asking}:{qualifier}", version) == (call.seen["arn"], call.seen["version"])

    for parameters in (
        {"FunctionName": asking, "Qualifier": "7"},
        {"FunctionName": f"{asking}:test"},
        {"FunctionName": "nowhere"},
    ):
        status, code, _ = refused(client.invoke, InvocationType="Event", **parameters)
        assert (404, MISSING) == (status, code)


def test_trace_and_client_context_reach_the_function(
    server: Server, client: BaseClient, desk: Desk, asking: str
) -> None:
    """The context of the headers is there when it runs, and also when it runs again."""
    client.put_function_event_invoke_config(FunctionName=asking, MaximumRetryAttempts=1)
    headers = {
        "X-Amz-Invocation-Type": "Event",
        "X-Amz-Client-Context": "eyJjdXN0b20iOiB7ImEiOiAiYiJ9fQ==",  # {"custom": {"a": "b"}}
        "X-Amzn-Trace-Id": TRACE_ID,
    }
    answer = ask(server, "POST", invocation(asking), b"1", headers)
    first = desk.called()
    first.tell("fail")
    second = desk.called()
    second.tell("fine")

    assert 202 == answer.status
    assert first.seen == second.seen
    assert {"a": "b"} == first.seen["custom"]
    trace_id, _, lineage = first.seen["trace_id"].partition(";Lineage=")
    assert TRACE_ID == trace_id
    assert lineage


def test_the_api_of_2014_accepts_events(client: BaseClient, desk: Desk, asking: str) -> None:
    """InvokeAsync says 202, and the function runs."""
    answer = client.invoke_async(FunctionName=asking, InvokeArgs=b"[1]")
    call = desk.called()
    call.tell("fine")

    assert 202 == answer["Status"]
    assert [1] == call.seen["event"]


# Told of


def record(call: Call) -> dict[str, Any]:
    """Return the record that a destination got, without its time; let it succeed."""
    call.tell("thanks")
    outcome: dict[str, Any] = call.seen["event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", outcome.pop("timestamp"))
    return outcome


def test_onfailure_is_told_after_the_last_attempt(
    client: BaseClient, desk: Desk, asking: str, make_function: Callable[..., str]
) -> None:
    """The other function is given Lambda's record; without retries that is after the first one."""
    other = make_function(ASKING, Environment=desk.environment)
    client.publish_version(FunctionName=asking)
    for qualifier, version, retries in (("1", "1", 0), ("$LATEST", "$LATEST", 2)):
        client.put_function_event_invoke_config(
            FunctionName=asking,
            Qualifier=qualifier,
            MaximumRetryAttempts=retries,
            DestinationConfig=to(failure=f"{ARN}:{other}"),
        )
        request_id = send(client, asking, {"a": 1}, Qualifier=qualifier)
        for _ in range(retries + 1):
            call = desk.called()
            assert (request_id, version) == (call.seen["request_id"], call.seen["version"])
            call.tell("fail")
        call = desk.called()
        outcome = record(call)
        failure = outcome.pop("responsePayload")

        assert f"{ARN}:{other}" == call.seen["arn"]
        assert request_id != call.seen["request_id"]
        assert {"errorMessage", "errorType", "requestId", "stackTrace"} == failure.keys()
        assert ("ValueError", "told to") == (failure["errorType"], failure["errorMessage"])
        assert {
            "version": "1.0",
            "requestContext": {
                "requestId": request_id,
                "functionArn": f"{ARN}:{asking}:{version}",
                "condition": "RetriesExhausted",
                "approximateInvokeCount": retries + 1,
            },
            "requestPayload": {"a": 1},
            "responseContext": {
                "statusCode": 200,
                "executedVersion": version,
                "functionError": "Unhandled",
            },
        } == outcome


def test_onsuccess_is_told_what_was_answered(
    client: BaseClient, desk: Desk, asking: str, make_function: Callable[..., str]
) -> None:
    """The version of a function that is the destination is given Lambda's record."""
    other = make_function(ASKING, Environment=desk.environment, Publish=True)
    client.put_function_event_invoke_config(
        FunctionName=asking, DestinationConfig=to(success=f"{ARN}:{other}:1")
    )
    request_id = send(client, asking, {"a": 1})
    desk.called().tell("fine")
    call = desk.called()

    assert {
        "version": "1.0",
        "requestContext": {
            "requestId": request_id,
            "functionArn": f"{ARN}:{asking}:$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"a": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": "fine",
    } == record(call)
    assert (f"{ARN}:{other}:1", "1") == (call.seen["arn"], call.seen["version"])


# Kept


def test_a_server_that_keeps_nothing_runs_what_it_accepted_before_it_ends(desk: Desk) -> None:
    """SIGTERM waits for a chain; that of two that tell each other ends after 16 rounds (B45)."""
    with serving() as running, contextlib.closing(running.client()) as client:
        for name in ("ping", "pong"):
            make(client, name, TELLING, desk)
        for name, other in (("ping", "pong"), ("pong", "ping")):
            client.put_function_event_invoke_config(
                FunctionName=name, DestinationConfig=to(success=f"{ARN}:{other}")
            )
        send(client, "ping")
        code = running.stop()

    assert 0 == code
    assert {"ping": 16, "pong": 16} == Counter(desk.names())


def test_events_that_wait_when_a_server_ends_are_run_by_the_next(
    desk: Desk, tmp_path: Path
) -> None:
    """SIGTERM ends it soon, also while one runs and one waits for its retry; all run after it."""
    with (
        serving("--state", str(tmp_path), MINILAMBDA_EVENT_RETRY="60") as first,
        contextlib.closing(first.client()) as client,
    ):
        make(client, "failing", ASKING, desk)
        make(client, "waiting", ASKING, desk, Timeout=60)
        client.put_function_concurrency(FunctionName="waiting", ReservedConcurrentExecutions=1)
        send(client, "failing")
        desk.called().tell("fail")
        accepted = [send(client, "waiting", number) for number in range(20)]
        held = desk.called()
        began = time.monotonic()
        code = first.stop()
        seconds = time.monotonic() - began
    with serving("--state", str(tmp_path), MINILAMBDA_EVENT_RETRY="0.05"):
        ran: Counter[str] = Counter()
        for _ in accepted:
            call = desk.called()
            ran[call.seen["request_id"]] += 1
            call.tell("fine")

    assert 0 == code
    assert seconds < 8
    assert accepted[0] == held.seen["request_id"]
    assert dict.fromkeys(accepted, 1) == ran


def test_a_server_tells_its_operator_of_trouble(tmp_path: Path) -> None:
    """A queue that was damaged is moved aside, and stderr has a line about it (C63)."""
    (tmp_path / "events.db").write_bytes(b"no database" * 1000)
    line = tmp_path / "stderr"
    with (
        line.open("w", encoding="utf-8") as stderr,
        serving("--state", str(tmp_path), stderr=stderr) as server,
    ):
        code = server.stop()

    assert 0 == code
    assert "trouble: The event queue was damaged" in line.read_text(encoding="utf-8")
