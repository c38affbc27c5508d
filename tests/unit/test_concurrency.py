"""Tests of concurrency: reserved, unreserved, and given back."""

from __future__ import annotations

from miniλ.concurrency import UNRESERVED, AccountConcurrency, Concurrency


def reserve(account: AccountConcurrency, name: str, limit: int | None = None) -> Concurrency:
    """Reserve concurrency for a function; return the limit that it counts in now."""
    account.reserve(name, limit)
    return account.of(name)


def test_functions_without_a_reservation_have_one_limit() -> None:
    """Together they have the whole capacity."""
    account = AccountConcurrency(10)

    assert reserve(account, "a") is reserve(account, "b")
    assert {UNRESERVED: 10} == account.free()


def test_a_reservation_lowers_the_unreserved_limit() -> None:
    """What one function reserves is its own, and the rest is unreserved."""
    account = AccountConcurrency(10)

    own = reserve(account, "a", 3)

    assert own.limit == 3
    assert {UNRESERVED: 7, "a": 3} == account.free()


def test_an_update_keeps_count_of_what_runs() -> None:
    """A reservation that changes still counts the invocations that it counted."""
    account = AccountConcurrency(10)
    reserve(account, "a", 3).used = 2

    assert reserve(account, "a", 4).used == 2
    assert {UNRESERVED: 6, "a": 2} == account.free()


def test_a_function_made_again_counts_what_still_runs() -> None:
    """Deleted and created anew, a function with 1 reserved still has only 1 running."""
    account = AccountConcurrency(10)
    reserve(account, "a", 1).used = 1

    account.withdraw("a")

    assert {UNRESERVED: 10} == account.free()
    assert reserve(account, "a", 1).used == 1


def test_a_removed_reservation_is_unreserved_again() -> None:
    """The function counts in the unreserved limit, which has the whole capacity."""
    account = AccountConcurrency(10)
    own = reserve(account, "a", 3)

    rest = reserve(account, "a")

    assert rest is not own
    assert own.limit == 0
    assert rest.limit == 10


def test_one_stays_unreserved() -> None:
    """Reservable is what others have not reserved, less 1."""
    account = AccountConcurrency(10)
    reserve(account, "a", 3)

    assert account.reservable("b") == 6
    assert account.reservable("a") == 9


def test_reservations_beyond_the_capacity_leave_nothing() -> None:
    """With the registry of a larger host the unreserved limit is 0, and not negative."""
    account = AccountConcurrency(2)
    reserve(account, "a", 3)

    assert account.free()[UNRESERVED] == 0
