"""The embedded API: its methods, how it opens and closes, `map`, and what a state keeps."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ import decorated
from miniλ.decorated import Function
from miniλ.runtimes import catalog
from miniλ.store import registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("uvloop_has_its_pipe")

ROOT = Path(__file__).resolve().parents[2]


# What the methods do


def test_a_function_lives_from_create_to_delete(
    echo: Path,
    function_directory: Callable[..., Path],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Each method answers with the configuration as it is after it, and the next sees it."""
    other = function_directory("other", app="def handler(event, context):\n    return 'other'\n")

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            assert supervisor.list_functions() == []
            created = await supervisor.create_function(
                "echo", echo, "app.handler", memory_size=256, environment={"STAGE": "test"}
            )
            second = await supervisor.create_function("a_second", str(echo), "app.handler")

            assert created == supervisor.get_function("echo")
            assert [second, created] == supervisor.list_functions()
            assert 256 == created.memory_size
            assert catalog.own() == created.runtime
            assert created.code_size == (echo / "app.py").stat().st_size
            assert second.code_sha256 == created.code_sha256
            assert 32 == len(base64.b64decode(created.code_sha256))
            assert {"a": [1]} == (await supervisor.invoke("echo", {"a": [1]})).payload
            assert "test" == (await supervisor.invoke("echo", "stage")).payload
            assert [1] == (await supervisor.invoke("echo", payload=b" [1] ")).payload

            changed = await supervisor.update_function_configuration(
                "echo", timeout=7, environment={"STAGE": "changed"}
            )
            assert (256, 7) == (changed.memory_size, changed.timeout)
            assert changed.revision != created.revision
            assert "changed" == (await supervisor.invoke("echo", "stage")).payload

            updated = await supervisor.update_function_code("echo", other)
            assert updated.code_sha256 != created.code_sha256
            assert (256, 7) == (updated.memory_size, updated.timeout)
            assert "other" == (await supervisor.invoke("echo")).payload

            await supervisor.delete_function("echo")
            assert [second] == supervisor.list_functions()
            with pytest.raises(miniλ.ResourceNotFound):
                await supervisor.invoke("echo")
            assert 1 == (await supervisor.invoke("a_second", 1)).payload

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario())


