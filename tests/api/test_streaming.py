"""Response streaming: the first bytes are here before the last ones are made."""

from __future__ import annotations

import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.api.conftest import ROLE, RUNTIME, Server, archive, serving, updated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from botocore.client import BaseClient

# Yields, and goes on only when the test opens the FIFO that the event names.
SOURCE = """
import os

def handler(event, context):
    if event == "plain":
        return {"plain": True}
    if event == "raise":
        raise ValueError("before the first piece")
    return pieces(event)

def pieces(event):
    yield "first "
    if "wait" in event:
        with open(event["wait"], "rb") as fifo:
            fifo.read()
    yield b"second "
    yield {"third": 3}
    for _ in range(event.get("times", 0)):
        yield b"x" * event["size"]
    if "fail" in event:
        raise ValueError("in the middle")
    if "mark" in event:
        with open(event["mark"], "w") as mark:
            mark.write("done")
"""


URL_SOURCE = """
def handler(event, context):
    yield {"statusCode": 201, "headers": {"content-type": "text/plain"}, "cookies": ["a=1"]}
    yield "first "
    with open(event["queryStringParameters"]["wait"], "rb") as fifo:
        fifo.read()
    yield b"second"
"""


@pytest.fixture(scope="module")
def open_server() -> Iterable[Server]:
    """Return a server whose functions see the host's files: they talk to the test by FIFO."""
    with serving("--without", "namespaces,landlock") as running:
        yield running


