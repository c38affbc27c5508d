"""Constraints: does a value keep to its shape, and AWS's message if not.

Rule 1: a message has all errors, in the order of the model's members. The members of a list, and
the keys and values of a map, are one constraint of it together, which lists all of their own; only
structures in a list have paths of their own (`filterCriteria.filters.1.member.pattern`).

Rule 2: no value makes checking slow or the message long. A pattern of the model takes linear time
for any value, a list of a million wrong structures has `_MAX_ERRORS` errors, and a message shows
the first `_SHOWN` characters of a value.

Source of the messages: a recorded answer of AWS (a pattern of a member), and reports of AWS's users
for the others: there is no recording of today's message for a list, a map or two errors at once.
Lengths are in characters.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, TypeAlias

from miniλ.gateway.service_model.shapes import (
    Double,
    Integer,
    ListOf,
    MapOf,
    OneOf,
    Shape,
    String,
    Structure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Characters of a value that a message shows: an ARN fits, a document does not.
_SHOWN = 512
# The structures of a list are checked until there are this many errors.
_MAX_ERRORS = 50

# A constraint: its text in a message, and the predicate of a value that keeps it.
_Constraint: TypeAlias = "tuple[str, Callable[[Any], bool]]"


def check(shape: Shape, value: Any, where: str, errors: list[str]) -> None:  # noqa: ANN401 - JSON
    """Append the errors of a value to `errors`.

    The value must have the type of its shape already. `where` is its path in the request, in the
    form of a message: environment.variables.
    """
    for words, holds in _constraints(shape):
        if not holds(value):
            is_secret = isinstance(shape, MapOf) and shape.secret
            errors.append(violation("" if is_secret else f"'{shown(value)}'", where, words))
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
                if len(errors) >= _MAX_ERRORS:
                    break
                inner = f"{where}.{number}.member"
                if each is None:
                    errors.append(must_be(inner))
                else:
                    check(shape.member, each, inner, errors)


def must_be(where: str) -> str:
    """Return the error for a required value that is absent."""
    return violation("null", where, "Member must not be null")


def violation(value: str, where: str, words: str) -> str:
    """Return the error for a value that breaks a constraint, whose text is `words`.

    `value` is as it is to be shown: in quotes, null, or "" for one that is secret.
    """
    before = f" {value}" if value else ""
    return f"Value{before} at '{where}' failed to satisfy constraint: {words}"


def detected(*errors: str) -> str:
    """Return the message that lists errors."""
    count = "1 validation error" if len(errors) == 1 else f"{len(errors)} validation errors"
    return f"{count} detected: {'; '.join(errors)}"


def in_messages(name: str) -> str:
    """Return a member's name in the form of a message: functionName for FunctionName."""
    return name[0].lower() + name[1:]


@functools.cache
def _constraints(shape: Shape) -> tuple[_Constraint, ...]:
    """Return the constraints of a value in the order that AWS lists them, patterns first."""
    match shape:
        case String(minimum=low, maximum=high, pattern=pattern):
            fits = () if pattern is None else (_fits(pattern),)
            return (*fits, *_length(low, high))
        case OneOf(values=values, open=False):
            words = f"Member must satisfy enum value set: [{', '.join(values)}]"
            return ((words, frozenset(values).__contains__),)
        case Integer(minimum=low, maximum=high) | Double(minimum=low, maximum=high):
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
    # A minimum of 0 always holds, and is still listed among the constraints of a member.
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
    """Return a value as Java prints it, cut after `_SHOWN` characters."""
    match value:
        case None:
            text = "null"
        case bool():
            text = "true" if value else "false"
        case list():
            # Each takes at least one character.
            text = f"[{', '.join(map(shown, value[:_SHOWN]))}]"
        case dict():
            pairs = (f"{key}={shown(each)}" for key, each in list(value.items())[:_SHOWN])
            text = f"{{{', '.join(pairs)}}}"
        case _:
            text = str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# An escape, a class, or a plain dot: Java's dot stops at every line terminator, Python's at \n.
_PIECES = re.compile(r"\\.|\[(?:\\.|[^\]])*\]|\.")
_NOT_LINE_END = "[^\n\r\x85\u2028\u2029]"
# Letters, numbers, separators. The model has the first two only together, and beside "_": together
# the three are \w.
_CATEGORIES = {
    r"\p{L}": r"\w",
    r"\p{N}": "",
    r"\p{Z}": " \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    r"""Return a pattern of the model, in Java's syntax, compiled for Python.

    In Java \d and \s are ASCII, \p is Unicode, and a dot excludes all line terminators.
    """
    flags = re.ASCII
    for category, members in _CATEGORIES.items():
        if category in pattern:
            flags = re.UNICODE
            pattern = pattern.replace(category, members)
    pattern = _PIECES.sub(lambda piece: _NOT_LINE_END if piece[0] == "." else piece[0], pattern)
    return re.compile(pattern, flags)
