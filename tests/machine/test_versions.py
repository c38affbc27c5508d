"""Versions, aliases and provisioned concurrency, on real workers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from miniλ import journal
from miniλ.functions import new_revision, replace
from miniλ.settings import Settings
from miniλ.store.registry import Change
from miniλ.store.resources import ALIAS, FUNCTION, Alias

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = """
import os

def handler(event, context):
    if event == "die":
        os.abort()
    return [os.environ["VALUE"], os.environ["AWS_LAMBDA_FUNCTION_VERSION"],
            context.function_version, context.invoked_function_arn]
"""
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


@pytest.fixture
def code(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that says which version of it runs."""
    return function_directory("versioned", app=SOURCE)


async def alive(supervisor: miniλ.Supervisor, version: str, count: int) -> None:
    """Wait until `count` workers of a version are initialised."""
    async with asyncio.timeout(20):
        while supervisor.provisioned("f", version)[0] != count:
            await supervisor.journal.until(journal.WorkerReady)
            await asyncio.sleep(0.01)


def test_a_version_stays_as_it_was(code: Path) -> None:
    """Each has its environment, its number and its ARN, also while another one is invoked."""

    async def main() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("f", code, "app.handler", environment={"VALUE": "one"})
            first = await supervisor.publish_version("f")
            await supervisor.update_function_configuration("f", environment={"VALUE": "two"})
            second = await supervisor.publish_version("f")
            assert ("1", "2") == (first.version, second.version)
            alias = Alias(function="f", name="prod", version="1", revision="r")
            await supervisor.functions.registry.write(Change(ALIAS, "f", "prod", alias))

            for name, answer, executed in (
                ("f", ["two", "$LATEST", "$LATEST", ARN], "$LATEST"),
                ("f:1", ["one", "1", "1", f"{ARN}:1"], "1"),
                (f"{ARN}:2", ["two", "2", "2", f"{ARN}:2"], "2"),
                ("f:prod", ["one", "1", "1", f"{ARN}:prod"], "1"),
                ("f:$LATEST", ["two", "$LATEST", "$LATEST", f"{ARN}:$LATEST"], "$LATEST"),
            ):
                response = await supervisor.invoke(name, "who")
                assert answer == response.payload
                assert executed == response.executed_version
                assert f"Version: {executed}\n" in response.log

    asyncio.run(main())


def test_what_has_not_changed_is_not_published_again(code: Path) -> None:
    """The last version is the answer; a number is never used twice."""

    async def main() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("f", code, "app.handler")
            assert "1" == (await supervisor.publish_version("f")).version
            assert "1" == (await supervisor.publish_version("f", "told again")).version
            await supervisor.update_function_configuration("f", timeout=5)
            assert "2" == (await supervisor.publish_version("f")).version
            await supervisor.functions.delete("f", "2")
            await supervisor.update_function_configuration("f", timeout=6)
            assert "3" == (await supervisor.publish_version("f")).version

    asyncio.run(main())


def test_only_the_latest_settles(code: Path) -> None:
    """A version that is published with an update is never InProgress: nothing would finish it."""

    async def main() -> None:
        async with miniλ.Supervisor() as supervisor:
            before = await supervisor.create_function("f", code, "app.handler")
            with pytest.raises(AssertionError, match="only \\$LATEST settles"):
                await supervisor.functions.update_code("f", code, settle=True, publish=True)
            assert [before] == supervisor.functions.versions("f")

    asyncio.run(main())


def test_versions_survive_a_restart(code: Path, tmp_path: Path) -> None:
    """And are gone with their function."""

    async def main() -> None:
        state = tmp_path / "state"
        async with miniλ.Supervisor(state) as supervisor:
            await supervisor.create_function("f", code, "app.handler", environment={"VALUE": "1"})
            await supervisor.publish_version("f")
            await supervisor.update_function_configuration("f", environment={"VALUE": "2"})
        async with miniλ.Supervisor(state) as supervisor:
            assert "1" == (await supervisor.invoke("f:1", None)).payload[0]
            await supervisor.delete_function("f")
            with pytest.raises(miniλ.ResourceNotFound, match=f"{ARN}:1"):
                await supervisor.invoke("f:1", None)

    asyncio.run(main())


def test_a_state_that_a_later_version_wrote_is_served(code: Path, tmp_path: Path) -> None:
    """Rows of an unknown kind and unknown fields stay; a Trouble names the unknown kinds."""

    def rows(*statement: Any) -> list[tuple[str, str]]:
        with closing(sqlite3.connect(tmp_path / "state" / "registry.db")) as other, other:
            other.execute(*statement)
            return other.execute("SELECT kind, document FROM resources ORDER BY kind").fetchall()

    async def main() -> None:
        state = tmp_path / "state"
        async with miniλ.Supervisor(state) as supervisor:
            await supervisor.create_function("f", code, "app.handler", environment={"VALUE": "1"})
            assert [] == supervisor.journal.story(journal.Trouble)
        rows("INSERT INTO resources VALUES ('trigger', 'f', '1', '{}')")
        rows("UPDATE resources SET document = json_set(document, '$.later', 7) WHERE kind <> 'x'")
        async with miniλ.Supervisor(state) as supervisor:
            (trouble,) = supervisor.journal.story(journal.Trouble)
            assert "this version does not know (trigger)" in trouble.what
            await supervisor.update_function_configuration("f", environment={"VALUE": "2"})
            assert "2" == (await supervisor.invoke("f", None)).payload[0]
        (_, function), trigger = rows("SELECT 1")
        assert ("trigger", '{"later":7}') == trigger
        assert {"later": 7, "environment": {"VALUE": "2"}}.items() <= json.loads(function).items()

    asyncio.run(main())


