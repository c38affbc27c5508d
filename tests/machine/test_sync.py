"""The synchronous supervisor does what the asynchronous one does."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

import miniλ

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("uvloop_has_its_pipe")

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


def test_the_synchronous_face_has_versions(echo: Path) -> None:
    """They are published, invoked and kept initialised as by the other one."""
    with miniλ.SyncSupervisor() as supervisor:
        supervisor.create_function("echo", echo, "app.handler")
        assert "1" == supervisor.publish_version("echo").version
        supervisor.provision("echo", "1", 1)
        assert "one" == supervisor.invoke("echo:1", "one").payload
        assert (1, "") == supervisor.provisioned("echo", "1")


def test_the_synchronous_face_does_the_same(
    echo: Path, function_directory: Callable[..., Path]
) -> None:
    """Every method is there, waits, and raises what the other one raises."""
    other = function_directory("other", app="def handler(event, context):\n    return 'other'\n")
    with miniλ.SyncSupervisor() as supervisor:
        created = supervisor.create_function("echo", echo, "app.handler")

        assert [created] == supervisor.list_functions()
        assert {"a": 1} == supervisor.invoke("echo", {"a": 1}).payload
        assert supervisor.invoke("echo", "fail").is_failure
        assert [2] == supervisor.invoke("echo", payload=b"[2]").payload
        for bad in (
            lambda: supervisor.invoke("nobody"),
            lambda: supervisor.get_function("nobody"),
            lambda: supervisor.delete_function("nobody"),
        ):
            with pytest.raises(miniλ.ResourceNotFound, match=f"{ARN}nobody"):
                bad()
        with pytest.raises(miniλ.InvalidParameterValue, match="64"):
            supervisor.create_function("new", echo, "app.handler", memory_size=64)
        assert 9 == supervisor.update_function_configuration("echo", timeout=9).timeout
        assert 9 == supervisor.update_function_code("echo", other).timeout
        assert "other" == supervisor.invoke("echo").payload
        assert 4 == sum(usage.requests for usage in supervisor.usage())
        supervisor.delete_function("echo")
        assert [] == supervisor.list_functions()
    supervisor.close()
    supervisor.close()

    assert "<SyncSupervisor closed>" == repr(supervisor)
    with pytest.raises(miniλ.SupervisorClosed):
        supervisor.invoke("echo")
    with pytest.raises(miniλ.SupervisorClosed):
        next(supervisor.map("echo", [1]))


def test_a_synchronous_map_is_lazy_and_in_order(echo: Path) -> None:
    """It takes events as it needs them, may be left, and one map may feed another."""
    with miniλ.SyncSupervisor() as supervisor:
        supervisor.create_function("echo", echo, "app.handler")
        endless = supervisor.map("echo", itertools.count(), concurrency=4)
        first = [response.payload for response in itertools.islice(endless, 10)]
        endless.close()  # type: ignore[attr-defined]
        assert list(range(10)) == first

        failures = [r.is_failure for r in supervisor.map("echo", [1, "fail", 3])]
        assert [False, True, False] == failures

        inner = supervisor.map("echo", range(5), concurrency=2)
        outer = supervisor.map("echo", (r.payload + 1 for r in inner), concurrency=2)
        assert [1, 2, 3, 4, 5] == [response.payload for response in outer]

        with pytest.raises(miniλ.ResourceNotFound):
            next(supervisor.map("nobody", [1]))
        with pytest.raises(miniλ.InvalidParameterValue, match="concurrency"):
            next(supervisor.map("echo", [1], concurrency=0))
        with pytest.raises(ZeroDivisionError):
            list(supervisor.map("echo", (1 // n for n in (1, 0)), concurrency=2))


def test_the_synchronous_face_works_where_a_loop_runs(
    echo: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """In a coroutine, as in a notebook, and in a thread beside one; also both at once."""

    def use(number: int) -> object:
        with miniλ.SyncSupervisor() as supervisor:
            supervisor.create_function("echo", echo, "app.handler")
            return supervisor.invoke("echo", number).payload

    async def scenario() -> list[object]:
        beside = asyncio.create_task(asyncio.to_thread(use, 1))
        return [use(2), await beside]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert [2, 1] == runner.run(scenario())


def test_threads_may_share_a_synchronous_supervisor(echo: Path) -> None:
    """Calls from many threads are answered each to its own."""

    async def scenario(supervisor: miniλ.SyncSupervisor) -> list[object]:
        calls = (
            asyncio.to_thread(supervisor.invoke, "echo", number, wait=30.0) for number in range(20)
        )
        return [response.payload for response in await asyncio.gather(*calls)]

    with miniλ.SyncSupervisor() as supervisor:
        supervisor.create_function("echo", echo, "app.handler")

        assert list(range(20)) == asyncio.run(scenario(supervisor))
