"""Tests of the life of a worker as a table."""

from __future__ import annotations

from typing import get_args

import pytest

from miniλ.worker.lifecycle import TRANSITIONS, State

STATES = set(get_args(State))


def reachable(start: State) -> set[State]:
    """Return every state that a worker may get to from `start`."""
    seen: set[State] = set()
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting += TRANSITIONS[state].values()
    return seen


def test_every_state_has_its_row() -> None:
    """The table is as long as the list of states."""
    assert set(TRANSITIONS) == STATES


def test_every_fact_leads_to_a_state() -> None:
    """No transition ends in a word that is no state."""
    targets = {target for row in TRANSITIONS.values() for target in row.values()}

    assert targets <= STATES


def test_a_worker_may_get_to_every_state() -> None:
    """No state is there for nobody."""
    assert reachable("starting") == STATES


def test_gone_is_final() -> None:
    """Nothing happens to a worker that is gone."""
    assert TRANSITIONS["gone"] == {}


@pytest.mark.parametrize("state", sorted(STATES - {"gone"}))
def test_every_state_ends_in_gone(state: State) -> None:
    """A process may exit at any time: one fact leads from every state to the end."""
    assert TRANSITIONS[state]["exited"] == "gone"
    assert "gone" in reachable(state)


@pytest.mark.parametrize("state", sorted(STATES - {"gone"}))
def test_every_worker_can_be_stopped(state: State) -> None:
    """Whatever it does, and also if it is being stopped already."""
    assert TRANSITIONS[state]["stopped"] == "stopping"


def test_a_stopping_worker_does_not_come_back() -> None:
    """An answer that arrives late makes nobody idle again."""
    assert {"stopping", "gone"} == reachable("stopping")


def test_only_an_idle_worker_is_given_an_invocation() -> None:
    """A frozen one is thawed first, a busy one has one already."""
    assert [state for state, row in TRANSITIONS.items() if "invoked" in row] == ["idle"]
    assert [state for state, row in TRANSITIONS.items() if "frozen" in row] == ["idle"]


def test_a_fact_means_one_thing() -> None:
    """Wherever a fact is possible, it leads to the same state."""
    for fact in {fact for row in TRANSITIONS.values() for fact in row}:
        assert len({row[fact] for row in TRANSITIONS.values() if fact in row}) == 1
