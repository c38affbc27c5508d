"""Each program of examples/ runs, and prints what a newcomer is to see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.api.conftest import REGION, serving

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(*arguments: str, **environ: str) -> str:
    """Return what Python prints, with this checkout's package."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=50,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environ},
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_each_example_has_a_test() -> None:
    """A program of examples/ is named in this file."""
    here = Path(__file__).read_text(encoding="utf-8")

    assert [] == [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here]


@pytest.mark.parametrize("page", ["README.md", "docs/embedding.md"])
def test_the_programs_of_the_pages_run(page: str, tmp_path: Path) -> None:
    """Each block of Python is a program, run from the top of the checkout."""
    blocks = _PYTHON.findall((ROOT / page).read_text(encoding="utf-8"))
    for number, block in enumerate(blocks):
        program = tmp_path / f"block_{number}.py"
        program.write_text(block, encoding="utf-8")

        assert "\n" in run(str(program))
    assert blocks


def test_a_web_app_has_functions() -> None:
    """The FastAPI app opens with its supervisor, and a worker counts words."""
    if find_spec("fastapi") is None:
        pytest.skip("fastapi is not on this machine: the extra `test` has it")
    printed = run(str(EXAMPLES / "fastapi_app.py"))

    assert "{'to': 2, 'be': 2, 'or': 1, 'not': 1}\n" == printed


def test_a_notebook_needs_no_asyncio() -> None:
    """A cold start, a warm one, a failure as a value, a map in order."""
    printed = run(str(EXAMPLES / "notebook.py")).splitlines()

    assert "{'order': 1, 'total': 7.75} cold start" == printed[0]
    assert ["KeyError 'coal'", "[3.5, 7.0, 10.5, 14.0, 17.5]"] == printed[2:]


def test_a_fixture_tests_handlers_in_workers(tmp_path: Path) -> None:
    """The example is a test file of two tests, and both pass."""
    options = ("-p", "no:cacheprovider", "--rootdir", str(tmp_path), "-c", os.devnull)
    printed = run("-m", "pytest", "-q", *options, str(EXAMPLES / "test_handler.py"))

    assert "2 passed" in printed


def test_a_function_is_deployed_with_boto3() -> None:
    """The program for AWS works with `minilambda serve`."""
    with serving() as server:
        keys = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        region = {"AWS_DEFAULT_REGION": REGION, "AWS_ENDPOINT_URL": server.url}
        printed = run(str(EXAMPLES / "deploy.py"), **keys, **region)

    assert "version 1 answers {'order': 1, 'total': 7.75}\n" == printed


def test_records_of_events_go_on_to_a_function() -> None:
    """Both events are over, one after its retry, and both records are archived."""
    printed = run(str(EXAMPLES / "pipeline.py"))

    assert "price Success\nprice RetriesExhausted\narchived 2\n" == printed


def test_untrusted_snippets_are_held() -> None:
    """Each snippet ends by what holds it; the one that is harmless answers."""
    if " no namespaces" in _sandbox():
        pytest.skip("network='none' cannot be used here: there are no namespaces")
    printed = run(str(EXAMPLES / "untrusted.py")).splitlines()
    ends = dict(line.rsplit(": ", 1) for line in printed)

    assert "45" == ends["adds"]
    assert ends["reads a file of this host"] in ("FileNotFoundError", "PermissionError")
    assert ends["takes a gigabyte"] in ("MemoryError", "Runtime.ExitError")
    assert "Sandbox.Timedout" == ends["never returns"]
    assert ends["calls a server"] in ("ConnectionRefusedError", "OSError")
    assert "Runtime.ExitError" == ends["leaves Python"]


def _sandbox() -> str:
    code = (
        "import minilambda\n"
        "with minilambda.SyncSupervisor() as supervisor:\n"
        "    choice = supervisor._supervisor.parts.equipment.choice\n"
        "    print(choice.isolation.namespaces or ' no namespaces')\n"
    )
    return run("-c", code)
