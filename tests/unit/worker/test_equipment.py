"""Tests of a worker's equipment: how the limits of a function's workers are held."""

from __future__ import annotations

from typing import Any

import pytest

from miniλ.model import FunctionConfiguration
from miniλ.sandbox import Isolation, levels
from miniλ.sandbox.hierarchies import Hierarchy
from miniλ.sandbox.levels import Choice
from miniλ.worker.equipment import Equipment

SOFT = {"memory": "soft: a", "cpu": "soft: b", "processes": "none: c", "freeze": "soft: d",
        "kill": "soft: e"}  # fmt: skip
HARD = {name: f"hard: cgroup {name}" for name in SOFT}
CHOICE = Choice(
    level="root",
    isolation=Isolation(namespaces="root", landlock=6, seccomp=True),
    cgroup=True,
    users=True,
    volumes=True,
    missing={},
)


def limits_of(groups: dict[str, str], choice: Choice = CHOICE, **changes: Any) -> dict[str, str]:
    """Return what is not as the supervisor's limits, for a function with these fields."""
    hierarchy = Hierarchy()
    hierarchy.limits = groups
    limits = levels.limits(choice, groups)
    others: dict[str, Any] = dict.fromkeys(
        ("settings", "journal", "zygotes", "tmp_dirs", "instance", "process_limit", "affinity")
    )
    equipment = Equipment(hierarchy=hierarchy, choice=choice, limits=limits, **others)
    fine: dict[str, Any] = {
        "name": "f",
        "handler": "app.handler",
        "runtime": "python3.12",
        "revision": "r1",
        "code_sha256": "c2hh",
        "code_size": 12,
        "code_path": "/code/1",
    }
    own = equipment.limits_of(FunctionConfiguration(**{**fine, **changes}))
    return {name: line for name, line in own.items() if line != limits[name]}


def test_a_function_has_the_supervisors_limits() -> None:
    """Unless it has no network, or is the embedding app's."""
    assert limits_of(SOFT) == {}


def test_a_function_without_network_has_that_limit() -> None:
    """It is the only limit that a function chooses."""
    assert {"network": "hard: a network namespace"} == limits_of(SOFT, network="none")


@pytest.mark.parametrize("groups", [SOFT, HARD], ids=["no cgroup", "cgroup"])
def test_an_apps_function_has_no_user_of_its_own(groups: dict[str, str]) -> None:
    """It runs as the app's user: RLIMIT_NPROC of a worker's user does not hold its processes."""
    own = limits_of(groups, python_path=("/app",))

    expected = {"siblings": "hard: a pid namespace"}
    if groups is SOFT:
        expected["processes"] = "none: c"
    assert expected == own


def test_an_apps_function_is_as_the_others_without_users() -> None:
    """No worker has a user of its own then."""
    assert limits_of(SOFT, CHOICE._replace(users=False), python_path=("/app",)) == {}
