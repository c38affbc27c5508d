"""A benchmark's result: its rows and promises as data, as a table and as JSON.

Rule: a figure never stands alone. The table has its ratio against a floor of the same run; the JSON
has every round of it, the command, and the machine that ran it.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from benchmarks.rounds import Figure  # noqa: TC001 - msgspec reads the annotations
from miniλ import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.rounds import Played


class Row(msgspec.Struct, frozen=True):
    """One line of a table; `note` says why a contestant has no figures."""

    name: str
    figures: dict[str, Figure] = {}
    ratios: dict[str, float] = {}
    note: str = ""


class Promise(msgspec.Struct, frozen=True):
    """A promise's sentence, what was measured, and whether it is kept.

    `name` is its name in `promises`; `detail` has the figures behind `measured`.
    """

    promise: str
    measured: str
    kept: bool
    name: str = ""
    detail: str = ""

    @property
    def verdict(self) -> str:
        """The promise as a word."""
        return "kept" if self.kept else "BROKEN"


class Machine(msgspec.Struct, frozen=True):
    """The machine, and the moment of the measurement; `load` is the load average at its start."""

    date: str
    cpu: str
    cores: int
    kernel: str
    python: str
    loop: str
    minilambda: str
    load: float = 0.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one benchmark."""

    benchmark: str
    about: str
    rows: list[Row]
    promises: list[Promise]
    limits: dict[str, str] = {}


class Document(msgspec.Struct, frozen=True):
    """The JSON of one run; `command` repeats it."""

    machine: Machine
    quick: bool
    result: Result
    command: str = ""


def machine() -> Machine:
    """Return a description of this machine as it is now."""
    try:
        import uvloop  # noqa: PLC0415 - only if it has a wheel
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
        load=round(os.getloadavg()[0], 2),
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
    """Return a row for each name; `floors`: ratio -> (contestant, figure) that it divides by."""
    notes = {**absent, **played.failed}
    lines = []
    for name in names:
        figures = played.figures.get(name, {})
        ratios = {
            label: figures[figure].value / played.value(floor, figure)
            for label, (floor, figure) in floors.items()
            if figure in figures and floor in played.figures
        }
        lines.append(Row(name, figures, ratios, notes.get(name, "")))
    return lines


# Printing


def show(document: Document) -> str:
    """Return the report as text."""
    result = document.result
    parts = [result.about, f"{describe(document.machine)}; {document.machine.date}"]
    held = held_text(result)
    if held:
        parts.append(f"a worker here: {held}")
    parts += ["", _table(cells(result.rows)), ""]
    for each in result.promises:
        detail = f" ({each.detail})" if each.detail else ""
        parts.append(f"{each.verdict:<6}  {each.promise}: {each.measured}{detail}")
    return "\n".join(parts)


def describe(machine: Machine) -> str:
    """Return what a machine is, on one line, without the moment of the measurement."""
    return (
        f"{machine.cpu}, {machine.cores} cores; {machine.kernel}; {machine.python}, "
        f"{machine.loop}; miniλ {machine.minilambda}"
    )


def held_text(result: Result) -> str:
    """Return what held a worker's limits in this run, on one line; "" if it was not recorded."""
    return "; ".join(
        f"{what} {result.limits[what]}"
        for what in ("memory", "cpu", "files", "siblings", "tmp")
        if what in result.limits
    )


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """Return a head and a line for each row; a row without figures has its name and its note."""
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    ratios = list(dict.fromkeys(name for row in rows for name in row.ratios))
    lines = [["", *figures, *ratios]]
    for row in rows:
        if row.note and not row.figures:
            lines.append([row.name, row.note])
            continue
        values = [row.figures[name].text if name in row.figures else "-" for name in figures]
        values += [f"{row.ratios[name]:.2f}" if name in row.ratios else "-" for name in ratios]
        lines.append([row.name, *values])
    return lines


def _table(lines: Sequence[Sequence[str]]) -> str:
    """Return aligned columns: the first to the left, others to the right, a note as it is."""
    columns = max(map(len, lines))
    full = [line for line in lines if len(line) == columns]
    widths = [max(len(line[column]) for line in full) for column in range(columns)]
    widths[0] = max(len(line[0]) for line in lines)
    text = []
    for line in lines:
        aligned = [line[0].ljust(widths[0])]
        if len(line) == columns:
            aligned += [cell.rjust(widths[i]) for i, cell in enumerate(line[1:], 1)]
        else:
            aligned += line[1:]
        text.append("  ".join(aligned).rstrip())
    text.insert(1, "-" * (sum(widths) + 2 * (columns - 1)))
    return "\n".join(text)


def save(document: Document, path: str) -> None:
    """Write the JSON to a file, and create its directory; `-` is stdout."""
    text = msgspec.json.format(msgspec.json.encode(document), indent=2)
    if path == "-":
        sys.stdout.write(text.decode() + "\n")
        return
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(text + b"\n")


def load(path: str) -> Document:
    """Return the document that `save` wrote; raises msgspec.ValidationError for any other JSON."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Document)
