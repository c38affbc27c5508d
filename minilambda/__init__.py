"""`import minilambda`: the package `miniλ`, by a name that every keyboard has.

    import minilambda

    with minilambda.SyncSupervisor() as supervisor:
        ...

Theory of operation: this module replaces itself in `sys.modules` by the package miniλ, and puts a
finder before the others, for which `minilambda.settings` is the module `miniλ.settings`. So there
is one package, one class of each name and one copy of each module, whichever name is imported
first (tests/unit/test_alias.py).

If the file system's encoding is not UTF-8 (a Latin-1 locale, say), Python cannot find a directory
called `miniλ`, because the name cannot be encoded. Then `import minilambda` finds it by the bytes
of its name, and `import miniλ` works from then on.

It is a package and not a single file, because only a package can be typed (PEP 561); the files
`*.pyi` are for type checkers, which do not run this one.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader

TYPE_CHECKING = False  # typing's own costs 9 ms; type checkers take any of this name for true
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from miniλ import *  # noqa: F403 - every public name
    from miniλ import __all__ as __all__
    from miniλ import __version__ as __version__

_NAME = "miniλ"
_ALIAS = "minilambda"
# Where the package is, as this process's file system encoding has it.
_DIRECTORY = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), os.fsdecode(_NAME.encode())
)


class _Alias:
    """The loader of `minilambda.settings`: it imports `miniλ.settings`, and that is the module."""

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Let Python make an empty module; it is dropped by `exec_module`."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Put the real module in its place, which the import system reads after this call."""
        sys.modules[module.__name__] = importlib.import_module(
            _NAME + module.__name__.removeprefix(_ALIAS)
        )


class _Finder:
    """Finds the submodules of `minilambda`, and `miniλ` itself if Python cannot."""

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module, or None if it is not one of these."""
        if name == f"{_ALIAS}.__main__":
            return None  # `python -m minilambda` runs the file: it needs its code
        if name.startswith(f"{_ALIAS}."):
            return ModuleSpec(name, _Alias())  # type: ignore[arg-type] # a loader by its methods
        if name == _NAME and not _DIRECTORY.endswith(_NAME):
            file = os.path.join(_DIRECTORY, "__init__.py")
            spec = ModuleSpec(name, SourceFileLoader(name, file), origin=file, is_package=True)
            spec.submodule_search_locations = [_DIRECTORY]
            spec.has_location = True
            return spec
        return None


sys.meta_path.insert(0, _Finder())
sys.modules[_ALIAS] = importlib.import_module(_NAME)
