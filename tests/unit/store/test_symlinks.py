"""Tests of symlinks: no combination of links leads out of their tree."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniλ.errors import InvalidParameterValue
from miniλ.store import symlinks

if TYPE_CHECKING:
    from pathlib import Path

DIRECTORIES = ("a", "a/b", "c")


@pytest.mark.parametrize(
    "links",
    [
        {"x": "y"},
        {"a/x": "../y"},
        {"a/b/x": "../../c"},
        {"a/b/x": "../.."},
        {"x": "."},
        {"x": "a", "y": "x/b", "z": "y/.."},
        {"x": "missing/y/z"},
        {"x": "missing"},
        {str(number): str(number + 1) for number in range(40)},
    ],
)
def test_links_that_stay_inside_are_fine(links: dict[str, str]) -> None:
    """Also to the top, through each other, to nowhere, and forty of them."""
    symlinks.check(links, DIRECTORIES)


@pytest.mark.parametrize(
    "links",
    [
        {"x": ".."},
        {"x": "/a"},
        {"x": "a/../.."},
        {"a/x": "../../y"},
        {"x": "missing/../../y"},
        {"up": "a/..", "x": "up/.."},
        {"a/b/up": "../..", "x": "a/b/up/.."},
        {"x": "a/b/up/../secret", "a/b/up": "../.."},
        {"a/b/up": "../..", "y": "a/b/up", "x": "y/../y"},
    ],
)
def test_links_that_lead_out_are_refused(links: dict[str, str]) -> None:
    """By their text, or through others that come before or after them."""
    with pytest.raises(InvalidParameterValue, match=r"^A link leads out of the package: '"):
        symlinks.check(links, DIRECTORIES)


@pytest.mark.parametrize(
    "links",
    [
        {"x": "x"},
        {"x": "./x/y"},
        {"x": "y", "y": "x"},
        {"x": "a/y", "a/y": "../x/z"},
        {str(number): str(number + 1) for number in range(41)},
        {str(number): str(number + 1) for number in reversed(range(41))},
        {"x": "a/../" * 20, **{f"{n}": f"{n - 1}/../{n - 1}" for n in range(1, 9)}, "0": "a"},
    ],
)
def test_links_that_lead_to_themselves_are_refused(links: dict[str, str]) -> None:
    """Or through more than forty of them, in any order of checking."""
    with pytest.raises(InvalidParameterValue, match=r"^A link leads to itself, or through more"):
        symlinks.check(links, DIRECTORIES)


def test_a_link_of_too_many_parts_is_refused() -> None:
    """Following it would only cost time."""
    symlinks.check({"x": "a/../" * 64}, DIRECTORIES)

    with pytest.raises(InvalidParameterValue, match="more than 128 parts: 'x'"):
        symlinks.check({"x": "a/../" * 64 + "a"}, DIRECTORIES)


def test_links_of_a_long_chain_are_no_deep_recursion() -> None:
    """Ten thousand links through each other are refused as forty-one are."""
    links = {str(number): f"{number + 1}/x" for number in range(10_000)}

    with pytest.raises(InvalidParameterValue, match="A link leads to itself"):
        symlinks.check(links, DIRECTORIES)


parts = st.sampled_from(["..", "..", ".", "a", "b", "c", "x", "y", "z", "nowhere", ""])
texts = st.lists(parts, min_size=1, max_size=6).map("/".join).filter(len)
places = st.sampled_from(["x", "y", "z", "a/x", "a/y", "a/b/x", "a/b/z", "c/y"])


@settings(
    deadline=None,
    database=None,
    max_examples=400,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(links=st.dictionaries(places, texts, min_size=1, max_size=5))
def test_the_kernel_agrees(tmp_path: Path, links: dict[str, str]) -> None:
    """Where the links are accepted, no path that the kernel resolves through one is outside."""
    # Outside is a tree of the same names, so that a way out leads somewhere.
    root = tmp_path / "a" / "b" / "c"
    shutil.rmtree(tmp_path / "a", ignore_errors=True)
    for top in (tmp_path, tmp_path / "a", tmp_path / "a" / "b", root):
        for directory in DIRECTORIES:
            (top / directory).mkdir(parents=True, exist_ok=True)
    for name, text in links.items():
        (root / name).symlink_to(text)
    ends = {}
    for name in links:
        try:
            descriptor = os.open(root / name, os.O_PATH)
        except OSError as exc:
            ends[name] = os.strerror(exc.errno)
            continue
        ends[name] = os.readlink(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    out = [
        where
        for where in ends.values()
        if where[0] == "/" and not (f"{where}/").startswith(f"{root}/")
    ]
    circular = [where for where in ends.values() if where == "Too many levels of symbolic links"]
    try:
        symlinks.check(links, DIRECTORIES)
    except InvalidParameterValue:
        return

    assert [] == out
    assert [] == circular
