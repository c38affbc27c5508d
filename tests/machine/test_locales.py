"""Under a Latin-1 locale, where the name of the package cannot be encoded, functions run.

`import minilambda` finds the package by the bytes of its name, and what goes to the probe, to the
zygote and to workers, which are UTF-8, goes as the right bytes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELLO = f"{ROOT}/tests/functions/hello:app.handler"
LATIN_1 = "en_US.ISO-8859-1"
# An app whose function says what it has been given, and which package it imports.
APP = """
import asyncio, minilambda
supervisor = minilambda.Supervisor()
@supervisor.function()
def double(event, context):
    import minilambda as here
    return [2 * event, ascii(here.__name__)]
async def main():
    async with supervisor:
        try:
            print((await double.invoke(21)).payload)
        except minilambda.InvalidParameterValue as exc:
            print(exc)
if __name__ == "__main__":
    asyncio.run(main())
"""


def run(
    *arguments: str | bytes, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run Python from another directory than the checkout's, with the whole sandbox."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    others = {"PYTHONPATH": path, "MINILAMBDA_WITHOUT": "", **(environ or {})}
    return subprocess.run(
        [os.fsencode(sys.executable), *arguments],
        capture_output=True,
        check=False,
        timeout=50,
        cwd="/",
        env={**os.environ, **others},
    )


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a Latin-1 locale, which localedef makes in a directory."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not on PATH")
    directory = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(directory / LATIN_1)],
        capture_output=True,
        check=False,
        timeout=50,
    )
    if not (directory / LATIN_1).is_dir():
        pytest.skip(f"a Latin-1 locale cannot be used here: {made.stderr.decode().strip()}")
    environ = {"LOCPATH": str(directory), "LC_ALL": LATIN_1, "PYTHONUTF8": "0"}
    done = run("-c", "import sys; print(sys.getfilesystemencoding())", environ=environ)
    assert b"iso8859-1" == done.stdout.strip()
    return environ


def test_the_package_is_found(latin_1: dict[str, str]) -> None:
    """`import minilambda` first; from then on `import miniλ` works too, and is the same."""
    code = "import minilambda\nimport miniλ, miniλ.errors\nassert minilambda is miniλ\n"
    # A program on the command line is read in the locale's encoding: only ASCII of it.
    done = run("-c", f"exec({code!a})", environ=latin_1)

    assert (0, b"") == (done.returncode, done.stderr)


@pytest.mark.parametrize("sandbox", ["auto", "landlock", "bare"])
def test_functions_run(latin_1: dict[str, str], sandbox: str) -> None:
    """The probe, the zygote and the worker find their programs, at each level."""
    command = ("-m", "minilambda", "invoke", HELLO, "-e", '{"name": "Ada"}', "--sandbox", sandbox)
    done = run(*command, environ=latin_1)

    assert b'{"message": "Hello, Ada!"}\n' == done.stdout, done.stderr
    assert b"Init Duration" in done.stderr


@pytest.mark.parametrize("sandbox", ["auto", "bare"])
def test_an_app_runs_its_functions(latin_1: dict[str, str], tmp_path: Path, sandbox: str) -> None:
    """A decorated function is imported again by its worker, from a directory that is not ASCII."""
    directory = tmp_path / "café"
    directory.mkdir()
    app = directory / "app.py"
    app.write_text(APP)
    done = run(str(app), environ={"MINILAMBDA_SANDBOX": sandbox, **latin_1})

    assert repr([42, ascii("miniλ")]).encode() == done.stdout.strip(), done.stderr


def test_a_path_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """JSON cannot take its bytes to a worker: an error that names the path, and no hang."""
    directory = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(directory)
    with open(directory + b"/app.py", "w", encoding="utf-8") as file:
        file.write(APP)
    done = run(directory + b"/app.py")

    assert done.stdout.startswith(b"A path that workers use must be UTF-8, got b'"), done.stderr
    assert b"caf\\xe9" in done.stdout


# Invokes again and again, and says how many descriptors it has meanwhile.
REFUSED = """
import asyncio, os, minilambda
supervisor = minilambda.Supervisor()
@supervisor.function()
def double(event, context):
    return 2 * event
async def main():
    async with supervisor:
        counts = set()
        for _ in range(4):
            try:
                await double.invoke(21)
            except minilambda.InvalidParameterValue:
                counts.add(len(os.listdir("/proc/self/fd")))
        print(len(counts))
if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("sandbox", ["auto", "bare"])
def test_a_refused_path_leaves_no_descriptor(tmp_path: Path, sandbox: str) -> None:
    """Each invocation has as many as the one before: its pipes are closed, or were never made."""
    directory = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(directory)
    with open(directory + b"/app.py", "w", encoding="utf-8") as file:
        file.write(REFUSED)
    done = run(directory + b"/app.py", environ={"MINILAMBDA_SANDBOX": sandbox})

    assert b"1\n" == done.stdout, done.stderr


def test_a_state_that_is_not_utf_8_leaves_no_descriptor(tmp_path: Path) -> None:
    """A zygote cannot start below it: an error at each creation, and nothing more."""
    directory = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(directory)
    program = f"""
import asyncio, os, minilambda
os.environ["TMPDIR"] = os.fsdecode({directory!r})
async def main():
    async with minilambda.Supervisor() as supervisor:
        counts, errors = set(), 0
        for _ in range(4):
            try:
                await supervisor.create_function("f", "{ROOT}/tests/functions/hello", "app.handler")
            except minilambda.InvalidParameterValue:
                errors += 1
            counts.add(len(os.listdir("/proc/self/fd")))
        print(errors, len(counts))
asyncio.run(main())
"""
    done = run("-c", program)

    assert b"4 1\n" == done.stdout, done.stderr
