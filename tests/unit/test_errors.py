"""Tests of the errors: the tree in the docstring is the tree in the code."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

import miniλ
from miniλ import errors
from miniλ.errors import LambdaError

ALL = [
    kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, LambdaError)
]
names = [kind.__name__ for kind in ALL]


def make(kind: type[LambdaError]) -> LambdaError:
    """Return an error as its users raise it: with one text."""
    return kind("ConcurrentInvocationLimitExceeded")


def test_the_tree_in_the_docstring_is_the_tree_in_the_code() -> None:
    """Every error is drawn below the one it derives from, with its HTTP status."""
    drawn: dict[str, tuple[str, int]] = {}
    path = {-1: "LambdaError"}
    for line in (errors.__doc__ or "").splitlines():
        match = re.fullmatch(r"    ([│ ]*)[├└]── (\w+) +(\d{3})  \S.*", line)
        if match:
            depth = len(match[1]) // 4
            path[depth] = match[2]
            drawn[match[2]] = (path[depth - 1], int(match[3]))

    coded = {
        kind.__name__: (kind.__bases__[0].__name__, kind.status)
        for kind in ALL
        if kind is not LambdaError
    }
    assert coded == drawn


@pytest.mark.parametrize("kind", ALL, ids=names)
def test_every_error_is_public(kind: type[LambdaError]) -> None:
    """An app that embeds miniλ can catch each of them by its name."""
    assert kind is getattr(miniλ, kind.__name__)
    assert kind.__name__ in miniλ.__all__


@pytest.mark.parametrize("kind", ALL, ids=names)
def test_every_error_says_what_it_was_told(kind: type[LambdaError]) -> None:
    """The text is in the message."""
    assert "ConcurrentInvocationLimitExceeded" in str(make(kind))


@pytest.mark.parametrize("kind", ALL, ids=names)
def test_codes_are_those_of_lambda(kind: type[LambdaError]) -> None:
    """A code ends in Exception, as in the API reference, and a status is an HTTP error."""
    assert kind.code.endswith("Exception")
    assert 400 <= kind.status < 600
    assert (kind.status == 500) == (kind.code == "ServiceException")


def test_throttled_says_why_as_lambda_does() -> None:
    """The reason is Lambda's `Reason`, and part of the message."""
    error = errors.Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")

    assert str(error) == "Rate Exceeded. (ReservedFunctionConcurrentInvocationLimitExceeded)"
    assert error.reason == "ReservedFunctionConcurrentInvocationLimitExceeded"
    assert (error.code, error.status) == ("TooManyRequestsException", 429)


@pytest.mark.parametrize("kind", ALL, ids=names)
def test_an_error_survives_a_copy(kind: type[LambdaError]) -> None:
    """Copied or pickled (multiprocessing, a cache) an error says the same, once."""
    error = make(kind)

    assert str(error) == str(copy.copy(error))
    assert str(error) == str(pickle.loads(pickle.dumps(error)))