def test_reserved_concurrency_is_for_all_versions_and_keeps_workers(code: Path) -> None:
    """A worker that was warm before the reservation is the one that serves after it."""

    async def main() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("f", code, "app.handler", environment={"VALUE": "1"})
            await supervisor.publish_version("f")
            before = await supervisor.invoke("f:1", None)
            await supervisor.functions.reserve("f", 1)
            after = await supervisor.invoke("f:1", None)
            assert before.report.worker_id == after.report.worker_id

            await supervisor.functions.reserve("f", 0)
            for name in ("f", "f:1"):
                with pytest.raises(miniλ.Throttled, match="Reserved"):
                    await supervisor.invoke(name, None)
            await supervisor.functions.reserve("f", None)
            again = await supervisor.invoke("f:1", None)
            assert before.report.worker_id == again.report.worker_id

    asyncio.run(main())


def test_provisioned_workers_are_there_before_anybody_comes(code: Path) -> None:
    """No invocation is cold; a dead worker is replaced; keep-alive and pressure end none."""

    async def main() -> None:
        settings = Settings(concurrency=8)
        async with miniλ.Supervisor(settings=settings) as supervisor:
            await supervisor.create_function(
                "f", code, "app.handler", environment={"VALUE": "1"}, keep_alive=0.05
            )
            await supervisor.publish_version("f")
            await supervisor.provision("f", "1", 2)
            await alive(supervisor, "1", 2)

            response = await supervisor.invoke("f:1", "who")
            assert not response.report.cold
            failed = await supervisor.invoke("f:1", "die")
            assert failed.is_failure
            await supervisor.journal.until(
                journal.WorkerExited, lambda fact: fact.worker_id == failed.report.worker_id
            )
            await alive(supervisor, "1", 2)
            started = supervisor.journal.story(journal.WorkerStarted)
            os.kill(started[-1].pid, signal.SIGKILL)
            await supervisor.journal.until(
                journal.WorkerExited, lambda fact: fact.worker_id == started[-1].worker_id
            )
            await alive(supervisor, "1", 2)

            await supervisor.provision("f", "1", 0)
            for worker in supervisor.journal.story(journal.WorkerStarted):
                async with asyncio.timeout(20):
                    await supervisor.journal.until(
                        journal.WorkerExited,
                        lambda fact, own=worker.worker_id: fact.worker_id == own,  # type: ignore[misc]
                    )

    asyncio.run(main())


def test_provisioned_concurrency_says_why_it_is_not_there(
    function_directory: Callable[..., Path],
) -> None:
    """An init phase that fails is not tried for ever; and there is no more than the host runs."""

    async def main() -> None:
        broken = function_directory("broken", app="raise ValueError('no')")
        settings = Settings(concurrency=8)
        async with miniλ.Supervisor(settings=settings) as supervisor:
            await supervisor.create_function("f", broken, "app.handler")
            await supervisor.publish_version("f")
            with pytest.raises(miniλ.InvalidParameterValue, match="more than the 7"):
                await supervisor.provision("f", "1", 8)
            await supervisor.provision("f", "1", 1)
            await supervisor.journal.until(journal.InitFailed)
            await supervisor.journal.until(journal.WorkerExited)

            assert (0, "FUNCTION_ERROR_INIT_FAILURE") == supervisor.provisioned("f", "1")
            assert 1 == len(supervisor.journal.story(journal.WorkerStarted))

    asyncio.run(main())


def test_many_functions_share_few_workers(code: Path, tmp_path: Path) -> None:
    """B44: 5,000 functions are known; a worker evicts the one that is cheapest to start again."""

    async def main() -> None:
        state, settings = tmp_path / "state", Settings(concurrency=8)
        async with miniλ.Supervisor(state, settings) as supervisor:
            first = await supervisor.create_function(
                "f0", code, "app.handler", environment={"VALUE": "many"}
            )
            others = [
                replace(first, name=f"f{number}", revision=new_revision())
                for number in range(1, 5000)
            ]
            await supervisor.functions.registry.write(
                *(Change(FUNCTION, other.name, "$LATEST", other) for other in others)
            )
        async with miniλ.Supervisor(state, settings) as supervisor:
            assert 5000 == len(supervisor.list_functions())
            for number in range(0, 5000, 200):
                response = await supervisor.invoke(f"f{number}", "who")
                assert f"{ARN[:-1]}f{number}" == response.payload[3]
            again = await supervisor.invoke("f4800", "who")

            assert not again.report.cold
            started = len(supervisor.journal.story(journal.WorkerStarted))
            stopped = len(supervisor.journal.story(journal.WorkerStopped))
            assert 25 == started
            assert started - stopped <= 8

    asyncio.run(main())


def test_what_keeps_a_function_from_being_ready_is_told(code: Path) -> None:
    """Also a disk that fails: the function is Failed with the reason, not Pending for ever."""

    async def main() -> None:
        async with miniλ.Supervisor() as supervisor:
            draft = await supervisor.create_function("f", code, "app.handler")

            async def broken(_: object) -> None:
                raise OSError(28, "No space left on device")

            functions = supervisor.functions
            functions._prepare = broken
            await functions.create(replace(draft, name="g"), code, settle=True)
            assert "Pending" == functions.get("g").state
            await functions._settling.finish()

            assert "Failed" == functions.get("g").state
            assert "No space left" in functions.get("g").state_reason[1]
            with pytest.raises(miniλ.ResourceConflict, match="Failed"):
                await supervisor.invoke("g", None)

    asyncio.run(main())
