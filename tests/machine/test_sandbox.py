"""The sandbox holds, for real workers, at every level that this machine and this user allow.

`escapes/` is the museum: one small function for each way out. Each is let loose where a level
claims to stop it, and, as the control, where that mechanism is off: there it succeeds, or the
test would prove nothing. A place is written as a level and what is left out of it, as in
"root-seccomp". What fails here and is marked so is a hole that is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import importlib.util
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import pytest

import miniλ
from miniλ import journal
from miniλ.cli.doctor import carriers
from miniλ.errors import InvalidParameterValue, NotEnforced
from miniλ.runtimes import catalog
from miniλ.sandbox import landlock, levels
from miniλ.settings import Settings
from miniλ.store import state_dir
from tests.machine.conftest import skip_without

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
ESCAPES = Path(__file__).parent / "escapes"
MB = 1 << 20
IS_ROOT = os.geteuid() == 0
NOBODY = 65534
# Lambda's numbers (developer guide), said again: a slip in the package is to be seen here.
DESCRIPTORS = PROCESSES = 1024
MB_PER_CPU = 1769

ANY = ("bare", "landlock", "userns", "cgroup", "root")
CONFINED = ("landlock", "userns", "cgroup", "root")
BOXED = ("userns", "cgroup", "root")
# Namespaces hold alone what they claim, also where there is no Landlock.
ALONE = (*CONFINED, "root-landlock")
LEVELS = tuple(level for level in ANY if IS_ROOT or level != "root")
# Run as it is, in no sandbox, with a descriptor too many; and that as nobody.
PLAIN, PLAIN_NOBODY = "plain", "plain nobody"


# Where there is no control but as root, and why.
ROOTS = {
    "fork_bomb": "RLIMIT_NPROC of this user bounds the bomb everywhere",
    "write_sysctl": "only user 0 may write them",
    "host_keys": "only user 0 may read them",
}


class Way(NamedTuple):
    """A way out: the places that stop it, and the one where what stops it is off."""

    held: tuple[str, ...]
    control: str
    options: Mapping[str, Any] = MappingProxyType({})


MUSEUM = {
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
    "setuid_binary": Way((*ANY, "root-seccomp"), PLAIN_NOBODY),
    "keyring": Way(ANY, "bare-seccomp"),
    "io_uring": Way(ANY, "bare-seccomp"),
    "clone3": Way(ANY, "bare-seccomp"),
    "raw_socket": Way(ANY, "bare-seccomp"),
    "vsock": Way(ANY, "bare-seccomp"),
    "tiocsti": Way(ANY, "bare-seccomp"),
    "ptrace_me": Way(ANY, "bare-seccomp"),
    "fill_tmp": Way((*BOXED, "root-volumes"), "bare", {"memory_size": 1024}),
    "fill_elsewhere": Way(ALONE, "bare"),
    "symlink_out": Way(ALONE, "bare"),
    # RLIMIT_NPROC does not bind user 0, in whatever namespace: there it takes a cgroup.
    "fork_bomb": Way(("root",) if IS_ROOT else BOXED, "bare", {"memory_size": 2048}),
    # Capabilities are dropped everywhere: the control is a process of root's in no sandbox.
    "raise_limits": Way((*ANY, "root-seccomp"), PLAIN),
    "device_node": Way((*ANY, "root-seccomp"), PLAIN),
    "abstract_socket": Way(CONFINED, "root-landlock"),
    # Landlock does not hold back connect(2) to a socket that is a file.
    "unix_socket": Way(BOXED, "bare"),
    "limit_sibling": Way((*ANY, "root-seccomp"), "bare-seccomp"),
    "write_sysctl": Way((*ALONE, "userns-landlock", "root-users,landlock"), "bare"),
    "host_keys": Way(CONFINED, "bare"),
    "shared_memory": Way((*BOXED, "root-landlock"), "bare"),
    "old_root": Way(ALONE, "bare"),
    # All is closed everywhere: the control has one descriptor too many.
    "leaked_descriptors": Way(ANY, PLAIN),
    # Nothing to leave out: the control is a function whose own environment has the secret.
    "canary": Way(ANY, "bare", {"environment": {"OWN": "secret"}}),
    "network_none": Way(BOXED, "root", {"network": "none"}),
}


class Case(str):
    """A place, equal to any other case there, and the escape to try: places are opened once."""

    __slots__ = ("escape",)
    escape: str


@pytest.fixture
def escape(request: pytest.FixtureRequest) -> str:
    """Return the escape of this case."""
    return str(request.node.callspec.params["at"].escape)


def _cases(*, control: bool) -> list[Any]:
    """Return the places and escapes to try, the same place together."""
    cases = []
    for escape, way in MUSEUM.items():
        for place in [way.control] if control else way.held:
            # What is left to a user without privileges is the same in a user namespace.
            here = place if IS_ROOT else place.replace("root", "userns")
            case = Case(here)
            case.escape = escape
            cases.append(pytest.param(case, id=f"{here}-{escape}"))
    unique = {case.id: case for case in cases}
    return sorted(unique.values(), key=lambda case: str(case.values[0]))


def _settings(place: str, **more: Any) -> Settings:
    sandbox, _, without = place.partition("-")
    return Settings(sandbox=sandbox, without=without, **more)  # type: ignore[arg-type]


def _left_below(directory: Path) -> list[str]:
    """Return mounts, and files that a loop device is bound to, below a directory."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    found = [line.split()[4] for line in mounts]
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # unbound meanwhile
            found.append(path.read_text(encoding="utf-8").strip())
    return [path for path in found if path.startswith(f"{directory}/")]


