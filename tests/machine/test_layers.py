"""Layers are what a worker finds at /opt: modules, programs, files, and none that it can change.

A layer is brought into the store and written down as PublishLayerVersion does it, and given to a
function by the control plane.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import miniλ
from miniλ import journal, model
from miniλ.errors import InvalidParameterValue
from miniλ.functions import new_revision
from miniλ.model import AttachedLayer, FunctionConfiguration
from miniλ.settings import Settings
from miniλ.store.registry import Change
from miniλ.store.resources import LAYER, LayerVersion
from tests.machine.conftest import OPEN, WALLS, at, skip_without

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from miniλ.store.packages import Package

# With "-landlock" only the mount is there to hold: the worker owns the files.
LEVELS = (*WALLS, "userns-landlock", "none")
# Those that have a mount namespace.
BOXED = ("root", "cgroup", "userns", "userns-landlock")
SITE_PACKAGES = f"python/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"

# A handler runs what a test asks for, as a function of several lines.
HANDLER = """
def handler(event, context):
    names = {}
    exec(event, names)
    return names["answer"]
"""


class Bench:
    """A supervisor at a level, with a function that runs what it is sent."""

    def __init__(self, supervisor: miniλ.Supervisor, directory: Path, level: str) -> None:
        self.supervisor = supervisor
        self.directory = directory
        self.level = level

    async def layer(self, name: str, files: dict[str, str]) -> AttachedLayer:
        """Publish a layer of texts by their paths; those in bin are programs."""
        directory = self.directory / f"layer-{name}"
        for path, text in files.items():
            file = directory / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            file.chmod(0o755 if file.parent.name == "bin" else 0o644)
        functions = self.supervisor.functions
        async with functions.changing:
            package = await functions.publish_code(directory)
            await self.supervisor.registry.write(Change(LAYER, name, "1", _version(name, package)))
        return AttachedLayer(functions.place.layer(name, 1), package.size, package.path)

    async def have(self, *layers: AttachedLayer) -> FunctionConfiguration:
        """Give the function these layers and no others."""
        return await self.supervisor.functions.update("subject", {"layers": list(layers)})

    async def ask(self, source: str) -> Any:
        """Run `source` in the function and return what it leaves as `answer`."""
        response = await self.supervisor.invoke("subject", source)
        assert response.failure is None, (response.failure, response.log)
        return response.payload


def _version(name: str, package: Package) -> LayerVersion:
    return LayerVersion(
        name=name,
        version=1,
        code_sha256=package.sha256,
        code_size=package.size,
        code_path=package.path,
        created=model.now_iso(),
    )


@pytest.fixture(params=LEVELS)
def run(
    request: pytest.FixtureRequest, tmp_path: Path, function_directory: Callable[..., Path]
) -> Callable[..., None]:
    """Return a runner of a scenario on a bench; further modules of the function are arguments."""
    chosen = request.param
    level, _, without = chosen.partition("-")
    skip_without(level)
    settings = Settings(**{"without": without, **at(level)})

    def run_at(scenario: Callable[[Bench], Awaitable[None]], **modules: str) -> None:
        async def main() -> None:
            async with miniλ.Supervisor(settings=settings) as supervisor:
                needed = "namespaces" if chosen in BOXED else chosen
                if needed in supervisor._choice.missing:
                    why = supervisor._choice.missing[needed]
                    pytest.skip(f"no {needed} on this host: {why}")
                code = function_directory("subject", app=HANDLER, **modules)
                await supervisor.create_function("subject", code, "app.handler", timeout=20)
                await scenario(Bench(supervisor, tmp_path, chosen))

                assert supervisor.journal.story(journal.Trouble) == []

        asyncio.run(main())

    return run_at


@pytest.fixture
def run_once(tmp_path: Path, function_directory: Callable[..., Path]) -> Callable[..., None]:
    """Return a runner for what does not depend on the level: no worker is asked."""

    def run_here(scenario: Callable[[Bench], Awaitable[None]]) -> None:
        async def main() -> None:
            settings = Settings(cgroup="none", without=OPEN)
            async with miniλ.Supervisor(settings=settings) as supervisor:
                code = function_directory("subject", app=HANDLER)
                await supervisor.create_function("subject", code, "app.handler")
                await scenario(Bench(supervisor, tmp_path, "none"))

        asyncio.run(main())

    return run_here


def _opt(bench: Bench, function: FunctionConfiguration) -> str:
    """Return where a worker finds its layers at this level."""
    return "/opt" if bench.level in BOXED else function.layers_path


def test_a_module_of_a_layer_is_imported(run: Callable[..., None]) -> None:
    """python/ and its site-packages are import paths, behind the function's own directory."""

    async def scenario(bench: Bench) -> None:
        files = {
            "python/greeting.py": "word = 'hello'",
            f"{SITE_PACKAGES}/deep.py": "word = 'deep'",
        }
        layer = await bench.layer("tools", files)
        function = await bench.have(layer)
        words = await bench.ask("import deep, greeting; answer = [greeting.word, deep.word]")
        paths = await bench.ask("import sys; answer = sys.path[:3]")
        place = await bench.ask("import greeting; answer = greeting.__file__")

        opt = _opt(bench, function)
        root = "/var/task" if bench.level in BOXED else function.code_path
        assert words == ["hello", "deep"]
        assert paths == [root, f"{opt}/{SITE_PACKAGES}", f"{opt}/python"]
        assert place == f"{opt}/python/greeting.py"

    run(scenario)


