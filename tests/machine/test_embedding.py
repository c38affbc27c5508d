"""The embedded API: what it does, what it refuses and how, what it takes from its app: nothing."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from miniλ import journal, model, sync
from miniλ.runtimes import catalog
from miniλ.store import registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeAlias

    Attempt: TypeAlias = Callable[[miniλ.Supervisor, Path], Awaitable[object]]

ROOT = Path(__file__).resolve().parents[2]
ARN = "arn:aws:lambda:us-east-1:000000000000:function:"

ECHO = """
import os

def handler(event, context):
    if event == "fail":
        raise ValueError("no")
    if event == "stage":
        return os.environ.get("STAGE")
    return event
"""


@pytest.fixture(scope="module", autouse=True)
def _uvloop_has_its_pipe() -> None:
    """The first uvloop of a process makes a pipe for signals that stays: no leak of ours."""
    with asyncio.Runner(loop_factory=sync.new_loop) as runner:
        runner.run(asyncio.sleep(0))


@pytest.fixture
def echo(function_directory: Callable[..., Path]) -> Path:
    """Return the code of a function that returns its event."""
    return function_directory("echo", app=ECHO)


@pytest.fixture(params=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a maker of event loops: an app brings asyncio's or uvloop's."""
    if request.param == "asyncio":
        return asyncio.new_event_loop
    uvloop = pytest.importorskip("uvloop", reason="uvloop is not on this machine")
    maker: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return maker


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


