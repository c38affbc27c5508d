"""Symlinks of a tree: whether they stay in it, as the kernel follows them.

Rule: no I/O in this file. The answer does not depend on where the tree is going to be, so it is
checked before it is written, and what lies outside of it changes nothing.

Source: path_resolution(7), "Maximum number of links" included.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

# Links that the kernel follows on one path, at most.
MAX_FOLLOWED = 40
# Down and up again through the deepest package: a longer text only costs time.
MAX_PARTS = 128

# Where a link leads, None for nowhere, and the number of links on the way there.
_Followed: TypeAlias = tuple[list[str] | None, int]


def check(links: Mapping[str, str], directories: Collection[str]) -> None:
    """Refuse links that lead out of their tree or to themselves, alone or together.

    `links` are the links' texts by relative path; `directories` are the relative paths of all
    directories. A link to nowhere is fine. Raises `InvalidParameterValue` with the link.
    """
    followed: dict[str, _Followed] = {}
    for name, text in links.items():
        # By its text alone, too, even if a missing directory would stop the kernel on the way.
        place = os.path.normpath(os.path.join(os.path.dirname(name), text))
        if os.path.isabs(place) or place == ".." or place.startswith("../"):
            _leads_out(name, text)
        _follow(name, links, directories, followed, MAX_FOLLOWED)


def _follow(
    name: str,
    links: Mapping[str, str],
    directories: Collection[str],
    followed: dict[str, _Followed],
    left: int,
) -> _Followed:
    """Follow one link; `left` is the number of further links that the kernel would follow."""
    if name in followed:
        return followed[name]
    if left == 0:
        _leads_to_itself(name)
    at: list[str] | None = name.split("/")[:-1]
    count = 1
    parts = [part for part in links[name].split("/") if part not in ("", ".")]
    if len(parts) > MAX_PARTS:
        raise InvalidParameterValue(f"A link has more than {MAX_PARTS} parts: {name!r}")
    for number, part in enumerate(parts, 1):
        if at is None:
            break  # the kernel stops here too
        if part == "..":
            if not at:
                _leads_out(name, links[name])
            at = at[:-1]
            continue
        place = "/".join([*at, part])
        if place in links:
            at, more = _follow(place, links, directories, followed, left - 1)
            count += more
            if count > MAX_FOLLOWED:
                _leads_to_itself(name)
        elif place in directories or number == len(parts):
            at = [*at, part]
        else:
            at = None
    followed[name] = (at, count)
    return followed[name]


def _leads_out(name: str, text: str) -> NoReturn:
    msg = f"A link leads out of the package: {name!r} -> {text[:80]!r}"
    raise InvalidParameterValue(msg)


def _leads_to_itself(name: str) -> NoReturn:
    msg = f"A link leads to itself, or through more than {MAX_FOLLOWED} links: {name!r}"
    raise InvalidParameterValue(msg)
