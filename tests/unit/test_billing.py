"""Tests of billing against AWS's own examples, and to the last digit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ import billing
from miniλ.billing import BOOKS, Usage, bills

# No deadline: on a busy machine, slow is no finding.
SLOW = [HealthCheck.too_slow]

MONTH = "2026-11"
MILLION = 1_000_000
CENT = Decimal("0.01")


def used(
    requests: int,
    each_ms: int,
    memory_size_mb: int,
    function: str = "f",
    month: str = MONTH,
) -> Usage:
    """Return the usage of `requests` requests that were billed `each_ms` each."""
    return Usage(month, function, memory_size_mb, requests, requests * each_ms)


# Durations


@pytest.mark.parametrize(
    ("book", "duration_ms", "init_ms", "expected"),
    [
        ("2018", 0.0, None, 100),
        ("2018", 0.01, None, 100),
        ("2018", 100.0, None, 100),
        ("2018", 100.01, None, 200),
        ("2018", 99.0, 500.0, 100),
        ("2018", 801.5, None, 900),
        ("2020", 0.0, None, 1),
        ("2020", 0.01, None, 1),
        ("2020", 1.0, None, 1),
        ("2020", 1.01, None, 2),
        ("2020", 2.5, 123.4, 3),
        ("2020", 899_999.2, None, 900_000),
        ("2025", 0.0, None, 1),
        ("2025", 2.5, None, 3),
        ("2025", 2.5, 0.0, 3),
        ("2025", 2.5, 123.4, 126),
        ("2025", 2.5, 123.5, 126),
        ("2025", 2.5, 123.6, 127),
    ],
)
def test_each_era_counts_durations_in_its_way(
    book: str, duration_ms: float, init_ms: float | None, expected: int
) -> None:
    """2018 rounds up to 100 ms, 2020 to 1 ms, and 2025 adds the init phase first."""
    assert expected == billing.billed_ms(duration_ms, init_ms, BOOKS[book])


@pytest.mark.parametrize("book", BOOKS.values(), ids=BOOKS)
def test_no_duration_at_all_bills_one_step(book: billing.PriceBook) -> None:
    """An invocation is never free."""
    assert book.step_ms == billing.billed_ms(0.0, None, book)


def test_the_init_phase_and_the_handler_are_rounded_once() -> None:
    """0.4 ms and 0.4 ms are one millisecond, not two."""
    assert billing.billed_ms(0.4, 0.4, BOOKS["2025"]) == 1


@pytest.mark.parametrize(("duration_ms", "expected"), [(0.1 + 0.2 + 2.7, 3), (29.000000000004, 29)])
def test_the_dust_of_a_float_is_no_millisecond(duration_ms: float, expected: int) -> None:
    """3.0000000000000004 ms are 3 ms."""
    assert expected == billing.billed_ms(duration_ms, None, BOOKS["2020"])


@settings(deadline=None, database=None, max_examples=150, suppress_health_check=SLOW)
@given(
    duration_ms=st.floats(0, 900_000),
    init_ms=st.none() | st.floats(0, 10_000),
    book=st.sampled_from(list(BOOKS.values())),
)
def test_a_billed_duration_is_the_next_step(
    duration_ms: float, init_ms: float | None, book: billing.PriceBook
) -> None:
    """What is billed is a multiple of the step, holds the duration, and not a step more."""
    billed = billing.billed_ms(duration_ms, init_ms, book)
    counted = duration_ms + (init_ms or 0.0 if book.init_billed else 0.0)

    assert billed % book.step_ms == 0
    assert billed >= book.step_ms
    assert billed >= counted - 0.001
    assert billed < max(counted + 0.001, 0.001) + book.step_ms


# AWS's own examples, aws.amazon.com/lambda/pricing


def test_aws_example_of_a_mobile_app_backend() -> None:
    """3 million requests of 120 ms at 1,536 MB cost $2.73 a month."""
    (bill,) = bills([used(3 * MILLION, 120, 1536)], BOOKS["2025"])

    assert Decimal(540_000) == bill.gb_seconds
    assert Decimal(400_000) == bill.free_gb_seconds
    assert bill.free_requests == MILLION
    assert Decimal(140_000) * Decimal("0.0000166667") == bill.compute_charge
    assert Decimal("2.33") == bill.compute_charge.quantize(CENT)
    assert Decimal("0.40") == bill.request_charge
    assert Decimal("2.73") == bill.total.quantize(CENT)


def test_aws_example_of_one_second_at_512_mb() -> None:
    """3 million requests of 1 s at 512 MB: 1.5 million GB-seconds, 1.1 million billable."""
    (bill,) = bills([used(3 * MILLION, 1000, 512)], BOOKS["2018"])

    # AWS's page said $18.34, with a price of $0.00001667.
    assert Decimal(1_500_000) == bill.gb_seconds
    assert Decimal("18.33337") == bill.compute_charge
    assert Decimal("0.40") == bill.request_charge
    assert Decimal("18.73337") == bill.total


def test_aws_example_of_thirty_million_requests() -> None:
    """30 million requests of 200 ms at 128 MB cost $11.63."""
    (bill,) = bills([used(30 * MILLION, 200, 128)], BOOKS["2018"])

    assert Decimal(750_000) == bill.gb_seconds
    assert Decimal("5.80") == bill.request_charge
    assert Decimal("5.83") == bill.compute_charge.quantize(CENT)
    assert Decimal("11.63") == bill.total.quantize(CENT)


def test_aws_example_of_three_functions() -> None:
    """The free tier is the account's: three functions share it, and pay $69.95."""
    usages = [
        used(25 * MILLION, 200, 128, "small"),
        used(5 * MILLION, 500, 448, "medium"),
        used(5 * MILLION // 2, 1000, 1024, "large"),
    ]

    (bill,) = bills(usages, BOOKS["2018"])

    # AWS's page said $69.96, with a price of $0.00001667.
    assert bill.requests == 32_500_000
    assert Decimal(4_218_750) == bill.gb_seconds
    assert Decimal("6.30") == bill.request_charge
    assert Decimal("63.65") == bill.compute_charge.quantize(CENT)
    assert Decimal("69.95") == bill.total.quantize(CENT)


# Bills


def test_nothing_used_is_no_bill() -> None:
    """A month without usage has no bill."""
    assert bills([], BOOKS["2025"]) == []


def test_the_free_tier_is_free_to_its_last_request() -> None:
    """1 million requests and 400,000 GB-seconds cost nothing, and the next of each does."""
    (free,) = bills([used(MILLION, 400, 1024)], BOOKS["2025"])
    (more,) = bills([Usage(MONTH, "f", 1024, MILLION + 1, 400_001_000)], BOOKS["2025"])

    assert free.total == 0
    assert (MILLION, Decimal(400_000)) == (free.free_requests, free.free_gb_seconds)
    assert Decimal("0.0000002") == more.request_charge
    assert Decimal("0.0000166667") == more.compute_charge
    assert (MILLION, Decimal(400_000)) == (more.free_requests, more.free_gb_seconds)


def test_what_is_free_is_what_was_used() -> None:
    """Below the free tier the bill says how much of it was taken."""
    (bill,) = bills([used(10, 1000, 512)], BOOKS["2020"])

    assert (10, Decimal(5)) == (bill.free_requests, bill.free_gb_seconds)
    assert bill.book == "2020"


def test_requests_without_duration_cost_requests_only() -> None:
    """A usage of no GB-seconds divides nothing by zero."""
    (bill,) = bills([Usage(MONTH, "f", 128, 2 * MILLION, 0)], BOOKS["2025"])

    assert Decimal("0.2") == bill.total
    assert [Decimal("0.2")] == [line.charge for line in bill.lines]


def test_a_usage_of_nothing_costs_nothing() -> None:
    """Neither requests nor GB-seconds: a line of zeros."""
    (bill,) = bills([Usage(MONTH, "f", 128, 0, 0)], BOOKS["2025"])

    assert bill.total == 0
    assert [Decimal(0)] == [line.charge for line in bill.lines]


def test_each_month_has_its_bill_and_its_free_tier() -> None:
    """Bills come oldest first, and nothing is carried over."""
    usages = [
        used(2 * MILLION, 1, 128, month="2027-01"),
        used(2 * MILLION, 1, 128, month="2026-12"),
        used(2 * MILLION, 1, 128, month="2026-02"),
    ]

    got = [(bill.month, bill.request_charge) for bill in bills(usages, BOOKS["2025"])]

    charge = Decimal("0.2")
    assert [("2026-02", charge), ("2026-12", charge), ("2027-01", charge)] == got


def test_a_function_has_one_line_whatever_its_memory_sizes() -> None:
    """Memory sizes of one function are added up on its line; lines are sorted by name."""
    usages = [
        used(1, 1000, 1024, "b"),
        used(2, 1000, 512, "a"),
        used(4, 1000, 256, "b"),
    ]

    (bill,) = bills(usages, BOOKS["2025"])

    got = [(line.function, line.requests, line.gb_seconds) for line in bill.lines]
    assert [("a", 2, Decimal(1)), ("b", 5, Decimal(2))] == got


def test_gb_seconds_are_exact() -> None:
    """129 MB for 1 ms is a number of ten digits, and all of them are there."""
    assert Decimal("0.0001259765625") == Usage(MONTH, "f", 129, 1, 1).gb_seconds


def test_charges_of_equal_functions_are_equal() -> None:
    """Functions with the same usage pay the same, also where a share is not a finite decimal."""
    usages = [used(MILLION, 1000, 1024, name) for name in ("a", "b", "c")]

    (bill,) = bills(usages, BOOKS["2025"])

    assert len({line.charge for line in bill.lines}) == 1


usages_of_a_month = st.lists(
    st.builds(
        Usage,
        st.just(MONTH),
        st.sampled_from("abcde"),
        st.integers(128, 10240),
        st.integers(1, 10**10),
        st.integers(1, 10**9),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None, database=None, max_examples=100, suppress_health_check=SLOW)
@given(usages=usages_of_a_month, book=st.sampled_from(list(BOOKS.values())))
def test_charges_add_up_to_the_total(usages: list[Usage], book: billing.PriceBook) -> None:
    """The lines of a bill are its total, to a billionth of a cent."""
    (bill,) = bills(usages, book)

    assert abs(bill.total - sum(line.charge for line in bill.lines)) < Decimal("1e-11")
    assert bill.requests == sum(line.requests for line in bill.lines)
    assert bill.gb_seconds == sum(line.gb_seconds for line in bill.lines)


@settings(deadline=None, database=None, max_examples=100, suppress_health_check=SLOW)
@given(usages=usages_of_a_month, book=st.sampled_from(list(BOOKS.values())))
def test_a_bill_is_exact_arithmetic(usages: list[Usage], book: billing.PriceBook) -> None:
    """Every number is a Decimal that integer arithmetic agrees with."""
    (bill,) = bills(usages, book)

    gb_seconds = sum(Fraction(u.billed_ms * u.memory_size_mb, 1_024_000) for u in usages)
    billable = max(Fraction(0), gb_seconds - 400_000)
    requests = max(0, sum(usage.requests for usage in usages) - MILLION)
    assert gb_seconds == Fraction(bill.gb_seconds)
    assert billable * Fraction("0.0000166667") == Fraction(bill.compute_charge)
    assert requests * Fraction("0.0000002") == Fraction(bill.request_charge)
