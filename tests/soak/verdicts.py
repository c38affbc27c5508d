"""Verdicts of a soak: what may differ between the beginning and the end, and by how much."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from miniλ.model import MB

from .results import Row

if TYPE_CHECKING:
    from array import array

    from .results import Result

# Bytes by which the RSS may grow from idle to idle. The RSS includes memory that allocators keep
# free for later; with fragmentation it grows for hours, ever more slowly.
RSS_BOUND = 10 * MB
# Memory in use is exact: blocks of Python's allocator, and malloc's memory that is not free. These
# are the bounds of its growth from idle to idle: 1 or 2 bytes for each invocation of 20 minutes.
# Under load it also goes up and down with workers and answers. There the bound is UNDER_LOAD times
# that per hour (or per run, if shorter): half a block for each invocation of a one-minute run.
IN_USE = {"Python blocks": 10_000, "malloc in use, kB": 1024}
UNDER_LOAD = 3
# Samples, one a second, of which the minimum is taken.
WINDOW = 5


def judge(
    result: Result,
    before: dict[str, int],
    after: dict[str, int],
    loaded: dict[str, array[float]],
) -> list[Row]:
    """Return the verdicts: idle compared to idle, and the slope of what is in use under load.

    The slope is a least-squares line through the minimum of each WINDOW samples: memory that a log
    or a large answer takes for a moment is not growth.
    """
    rows = [
        Row(
            f"RSS, MB: at most {RSS_BOUND / MB:.0f} more",
            f"{before['RSS'] / MB:.1f}",
            f"{after['RSS'] / MB:.1f}",
            after["RSS"] - before["RSS"] <= RSS_BOUND,
        )
    ]
    at = loaded["at"]
    starts = range(0, len(at) - WINDOW + 1, WINDOW)
    for what in IN_USE.keys() & after.keys():
        bound = IN_USE[what]
        more = after[what] - before[what]
        rows.append(
            Row(
                f"{what}: at most {bound:,} more",
                f"{before[what]:,}",
                f"{after[what]:,}",
                more <= bound,
            )
        )
        least = [min(loaded[what][first : first + WINDOW]) for first in starts]
        line = statistics.linear_regression([at[first] for first in starts], least)
        grown = line.slope * min(3600.0, at[-1] - at[0])
        rows.append(
            Row(
                f"{what}: under load at most {bound * UNDER_LOAD:,} more",
                "",
                f"{grown:+,.0f}",
                grown <= bound * UNDER_LOAD,
            )
        )
    for what, value in after.items():
        if what not in ("RSS", *IN_USE, "troubles", "workers"):
            rows.append(Row(f"{what}: equal", str(before[what]), str(value), value == before[what]))
    for what, count in {
        "workers of deleted functions": before["workers"] + after["workers"],
        "accepted events that did not end well": (
            result.events["accepted"] - result.events["Success"]
        ),
        "troubles in the journal": result.facts["Trouble"],
        "unexpected failures": result.unexpected.total(),
    }.items():
        rows.append(Row(f"{what}: none", "", str(count), not count))
    return rows
