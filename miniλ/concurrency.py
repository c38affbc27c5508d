"""This module is concurrency: how many invocations may run at once, and how many do. Pure.

Concurrency is what Lambda calls it: invocations in flight, those that wait for a cold start
included. Each takes from a share: the function's own, if it has reserved concurrency, or what
the reservations leave, which all others have together.
"""

from __future__ import annotations

# The share of every function that has no reserved concurrency.
UNRESERVED = ""


class Concurrency:
    """So many invocations may run at once, and so many do."""

    __slots__ = ("limit", "name", "used")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.used = 0

    def __repr__(self) -> str:
        return f"<Concurrency {self.name or 'unreserved'} {self.used} of {self.limit}>"


class AccountConcurrency:
    """The shares of one supervisor, whose capacity they divide."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._unreserved = Concurrency(UNRESERVED, capacity)
        self._reserved: dict[str, Concurrency] = {}
        # Of functions that gave up their reservation: their invocations may still run.
        self._former: dict[str, Concurrency] = {}

    def of(self, name: str) -> Concurrency:
        """Return the share that invocations of a function take from now."""
        return self._reserved.get(name) or self._unreserved

    def reserve(self, name: str, limit: int | None) -> None:
        """Follow what a function reserves from now on; None is nothing."""
        if limit is None:
            self.withdraw(name)
            return
        share = self._reserved.get(name) or self._former.pop(name, None) or Concurrency(name, limit)
        share.limit = limit
        self._reserved[name] = share
        self._share_out()

    def withdraw(self, name: str) -> None:
        """Give what a function had reserved back to the others."""
        share = self._reserved.pop(name, None)
        if share is not None:
            share.limit = 0
            self._former = {n: s for n, s in self._former.items() if s.used}
            self._former[name] = share
            self._share_out()

    def reservable(self, name: str) -> int:
        """Return the concurrency that may be reserved for a function: one must stay for others."""
        others = sum(share.limit for share in self._reserved.values() if share.name != name)
        return max(0, self._capacity - others - 1)

    def free(self) -> dict[str, int]:
        """Return how many more invocations each share may run, by its name."""
        shares = [self._unreserved, *self._reserved.values()]
        return {share.name: share.limit - share.used for share in shares}

    def _share_out(self) -> None:
        reserved = sum(share.limit for share in self._reserved.values())
        self._unreserved.limit = max(0, self._capacity - reserved)
