"""This module is the constraints: whether a value is what its shape allows, in AWS's words.

Rule 1: all that is wrong is said, in the order of the model's members. The members of a list and
the keys and values of a map are one constraint of it, told with all that is asked of them; only
structures in a list have paths of their own (`filterCriteria.filters.1.member.pattern`).

Rule 2: nothing in a request makes this slow or the answer long. No pattern of the model takes more
than a moment for any value, a list of a million wrong structures has no more errors than a page can
hold, and a message shows the beginning of a value.

Source of the words: a recorded answer of AWS (a pattern of a member), and what its users report of
the rest: no recording says how a list, a map or two errors at once are told today. Lengths are
counted in characters.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from miniλ.gateway.service_model.shapes import (
    ListOf,
    MapOf,
    Number,
    OneOf,
    Shape,
    Structure,
    Text,
    Whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# How much of a value a message shows: an ARN fits, a document does not.
_SHOWN = 512
# The structures of a list are looked at until there are so many errors.
_ENOUGH = 50

# What a constraint says of itself, and whether a value holds it.
_Constraint: TypeAlias = "tuple[str, Callable[[Any], bool]]"


def check(shape: Shape, value: Any, where: str, errors: list[str]) -> None:  # noqa: ANN401 - JSON
    """Add what is wrong with a value to the errors.

    The value has the type that its shape asks for. `where` is its path in the request, as
    messages have it: environment.variables.
    """
    for words, holds in _constraints(shape):
        if not holds(value):
            secret = isinstance(shape, MapOf) and shape.secret
            said = "" if secret else f" '{shown(value)}'"
            errors.append(f"Value{said} at '{where}' failed to satisfy constraint: {words}")
    match shape:
        case Structure(members=members, required=required):
            for name, member in members.items():
                inner = f"{where}.{in_messages(name)}"
                if name in value:
                    check(member, value[name], inner, errors)
                elif name in required:
                    errors.append(must_be(inner))
        case ListOf(member=Structure()):
            for number, each in enumerate(value, 1):
                if len(errors) >= _ENOUGH:
                    break
                inner = f"{where}.{number}.member"
                if each is None:
                    errors.append(must_be(inner))
                else:
                    check(shape.member, each, inner, errors)


def must_be(where: str) -> str:
    """Return the error for what is required and not there."""
    return f"Value null at '{where}' failed to satisfy constraint: Member must not be null"


def in_messages(name: str) -> str:
    """Return a member's name as messages have it: FunctionName is functionName there."""
    return name[0].lower() + name[1:]


@functools.cache
def _constraints(shape: Shape) -> tuple[_Constraint, ...]:
    """Return the constraints of a value in the order that AWS lists them, patterns first."""
    match shape:
        case Text(minimum=low, maximum=high, pattern=pattern):
            fits = () if pattern is None else (_fits(pattern),)
            return (*fits, *_length(low, high))
        case OneOf(values=values, open=False):
            words = f"Member must satisfy enum value set: [{', '.join(values)}]"
            return ((words, frozenset(values).__contains__),)
        case Whole(minimum=low, maximum=high) | Number(minimum=low, maximum=high):
            return _range(low, high)
        case ListOf(member=member, minimum=low, maximum=high):
            if isinstance(member, Structure):
                return _length(low, high)
            words = f"Member must satisfy constraint: {_all_words(member)}"
            return (*_length(low, high), (words, functools.partial(_all_hold, member)))
        case MapOf(key=key, value=of, minimum=low, maximum=high):
            of_keys = f"Map keys must satisfy constraint: {_all_words(key)}"
            of_values = f"Map value must satisfy constraint: {_all_words(of)}"
            return (
                *_length(low, high),
                (of_keys, functools.partial(_all_hold, key)),
                (of_values, lambda value: _all_hold(of, value.values())),
            )
    return ()


def _length(low: int | None, high: int | None) -> tuple[_Constraint, ...]:
    # "Greater than or equal to 0" is never broken, but said where all constraints are.
    bounds: list[_Constraint] = []
    if low is not None:
        words = f"Member must have length greater than or equal to {low}"
        bounds.append((words, lambda value: len(value) >= low))
    if high is not None:
        words = f"Member must have length less than or equal to {high}"
        bounds.append((words, lambda value: len(value) <= high))
    return tuple(bounds)


def _range(low: float | None, high: float | None) -> tuple[_Constraint, ...]:
    bounds: list[_Constraint] = []
    if low is not None:
        words = f"Member must have value greater than or equal to {low}"
        bounds.append((words, lambda value: value >= low))
    if high is not None:
        words = f"Member must have value less than or equal to {high}"
        bounds.append((words, lambda value: value <= high))
    return tuple(bounds)


def _fits(pattern: str) -> _Constraint:
    fits = compiled(pattern).fullmatch
    words = f"Member must satisfy regular expression pattern: {pattern}"
    return (words, lambda value: fits(value) is not None)


def _all_hold(shape: Shape, values: Iterable[Any]) -> bool:
    constraints = _constraints(shape)
    return all(
        value is not None and all(holds(value) for _, holds in constraints) for value in values
    )


def _all_words(shape: Shape) -> str:
    words = [words for words, _ in reversed(_constraints(shape))]
    return f"[{', '.join([*words, 'Member must not be null'])}]"


def shown(value: object) -> str:
    """Return a value as Java writes it, cut where it is long."""
    match value:
        case None:
            text = "null"
        case bool():
            text = "true" if value else "false"
        case list():
            # More of them than characters cannot be shown.
            text = f"[{', '.join(map(shown, value[:_SHOWN]))}]"
        case dict():
            pairs = (f"{key}={shown(each)}" for key, each in list(value.items())[:_SHOWN])
            text = f"{{{', '.join(pairs)}}}"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# A dot, if it is none of an escape or a class: Java's stops at every line's end, Python's at \n.
_PIECES = re.compile(r"\\.|\[(?:\\.|[^\]])*\]|\.")
_NOT_LINE_END = "[^\n\r\x85\u2028\u2029]"
# Letters, numbers, separators. The model has the first two only together and beside "_", and
# \w is just these three.
_CATEGORIES = {
    r"\p{L}": r"\w",
    r"\p{N}": "",
    r"\p{Z}": " \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    r"""Return a pattern of the model, which is Java's, as Python's.

    In Java \d and \s are ASCII, \p is Unicode, and a dot is what `_PIECES` says.
    """
    flags = re.ASCII
    for category, members in _CATEGORIES.items():
        if category in pattern:
            flags = re.UNICODE
            pattern = pattern.replace(category, members)
    pattern = _PIECES.sub(lambda piece: _NOT_LINE_END if piece[0] == "." else piece[0], pattern)
    return re.compile(pattern, flags)