def _skip_where_missing(supervisor: miniλ.Supervisor, place: str) -> None:
    """Skip where the host does not give what this level is made of."""
    skip_without(place)
    choice = supervisor._choice
    needed = {level: ["namespaces"] for level in BOXED} | {"landlock": ["landlock"]}
    for mechanism in needed.get(place.partition("-")[0], []):
        if mechanism in choice.missing:
            pytest.skip(f"no {mechanism} on this host: {choice.missing[mechanism]}")


NEIGHBOUR = "def handler(event, context):\n    return event\n"


class Place:
    """An open supervisor at a place, with a neighbour that must not notice what goes on."""

    def __init__(self, name: str, supervisor: miniλ.Supervisor, host: Path) -> None:
        self.name = name
        self.supervisor = supervisor
        self.host = host
        self.event: dict[str, Any] = {}

    async def open(self, sockets: contextlib.ExitStack) -> None:
        """Start the neighbour, and put up on the host what escapes look for."""
        supervisor = self.supervisor
        (self.host / "code").mkdir()
        (self.host / "code" / "app.py").write_text(NEIGHBOUR, encoding="utf-8")
        (self.host / "file").write_text("precious", encoding="utf-8")
        halves = [uuid.uuid4().hex, uuid.uuid4().hex]
        self.secret = "".join(halves)
        sockets.callback(os.environ.pop, "MINILAMBDA_CANARY", None)
        os.environ["MINILAMBDA_CANARY"] = self.secret
        function = await supervisor.create_function(
            "neighbour", self.host / "code", "app.handler", environment={"SECRET": self.secret}
        )
        await self.neighbour()
        (started,) = supervisor.journal.story(journal.WorkerStarted)
        (worker,) = supervisor._pool._workers.values()
        assert worker.tmp_dir is not None
        abstract = f"minilambda-{uuid.uuid4().hex}"
        for address in ("\0" + abstract, str(self.host / "socket")):
            listener = sockets.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen(64)
        network = sockets.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        key = int.from_bytes(os.urandom(3), "little") + 1
        libc = ctypes.CDLL(None, use_errno=True)
        segment = libc.shmget(key, 4096, 0o1000 | 0o600)
        assert segment >= 0
        sockets.callback(libc.shmctl, segment, 0, None)
        self.event = {
            "registry": str(supervisor.registry.path),
            "code": function.code_path,
            "tmp": worker.tmp_dir.path,
            "supervisor": os.getpid(),
            "sibling": started.pid,
            "abstract": abstract,
            "socket": str(self.host / "socket"),
            "port": network.getsockname()[1],
            "host_file": str(self.host / "file"),
            "host_directory": str(self.host),
            "halves": halves,
            "key": key,
            "pid_namespace": os.readlink("/proc/self/ns/pid"),
            "token": uuid.uuid4().hex,
        }

    async def neighbour(self) -> None:
        """Assert that the neighbour answers."""
        response = await self.supervisor.invoke("neighbour", {"still": "here"})

        assert response.payload == {"still": "here"}

    @contextlib.asynccontextmanager
    async def subject(self, code: Path, handler: str, **options: Any) -> Any:
        """Have a function under test; nothing of it is left afterwards."""
        supervisor = self.supervisor
        before = asyncio.all_tasks()
        options = {"memory_size": 512, "timeout": 25, **options}
        await supervisor.create_function("subject", code, handler, **options)
        try:
            yield supervisor
        finally:
            await supervisor.delete_function("subject")
            # Its workers live as long as their tasks do; the watch goes on for the neighbour.
            tasks = asyncio.all_tasks() - before - {supervisor._pool._limit_poll}
            await asyncio.wait(tasks - {asyncio.current_task()})
        assert supervisor.journal.story(journal.Trouble) == []

    async def beside(self, event: dict[str, Any]) -> miniλ.Response:
        """Invoke the function under test while its neighbour works."""
        async with asyncio.TaskGroup() as group:
            bad = group.create_task(self.supervisor.invoke("subject", event))
            while not bad.done():
                await self.neighbour()
                await asyncio.wait([bad], timeout=0.05)
        return bad.result()

    async def attempt(self, escape: str, **options: Any) -> dict[str, Any]:
        """Let an escape loose, twice, beside the neighbour; return its verdict."""
        async with self.subject(ESCAPES, f"{escape}.handler", **options):
            response = await self.beside(self.event)
            assert response.failure is None, (response.failure, response.log)
            again = await self.supervisor.invoke("subject", self.event)
            assert again.failure is None, (again.failure, again.log)
            assert again.payload["escaped"] is response.payload["escaped"]
            await self.neighbour()
        return dict(response.payload)


