"""The command line as a client of `minilambda serve`: deploy, ls, rm, invoke and logs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import threading
import urllib.request
import zipfile
from typing import IO, TYPE_CHECKING

import pytest

from miniλ.cli import client
from miniλ.errors import InvalidParameterValue
from tests.api.conftest import RUNTIME, archive, serving, updated
from tests.machine.test_cli import SUBJECT, Done, run, start

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


def environment(url: str, **others: str) -> dict[str, str]:
    """Return the variables of a command that asks this server, and signs nothing."""
    none = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL")
    return {**dict.fromkeys(none, ""), "MINILAMBDA_ENDPOINT_URL": url, **others}


@pytest.fixture
def minilambda(server: Server) -> Callable[..., Done]:
    """Return the command, asking the server."""

    def ask(*arguments: str | bytes | Path, stdin: bytes = b"", **variables: str) -> Done:
        return run(*arguments, stdin=stdin, env=environment(server.url, **variables))

    return ask


@pytest.fixture
def name(client: BaseClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return the name of a function that the test may make; it is deleted afterwards."""
    chosen = "cli-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    yield chosen
    with contextlib.suppress(client.exceptions.ResourceNotFoundException):
        client.delete_function(FunctionName=chosen)


@pytest.fixture
def subject(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that does as its event says."""
    return function_directory("subject", app=SUBJECT)


# deploy


def test_deploy_makes_a_function_that_runs(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """When it says Active, the function can be invoked; what was not said is the usual."""
    done = minilambda("deploy", subject, "--name", name, "--handler", "app.handler")

    assert (0, f"{ARN}{name} $LATEST Active\n", "") == done
    found = client.get_function_configuration(FunctionName=name)
    assert (RUNTIME, 128, 3) == (found["Runtime"], found["MemorySize"], found["Timeout"])
    assert [1] == minilambda("invoke", name, "-e", "[1]").document


def test_deploy_changes_what_it_is_told(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """Code is always new; of the rest what is not said stays, and --env replaces all of them."""
    options = ("--memory-size", "256", "--timeout", "9", "--description", "first")
    variables = ("--env", "ONE=1", "--env", "TWO=a=b")
    minilambda("deploy", subject, "--name", name, "--handler", "app.handler", *options, *variables)
    (subject / "app.py").write_text("def handler(event, context):\n    return 'new'\n")
    done = minilambda("deploy", subject, "--name", name, "--timeout", "7")
    kept = client.get_function_configuration(FunctionName=name)
    minilambda("deploy", subject, "--name", name, "--env", "THREE=3")
    replaced = client.get_function_configuration(FunctionName=name)

    assert 0 == done.code, done.err
    assert "new" == minilambda("invoke", name).document
    told = [kept[key] for key in ("Handler", "MemorySize", "Timeout", "Description")]
    assert ["app.handler", 256, 7, "first"] == told
    assert {"ONE": "1", "TWO": "a=b"} == kept["Environment"]["Variables"]
    assert {"THREE": "3"} == replaced["Environment"]["Variables"]


def test_deploy_of_the_same_code_is_the_same_code(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """Neither times nor .git nor caches are part of it; a program that may be run stays one."""
    (subject / "tool").write_text("#!/bin/sh\n")
    (subject / "tool").chmod(0o755)
    minilambda("deploy", subject, "--name", name, "--handler", "app.handler")
    first = client.get_function_configuration(FunctionName=name)
    os.utime(subject / "app.py", (1, 1))
    for left_out in (".git", "__pycache__"):
        (subject / left_out).mkdir()
        (subject / left_out / "file").write_text("of no interest")
    done = minilambda("deploy", subject, "--name", name, "--json")

    assert 0 == done.code
    assert first["CodeSha256"] == done.document["CodeSha256"]
    with zipfile.ZipFile(io.BytesIO(_code_of(client, name))) as code:
        assert ["app.py", "tool"] == sorted(code.namelist())
        assert 0o755 == code.getinfo("tool").external_attr >> 16 & 0o777


def _code_of(client: BaseClient, name: str) -> bytes:
    location = client.get_function(FunctionName=name)["Code"]["Location"]
    with urllib.request.urlopen(location) as answer:
        code: bytes = answer.read()
    return code


def test_deploy_takes_a_zip_as_it_is(
    minilambda: Callable[..., Done], client: BaseClient, tmp_path: Path, name: str
) -> None:
    """CodeSha256 is that of the file; what is no zip is refused by the server's words."""
    file = tmp_path / "code.zip"
    file.write_bytes(archive(app="def handler(event, context):\n    return 'zipped'\n"))
    done = minilambda("deploy", file, "--name", name, "--handler", "app.handler", "--json")
    other = tmp_path / "other.zip"
    other.write_bytes(b"no zip")
    refused = minilambda("deploy", other, "--name", name)

    sha256 = base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()
    assert sha256 == done.document["CodeSha256"]
    assert "zipped" == minilambda("invoke", name).document
    assert (2, "") == refused[:2]
    assert refused.err.startswith("InvalidParameterValueException: Could not unzip uploaded file")


def test_deploy_publishes_and_points_an_alias(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """An alias is made, or moved; then it points to this version alone."""
    options = ("deploy", subject, "--name", name)
    first = minilambda(*options, "--handler", "app.handler", "--publish")
    second = minilambda(*options, "--timeout", "5", "--alias", "live")
    client.update_alias(
        FunctionName=name,
        Name="live",
        FunctionVersion="1",
        RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}},
    )
    third = minilambda(*options, "--alias", "live")
    alias = client.get_alias(FunctionName=name, Name="live")

    assert (0, f"{ARN}{name}:1 1 Active\n", "") == first
    told = f"{ARN}{name}:2 2 Active\n{ARN}{name}:live -> 2\n"
    assert (0, told, "") == second
    assert told == third.out  # nothing has changed: it is the same version
    assert "2" == alias["FunctionVersion"]
    assert not alias.get("RoutingConfig", {}).get("AdditionalVersionWeights")
    assert "7" == minilambda("invoke", f"{name}:live", "-e", "7").out.strip()


