"""Statements of policies: `statements`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from miniλ.errors import PolicyLengthExceeded, ResourceConflict, ResourceNotFound
from miniλ.gateway import statements


def statement(sid: str, **members: Any) -> dict[str, Any]:
    """Return a statement with an id."""
    return {"Sid": sid, "Effect": "Allow", **members}


def test_a_policy_begins_with_its_first_statement_and_ends_with_its_last() -> None:
    """Statements keep their order, and each change has another revision."""
    one = statements.added(None, statement("one"))
    two = statements.added(one, statement("two"))
    left = statements.removed(two, "one")

    assert [statement("one"), statement("two")] == two["Statement"]
    assert left is not None
    assert [statement("two")] == left["Statement"]
    assert 3 == len({each["RevisionId"] for each in (one, two, left)})
    assert statements.removed(left, "two") is None


def test_an_id_is_of_one_statement() -> None:
    """A second one is a conflict, and one that is not there is not found."""
    policy = statements.added(None, statement("one"))

    statements.check_new(None, "one")
    statements.check_new(policy, "two")
    with pytest.raises(ResourceConflict, match=r"The statement id \(one\) provided already"):
        statements.check_new(policy, "one")
    with pytest.raises(ResourceNotFound, match="Statement two is not found in resource policy"):
        statements.removed(policy, "two")


def test_a_policy_has_at_most_20_kb_of_text() -> None:
    """The limit is of the text that clients get: the last byte fits, one more does not."""
    empty = len(statements.text({"Statement": [statement("x", Action="")]}))
    room = statements.MAX_POLICY - empty

    fits = statements.added(None, statement("x", Action="a" * room))
    with pytest.raises(PolicyLengthExceeded, match=r"size \(20481\) is bigger .* \(20480\)"):
        statements.added(None, statement("x", Action="a" * (room + 1)))

    assert 20_480 == len(statements.text(fits))


def test_a_text_has_the_version_of_the_policy_language() -> None:
    """The revision is not in it."""
    text = statements.text({"Statement": [statement("one")], "RevisionId": "r"})

    assert " " not in text
    assert {
        "Version": "2012-10-17",
        "Id": "default",
        "Statement": [statement("one")],
    } == json.loads(text)
