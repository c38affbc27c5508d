"""Tests of names and ARNs."""

from __future__ import annotations

import pytest

from miniλ import names
from miniλ.names import Place

PLACE = Place("eu-west-1", "123456789012")


def test_an_arn_has_region_account_and_name_in_this_order() -> None:
    """Source: developer guide, "Lambda function ARNs"."""
    assert "arn:aws:lambda:eu-west-1:123456789012:function:hello" == PLACE.function("hello")


def test_a_qualifier_is_the_end_of_an_arn() -> None:
    """A version's number, or an alias."""
    expected = "arn:aws:lambda:eu-west-1:123456789012:function:hello:prod"
    assert expected == PLACE.function("hello", "prod")


@pytest.mark.parametrize(
    ("arn", "resource"),
    [
        (PLACE.function("hello", "prod"), ("function", "hello:prod")),
        (PLACE.function("hello"), ("function", "hello")),
        (PLACE.event_source_mapping("1-2"), ("event-source-mapping", "1-2")),
        (PLACE.layer("tools", 3), ("layer", "tools:3")),
        ("hello", ("", "")),
        ("", ("", "")),
    ],
)
def test_an_arn_says_what_it_is_of(arn: str, resource: tuple[str, str]) -> None:
    """Its kind and its name; another text is of nothing."""
    assert resource == names.resource(arn)