class Runner:
    """A place and the loop that its supervisor lives on."""

    def __init__(self, place: Place, loop: asyncio.Runner, thread: ThreadPoolExecutor) -> None:
        self.place = place
        self._loop = loop
        self._thread = thread

    def run(self, scenario: Coroutine[Any, Any, Any]) -> Any:
        """Run a scenario of a test; a look through /proc that still goes on comes to its end."""
        try:
            return self._loop.run(scenario)
        finally:
            self._thread.submit(int).result()


@pytest.fixture(scope="module", autouse=True)
def _young() -> Iterator[None]:
    """Have the collector, which every test calls twice, look at what is made from here on."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def at(request: pytest.FixtureRequest) -> Iterator[Runner | None]:
    """Open a supervisor at a place, for all tests that are there; nothing of it is left."""
    name = request.param
    if name in (PLAIN, PLAIN_NOBODY):
        yield None
        return
    host = Path(tempfile.mkdtemp(prefix="minilambda-host-"))
    with asyncio.Runner() as loop, contextlib.ExitStack() as sockets:
        sockets.callback(shutil.rmtree, host)
        supervisor = miniλ.Supervisor(settings=_settings(name, freeze_after=60.0))
        # One thread: what it was given is done when something later is.
        thread = ThreadPoolExecutor(1)
        loop.get_loop().set_default_executor(thread)
        loop.run(supervisor.__aenter__())
        state = supervisor._state.path
        try:
            _skip_where_missing(supervisor, name)
            place = Place(name, supervisor, host)
            loop.run(place.open(sockets))
            yield Runner(place, loop, thread)
        finally:
            loop.run(supervisor.close())
        assert _left_below(state) == []
        assert not state.exists()


@pytest.mark.parametrize("at", _cases(control=False), indirect=["at"], scope="module")
def test_no_way_out(at: Runner, escape: str) -> None:
    """What a level claims to stop, it stops; the neighbour and the next invocation work."""
    if escape in ("signal_supervisor", "signal_everybody", "abstract_socket"):
        _needs_scopes(at.place, escape)
    options = {} if escape == "canary" else MUSEUM[escape].options
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
        verdict = _plain(escape, {}, tmp_path, nobody=MUSEUM[escape].control == PLAIN_NOBODY)
        if not verdict["escaped"] and not IS_ROOT:
            pytest.skip(f"the host refuses it to this user: {verdict['seen']}")
    else:
        options = MUSEUM[escape].options
        if escape == "canary":
            options = {"environment": {"OWN": at.place.secret}}
        elif escape == "network_none":
            options = {}
        elif escape in ROOTS and not IS_ROOT:
            pytest.skip(ROOTS[escape])
        verdict = at.run(at.place.attempt(escape, **options))
        if not verdict["escaped"]:
            plain = _plain(escape, at.place.event, tmp_path)
            if not plain["escaped"]:
                pytest.skip(f"the host refuses it to everybody: {plain['seen']}")

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
    """Run an escape as a process in no sandbox, with a descriptor too many."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    with contextlib.ExitStack() as stack:
        code = ESCAPES
        if nobody and IS_ROOT:
            command = [*_as_nobody(), _program_for_nobody(), *command[1:]]
            base = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            code = base / "escapes"
            shutil.copytree(ESCAPES, code)
            subprocess.run(["chmod", "-R", "a+rX", str(base)], check=True)
        descriptor = os.open(tmp_path, os.O_RDONLY)
        stack.callback(os.close, descriptor)
        done = subprocess.run(
            [*command, str(code), escape, json.dumps(event)],
            env={"TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]},
            pass_fds=[descriptor],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            cwd="/",
        )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _as_nobody() -> list[str]:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not on this machine")
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


@functools.cache
def _program_for_nobody() -> str:
    """Return an interpreter of our version that nobody may run; skips where there is none."""
    # It must find itself as well: workers are started by what it takes for its own path.
    check = "import subprocess, sys; subprocess.run([sys.executable, '-V'], check=True)"
    for program in catalog.candidates(catalog.own()):
        command = [*_as_nobody(), program, "-I", "-c", check]
        if subprocess.run(command, capture_output=True, cwd="/", check=False).returncode == 0:
            return program
    pytest.skip(f"no {catalog.own()} on this machine that an unprivileged user may run")


# What is left behind

every_level = pytest.mark.parametrize("at", LEVELS, indirect=True, scope="module")
in_namespaces = pytest.mark.parametrize(
    "at", [level for level in LEVELS if level in BOXED], indirect=True, scope="module"
)


@every_level
def test_removal_does_not_follow_links(at: Runner) -> None:
    """Links to the outside, FIFOs and depth in /tmp: it goes, what they lead to stays (28)."""
    place = at.place

    async def scenario() -> Path:
        async with place.subject(ESCAPES, "symlink_out.handler") as supervisor:
            await place.beside(place.event)
            workers = supervisor._pool._workers.values()
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
def test_a_daemon_stays_where_nothing_holds_it(at: Runner) -> None:
    """The control: without namespaces and cgroups the same daemon outlives its worker: soft."""
    place = at.place

    async def scenario() -> None:
        async with place.subject(ESCAPES, "daemon.handler"):
            await place.beside(place.event)

    at.run(scenario())
    left = carriers(place.event["token"])
    for process in left:
        process.kill()

    assert place.supervisor.limits["kill"].startswith("soft")
    assert len(left) == 1


# Limits, from inside and from outside

LOOK = """
import os, resource, time
def handler(event, context):
    if event.get("sleep"):
        time.sleep(60)
    mask = os.umask(0)
    os.umask(mask)
    try:
        open(os.path.join(os.environ["LAMBDA_TASK_ROOT"], "new"), "w").close()
        written = True
    except OSError:
        written = False
    status = dict(line.rstrip("\\n").split(":\\t", 1) for line in open("/proc/self/status")
                  if ":\\t" in line)
    return {
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource)
                   if name.startswith("RLIMIT_")},
        "status": status, "umask": mask, "pid": os.getpid(), "session": os.getsid(0),
        "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
        "written": written, "root": os.environ["LAMBDA_TASK_ROOT"], "cwd": os.getcwd(),
        "spaces": {name: os.readlink(f"/proc/self/ns/{name}")
                   for name in os.listdir("/proc/self/ns")},
        "environment": sorted(os.environ),
    }
"""


def _from_outside(pid: int) -> dict[str, str]:
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@every_level
def test_limits_from_inside_and_outside(at: Runner, function_directory: Any) -> None:
    """Limits, privileges, umask and session are as they should be, read on both sides."""
    place = at.place
    code = function_directory("look", app=LOOK)

    async def scenario() -> tuple[dict[str, Any], int, dict[str, str]]:
        async with place.subject(code, "app.handler") as supervisor:
            response = await place.beside({})
            assert response.failure is None, response.log
            started = supervisor.journal.story(journal.WorkerStarted)[-1]
            outside = _from_outside(started.pid)
            _check_limits_outside(started.pid)
            _check_cgroup(started.pid, supervisor.limits)
            return response.payload, started.pid, outside

    inside, pid, outside = at.run(scenario())
    limits = inside["limits"]

    assert limits["RLIMIT_CORE"] == [0, 0]
    assert limits["RLIMIT_NOFILE"] == [DESCRIPTORS, DESCRIPTORS]
    assert limits["RLIMIT_DATA"] == [(512 + 160) * MB] * 2
    boxed = place.name in BOXED
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    assert limits["RLIMIT_FSIZE"] == ([hard, hard] if boxed else [512 * MB, 512 * MB])
    if boxed:
        assert limits["RLIMIT_NPROC"] == [PROCESSES, PROCESSES]
    assert inside["umask"] == 0o077
    assert inside["written"] is (place.name == "bare")
    for status in (inside["status"], outside):
        assert status["Seccomp"].strip() == "2"
        assert status["NoNewPrivs"].strip() == "1"
        assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} <= (
            {0} if IS_ROOT or boxed else {0, int(status["CapBnd"], 16)}
        )
    if boxed:
        assert 1 < inside["pid"] < 100
        assert inside["root"] == inside["cwd"] == "/var/task"
        own = {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "ipc", "uts")}
        assert [name for name, link in own.items() if inside["spaces"][name] == link] == []
    else:
        assert inside["pid"] == pid
        assert inside["session"] == pid
    assert inside["groups"] == [] or place.name != "root"
    if place.name not in ("userns", "cgroup"):
        assert set(inside["uid"]) == {int(outside["Uid"].split()[0])}


