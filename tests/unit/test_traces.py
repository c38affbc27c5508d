"""Tests of traces: what is passed on, what is counted, and where a loop ends."""

from __future__ import annotations

import re

import pytest

from miniλ import traces
from miniλ.errors import RecursiveInvocation

REQUEST = "43f4ac1b-7a0e-4b5e-9a3e-0123456789ab"
SAID = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


def test_a_trace_id_goes_on_or_is_new() -> None:
    """A text that cannot be a header's or an environment's value is replaced."""
    assert SAID == traces.of(SAID, REQUEST)
    for bad in (None, "", "x", "Root=1-no", f"{SAID}\n", f"{SAID}\x00", f"{SAID};{'x' * 600}", "Ö"):
        new = traces.of(bad, REQUEST)
        assert re.fullmatch("Root=1-[0-9a-f]{8}-43f4ac1b7a0e4b5e9a3e0123;Sampled=0", new)


def test_answers_do_not_carry_the_lineage() -> None:
    """It is for functions; and the header is in lower case, as recorded."""
    assert SAID.lower() == traces.for_response(traces.start_lineage(SAID, "f"))


def test_a_function_is_in_a_chain_so_often() -> None:
    """Sixteen times, and other functions in between are counted for themselves."""
    trace = SAID
    for _ in range(traces.MAX_IN_CHAIN):
        trace = traces.extend_lineage(trace, "f", may_recur=False)
        trace = traces.extend_lineage(trace, "g", may_recur=True)
    with pytest.raises(RecursiveInvocation, match="recursive loop"):
        traces.extend_lineage(trace, "f", may_recur=False)

    assert traces.extend_lineage(trace, "h", may_recur=False).startswith(f"{trace}|1:")
    assert traces.of(trace, REQUEST) == trace


def test_who_may_recur_does() -> None:
    """However often, and the lineage does not grow."""
    trace = SAID
    for _ in range(100):
        trace = traces.extend_lineage(trace, "f", may_recur=True)

    assert len(trace) < len(SAID) + 30


@pytest.mark.parametrize("lineage", ["1:", ":", "|", "1:::", "1:abc:x", "99999999999999999999"])
def test_a_lineage_of_others_is_survived(lineage: str) -> None:
    """A lineage that cannot be read counts for nothing."""
    assert traces.extend_lineage(f"{SAID};Lineage={lineage}", "f", may_recur=False).startswith(SAID)
