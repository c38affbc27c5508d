"""The command line as a client of `minilambda serve`: deploy."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import urllib.request
import zipfile
from typing import TYPE_CHECKING

import pytest

from tests.api.conftest import RUNTIME, archive
from tests.command import SUBJECT, Done, environment, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient

    from tests.api.conftest import Server

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture
def minilambda(server: Server) -> Callable[..., Done]:
    """Return the command with our server as its endpoint."""

    def ask(*arguments: str | bytes | Path, stdin: bytes = b"", **variables: str) -> Done:
        return run(*arguments, stdin=stdin, env=environment(server.url, **variables))

    return ask


@pytest.fixture
def name(client: BaseClient, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a name for a function of the test; the function is deleted afterwards."""
    unique = "cli-" + hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    yield unique
    with contextlib.suppress(client.exceptions.ResourceNotFoundException):
        client.delete_function(FunctionName=unique)


@pytest.fixture
def subject(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that does what its event names."""
    return function_directory("subject", app=SUBJECT)


def test_deploy_makes_a_function_that_runs(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """Once it prints Active the function can be invoked; absent options have Lambda's defaults."""
    done = minilambda("deploy", subject, "--name", name, "--handler", "app.handler")

    assert (0, f"{ARN}{name} $LATEST Active\n", "") == done
    kept = client.get_function_configuration(FunctionName=name)
    assert (RUNTIME, 128, 3) == (kept["Runtime"], kept["MemorySize"], kept["Timeout"])
    assert [1] == minilambda("invoke", name, "-e", "[1]").document


def test_deploy_changes_the_settings_of_its_options(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """It always uploads the code; settings without an option stay; --env replaces all variables."""
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
    settings = [kept[key] for key in ("Handler", "MemorySize", "Timeout", "Description")]
    assert ["app.handler", 256, 7, "first"] == settings
    assert {"ONE": "1", "TWO": "a=b"} == kept["Environment"]["Variables"]
    assert {"THREE": "3"} == replaced["Environment"]["Variables"]


def test_deploy_of_the_same_code_is_the_same_code(
    minilambda: Callable[..., Done], client: BaseClient, subject: Path, name: str
) -> None:
    """CodeSha256 ignores times, .git and caches; an executable file stays executable."""
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
    """CodeSha256 is that of the file; a file that is no zip is refused in the server's words."""
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
    """An alias is created or moved; it then points to this version alone, without weights."""
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
    lines = f"{ARN}{name}:2 2 Active\n{ARN}{name}:live -> 2\n"
    assert (0, lines, "") == second
    assert lines == third.out  # nothing has changed: it is the same version
    assert "2" == alias["FunctionVersion"]
    assert not alias.get("RoutingConfig", {}).get("AdditionalVersionWeights")
    assert "7" == minilambda("invoke", f"{name}:live", "-e", "7").out.strip()


def test_deploy_says_why_it_failed(
    minilambda: Callable[..., Done], subject: Path, name: str
) -> None:
    """A function that does not become Active is exit code 1; the next deploy can repair it."""
    options = ("deploy", subject, "--name", name, "--handler", "app.handler", "--runtime")
    created = minilambda(*options, "nodejs22.x")
    again = minilambda(*options, "ruby3.4")
    repaired = minilambda(*options, RUNTIME)
    broken = minilambda(*options, "java21")

    for failed, runtime in ((created, "nodejs22.x"), (again, "ruby3.4"), (broken, "java21")):
        assert (1, "") == failed[:2]
        assert failed.err.startswith(f"{ARN}{name} Failed: ")
        assert f"'{runtime}'" in failed.err
    assert (0, f"{ARN}{name} $LATEST Active\n", "") == repaired
    assert 7 == minilambda("invoke", name, "-e", "7").document


def test_deploy_names_the_argument_that_is_missing(
    minilambda: Callable[..., Done], subject: Path, tmp_path: Path, name: str
) -> None:
    """A new function needs a handler, and code that exists; otherwise it is not created."""
    for arguments, message in (
        (["deploy", subject, "--name", name], "--handler is needed"),
        (["deploy", tmp_path / "gone", "--name", name], "There is no "),
        (["deploy", subject, "--name", name, "--handler", "app.handler", "--env", "A"], "got 'A'"),
        (["deploy", subject, "--name", "no name", "--handler", "app.handler"], "no name"),
        (["deploy", subject], "--name"),
    ):
        done = minilambda(*arguments)
        assert (2, "") == done[:2]
        assert message in done.err
    assert 2 == minilambda("invoke", name).code


def test_deploy_of_more_than_lambda_takes_sends_nothing(
    minilambda: Callable[..., Done], tmp_path: Path, name: str
) -> None:
    """The limit is 50 MB of zip; it is checked before the upload."""
    file = tmp_path / "large.zip"
    with file.open("wb") as sparse:
        sparse.truncate(52_428_801)
    done = minilambda("deploy", file, "--name", name, "--handler", "app.handler")

    assert (2, "") == done[:2]
    assert "Zipped size must be smaller than 52428800 bytes" in done.err
