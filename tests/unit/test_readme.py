"""Tests of the pages: what they draw, list and link to is what the code has."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import msgspec
import pytest

from benchmarks import promises
from miniλ.cli import exit_codes
from miniλ.settings import Settings
from miniλ.store.registry import LEDGER_SECONDS
from miniλ.worker.lifecycle import TRANSITIONS

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PAGES = [README, ROOT / "workers" / "PROTOCOL.md", *sorted(DOCS.glob("*.md"))]

_ROOM = re.compile(r"^### (?:`([\w/λ]+)/`|Beside)", re.MULTILINE)
_ROW = re.compile(r"^\| `([\w./λ]+)` \| ", re.MULTILINE)
_FIGURE = re.compile(r"\d[\d.,]* (?:µs|ms|MB)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def named() -> list[Path]:
    """Return the files that the map of the code names; a table's paths are its room's."""
    files: list[Path] = []
    rooms = list(_ROOM.finditer(ARCHITECTURE))
    for room, end in zip(rooms, [*(each.start() for each in rooms[1:]), None], strict=True):
        directory = ROOT / (room[1] or "")
        files += [directory / path for path in _ROW.findall(ARCHITECTURE[room.end() : end])]
    return files


def has_code(path: Path) -> bool:
    """Return whether a module is more than its docstring, as most doors are not."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return any(not isinstance(node, ast.Expr) for node in body)


def anchor(heading: str) -> str:
    """Return the anchor of a heading, as forges make it."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def test_the_state_diagram_is_the_table() -> None:
    """Every arrow of the diagram is a transition, and every transition an arrow."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+): (\w+)$", ARCHITECTURE, flags=re.MULTILINE))
    table = {(a, b, fact) for a, row in TRANSITIONS.items() for fact, b in row.items()}

    assert drawn == table


def test_the_map_names_files_that_exist() -> None:
    """A file that has moved moves in the map too."""
    paths = named()

    assert [] == [str(path.relative_to(ROOT)) for path in paths if not path.exists()]
    assert len(paths) == len(set(paths))


def test_the_map_names_every_module() -> None:
    """A new module has a row in its room's table, and so has a door with code."""
    modules = {
        path
        for package in ("miniλ", "minilambda", "workers")
        for path in (ROOT / package).rglob("*.py")
        if has_code(path)
    }

    assert [] == sorted(str(path.relative_to(ROOT)) for path in modules - set(named()))


def test_the_operators_page_has_every_setting() -> None:
    """Each setting has a row in the table of settings, with its default in TOML."""
    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    table = page.partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:none|`(.+?)`) \| ", table, re.MULTILINE)
    # These literals of TOML are those of JSON as well.
    shown = {name: json.loads(default) if default else None for name, default in rows}

    assert {each.name: each.default for each in msgspec.structs.fields(Settings)} == shown


def test_the_operators_page_has_the_lag_of_the_ledger() -> None:
    """`bill` of a running server lags by the interval at which the ledger is written."""
    page = " ".join((DOCS / "operating.md").read_text(encoding="utf-8").split())

    assert 1.0 == LEDGER_SECONDS
    assert "the supervisor writes every second:" in page


def test_the_operators_page_has_every_exit_code() -> None:
    """Each exit code of the command line has a row."""
    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    rows = {int(code) for code in re.findall(r"^\| (\d+) \| ", page, re.MULTILINE)}
    codes = {code for name, code in vars(exit_codes).items() if name.isupper()}

    assert codes - {exit_codes.INTERRUPTED} | {0} == rows


def test_the_numbers_of_the_readme_are_measured() -> None:
    """A figure of the README's five numbers stands in a page of docs/, where it was measured."""
    text = README.read_text(encoding="utf-8")
    table = text.partition("\n## Five numbers\n")[2].partition("\n## ")[0]
    figures = _FIGURE.findall(table)
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))

    assert len(figures) >= 5
    assert [] == sorted(set(figures) - set(_FIGURE.findall(pages)))


def test_the_page_of_promises_has_each_promise() -> None:
    """In the words that the benchmarks print, and docs/benchmarks.md."""
    page = " ".join((DOCS / "promises.md").read_text(encoding="utf-8").split())
    sentences = [*(each.text for each in promises.BOUNDS.values()), *promises.SENTENCES.values()]

    assert [] == [sentence for sentence in sentences if f"**{sentence}.**" not in page]


def test_the_words_of_the_readme_are_in_the_glossary() -> None:
    """Each word of the README has a row of the glossary."""
    text = README.read_text(encoding="utf-8")
    glossary = (DOCS / "glossary.md").read_text(encoding="utf-8")
    table = text.partition("\n## Words\n")[2].partition("\n## ")[0]
    words = re.findall(r"^\| ([a-z, ]+) \| ", table, re.MULTILINE)[1:]
    rows = re.findall(r"^\| ([^|]+) \| ", glossary, re.MULTILINE)
    explained = {word for row in rows for word in row.split(", ")}

    assert 12 == len(words)
    assert [] == [word for row in words for word in row.split(", ") if word not in explained]


def test_no_page_installs_from_an_index() -> None:
    """The package is on no index: what people copy installs from a clone."""
    places = ("examples/*.py", "benchmarks/*.py", "workers/*.md")
    files = [*PAGES, *(path for place in places for path in ROOT.glob(place))]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}

    assert [] == [name for name, text in texts.items() if "minilambda-faas" in text]


def test_the_readme_and_the_tutorial_do_not_collide() -> None:
    """A reader may do both: each has a function, a port and a state directory of its own."""
    flag = re.compile(r"--(?:name|function-name|port|state)[ =]([\w./-]+)")
    readme = set(flag.findall(README.read_text(encoding="utf-8")))
    tutorial = set(flag.findall((DOCS / "server.md").read_text(encoding="utf-8")))

    assert {"hello", "9001", "./state"} <= tutorial
    assert {"greeting", "9002", "./readme-state"} == readme


def test_the_readme_is_read_in_a_minute() -> None:
    """At most 150 lines; the two commands are on the first screen."""
    lines = README.read_text(encoding="utf-8").splitlines()
    commands = [n for n, line in enumerate(lines) if line.startswith("python3 -m venv .venv")]

    assert len(lines) <= 150
    assert 2 == len(commands)
    assert commands[-1] < 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link is to a file that exists, and its anchor to a heading of that file."""
    dead = []
    for link in _LINK.findall(page.read_text(encoding="utf-8")):
        path, _, fragment = link.partition("#")
        if path.startswith(("http:", "https:")):
            continue
        target = page.parent / path if path else page
        headings = []
        if target.suffix == ".md" and target.exists():
            text = target.read_text(encoding="utf-8")
            headings = [anchor(each) for each in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
        if not target.exists() or (fragment and fragment not in headings):
            dead.append(link)

    assert [] == dead


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_readme_links_to_each_page(page: Path) -> None:
    """A page of docs/ is found from the README."""
    assert f"(docs/{page.name})" in README.read_text(encoding="utf-8")
