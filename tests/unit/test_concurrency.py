"""Tests of concurrency: what is reserved, what is left for the others, what is given back."""

from __future__ import annotations

from miniλ.concurrency import UNRESERVED, AccountConcurrency, Concurrency


def reserved(shares: AccountConcurrency, name: str, limit: int | None = None) -> Concurrency:
    """Reserve so much for a function; return the share that it takes from now."""
    shares.reserve(name, limit)
    return shares.of(name)


def test_who_reserves_nothing_shares_everything() -> None:
    """All functions without a reservation take from one share, the capacity."""
    shares = AccountConcurrency(10)

    assert reserved(shares, "a") is reserved(shares, "b")
    assert {UNRESERVED: 10} == shares.free()


def test_a_reservation_is_taken_from_the_others() -> None:
    """What one function reserves is its own, and the rest is what is left."""
    shares = AccountConcurrency(10)

    own = reserved(shares, "a", 3)

    assert own.limit == 3
    assert {UNRESERVED: 7, "a": 3} == shares.free()


def test_an_update_keeps_count_of_what_runs() -> None:
    """A reservation that changes counts the invocations that took from it before."""
    shares = AccountConcurrency(10)
    reserved(shares, "a", 3).used = 2

    assert reserved(shares, "a", 4).used == 2
    assert {UNRESERVED: 6, "a": 2} == shares.free()


def test_a_function_made_again_counts_what_still_runs() -> None:
    """Deleted and created anew, a function with 1 reserved still has only 1 running."""
    shares = AccountConcurrency(10)
    reserved(shares, "a", 1).used = 1

    shares.withdraw("a")

    assert {UNRESERVED: 10} == shares.free()
    assert reserved(shares, "a", 1).used == 1


def test_giving_up_a_reservation_gives_it_back() -> None:
    """The function takes from what all have, and what it had reserved is part of that again."""
    shares = AccountConcurrency(10)
    own = reserved(shares, "a", 3)

    rest = reserved(shares, "a")

    assert rest is not own
    assert own.limit == 0
    assert rest.limit == 10


def test_one_must_stay_for_the_others() -> None:
    """Reservable is what others have not reserved, but one."""
    shares = AccountConcurrency(10)
    reserved(shares, "a", 3)

    assert shares.reservable("b") == 6
    assert shares.reservable("a") == 9


def test_reservations_beyond_the_capacity_leave_nothing() -> None:
    """A registry that was made on a larger host leaves others nothing, and never less."""
    shares = AccountConcurrency(2)
    reserved(shares, "a", 3)

    assert shares.free()[UNRESERVED] == 0