def _check_limits_outside(pid: int) -> None:
    text = Path(f"/proc/{pid}/limits").read_text(encoding="utf-8")
    assert re.search(rf"Max open files +{DESCRIPTORS} +{DESCRIPTORS} ", text)
    assert re.search(r"Max core file size +0 +0 ", text)
    assert re.search(rf"Max data size +{672 * MB} +{672 * MB} ", text)


def _check_cgroup(pid: int, limits: dict[str, str]) -> None:
    """Read back what the cgroup holds, from where the kernel says that the worker is."""
    if not limits["memory"].startswith("hard"):
        return
    groups = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        groups |= dict.fromkeys(controllers.split(","), path)
    if "cgroup1" in limits["memory"]:
        base = Path("/sys/fs/cgroup")

        def value(controller: str, name: str) -> int:
            path = groups[controller].lstrip("/")
            return int((base / controller / path / name).read_text(encoding="utf-8"))

        assert value("memory", "memory.limit_in_bytes") == 512 * MB
        assert value("pids", "pids.max") == PROCESSES
        quota, period = value("cpu", "cpu.cfs_quota_us"), value("cpu", "cpu.cfs_period_us")
    else:
        own = Path("/sys/fs/cgroup") / groups[""].lstrip("/")
        assert int((own / "memory.max").read_text(encoding="utf-8")) == 512 * MB
        assert int((own / "pids.max").read_text(encoding="utf-8")) == PROCESSES
        quota, period = map(int, (own / "cpu.max").read_text(encoding="utf-8").split())
    assert quota / period == pytest.approx(512 / MB_PER_CPU, rel=0.01)


