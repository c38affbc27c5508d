"""Tests of what a worker's function sees: variables, layers, directories, its log stream."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.model import FunctionConfiguration
from miniλ.runtimes import environment
from miniλ.sandbox import namespaces
from miniλ.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def function(**changes: Any) -> FunctionConfiguration:
    """Return a function that is fine but for the changes."""
    fine: dict[str, Any] = {
        "name": "hello",
        "handler": "app.handler",
        "runtime": "python3.12",
        "revision": "r1",
        "code_sha256": "c2hh",
        "code_size": 12,
        "code_path": "/state/code/1",
    }
    return FunctionConfiguration(**{**fine, **changes})


def variables(root: str = namespaces.TASK_ROOT, **changes: Any) -> dict[str, str]:
    """Return the variables of a function whose code is at `root`."""
    inside = root == namespaces.TASK_ROOT
    return environment.variables(
        function(**changes),
        Settings(region="eu-central-1"),
        program=sys.executable,
        root=root,
        tmp_dir="/tmp" if inside else "/state/tmp/w",
        stream="2026/01/01/[$LATEST]w",
        initialization=environment.ON_DEMAND,
    )


# Variables


def test_a_function_has_no_runtime_api() -> None:
    """Frames come by pipe."""
    assert "AWS_LAMBDA_RUNTIME_API" not in variables()


@pytest.mark.parametrize(
    ("root", "tmp_dir", "runtime_dir"),
    [("/var/task", "/tmp", "/var/runtime/python"), ("/state/code/1", "/state/tmp/w", None)],
    ids=["namespaces", "no namespaces"],
)
def test_paths_are_where_the_worker_finds_them(
    root: str, tmp_dir: str, runtime_dir: str | None
) -> None:
    """Lambda's paths in a mount namespace, and the host's without one."""
    seen = variables(root)

    assert {seen[name] for name in ("HOME", "TMPDIR", "TEMP", "TMP")} == {tmp_dir}
    assert seen["LAMBDA_TASK_ROOT"] == root
    assert seen["LD_LIBRARY_PATH"].split(":")[:2] == [root, f"{root}/lib"]
    if runtime_dir is None:
        assert os.path.isfile(os.path.join(seen["LAMBDA_RUNTIME_DIR"], "bootstrap.py"))
    else:
        assert seen["LAMBDA_RUNTIME_DIR"] == runtime_dir


def test_the_function_sets_what_is_not_reserved() -> None:
    """Its own variables win over the defaults; those that name the function do not give way."""
    seen = variables(environment={"TZ": ":Europe/Berlin", "COLOR": "blue", "PATH": "/bin"})

    assert (seen["TZ"], seen["COLOR"], seen["PATH"]) == (":Europe/Berlin", "blue", "/bin")
    assert seen["AWS_LAMBDA_FUNCTION_NAME"] == "hello"
    assert (seen["AWS_REGION"], seen["AWS_DEFAULT_REGION"]) == ("eu-central-1",) * 2


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, (None, None)),
        ({"LogFormat": "Text", "ApplicationLogLevel": "DEBUG"}, (None, None)),
        ({"LogFormat": "JSON"}, ("JSON", "INFO")),
        ({"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"}, ("JSON", "DEBUG")),
    ],
)
def test_a_json_log_is_a_variable(
    config: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    """A level counts for the format JSON only."""
    seen = variables(passthrough={"LoggingConfig": config})

    names = ("AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL")
    assert expected == tuple(seen.get(name) for name in names)


def test_an_import_path_is_of_functions_that_have_one() -> None:
    """A function of the embedding app imports from it; others have no PYTHONPATH."""
    assert "PYTHONPATH" not in variables()
    assert variables(python_path=("/app", "/lib/app"))["PYTHONPATH"] == "/app:/lib/app"


# Layers


@pytest.mark.parametrize(
    ("layers_path", "root", "expected"),
    [
        ("", "/var/task", ""),
        ("/state/layers/1", "/var/task", "/opt"),
        ("/state/layers/1", "/state/code/1", "/state/layers/1"),
    ],
    ids=["none", "namespaces", "no namespaces"],
)
def test_layers_are_at_opt_in_a_mount_namespace(layers_path: str, root: str, expected: str) -> None:
    """Else they are where the host has them; the search paths follow."""
    assert expected == environment.layers(function(layers_path=layers_path), root)
    seen = variables(root, layers_path=layers_path)
    assert seen["PATH"].endswith(f":{expected or '/opt'}/bin")
    assert seen["LD_LIBRARY_PATH"].endswith(f":{expected or '/opt'}/lib")


# Directories


def test_visible_are_the_outermost_directories_of_the_import_path(tmp_path: Path) -> None:
    """Links are resolved; what is inside another, of the system, or no directory is left out."""
    outer, other = tmp_path / "app", tmp_path / "other"
    (outer / "inner").mkdir(parents=True)
    other.mkdir()
    (tmp_path / "link").symlink_to(other)
    (tmp_path / "file.zip").touch()
    names = ("app/inner", "app", "link", "other", "file.zip", "missing")
    paths = (*(str(tmp_path / name) for name in names), "/usr/lib", sys.base_prefix)

    seen = environment.visible(function(python_path=paths))

    assert tuple(map(os.path.realpath, (outer, other))) == seen


# The log stream


def test_a_log_stream_has_day_version_and_worker() -> None:
    """The day is UTC's, of the worker's start."""
    stream = environment.log_stream(function(version="3"), "w1", 86_400.0 - 1)

    assert stream == "1970/01/01/[3]w1"