# What they refuse


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
        ["echo/gone", "directory", ".zip"],
    ),
    "missing new code": (
        lambda supervisor, code: supervisor.update_function_code("echo", code / "gone"),
        miniλ.InvalidParameterValue,
        ["echo/gone", "directory", ".zip"],
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
    attempt, kind, said = REFUSED[case]

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            before = supervisor.list_functions()
            with pytest.raises(miniλ.LambdaError) as caught:
                await attempt(supervisor, echo)

            assert kind is type(caught.value)
            assert caught.value.code == f"{kind.__name__}Exception"
            missing = [text for text in said if text not in str(caught.value)]
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
    """The error holds the path and the way out; the way out works; nobody else notices."""

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
            with pytest.raises(miniλ.SupervisorClosed, match="async with"):
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
    """Who gives up while a supervisor opens leaves no directory, thread or descriptor behind."""

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


# Functions of the app

APP = """
import asyncio, json, os, sys
import miniλ

supervisor = miniλ.Supervisor()


@supervisor.function(memory_size=256, environment={"STAGE": "test"})
def thumbnail(event, context):
    "Make something smaller."
    return {
        "event": event,
        "pid": os.getpid(),
        "stage": os.environ.get("STAGE"),
        "memory": context and context.memory_limit_in_mb,
        "main": __name__,
    }


async def main():
    async with supervisor:
        answers = [
            (await thumbnail.invoke({"n": 1})).payload,
            (await supervisor.invoke("thumbnail", {"n": 2})).payload,
        ]
        functions = [function.name for function in supervisor.list_functions()]
    plain = thumbnail({"n": 3}, None)
    print(json.dumps([answers, plain, functions, os.getpid(), thumbnail.__doc__]))


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop
        factory = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
"""


def _python(*arguments: str, cwd: Path, timeout: float = 30) -> Any:
    """Run a program of an app to its end; return the JSON that it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert "" == done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("start", ["script", "script elsewhere", "module", "package"])
def test_a_decorated_function_runs_in_workers(start: str, loop: str, tmp_path: Path) -> None:
    """`invoke` runs it in a worker, a call in the app, however the app was started."""
    if loop == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop is not on this machine")
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    for path in (tmp_path / "app.py", package / "mod.py", package / "__main__.py"):
        path.write_text(APP, encoding="utf-8")
    arguments, cwd, module = {
        "script": (["app.py"], tmp_path, "app"),
        "script elsewhere": ([str(tmp_path / "app.py")], package, "app"),
        "module": (["-m", "pkg.mod"], tmp_path, "pkg.mod"),
        "package": (["-m", "pkg"], tmp_path, "pkg.__main__"),
    }[start]
    answers, plain, functions, pid, doc = _python(*arguments, loop, cwd=cwd)

    assert [{"n": 1}, {"n": 2}] == [answer["event"] for answer in answers]
    assert all(answer["pid"] != pid for answer in answers)
    assert all(answer["stage"] == "test" for answer in answers)
    assert ["256", "256"] == [str(answer["memory"]) for answer in answers]
    assert [module, module] == [answer["main"] for answer in answers]
    assert {"event": {"n": 3}, "pid": pid, "stage": None, "memory": None, "main": "__main__"} == (
        plain
    )
    assert ["thumbnail"] == functions
    assert "Make something smaller." == doc


def module_level(event: object, _context: object) -> object:
    """Return the event: a function of this very module, for the test below."""
    return event


def test_only_what_a_worker_can_import_is_decorated() -> None:
    """Nested functions, methods and bad names are refused where they are decorated."""
    supervisor = miniλ.Supervisor()

    def nested(event: object, _context: object) -> object:
        return event

    with pytest.raises(miniλ.InvalidParameterValue, match=r"nested.* top of its module"):
        supervisor.function()(nested)
    with pytest.raises(miniλ.InvalidParameterValue, match=r"works.* top of its module"):
        supervisor.function()(_Methods.works)
    with pytest.raises(miniλ.InvalidParameterValue, match="'two words'"):
        supervisor.function("two words")(module_level)
    with pytest.raises(miniλ.InvalidParameterValue, match="parentheses"):
        supervisor.function(module_level)  # type: ignore[arg-type]
    with pytest.raises(miniλ.InvalidParameterValue, match="handler"):
        supervisor.function(handler="app.handler")
    decorated = supervisor.function("fine")(module_level)

    assert "<Function fine>" == repr(decorated)
    assert 1 == decorated(1, None)


class _Methods:
    def works(self, event: object) -> object:
        return event


def test_bad_options_of_a_decorated_function_leave_nothing() -> None:
    """The supervisor does not open, says why, and has taken nothing."""
    supervisor = miniλ.Supervisor()
    supervisor.function(memory_size=64)(module_level)
    with pytest.raises(miniλ.InvalidParameterValue, match="64"):
        asyncio.run(supervisor.__aenter__())

    assert "<Supervisor closed>" == repr(supervisor)


# Beside others


def test_two_supervisors_in_one_process_do_not_know_each_other(echo: Path) -> None:
    """Same names, different functions; closing one leaves the other's workers alone."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as outer:
            async with miniλ.Supervisor() as inner:
                for supervisor, stage in ((outer, "outer"), (inner, "inner")):
                    await supervisor.create_function(
                        "echo", echo, "app.handler", environment={"STAGE": stage}
                    )
                pairs = [
                    await asyncio.gather(*(s.invoke("echo", "stage") for s in (outer, inner)))
                    for _ in range(5)
                ]
                assert [["outer", "inner"]] * 5 == [[r.payload for r in pair] for pair in pairs]
            after = await outer.invoke("echo", "stage")

            assert "outer" == after.payload
            assert pairs[0][0].report.worker_id == after.report.worker_id

    asyncio.run(scenario())


SIGNALS = (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)


def test_the_signals_and_children_of_the_app_stay_its_own(
    echo: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Its handlers stay; it reaps its own child with its exit code, and nobody else's."""
    heard: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    reaped = []

    def reap(number: int, _frame: object) -> None:
        heard.append(number)

    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in SIGNALS]

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            assert [reap] * 3 == handlers()
            await supervisor.create_function("echo", echo, "app.handler")
            child = subprocess.Popen(  # noqa: ASYNC220 - as an app may do it
                [sys.executable, "-c", "raise SystemExit(7)"]
            )
            assert 1 == (await supervisor.invoke("echo", 1)).payload
            reaped.append(await asyncio.to_thread(child.wait))
            os.kill(os.getpid(), signal.SIGTERM)
            assert 2 == (await supervisor.invoke("echo", 2)).payload
            assert [reap] * 3 == handlers()

    try:
        for number in SIGNALS:
            signal.signal(number, reap)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(scenario())
        assert [reap] * 3 == handlers()
    finally:
        for number in SIGNALS:
            signal.signal(number, before[number])

    assert [7] == reaped
    assert signal.SIGCHLD in heard
    assert signal.SIGTERM in heard
    assert signal.SIGINT not in heard


def test_an_app_may_ignore_its_children(echo: Path) -> None:
    """With SIGCHLD ignored the kernel reaps the zygote: nothing waits for it in vain."""

    async def scenario() -> None:
        async with miniλ.Supervisor() as supervisor:
            await supervisor.create_function("echo", echo, "app.handler")
            assert 1 == (await supervisor.invoke("echo", 1)).payload

    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        asyncio.run(scenario())
    finally:
        signal.signal(signal.SIGCHLD, before)


FORKING = """
import asyncio, json, multiprocessing, os, sys, time, warnings
import miniλ


def child(pipe):
    pipe.send(os.getpid())
    pipe.recv()


async def main(context, code):
    answers = []
    async with miniλ.Supervisor() as supervisor:
        await supervisor.create_function("echo", code, "app.handler")
        answers.append((await supervisor.invoke("echo", 1)).payload)
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(theirs,))
        process.start()
        answers.append(await asyncio.to_thread(ours.recv) == process.pid)
        answers.append((await supervisor.invoke("echo", 2)).payload)
        ours.send("go")
        await asyncio.to_thread(process.join)
        answers.append(process.exitcode)
        answers.append((await supervisor.invoke("echo", 3)).payload)
        await supervisor.update_function_configuration("echo", timeout=5)
        answers.append((await supervisor.invoke("echo", 4)).payload)
    print(json.dumps(answers))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Python's, of threads and fork
    asyncio.run(main(multiprocessing.get_context(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_an_app_may_have_forked_children(method: str, echo: Path, tmp_path: Path) -> None:
    """A child process of the app, forked or spawned meanwhile, disturbs nothing."""
    (tmp_path / "app.py").write_text(FORKING, encoding="utf-8")

    assert [1, True, 2, 0, 3, 4] == _python("app.py", method, str(echo), cwd=tmp_path)


# The synchronous face


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

            # Another process's ledger tells nobody: this is the one place that looks.
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