@pytest.fixture
def streamer(open_server: Server) -> Iterable[tuple[BaseClient, str]]:
    """Return a client, and a function that yields."""
    client = open_server.client()
    client.create_function(
        FunctionName="streamer",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Timeout=60,
        MemorySize=1769,  # a whole CPU
        Code={"ZipFile": archive(app=SOURCE)},
    )
    client.get_waiter("function_active_v2").wait(
        FunctionName="streamer", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    yield client, "streamer"
    client.delete_function(FunctionName="streamer")
    client.close()


def stream(client: BaseClient, name: str, event: Any, **options: Any) -> Any:
    """Begin; return the answer."""
    return client.invoke_with_response_stream(
        FunctionName=name, Payload=json.dumps(event), **options
    )


def collected(answer: Any) -> tuple[bytes, dict[str, str]]:
    """Return all pieces as one, and what the end said."""
    pieces: list[bytes] = []
    end: dict[str, str] = {}
    for event in answer["EventStream"]:
        if "PayloadChunk" in event:
            pieces.append(event["PayloadChunk"]["Payload"])
        else:
            end = event["InvokeComplete"]
    return b"".join(pieces), end


def test_the_first_piece_is_here_before_the_last_is_made(
    streamer: tuple[BaseClient, str], tmp_path: Path
) -> None:
    """The function goes on only after its first piece was read over HTTP."""
    fifo = tmp_path / "go"
    os.mkfifo(fifo, 0o666)
    tmp_path.chmod(0o755)

    answer = stream(*streamer, {"wait": str(fifo)})
    events = iter(answer["EventStream"])
    first = next(events)["PayloadChunk"]["Payload"]
    with fifo.open("wb") as go:
        go.write(b"go")
    rest = b"".join(e["PayloadChunk"]["Payload"] for e in events if "PayloadChunk" in e)

    assert b"first " == first
    assert b'second {"third": 3}' == rest
    assert "$LATEST" == answer["ExecutedVersion"]


def test_a_handler_that_does_not_yield_is_streamed_in_one_piece(
    streamer: tuple[BaseClient, str],
) -> None:
    """With LogType=Tail the log comes with the end."""
    body, end = collected(stream(*streamer, "plain", LogType="Tail"))

    assert b'{"plain": true}' == body
    assert {"LogResult"} == end.keys()


@pytest.mark.parametrize(
    ("event", "text"),
    [("raise", "before the first piece"), ({"fail": 1}, "in the middle")],
)
def test_a_failure_ends_the_stream(streamer: tuple[BaseClient, str], event: Any, text: str) -> None:
    """What came before it stays; the end has the failure as Lambda shapes it."""
    body, end = collected(stream(*streamer, event))

    assert (b"" if event == "raise" else b'first second {"third": 3}') == body
    assert "Unhandled" == end["ErrorCode"]
    details = json.loads(end["ErrorDetails"])
    assert ("ValueError", text) == (details["errorType"], details["errorMessage"])


def test_a_large_answer_comes_whole(streamer: tuple[BaseClient, str]) -> None:
    """Far more than an answer that is not streamed may have."""
    body, end = collected(stream(*streamer, {"times": 40, "size": 1_000_000}))

    assert len(b'first second {"third": 3}') + 40_000_000 == len(body)
    assert {} == end


def test_a_stream_above_200_mb_ends(streamer: tuple[BaseClient, str]) -> None:
    """With Lambda's errorType, and the function is there for the next one."""
    _, end = collected(stream(*streamer, {"times": 211, "size": 1_000_000}))

    assert "Function.ResponseSizeTooLarge" == json.loads(end["ErrorDetails"])["errorType"]
    assert b'{"plain": true}' == collected(stream(*streamer, "plain"))[0]


def test_who_leaves_does_not_stop_the_function(
    streamer: tuple[BaseClient, str], tmp_path: Path
) -> None:
    """It runs to its end, though no client reads what it yields any more."""
    tmp_path.chmod(0o777)
    mark = tmp_path / "mark"
    os.mkfifo(mark, 0o666)
    mark.chmod(0o666)

    answer = stream(*streamer, {"times": 50, "size": 1_000_000, "mark": str(mark)})
    next(iter(answer["EventStream"]))
    answer["EventStream"].close()

    assert "done" == mark.read_text()  # waits until the function writes it


def test_invoke_does_not_stream(streamer: tuple[BaseClient, str]) -> None:
    """On Lambda a Python handler that returns a generator is a Runtime.MarshalError."""
    client, name = streamer
    answer = client.invoke(FunctionName=name, Payload=b"{}")

    assert "Unhandled" == answer["FunctionError"]
    assert "Runtime.MarshalError" == json.load(answer["Payload"])["errorType"]


def test_what_keeps_a_function_from_running_is_an_error(client: BaseClient) -> None:
    """Not a stream that begins, and then has nothing in it."""
    with pytest.raises(ClientError) as caught:
        stream(client, "nobody", {})

    assert "ResourceNotFoundException" == caught.value.response["Error"]["Code"]


def test_a_throttled_stream_is_an_error(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """With status 429, as for an invocation that is not streamed."""
    name = make_function()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    with pytest.raises(ClientError) as caught:
        stream(client, name, {})

    assert 429 == caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_a_function_url_streams(
    streamer: tuple[BaseClient, str], open_server: Server, tmp_path: Path
) -> None:
    """Status and headers come with the first piece, the body as it is made."""
    client, name = streamer
    url = client.create_function_url_config(
        FunctionName=name, AuthType="NONE", InvokeMode="RESPONSE_STREAM"
    )["FunctionUrl"]
    client.add_permission(
        FunctionName=name,
        StatementId="public",
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
    )
    client.update_function_code(FunctionName=name, ZipFile=archive(app=URL_SOURCE))
    updated(client, name)
    fifo = tmp_path / "go"
    os.mkfifo(fifo, 0o666)
    tmp_path.chmod(0o755)

    with urllib.request.urlopen(f"{url}?wait={fifo}", timeout=30) as answer:
        first = answer.read(6)
        with fifo.open("wb") as go:
            go.write(b"go")
        rest = answer.read()

    assert (201, "text/plain") == (answer.status, answer.headers["Content-Type"])
    assert "a=1" == answer.headers["Set-Cookie"]
    assert (b"first ", b"second") == (first, rest)
