"""The command line run by the user `nobody`: the same results without privileges."""

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
from tests.command import ROOT, SUBJECT, Done, check_report, left_by

if TYPE_CHECKING:
    from collections.abc import Iterator

NOBODY = 65534


class Unprivileged:
    """The command run by a user without privileges, from a copy that this user can read."""

    def __init__(self, root: Path, program: str) -> None:
        self.root = root
        self._program = program

    def run(self, *arguments: str) -> Done:
        """Run the command to its end; check that it left no state and no process."""
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
        """Return the processes that have our directory in their arguments or environment."""
        mark = str(self.root).encode()
        living = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                known = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in known:
                living.append(known.decode(errors="replace"))
        return living


@pytest.fixture(scope="module")
def nobody() -> Iterator[Unprivileged]:
    """Return the command run by `nobody`; skips unless we are root and have setpriv."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not on this machine")
    # Not tmp_path: only root can enter the directories above it.
    root = Path(tempfile.mkdtemp(prefix="minilambda-test-"))
    try:
        for directory in ("miniλ", "workers", "tests/functions"):
            shutil.copytree(
                ROOT / directory, root / directory, ignore=shutil.ignore_patterns("__pycache__")
            )
        # Copies of our dependencies: the originals may be below a directory of root's.
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
        yield Unprivileged(root, _program_for_nobody())
    finally:
        shutil.rmtree(root)


def _program_for_nobody() -> str:
    """Return an interpreter of our version that `nobody` can run; skips if there is none."""
    for program in catalog.candidates(catalog.own()):
        # Also by sys.executable: a link may lead into a directory of root's.
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


def test_an_unprivileged_user_invokes(nobody: Unprivileged) -> None:
    """A function runs without privileges as it does with them."""
    done = nobody.run("invoke", "tests/functions/hello:app.handler", "-e", '{"name": "Ada"}')

    assert 0 == done.code, done.err
    assert {"message": "Hello, Ada!"} == done.document
    assert "REPORT RequestId: " in done.err


def test_the_doctor_shows_an_unprivileged_user_what_is_soft(nobody: Unprivileged) -> None:
    """Without a cgroup the memory limit is soft, and the remedy is a command to run."""
    checks = nobody.run("doctor", "--json").document

    check_report(checks)
    (memory,) = (check for check in checks if check["resource"] == "memory")
    assert "soft" == memory["level"]
    assert "systemd-run --user" in memory["remedy"]
    # No probe refutes a claim.
    assert [check["resource"] for check in checks if check["proved"] is False] == []


@pytest.mark.parametrize(("event", "code"), [("sleep", 124), ("kill", 137), ("fail", 1)])
def test_exit_codes_are_the_same_without_privileges(
    nobody: Unprivileged, event: str, code: int
) -> None:
    """A timeout kills the worker, also without privileges, and leaves no process behind."""
    done = nobody.run("invoke", "subject:app.handler", "-e", f'"{event}"', "--timeout", "1")

    assert code == done.code, done.err


def test_a_handler_catches_memory_error_without_privileges(nobody: Unprivileged) -> None:
    """RLIMIT_DATA raises a MemoryError before the memory poll kills the worker."""
    done = nobody.run("invoke", "subject:app.handler", "-e", '"memory"')

    assert (0, "caught") == (done.code, done.document), done.err
