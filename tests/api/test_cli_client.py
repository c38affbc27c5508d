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
    """Return the command with our server as its endpoint."""

    def ask(*arguments: str | bytes | Path, stdin: bytes = b"", **variables: str) -> Done:
        return run(*arguments, stdin=stdin, env=environment(server.url, **variables))

    return ask


@pytest.fixture
def subject(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that does what its event names."""
    return function_directory("subject", app=SUBJECT)


# ls and rm


def test_ls_is_a_table_of_all_functions(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Of more than one page, too; with --json it is their configurations."""
    assert [] == minilambda("ls", "--json").document
    assert (0, "") == minilambda("ls")[:2]
    made = [make_function(MemorySize=256, Timeout=12) for _ in range(51)]
    table = minilambda("ls")
    documents = minilambda("ls", "--json").document

    head, *rows = table.out.splitlines()
    assert ["NAME", "RUNTIME", "MEMORY", "TIMEOUT", "STATE"] == head.split()[:5]
    assert sorted(made) == [row.split()[0] for row in rows]
    date = client.get_function_configuration(FunctionName=made[0])["LastModified"][:10]
    cells = [made[0], RUNTIME, "256", "MB", "12", "s", "Active", date]
    assert cells == next(row.split()[:8] for row in rows if row.split()[0] == made[0])
    assert sorted(made) == [document["FunctionName"] for document in documents]
    assert {"Active"} == {document["State"] for document in documents}


def test_rm_deletes_functions_and_names_those_that_do_not_exist(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """A missing one is exit code 1, the others are deleted. NAME:1 deletes that version alone."""
    one, two, three = make_function(), make_function(), make_function()
    client.publish_version(FunctionName=three)
    done = minilambda("rm", one, "missing", two)
    version = minilambda("rm", f"{three}:1", "--json")
    again = minilambda("rm", one, "--json")

    assert (1, f"deleted {one}\ndeleted {two}\n") == done[:2]
    assert f"ResourceNotFoundException: Function not found: {ARN}missing\n" == done.err
    assert (0, {"deleted": [f"{three}:1"]}) == (version.code, version.document)
    assert (1, {"deleted": []}) == (again.code, again.document)
    assert [three] == [document["FunctionName"] for document in minilambda("ls", "--json").document]


# invoke


def test_invoke_prints_as_for_a_function_that_runs_here(
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


def test_a_traceback_is_unfolded_for_a_terminal(
    minilambda: Callable[..., Done], make_function: Callable[..., str]
) -> None:
    """Its lines end with newlines on stderr."""
    done = minilambda("invoke", make_function(SUBJECT), "-e", '"fail"')

    assert "\r" not in done.err
    assert "[ERROR] ValueError: no\nTraceback (most recent call last):\n" in done.err


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
    """As for a function that runs here; --json is one document, and stderr is empty."""
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


def test_invoke_runs_the_version_of_the_qualifier(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """By NAME:QUALIFIER or --qualifier; a qualifier that does not exist is exit code 2."""
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
    message = f"ResourceNotFoundException: Function not found: {ARN}{name}:live\n"
    assert message == missing.err


def test_an_event_is_accepted_and_a_dry_run_runs_nothing(
    minilambda: Callable[..., Done], server: Server, make_function: Callable[..., str]
) -> None:
    """Neither has a payload; the log has the request id of the events, none of the dry run."""
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
    ("arguments", "message"),
    [
        (["hello", "--repeat", "3"], "--repeat is for code that runs here"),
        (["hello", "--concurrency", "3"], "--concurrency is for code that runs here"),
        (["hello", "--memory-size", "128"], "--memory-size is for code that runs here"),
        (["hello:live", "--sandbox", "bare"], "'hello:live' is a function on a server"),
        (["hello", "--state", "state"], "--state is for code that runs here"),
        (["{subject}:app.handler", "--type", "Event"], "--type is for a function on a server"),
        (["{subject}:app.handler", "--qualifier", "1"], "app.handler' runs here"),
        (["{subject}:app.handler", "--endpoint-url", "http://[::1]"], "--endpoint-url is for"),
        (["{subject}"], "DIR:HANDLER is a directory"),
        (["hello", "-e", "{"], "--event is not JSON"),
    ],
)
def test_options_without_an_effect_are_refused(
    minilambda: Callable[..., Done], subject: Path, arguments: list[str], message: str
) -> None:
    """Options of a function that runs here are no use to one on a server, and the reverse."""
    done = minilambda("invoke", *(text.replace("{subject}", str(subject)) for text in arguments))

    assert (2, "") == done[:2]
    assert message in done.err


def test_a_directory_that_is_no_function_gets_a_hint(
    minilambda: Callable[..., Done],
) -> None:
    """NAME:ALIAS and DIR:HANDLER without a dot look alike: the first line says what to write."""
    done = minilambda("invoke", "examples:app")

    assert (2, "") == done[:2]
    hint, error = done.err.splitlines()
    assert hint.endswith("HANDLER must be module.function like app.handler, got 'app'")
    assert error.startswith("ResourceNotFoundException: ")


def test_throttled_is_exit_code_69(
    minilambda: Callable[..., Done], client: BaseClient, make_function: Callable[..., str]
) -> None:
    """It is no mistake of the caller's: the same command may succeed later."""
    name = make_function()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    done = minilambda("invoke", name)

    assert (69, "") == done[:2]
    assert done.err.startswith("TooManyRequestsException: Rate Exceeded. (")


# logs


@contextlib.contextmanager
def follower(server: Server, *arguments: str) -> Iterator[IO[bytes]]:
    """Run `logs --follow` and yield its stdout; SIGINT ends it, and it prints no message."""
    process = start("logs", "--follow", *arguments, env=environment(server.url))
    with process:
        try:
            yield process.stdout
        finally:
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()

    assert (130, b"") == (process.returncode, err)


def until(lines: IO[bytes], beginning: str, times: int = 1) -> list[str]:
    """Read lines up to the `times`-th one that begins like this."""
    read: list[str] = []
    while times:
        line = lines.readline().decode()
        assert line, read
        read.append(line.rstrip("\n"))
        times -= line.startswith(beginning)
    return read


def test_logs_are_what_functions_printed(
    minilambda: Callable[..., Done], make_function: Callable[..., str]
) -> None:
    """In order, with tracebacks unfolded, in any locale; with --json as CloudWatch's events."""
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


def test_logs_of_a_missing_function_are_exit_code_2(minilambda: Callable[..., Done]) -> None:
    """The message is the server's, with the ARN that was not found."""
    done = minilambda("logs", "missing")

    assert (2, "") == done[:2]
    assert f"ResourceNotFoundException: Function not found: {ARN}missing\n" == done.err


def test_ctrl_c_ends_following_also_if_tests_run_in_the_background(
    minilambda: Callable[..., Done], server: Server, make_function: Callable[..., str]
) -> None:
    """A shell starts background jobs with SIGINT ignored; a command that a test starts heeds it."""
    name = make_function()
    minilambda("invoke", name)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with follower(server, name) as lines:
            until(lines, "REPORT ")
    finally:
        signal.signal(signal.SIGINT, before)


def test_following_prints_each_line_of_a_log_once(
    minilambda: Callable[..., Done],
    server: Server,
    client: BaseClient,
    make_function: Callable[..., str],
) -> None:
    """Also lines of before it started, and lines that were printed long before REPORT."""
    name = make_function(SLOW, Timeout=10)
    with follower(server, name) as lines:
        minilambda("invoke", name)
        lines_read = until(lines, "REPORT ")
        client.invoke(FunctionName=name, InvocationType="Event", Payload=b"3")
        client.invoke(FunctionName=name)
        lines_read += until(lines, "REPORT ", 2)
    with follower(server, name) as lines:
        assert sorted(lines_read) == sorted(until(lines, "REPORT ", 3))

    printed = [line for line in lines_read if line in ("slow", "quick")]
    assert ["quick", "quick", "slow"] == printed
    for word in ("START ", "END ", "REPORT "):
        ids = {line.split("\t")[0].split()[2] for line in lines_read if line.startswith(word)}
        assert 3 == len(ids)
    assert len(lines_read) == 3 * 4
