"""Tests of the life of a worker as a table, and of the story of one life."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from miniλ.worker.lifecycle import REMEMBERED_FACTS, TRANSITIONS, State, Story

STATES = set(get_args(State))


def reachable(start: State) -> set[State]:
    """Return every state that a worker may get to from `start`."""
    states: set[State] = set()
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state not in states:
            states.add(state)
            waiting += TRANSITIONS[state].values()
    return states


def test_every_state_has_its_row() -> None:
    """The table is as long as the list of states."""
    assert set(TRANSITIONS) == STATES


def test_every_fact_leads_to_a_state() -> None:
    """No transition ends in a word that is no state."""
    targets = {target for row in TRANSITIONS.values() for target in row.values()}

    assert targets <= STATES


def test_a_worker_may_get_to_every_state() -> None:
    """Every state can be reached from the first."""
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
    """In each state, also if it is being stopped already."""
    assert TRANSITIONS[state]["stopped"] == "stopping"


def test_a_stopping_worker_does_not_come_back() -> None:
    """An answer that arrives late does not make it idle again."""
    assert {"stopping", "gone"} == reachable("stopping")


def test_only_an_idle_worker_is_given_an_invocation() -> None:
    """A frozen one is thawed first, a busy one has one already."""
    assert [state for state, row in TRANSITIONS.items() if "invoked" in row] == ["idle"]
    assert [state for state, row in TRANSITIONS.items() if "frozen" in row] == ["idle"]


def test_a_fact_means_one_thing() -> None:
    """Wherever a fact is possible, it leads to the same state."""
    for fact in {fact for row in TRANSITIONS.values() for fact in row}:
        assert len({row[fact] for row in TRANSITIONS.values() if fact in row}) == 1


class Life:
    """The life of a worker as `Worker` keeps it, and all its facts."""

    def __init__(self) -> None:
        self.state: State = "starting"
        self.story = Story()
        self.invocations = 0
        self.facts: list[str] = []

    def move(self, fact: str) -> None:
        """Follow the table: "invoked" and "answered" are counted, and no more."""
        self.invocations += fact == "invoked"
        if fact not in ("invoked", "answered"):
            self.story.add(fact, self.invocations, in_flight=self.state == "busy")
        self.state = TRANSITIONS[self.state][fact]
        self.facts.append(fact)

    def text(self) -> str:
        """Return the story as the message of an AssertionError has it."""
        return self.story.text(self.invocations, in_flight=self.state == "busy")


def facts_of(text: str) -> list[str]:
    """Return the facts of a story one by one: `answered*2` is two."""
    facts: list[str] = []
    for word in text.split():
        fact, _, count = word.partition("*")
        facts += [fact] * int(count or 1)
    return facts


@settings(deadline=None, database=None)
@given(st.lists(st.integers(0, 20), max_size=100))
def test_a_story_has_the_last_facts_of_a_life_in_order(choices: list[int]) -> None:
    """All facts but an "invoked" that "answered" follows; the number of words is bounded."""
    life = Life()
    for choice in choices:
        # The end is chosen seldom, or most lives would be short.
        facts = sorted(TRANSITIONS[life.state].keys() - ({"stopped", "exited"} if choice else ()))
        if not facts:
            break
        life.move(facts[choice % len(facts)])

        whole = [
            fact
            for fact, after in zip(life.facts, [*life.facts[1:], ""], strict=True)
            if (fact, after) != ("invoked", "answered")
        ]
        story = facts_of(life.text())
        written = [fact for fact in life.facts if fact not in ("invoked", "answered")]
        if len(written) <= REMEMBERED_FACTS:
            assert story == whole
        else:
            assert story[0] == "..."
            assert story[1:] == whole[-len(story) + 1 :]
        rare = [fact for fact in story if fact not in ("...", "invoked", "answered")]
        assert len(rare) == min(len(written), REMEMBERED_FACTS)


def test_a_story_counts_what_was_answered() -> None:
    """A million invocations are one word."""
    life = Life()
    life.move("ready")
    for _ in range(3):
        life.move("invoked")
        life.move("answered")
    life.invocations += 1_000_000
    life.move("frozen")
    life.move("thawed")
    life.move("invoked")

    assert "ready answered*1000003 frozen thawed invoked" == life.text()


def test_a_story_is_bounded() -> None:
    """Of a worker that is frozen for ever again the last 16 facts are told."""
    life = Life()
    for fact in ("ready", *("frozen", "thawed") * 1000):
        life.move(fact)

    assert "... " + " ".join(["frozen thawed"] * 8) == life.text()
