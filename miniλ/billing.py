"""Billing: durations to billed milliseconds, GB-seconds and money. Pure.

Three price books, as data, since Lambda counted differently over the years:

- 2018: steps of 100 ms, the init phase free
- 2020: steps of 1 ms, the init phase free (AWS, December 2020)
- 2025: steps of 1 ms, the init phase billed for all (AWS, since 1 August 2025)

All with Lambda's free tier of 1 million requests and 400,000 GB-seconds a month, $0.20 per
million requests and $0.0000166667 per GB-second (aws.amazon.com/lambda/pricing, x86, us-east-1).
Money is `Decimal`, never a float.
"""

from __future__ import annotations

import math
from decimal import Decimal

import msgspec

MB_PER_GB = 1024
MS_PER_SECOND = 1000


class PriceBook(msgspec.Struct, frozen=True):
    """The steps and prices of one era of Lambda."""

    name: str
    step_ms: int
    init_billed: bool
    per_request: Decimal = Decimal("0.0000002")
    per_gb_second: Decimal = Decimal("0.0000166667")
    free_requests: int = 1_000_000
    free_gb_seconds: Decimal = Decimal(400_000)


BOOKS = {
    "2018": PriceBook("2018", step_ms=100, init_billed=False),
    "2020": PriceBook("2020", step_ms=1, init_billed=False),
    "2025": PriceBook("2025", step_ms=1, init_billed=True),
}


class Usage(msgspec.Struct, frozen=True):
    """The usage of one function with one memory size in one month (`2026-11`), by one book."""

    month: str
    function: str
    memory_size_mb: int
    requests: int
    billed_ms: int

    @property
    def gb_seconds(self) -> Decimal:
        """Memory size times billed duration."""
        return Decimal(self.billed_ms) / MS_PER_SECOND * Decimal(self.memory_size_mb) / MB_PER_GB


class Line(msgspec.Struct, frozen=True):
    """One function's line of a month's bill; `charge` is its share after the free tier."""

    month: str
    function: str
    requests: int
    gb_seconds: Decimal
    charge: Decimal


class Bill(msgspec.Struct, frozen=True):
    """A month's bill. The free tier is the account's, so a function's charge is a share of it."""

    month: str
    book: str
    requests: int
    gb_seconds: Decimal
    free_requests: int
    free_gb_seconds: Decimal
    request_charge: Decimal
    compute_charge: Decimal
    lines: list[Line]

    @property
    def total(self) -> Decimal:
        """The charge in dollars, not rounded."""
        return self.request_charge + self.compute_charge


def billed_ms(duration_ms: float, init_ms: float | None, book: PriceBook) -> int:
    """Return the billed duration in ms: rounded up to the book's step, at least one step."""
    total = duration_ms + (init_ms or 0.0 if book.init_billed else 0.0)
    # A float's 3.0000000001 ms is 3 ms, and no 4th millisecond.
    steps = math.ceil(total / book.step_ms - 1e-6)
    return (max(1, steps)) * book.step_ms


class Tally:
    """Requests and billed milliseconds, added up by every book at once.

    `add` is called for each invocation: for a warm one it is the arithmetic of `billed_ms` without
    its generality. Rounding up to 1 ms and then to 100 ms is rounding up to 100 ms, so the steps
    follow from the milliseconds.
    """

    __slots__ = ("cold", "milliseconds", "requests", "steps")

    def __init__(self) -> None:
        self.requests = self.milliseconds = self.steps = 0
        # Milliseconds that init phases add, by book.
        self.cold = dict.fromkeys(BOOKS, 0)

    def add(self, seconds: float, init_seconds: float | None) -> None:
        """Count one invocation."""
        milliseconds = math.ceil(seconds * 1000 - 1e-6) or 1
        self.requests += 1
        self.milliseconds += milliseconds
        self.steps += -(-milliseconds // 100)
        if init_seconds is not None:
            for name, book in BOOKS.items():
                with_init = billed_ms(seconds * 1000, init_seconds * 1000, book)
                self.cold[name] += with_init - billed_ms(seconds * 1000, None, book)

    def row(self) -> list[int]:
        """Return requests, and billed milliseconds in the order of BOOKS."""
        return [
            self.requests,
            self.steps * 100 + self.cold["2018"],
            self.milliseconds + self.cold["2020"],
            self.milliseconds + self.cold["2025"],
        ]


def bills(usages: list[Usage], book: PriceBook) -> list[Bill]:
    """Return a bill for each month with usage, oldest first."""
    months = sorted({usage.month for usage in usages})
    return [_bill(month, [u for u in usages if u.month == month], book) for month in months]


def _bill(month: str, usages: list[Usage], book: PriceBook) -> Bill:
    requests = sum(usage.requests for usage in usages)
    gb_seconds = sum((usage.gb_seconds for usage in usages), Decimal(0))
    request_charge = max(0, requests - book.free_requests) * book.per_request
    compute_charge = max(Decimal(0), gb_seconds - book.free_gb_seconds) * book.per_gb_second
    lines = []
    for function in sorted({usage.function for usage in usages}):
        own = [usage for usage in usages if usage.function == function]
        own_requests = sum(usage.requests for usage in own)
        own_gb_seconds = sum((usage.gb_seconds for usage in own), Decimal(0))
        share = request_charge * own_requests / requests if requests else Decimal(0)
        if gb_seconds:
            share += compute_charge * own_gb_seconds / gb_seconds
        lines.append(Line(month, function, own_requests, own_gb_seconds, share))
    return Bill(
        month=month,
        book=book.name,
        requests=requests,
        gb_seconds=gb_seconds,
        free_requests=min(requests, book.free_requests),
        free_gb_seconds=min(gb_seconds, book.free_gb_seconds),
        request_charge=request_charge,
        compute_charge=compute_charge,
        lines=lines,
    )
