"""Layers are mounted at /opt of a worker: modules, programs and files that it cannot change.

A layer is published into store and registry as PublishLayerVersion does it, and the control plane
gives it to a function.
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
from tests.machine.conftest import OPEN, SANDBOX_LEVELS, at, skip_without

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from miniλ.store.packages import Package

# With "-landlock" only the read-only mount protects the files: the worker owns them.
LEVELS = (*SANDBOX_LEVELS, "userns-landlock", "none")
# The levels with a mount namespace.
NAMESPACED = ("root", "cgroup", "userns", "userns-landlock")
SITE_PACKAGES = f"python/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"

# A handler that runs the source in its event.
HANDLER = """
def handler(event, context):
    names = {}
    exec(event, names)
    return names["answer"]
"""


class Bench:
    """A supervisor at a level, with a function that runs the source in its event."""

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
            layer = Change(LAYER, name, "1", _version(name, package))
            await self.supervisor.parts.registry.write(layer)
        return AttachedLayer(functions.place.layer(name, 1), package.size, package.path)

    async def attach(self, *layers: AttachedLayer) -> FunctionConfiguration:
        """Give the function these layers and no others."""
        return await self.supervisor.functions.update("subject", {"layers": list(layers)})

    async def run(self, source: str) -> Any:
        """Run `source` in the function and return its `answer`."""
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
                needed = "namespaces" if chosen in NAMESPACED else chosen
                if needed in supervisor.parts.equipment.choice.missing:
                    why = supervisor.parts.equipment.choice.missing[needed]
                    pytest.skip(f"no {needed} on this host: {why}")
                code = function_directory("subject", app=HANDLER, **modules)
                await supervisor.create_function("subject", code, "app.handler", timeout=20)
                await scenario(Bench(supervisor, tmp_path, chosen))

                assert supervisor.journal.story(journal.Trouble) == []

        asyncio.run(main())

    return run_at


@pytest.fixture
def run_once(tmp_path: Path, function_directory: Callable[..., Path]) -> Callable[..., None]:
    """Return a runner of a scenario that starts no worker, so the level does not matter."""

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
    """Return the path of a worker's layers at this level."""
    return "/opt" if bench.level in NAMESPACED else function.layers_path


def test_a_module_of_a_layer_is_imported(run: Callable[..., None]) -> None:
    """python/ and its site-packages are import paths, behind the function's own directory."""

    async def scenario(bench: Bench) -> None:
        files = {
            "python/greeting.py": "word = 'hello'",
            f"{SITE_PACKAGES}/deep.py": "word = 'deep'",
        }
        layer = await bench.layer("tools", files)
        function = await bench.attach(layer)
        words = await bench.run("import deep, greeting; answer = [greeting.word, deep.word]")
        paths = await bench.run("import sys; answer = sys.path[:3]")
        place = await bench.run("import greeting; answer = greeting.__file__")

        opt = _opt(bench, function)
        root = "/var/task" if bench.level in NAMESPACED else function.code_path
        assert words == ["hello", "deep"]
        assert paths == [root, f"{opt}/{SITE_PACKAGES}", f"{opt}/python"]
        assert place == f"{opt}/python/greeting.py"

    run(scenario)


def test_a_layer_without_python_adds_no_import_path(run: Callable[..., None]) -> None:
    """A path of a directory that does not exist would slow down every import."""

    async def scenario(bench: Bench) -> None:
        function = await bench.attach(await bench.layer("data", {"data/file": "text"}))
        paths = await bench.run("import sys; answer = sys.path")

        assert [path for path in paths if path.startswith(_opt(bench, function))] == []

    run(scenario)


def test_a_later_layer_is_over_an_earlier_one(run: Callable[..., None]) -> None:
    """If two layers have the same file, the function sees that of the last layer."""

    async def scenario(bench: Bench) -> None:
        one = await bench.layer("one", {"python/both.py": "word = 1", "python/one.py": ""})
        two = await bench.layer("two", {"python/both.py": "word = 2", "python/two.py": ""})
        await bench.attach(one, two)
        forward = await bench.run("import both, one, two; answer = both.word")
        await bench.attach(two, one)
        backward = await bench.run("import both, one, two; answer = both.word")

        assert (forward, backward) == (2, 1)

    run(scenario)


def test_the_functions_own_module_is_before_a_layers(run: Callable[..., None]) -> None:
    """A name that the function and a layer have is the function's."""

    async def scenario(bench: Bench) -> None:
        await bench.attach(await bench.layer("late", {"python/mine.py": "word = 'layer'"}))
        word = await bench.run("import mine; answer = mine.word")

        assert word == "function"

    run(scenario, mine="word = 'function'")


