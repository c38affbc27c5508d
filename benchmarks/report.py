"""The report: a benchmark's result as a table, as JSON, and its promises.

Rule: a figure never stands alone. Beside it are its ratios against floors of the same run,
and the JSON has every round of it and the machine it was measured on.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
from typing import TYPE_CHECKING, Literal

import msgspec

from benchmarks.rounds import Figure  # noqa: TC001 - msgspec reads the annotations
from miniλ import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Played


class Row(msgspec.Struct, frozen=True):
    """One line of a table; `note` stands in place of figures that there are not."""

    name: str
    figures: dict[str, Figure] = {}
    ratios: dict[str, float] = {}
    note: str = ""


class Promise(msgspec.Struct, frozen=True):
    """What was promised, what was measured, and whether that is kept."""

    promise: str
    measured: str
    kept: bool


class Machine(msgspec.Struct, frozen=True):
    """Where and when it was measured."""

    date: str
    cpu: str
    cores: int
    kernel: str
    python: str
    loop: str
    minilambda: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one benchmark found."""

    benchmark: str
    about: str
    rows: list[Row]
    promises: list[Promise]
    limits: dict[str, str] = {}


class Document(msgspec.Struct, frozen=True):
    """The JSON."""

    machine: Machine
    quick: bool
    result: Result


def machine() -> Machine:
    """Describe this machine."""
    try:
        import uvloop  # noqa: PLC0415 - only where it has a wheel
    except ImportError:
        loop = "asyncio"
    else:
        loop = f"uvloop {uvloop.__version__}"
    return Machine(
        date=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        cpu=_cpu(),
        cores=os.cpu_count() or 1,
        kernel=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        loop=loop,
        minilambda=__version__,
    )


def _cpu() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def rows(
    played: Played,
    names: Sequence[str],
    floors: dict[str, tuple[str, str]],
    absent: dict[str, str],
) -> list[Row]:
    """Return a row for each name. `floors`: ratio -> (contestant, figure) to divide by."""
    notes = {**absent, **played.failed}
    found = []
    for name in names:
        figures = played.figures.get(name, {})
        ratios = {
            label: figures[figure].value / played.value(floor, figure)
            for label, (floor, figure) in floors.items()
            if figure in figures and floor in played.figures
        }
        found.append(Row(name, figures, ratios, notes.get(name, "")))
    return found


def bound(
    promise: str,
    measured: float,
    limit: float,
    side: Literal["at most", "at least"],
    unit: str,
) -> Promise:
    """Return a promise that a value is at most, or at least, a limit."""
    kept = measured <= limit if side == "at most" else measured >= limit
    return Promise(f"{promise}: {side} {limit:g}{unit}", f"{measured:.3g}{unit}", kept=bool(kept))


# Printing


def show(document: Document) -> str:
    """Return the report for a reader."""
    where, result = document.machine, document.result
    head = (
        f"{result.about}\n"
        f"{where.cpu}, {where.cores} cores; "
        f"{where.kernel}; {where.python}, {where.loop}; miniλ {where.minilambda}; "
        f"{where.date}"
    )
    held = "; ".join(
        f"{what} {result.limits[what]}"
        for what in ("memory", "cpu", "files", "siblings", "tmp")
        if what in result.limits
    )
    parts = [head, f"a worker here: {held}"] if held else [head]
    parts += ["", _table(_lines(result.rows)), ""]
    checked = [
        ["promise", "measured", ""],
        *(
            [each.promise, each.measured, "kept" if each.kept else "BROKEN"]
            for each in result.promises
        ),
    ]
    parts.append(_table(checked))
    return "\n".join(parts)


def _lines(found: Sequence[Row]) -> list[list[str]]:
    figures = list(dict.fromkeys(name for row in found for name in row.figures))
    ratios = list(dict.fromkeys(name for row in found for name in row.ratios))
    lines = [["", *figures, *ratios]]
    for row in found:
        if row.note and not row.figures:
            lines.append([row.name, row.note])
            continue
        cells = [amount(row.figures[name]) if name in row.figures else "-" for name in figures]
        cells += [f"{row.ratios[name]:.2f}" if name in row.ratios else "-" for name in ratios]
        lines.append([row.name, *cells])
    return lines


def amount(figure: Figure) -> str:
    """Return a figure with a unit that a person can read."""
    value = figure.value
    if figure.unit == "s":
        return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms"
    if figure.unit == "bytes":
        return f"{value / 2**20:.2f} MB"
    return f"{value:,.0f} {figure.unit}".strip()


def _table(lines: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, others to the right, a lone note as it is."""
    columns = max(map(len, lines))
    full = [line for line in lines if len(line) == columns]
    widths = [max(len(line[column]) for line in full) for column in range(columns)]
    widths[0] = max(len(line[0]) for line in lines)
    text = []
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        if len(line) == columns:
            cells += [cell.rjust(widths[i]) for i, cell in enumerate(line[1:], 1)]
        else:
            cells += line[1:]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * (sum(widths) + 2 * (columns - 1)))
    return "\n".join(text)


def save(document: Document, path: str) -> None:
    """Write the JSON; `-` is stdout."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2)
    if path == "-":
        sys.stdout.write(text.decode() + "\n")
        return
    with open(path, "wb") as file:
        file.write(text + b"\n")
