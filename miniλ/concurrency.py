"""Concurrency: how many invocations may run at once, and how many do. Pure.

An invocation in flight counts, and so does one that waits for a cold start, as on Lambda. Each
counts in one limit: its function's own, if that has reserved concurrency, or the unreserved limit,
which all other functions have together.
"""

from __future__ import annotations

# The name of the limit that functions without reserved concurrency have together.
UNRESERVED = ""


class Concurrency:
    """One limit, by its function's name, and how much of it is used."""

    __slots__ = ("limit", "name", "used")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.used = 0

    def __repr__(self) -> str:
        return f"<Concurrency {self.name or 'unreserved'} {self.used} of {self.limit}>"


class AccountConcurrency:
    """The limits of one supervisor: they divide its capacity."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._unreserved = Concurrency(UNRESERVED, capacity)
        self._reserved: dict[str, Concurrency] = {}
        # Of functions that gave up their reservation: their invocations may still run.
        self._former: dict[str, Concurrency] = {}

    def of(self, name: str) -> Concurrency:
        """Return the limit that new invocations of a function count in."""
        return self._reserved.get(name) or self._unreserved

    def reserve(self, name: str, limit: int | None) -> None:
        """Set the reserved concurrency of a function; None removes the reservation."""
        if limit is None:
            self.withdraw(name)
            return
        concurrency = self._reserved.get(name) or self._former.pop(name, None)
        if concurrency is None:
            concurrency = Concurrency(name, limit)
        concurrency.limit = limit
        self._reserved[name] = concurrency
        self._limit_unreserved()

    def withdraw(self, name: str) -> None:
        """Remove a function's reservation: what it reserved is unreserved again."""
        concurrency = self._reserved.pop(name, None)
        if concurrency is not None:
            concurrency.limit = 0
            self._former = {name: former for name, former in self._former.items() if former.used}
            self._former[name] = concurrency
            self._limit_unreserved()

    def reservable(self, name: str) -> int:
        """Return the concurrency that may be reserved for a function: 1 stays unreserved."""
        others = sum(each.limit for each in self._reserved.values() if each.name != name)
        return max(0, self._capacity - others - 1)

    def free(self) -> dict[str, int]:
        """Return by each limit's name how many more invocations may run in it."""
        limits = [self._unreserved, *self._reserved.values()]
        return {each.name: each.limit - each.used for each in limits}

    def _limit_unreserved(self) -> None:
        reserved = sum(each.limit for each in self._reserved.values())
        self._unreserved.limit = max(0, self._capacity - reserved)
