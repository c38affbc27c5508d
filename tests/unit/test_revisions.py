"""Tests of revisions: what a change makes of a configuration, and which versions are the same."""

from __future__ import annotations

from typing import Any

import pytest

from miniλ import model, revisions
from miniλ.errors import InvalidParameterValue, PreconditionFailed
from miniλ.model import FunctionConfiguration, FunctionDraft
from miniλ.store.packages import Package


def configuration(**changes: Any) -> FunctionConfiguration:
    """Return $LATEST of a function."""
    fields: dict[str, Any] = {
        "name": "f",
        "handler": "app.handler",
        "runtime": "python3.12",
        "revision": "r1",
        "code_sha256": "c2hh",
        "code_size": 12,
        "code_path": "/code/1",
    }
    return FunctionConfiguration(**{**fields, **changes})


def test_a_change_is_a_new_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value that was read stays as it was; all other fields are the same."""
    monkeypatch.setattr(model, "now_iso", lambda: "2026-01-31T12:00:00.000+0000")
    before = configuration(memory_size=256)
    after = revisions.next_revision(before, {"timeout": 9})

    assert (3, 9) == (before.timeout, after.timeout)
    assert before.revision != after.revision
    expected = revisions.replace(
        before, timeout=9, revision=after.revision, last_modified="2026-01-31T12:00:00.000+0000"
    )
    assert expected == after


def test_members_of_the_passthrough_are_merged() -> None:
    """A request has the members that it changes; an environment is replaced whole."""
    before = configuration(passthrough={"A": 1, "B": {"x": 1}}, environment={"ONE": "1"})
    environment = {"TWO": "2"}
    after = revisions.next_revision(
        before, {"passthrough": {"B": {"y": 2}}, "environment": environment}
    )
    environment["THREE"] = "3"

    assert {"A": 1, "B": {"y": 2}} == after.passthrough
    assert {"A": 1, "B": {"x": 1}} == before.passthrough
    assert {"TWO": "2"} == after.environment


def test_a_change_is_checked() -> None:
    """As a new function is."""
    with pytest.raises(InvalidParameterValue, match="MemorySize"):
        revisions.next_revision(configuration(), {"memory_size": 1})


def test_a_draft_becomes_a_function_with_its_code() -> None:
    """And a function gets other code, which replaces what it had."""
    draft = FunctionDraft(name="f", handler="app.handler", runtime="python3.12", revision="r1")
    function = revisions.with_package(draft, Package("c2hh", 12, "/code/1"))
    assert configuration() == function

    other = revisions.with_package(function, Package("b3Ro", 13, "/code/2"))
    assert configuration(code_sha256="b3Ro", code_size=13, code_path="/code/2") == other


def test_a_version_is_the_latest_with_a_number() -> None:
    """It has no reservation, which is the function's; a description only if it gets none."""
    latest = configuration(description="own", reserved_concurrency=3)
    version = revisions.as_version(latest, 2)

    assert ("2", "own") == (version.version, version.description)
    assert version.reserved_concurrency is None
    assert latest.revision != version.revision
    assert "" == revisions.as_version(latest, 2, "").description
    assert revisions.are_same(latest, version)


@pytest.mark.parametrize(
    "change",
    [
        {"timeout": 9},
        {"code_sha256": "b3Ro"},
        {"environment": {"ONE": "1"}},
        {"passthrough": {"A": 1}},
    ],
)
def test_versions_of_other_code_or_configuration_differ(change: dict[str, Any]) -> None:
    """So PublishVersion makes another one."""
    assert not revisions.are_same(configuration(), configuration(**change))


def test_a_stale_revision_id_is_refused() -> None:
    """No RevisionId is no condition."""
    for expected in (None, "", "r1"):
        revisions.check_revision(expected, "r1")
    with pytest.raises(PreconditionFailed):
        revisions.check_revision("r0", "r1")