def test_only_directories_that_are_there_are_import_paths(run: Callable[..., None]) -> None:
    """A layer without Python costs no import anything."""

    async def scenario(bench: Bench) -> None:
        function = await bench.have(await bench.layer("data", {"data/file": "text"}))
        paths = await bench.ask("import sys; answer = sys.path")

        assert [path for path in paths if path.startswith(_opt(bench, function))] == []

    run(scenario)


def test_a_later_layer_is_over_an_earlier_one(run: Callable[..., None]) -> None:
    """Where two layers have the same file, the function sees that of the last one."""

    async def scenario(bench: Bench) -> None:
        one = await bench.layer("one", {"python/both.py": "word = 1", "python/one.py": ""})
        two = await bench.layer("two", {"python/both.py": "word = 2", "python/two.py": ""})
        await bench.have(one, two)
        forward = await bench.ask("import both, one, two; answer = both.word")
        await bench.have(two, one)
        backward = await bench.ask("import both, one, two; answer = both.word")

        assert (forward, backward) == (2, 1)

    run(scenario)


def test_the_functions_own_module_is_before_a_layers(run: Callable[..., None]) -> None:
    """A name that the function and a layer have is the function's."""

    async def scenario(bench: Bench) -> None:
        await bench.have(await bench.layer("late", {"python/mine.py": "word = 'layer'"}))
        word = await bench.ask("import mine; answer = mine.word")

        assert word == "function"

    run(scenario, mine="word = 'function'")


def test_a_layer_cannot_be_written(run: Callable[..., None]) -> None:
    """No file of a layer is changed, removed or added by a function, where there are walls.

    Without any there is nobody to say no: that shows that this test would see it.
    """

    async def scenario(bench: Bench) -> None:
        function = await bench.have(await bench.layer("data", {"data/file": "text"}))
        source = """
import os
answer = []
for attempt in (
    lambda: open(OPT + "/data/file", "a").close(),
    lambda: open(OPT + "/data/new", "x").close(),
    lambda: os.unlink(OPT + "/data/file"),
):
    try:
        attempt()
    except OSError as exc:
        answer.append("refused")
    else:
        answer.append("done")
"""
        opt = _opt(bench, function)
        text = await bench.ask(f"answer = open({opt!r} + '/data/file').read()")
        done = await bench.ask(f"OPT = {opt!r}\n{source}")

        assert text == "text"
        assert done == [("done" if bench.level == "none" else "refused")] * 3

    run(scenario)


