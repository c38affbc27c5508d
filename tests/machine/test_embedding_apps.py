"""Apps that embed: their functions in workers, their signals, children and other supervisors."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from tests.machine.test_embedding import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("uvloop_has_its_pipe")

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


@pytest.mark.parametrize(("option", "place"), [("-", "<stdin>"), ("-c", "<string>")])
def test_a_decorated_function_without_a_file_is_refused(
    option: str, place: str, tmp_path: Path
) -> None:
    """A worker cannot import it: the message has where it is defined."""
    program = (
        "import miniλ\n"
        "supervisor = miniλ.SyncSupervisor()\n"
        "@supervisor.function()\n"
        "def double(event, context): return 2 * event\n"
        "try:\n"
        "    with supervisor: pass\n"
        "except miniλ.InvalidParameterValue as exc: print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, option, *([program] if option == "-c" else [])],
        input=program,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    expected = f"double is defined in {place}: a decorated function must be in a module file\n"
    assert (0, expected, "") == (done.returncode, done.stdout, done.stderr)


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
    """Its handlers stay; it reaps its own child with its exit code, and no child of ours."""
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
