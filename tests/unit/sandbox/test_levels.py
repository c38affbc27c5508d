"""Tests of levels: what is put around workers, and how hard each limit is said to be."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from miniλ.sandbox import Isolation, landlock, levels
from miniλ.sandbox.hierarchies import NoCgroup
from miniλ.sandbox.levels import LEVELS, MECHANISMS, Choice

ALL_WORK = dict.fromkeys(("landlock", "seccomp", "root namespaces", "user namespaces", "users"), "")
NO_GROUPS = {"memory": "soft: a", "cpu": "soft: b", "processes": "none: c", "freeze": "soft: d",
             "kill": "soft: e"}  # fmt: skip
HARD_GROUPS = {name: f"hard: {name}" for name in NO_GROUPS}


@pytest.fixture(autouse=True)
def _abi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel have ABI 6 of Landlock."""
    monkeypatch.setattr(landlock, "abi", lambda: 6)


@pytest.fixture(params=[0, 1000], ids=["root", "user"])
def uid(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the user that the supervisor runs as."""
    monkeypatch.setattr(os, "geteuid", lambda: request.param)
    return int(request.param)


def choose(level: str = "auto", *without: str, **reasons: str) -> Choice:
    """Return the choice on a host where all mechanisms work but those with a reason."""
    all_reasons = {**ALL_WORK, **{name.replace("_", " "): why for name, why in reasons.items()}}
    return levels.choose(level, frozenset(without), all_reasons, "/root-directory")


def mechanisms(choice: Choice) -> set[str]:
    """Return the mechanisms that are put around workers."""
    isolation = choice.isolation
    has = {
        "seccomp": isolation.seccomp,
        "landlock": isolation.landlock > 0,
        "namespaces": isolation.namespaces != "",
        "users": choice.users,
        "volumes": choice.volumes,
        "cgroup": choice.cgroup,
    }
    return {name for name, is_on in has.items() if is_on}


# The choice


def test_auto_is_the_highest_level_of_the_user(uid: int) -> None:
    """Root has all mechanisms; another user has neither users nor volumes."""
    choice = choose()

    expected = set(MECHANISMS) if uid == 0 else set(MECHANISMS) - {"users", "volumes"}
    assert expected == mechanisms(choice)
    assert choice.level == ("root" if uid == 0 else "cgroup")
    assert choice.isolation.namespaces == ("root" if uid == 0 else "user")
    assert choice.missing == {}


def test_each_level_adds_to_the_ones_before(uid: int) -> None:
    """No level lacks a mechanism of a lower one."""
    by_level = [mechanisms(choose(level)) for level in LEVELS]

    assert all(lower <= higher for lower, higher in itertools.pairwise(by_level))
    assert by_level[0] == {"seccomp"}
    assert "namespaces" not in by_level[LEVELS.index("landlock")]
    assert ("users" in by_level[-1]) == (uid == 0)


@pytest.mark.usefixtures("uid")
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_mechanism_can_be_left_out(mechanism: str) -> None:
    """It is not missing: the operator left it out. Users and volumes need namespaces."""
    choice = choose("auto", mechanism)

    assert mechanism not in mechanisms(choice)
    assert choice.missing == {}
    if mechanism == "namespaces":
        assert not choice.users
        assert not choice.volumes


@pytest.mark.usefixtures("uid")
@pytest.mark.parametrize("mechanism", ["landlock", "seccomp"])
def test_a_mechanism_that_the_host_lacks_is_missing_with_its_reason(mechanism: str) -> None:
    """The rest is there."""
    choice = choose(**{mechanism: "the kernel is old"})

    assert mechanism not in mechanisms(choice)
    assert choice.missing == {mechanism: "the kernel is old"}
    assert "namespaces" in mechanisms(choice)


def test_root_without_the_rights_of_root_has_a_user_namespace(uid: int) -> None:
    """Root in a container: namespaces inside a user namespace, and no users or volumes."""
    choice = choose(root_namespaces="Operation not permitted")

    assert choice.isolation.namespaces == "user"
    assert not choice.users
    assert not choice.volumes
    # Without root they are no part of the level, so they are not missing either.
    assert set(choice.missing) == ({"users", "volumes"} if uid == 0 else set())


# The limits


def limits(choice: Choice, groups: dict[str, str] = NO_GROUPS) -> dict[str, str]:
    """Return how hard each limit is: one word."""
    return {name: line.partition(":")[0] for name, line in levels.limits(choice, groups).items()}


def test_every_limit_is_hard_at_level_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """But the network, which is a function's choice."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)

    strengths = limits(choose(), HARD_GROUPS)

    assert {name for name, strength in strengths.items() if strength != "hard"} == {"network"}


def test_level_bare_promises_little(uid: int) -> None:
    """Rlimits, seccomp and the deadline are hard; files, siblings and sockets are open."""
    del uid
    strengths = limits(choose("bare"))

    hard = {name for name, strength in strengths.items() if strength == "hard"}
    none = {name for name, strength in strengths.items() if strength == "none"}
    assert hard == {"descriptors", "timeout", "syscalls"}
    assert none == {"files", "siblings", "sockets", "network", "processes"}
    assert strengths["tmp"] == "soft"


def test_a_pid_namespace_ends_with_its_init(uid: int) -> None:
    """Without a cgroup, kill is hard; processes are, if RLIMIT_NPROC counts one worker's alone."""
    lines = levels.limits(choose("userns"), NO_GROUPS)

    assert lines["kill"] == "hard: the pid namespace ends with its init"
    assert lines["processes"].startswith("none" if uid == 0 else "hard")


def test_groups_that_are_hard_stay(uid: int) -> None:
    """What a cgroup holds is said to be held by the cgroup."""
    del uid
    lines = levels.limits(choose(), HARD_GROUPS)

    assert {name: lines[name] for name in HARD_GROUPS} == HARD_GROUPS


@pytest.mark.parametrize(
    ("abi", "strength"), [(0, "none"), (1, "soft"), (5, "soft"), (6, "hard"), (7, "hard")]
)
def test_siblings_without_namespaces_are_landlocks(abi: int, strength: str) -> None:
    """Signals are kept inside from ABI 6 on; tracing is from ABI 1 on."""
    isolation = Isolation(landlock=abi)
    fields: dict[str, Any] = dict.fromkeys(("cgroup", "users", "volumes"), False)
    choice = Choice(level="landlock", isolation=isolation, missing={}, **fields)

    assert strength == levels.siblings(choice).partition(":")[0]


def test_every_hierarchy_names_the_same_limits() -> None:
    """The keys that `limits` reads and passes on are those of a hierarchy."""
    assert set(NO_GROUPS) == set(NoCgroup().limits)


# Requirements


@pytest.mark.parametrize(
    ("required", "held", "is_met"),
    [
        ("hard", "hard", True), ("soft", "hard", True), ("none", "none", True),
        ("hard", "soft", False), ("soft", "none", False), ("soft", "soft", True),
    ],
)  # fmt: skip
def test_a_requirement_is_met_by_what_is_as_hard(required: str, held: str, *, is_met: bool) -> None:
    """Else there is one sentence with the resource, and how it is held."""
    sentences = levels.unmet({"memory": required}, {"memory": f"{held}: by it"})

    expected = f"memory is required to be {required}, and is {held}: by it"
    assert sentences == ([] if is_met else [expected])