def test_the_source_may_change_or_go_after_create(echo: Path) -> None:
    """The code was copied: edits and removals of the source reach no worker, warm or new."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            (echo / "app.py").write_text("syntax error", encoding="utf-8")
            assert 1 == (await supervisor.invoke("echo", 1)).payload
            shutil.rmtree(echo)
            await supervisor.update_function_configuration("echo", timeout=5)
            response = await supervisor.invoke("echo", 2)

            assert response.report.cold
            assert 2 == response.payload

    asyncio.run(scenario())


def test_a_closed_supervisor_says_so(echo: Path) -> None:
    """Before it is opened and after it is closed every method raises SupervisorClosed."""

    async def refuses(supervisor: miniλ.Supervisor) -> None:
        for work in (
            supervisor.invoke("echo", 1),
            supervisor.create_function("echo", echo, "app.handler"),
            supervisor.delete_function("echo"),
            supervisor.usage(),
            anext(supervisor.map("echo", [1])),
        ):
            with pytest.raises(
                miniλ.SupervisorClosed,
                match="is not open: use it inside its `with` or `async with`",
            ):
                await work
        with pytest.raises(miniλ.SupervisorClosed):
            supervisor.list_functions()

    async def scenario() -> None:
        supervisor = miniλ.Supervisor()
        await refuses(supervisor)
        async with supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            assert 1 == (await supervisor.invoke("echo", 1)).payload
            with pytest.raises(miniλ.ResourceConflict):
                await supervisor.__aenter__()
            assert 2 == (await supervisor.invoke("echo", 2)).payload
        await refuses(supervisor)
        await supervisor.close()

    asyncio.run(scenario())


def test_a_supervisor_may_be_opened_again_on_another_loop(echo: Path) -> None:
    """One that a module made at its top serves one asyncio.run after the other."""
    supervisor = miniλ.Supervisor()

    async def scenario() -> None:
        async with supervisor:
            # Two at once: the second waits for the first, on the loop of this run.
            await asyncio.gather(
                *(supervisor.create_function(n, echo, "app.handler") for n in ("one", "two"))
            )
            assert 1 == (await supervisor.invoke("two", 1)).payload

    asyncio.run(scenario())
    asyncio.run(scenario())


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13])
def test_opening_may_be_cancelled_at_any_moment(turns: int) -> None:
    """A caller that is cancelled meanwhile leaves no directory, thread or descriptor."""

    async def scenario() -> None:
        supervisor = miniλ.Supervisor()
        opening = asyncio.ensure_future(supervisor.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await supervisor.close()

    asyncio.run(scenario())


# map


def test_a_map_keeps_the_order(function_directory: Callable[..., Path]) -> None:
    """Responses come in the order of their events, though the later ones are ready sooner."""
    code = function_directory(
        "nap", app="import time\ndef handler(e, c):\n    time.sleep(e[1])\n    return e[0]\n"
    )

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("nap", code, "app.handler")
            events = [(n, 0.1 if n % 4 == 0 else 0) for n in range(16)]
            responses = [r async for r in supervisor.map("nap", events, concurrency=4)]

            assert list(range(16)) == [response.payload for response in responses]
            assert 4 == len({response.report.worker_id for response in responses})

    asyncio.run(scenario())


def test_a_failure_in_the_middle_of_a_map_is_a_response(echo: Path) -> None:
    """A function that raises ends neither the map nor the events after it."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            responses = [r async for r in supervisor.map("echo", [1, "fail", 3], concurrency=2)]

            assert [False, True, False] == [response.is_failure for response in responses]
            assert "ValueError" == responses[1].payload["errorType"]
            assert 3 == responses[2].payload

    asyncio.run(scenario())


def test_a_map_takes_events_as_it_needs_them(echo: Path) -> None:
    """An endless generator is read no further than `concurrency` ahead, and may be left."""
    taken = []

    def endless() -> Iterator[int]:
        for number in itertools.count():
            taken.append(number)
            yield number

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            responses = supervisor.map("echo", endless(), concurrency=4)
            seen = []
            async for response in responses:
                seen.append(response.payload)
                if len(seen) == 10:
                    break
            await responses.aclose()  # type: ignore[attr-defined]

            assert list(range(10)) == seen
            assert len(taken) <= 10 + 4
            assert "fine" == (await supervisor.invoke("echo", "fine")).payload

    asyncio.run(scenario())


def test_an_error_of_ours_ends_a_map(echo: Path) -> None:
    """Events before the bad one are answered; then the error comes; the supervisor works on."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            responses = supervisor.map("echo", [1, 2, object(), 4], concurrency=3)

            assert 1 == (await anext(responses)).payload
            assert 2 == (await anext(responses)).payload
            with pytest.raises(miniλ.InvalidRequestContent):
                await anext(responses)
            assert 5 == (await supervisor.invoke("echo", 5)).payload

    asyncio.run(scenario())


def handler_of_the_app(event: object, context: object) -> object:
    """Stand for a function of an embedding app."""
    return [event, context]


def test_a_name_is_one_functions_however_many_are_created_at_once(echo: Path) -> None:
    """The name of a function of the app is taken from before its runtime is prepared."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            function = Function(supervisor.invoke, handler_of_the_app, "both")
            ours = decorated.configuration(function, catalog.own(), {})
            adopted, created = await asyncio.gather(
                supervisor.functions.adopt(ours),
                supervisor.create_function("both", echo, "app.handler"),
                return_exceptions=True,
            )
            assert adopted is None
            assert isinstance(created, miniλ.ResourceConflict)
            assert ours == supervisor.get_function("both")

    asyncio.run(scenario())


# What is kept