def test_deploy_says_why_it_failed(
    minilambda: Callable[..., Done], subject: Path, name: str
) -> None:
    """A function that does not become Active is exit code 1; the next deploy can mend it."""
    options = ("deploy", subject, "--name", name, "--handler", "app.handler", "--runtime")
    created = minilambda(*options, "nodejs22.x")
    again = minilambda(*options, "ruby3.4")
    mended = minilambda(*options, RUNTIME)
    broken = minilambda(*options, "java21")

    for failed, runtime in ((created, "nodejs22.x"), (again, "ruby3.4"), (broken, "java21")):
        assert (1, "") == failed[:2]
        assert failed.err.startswith(f"{ARN}{name} Failed: ")
        assert f"'{runtime}'" in failed.err
    assert (0, f"{ARN}{name} $LATEST Active\n", "") == mended
    assert 7 == minilambda("invoke", name, "-e", "7").document


def test_deploy_says_what_is_missing(
    minilambda: Callable[..., Done], subject: Path, tmp_path: Path, name: str
) -> None:
    """A new function needs a handler, and code that is there; nothing is made without."""
    for arguments, said in (
        (["deploy", subject, "--name", name], "--handler is needed"),
        (["deploy", tmp_path / "gone", "--name", name], "neither a directory nor a .zip"),
        (["deploy", subject, "--name", name, "--handler", "app.handler", "--env", "A"], "got 'A'"),
        (["deploy", subject, "--name", "no name", "--handler", "app.handler"], "no name"),
        (["deploy", subject], "--name"),
    ):
        done = minilambda(*arguments)
        assert (2, "") == done[:2]
        assert said in done.err
    assert 2 == minilambda("invoke", name).code


def test_deploy_of_more_than_lambda_takes_sends_nothing(
    minilambda: Callable[..., Done], tmp_path: Path, name: str
) -> None:
    """50 MB of zip are the limit, and are known before they are sent."""
    file = tmp_path / "large.zip"
    with file.open("wb") as sparse:
        sparse.truncate(52_428_801)
    done = minilambda("deploy", file, "--name", name, "--handler", "app.handler")

    assert (2, "") == done[:2]
    assert "Zipped size must be smaller than 52428800 bytes" in done.err


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


# Who asks, and who answers


def test_nobody_there_is_exit_code_69() -> None:
    """The message says where nobody was, and how somebody would be."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        for arguments in (["ls"], ["rm", "hello"], ["invoke", "hello"], ["logs", "hello"]):
            done = run(*arguments, env=environment(url))
            assert (69, "") == done[:2]
            assert done.err.startswith(f"No server at {url}: start one with `minilambda serve`")


@contextlib.contextmanager
def stranger(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a server that gives one answer after the other, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            asked.append(self.connection.recv(65536).decode().partition(" HTTP/")[0])
            self.wfile.write(answers[min(len(asked), len(answers)) - 1])

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", asked
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "is not Lambda (HTTP status 200)"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n<html>", "is not Lambda (HTTP status 404)"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n{}", "is not Lambda (HTTP status 404)"),
        (b"SSH-2.0-OpenSSH\r\n", "gave no answer: BadStatusLine"),
        (b"", "gave no answer: RemoteDisconnected"),
    ],
)
def test_whoever_is_not_lambda_is_exit_code_69(answer: bytes, said: str) -> None:
    """Another server, or one that hangs up, is told by its URL."""
    with stranger(answer) as (url, _):
        done = run("ls", env=environment(url))

    assert (69, "") == done[:2]
    assert done.err.startswith("ServiceException: ")
    assert url in done.err and said in done.err


def test_deploy_waits_for_the_changes_of_others(subject: Path) -> None:
    """While one is in progress another would be refused; and its own it waits for, too."""
    states = ("InProgress", "InProgress", "Successful", "InProgress", "InProgress", "Successful")
    answers = [
        f'HTTP/1.0 200 OK\r\n\r\n{{"FunctionArn": "f", "Version": "1", "State": "Active", '
        f'"LastUpdateStatus": "{state}"}}'.encode()
        for state in states
    ]
    with stranger(*answers) as (url, asked):
        done = run("deploy", subject, "--name", "f", env=environment(url))

    assert (0, "f 1 Active\n", "") == done
    get, put = "GET /2015-03-31/functions/f/configuration", "PUT /2015-03-31/functions/f/code"
    assert [get, get, get, put, get, get] == asked


def test_an_error_of_aws_keeps_its_code() -> None:
    """AWS adds a URL to the code; what was refused by the caller's fault is exit code 2."""
    head = b"HTTP/1.0 403 Forbidden\r\nx-amzn-ErrorType: AccessDeniedException:http://in/\r\n\r\n"
    with stranger(head + b'{"Message": "You may not"}') as (url, _):
        done = run("ls", env=environment(url))

    assert (2, "", "AccessDeniedException: You may not\n") == done


