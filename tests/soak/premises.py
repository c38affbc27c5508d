"""What a supervisor has on this machine, counted from outside, also after it is closed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psutil

from miniλ.sandbox import processes

if TYPE_CHECKING:
    import miniλ


class Premises:
    """What a supervisor has on this machine, seen from outside, also after it is closed."""

    def __init__(self, supervisor: miniλ.Supervisor) -> None:
        state = supervisor.parts.state
        self.instance = state.instance
        self.path = os.path.realpath(state.path)
        document = (state.path / "instance.json").read_bytes()
        self.groups: list[str] = msgspec.json.decode(document)["groups"]
        self._process = psutil.Process()

    def count(self) -> dict[str, int]:
        """Return the number of each kind. Call it in a thread: it reads /proc for some ms."""
        return {
            "RSS": self._process.memory_info().rss,
            **_in_use(),
            "descriptors": len(self.descriptors()),
            "cgroups": len(self.cgroups()),
            "mounts": len(self.mounts()),
            "loop devices": len(self.loops()),
            "entries of tmp": len(_listed(f"{self.path}/tmp")),
            "packages": len(_listed(f"{self.path}/code")),
            "processes": len(self._process.children(recursive=True)),
        }

    def left(self) -> list[str]:
        """Return the names of what a closed supervisor has left."""
        names = [*self.cgroups(), *self.mounts(), *self.loops()]
        names += [f"process {pid}" for pid in processes.marked(self.instance)]
        names += [repr(child) for child in self._process.children(recursive=True)]
        return names + [self.path] * os.path.exists(self.path)

    def descriptors(self) -> list[str]:
        """Return the files open in this process, without those of spare cgroups."""
        targets = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # the listing's own
                target = os.readlink(f"/proc/self/fd/{name}")
                if not (target.startswith(tuple(self.groups)) and os.path.exists(target)):
                    targets.append(target)
        return targets

    def cgroups(self) -> list[str]:
        """Return the directories of all cgroups, the supervisor's own included."""
        return [path for group in self.groups for path, _, _ in os.walk(group)]

    def mounts(self) -> list[str]:
        """Return the mount points in the state directory, in our namespace and the zygotes'."""
        points = []
        for pid in ("self", *(child.pid for child in self._process.children())):
            with contextlib.suppress(OSError):  # gone meanwhile
                lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
                points += [line.split(" ")[4] for line in lines]
        return [point for point in points if point.startswith(f"{self.path}/")]

    def loops(self) -> list[str]:
        """Return the loop devices that are bound to a file in the state directory."""
        devices = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            with contextlib.suppress(OSError):  # unbound meanwhile
                if file.read_text(encoding="utf-8").startswith(f"{self.path}/"):
                    devices.append(f"/dev/{file.parts[3]}")
        return devices


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of malloc.h: mallinfo(3)."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def _in_use() -> dict[str, int]:
    """Return the memory in use; malloc's only if glibc has mallinfo2 (2.33)."""
    devices = {"Python blocks": sys.getallocatedblocks()}
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is not None:
        mallinfo.restype = _Mallinfo
        info = mallinfo()
        devices["malloc in use, kB"] = (info.uordblks + info.hblkhd) // 1024
    return devices


def _listed(path: str) -> list[str]:
    """Return the names in a directory; none if it does not exist."""
    return os.listdir(path) if os.path.isdir(path) else []
