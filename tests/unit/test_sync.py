"""The synchronous supervisor has the very methods of the asynchronous one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from miniλ.decorated import Function
from miniλ.model import ConfigurationChanges, FunctionOptions
from miniλ.supervisor import Supervisor
from miniλ.sync import SyncSupervisor

if TYPE_CHECKING:
    from collections.abc import Callable


def methods(of: type) -> dict[str, Callable[..., Any]]:
    """Return the public methods of a class."""
    return {name: m for name, m in inspect.getmembers(of, inspect.isfunction) if name[0] != "_"}


def signature(method: Callable[..., Any]) -> tuple[list[inspect.Parameter], str]:
    """Return the parameters of a method, and what a caller gets in the end."""
    both = inspect.signature(method)
    return list(both.parameters.values()), both.return_annotation.replace(
        "AsyncIterator", "Iterator"
    )


def test_both_have_the_same_methods() -> None:
    """What one can do, the other can."""
    assert methods(Supervisor).keys() == methods(SyncSupervisor).keys()


@pytest.mark.parametrize("name", ["__init__", *methods(Supervisor)])
def test_each_method_has_the_same_parameters(name: str) -> None:
    """Names, kinds, defaults and types are the same, and so is the answer."""
    assert signature(getattr(Supervisor, name)) == signature(getattr(SyncSupervisor, name))


def test_no_method_takes_just_anything() -> None:
    """Keywords are named, or a TypedDict names them, so that an editor completes them."""
    for of in (Supervisor, SyncSupervisor):
        for name, method in methods(of).items():
            for parameter in inspect.signature(method).parameters.values():
                assert parameter.kind is not parameter.VAR_POSITIONAL, name
                is_typed = str(parameter.annotation).startswith("Unpack[")
                assert is_typed is (parameter.kind is parameter.VAR_KEYWORD), name


def test_the_keywords_of_functions_are_the_same_everywhere() -> None:
    """What `create_function` takes by keyword, the decorator takes and an update changes."""
    create = inspect.signature(Supervisor.create_function).parameters
    options = {name for name, each in create.items() if each.kind is each.KEYWORD_ONLY}

    assert options == FunctionOptions.__optional_keys__ | {"runtime"}
    assert options | {"handler"} == ConfigurationChanges.__optional_keys__


def test_a_decorated_function_is_invoked_with_the_same_keywords() -> None:
    """All but the name, which it has."""
    invoke, _ = signature(Supervisor.invoke)

    assert [each for each in invoke if each.name != "name"] == signature(Function.invoke)[0]
