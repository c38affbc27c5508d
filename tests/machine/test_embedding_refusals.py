"""What the embedded API refuses, how, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
import inspect
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from miniλ import journal, model
from miniλ.runtimes import catalog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from typing import TypeAlias

    Attempt: TypeAlias = Callable[[miniλ.Supervisor, Path], Awaitable[object]]


ARN = "arn:aws:lambda:us-east-1:000000000000:function:"

pytestmark = pytest.mark.usefixtures("uvloop_has_its_pipe")


def _create(name: str = "new", handler: str = "app.handler", **options: Any) -> Attempt:
    return lambda supervisor, code: supervisor.create_function(name, code, handler, **options)


def _invoke(*event: object, name: str = "echo", **options: Any) -> Attempt:
    return lambda supervisor, _: supervisor.invoke(name, *event, **options)


def _configure(**changes: Any) -> Attempt:
    return lambda supervisor, _: supervisor.update_function_configuration("echo", **changes)


# What is tried, the error, and what its message holds: the value, and what is allowed.
REFUSED: dict[str, tuple[Attempt, type[miniλ.LambdaError], list[str]]] = {
    "missing directory": (
        lambda supervisor, code: supervisor.create_function("new", code / "gone", "app.handler"),
        miniλ.InvalidParameterValue,
        ["There is no ", "echo/gone"],
    ),
    "missing new code": (
        lambda supervisor, code: supervisor.update_function_code("echo", code / "gone"),
        miniλ.InvalidParameterValue,
        ["There is no ", "echo/gone"],
    ),
    "no zip": (
        lambda supervisor, code: supervisor.create_function("new", code / "app.py", "app.handler"),
        miniλ.InvalidParameterValue,
        ["echo/app.py", "unzip"],
    ),
    "handler without a dot": (
        _create(handler="handler"),
        miniλ.InvalidParameterValue,
        ["'handler'", "module.function"],
    ),
    "new handler without a dot": (
        _configure(handler="handler"),
        miniλ.InvalidParameterValue,
        ["'handler'", "module.function"],
    ),
    "memory below": (
        _create(memory_size=64),
        miniλ.InvalidParameterValue,
        ["MemorySize", "64", "128 to 10240 MB"],
    ),
    "memory above": (
        _create(memory_size=20000),
        miniλ.InvalidParameterValue,
        ["MemorySize", "20000", "128 to 10240 MB"],
    ),
    "new memory above": (
        _configure(memory_size=20000),
        miniλ.InvalidParameterValue,
        ["MemorySize", "20000", "128 to 10240 MB"],
    ),
    "timeout": (
        _create(timeout=0),
        miniλ.InvalidParameterValue,
        ["Timeout", "0", "1 to 900 seconds"],
    ),
    "environment": (
        _create(environment=["STAGE=test"]),
        miniλ.InvalidParameterValue,
        ["Environment", "STAGE=test", "dict"],
    ),
    "unknown runtime": (
        _create(runtime="cobol85"),
        miniλ.InvalidParameterValue,
        ["'cobol85'", "python3.14", f"{catalog.own()}"],
    ),
    "unknown change": (
        _configure(memory=256),
        miniλ.InvalidParameterValue,
        ["memory;", "memory_size"],
    ),
    "name": (
        _create(name="two words"),
        miniλ.InvalidParameterValue,
        ["FunctionName", "'two words'", "1 to 64"],
    ),
    "name of an invocation": (
        _invoke(name="two words"),
        miniλ.InvalidParameterValue,
        ["FunctionName", "'two words'", "1 to 64"],
    ),
    "taken name": (
        _create(name="echo"),
        miniλ.ResourceConflict,
        ["echo", "already exist: echo"],
    ),
    "unknown function": (
        _invoke(name="nobody"),
        miniλ.ResourceNotFound,
        [f"{ARN}nobody"],
    ),
    "unknown function, updated": (
        lambda supervisor, code: supervisor.update_function_code("nobody", code),
        miniλ.ResourceNotFound,
        [f"{ARN}nobody"],
    ),
    "unknown function, deleted": (
        lambda supervisor, _: supervisor.delete_function("nobody"),
        miniλ.ResourceNotFound,
        [f"{ARN}nobody"],
    ),
    "event that is not JSON": (
        _invoke(object()),
        miniλ.InvalidRequestContent,
        ["object", "JSON"],
    ),
    "body that is not JSON": (
        _invoke(payload=b"{"),
        miniλ.InvalidRequestContent,
        ["json", "truncated"],
    ),
    "client context that is not JSON": (
        _invoke(1, client_context={"custom": object()}),
        miniλ.InvalidRequestContent,
        ["object", "JSON"],
    ),
    "event too large": (
        _invoke("x" * model.MAX_PAYLOAD),
        miniλ.RequestTooLarge,
        [str(model.MAX_PAYLOAD + 2), str(model.MAX_PAYLOAD)],
    ),
    "body too large": (
        _invoke(payload=b"1" * (model.MAX_PAYLOAD + 1)),
        miniλ.RequestTooLarge,
        [str(model.MAX_PAYLOAD + 1), str(model.MAX_PAYLOAD)],
    ),
    "price book": (
        lambda supervisor, _: supervisor.usage("1999"),
        miniλ.InvalidParameterValue,
        ["'1999'", "2018, 2020, 2025"],
    ),
    "concurrency of a map": (
        lambda supervisor, _: anext(supervisor.map("echo", [1], concurrency=0)),
        miniλ.InvalidParameterValue,
        ["concurrency", "0", "at least 1"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_and_nothing_is_lost(case: str, echo: Path) -> None:
    """The error is ours, with Lambda's code, the value and what to do; all else is as before."""
    attempt, kind, words = REFUSED[case]

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            before = supervisor.list_functions()
            with pytest.raises(miniλ.LambdaError) as caught:
                await attempt(supervisor, echo)

            assert kind is type(caught.value)
            assert caught.value.code == f"{kind.__name__}Exception"
            missing = [text for text in words if text not in str(caught.value)]
            assert missing == [], str(caught.value)
            assert before == supervisor.list_functions()
            assert "fine" == (await supervisor.invoke("echo", "fine")).payload
            assert supervisor.journal.story(journal.Trouble) == []

    asyncio.run(scenario())