@pytest.mark.parametrize("at", ["userns", "cgroup"], indirect=True, scope="module")
def test_a_delegated_cgroup_holds_what_root_has_held(at: Runner) -> None:
    """Memory, CPU, processes, freeze and kill are the kernel's, by a cgroup2 and without root."""
    place = at.place

    async def scenario() -> miniλ.Response:
        return await place.supervisor.invoke("neighbour", {})

    report = at.run(scenario()).report
    held = {name for name, limit in report.limits.items() if limit.startswith("hard: cgroup2 ")}

    # The control: one level below there is none.
    by_cgroup = {"memory", "cpu", "processes", "freeze", "kill"}
    assert held == (by_cgroup if place.name == "cgroup" else set())
    assert report.max_memory_used_mb > 0


@in_namespaces
def test_workers_share_no_namespace_and_no_user(at: Runner, function_directory: Any) -> None:
    """Two live workers, of one function even, have namespaces and users of their own."""
    place = at.place
    code = function_directory("look", app=LOOK.replace("mask = os.umask(0)", WAIT, 1))

    async def scenario() -> list[dict[str, Any]]:
        async with place.subject(code, "app.handler") as supervisor:
            # Each waits until the other is there: from outside, since they share nothing.
            both = [asyncio.ensure_future(supervisor.invoke("subject", {})) for _ in range(2)]
            return [(await one).payload for one in both]

    one, two = at.run(scenario())

    for name in ("mnt", "pid", "ipc", "uts"):
        assert one["spaces"][name] != two["spaces"][name], name
    if place.name == "root":
        assert one["uid"] != two["uid"]
        assert min(*one["uid"], *two["uid"]) >= 1_900_000_000


# Busy for so long that a second invocation needs a second worker.
WAIT = "time.sleep(0.3)\n    mask = os.umask(0)"