def test_the_endpoint_is_the_most_special_one(server: Server) -> None:
    """The option, then MINILAMBDA_ENDPOINT_URL, then AWS's own two."""
    gone = "http://127.0.0.1:1"
    names = ("MINILAMBDA_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL")
    for place, variable in enumerate(names):
        said = {name: gone if at > place else "" for at, name in enumerate(names)}
        done = run("ls", env={**environment(""), **said, variable: server.url})
        assert 0 == done.code, variable
    option = run("ls", "--endpoint-url", server.url, env=environment(gone))

    assert 0 == option.code
    for url in ("127.0.0.1:9001", "ftp://127.0.0.1", "http://", "http://host:x", "http://[::1"):
        refused = run("ls", "--endpoint-url", url)
        assert (2, "") == refused[:2]
        assert f"must be like http://127.0.0.1:9001, got {url!r}" in refused.err


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that asks for a key."""
    directory: Path = tmp_path_factory.mktemp("guarded")
    keys = directory / "keys.toml"
    keys.write_text(
        '[keys.AKIDEPLOY]\nsecret = "sesame"\nallow = ["lambda:*", "logs:Filter*"]\n'
        '[keys.AKIREAD]\nsecret = "read"\nallow = ["lambda:Get*"]\n'
    )
    keys.chmod(0o600)
    (directory / "settings.toml").write_text(f'[auth]\nkeys = "{keys}"\n')
    with serving("--config", str(directory / "settings.toml")) as running:
        yield running


def test_requests_are_signed_where_there_is_a_key(guarded: Server, subject: Path) -> None:
    """All of them: with a body, with a query, and those of the log."""
    key = {"AWS_ACCESS_KEY_ID": "AKIDEPLOY", "AWS_SECRET_ACCESS_KEY": "sesame"}
    env = environment(guarded.url, **key)
    deployed = run("deploy", subject, "--name", "f", "--handler", "app.handler", env=env)
    invoked = run("invoke", "f", "-e", "[1]", "--qualifier", "$LATEST", env=env)

    assert 0 == deployed.code, deployed.err
    assert [1] == invoked.document
    assert run("logs", "f", env=env).out.startswith("START ")
    assert 0 == run("rm", f"{ARN}f", env=env).code


@pytest.mark.parametrize(
    ("key", "secret", "said"),
    [
        ("", "", "Missing Authentication Token: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("AKIDEPLOY", "", "Missing Authentication Token: set AWS_ACCESS_KEY_ID"),
        ("AKIDEPLOY", "open", "InvalidSignatureException: The request signature we calculated"),
        ("AKINOBODY", "sesame", "UnrecognizedClientException: The security token"),
        ("AKIREAD", "read", "is not authorized to perform: lambda:CreateFunction"),
    ],
)
def test_who_may_not_is_exit_code_2(
    guarded: Server, subject: Path, key: str, secret: str, said: str
) -> None:
    """The server's words, and what to do where no key was given at all; no secret is in them."""
    env = environment(guarded.url, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    done = run("deploy", subject, "--name", "f", "--handler", "app.handler", env=env)

    assert (2, "") == done[:2]
    assert said in done.err
    assert not secret or secret not in done.err


def test_a_server_keeps_its_secret() -> None:
    """What may be printed of it is where it is; a token is sent along with a key only."""
    variables = {
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "sesame",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-central-1",
    }
    asked = client.server("https://lambda.example", variables)

    assert "<Server https://lambda.example>" == repr(asked)
    assert ("AKID", "sesame", "token", "eu-central-1") == (
        asked.key_id,
        asked.secret,
        asked.token,
        asked.region,
    )
    assert client.Server("http://localhost") == client.server("http://localhost", {})
    with pytest.raises(InvalidParameterValue, match="must be like"):
        client.server("", {})
