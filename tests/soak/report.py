"""A soak's progress and result as text."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .mix import IN_BACKGROUND, WORKS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .results import Result


def progress(text: str) -> None:
    """Overwrite the line of a terminal; print nothing if stderr is a file."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text:<100}")
        sys.stderr.flush()


def _table(*lines: list[str]) -> str:
    """Return lines as a table below a head: the first and last column left, others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = []
    for first, *middle, last in lines:
        cells = [cell.rjust(width) for cell, width in zip(middle, widths[1:], strict=False)]
        text.append("  ".join([first.ljust(widths[0]), *cells, last]))
    text.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
    return "\n".join(text)


def _listing(counts: Mapping[str, int]) -> str:
    """Return counts as part of a sentence."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "nothing"


def show(result: Result) -> str:
    """Return the report for a reader."""
    held = "; ".join(f"{what} {result.limits[what]}" for what in ("memory", "tmp", "files"))
    rows = [
        [row.what, row.begin, row.end, "holds" if row.holds else "BROKEN"] for row in result.rows
    ]
    ends = [[name, str(ends.total()), _listing(ends)] for name, ends in result.abuses.items()]
    total = result.invocations.total()
    parts = [
        f"Soak of {result.seconds:.0f} s, seed {result.seed}; {result.where}",
        f"a worker here: {held}",
        f"{total:,} invocations, {total / result.seconds:.0f} a second: "
        + _listing({name: result.invocations[name] for name in (*WORKS, IN_BACKGROUND)}),
        f"changes: {_listing(result.changes)}; excused by them: {_listing(result.excused)}",
        "",
        _table(["what", "beginning", "end", "verdict"], *rows),
        "",
        _table(["injected", "times", "ended"], *ends),
    ]
    for what, at, log in result.failures:
        parts += ["", f"UNEXPECTED at {at:.1f} s: {what}", log.replace("\r", "\n").rstrip()]
    parts += [f"TROUBLE: {what}" for what in result.troubles]
    return "\n".join(parts)
