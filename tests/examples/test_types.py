"""The Python of the README, of docs/ and of examples/ is right for type checkers, as in an editor.

The checkers are in the extra `check`, not in `test`: `.ci/run` runs this file once more with both.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Tests on this page have no annotations, as most people's tests; their bodies are checked.
UNANNOTATED = "testing.md"
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What an editor's user may write, and must be warned of.
WRONG = """
import minilambda
import miniλ

minilambda.Superviser()
miniλ.Superviser()
minilambda.SyncSupervisor(state=3)
miniλ.Settings(memory_reserve="much")
"""


@pytest.fixture
def programs(tmp_path: Path) -> list[Path]:
    """Return the programs to check: the blocks of the pages, each a file, and the examples."""
    files = sorted((ROOT / "examples").glob("*.py"))
    if find_spec("fastapi") is None:
        files.remove(ROOT / "examples" / "fastapi_app.py")
    for page in PAGES:
        for number, block in enumerate(_PYTHON.findall(page.read_text(encoding="utf-8"))):
            file = tmp_path / f"{page.stem.replace('-', '_').lower()}_{number}.py"
            allowed = "# mypy: allow-untyped-defs\n" if page.name == UNANNOTATED else ""
            file.write_text(allowed + block, encoding="utf-8")
            files.append(file)
    return files


def need(checker: str) -> None:
    """Skip if a type checker is not installed."""
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not on this machine: the extra `check` has it")


def mypy(*programs: Path) -> list[str]:
    """Return what mypy --strict complains of."""
    need("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    done = subprocess.run(
        [*command, "--config-file", os.devnull, *map(str, programs)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        cwd=programs[0].parent,
        env={**os.environ, "MYPYPATH": str(ROOT)},
    )
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if ": error: " in line]


def pyright(directory: Path, *programs: Path) -> list[str]:
    """Return what pyright complains of."""
    need("pyright")
    config = directory / "pyrightconfig.json"
    settings = {"include": [str(each) for each in programs], "extraPaths": [str(ROOT)]}
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = ["--outputjson", "--pythonpath", sys.executable, "--project", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "pyright", *command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    try:
        diagnostics = json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:
        pytest.skip(f"pyright cannot be used here: {done.stderr.strip()[-200:]}")
    return [
        f"{each['file']}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in diagnostics
        if each["severity"] == "error"
    ]


@pytest.mark.timeout(300)
def test_programs_are_right_for_mypy(programs: list[Path]) -> None:
    """`mypy --strict` has nothing to say of what people copy."""
    assert [] == mypy(*programs)


@pytest.mark.timeout(300)
def test_programs_are_right_for_pyright(programs: list[Path], tmp_path: Path) -> None:
    """Nor has pyright, which is what most editors show."""
    assert [] == pyright(tmp_path, *programs)


@pytest.mark.timeout(300)
def test_a_mistake_is_shown(tmp_path: Path) -> None:
    """Names that are not there and arguments of a wrong type are errors, by both names."""
    file = tmp_path / "wrong.py"
    file.write_text(WRONG, encoding="utf-8")

    assert ["5", "6", "7", "8"] == sorted({line.split(":")[1] for line in mypy(file)})


@pytest.mark.timeout(300)
def test_a_mistake_is_shown_in_an_editor(tmp_path: Path) -> None:
    """The same for pyright."""
    file = tmp_path / "wrong.py"
    file.write_text(WRONG, encoding="utf-8")

    assert ["5", "6", "7", "8"] == sorted({each.split(":")[1] for each in pyright(tmp_path, file)})
