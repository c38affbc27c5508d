"""No escape gets out of a real worker, at every level that this machine and this user allow.

`escapes/` has one small function for each way out. Each runs where a level claims to stop it, and,
as the control, where the mechanism that stops it is off: there it succeeds, or the test would prove
nothing. For places such as "root-seccomp" see `places`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from miniλ.cli.doctor import carriers
from miniλ.sandbox import landlock
from tests.machine.places import (
    ALONE,
    ANY,
    CONFINED,
    ESCAPES,
    IS_ROOT,
    NAMESPACED,
    NO_SANDBOX,
    NO_SANDBOX_NOBODY,
    Place,
    Runner,
    as_nobody,
    every_level,
    in_namespaces,
    program_for_nobody,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

# Escapes whose control needs root, and the reason.
NEED_ROOT = {
    "fork_bomb": "RLIMIT_NPROC of this user bounds the bomb everywhere",
    "write_sysctl": "only user 0 may write them",
    "host_keys": "only user 0 may read them",
}


class Way(NamedTuple):
    """A way out: the places that stop it, and the one where that mechanism is off."""

    stops: tuple[str, ...]
    control: str
    options: Mapping[str, Any] = MappingProxyType({})


WAYS_OUT = {
    "read_other_code": Way(ALONE, "bare"),
    "signal_supervisor": Way(ALONE, "bare"),
    "signal_everybody": Way(ALONE, "bare"),
    "trace_sibling": Way((*ANY, "root-seccomp"), "bare-seccomp"),
    "read_sibling_environ": Way(ALONE, "bare"),
    "open_state": Way(ALONE, "bare"),
    "mount_proc": Way(ANY, "bare-seccomp"),
    "unshare_user": Way(ANY, "bare-seccomp"),
    "chroot_out": Way(ANY, "bare-seccomp"),
    # no_new_privs cannot be left out: the control is a process in no sandbox.
    "setuid_binary": Way((*ANY, "root-seccomp"), NO_SANDBOX_NOBODY),
    "keyring": Way(ANY, "bare-seccomp"),
    "io_uring": Way(ANY, "bare-seccomp"),
    "clone3": Way(ANY, "bare-seccomp"),
    "raw_socket": Way(ANY, "bare-seccomp"),
    "vsock": Way(ANY, "bare-seccomp"),
    "tiocsti": Way(ANY, "bare-seccomp"),
    "ptrace_me": Way(ANY, "bare-seccomp"),
    "fill_tmp": Way((*NAMESPACED, "root-volumes"), "bare", {"memory_size": 1024}),
    "fill_elsewhere": Way(ALONE, "bare"),
    "symlink_out": Way(ALONE, "bare"),
    # RLIMIT_NPROC does not bind user 0, in any namespace: as root only a cgroup stops it.
    "fork_bomb": Way(("root",) if IS_ROOT else NAMESPACED, "bare", {"memory_size": 2048}),
    # Capabilities are dropped everywhere: the control is a process of root's in no sandbox.
    "raise_limits": Way((*ANY, "root-seccomp"), NO_SANDBOX),
    "device_node": Way((*ANY, "root-seccomp"), NO_SANDBOX),
    "abstract_socket": Way(CONFINED, "root-landlock"),
    # Landlock does not hold back connect(2) to a socket that is a file.
    "unix_socket": Way(NAMESPACED, "bare"),
    "limit_sibling": Way((*ANY, "root-seccomp"), "bare-seccomp"),
    "write_sysctl": Way((*ALONE, "userns-landlock", "root-users,landlock"), "bare"),
    "host_keys": Way(CONFINED, "bare"),
    "shared_memory": Way((*NAMESPACED, "root-landlock"), "bare"),
    "old_root": Way(ALONE, "bare"),
    # Every place closes all descriptors: the control is a process with one too many.
    "leaked_descriptors": Way(ANY, NO_SANDBOX),
    # No mechanism to leave out: the control is a function whose own environment has the secret.
    "canary": Way(ANY, "bare", {"environment": {"OWN": "secret"}}),
    "network_none": Way(NAMESPACED, "root", {"network": "none"}),
}


class Case(str):
    """A place and an escape. Equal to any other case there, so pytest opens a place once."""

    __slots__ = ("escape",)
    escape: str


@pytest.fixture
def escape(request: pytest.FixtureRequest) -> str:
    """Return the escape of this case."""
    return str(request.node.callspec.params["at"].escape)


def _cases(*, control: bool) -> list[Any]:
    """Return the cases, sorted by place."""
    cases = []
    for escape, way in WAYS_OUT.items():
        for place in [way.control] if control else way.stops:
            # Without root the highest level with the same mechanisms is "userns".
            here = place if IS_ROOT else place.replace("root", "userns")
            case = Case(here)
            case.escape = escape
            cases.append(pytest.param(case, id=f"{here}-{escape}"))
    unique = {case.id: case for case in cases}
    return sorted(unique.values(), key=lambda case: str(case.values[0]))


@pytest.mark.parametrize("at", _cases(control=False), indirect=["at"], scope="module")
def test_no_way_out(at: Runner, escape: str) -> None:
    """A level stops each escape that it claims to stop; neighbour and next invocation work."""
    if escape in ("signal_supervisor", "signal_everybody", "abstract_socket"):
        _needs_scopes(at.place, escape)
    options = {} if escape == "canary" else WAYS_OUT[escape].options
    verdict = at.run(at.place.attempt(escape, **options))

    assert verdict["escaped"] is False, verdict["seen"]


def _needs_scopes(place: Place, escape: str) -> None:
    if place.name == "landlock" or escape == "abstract_socket":
        version = landlock.abi()
        if not landlock.scopes_signals(version):
            pytest.skip(f"Landlock's ABI {version} has no scopes (6 has)")


@pytest.mark.parametrize("at", _cases(control=True), indirect=["at"], scope="module")
def test_the_way_out_is_one(at: Runner | None, escape: str, tmp_path: Path) -> None:
    """The control: where the mechanism is off, the same escape succeeds."""
    if at is None:
        verdict = _plain(escape, {}, tmp_path, nobody=WAYS_OUT[escape].control == NO_SANDBOX_NOBODY)
        if not verdict["escaped"] and not IS_ROOT:
            pytest.skip(f"the host refuses it to this user: {verdict['seen']}")
    else:
        options = WAYS_OUT[escape].options
        if escape == "canary":
            options = {"environment": {"OWN": at.place.secret}}
        elif escape == "network_none":
            options = {}
        elif escape in NEED_ROOT and not IS_ROOT:
            pytest.skip(NEED_ROOT[escape])
        verdict = at.run(at.place.attempt(escape, **options))
        if not verdict["escaped"]:
            plain = _plain(escape, at.place.event, tmp_path)
            if not plain["escaped"]:
                pytest.skip(f"the host refuses it to every process: {plain['seen']}")

    assert verdict["escaped"] is True, verdict["seen"]


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
module = __import__(sys.argv[2])
print(json.dumps(module.handler(json.loads(sys.argv[3]), None)))
"""


