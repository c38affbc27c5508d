"""What this host enforces: each claim of a supervisor, tried by a worker that breaks the limit.

The doctor opens a supervisor like any other embedder and does not trust `Supervisor.limits`: for
each resource it invokes the function in `probes/app.py`, which does what the limit forbids. A claim
that a probe refutes is the most useful line of the table.

These probes try what a worker is kept from, from inside its sandbox. Those of `miniλ.sandbox.probe`
try which mechanisms of a sandbox the kernel gives, before there is a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from miniλ import journal
from miniλ.runtimes import catalog
from miniλ.supervisor import Supervisor
from miniλ.worker.equipment import DESCRIPTORS, MB_PER_CPU, PROCESSES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from miniλ.model import Response
    from miniλ.settings import Settings

CODE = Path(__file__).resolve().parent / "probes"
MEMORY_MB = 256
TMP_MB = 512
# A soft limit on /tmp is polled every 0.5 s; this is long enough for two polls.
SOFT_SECONDS = 1.5
# A worker is frozen 50 ms after its answer. A thread that counts once a millisecond in IDLE_SECONDS
# stays below this if it was frozen, also on a busy host.
FROZEN_COUNT = 400
IDLE_SECONDS = 1.0
# The daemon of the probe `kill` is polled until its exec is done.
EXEC_POLLS, EXEC_POLL_SECONDS = 100, 0.02

# How the `seen` of a probe begins that raised an exception of its own, or hung: a bug of ours.
NOT_TRIED = "not tried"
# Ends of a worker by a limit: SIGKILL at the memory or /tmp limit, SIGSYS by seccomp.
STOPPED = ("signal: killed", "signal: bad system call")

# What to do about a limit that is soft or none: as root, and as any other user.
CGROUP = (
    "mount cgroup2 with the memory, cpu and pids controllers",
    "run under: systemd-run --user --scope -p Delegate=yes",
)
NAMESPACES = (
    "give root CAP_SYS_ADMIN (a container: --privileged), on Linux 5.12 or newer",
    "allow user namespaces: sysctl user.max_user_namespaces=10000",
)
REMEDIES = {
    **dict.fromkeys(("memory", "cpu", "freeze"), CGROUP),
    **dict.fromkeys(("processes", "kill", "files", "siblings", "sockets"), NAMESPACES),
    "tmp": ("install e2fsprogs, for mkfs.ext4 and loop devices", NAMESPACES[1]),
    "syscalls": ("use a kernel with CONFIG_SECCOMP_FILTER, on x86_64 or aarch64",) * 2,
    "network": ("create functions that need none with network='none'",) * 2,
}


class Check(msgspec.Struct, frozen=True):
    """One line of the table: a resource, what holds it, and whether a probe agrees.

    `level` is hard, soft or none, and `seen` what the probe met. `proved`: hard and the probe was
    stopped, or none and it was not. It is None if there is no probe, if the probe itself failed
    (`seen` begins with NOT_TRIED), or if the level is soft: then the probe may win a race with the
    poll. `remedy` is one line to do, or empty.
    """

    resource: str
    level: str
    by: str
    proved: bool | None = None
    seen: str = ""
    remedy: str = ""


async def examine(settings: Settings | None = None) -> list[Check]:
    """Return a check of each resource; takes about 10 seconds and leaves nothing behind."""
    async with Supervisor(settings=settings) as supervisor:
        await supervisor.create_function(
            "doctor",
            CODE,
            "app.handler",
            memory_size=MEMORY_MB,
            timeout=30,
            ephemeral_storage=TMP_MB,
        )
        await supervisor.create_function("late", CODE, "app.handler", timeout=1)
        probes = Probes(supervisor)
        absent = supervisor.journal.story(journal.MechanismMissing)
        level = supervisor.parts.equipment.choice.level
        if absent:
            level += f", without {', '.join(fact.mechanism for fact in absent)}"
        checks = [Check("level", "", level)]
        for resource, text in supervisor.limits.items():
            level, _, by = text.partition(": ")
            held, seen = await probes.run(resource)
            remedy = "" if level == "hard" else _remedy(resource)
            proved = None if held is None or level == "soft" else held is (level == "hard")
            checks.append(Check(resource, level, by, proved, seen, remedy))
        checks += [
            Check("missing", "", f"{missing.mechanism}: {missing.why}") for missing in absent
        ]
    checks.append(Check("runtimes", "", await asyncio.to_thread(catalog.here_text)))
    return checks


class Probes:
    """One probe for each resource: whether the limit held, and what the probe met."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def run(self, resource: str) -> tuple[bool | None, str]:
        """Probe a resource; return (None, "") if there is no probe for it."""
        probe = {
            "processes": self._processes,
            "timeout": self._timeout,
            "network": self._network,
            "sockets": self._sockets,
            "freeze": self._freeze,
            "kill": self._kill,
        }.get(resource)
        if probe is not None:
            return await probe()
        events: dict[str, dict[str, Any]] = {
            "memory": {"megabytes": MEMORY_MB},
            "cpu": {"share": MEMORY_MB / MB_PER_CPU},
            "descriptors": {"count": DESCRIPTORS},
            "tmp": {"megabytes": TMP_MB, "wait": self._wait("tmp")},
            "files": {"path": str(self._supervisor.parts.registry.path)},
            "siblings": {"pid": os.getpid()},
            "syscalls": {},
        }
        if resource not in events:
            return None, ""
        return judge(await self._invoke(resource, events[resource]))

    def _wait(self, resource: str) -> float:
        return SOFT_SECONDS if self._supervisor.limits[resource].startswith("soft") else 0.0

    async def _invoke(self, resource: str, event: dict[str, Any], name: str = "doctor") -> Response:
        return await self._supervisor.invoke(name, {"probe": resource, **event})

    async def _processes(self) -> tuple[bool | None, str]:
        # With memory for 1,024 processes: the memory limit must not be what refuses them.
        await self._supervisor.update_function_configuration("doctor", memory_size=4096)
        try:
            return judge(await self._invoke("processes", {"count": PROCESSES}))
        finally:
            await self._supervisor.update_function_configuration("doctor", memory_size=MEMORY_MB)

    async def _timeout(self) -> tuple[bool | None, str]:
        response = await self._invoke("timeout", {}, "late")
        return (
            response.report.status == "timeout",
            f"ended after {response.report.duration_ms:.0f} ms",
        )

    async def _network(self) -> tuple[bool | None, str]:
        async with _port() as port:
            return judge(await self._invoke("network", {"port": port}))

    async def _sockets(self) -> tuple[bool | None, str]:
        with tempfile.TemporaryDirectory(prefix="minilambda-") as directory:
            path = f"{directory}/socket"
            server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)
            async with server:
                return judge(await self._invoke("sockets", {"path": path}))

    async def _freeze(self) -> tuple[bool | None, str]:
        await self._invoke("freeze", {})
        await asyncio.sleep(IDLE_SECONDS)
        response = await self._invoke("freeze", {})
        if response.is_failure:
            return judge(response)
        counted = response.payload["counted"]
        return (
            counted < FROZEN_COUNT,
            f"a thread counted to {counted} in {IDLE_SECONDS:g} s of idleness",
        )

    async def _kill(self) -> tuple[bool | None, str]:
        token = uuid.uuid4().hex
        response = await self._invoke("kill", {"token": token})
        if response.is_failure:
            return judge(response)
        for _ in range(EXEC_POLLS):  # the daemon execs after the answer
            if carriers(token):
                break
            await asyncio.sleep(EXEC_POLL_SECONDS)
        else:
            return None, f"{NOT_TRIED}: the daemon did not start"
        # A new configuration stops the workers of the old one.
        await self._supervisor.update_function_configuration("doctor", timeout=29)
        worker_id = response.report.worker_id
        await self._supervisor.journal.until(
            journal.WorkerExited, lambda fact: fact.worker_id == worker_id
        )
        left = carriers(token)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return not left, "a daemon outlived its worker" if left else "a daemon went with its worker"


