"""This module is the doctor: what this host can enforce, by what, and what to do about gaps.

It asks the same code that a supervisor asks when it opens, by doing: a cgroup that a limit can
be written to is made and removed again. A claim of `hard` is one the kernel holds alone.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

import msgspec

from miniλ import runtimes
from miniλ.errors import InvalidParameterValue
from miniλ.sandbox import hierarchies
from miniλ.settings import load


class Finding(msgspec.Struct, frozen=True):
    """One resource: `level` is hard, soft or none; `remedy` one line to do, or empty."""

    resource: str
    level: str
    by: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Return a finding for each resource; makes one cgroup and removes it."""
    choice = load().cgroup
    try:
        hierarchy, refused = hierarchies.open_hierarchy(choice, f"doctor-{os.getpid()}")
    except OSError as exc:
        msg = f"Settings: cgroup={choice!r} cannot be had on this host: {exc}"
        raise InvalidParameterValue(msg) from exc
    try:
        limits = _tried(hierarchy)
    finally:
        hierarchy.close()
    findings = []
    for resource, text in limits.items():
        level, _, by = text.partition(": ")
        remedy = "" if level == "hard" else _remedy(resource)
        findings.append(Finding(resource, level, by, remedy))
    findings += [Finding("note", "", why) for why in refused]
    findings.append(Finding("runtimes", "", runtimes.here_text()))
    return findings


def _tried(hierarchy: hierarchies.Hierarchy) -> dict[str, str]:
    """Return the enforcement, with what a real group refuses marked as such."""
    limits = dict(hierarchy.limits)
    group = hierarchy.make(f"doctor-{os.getpid()}")
    try:
        group.limit(128 << 20, 1024)
    except OSError as exc:
        limits["memory"] = f"none: {exc}"
    try:
        group.throttle(0.0724)
    except OSError as exc:
        limits["cpu"] = f"none: {exc}"
    group.remove()
    return limits


def _remedy(resource: str) -> str:
    root = os.geteuid() == 0
    if resource in ("memory", "cpu", "processes", "kill", "freeze"):
        if resource == "memory" and "cgroup_disable=memory" in _command_line():
            return "add cgroup_enable=memory to the kernel's command line and reboot"
        if not root:
            return "run under: systemd-run --user --scope -p Delegate=yes"
        return "mount cgroup2 with the memory, cpu and pids controllers"
    if resource in ("files", "siblings"):
        return "run only functions that you trust with this user's files"
    if resource == "tmp":
        return "watch free space: a function can overshoot for half a second"
    return ""


def _command_line() -> str:
    # The Raspberry Pi's firmware puts cgroup_disable=memory there (see `uname -m`: aarch64).
    if platform.system() != "Linux":
        return ""
    try:
        return Path("/proc/cmdline").read_text(encoding="utf-8")
    except OSError:
        return ""
