"""A pytest plugin: a test invokes a handler in its real sandbox, in two lines.

    def test_the_greeting(lambda_function):
        greet = lambda_function("app.handler", code="functions/greet", memory_size=256)
        assert greet({"name": "Ada"}) == {"message": "Hello, Ada!"}

Fixtures: `minilambda` is a supervisor, `lambda_function` makes functions in it, and
`minilambda_settings` is what a conftest.py overrides. docs/testing.md is the page for users.

Rule: importing this file imports pytest and the standard library only. pytest imports it in each
run on a machine where miniλ is installed; tests/unit/test_testing.py keeps the rule.
"""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from miniλ.model import Response
    from miniλ.settings import Settings
    from miniλ.sync import SyncSupervisor


class FunctionFailed(Exception):
    """A function that a test called has failed; `response` has its failure, log and report."""

    def __init__(self, response: Response) -> None:
        assert response.failure is not None
        self.response = response
        self.error_type = response.failure.error_type
        self.error_message = response.failure.error_message
        from miniλ.model import unfold  # noqa: PLC0415 - the rule of this file

        log = unfold(response.log)
        super().__init__(f"{self.error_type}: {self.error_message}\n\n{log}")


class LambdaFunction:
    """A function in the sandbox. Call it for what its handler returns."""

    def __init__(self, supervisor: SyncSupervisor, name: str) -> None:
        self.supervisor = supervisor
        self.name = name

    def __repr__(self) -> str:
        return f"<LambdaFunction {self.name}>"

    def __call__(self, event: object = None, **options: Any) -> Any:  # noqa: ANN401 - any JSON
        """Return what the handler returns for an event; raise `FunctionFailed` if it fails.

        `options` are those of `Supervisor.invoke`.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        response = self.invoke(event, **options)
        if response.is_failure:
            raise FunctionFailed(response)
        return response.payload

    def invoke(self, event: object = None, **options: Any) -> Response:  # noqa: ANN401 - see above
        """Return the whole response, also that of a failure: payload, log, report."""
        __tracebackhide__ = True
        return self.supervisor.invoke(self.name, event, **options)


class MakeFunction(Protocol):
    """The type of `lambda_function`, for annotations in tests."""

    def __call__(
        self,
        handler: str,
        code: str | os.PathLike[str],
        **options: Any,  # noqa: ANN401 - Supervisor.create_function's
    ) -> LambdaFunction:
        """Create a function of a directory, a .zip or a source text; return it."""


@pytest.fixture
def minilambda_settings() -> Settings | None:
    """Return the settings of `minilambda`, the environment's unless a conftest.py overrides it."""
    return None


@pytest.fixture
def minilambda(minilambda_settings: Settings | None) -> Iterator[SyncSupervisor]:
    """Return a supervisor with a temporary state directory; it is closed after the test."""
    from miniλ.sync import SyncSupervisor  # noqa: PLC0415 - only for tests that need it

    with SyncSupervisor(settings=minilambda_settings) as supervisor:
        yield supervisor


@pytest.fixture
def lambda_function(
    minilambda: SyncSupervisor, request: pytest.FixtureRequest, tmp_path: Path
) -> MakeFunction:
    """Return a maker of functions: `lambda_function("app.handler", code="functions/greet")`.

    `code` is a path, relative to pytest's rootdir, or a source text, which has more than one line.
    Options are those of `Supervisor.create_function`, and `name`.
    """
    count = 0

    def make(
        handler: str,
        code: str | os.PathLike[str],
        **options: Any,  # noqa: ANN401 - Supervisor.create_function's
    ) -> LambdaFunction:
        __tracebackhide__ = True
        nonlocal count
        count += 1
        name = options.pop("name", f"function-{count}")
        if isinstance(code, str) and "\n" in code:
            path = tmp_path / "lambda_function" / str(count)
            _write(path, handler, code)
        else:
            path = request.config.rootpath / code
            if isinstance(code, str) and "def " in code and not os.path.exists(path):
                msg = f"A source text has more than one line, and no path is called {code!r}"
                raise ValueError(msg)
        minilambda.create_function(name, path, handler, **options)
        return LambdaFunction(minilambda, name)

    return make


def _write(directory: Path, handler: str, source: str) -> None:
    """Write a source text as the module that a handler names."""
    module = handler.rpartition(".")[0].replace(".", "/")
    file = directory / f"{module}.py"
    file.parent.mkdir(parents=True)
    file.write_text(textwrap.dedent(source), encoding="utf-8")
