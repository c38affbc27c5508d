"""The command line as a client: the server that it asks, its key, and servers of other kinds."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from miniλ.cli import client
from miniλ.errors import InvalidParameterValue
from tests.api.conftest import serving
from tests.command import SUBJECT, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.api.conftest import Server

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture
def subject(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that does what its event names."""
    return function_directory("subject", app=SUBJECT)


def test_no_server_is_exit_code_69() -> None:
    """The message has the URL, and the command that starts a server."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        for arguments in (["ls"], ["rm", "hello"], ["invoke", "hello"], ["logs", "hello"]):
            done = run(*arguments, env=environment(url))
            assert (69, "") == done[:2]
            assert done.err.startswith(f"No server at {url}: start one with `minilambda serve`")


@contextlib.contextmanager
def other_server(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a server that gives one answer after the other, and the requests it got."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            requests.append(self.connection.recv(65536).decode().partition(" HTTP/")[0])
            self.wfile.write(answers[min(len(requests), len(answers)) - 1])

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", requests
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "is not Lambda (HTTP status 200)"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n<html>", "is not Lambda (HTTP status 404)"),
        (b"HTTP/1.0 404 Not Found\r\n\r\n{}", "is not Lambda (HTTP status 404)"),
        (b"SSH-2.0-OpenSSH\r\n", "gave no answer: BadStatusLine"),
        (b"", "gave no answer: RemoteDisconnected"),
    ],
)
def test_a_server_that_is_not_lambda_is_exit_code_69(answer: bytes, message: str) -> None:
    """The message has the URL of a server that answers otherwise, or closes the connection."""
    with other_server(answer) as (url, _):
        done = run("ls", env=environment(url))

    assert (69, "") == done[:2]
    assert done.err.startswith("ServiceException: ")
    assert url in done.err and message in done.err


def test_deploy_waits_for_the_changes_of_others(subject: Path) -> None:
    """A change is refused during another one, so it waits for that first, then for its own."""
    states = ("InProgress", "InProgress", "Successful", "InProgress", "InProgress", "Successful")
    answers = [
        f'HTTP/1.0 200 OK\r\n\r\n{{"FunctionArn": "f", "Version": "1", "State": "Active", '
        f'"LastUpdateStatus": "{state}"}}'.encode()
        for state in states
    ]
    with other_server(*answers) as (url, requests):
        done = run("deploy", subject, "--name", "f", env=environment(url))

    assert (0, "f 1 Active\n", "") == done
    get, put = "GET /2015-03-31/functions/f/configuration", "PUT /2015-03-31/functions/f/code"
    assert [get, get, get, put, get, get] == requests


def test_an_error_of_aws_keeps_its_code() -> None:
    """The URL that AWS adds to the code is cut off; a request that was refused is exit code 2."""
    head = b"HTTP/1.0 403 Forbidden\r\nx-amzn-ErrorType: AccessDeniedException:http://in/\r\n\r\n"
    with other_server(head + b'{"Message": "You may not"}') as (url, _):
        done = run("ls", env=environment(url))

    assert (2, "", "AccessDeniedException: You may not\n") == done


def test_the_most_specific_endpoint_wins(server: Server) -> None:
    """The option, then MINILAMBDA_ENDPOINT_URL, then AWS's own two."""
    gone = "http://127.0.0.1:1"
    names = ("MINILAMBDA_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL")
    for place, variable in enumerate(names):
        others = {name: gone if at > place else "" for at, name in enumerate(names)}
        done = run("ls", env={**environment(""), **others, variable: server.url})
        assert 0 == done.code, variable
    option = run("ls", "--endpoint-url", server.url, env=environment(gone))

    assert 0 == option.code
    for url in ("127.0.0.1:9001", "ftp://127.0.0.1", "http://", "http://host:x", "http://[::1"):
        refused = run("ls", "--endpoint-url", url)
        assert (2, "") == refused[:2]
        assert f"must be like http://127.0.0.1:9001, got {url!r}" in refused.err


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server that requires signed requests."""
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


def test_requests_are_signed_with_the_key_of_the_environment(
    guarded: Server, subject: Path
) -> None:
    """All of them: with a body, with a query, and those for the log."""
    key = {"AWS_ACCESS_KEY_ID": "AKIDEPLOY", "AWS_SECRET_ACCESS_KEY": "sesame"}
    env = environment(guarded.url, **key)
    deployed = run("deploy", subject, "--name", "f", "--handler", "app.handler", env=env)
    invoked = run("invoke", "f", "-e", "[1]", "--qualifier", "$LATEST", env=env)

    assert 0 == deployed.code, deployed.err
    assert [1] == invoked.document
    assert run("logs", "f", env=env).out.startswith("START ")
    assert 0 == run("rm", f"{ARN}f", env=env).code


@pytest.mark.parametrize(
    ("key", "secret", "message"),
    [
        ("", "", "Missing Authentication Token: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("AKIDEPLOY", "", "Missing Authentication Token: set AWS_ACCESS_KEY_ID"),
        ("AKIDEPLOY", "open", "InvalidSignatureException: The request signature we calculated"),
        ("AKINOBODY", "sesame", "UnrecognizedClientException: The security token"),
        ("AKIREAD", "read", "is not authorized to perform: lambda:CreateFunction"),
    ],
)
def test_access_denied_is_exit_code_2(
    guarded: Server, subject: Path, key: str, secret: str, message: str
) -> None:
    """The message is the server's, and says what to do without a key; it never has a secret."""
    env = environment(guarded.url, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    done = run("deploy", subject, "--name", "f", "--handler", "app.handler", env=env)

    assert (2, "") == done[:2]
    assert message in done.err
    assert not secret or secret not in done.err


def test_an_endpoint_does_not_print_its_secret() -> None:
    """Its repr is the URL; key, secret, token and region come from the environment."""
    variables = {
        "AWS_ACCESS_KEY_ID": "AKID",
        "AWS_SECRET_ACCESS_KEY": "sesame",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "eu-central-1",
    }
    endpoint = client.endpoint("https://lambda.example", variables)

    assert "<Endpoint https://lambda.example>" == repr(endpoint)
    assert ("AKID", "sesame", "token", "eu-central-1") == (
        endpoint.key_id,
        endpoint.secret,
        endpoint.token,
        endpoint.region,
    )
    assert client.Endpoint("http://localhost") == client.endpoint("http://localhost", {})
    with pytest.raises(InvalidParameterValue, match="must be like"):
        client.endpoint("", {})
