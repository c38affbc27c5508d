"""Levels: which mechanisms are put around workers on this host, and how hard each limit is.

    bare      rlimits, seccomp, no privileges
    landlock  and Landlock: other files, and signals to others
    userns    and namespaces, without root in a user namespace
    cgroup    and a cgroup: memory, CPU, processes
    root      and users of their own, volumes of exact size for /tmp

Each level adds to the ones above it, as far as the host has the mechanism. The highest is taken
unless the operator sets a lower one, and single mechanisms can be left out. `limits` has a line for
each resource: `hard`, `soft` or `none`, and by which mechanism.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from miniλ.sandbox import Isolation, landlock

LEVELS = ("bare", "landlock", "userns", "cgroup", "root")
MECHANISMS = ("seccomp", "landlock", "namespaces", "users", "volumes", "cgroup")
STRENGTHS = ("none", "soft", "hard")


class Choice(NamedTuple):
    """What is put around workers. `missing` has the reasons why a mechanism is not, by its name."""

    level: str
    isolation: Isolation
    cgroup: bool
    users: bool
    volumes: bool
    missing: dict[str, str]


def choose(level: str, without: frozenset[str], reasons: dict[str, str], root: str) -> Choice:
    """Return what to put around workers. Pure, but for the user and Landlock's ABI.

    `level` is one of LEVELS, or "auto" for the highest; `reasons` is the report of `probe.examine`;
    `root` is for `Isolation.root`.
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

    as_root = is_root and highest >= LEVELS.index("root") and not reasons["root namespaces"]
    kind = ""
    if has("namespaces", "userns", "" if as_root else reasons["user namespaces"]):
        kind = "root" if as_root else "user"
    isolation = Isolation(
        namespaces=kind,
        landlock=landlock.abi() if has("landlock", "landlock", reasons["landlock"]) else 0,
        seccomp=has("seccomp", "bare", reasons["seccomp"]),
        root=root,
    )
    needs_root = reasons["root namespaces"]
    return Choice(
        level=LEVELS[highest],
        isolation=isolation,
        cgroup=has("cgroup", "cgroup", ""),
        # Without namespaces a worker's user could not reach code in the supervisor's directories.
        users=has("users", "root", needs_root or reasons["users"]) and kind == "root",
        volumes=has("volumes", "root", needs_root) and kind == "root",
        missing=missing,
    )


def limits(choice: Choice, groups: dict[str, str]) -> dict[str, str]:
    """Return each limit, how hard it is and by what. `groups` is `limits` of the hierarchy."""
    isolation = choice.isolation
    lines = dict(groups)
    lines["descriptors"] = "hard: RLIMIT_NOFILE"
    lines["timeout"] = "hard: SIGKILL at the deadline"
    if isolation.namespaces:
        if not lines["kill"].startswith("hard"):
            lines["kill"] = "hard: the pid namespace ends with its init"
        if not lines["processes"].startswith("hard") and choice.users:
            lines["processes"] = "hard: RLIMIT_NPROC of a user of its own"
        elif not lines["processes"].startswith("hard") and os.geteuid() != 0:
            # The host's root is exempt in every user namespace.
            lines["processes"] = "hard: RLIMIT_NPROC in a user namespace of its own"
    lines["tmp"] = _tmp(choice)
    lines["files"] = _files(isolation)
    lines["siblings"] = siblings(choice)
    lines["sockets"] = (
        "hard: a root of its own"
        if isolation.namespaces
        else "none: sockets of the host that are files can be connected to"
    )
    lines["syscalls"] = (
        "hard: seccomp" if isolation.seccomp else "none: every system call of this user is allowed"
    )
    lines["network"] = "none: workers share the host's network, unless a function has none"
    return lines


def _tmp(choice: Choice) -> str:
    if choice.volumes:
        return "hard: a file system of its size"
    if choice.isolation.namespaces:
        return "hard: a tmpfs of its size, which counts as memory"
    return "soft: RLIMIT_FSIZE per file, and its size is polled every 500 ms"


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


def unmet(requirements: dict[str, str], lines: dict[str, str]) -> list[str]:
    """Return a sentence for each requirement, such as {"memory": "hard"}, that is not met here.

    `lines` are from `limits`.
    """
    sentences = []
    for resource, strength in sorted(requirements.items()):
        has = lines[resource].partition(":")[0]
        if STRENGTHS.index(has) < STRENGTHS.index(strength):
            sentences.append(f"{resource} is required to be {strength}, and is {lines[resource]}")
    return sentences
