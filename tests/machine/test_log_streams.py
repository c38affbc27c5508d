"""A worker's log stream: `context.log_stream_name` is where its log is read, on every day."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

import miniλ
from miniλ import journal
from miniλ.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOURCE = """
import os

def handler(event, context):
    print("printed", event)
    assert context.log_stream_name == os.environ["AWS_LAMBDA_LOG_STREAM_NAME"]
    return [context.log_group_name, context.log_stream_name]
"""
DAY = 86400.0


@pytest.mark.parametrize("days", [[0], [0, 1], [1], [1, 0], [0, -1], [400, 401]])
@pytest.mark.parametrize("started", ["by its invocation", "ahead, for it"])
def test_the_context_names_the_stream_that_has_the_log(
    function_directory: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    started: str,
    days: list[int],
) -> None:
    """Also after midnight, of one that was idle for days, and where a clock is set back."""
    code = function_directory("named", app=SOURCE)
    now = time.time
    offset = 0.0
    monkeypatch.setattr(time, "time", lambda: now() + offset)

    async def main() -> None:
        nonlocal offset
        async with miniλ.Supervisor(settings=Settings(keep_logs=True)) as supervisor:
            await supervisor.create_function("f", code, "app.handler", timeout=60)
            await supervisor.publish_version("f")
            if started == "ahead, for it":
                await supervisor.provision("f", "1", 1)
                await supervisor.journal.until(journal.WorkerReady)
            places = set()
            for number, day in enumerate(days):
                offset = day * DAY
                response = await supervisor.invoke("f:1", number)
                group, stream = response.payload
                places.add((group, stream))
                events = await supervisor.parts.logbook.events(group, streams=[stream])

                assert f"printed {number}\n" in [event.message for event in events]
            assert 1 == len(places)
            assert [stream] == [each.name for each in await supervisor.parts.logbook.streams(group)]

    asyncio.run(main())
