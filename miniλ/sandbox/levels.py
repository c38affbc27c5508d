"""This module is the levels: what is put around workers on this host, and how hard each holds.

    bare      rlimits, seccomp, no privileges
    landlock  and Landlock: other files, and signals to others
    userns    and namespaces, without root in a user namespace
    cgroup    and a cgroup: memory, CPU, processes
    root      and users of their own, volumes of exact size for /tmp

Each holds what those above it hold, as far as the host can do it. The highest is taken unless the
operator says less, and single mechanisms can be left out. What is not there is said: `limits` has
a line for each resource, `hard`, `soft` or `none`, and by what.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from miniλ.sandbox import Isolation, landlock

LEVELS = ("bare", "landlock", "userns", "cgroup", "root")
MECHANISMS = ("seccomp", "landlock", "namespaces", "users", "volumes", "cgroup")
STRENGTHS = ("none", "soft", "hard")


class Choice(NamedTuple):
    """What is put around workers. `missing` says why, by mechanism, where one was wanted."""

    level: str
    isolation: Isolation
    cgroup: bool
    users: bool
    volumes: bool
    missing: dict[str, str]


def choose(level: str, without: frozenset[str], found: dict[str, str], root: str) -> Choice:
    """Return what to put around workers, from what `probe.examine` found. Pure, but for the ABI.

    `level` is one of LEVELS, or "auto" for the highest; `root` is for `Isolation.root`.
    """
    is_root = os.geteuid() == 0
    highest = (
        LEVELS.index("root" if is_root else "cgroup") if level == "auto" else LEVELS.index(level)
    )
    missing: dict[str, str] = {}

    def has(mechanism: str, least: str, why: str) -> bool:
        if LEVELS.index(least) > highest or mechanism in without:
            return False
        if why:
            missing[mechanism] = why
        return not why

    as_root = is_root and highest >= LEVELS.index("root") and not found["root namespaces"]
    kind = ""
    if has("namespaces", "userns", "" if as_root else found["user namespaces"]):
        kind = "root" if as_root else "user"
    isolation = Isolation(
        namespaces=kind,
        landlock=landlock.abi() if has("landlock", "landlock", found["landlock"]) else 0,
        seccomp=has("seccomp", "bare", found["seccomp"]),
        root=root,
    )
    needs_root = found["root namespaces"]
    return Choice(
        level=LEVELS[highest],
        isolation=isolation,
        cgroup=has("cgroup", "cgroup", ""),
        # Without namespaces a user of its own could not reach its code below our directories.
        users=has("users", "root", needs_root or found["users"]) and kind == "root",
        volumes=has("volumes", "root", needs_root) and kind == "root",
        missing=missing,
    )


def limits(choice: Choice, groups: dict[str, str]) -> dict[str, str]:
    """Return how hard each resource is held, and by what. `groups` is what the cgroup holds."""
    isolation = choice.isolation
    held = dict(groups)
    held["descriptors"] = "hard: RLIMIT_NOFILE"
    held["timeout"] = "hard: SIGKILL at the deadline"
    if isolation.namespaces:
        if not held["kill"].startswith("hard"):
            held["kill"] = "hard: the pid namespace ends with its init"
        if not held["processes"].startswith("hard") and choice.users:
            held["processes"] = "hard: RLIMIT_NPROC of a user of its own"
        elif not held["processes"].startswith("hard") and os.geteuid() != 0:
            # Root is exempt, whatever the user namespace.
            held["processes"] = "hard: RLIMIT_NPROC in a user namespace of its own"
    held["tmp"] = _tmp(choice)
    held["files"] = _files(isolation)
    held["siblings"] = siblings(choice)
    held["sockets"] = (
        "hard: a root of its own"
        if isolation.namespaces
        else "none: sockets of the host that are files can be connected to"
    )
    held["syscalls"] = (
        "hard: seccomp" if isolation.seccomp else "none: every system call of this user is allowed"
    )
    held["network"] = "none: workers share the host's network, unless a function has none"
    return held


def _tmp(choice: Choice) -> str:
    if choice.volumes:
        return "hard: a file system of its size"
    if choice.isolation.namespaces:
        return "hard: a tmpfs of its size, which counts as memory"
    return "soft: RLIMIT_FSIZE per file, and a look at its size twice a second"


def _files(isolation: Isolation) -> str:
    if isolation.namespaces:
        return "hard: a root of its own" + (", and Landlock" if isolation.landlock else "")
    if isolation.landlock:
        return "hard: Landlock"
    return "none: workers run as this user and see its files"


def siblings(choice: Choice) -> str:
    """Return how hard workers are kept from each other's memory and signals, and by what."""
    isolation = choice.isolation
    if isolation.namespaces:
        return "hard: a pid namespace" + (" and a user of its own" if choice.users else "")
    if landlock.scopes_signals(isolation.landlock):
        return "hard: Landlock"
    if isolation.landlock:
        return "soft: Landlock stops tracing, its ABI here not signals"
    return "none: workers run as this user and may signal each other"


def unmet(required: dict[str, str], held: dict[str, str]) -> list[str]:
    """Return a line for each requirement, such as {"memory": "hard"}, that is not met here."""
    lines = []
    for resource, strength in sorted(required.items()):
        has = held[resource].partition(":")[0]
        if STRENGTHS.index(has) < STRENGTHS.index(strength):
            lines.append(f"{resource} is required to be {strength}, and is {held[resource]}")
    return lines
