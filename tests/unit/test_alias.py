"""Tests of `minilambda`, the name of `miniλ` that every keyboard has: one package, not two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Imports, in any order, after which each module must be there once.
STATEMENTS = [
    "import minilambda",
    "import miniλ",
    "import minilambda.errors",
    "import miniλ.errors",
    "from minilambda.settings import Settings",
    "from miniλ.settings import Settings",
    "from minilambda.gateway.http import keys",
    "from minilambda import journal, Response",
]
CHECK = """
import sys
import minilambda, miniλ
import minilambda.errors, minilambda.settings, minilambda.journal
import miniλ.errors, miniλ.settings, miniλ.journal
assert minilambda is miniλ
assert minilambda.errors is miniλ.errors
assert minilambda.settings.Settings is miniλ.Settings
assert minilambda.Response is miniλ.Response
for name, module in list(sys.modules.items()):
    top, dot, rest = name.partition(".")
    if top in ("minilambda", "miniλ"):
        assert module is sys.modules["miniλ" + dot + rest], name
        assert module.__name__ == module.__spec__.name == "miniλ" + dot + rest, name
modules = {id(module): module for module in sys.modules.values()}.values()
files = [getattr(module, "__file__", None) for module in modules]
ours = [file for file in files if file and "/mini" in file and file.endswith(".py")]
assert len(ours) == len(set(ours)), ours
"""


def run(code: str) -> str:
    """Return what a program prints to stdout, in an interpreter of its own."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=50,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.mark.parametrize("first", STATEMENTS)
def test_there_is_one_package_of_two_names(first: str) -> None:
    """Whichever name is imported first, there is one module and one class of each."""
    run(first + CHECK)


def test_importing_it_imports_nothing_else() -> None:
    """`import minilambda` is as lazy as `import miniλ`."""
    printed = run(
        "import minilambda, sys; print(*(n for n in sys.modules if n.startswith('mini')))"
    )

    assert {"minilambda", "miniλ"} == set(printed.split())


def test_a_module_that_is_not_there_is_an_import_error() -> None:
    """The message has the module's real name."""
    code = (
        "try:\n    import minilambda.nothing\n"
        "except ModuleNotFoundError as exc:\n    print(ascii(exc.name))"
    )

    assert ascii("miniλ.nothing") == run(code).strip()


def test_it_runs_as_a_module() -> None:
    """`python -m minilambda` is the command line, and calls itself so."""
    done = subprocess.run(
        [sys.executable, "-m", "minilambda", "--help"],
        capture_output=True,
        check=True,
        timeout=50,
        cwd=ROOT,
    )

    assert done.stdout.startswith(b"Usage: python -m minilambda ")


def test_stubs_are_of_modules_that_exist() -> None:
    """Type checkers do not run the alias: a stub has all names of its module, which is there."""
    stubs = [path for path in (ROOT / "minilambda").rglob("*.pyi") if path.stem != "__init__"]
    for stub in stubs:
        module = stub.relative_to(ROOT / "minilambda").with_suffix("")
        text = f"from miniλ.{'.'.join(module.parts)} import *\n"

        assert text == stub.read_text(encoding="utf-8")
        assert (ROOT / "miniλ" / module).with_suffix(".py").exists()
    assert stubs