def test_a_state_directory_keeps_functions_and_the_ledger(echo: Path, tmp_path: Path) -> None:
    """A second life has the functions, runs them, and its usage adds to the first one's."""
    state = tmp_path / "state"

    async def first() -> miniλ.FunctionConfiguration:
        async with miniλ.Supervisor(state) as supervisor:
            created = await supervisor.create_function(
                "echo", echo, "app.handler", environment={"STAGE": "kept"}
            )
            await supervisor.create_function("gone", echo, "app.handler")
            await supervisor.delete_function("gone")
            for number in range(3):
                await supervisor.invoke("echo", number)
            return created

    async def second(created: miniλ.FunctionConfiguration) -> None:
        async with miniλ.Supervisor(state) as supervisor:
            assert [created] == supervisor.list_functions()
            assert "kept" == (await supervisor.invoke("echo", "stage")).payload
            assert (await supervisor.invoke("echo", "fail")).is_failure
            books = {book: await supervisor.usage(book) for book in ("2018", "2020", "2025")}

            assert all(
                [("echo", 128, 5)] == [(u.function, u.memory_size_mb, u.requests) for u in usages]
                for usages in books.values()
            )
            billed = {book: usages[0].billed_ms for book, usages in books.items()}
            assert billed["2018"] >= 500  # five steps of 100 ms
            assert 0 == billed["2018"] % 100
            assert 5 <= billed["2020"] < billed["2025"]  # the init phase is billed since
            assert books["2025"] == await supervisor.usage()

    created = asyncio.run(first())
    shutil.rmtree(echo)
    asyncio.run(second(created))

    assert 5 == registry.read_usage(state / "registry.db", "2025")[0].requests


COUNTING = """
import asyncio, sys
import miniλ

async def main(state, code):
    async with miniλ.Supervisor(state) as supervisor:
        await supervisor.create_function("echo", code, "app.handler")
        for number in range(50):
            await supervisor.invoke("echo", number)
        print("invoked", flush=True)
        await asyncio.get_running_loop().create_future()

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_ledger_survives_kill_9_to_within_a_second(echo: Path, tmp_path: Path) -> None:
    """A second after the invocations they are on disk, and stay when the supervisor is killed."""
    state = tmp_path / "state"
    with subprocess.Popen(
        [sys.executable, "-c", COUNTING, str(state), str(echo)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            assert b"invoked\n" == process.stdout.readline()
            deadline = time.monotonic() + registry.LEDGER_SECONDS + 2  # it may be a slow machine

            def requests() -> int:
                usages = registry.read_usage(state / "registry.db", "2025")
                return sum(usage.requests for usage in usages)

            # No journal of this process has a fact about it, so the ledger is polled.
            while requests() < 50:
                assert time.monotonic() < deadline
        finally:
            process.kill()

    assert 50 == requests()

    async def reopen() -> list[miniλ.FunctionConfiguration]:
        async with miniλ.Supervisor(state) as supervisor:
            assert 50 == (await supervisor.usage("2018"))[0].requests
            assert 1 == (await supervisor.invoke("echo", 1)).payload
            return supervisor.list_functions()

    assert ["echo"] == [function.name for function in asyncio.run(reopen())]


def test_a_kept_state_drops_code_that_no_function_has(
    function_directory: Callable[..., Path], tmp_path: Path
) -> None:
    """A package goes with the last version that has it, half-made copies at the next start."""
    state = tmp_path / "state"

    async def update() -> None:
        async with miniλ.Supervisor(state) as supervisor:
            first = function_directory("code", app="def handler(e, c): return 1\n")
            await supervisor.create_function("kept", first, "app.handler")
            second = function_directory("code", app="def handler(e, c): return 2\n")
            await supervisor.update_function_code("kept", second)

    async def look() -> object:
        async with miniλ.Supervisor(state) as supervisor:
            return (await supervisor.invoke("kept")).payload

    asyncio.run(update())
    assert 1 == len(list((state / "code").iterdir()))

    (state / "code" / ".staging-dead").mkdir()
    assert 2 == asyncio.run(look())
    assert 1 == len(list((state / "code").iterdir()))
