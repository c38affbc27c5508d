"""A result as a picture: the first figure of each row as a bar, its rounds as dots.

Rule: matplotlib is an extra. Without it, --plot ends with a message before anything is measured.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report import Document

MISSING = "--plot needs matplotlib: in the clone, pip install '.[benchmarks]'"


def is_possible() -> bool:
    """Return whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def save(document: Document, path: str) -> None:
    """Draw the result into a file, in the format of its suffix."""
    import matplotlib as mpl  # noqa: PLC0415 - an extra

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    shown = [row for row in document.result.rows if row.figures][::-1]
    firsts = [next(iter(row.figures.items())) for row in shown]
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.42 * len(shown)), layout="constrained")
    values = [first.value for _, first in firsts]
    colours = ["#3b6ea5" if row.name.startswith("miniλ") else "#b8bec6" for row in shown]
    axes.barh(range(len(shown)), values, color=colours)
    for place, (_, first) in enumerate(firsts):
        axes.plot(first.rounds, [place] * len(first.rounds), "k.", markersize=2, alpha=0.5)
        axes.annotate(
            first.text,
            (max(first.rounds), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    positive = [value for value in values if value > 0]
    if positive and max(positive) > 20 * min(positive):
        axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_yticks(range(len(shown)), [row.name for row in shown])
    names = dict.fromkeys(f"{name} ({first.unit})" for name, first in firsts)
    axes.set_xlabel(", ".join(names))
    where = document.machine
    axes.set_title(
        f"miniλ benchmarks: {document.result.benchmark}\n"
        f"{where.cpu}, {where.cores} cores, {where.python}, {where.date}",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)