def test_an_event_of_6_mb_passes(echo: Path) -> None:
    """The limit itself is allowed, both ways."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler", timeout=20)
            event = "x" * (model.MAX_PAYLOAD - 2)

            assert event == (await supervisor.invoke("echo", event)).payload

    asyncio.run(scenario())


def test_deleted_code_is_a_conflict_until_it_is_deployed_again(echo: Path) -> None:
    """The error has the path and the remedy, which works; other functions are not disturbed."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            (echo / "another.py").touch()
            await supervisor.create_function("another", echo, "app.handler")
            assert 1 == (await supervisor.invoke("echo", 1)).payload
            path = supervisor.get_function("echo").code_path
            shutil.rmtree(path)
            assert 2 == (await supervisor.invoke("echo", 2)).payload  # its worker has it already
            await supervisor.update_function_configuration("echo", timeout=5)
            before = supervisor.list_functions()
            for _ in range(2):
                with pytest.raises(miniλ.ResourceConflict, match=re.escape(path)) as caught:
                    await supervisor.invoke("echo", 3)
                assert "update_function_code" in str(caught.value)
                assert "ResourceConflictException" == caught.value.code
            assert before == supervisor.list_functions()
            assert 4 == (await supervisor.invoke("another", 4)).payload

            await supervisor.update_function_code("echo", echo)
            assert 5 == (await supervisor.invoke("echo", 5)).payload

    asyncio.run(scenario())


def test_what_is_no_event_or_no_id_is_refused(function_directory: Callable[..., Path]) -> None:
    """A body that is no bytes, and ids that are no text, are errors that say so."""
    code = function_directory("plain", app="def handler(event, context): return event\n")

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("plain", code, "app.handler")
            with pytest.raises(miniλ.InvalidRequestContent, match="got str"):
                await supervisor.invoke("plain", payload="{}")  # type: ignore[arg-type]
            with pytest.raises(miniλ.InvalidParameterValue, match=r"trace_id .* got 5"):
                await supervisor.invoke("plain", trace_id=5)  # type: ignore[arg-type]
            with pytest.raises(miniλ.InvalidParameterValue, match=r"request_id .* got 5"):
                await supervisor.invoke("plain", request_id=5)  # type: ignore[arg-type]

            response = await supervisor.invoke("plain", 1, request_id="mine")
            assert (1, "mine") == (response.payload, response.request_id)

    asyncio.run(scenario())


def test_a_supervisor_that_was_never_opened_can_be_inspected() -> None:
    """A module may make one at its top level: `hasattr` and `inspect` meet no error of ours."""
    supervisor = miniλ.Supervisor()

    assert not hasattr(supervisor, "journal")
    assert "invoke" in dict(inspect.getmembers(supervisor))
    with pytest.raises(miniλ.SupervisorClosed):
        _ = supervisor.limits
