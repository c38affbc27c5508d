"""The catalog of runtimes: from a runtime's name to the programs that its workers may run in.

A Python runtime is an interpreter of that version on PATH; the one that runs the supervisor
serves its own version. `candidates` runs none of them: the zygote of a candidate says which Python
it is, and a candidate that is another version is dropped then. `here` does start each once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from miniλ.errors import InvalidParameterValue

PYTHON = tuple(f"python3.{minor}" for minor in range(9, 15))
KNOWN = PYTHON

_VERSION = "import sys; print('python%d.%d' % sys.version_info[:2])"


def own() -> str:
    """Return the runtime of the interpreter that runs the supervisor."""
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def check(runtime: object) -> None:
    """Raise `InvalidParameterValue` for a runtime that is not in the catalog."""
    if runtime not in KNOWN:
        msg = f"Runtime must be one of {', '.join(KNOWN)}, got {runtime!r}; here: {here_text()}"
        raise InvalidParameterValue(msg)


def candidates(runtime: str) -> list[str]:
    """Return the programs that may be this runtime, best first."""
    programs = [sys.executable] if runtime == own() and sys.executable else []
    for directory in os.get_exec_path():
        path = shutil.which(runtime, path=directory)
        if path is not None and path not in programs:
            programs.append(path)
    return programs


def here() -> list[str]:
    """Return the runtimes that work on this machine. Starts each candidate once: slow."""
    return [runtime for runtime in KNOWN if runtime == own() or _works(runtime)]


def here_text() -> str:
    """Return the runtimes that work here, as part of a message."""
    return ", ".join(here()) or "none"


def _works(runtime: str) -> bool:
    for path in candidates(runtime):
        try:
            done = subprocess.run(  # noqa: S603 - an interpreter from PATH, constant arguments
                [path, "-I", "-S", "-c", _VERSION],
                capture_output=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.stdout.decode(errors="replace").strip() == runtime:
            return True
    return False


def packages_directory() -> Path:
    """Return the directory that holds the package miniλ."""
    return Path(__file__).resolve().parent.parent.parent


def sandbox_program(name: str) -> str:
    """Return the path of a program of `miniλ.sandbox`, as this process's file system has it."""
    return str(Path(__file__).resolve().parent.parent / "sandbox" / name)


def in_utf8(path: str) -> str:
    """Return a path as a process reads it whose file system encoding is UTF-8: the same bytes.

    Zygotes, workers and the probe are such processes under every locale. Under a Latin-1 locale
    `miniλ` is `mini` and two other characters in this one. Raises `InvalidParameterValue` for
    bytes that are not UTF-8: JSON, which takes paths to workers, cannot have them.
    """
    try:
        return os.fsencode(path).decode()
    except UnicodeDecodeError as exc:
        msg = f"A path that workers use must be UTF-8, got {os.fsencode(path)!r}: rename it"
        raise InvalidParameterValue(msg) from exc


def workers_directory() -> Path:
    """Return where the workers of all languages are: in the wheel, or beside the package.

    A wheel carries them inside the package; a checkout and an editable install have them in
    the project's directory.
    """
    inside = Path(__file__).resolve().parent.parent / "workers"
    return inside if inside.is_dir() else packages_directory() / "workers"