@in_namespaces
def test_tmp_has_exactly_its_size(at: Runner, function_directory: Any) -> None:
    """A file of 512 MB fits into a /tmp of 512 MB, and the next megabyte is ENOSPC.

    With memory for it: without volumes it counts as that, and a cgroup holds memory.
    """
    source = (
        "import errno, os\n"
        "def handler(event, context):\n"
        "    seen = []\n"
        "    for name, size in (('all', 512), ('more', 1)):\n"
        "        with open(f'/tmp/{name}', 'wb') as file:\n"
        "            try:\n"
        "                os.posix_fallocate(file.fileno(), 0, size << 20)\n"
        "                seen.append('fits')\n"
        "            except OSError as exc:\n"
        "                seen.append(errno.errorcode[exc.errno])\n"
        "    return seen\n"
    )
    code = function_directory("tmp", app=source)

    async def scenario() -> object:
        async with at.place.subject(code, "app.handler", memory_size=1024):
            return (await at.place.beside({})).payload

    assert at.run(scenario()) == ["fits", "ENOSPC"]


@pytest.mark.skipif(not IS_ROOT, reason="only root has volumes, which do not count as memory")
@pytest.mark.parametrize("at", ["root"], indirect=True, scope="module")
def test_tmp_is_not_memory(at: Runner, function_directory: Any) -> None:
    """300 MB in /tmp of a function of 128 MB are no reason to run out of memory."""
    if at.place.supervisor._choice.missing.get("volumes"):
        pytest.skip(f"no volumes: {at.place.supervisor._choice.missing['volumes']}")
    source = (
        "def handler(event, context):\n"
        "    with open('/tmp/file', 'wb') as file:\n"
        "        for _ in range(300):\n"
        "            file.write(bytes(1 << 20))\n"
        "        return file.tell()\n"
    )
    code = function_directory("tmp", app=source)

    async def scenario() -> miniλ.Response:
        async with at.place.subject(code, "app.handler", memory_size=128):
            return await at.place.beside({})

    response = at.run(scenario())

    assert response.failure is None, response.log
    assert response.payload == 300 * MB


KEEP = """
import os, time
def handler(event, context):
    path = os.path.join(os.environ["TMPDIR"], "kept")
    if "write" in event:
        open(path, "w").write(event["write"])
    if event.get("sleep"):
        time.sleep(60)
    return open(path).read() if os.path.exists(path) else None
"""


@every_level
def test_tmp_is_kept_for_one_function_only(at: Runner, function_directory: Any) -> None:
    """/tmp is kept between invocations and through a timeout, and no other function finds it."""
    place = at.place
    code = function_directory("keep", app=KEEP)

    async def scenario() -> list[object]:
        seen: list[object] = []
        async with place.subject(code, "app.handler", timeout=1) as supervisor:
            await place.beside({"write": "one"})
            seen.append((await supervisor.invoke("subject", {})).payload)
            late = await place.beside({"write": "two", "sleep": True})
            assert late.report.status == "timeout"
            seen.append((await supervisor.invoke("subject", {})).payload)
        async with place.subject(code, "app.handler"):
            seen.append((await place.beside({})).payload)
        return seen

    assert at.run(scenario()) == ["one", "two", None]


# The network

INTERFACES = """
import socket
def handler(event, context):
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=2):
            return [name for _, name in socket.if_nameindex()]
"""


@in_namespaces
def test_no_network_is_a_loopback(at: Runner, function_directory: Any) -> None:
    """A function with network="none" has a loopback that works, and nothing else."""
    code = function_directory("network", app=INTERFACES)

    async def scenario() -> miniλ.Response:
        async with at.place.subject(code, "app.handler", network="none"):
            return await at.place.beside({})

    response = at.run(scenario())

    # A kernel may give each namespace tunnels as well, which are down.
    tunnels = re.compile(r"(tunl|gre|gretap|erspan|ip_vti|ip6_vti|sit|ip6tnl|ip6gre)0")
    assert [name for name in response.payload if not tunnels.fullmatch(name)] == ["lo"]
    assert response.report.limits["network"].startswith("hard")


@pytest.mark.parametrize("at", ["bare", "landlock"], indirect=True, scope="module")
def test_no_network_is_refused_without_namespaces(at: Runner, function_directory: Any) -> None:
    """Where it cannot be had, network="none" is refused rather than forgotten."""
    code = function_directory("network", app=INTERFACES)

    async def scenario() -> None:
        with pytest.raises(InvalidParameterValue, match="network='none' needs namespaces"):
            await at.place.supervisor.create_function(
                "subject", code, "app.handler", network="none"
            )

    at.run(scenario())


# Death

