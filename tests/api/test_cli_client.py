"""The command line as a client of `minilambda serve`: ls, rm, invoke and logs."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import IO, TYPE_CHECKING

import pytest

from tests.api.conftest import RUNTIME, archive, updated
from tests.command import SUBJECT, Done, environment, run, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient

    from tests.api.conftest import Server

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
SLOW = """
import time

def handler(event, context):
    print("slow" if event else "quick")
    time.sleep(event or 0)
"""


@pytest.fixture
def minilambda(server: Server) -> Callable[..., Done]:
    """Return the command, asking the server."""

    def ask(*arguments: str | bytes | Path, stdin: bytes = b"", **variables: str) -> Done:
        return run(*arguments, stdin=stdin, env=environment(server.url, **variables))

    return ask


@pytest.fixture
def subject(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that does as its event says."""
    return function_directory("subject", app=SUBJECT)


# ls and rm


def test_ls_is_a_table_of_all_functions(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Also of more than a page; a program has their configurations."""
    assert [] == minilambda("ls", "--json").document
    assert (0, "") == minilambda("ls")[:2]
    made = [make_function(MemorySize=256, Timeout=12) for _ in range(51)]
    table = minilambda("ls")
    documents = minilambda("ls", "--json").document

    head, *rows = table.out.splitlines()
    assert ["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "STATE"] == head.split()[:5]
    assert sorted(made) == [row.split()[0] for row in rows]
    date = client.get_function_configuration(FunctionName=made[0])["LastModified"][:10]
    told = [made[0], RUNTIME, "256", "MB", "12", "s", "Active", date]
    assert told == next(row.split()[:8] for row in rows if row.split()[0] == made[0])
    assert sorted(made) == [document["FunctionName"] for document in documents]
    assert {"Active"} == {document["State"] for document in documents}


def test_rm_deletes_what_is_there_and_says_what_is_not(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """One that is missing is exit code 1; the others are gone. A version goes alone."""
    one, two, three = make_function(), make_function(), make_function()
    client.publish_version(FunctionName=three)
    done = minilambda("rm", one, "nobody", two)
    version = minilambda("rm", f"{three}:1", "--json")
    again = minilambda("rm", one, "--json")

    assert (1, f"deleted {one}\ndeleted {two}\n") == done[:2]
    assert f"ResourceNotFoundException: Function not found: {ARN}nobody\n" == done.err
    assert (0, {"deleted": [f"{three}:1"]}) == (version.code, version.document)
    assert (1, {"deleted": []}) == (again.code, again.document)
    assert [three] == [document["FunctionName"] for document in minilambda("ls", "--json").document]


# invoke


def test_invoke_prints_as_it_does_for_local_ones(
    minilambda: Callable[..., Done], make_function: Callable[..., str]
) -> None:
    """The payload is alone on stdout, the log with its REPORT on stderr; events are the same."""
    name = make_function(SUBJECT)
    done = minilambda("invoke", name, "-e", '{"say": "λ"}')
    from_stdin = minilambda("invoke", f"{ARN}{name}", "-e", "-", stdin=b'{"from": "stdin"}')

    assert (0, "λ") == (done.code, json.loads(done.out))
    lines = [line.split(" ", 1)[0] for line in done.err.splitlines()]
    assert ["START", "λ", "END", "REPORT"] == lines
    assert {"from": "stdin"} == from_stdin.document


@pytest.mark.parametrize(
    ("event", "code", "kind"),
    [
        ('"fine"', 0, ""),
        ('"fail"', 1, "ValueError"),
        ('"sleep"', 124, "Sandbox.Timedout"),
        ('"kill"', 137, "Runtime.ExitError"),
    ],
)
def test_the_exit_code_says_how_the_function_ended(
    minilambda: Callable[..., Done],
    make_function: Callable[..., str],
    event: str,
    code: int,
    kind: str,
) -> None:
    """As for local ones; with --json all of it is one document, and stderr is empty."""
    name = make_function(SUBJECT, Timeout=1)
    done = minilambda("invoke", name, "-e", event)
    as_json = minilambda("invoke", name, "-e", event, "--json")

    assert (code, code, "") == (done.code, as_json.code, as_json.err)
    assert kind == (done.document["errorType"] if code else "")
    document = as_json.document
    assert ["payload", "failure", "log", "executed_version", "request_id"] == list(document)
    assert kind == (document["failure"]["errorType"] if code else "")
    assert "$LATEST" == document["executed_version"]
    assert f"REPORT RequestId: {document['request_id']}" in document["log"]


def test_invoke_runs_the_version_that_it_is_told(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """By NAME:QUALIFIER or --qualifier; one that is not there is exit code 2."""
    name = make_function("def handler(event, context):\n    return 'old'\n")
    client.publish_version(FunctionName=name)
    code = archive(app="def handler(event, context):\n    return 'new'\n")
    client.update_function_code(FunctionName=name, ZipFile=code)
    updated(client, name)

    assert "new" == minilambda("invoke", name).document
    assert "old" == minilambda("invoke", f"{name}:1").document
    assert "old" == minilambda("invoke", name, "--qualifier", "1").document
    missing = minilambda("invoke", f"{name}:live")
    assert (2, "") == missing[:2]
    said = f"ResourceNotFoundException: Function not found: {ARN}{name}:live\n"
    assert said == missing.err


def test_an_event_is_accepted_and_a_dry_run_runs_nothing(
    minilambda: Callable[..., Done], server: Server, make_function: Callable[..., str]
) -> None:
    """Neither has a payload; the request id is what can be found in the log."""
    name = make_function(SUBJECT)
    dry = minilambda("invoke", name, "--type", "DryRun")
    event = minilambda("invoke", name, "--type", "Event", "-e", '"fail"')
    as_json = minilambda("invoke", name, "--type", "Event", "--json")

    assert (0, "") == dry[:2]
    assert f"{name} may be invoked, RequestId: " in dry.err
    assert (0, "") == event[:2]
    assert (0, 202) == (as_json.code, as_json.document["status"])
    ids = [event.err.split()[-1], as_json.document["request_id"]]
    with follower(server, name) as lines:
        ran = [line.split()[2] for line in until(lines, "REPORT ", 2) if line.startswith("START ")]
    assert sorted(ids) == sorted(ran)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hello", "--repeat", "3"], "--repeat is for what runs here"),
        (["hello", "--concurrency", "3"], "--concurrency is for what runs here"),
        (["hello", "--memory-size", "128"], "--memory-size is for what runs here"),
        (["hello:live", "--sandbox", "bare"], "'hello:live' is a function on a server"),
        (["hello", "--state", "state"], "--state is for what runs here"),
        (["{subject}:app.handler", "--type", "Event"], "--type is for functions on a server"),
        (["{subject}:app.handler", "--qualifier", "1"], "app.handler' runs here"),
        (["{subject}:app.handler", "--endpoint-url", "http://[::1]"], "--endpoint-url is for"),
        (["{subject}"], "DIR:HANDLER is a directory"),
        (["hello", "-e", "{"], "neither a file nor JSON"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    minilambda: Callable[..., Done], subject: Path, arguments: list[str], said: str
) -> None:
    """What is about a function here is nothing to one on a server, and the other way round."""
    done = minilambda("invoke", *(text.replace("{subject}", str(subject)) for text in arguments))

    assert (2, "") == done[:2]
    assert said in done.err


def test_throttled_is_exit_code_69(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """As for local ones: it is no mistake of the caller's, who may come again."""
    name = make_function()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    done = minilambda("invoke", name)

    assert (69, "") == done[:2]
    assert done.err.startswith("TooManyRequestsException: Rate Exceeded. (")


# logs


@contextlib.contextmanager
def follower(server: Server, *arguments: str) -> Iterator[IO[bytes]]:
    """Run `logs --follow` and yield its stdout; it ends by Ctrl-C, without a word."""
    process = start("logs", "--follow", *arguments, env=environment(server.url))
    with process:
        try:
            yield process.stdout
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()

    assert (130, b"") == (process.returncode, err)


def until(lines: IO[bytes], beginning: str, times: int = 1) -> list[str]:
    """Read lines up to one that begins like this, the last of so many."""
    found: list[str] = []
    while times:
        line = lines.readline().decode()
        assert line, found
        found.append(line.rstrip("\n"))
        times -= line.startswith(beginning)
    return found


def test_logs_are_what_functions_printed(
    minilambda: Callable[..., Done], make_function: Callable[..., str]
) -> None:
    """In order, a traceback unfolded, as CloudWatch's events with --json; no locale harms them."""
    name = make_function(SUBJECT)
    silent = minilambda("logs", name)
    minilambda("invoke", name, "-e", '{"say": "Grüße"}')
    minilambda("invoke", name, "-e", '"fail"')
    done = minilambda("logs", name, PYTHONIOENCODING="ascii")
    events = [json.loads(line) for line in minilambda("logs", name, "--json").out.splitlines()]

    assert (0, "", "") == silent
    assert (0, "") == (done.code, done.err)
    words = [line.split(" ", 1)[0] for line in done.out.split("\n")]
    assert ["START", "Grüße", "END", "REPORT", "START", "[ERROR]", "Traceback"] == words[:7]
    assert ["END", "REPORT", ""] == words[-3:]
    assert "Grüße\n" == events[1]["message"]
    assert {"logStreamName", "timestamp", "message", "ingestionTime", "eventId"} == set(events[1])


def test_logs_of_nobody_are_exit_code_2(minilambda: Callable[..., Done]) -> None:
    """A function that is not there has no log; the server says which."""
    assert (2, "", f"ResourceNotFoundException: Function not found: {ARN}nobody\n") == minilambda(
        "logs", "nobody"
    )


def test_following_tells_all_of_a_log_once(
    minilambda: Callable[..., Done],
    server: Server,
    client: BaseClient,
    make_function: Callable[..., str],
) -> None:
    """From before it was called, and also what an invocation printed long before it ended."""
    name = make_function(SLOW, Timeout=10)
    with follower(server, name) as lines:
        minilambda("invoke", name)
        told = until(lines, "REPORT ")
        client.invoke(FunctionName=name, InvocationType="Event", Payload=b"3")
        client.invoke(FunctionName=name)
        told += until(lines, "REPORT ", 2)
    with follower(server, name) as lines:
        assert sorted(told) == sorted(until(lines, "REPORT ", 3))

    printed = [line for line in told if line in ("slow", "quick")]
    assert ["quick", "quick", "slow"] == printed
    for word in ("START ", "END ", "REPORT "):
        ids = {line.split("\t")[0].split()[2] for line in told if line.startswith(word)}
        assert 3 == len(ids)
    assert len(told) == 3 * 4
