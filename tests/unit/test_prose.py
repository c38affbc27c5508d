"""The first two rules for English of docs/contributing.md, kept by a grep.

Rule 1: subjects are nouns of the vocabulary. Rule 2: a number and a mechanism, not "a look".
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for place in ("miniλ", "minilambda", "workers", "benchmarks", "tests", "examples", "docs", ".")
    for path in (ROOT / place).glob("*" if place == "." else "**/*")
    if path.suffix in (".py", ".md", ".sql", ".toml") and "functions" not in path.parts
)
# Words that stand for a noun that a sentence does not name; the user `nobody` has backticks.
BANNED = {
    "rule 1": r"(?<!`)\b(?:nobody|somebody|whoever|whatever|anybody|everybody|everyone|anyone)\b"
    r"|(?:^|[.:;?!] +)Who\b(?! is)",
    "rule 2": r"\ba look\b|\b[Ss]o (?:many|long|much|few|often)\b(?! as\b)",
}


@functools.cache  # each rule reads all files
def prose(path: Path) -> list[tuple[int, str]]:
    """Return what a file says to its reader: comments, docstrings, and sentences of the package."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    lines = [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    in_package = "tests" not in path.relative_to(ROOT).parts
    docstrings = set()
    for node in ast.walk(ast.parse(text)):  # a docstring comes after its owner
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring is not None:
                first = node.body[0].lineno
                docstrings.add(first)
                lines += list(enumerate(docstring.splitlines(), first))
        elif (
            in_package
            and isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and node.lineno not in docstrings
        ):
            lines += [(node.lineno, line) for line in node.value.splitlines() if " " in line]
    return lines


@pytest.mark.parametrize("rule", BANNED)
def test_sentences_have_subjects_and_numbers(rule: str) -> None:
    """No sentence of the project has a banned word; the list says where they are."""
    pattern = re.compile(BANNED[rule])
    breaches = {
        f"{path.relative_to(ROOT)}:{line}: {text.strip()}"
        for path in SOURCES
        for line, text in prose(path)
        if path != Path(__file__).resolve() and pattern.search(text)
    }

    assert [] == sorted(breaches)


@pytest.mark.parametrize("text", ["# nobody knows", "Whoever asks", "a look at it", "so many wait"])
def test_the_grep_finds_what_it_is_for(text: str) -> None:
    """A control: each banned form is found."""
    assert any(re.search(pattern, text.lower()) for pattern in BANNED.values())
