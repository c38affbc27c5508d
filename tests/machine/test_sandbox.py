"""The sandbox of a real worker at each level: limits, privileges, /etc, /tmp, the network."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import resource
from pathlib import Path
from typing import Any

import pytest

import miniλ
from miniλ import journal
from miniλ.errors import InvalidParameterValue
from miniλ.sandbox import namespaces
from tests.machine.places import (
    DESCRIPTORS,
    IS_ROOT,
    MB,
    MB_PER_CPU,
    NAMESPACED,
    PROCESSES,
    Runner,
    every_level,
    in_namespaces,
)

# Limits, from inside and from outside

REPORT = """
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


def _status(pid: int) -> dict[str, str]:
    """Return the fields of /proc/<pid>/status, as the host shows them."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@every_level
def test_limits_from_inside_and_outside(at: Runner, function_directory: Any) -> None:
    """Limits, privileges, umask and session are as they should be, read on both sides."""
    place = at.place
    code = function_directory("report", app=REPORT)

    async def scenario() -> tuple[dict[str, Any], int, dict[str, str]]:
        async with place.subject(code, "app.handler") as supervisor:
            response = await place.beside({})
            assert response.failure is None, response.log
            started = supervisor.journal.story(journal.WorkerStarted)[-1]
            outside = _status(started.pid)
            _check_limits_outside(started.pid)
            _check_cgroup(started.pid, supervisor.limits)
            return response.payload, started.pid, outside

    inside, pid, outside = at.run(scenario())
    limits = inside["limits"]

    assert limits["RLIMIT_CORE"] == [0, 0]
    assert limits["RLIMIT_NOFILE"] == [DESCRIPTORS, DESCRIPTORS]
    assert limits["RLIMIT_DATA"] == [(512 + 160) * MB] * 2
    has_namespaces = place.name in NAMESPACED
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    assert limits["RLIMIT_FSIZE"] == ([hard, hard] if has_namespaces else [512 * MB, 512 * MB])
    if has_namespaces:
        assert limits["RLIMIT_NPROC"] == [PROCESSES, PROCESSES]
    assert inside["umask"] == 0o077
    assert inside["written"] is (place.name == "bare")
    for status in (inside["status"], outside):
        assert status["Seccomp"].strip() == "2"
        assert status["NoNewPrivs"].strip() == "1"
        assert {int(status[f"Cap{kind}"], 16) for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} <= (
            {0} if IS_ROOT or has_namespaces else {0, int(status["CapBnd"], 16)}
        )
    if has_namespaces:
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
    """Read the limits of the cgroup in which the kernel has the worker."""
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
    """A cgroup2 enforces memory, CPU, processes, freeze and kill, without root."""
    place = at.place

    async def scenario() -> miniλ.Response:
        return await place.supervisor.invoke("neighbour", {})

    report = at.run(scenario()).report
    names = {name for name, limit in report.limits.items() if limit.startswith("hard: cgroup2 ")}

    # The control: one level below there is no cgroup.
    by_cgroup = {"memory", "cpu", "processes", "freeze", "kill"}
    assert names == (by_cgroup if place.name == "cgroup" else set())
    assert report.max_memory_used_mb > 0


@in_namespaces
def test_workers_share_no_namespace_and_no_user(at: Runner, function_directory: Any) -> None:
    """Two live workers, even of one function, have namespaces and users of their own."""
    place = at.place
    code = function_directory("report", app=REPORT.replace("mask = os.umask(0)", WAIT, 1))

    async def scenario() -> list[dict[str, Any]]:
        async with place.subject(code, "app.handler") as supervisor:
            both = [asyncio.ensure_future(supervisor.invoke("subject", {})) for _ in range(2)]
            return [(await one).payload for one in both]

    one, two = at.run(scenario())

    for name in ("mnt", "pid", "ipc", "uts"):
        assert one["spaces"][name] != two["spaces"][name], name
    if place.name == "root":
        assert one["uid"] != two["uid"]
        assert min(*one["uid"], *two["uid"]) >= 1_900_000_000


# Busy for 300 ms, so that the second invocation gets a second worker.
WAIT = "time.sleep(0.3)\n    mask = os.umask(0)"


READ_ETC = """
import hashlib, os

def content(path):
    if os.path.isdir(path):
        return sorted(os.listdir(path))
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()

def is_writable(path):
    try:
        os.close(os.open(path + "/new" if os.path.isdir(path) else path, os.O_WRONLY | os.O_CREAT))
    except OSError:
        return False
    return True

def handler(event, context):
    return {
        "names": sorted(os.listdir("/etc")),
        "contents": {name: content("/etc/" + name) for name in event},
        "writable": [name for name in ["", *event] if is_writable("/etc/" + name)],
    }
"""


@in_namespaces
def test_etc_is_a_choice_of_the_hosts(at: Runner, function_directory: Any) -> None:
    """A worker reads the listed files of the host's /etc, sees no others, and writes none."""
    names = [name for name in namespaces.ETC if Path("/etc", name).exists()]
    code = function_directory("etc", app=READ_ETC)

    async def scenario() -> miniλ.Response:
        async with at.place.subject(code, "app.handler") as supervisor:
            return await supervisor.invoke("subject", names)

    response = at.run(scenario())

    assert response.failure is None, response.log
    assert {"passwd", "hosts"} <= set(names)
    assert response.payload == {
        "names": sorted({name.partition("/")[0] for name in names}),
        "contents": {name: _content(Path("/etc", name)) for name in names},
        "writable": [],
    }


def _content(path: Path) -> object:
    """Return the names in a directory, or a file's digest, as the handler above does."""
    if path.is_dir():
        return sorted(os.listdir(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


# /tmp


@in_namespaces
def test_tmp_has_exactly_its_size(at: Runner, function_directory: Any) -> None:
    """A file of 512 MB fits into a /tmp of 512 MB, and the next megabyte is ENOSPC.

    The function has memory for it: without volumes /tmp is memory, which a cgroup limits.
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
    if at.place.supervisor.parts.equipment.choice.missing.get("volumes"):
        pytest.skip(f"no volumes: {at.place.supervisor.parts.equipment.choice.missing['volumes']}")
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
    """/tmp is kept between invocations and through a timeout, and no other function gets it."""
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
    """A function with network="none" has a loopback that works, and no other interface."""
    code = function_directory("network", app=INTERFACES)

    async def scenario() -> miniλ.Response:
        async with at.place.subject(code, "app.handler", network="none"):
            return await at.place.beside({})

    response = at.run(scenario())

    # Some kernels give each namespace tunnels as well, which are down.
    tunnels = re.compile(r"(tunl|gre|gretap|erspan|ip_vti|ip6_vti|sit|ip6tnl|ip6gre)0")
    assert [name for name in response.payload if not tunnels.fullmatch(name)] == ["lo"]
    assert response.report.limits["network"].startswith("hard")


@pytest.mark.parametrize("at", ["bare", "landlock"], indirect=True, scope="module")
def test_no_network_is_refused_without_namespaces(at: Runner, function_directory: Any) -> None:
    """Where there are no network namespaces, network="none" is refused, not ignored."""
    code = function_directory("network", app=INTERFACES)

    async def scenario() -> None:
        with pytest.raises(InvalidParameterValue, match="network='none' needs namespaces"):
            await at.place.supervisor.create_function(
                "subject", code, "app.handler", network="none"
            )

    at.run(scenario())