DRIVER = """
import asyncio, json, sys
import miniλ
from miniλ import journal
from miniλ.settings import Settings

async def main(state, sandbox, code):
    async with miniλ.Supervisor(state, Settings(sandbox=sandbox)) as supervisor:
        await supervisor.create_function("subject", code, "daemon.handler", timeout=20)
        while line := await asyncio.to_thread(sys.stdin.readline):
            response = await supervisor.invoke("subject", {"token": line.strip()})
            story = supervisor.journal.story
            print(json.dumps({
                "payload": response.payload,
                "zygote": story(journal.ZygoteStarted)[-1].pid,
                "worker": story(journal.WorkerStarted)[-1].pid,
                "instance": supervisor._state.instance,
                "missing": supervisor._choice.missing,
                "deaths": len(story(journal.ZygoteDied)),
            }), flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


class Driven:
    """A supervisor in a process of its own, that can be killed."""

    def __init__(self, directory: Path, level: str) -> None:
        self.token = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(directory), level, str(ESCAPES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def invoke(self) -> dict[str, Any]:
        """Have it leave a daemon; return what it says."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{self.token}\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        if "namespaces" in said["missing"]:
            self.close()
            pytest.skip(f"no namespaces on this host: {said['missing']['namespaces']}")
        assert said["payload"]["escaped"] is False
        return said

    def close(self) -> None:
        """End it, whatever way it may be."""
        self.process.kill()
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """A state directory; what a test that fails leaves of its supervisor is swept after it."""
    yield tmp_path / "state"
    held, _ = state_dir.open_state(tmp_path / "state")
    held.close()


def _ended(pidfds: list[int], seconds: float = 5.0) -> bool:
    """Wait until all processes of pidfds have ended; return whether they have."""
    try:
        return all(select.select([pidfd], [], [], seconds)[0] for pidfd in pidfds)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def _children_of(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children()]


VICTIMS = ("supervisor", "zygote", "init of the zygote", "supervisor and zygote")


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("sandbox", [level for level in LEVELS if level in BOXED])
def test_nobody_outlives_a_kill(sandbox: str, victim: str, kept: Path) -> None:
    """Whoever is killed, worker and daemon end at once; the next supervisor finds all removed."""
    skip_without(sandbox)
    driven = Driven(kept, sandbox)
    try:
        said = driven.invoke()
        inner = _children_of(said["zygote"])
        assert len(inner) == 1
        (daemon,) = carriers(driven.token)
        pids = [daemon.pid, said["worker"], said["zygote"], *inner, *_children_of(inner[0])]
        pidfds = [os.pidfd_open(pid) for pid in pids]
        victims = {
            "supervisor": [driven.process.pid],
            "zygote": [said["zygote"]],
            "init of the zygote": inner,
            "supervisor and zygote": [driven.process.pid, said["zygote"]],
        }[victim]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)

        assert _ended(pidfds)
        assert carriers(driven.token) == []
        if "supervisor" not in victim:
            # The supervisor has another zygote for the next one, and then is killed as well.
            again = driven.invoke()
            assert again["deaths"] == 1
            daemons = [os.pidfd_open(process.pid) for process in carriers(driven.token)]
            os.kill(driven.process.pid, signal.SIGKILL)
            assert _ended(daemons)
    finally:
        driven.close()

    async def afterwards() -> None:
        async with miniλ.Supervisor(kept, _settings("bare")) as supervisor:
            (swept,) = supervisor.journal.story(journal.Swept)
            assert swept.instance == said["instance"]
            assert _left_below(kept.parent) == []
            assert list((kept / "tmp").iterdir()) == []

    asyncio.run(afterwards())
    cgroups = Path("/sys/fs/cgroup").glob(f"**/minilambda-{said['instance']}*")
    assert list(cgroups) == []


@pytest.mark.parametrize("sandbox", ["landlock", "bare"])
def test_the_zygote_takes_daemons_along(sandbox: str, kept: Path) -> None:
    """Without namespaces a killed supervisor's zygote ends workers and adopted daemons."""
    driven = Driven(kept, sandbox)
    try:
        said = driven.invoke()
        (daemon,) = carriers(driven.token)
        pidfds = [os.pidfd_open(pid) for pid in (daemon.pid, said["worker"], said["zygote"])]
        driven.process.kill()

        assert _ended(pidfds)
    finally:
        driven.close()
        for process in carriers(driven.token):
            process.kill()


# Settings


def _limits(settings: Settings) -> dict[str, str]:
    async def main() -> dict[str, str]:
        async with miniλ.Supervisor(settings=settings) as supervisor:
            return supervisor.limits

    return asyncio.run(main())


def test_what_is_required_and_not_held_is_an_error() -> None:
    """A requirement that is not met raises NotEnforced with the resource and what there is."""
    with pytest.raises(NotEnforced, match="files is required to be hard, and is none"):
        _limits(_settings("bare", require="files:hard"))


