"""The command line as the user nobody runs it: the same results without privileges."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from miniλ.runtimes import catalog
from tests.command import ROOT, SUBJECT, Done, check_findings, left_by

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


class Nobody:
    """The command as run by a user without privileges, from a copy that it may read."""

    def __init__(self, root: Path, program: str) -> None:
        self.root = root
        self._program = program

    def run(self, *arguments: str) -> Done:
        """Run the command to its end; nothing of it is left."""
        process = subprocess.Popen(
            [
                *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
                *(self._program, "-m", "miniλ", *arguments),
            ],
            cwd=self.root,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "PYTHONPATH": str(self.root),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(self.root / "home"),
                "TMPDIR": str(self.root / "tmp"),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            out, err = process.communicate(timeout=50)

        assert left_by(process.pid, self.root / "tmp" / f"minilambda-{NOBODY}") == []
        assert self._living() == []
        return Done(process.returncode, out.decode(), err.decode())

    def _living(self) -> list[str]:
        """Return the processes that know our directory, by their arguments or environment."""
        mark = str(self.root).encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in known:
                found.append(known.decode(errors="replace"))
        return found


@pytest.fixture(scope="module")
def nobody() -> Iterator[Nobody]:
    """Return the command as run by nobody; skipped where we cannot become nobody."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not on this machine")
    # Not tmp_path: the directories above it are root's alone.
    root = Path(tempfile.mkdtemp(prefix="minilambda-test-"))
    try:
        for directory in ("miniλ", "workers", "tests/functions"):
            shutil.copytree(
                ROOT / directory, root / directory, ignore=shutil.ignore_patterns("__pycache__")
            )
        # Its own copies of what we import: ours may be where nobody may look.
        for name in ("click", "msgspec", "psutil"):
            spec = importlib.util.find_spec(name)
            assert spec is not None and spec.submodule_search_locations
            shutil.copytree(spec.submodule_search_locations[0], root / name)
        (root / "subject").mkdir()
        (root / "subject" / "app.py").write_text(SUBJECT, encoding="utf-8")
        subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
        for name in ("home", "tmp"):
            (root / name).mkdir()
            (root / name).chmod(0o777)
        yield Nobody(root, _program_for_nobody())
    finally:
        shutil.rmtree(root)


def _program_for_nobody() -> str:
    """Return an interpreter of our version that nobody may run; skips where there is none."""
    for program in catalog.candidates(catalog.own()):
        # Also by its own idea of where it is: a link may lead to where nobody may look.
        check = "import subprocess, sys; subprocess.run([sys.executable, '-V'], check=True)"
        done = subprocess.run(
            [
                *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
                *(program, "-c", check),
            ],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
        )
        if done.returncode == 0 and done.stdout.startswith("Python 3."):
            return program
    pytest.skip(f"no {catalog.own()} on this machine that an unprivileged user may run")


def test_nobody_may_invoke(nobody: Nobody) -> None:
    """Without privileges a function runs as with them."""
    done = nobody.run("invoke", "tests/functions/hello:app.handler", "-e", '{"name": "Ada"}')

    assert 0 == done.code, done.err
    assert {"message": "Hello, Ada!"} == done.document
    assert "REPORT RequestId: " in done.err


def test_nobody_is_told_what_is_soft(nobody: Nobody) -> None:
    """Without a cgroup the memory limit is soft, and there is something to do about it."""
    findings = nobody.run("doctor", "--json").document

    check_findings(findings)
    (memory,) = (f for f in findings if f["resource"] == "memory")
    assert "soft" == memory["level"]
    assert "systemd-run --user" in memory["remedy"]
    # What is claimed without privileges has been tried as well.
    assert [f["resource"] for f in findings if f["proved"] is False] == []


@pytest.mark.parametrize(("event", "code"), [("sleep", 124), ("kill", 137), ("fail", 1)])
def test_nobody_has_the_same_exit_codes(nobody: Nobody, event: str, code: int) -> None:
    """A timeout kills, also without privileges, and nothing is left of it."""
    done = nobody.run("invoke", "subject:app.handler", "-e", f'"{event}"', "--timeout", "1")

    assert code == done.code, done.err


def test_a_handler_of_nobody_may_catch_memory_error(nobody: Nobody) -> None:
    """The rlimit gives a MemoryError before anything has to be killed."""
    done = nobody.run("invoke", "subject:app.handler", "-e", '"memory"')

    assert (0, "caught") == (done.code, done.document), done.err