def judge(response: Response) -> tuple[bool | None, str]:
    """Return whether the limit held, and what the probe met; None if the probe itself failed."""
    failure = response.failure
    if failure is None:
        return response.payload["held"], response.payload["seen"]
    text = failure.error_message.partition("Error: ")[2]
    if failure.error_type == "MemoryError" or any(end in text for end in STOPPED):
        return True, text or failure.error_type
    return None, f"{NOT_TRIED}: {failure.error_type}: {failure.error_message}"


def carriers(token: str) -> list[psutil.Process]:
    """Return the live processes that have this argument."""
    live = []
    for process in psutil.process_iter(["cmdline", "status"]):
        is_alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if is_alive and token in (process.info["cmdline"] or ()):
            live.append(process)
    return live


@contextlib.asynccontextmanager
async def _port() -> AsyncIterator[int]:
    """Yield a port of the host's loopback that accepts connections."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _remedy(resource: str) -> str:
    if resource == "memory" and "cgroup_disable=memory" in _read("/proc/cmdline"):
        # The firmware of the Raspberry Pi adds cgroup_disable=memory.
        return "add cgroup_enable=memory to the kernel's command line and reboot"
    restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    remedies = REMEDIES.get(resource, ("", ""))
    if remedies is NAMESPACES and os.geteuid() != 0 and _read(restricted).strip() == "1":
        return "allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    return remedies[0 if os.geteuid() == 0 else 1]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
