"""The init phase: its type as the function sees it, and what becomes of one that fails."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ import journal
from miniλ.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Waits until as many workers run it as its event says, in a directory of the host.
TYPE = """
import os, time

def handler(event, context):
    open(os.path.join(event["place"], context.aws_request_id), "w").close()
    while len(os.listdir(event["place"])) < event["count"]:
        time.sleep(0.001)
    return os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]
"""
# Hangs in its first init phase; the second waits for the file `go`.
SECOND = """
import os, time
here = os.path.dirname(__file__)
if not os.path.exists("{flags}/first"):
    open("{flags}/first", "w").close()
    time.sleep(60)
open("{flags}/second", "w").close()
while not os.path.exists("{flags}/go"):
    time.sleep(0.001)
def handler(event, context):
    return event
"""


async def there(path: Path) -> None:
    """Wait for a file that a function makes in its init phase."""
    async with asyncio.timeout(20):
        while not path.exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.005)


def test_the_initialization_type_says_why_a_worker_was_started(
    function_directory: Callable[..., Path], tmp_path: Path
) -> None:
    """It is of a version's provisioned workers, and not of those that start beyond them."""

    async def main() -> None:
        code = function_directory("typed", app=TYPE)
        settings = Settings(concurrency=8, without="namespaces,landlock")
        async with miniλ.Supervisor(settings=settings) as supervisor:

            async def types(version: str, count: int) -> list[str]:
                """Invoke that many workers at once, each once."""
                place = tmp_path / f"{version} {count}"
                place.mkdir()
                event = {"place": str(place), "count": count}
                calls = [supervisor.invoke(f"f:{version}", event) for _ in range(count)]
                return sorted(response.payload for response in await asyncio.gather(*calls))

            await supervisor.create_function("f", code, "app.handler", timeout=30)
            await supervisor.publish_version("f")
            assert ["on-demand"] == await types("1", 1)
            await supervisor.update_function_configuration("f", memory_size=256)
            await supervisor.publish_version("f")
            await supervisor.provision("f", "2", 1)
            assert ["on-demand", "provisioned-concurrency"] == await types("2", 2)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("source", "settings"),
    [("raise ValueError('no')", {}), ("while True: pass", {"init_timeout": 0.3})],
    ids=["error", "timeout"],
)
def test_an_invocation_that_ends_in_its_init_phase_is_logged_as_others_are(
    function_directory: Callable[..., Path], source: str, settings: dict[str, float]
) -> None:
    """In the logbook, with both init phases, and as of the version that was invoked."""

    async def main() -> None:
        code = function_directory("broken", app=source)
        chosen = Settings(keep_logs=True, **settings)  # type: ignore[arg-type]
        async with miniλ.Supervisor(settings=chosen) as supervisor:
            await supervisor.create_function("f", code, "app.handler", timeout=1)
            await supervisor.publish_version("f")
            response = await supervisor.invoke("f:1", None)
            events = await supervisor.parts.logbook.events("/aws/lambda/f")

            assert response.is_failure
            assert "1" == response.executed_version
            assert response.log == "".join(event.message for event in events)
            assert {f"[1]{response.report.worker_id}"} == {
                event.stream.rpartition("/")[2] for event in events
            }
            assert "Phase: init" in response.log
            assert "Phase: invoke" in response.log
            assert "Version: 1\n" in response.log

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["ready", "late"])
def test_a_caller_that_leaves_a_repeated_init_leaves_a_worker(
    function_directory: Callable[..., Path], tmp_path: Path, ends: str
) -> None:
    """It is the next invocation's when it is ready; if it never is, it ends and takes no room."""
    flags = tmp_path / "flags"
    flags.mkdir()

    async def main() -> None:
        code = function_directory("second", app=SECOND.format(flags=flags))
        settings = Settings(init_timeout=0.3, concurrency=1, without="namespaces,landlock")
        async with miniλ.Supervisor(settings=settings) as supervisor:
            timeout = 20 if ends == "ready" else 1
            await supervisor.create_function("f", code, "app.handler", timeout=timeout)
            caller = asyncio.create_task(supervisor.invoke("f", None))
            await there(flags / "second")
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            first = await supervisor.journal.until(journal.WorkerStarted)
            second = await supervisor.journal.until(
                journal.WorkerStarted, lambda fact: fact.worker_id != first.worker_id
            )
            if ends == "late":
                await supervisor.journal.until(
                    journal.WorkerExited, lambda fact: fact.worker_id == second.worker_id
                )
            (flags / "go").touch()
            # With a capacity of 1: a worker that is lost would be in the way for ever.
            response = await supervisor.invoke("f", "next", wait=10)

            assert "next" == response.payload
            is_left = response.report.worker_id == second.worker_id
            assert is_left is (ends == "ready")
            await supervisor.journal.until(
                journal.WorkerFrozen, lambda fact: fact.worker_id == response.report.worker_id
            )

    asyncio.run(main())


@pytest.mark.parametrize("breaks", [True, False], ids=["a step fails", "control"])
def test_a_start_that_fails_after_the_fork_says_so(
    function_directory: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, *, breaks: bool
) -> None:
    """The worker is killed, and not because the supervisor closed, which runs on."""
    record = journal.Journal.record

    def record_or_fail(self: journal.Journal, fact: journal.AnyFact) -> None:
        record(self, fact)
        if breaks and isinstance(fact, journal.WorkerStarted):
            raise OSError(errno.EMFILE, "Too many open files")

    async def scenario() -> None:
        monkeypatch.setattr(journal.Journal, "record", record_or_fail)
        async with miniλ.Supervisor(settings=Settings()) as supervisor:
            code = function_directory("f", app="def handler(event, context):\n    return event\n")
            await supervisor.create_function("f", code, "app.handler")
            response = await supervisor.invoke("f", 1)
            stopped = supervisor.journal.story(journal.WorkerStopped)

        if breaks:
            assert response.failure is not None
            assert response.failure.error_type == "Sandbox.Failure"
            assert response.failure.error_message.endswith("The sandbox was lost: its start failed")
        else:
            assert response.payload == 1
        assert [fact.reason for fact in stopped] == ["its start failed"] * (2 * breaks)

    asyncio.run(scenario())
