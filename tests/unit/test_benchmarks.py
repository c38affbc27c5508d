"""Tests of the benchmarks' reports: promises, the page docs/benchmarks.md, and the reading order.

Nothing is measured here: contestants with fixed figures play rounds of the real code.
"""

from __future__ import annotations

import ast
import asyncio
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks import __main__ as command_line
from benchmarks import catalog, document, events, floors, invoke, promises, report, rounds
from benchmarks.rounds import Contestant

if TYPE_CHECKING:
    from benchmarks.report import Document

ROOT = Path(__file__).resolve().parents[2]
MACHINE = report.Machine(
    date="2026-11-29T10:00:00+00:00",
    cpu="Testium 3",
    cores=2,
    kernel="Linux 6.1 x86_64",
    python="CPython 3.11.7",
    loop="uvloop 0.21.0",
    minilambda="0.1.0",
    load=0.25,
)


def played(unit: str = "s", **figures: dict[str, float]) -> rounds.Played:
    """Play three rounds in which each contestant has these figures, and a little more each time."""

    def contestant(name: str, values: dict[str, float]) -> Contestant:
        factors = itertools.count(100)

        async def play() -> dict[str, float]:
            factor = next(factors) / 101
            return {figure: value * factor for figure, value in values.items()}

        return Contestant(name, play)

    return asyncio.run(rounds.play([contestant(*item) for item in figures.items()], 3, unit))


def warm(p50: float) -> dict[str, float]:
    """Return the figures of one contestant of `invoke`."""
    return {"p50": p50, "p99": 2 * p50, invoke.P50_FREE: 3 * p50}


def recorded(*, quick: bool = False) -> list[Document]:
    """Return documents of two benchmarks, with one broken promise."""
    warm_calls = {
        floors.BlockingPipe.name: warm(5e-6),
        floors.LoopPipe.name: warm(10e-6),
        invoke.OURS: warm(15e-6),
        invoke.LIMITS: warm(15e-6),
        invoke.OURS_MANY: warm(16e-6),
        catalog.POOL: warm(90e-6),
        catalog.LOKY: warm(130e-6),
    }
    events_figures = {
        events.COMMIT: {events.ACCEPTED: 1e-4},
        events.OURS: {events.ACCEPTED: 2.5e-4, events.OVER: 1e-4},
    }
    limits = {"memory": "hard: cgroup2 memory.max", "tmp": "soft: polled"}
    absent = {catalog.RIE: catalog.NOT_INSTALLED}
    names = [catalog.LOKY, catalog.RIE]
    return [
        report.Document(MACHINE, quick, result, f"python -m benchmarks {result.benchmark}")
        for result in (
            events.result(played(**events_figures), [], limits),
            invoke.result(played(**warm_calls), names, absent, limits),
        )
    ]


# The page


def test_the_same_json_makes_the_same_page(tmp_path: Path) -> None:
    """In any order of the files, and through the command line as through `page`."""
    paths = []
    for number, each in enumerate(recorded()):
        paths.append(str(tmp_path / "results" / f"{number}.json"))
        report.save(each, paths[-1])
    first, second = tmp_path / "first.md", tmp_path / "second.md"

    assert 0 == document.main([*paths, "--output", str(first)])
    assert 0 == document.main([*reversed(paths), "--output", str(second)])
    assert first.read_bytes() == second.read_bytes()
    assert first.read_text(encoding="utf-8") == document.page(recorded())


def test_the_page_has_the_machine_the_promises_and_each_table() -> None:
    """A promise is its sentence, kept or broken, with the figures behind it and its benchmark."""
    page = document.page(recorded())

    assert page.startswith(document.MARKER)
    assert "Measured on Testium 3, 2 cores; Linux 6.1 x86_64; CPython 3.11.7" in page
    kept, broken = promises.BOUNDS["invoke.pipe"].text, promises.BOUNDS["invoke.pool"].text
    figures = "15.0 µs to 10.0 µs; with free placement 45.0 µs to 30.0 µs"
    assert f"| {kept} | kept: 1.5x ({figures}) | `invoke` |" in page
    assert f"| {broken} | **broken**: 6x (15.0 µs to 90.0 µs; with free" in page
    assert "10,000 events/s" in page
    assert "- In process: miniλ 15.0 µs, ProcessPoolExecutor 90.0 µs, loky 130.0 µs." in page
    assert "| miniλ | 15.0 µs | 30.0 µs | 45.0 µs | 1.50 | 0.17 |" in page
    assert f"| {catalog.RIE} | {catalog.NOT_INSTALLED} |" in page
    assert "Load average at the start: 0.25. A worker of this run: memory hard: cgroup2" in page
    order = [
        page.index(f"```sh\npython -m benchmarks {name}\n```") for name in ("invoke", "events")
    ]
    assert sorted(order) == order


