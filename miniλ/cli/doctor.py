"""This module is the doctor: what this host can enforce, by what, and what to do about gaps.

It opens a supervisor as anybody would, and then does not believe it: each claim is tried by a
throw-away worker that does what the limit forbids (`proofs/app.py`). A claim that does not stand
is worth more to know than the claim.
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

CODE = Path(__file__).resolve().parent / "proofs"
MEMORY_MB = 256
TMP_MB = 512
# A look at what only a look holds comes twice a second.
LOOK = 1.5
# A thread that counts once a millisecond gets so far at most while its worker is being frozen.
FROZEN_COUNT = 400
IDLE = 1.0
EXEC_LOOKS = 100

# What to do where a limit is soft or none, for those who are root and those who are not.
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


class Finding(msgspec.Struct, frozen=True):
    """One resource: `level` is hard, soft or none; `seen` what a worker met that tried.

    `proved` is whether that agrees with the level; None where it was not tried. `remedy` is one
    line to do, or empty.
    """

    resource: str
    level: str
    by: str
    proved: bool | None = None
    seen: str = ""
    remedy: str = ""


async def examine(settings: Settings | None = None) -> list[Finding]:
    """Return a finding for each resource. Takes some seconds; nothing of it stays."""
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
        attempts = Attempts(supervisor)
        findings = []
        for resource, text in supervisor.limits.items():
            level, _, by = text.partition(": ")
            held, seen = await attempts.try_out(resource)
            remedy = "" if level == "hard" else _remedy(resource)
            # Soft may hold or not: it is no promise.
            proved = None if held is None or level == "soft" else held is (level == "hard")
            findings.append(Finding(resource, level, by, proved, seen, remedy))
        findings += [
            Finding("missing", "", f"{missing.mechanism}: {missing.why}")
            for missing in supervisor.journal.story(journal.Missing)
        ]
    findings.append(Finding("runtimes", "", await asyncio.to_thread(catalog.here_text)))
    return findings


class Attempts:
    """One attempt for each resource: whether it was held, and what was seen."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def try_out(self, resource: str) -> tuple[bool | None, str]:
        """Try to break what holds a resource; (None, "") where there is no attempt for it."""
        attempt = {
            "processes": self._processes,
            "timeout": self._timeout,
            "network": self._network,
            "sockets": self._sockets,
            "freeze": self._freeze,
            "kill": self._kill,
        }.get(resource)
        if attempt is not None:
            return await attempt()
        events: dict[str, dict[str, Any]] = {
            "memory": {"megabytes": MEMORY_MB},
            "cpu": {"share": MEMORY_MB / MB_PER_CPU},
            "descriptors": {"count": DESCRIPTORS},
            "tmp": {"megabytes": TMP_MB, "wait": self._look("tmp")},
            "files": {"path": str(self._supervisor.registry.path)},
            "siblings": {"pid": os.getpid()},
            "syscalls": {},
        }
        if resource not in events:
            return None, ""
        return self._judge(await self._ask(resource, events[resource]))

    def _look(self, resource: str) -> float:
        return LOOK if self._supervisor.limits[resource].startswith("soft") else 0.0

    async def _ask(self, resource: str, event: dict[str, Any], name: str = "doctor") -> Response:
        return await self._supervisor.invoke(name, {"try": resource, **event})

    def _judge(self, response: Response) -> tuple[bool, str]:
        failure = response.failure
        if failure is None:
            return response.payload["held"], response.payload["seen"]
        # Whoever was ended for it was held.
        return True, failure.error_message.partition("Error: ")[2] or failure.error_type

    async def _processes(self) -> tuple[bool | None, str]:
        # With the memory for so many: it is not memory that is asked about.
        await self._supervisor.update_function_configuration("doctor", memory_size=4096)
        try:
            return self._judge(await self._ask("processes", {"count": PROCESSES}))
        finally:
            await self._supervisor.update_function_configuration("doctor", memory_size=MEMORY_MB)

    async def _timeout(self) -> tuple[bool | None, str]:
        response = await self._ask("timeout", {}, "late")
        return (
            response.report.status == "timeout",
            f"ended after {response.report.duration_ms:.0f} ms",
        )

    async def _network(self) -> tuple[bool | None, str]:
        async with _port() as port:
            return self._judge(await self._ask("network", {"port": port}))

    async def _sockets(self) -> tuple[bool | None, str]:
        with tempfile.TemporaryDirectory(prefix="minilambda-") as directory:
            path = f"{directory}/socket"
            server = await asyncio.start_unix_server(lambda _reader, writer: writer.close(), path)
            async with server:
                return self._judge(await self._ask("sockets", {"path": path}))

    async def _freeze(self) -> tuple[bool | None, str]:
        await self._ask("freeze", {})
        await asyncio.sleep(IDLE)
        counted = (await self._ask("freeze", {})).payload["counted"]
        return counted < FROZEN_COUNT, f"a thread counted to {counted} in {IDLE:g} s of idleness"

    async def _kill(self) -> tuple[bool | None, str]:
        token = uuid.uuid4().hex
        response = await self._ask("kill", {"token": token})
        for _ in range(EXEC_LOOKS):  # it is on its way: exec takes a moment
            if carriers(token):
                break
            await asyncio.sleep(0.02)
        else:
            return None, "the daemon was not seen"
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


def carriers(token: str) -> list[psutil.Process]:
    """Return the live processes that carry this argument."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        alive = process.info["status"] != psutil.STATUS_ZOMBIE
        if alive and token in (process.info["cmdline"] or ()):
            found.append(process)
    return found


@contextlib.asynccontextmanager
async def _port() -> AsyncIterator[int]:
    """Listen on a port of the loopback interface."""
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _remedy(resource: str) -> str:
    if resource == "memory" and "cgroup_disable=memory" in _read("/proc/cmdline"):
        # The Raspberry Pi's firmware puts it there.
        return "add cgroup_enable=memory to the kernel's command line and reboot"
    restricted = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
    found = REMEDIES.get(resource, ("", ""))
    if found is NAMESPACES and os.geteuid() != 0 and _read(restricted).strip() == "1":
        return "allow user namespaces: sysctl kernel.apparmor_restrict_unprivileged_userns=0"
    return found[0 if os.geteuid() == 0 else 1]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
