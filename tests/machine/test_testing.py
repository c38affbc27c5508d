"""Tests of the pytest plugin: `miniλ.testing`, in a real sandbox, and its page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ.testing import FunctionFailed

if TYPE_CHECKING:
    from miniλ.testing import MakeFunction

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
DIVIDE = """
    def handler(event, context):
        print("dividing")
        return 1 / event
"""


def test_a_function_returns_what_its_handler_returns(lambda_function: MakeFunction) -> None:
    """Two lines: a source text and a call."""
    divide = lambda_function("app.handler", code=DIVIDE)

    assert 0.5 == divide(2)


def test_a_function_that_fails_raises(lambda_function: MakeFunction) -> None:
    """The exception has what the function said and printed."""
    divide = lambda_function("app.handler", code=DIVIDE)

    with pytest.raises(FunctionFailed, match=r"(?s)^ZeroDivisionError: .*dividing") as caught:
        divide(0)

    assert "ZeroDivisionError" == caught.value.error_type
    assert "division by zero" == caught.value.error_message
    assert caught.value.response.is_failure
    assert "\nTraceback (most recent call last):\n" in str(caught.value)
    assert "\r" not in str(caught.value)
    assert "\rTraceback" in caught.value.response.log


def test_a_timeout_is_a_failure(lambda_function: MakeFunction) -> None:
    """What the sandbox ends raises as well."""
    wait = lambda_function(
        "app.handler", code="import signal\ndef handler(e, c): signal.pause()", timeout=1
    )

    with pytest.raises(FunctionFailed) as caught:
        wait()

    assert "Sandbox.Timedout" == caught.value.error_type


def test_a_response_is_had_whole(lambda_function: MakeFunction) -> None:
    """`invoke` raises nothing, and the second invocation is warm."""
    divide = lambda_function("app.handler", code=DIVIDE)

    first, second = divide.invoke(0), divide.invoke(2)

    assert first.failure is not None
    assert "ZeroDivisionError" == first.failure.error_type
    assert (True, False) == (first.report.cold, second.report.cold)
    assert 0.5 == second.payload


def test_a_directory_is_taken_too(lambda_function: MakeFunction) -> None:
    """Relative to the root of the project, with options of the function."""
    hello = lambda_function("app.handler", code="tests/functions/hello", memory_size=256)

    assert {"message": "Hello, Ada!"} == hello({"name": "Ada"})
    assert 256 == hello.supervisor.get_function(hello.name).memory_size


def test_a_module_in_a_package_is_written(lambda_function: MakeFunction) -> None:
    """A source text is the module that the handler names, however deep."""
    assert 7 == lambda_function("pkg.mod.run", code="def run(event, context):\n    return event")(7)


def test_functions_have_names_of_their_own(
    minilambda: miniλ.SyncSupervisor, lambda_function: MakeFunction
) -> None:
    """Two in one supervisor, the second under a name of the test's choice."""
    first = lambda_function("app.handler", code=DIVIDE)
    second = lambda_function("app.handler", code=DIVIDE, name="second")

    assert {first.name, "second"} == {function.name for function in minilambda.list_functions()}
    assert "<LambdaFunction second>" == repr(second)


def test_errors_that_are_not_the_functions_are_raised(lambda_function: MakeFunction) -> None:
    """A wrong option is the test's mistake, in Lambda's words."""
    with pytest.raises(miniλ.InvalidParameterValue):
        lambda_function("app.handler", code=DIVIDE, memory_size=1)


def test_a_failed_test_is_shown_without_the_frames_of_the_plugin(tmp_path: Path) -> None:
    """The report ends in the test's own line, for a failure and for a refused option."""
    file = tmp_path / "test_it.py"
    file.write_text(
        "def test_fails(lambda_function):\n"
        f"    lambda_function('app.handler', code={DIVIDE!r})(0)\n"
        "def test_is_refused(lambda_function):\n"
        f"    lambda_function('app.handler', code={DIVIDE!r}, memory_size=1)\n",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "minilambda.testing",
            "-p",
            "no:cacheprovider",
            file,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 1 == done.returncode, done.stdout
    assert "2 failed" in done.stdout
    assert "test_it.py:2: FunctionFailed" in done.stdout
    assert "testing.py" not in done.stdout


def test_a_source_text_of_one_line_is_refused(lambda_function: MakeFunction) -> None:
    """It would be taken for a path: the message says so."""
    with pytest.raises(ValueError, match="A source text has more than one line"):
        lambda_function("app.handler", code="def handler(event, context): return 1")


def test_the_page_is_true(tmp_path: Path) -> None:
    """Each example of docs/testing.md passes, in a project of its own."""
    (tmp_path / "functions" / "greet").mkdir(parents=True)
    greet, *examples = re.findall(r"(?s)```python\n(.*?)```", PAGE)
    (tmp_path / "functions" / "greet" / "app.py").write_text(greet)
    assert len(examples) == 5
    for number, source in enumerate(examples):
        name = "conftest" if "def minilambda_settings" in source else f"test_{number}"
        # This host may have another level than the page's.
        (tmp_path / f"{name}.py").write_text(source.replace('"userns"', '"auto"'))
    (tmp_path / "pytest.ini").touch()

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "minilambda.testing",
            "-p",
            "no:cacheprovider",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "5 passed" in done.stdout, done.stdout + done.stderr
