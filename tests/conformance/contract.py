"""What the tests of the Python contract share: two handlers, and how to read a response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from miniλ import Response
    from miniλ.model import Failure

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
NBSP = "\u00a0"

# Returns the value of the event, a Python expression.
EVALUATE = """
    import decimal, os, sys

    def gen():
        yield 1

    def cyclic():
        inside = []
        inside.append(inside)
        return inside

    def deep(levels):
        nested = []
        for _ in range(levels):
            nested = [nested]
        return nested

    def handler(event, context):
        return eval(event)
    """

DIVIDE = """
    def handler(event, context):
        return divide(1, 0)

    def divide(left, right):
        return left / right
    """


def failure_of(response: Response) -> Failure:
    """Return the failure of an invocation, which must have failed."""
    assert response.failure is not None
    return response.failure


def printed(response: Response) -> str:
    """Return the log between the START and the END line."""
    return response.log.split(" Version: $LATEST\n", 1)[1].rsplit("END RequestId: ", 1)[0]


class Ask(Protocol):
    """Runs one function on some events, one after the other, and returns the responses."""

    def __call__(
        self,
        code: str | Path,
        *events: object,
        handler: str = "app.handler",
        say: dict[str, Any] | None = None,
        **options: Any,
    ) -> list[Response]:
        """Create, invoke and close.

        `code`: a directory, or the source text of app.py; `say`: options of each invoke;
        `options`: create_function's.
        """