def test_what_is_required_and_held_starts() -> None:
    """Requirements that are met start, "soft" also where it is hard."""
    held = _limits(_settings("bare", require="timeout:soft, descriptors:hard,files:none"))

    assert held["descriptors"].startswith("hard")


@pytest.mark.parametrize(
    ("require", "code"), [("files:hard", 78), ("descriptors:hard", 0), ("fils:hard", 2)]
)
def test_the_command_line_requires(require: str, code: int, function_directory: Any) -> None:
    """Unmet requirements exit with 78, met ones run, words that are none are usage."""
    code_directory = function_directory("neighbour", app=NEIGHBOUR)
    target = f"{code_directory}:app.handler"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "miniλ", "invoke", target, "--require", require),
            *("--sandbox", "bare"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert done.returncode == code, done.stderr
    assert (require.partition(":")[0] in done.stderr) is (code != 0)


@pytest.mark.parametrize(
    ("setting", "text", "word"),
    [
        ("without", "seccomp,landlok", "landlok"),
        ("without", "all", "all"),
        ("require", "memory", "memory"),
        ("require", "memory:harder", "memory:harder"),
        ("require", "files:hard,brain:soft", "brain:soft"),
    ],
)
def test_unknown_words_are_refused(setting: str, text: str, word: str) -> None:
    """A word that is none is refused, and the message has it."""
    with pytest.raises(InvalidParameterValue, match=f"{setting}: '{word}' is none of"):
        _limits(Settings(sandbox="bare", **{setting: text}))  # type: ignore[arg-type]


CHANGES = {
    "seccomp": {"syscalls"},
    "landlock": {"files"},
    "namespaces": {"files", "siblings", "tmp"},
    "users": {"siblings"},
    "volumes": {"tmp"},
    "cgroup": {"memory", "cpu", "freeze"},
}


@pytest.fixture(scope="module")
def all_limits() -> dict[str, str]:
    """Return what is held here with everything that there is."""
    return _limits(Settings())


@pytest.mark.parametrize("mechanism", levels.MECHANISMS)
def test_what_is_left_out_is_said(mechanism: str, all_limits: dict[str, str]) -> None:
    """Each mechanism that is switched off changes what is said to be held (78)."""
    if not IS_ROOT and mechanism in ("users", "volumes"):
        pytest.skip(f"only root has {mechanism}")
    if mechanism == "cgroup" and not all_limits["memory"].startswith("hard"):
        pytest.skip("no cgroup on this host holds memory for this user")
    held = _limits(Settings(without=mechanism))
    changed = {name for name in held if held[name] != all_limits[name]}

    assert changed >= CHANGES[mechanism]


# As nobody

IMPORTED = (
    *("click", "msgspec", "psutil", "pytest", "_pytest", "py", "pluggy", "iniconfig"),
    *("packaging", "pygments", "pytest_timeout"),
)


def test_the_same_holds_for_nobody() -> None:
    """A user without privileges runs this very file, and it holds for him as well."""
    if not IS_ROOT:
        pytest.skip("only root can become another user")
    program = _program_for_nobody()
    root = Path(tempfile.mkdtemp(prefix="minilambda-test-"))
    try:
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("miniλ", "workers", "tests/machine"):
            shutil.copytree(ROOT / name, root / name, ignore=ignore)
        for name in ("pyproject.toml", "tests/conftest.py", "tests/__init__.py"):
            shutil.copy(ROOT / name, root / name)
        # Copies of what is imported: ours may be where nobody may look.
        for name in IMPORTED:
            _copy_package(name, root)
        subprocess.run(["chmod", "-R", "a+rX", str(root)], check=True)
        for name in ("home", "tmp"):
            (root / name).mkdir()
            (root / name).chmod(0o777)
        done = subprocess.run(
            [
                *(*_as_nobody(), program, "-m", "pytest", "-q", "-p", "pytest_timeout"),
                *(
                    "-p",
                    "no:cacheprovider",
                    "-o",
                    "addopts=-ra",
                    str(root / "tests/machine/test_sandbox.py"),
                ),
            ],
            cwd=root,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin",
                "PYTHONPATH": str(root),
                "PYTHONDONTWRITEBYTECODE": "1",
                "HOME": str(root / "home"),
                "TMPDIR": str(root / "tmp"),
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) > 100, done.stdout[-3000:]


def _copy_package(name: str, target: Path) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    if spec.submodule_search_locations:
        shutil.copytree(spec.submodule_search_locations[0], target / name)
    else:
        shutil.copy(spec.origin, target)