def _plain(
    escape: str, event: dict[str, Any], tmp_path: Path, *, nobody: bool = False
) -> dict[str, Any]:
    """Run an escape as a process without a sandbox, with one descriptor too many."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    with contextlib.ExitStack() as stack:
        code = ESCAPES
        if nobody and IS_ROOT:
            command = [*as_nobody(), program_for_nobody(), *command[1:]]
            base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            code = base / "escapes"
            shutil.copytree(ESCAPES, code)
            subprocess.run(["chmod", "-R", "a+rX", str(base)], check=True)
        descriptor = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        process = subprocess.run(
            [*command, str(code), escape, json.dumps(event)],
            env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            cwd="/",
        )
    assert process.returncode == 0, process.stderr
    return dict(json.loads(process.stdout))


# What a worker leaves behind


@every_level
def test_removal_does_not_follow_links(at: Runner) -> None:
    """A /tmp with links to the outside, FIFOs and depth is removed; their targets stay (28)."""
    place = at.place

    async def scenario() -> Path:
        async with place.subject(ESCAPES, "symlink_out.handler") as supervisor:
            await place.beside(place.event)
            workers = supervisor.parts.pool._workers.values()
            (worker,) = (one for one in workers if one.function.name == "subject")
        return Path(worker.tmp_dir.path)

    path = at.run(scenario())

    assert not path.exists()
    assert (place.host / "file").read_text(encoding="utf-8") == "precious"


@in_namespaces
def test_a_daemon_goes_with_its_worker(at: Runner) -> None:
    """A daemon that cleared its environment and called setsid ends with its pid namespace (20)."""
    place = at.place

    async def scenario() -> None:
        async with place.subject(ESCAPES, "daemon.handler"):
            response = await place.beside(place.event)
            assert response.failure is None, response.log
            assert len(carriers(place.event["token"])) == 1

    at.run(scenario())

    assert carriers(place.event["token"]) == []


@pytest.mark.parametrize("at", ["bare"], indirect=True, scope="module")
def test_a_daemon_stays_without_namespaces_and_cgroups(at: Runner) -> None:
    """The control: at level bare the same daemon outlives its worker, and `kill` is soft."""
    place = at.place

    async def scenario() -> None:
        async with place.subject(ESCAPES, "daemon.handler"):
            await place.beside(place.event)

    at.run(scenario())
    daemons = carriers(place.event["token"])
    for process in daemons:
        process.kill()

    assert place.supervisor.limits["kill"].startswith("soft")
    assert len(daemons) == 1