def test_a_layer_cannot_be_written(run: Callable[..., None]) -> None:
    """A function changes, removes or adds no file of a layer.

    The control is level "none", without a sandbox: there each attempt succeeds.
    """

    async def scenario(bench: Bench) -> None:
        function = await bench.attach(await bench.layer("data", {"data/file": "text"}))
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
        text = await bench.run(f"answer = open({opt!r} + '/data/file').read()")
        outcomes = await bench.run(f"OPT = {opt!r}\n{source}")

        assert text == "text"
        assert outcomes == [("done" if bench.level == "none" else "refused")] * 3

    run(scenario)


def test_programs_and_libraries_of_a_layer_are_found(run: Callable[..., None]) -> None:
    """PATH ends with a layer's bin, and LD_LIBRARY_PATH with its lib, as on Lambda."""

    async def scenario(bench: Bench) -> None:
        layer = await bench.layer("tools", {"bin/greet": "#!/bin/sh\necho hello\n"})
        function = await bench.attach(layer)
        output = await bench.run(
            "import subprocess; answer = subprocess.check_output(['greet'], text=True)"
        )
        lists = await bench.run(
            "import os; answer = [os.environ[n] for n in ('PATH', 'LD_LIBRARY_PATH')]"
        )

        opt = _opt(bench, function)
        assert output == "hello\n"
        assert [text.split(":")[-1] for text in lists] == [f"{opt}/bin", f"{opt}/lib"]

    run(scenario)


def test_layers_come_and_go_with_the_configuration(run: Callable[..., None]) -> None:
    """A function without layers has an empty /opt; new code keeps the layers that were there."""

    async def scenario(bench: Bench) -> None:
        source = """
import os
try:
    import tool
    answer = tool.word
except ImportError:
    answer = sorted(os.listdir("/opt")) if NAMESPACED else []
"""
        source = f"NAMESPACED = {bench.level in NAMESPACED}\n{source}"
        before = await bench.run(source)
        await bench.attach(await bench.layer("tool", {"python/tool.py": "word = 'here'"}))
        during = await bench.run(source)
        (bench.directory / "subject" / "other.py").write_text("", encoding="utf-8")
        await bench.supervisor.update_function_code("subject", bench.directory / "subject")
        renewed = await bench.run(source)
        without_layers = await bench.attach()
        after = await bench.run(source)

        assert [before, during, renewed, after] == [[], "here", "here", []]
        assert without_layers.layers_path == ""

    run(scenario)


def test_a_function_is_created_with_its_layers(run_once: Callable[..., None]) -> None:
    """One layer is used in place; several are merged once."""

    async def scenario(bench: Bench) -> None:
        one = await bench.layer("one", {"a": "1"})
        two = await bench.layer("two", {"b": "2"})
        subject = bench.supervisor.get_function("subject")
        paths = []
        for name, layers in (("alone", [one]), ("both", [one, two]), ("again", [one, two])):
            draft = msgspec.structs.replace(
                subject, name=name, revision=new_revision(), layers=layers
            )
            created = await bench.supervisor.functions.create(draft, bench.directory / "subject")
            paths.append(created.layers_path)

        assert paths[0] == one.path
        assert paths[1] not in (one.path, two.path)
        assert paths[1] == paths[2]

    run_once(scenario)


def test_code_and_layers_have_one_limit(run_once: Callable[..., None]) -> None:
    """Unzipped, both together are at most 262,144,000 bytes, on each way to change them."""

    async def scenario(bench: Bench) -> None:
        large = bench.directory / "large"
        large.mkdir()
        code = (bench.directory / "subject" / "app.py").stat().st_size
        with (large / "file").open("wb") as file:
            file.truncate(262_144_000 - code)
        layer = AttachedLayer(bench.supervisor.functions.place.layer("large", 1), 1, str(large))
        exact = await bench.attach(layer)
        (bench.directory / "subject" / "app.py").write_text(HANDLER + "#", encoding="utf-8")
        with pytest.raises(InvalidParameterValue) as more_code:
            await bench.supervisor.update_function_code("subject", bench.directory / "subject")
        await bench.attach()
        await bench.supervisor.update_function_code("subject", bench.directory / "subject")
        with pytest.raises(InvalidParameterValue) as more_layers:
            await bench.attach(layer)

        assert exact.layers_path == str(large)
        expected = (
            "Function code combined with layers exceeds the maximum allowed size of 262144000 "
            "bytes. The actual size is 262144001 bytes."
        )
        assert str(more_code.value) == expected
        assert str(more_layers.value) == expected
        assert bench.supervisor.get_function("subject").layers == []

    run_once(scenario)


def test_a_layer_that_is_deleted_meanwhile_is_refused(run_once: Callable[..., None]) -> None:
    """Its content may go between its look-up and the change: the function stays as it was."""

    async def scenario(bench: Bench) -> None:
        arn = bench.supervisor.functions.place.layer("gone", 1)
        before = bench.supervisor.get_function("subject")
        with pytest.raises(InvalidParameterValue, match=f"Layer version {arn} does not exist."):
            await bench.attach(AttachedLayer(arn, 1, str(bench.directory / "gone")))

        assert bench.supervisor.get_function("subject") == before

    run_once(scenario)
