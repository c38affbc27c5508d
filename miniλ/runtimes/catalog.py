"""This module is runtimes: from a runtime's name to the program that its workers run in.

A Python runtime is an interpreter of that version on PATH; the one that runs the supervisor
serves its own version. Code is never run to find out: a candidate that turns out to be
something else is dropped when its zygote says which Python it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from miniλ.errors import InvalidParameterValue
from miniλ.sandbox import namespaces

if TYPE_CHECKING:
    from miniλ.model import FunctionConfiguration
    from miniλ.settings import Settings

PYTHON = tuple(f"python3.{minor}" for minor in range(9, 15))
KNOWN = PYTHON

_VERSION = "import sys; print('python%d.%d' % sys.version_info[:2])"


def own() -> str:
    """Return the runtime of the interpreter that runs us."""
    return f"python{sys.version_info[0]}.{sys.version_info[1]}"


def check(runtime: object) -> None:
    """Refuse a runtime that miniλ does not know at all."""
    if runtime not in KNOWN:
        msg = f"Runtime must be one of {', '.join(KNOWN)}, got {runtime!r}; here: {here_text()}"
        raise InvalidParameterValue(msg)


def candidates(runtime: str) -> list[str]:
    """Return the programs that may be this runtime, best first."""
    found = [sys.executable] if runtime == own() and sys.executable else []
    for directory in os.get_exec_path():
        path = shutil.which(runtime, path=directory)
        if path is not None and path not in found:
            found.append(path)
    return found


def here() -> list[str]:
    """Return the runtimes that work on this machine. Starts each candidate once: slow."""
    return [runtime for runtime in KNOWN if runtime == own() or _works(runtime)]


def here_text() -> str:
    """Return the runtimes that work here, as part of a message."""
    return ", ".join(here()) or "none"


def _works(runtime: str) -> bool:
    for path in candidates(runtime):
        try:
            done = subprocess.run(  # noqa: S603 - an interpreter from PATH, our own arguments
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


def visible(function: FunctionConfiguration) -> tuple[str, ...]:
    """Return the directories beside its code that a function of the embedding app imports from."""
    system = (*namespaces.SYSTEM, sys.base_prefix)
    found: list[str] = []
    for path in sorted({os.path.realpath(path) for path in function.python_path}):
        known = any(namespaces.is_within(path, other) for other in (*system, *found))
        if not known and os.path.isdir(path):
            found.append(path)
    return tuple(found)


def layers(function: FunctionConfiguration, root: str) -> str:
    """Return where a worker finds its layers, by where it finds its code; "" without layers."""
    inside = bool(function.layers_path) and root == namespaces.TASK_ROOT
    return namespaces.LAYERS if inside else function.layers_path


def environment(
    function: FunctionConfiguration,
    settings: Settings,
    worker_id: str,
    program: str,
    root: str,
    tmp_dir: str,
) -> dict[str, str]:
    """Return the environment that a worker gives its function.

    `root` and `tmp_dir` are where it finds its code and its /tmp: /var/task and /tmp, and the real
    paths where there is no mount namespace.

    Source: developer guide, "Defined runtime environment variables". AWS_LAMBDA_RUNTIME_API is
    absent, since this worker is spoken to by pipe.
    """
    day = time.strftime("%Y/%m/%d", time.gmtime())
    programs = in_utf8(os.path.dirname(os.path.realpath(program)))
    opt = in_utf8(layers(function, root) or namespaces.LAYERS)
    root, tmp_dir = in_utf8(root), in_utf8(tmp_dir)
    variables = {
        "LANG": "en_US.UTF-8",
        "LC_CTYPE": "C.UTF-8",
        "TZ": ":UTC",
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin:{opt}/bin",
        "LD_LIBRARY_PATH": f"{root}:{root}/lib:{opt}/lib",
        "HOME": tmp_dir,
        "TMPDIR": tmp_dir,
        "TEMP": tmp_dir,
        "TMP": tmp_dir,
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        # Nobody's keys: clients of AWS need some to be constructed.
        "AWS_ACCESS_KEY_ID": "minilambda",
        "AWS_SECRET_ACCESS_KEY": "minilambda",
        "AWS_SESSION_TOKEN": "minilambda",
        "PYTHONPATH": in_utf8(os.pathsep.join(function.python_path)),
        **function.environment,
        "_HANDLER": function.handler,
        "AWS_REGION": settings.region,
        "AWS_DEFAULT_REGION": settings.region,
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_size),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{day}/[{function.version}]{worker_id}",
        "LAMBDA_TASK_ROOT": root,
        "LAMBDA_RUNTIME_DIR": f"{namespaces.RUNTIME}/python"
        if root == namespaces.TASK_ROOT
        else in_utf8(str(workers_directory() / "python")),
    }
    logging = function.passthrough.get("LoggingConfig", {})
    if logging.get("LogFormat") == "JSON":
        variables["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
        variables["AWS_LAMBDA_LOG_LEVEL"] = logging.get("ApplicationLogLevel", "INFO")
    if not variables["PYTHONPATH"]:
        del variables["PYTHONPATH"]
    return variables
