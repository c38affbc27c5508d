"""Tests of what an import brings along, each in an interpreter of its own."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import miniλ

TOP = Path(miniλ.__file__).parent.parent
FOREIGN = {"asyncio", "aiohttp", "uvloop", "msgspec", "psutil", "click"}
# The one file of the sandbox that is a program.
PROGRAM = "start"
SANDBOX = [
    f"miniλ.sandbox.{path.stem}"
    for path in sorted((TOP / "miniλ" / "sandbox").glob("*.py"))
    if path.stem not in ("__init__", PROGRAM)
]


def imported_by(statement: str) -> set[str]:
    """Return the modules that a fresh interpreter has after this statement."""
    code = (
        f"import sys; sys.path[:0] = {[str(TOP), *sys.path[1:]]!r}\n"
        "sys.dont_write_bytecode = True\n"
        f"{statement}\n"
        "import json; print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, check=True, timeout=30
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_nothing_of_it() -> None:
    """`import miniλ` costs one small file: no event loop, no dependency."""
    modules = imported_by("import miniλ")

    assert set() == (FOREIGN | {"typing"}) & modules
    assert {"miniλ"} == {name for name in modules if name.startswith("miniλ")}


def test_the_far_side_of_fork_knows_the_standard_library_only() -> None:
    """All of `miniλ.sandbox` but its program: nothing that a zygote would have to carry."""
    modules = imported_by(f"import miniλ.sandbox, {', '.join(SANDBOX)}")

    assert set() == FOREIGN & modules
    assert {"miniλ", "miniλ.sandbox", *SANDBOX} == {
        name for name in modules if name.startswith("miniλ")
    }


def test_asking_for_an_error_imports_the_errors_only() -> None:
    """A name brings its module and what that needs."""
    modules = imported_by("import miniλ; miniλ.Throttled")

    assert set() == FOREIGN & modules
    assert "miniλ.errors" in modules


@pytest.mark.parametrize("name", miniλ.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """All that `__all__` promises can be imported, and is listed."""
    assert getattr(miniλ, name) is not None
    assert name in dir(miniλ)


def test_type_checkers_see_the_names_that_python_imports() -> None:
    """The imports for type checkers, the lazy table and `__all__` have the same names."""
    tree = ast.parse(Path(miniλ.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.asname: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }

    assert {name: (where, name) for name, where in miniλ._WHERE.items()} == typed
    assert sorted(["__version__", *miniλ._WHERE]) == sorted(miniλ.__all__)


def test_a_public_name_is_the_thing_itself() -> None:
    """A name that was asked for twice is one class, that of its own module."""
    from miniλ.model import Response  # noqa: PLC0415 - the point of the test

    assert miniλ.Response is Response
    assert miniλ.Response is miniλ.Response


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    """In Python's own words, so that hasattr and typos work as everywhere."""
    with pytest.raises(AttributeError, match="module 'miniλ' has no attribute 'Superviser'"):
        _ = miniλ.Superviser