def test_programs_and_libraries_of_a_layer_are_found(run: Callable[..., None]) -> None:
    """PATH ends with a layer's bin, and LD_LIBRARY_PATH with its lib, as on Lambda."""

    async def scenario(bench: Bench) -> None:
        layer = await bench.layer("tools", {"bin/greet": "#!/bin/sh\necho hello\n"})
        function = await bench.have(layer)
        said = await bench.ask(
            "import subprocess; answer = subprocess.check_output(['greet'], text=True)"
        )
        lists = await bench.ask(
            "import os; answer = [os.environ[n] for n in ('PATH', 'LD_LIBRARY_PATH')]"
        )

        opt = _opt(bench, function)
        assert said == "hello\n"
        assert [text.split(":")[-1] for text in lists] == [f"{opt}/bin", f"{opt}/lib"]

    run(scenario)


def test_layers_come_and_go_with_the_configuration(run: Callable[..., None]) -> None:
    """A function without layers has an empty /opt; new code keeps the layers that were there."""

    async def scenario(bench: Bench) -> None:
        look = """
import os
try:
    import tool
    answer = tool.word
except ImportError:
    answer = sorted(os.listdir("/opt")) if BOXED else []
"""
        look = f"BOXED = {bench.level in BOXED}\n{look}"
        before = await bench.ask(look)
        await bench.have(await bench.layer("tool", {"python/tool.py": "word = 'here'"}))
        during = await bench.ask(look)
        (bench.directory / "subject" / "other.py").write_text("", encoding="utf-8")
        await bench.supervisor.update_function_code("subject", bench.directory / "subject")
        renewed = await bench.ask(look)
        removed = await bench.have()
        after = await bench.ask(look)

        assert [before, during, renewed, after] == [[], "here", "here", []]
        assert removed.layers_path == ""

    run(scenario)


def test_a_function_is_created_with_its_layers(run_once: Callable[..., None]) -> None:
    """One layer is used where it is; several are brought together once."""

    async def scenario(bench: Bench) -> None:
        one = await bench.layer("one", {"a": "1"})
        two = await bench.layer("two", {"b": "2"})
        subject = bench.supervisor.get_function("subject")
        paths = []
        for name, layers in (("alone", [one]), ("both", [one, two]), ("again", [one, two])):
            draft = msgspec.structs.replace(
                subject, name=name, revision=new_revision(), layers=layers
            )
            made = await bench.supervisor.functions.create(draft, bench.directory / "subject")
            paths.append(made.layers_path)

        assert paths[0] == one.path
        assert paths[1] not in (one.path, two.path)
        assert paths[1] == paths[2]

    run_once(scenario)


def test_code_and_layers_have_one_limit(run_once: Callable[..., None]) -> None:
    """Unzipped, all of it together is at most 262,144,000 bytes, however it comes to be more."""

    async def scenario(bench: Bench) -> None:
        large = bench.directory / "large"
        large.mkdir()
        code = (bench.directory / "subject" / "app.py").stat().st_size
        with (large / "file").open("wb") as file:
            file.truncate(262_144_000 - code)
        layer = AttachedLayer(bench.supervisor.functions.place.layer("large", 1), 1, str(large))
        exact = await bench.have(layer)
        (bench.directory / "subject" / "app.py").write_text(HANDLER + "#", encoding="utf-8")
        with pytest.raises(InvalidParameterValue) as more_code:
            await bench.supervisor.update_function_code("subject", bench.directory / "subject")
        await bench.have()
        await bench.supervisor.update_function_code("subject", bench.directory / "subject")
        with pytest.raises(InvalidParameterValue) as more_layers:
            await bench.have(layer)

        assert exact.layers_path == str(large)
        expected = (
            "Function code combined with layers exceeds the maximum allowed size of 262144000 "
            "bytes. The actual size is 262144001 bytes."
        )
        assert str(more_code.value) == expected
        assert str(more_layers.value) == expected
        assert bench.supervisor.get_function("subject").layers == []

    run_once(scenario)


def test_a_layer_that_went_meanwhile_is_refused(run_once: Callable[..., None]) -> None:
    """Between the look-up of a layer and the change its content may be deleted: nothing changes."""

    async def scenario(bench: Bench) -> None:
        arn = bench.supervisor.functions.place.layer("gone", 1)
        before = bench.supervisor.get_function("subject")
        with pytest.raises(InvalidParameterValue, match=f"Layer version {arn} does not exist."):
            await bench.have(AttachedLayer(arn, 1, str(bench.directory / "gone")))

        assert bench.supervisor.get_function("subject") == before

    run_once(scenario)