def test_a_page_of_quick_runs_says_so() -> None:
    """One quick run is enough; a page of full runs does not have the sentence."""
    full, quick = recorded(), recorded(quick=True)

    assert document.QUICK not in document.page(full)
    assert document.QUICK in document.page([full[0], quick[1]])


def test_promises_can_be_quoted_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--only prints the table of these promises, in this order; an unmeasured one is an error."""
    path = str(tmp_path / "invoke.json")
    report.save(recorded()[1], path)

    assert 0 == document.main([path, "--only", "invoke.functions", "invoke.pipe"])
    _, _, *rows = capsys.readouterr().out.splitlines()
    sentences = [promises.BOUNDS[name].text for name in ("invoke.functions", "invoke.pipe")]
    assert sentences == [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert 2 == document.main([path, "--only", "http.empty"])
    assert "no promise 'http.empty' in these files" in capsys.readouterr().err


def test_files_that_make_no_page_are_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A missing file, other JSON, two runs of one benchmark: the message says which."""
    path, other = str(tmp_path / "invoke.json"), tmp_path / "other.json"
    report.save(recorded()[1], path)
    other.write_text("{}", encoding="utf-8")

    for files, message in (
        ([path, path], "two of the files are of the benchmark 'invoke'"),
        ([str(other)], "missing required field"),
        ([str(tmp_path / "gone.json")], "gone.json"),
    ):
        assert 2 == document.main(files)
        assert message in capsys.readouterr().err


def test_the_page_in_docs_is_generated() -> None:
    """It begins with the marker, which has the commands that make it again."""
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

    assert page.startswith(document.MARKER)
    for name in document.ORDER:
        assert f"\n## {name}\n" in page


# The promises


def test_each_promise_belongs_to_one_benchmark() -> None:
    """Its name begins with the benchmark's, and that benchmark's code makes it."""
    assert set(document.ORDER) == set(command_line.BENCHMARKS)
    for name in promises.NAMES:
        benchmark = name.partition(".")[0]
        source = (ROOT / "benchmarks" / f"{benchmark}.py").read_text(encoding="utf-8")
        assert f'"{name}"' in source


def test_a_promise_is_a_sentence_with_its_limit() -> None:
    """The limit in the sentence is the one that is checked, at its border and beyond it."""
    at_most, at_least = promises.BOUNDS["invoke.pipe"], promises.BOUNDS["invoke.pool"]

    assert "takes at most 2x the time" in at_most.text
    assert "is at least 8x faster" in at_least.text
    assert all(bound.sentence.count("{limit}") == 1 for bound in promises.BOUNDS.values())
    assert [True, False] == [promises.bound("invoke.pipe", value).kept for value in (2, 2.001)]
    assert [False, True] == [promises.bound("invoke.pool", value).kept for value in (7.999, 8)]


def test_the_report_says_what_is_broken() -> None:
    """The text on the terminal has each promise with its verdict."""
    text = report.show(recorded()[1])

    assert f"BROKEN  {promises.BOUNDS['invoke.pool'].text}: 6x (" in text
    assert f"kept    {promises.BOUNDS['invoke.pipe'].text}: 1.5x (" in text


# The modules


def imports(path: Path) -> set[str]:
    """Return the modules of the suite that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "benchmarks":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("benchmarks."):
            names.add((node.module or "").removeprefix("benchmarks."))
    return names


def test_modules_import_in_the_reading_order() -> None:
    """The door lists every module, and each imports only those listed before it."""
    door = (ROOT / "benchmarks" / "__init__.py").read_text(encoding="utf-8")
    listed = [
        name
        for line in re.findall(r"^- (.*?)(?::|$)", door, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", line)
    ]
    modules = {path.stem: path for path in (ROOT / "benchmarks").glob("*.py")}
    del modules["__init__"]

    assert sorted(modules) == sorted(listed)
    upwards = {
        name: sorted(imports(path) - set(listed[: listed.index(name)]))
        for name, path in modules.items()
    }
    assert {} == {name: wrong for name, wrong in upwards.items() if wrong}


@pytest.mark.parametrize("module", ["pools", "servers", "catalog", "programs"])
def test_what_starts_peers_does_not_know_the_peers(module: str) -> None:
    """`peers` imports these, and none of them imports it: one direction."""
    assert "peers" not in imports(ROOT / "benchmarks" / f"{module}.py")
