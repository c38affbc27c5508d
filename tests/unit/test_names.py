"""Tests of names and ARNs."""

from __future__ import annotations

from miniλ.names import Place

PLACE = Place("eu-west-1", "123456789012")


def test_an_arn_has_region_account_and_name_in_this_order() -> None:
    """Source: developer guide, "Lambda function ARNs"."""
    assert "arn:aws:lambda:eu-west-1:123456789012:function:hello" == PLACE.function("hello")


def test_a_qualifier_is_the_end_of_an_arn() -> None:
    """A version's number, or an alias."""
    expected = "arn:aws:lambda:eu-west-1:123456789012:function:hello:prod"
    assert expected == PLACE.function("hello", "prod")
