"""Tests of state directories, in processes of their own that open and close at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniλ.errors import StateInUse
from miniλ.store import state_dir

ROOT = Path(__file__).resolve().parents[3]
# Opens and closes temporary states, each of which sweeps those of the others.
OPENER = """
import sys
from miniλ.store import state_dir

sys.stdin.read()
for _ in range(40):
    state, reports = state_dir.open_state(None)
    state.write_down([])
    assert not reports, reports
    state.close()
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory of the temporary states of this test."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"minilambda-{os.geteuid()}"


def test_supervisors_that_open_and_close_at_once_do_not_meet(base: Path, tmp_path: Path) -> None:
    """No state is swept before it is locked, or found again while it is removed."""
    command = [sys.executable, "-X", "utf8", "-c", OPENER]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    openers = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.close()  # all are told to begin
        opener.stdin = None
    ends = [(opener.communicate()[1].decode(), opener.returncode) for opener in openers]

    assert [("", 0)] * 6 == ends
    assert [] == os.listdir(base)


def test_a_state_that_is_open_is_not_swept(base: Path) -> None:
    """Its lock is held; the second one has a directory of its own."""
    first, _ = state_dir.open_state(None)
    second, reports = state_dir.open_state(None)

    assert [] == reports
    assert sorted([first.path.name, second.path.name]) == sorted(os.listdir(base))
    second.close()
    first.close()
    assert [] == os.listdir(base)


@pytest.mark.parametrize("files", [[], ["registry.db", "code/a/b"]])
def test_a_state_without_a_lock_is_swept(base: Path, files: list[str]) -> None:
    """Its supervisor died before it made one, or while it removed everything."""
    dead = base / "00abcd123456"
    dead.mkdir(mode=0o700, parents=True)
    base.chmod(0o700)
    for file in files:
        (dead / file).parent.mkdir(parents=True, exist_ok=True)
        (dead / file).touch()
    state, _ = state_dir.open_state(None)
    state.close()

    assert [] == os.listdir(base)


def test_a_fork_of_the_app_holds_no_lock(base: Path) -> None:
    """A child that was forked while a state was being locked keeps no other supervisor waiting."""
    base.mkdir(mode=0o700)
    reader, writer = os.pipe()
    with state_dir._lock_base(base):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        state, _ = state_dir.open_state(None)
        state.close()
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_a_state_that_is_kept_is_one_supervisors(tmp_path: Path) -> None:
    """The second one is refused, and told which process has it."""
    state, _ = state_dir.open_state(tmp_path / "state")
    state.write_down([])

    with pytest.raises(StateInUse, match=f"in use by process {os.getpid()}"):
        state_dir.open_state(tmp_path / "state")
    state.close()


def test_a_directory_of_an_older_version_is_removed(tmp_path: Path) -> None:
    """Of `walls`, which is `root` now; but not if there is something in it."""
    (tmp_path / "walls").mkdir()
    state_dir.open_state(tmp_path)[0].close()
    assert ["root"] == [name for name in ("root", "walls") if (tmp_path / name).is_dir()]

    (tmp_path / "walls" / "mine").mkdir(parents=True)
    state_dir.open_state(tmp_path)[0].close()
    assert (tmp_path / "walls" / "mine").is_dir()
