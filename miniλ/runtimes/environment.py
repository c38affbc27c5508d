"""What a worker's function sees: environment variables, layers, directories and its log stream.

Source: AWS Lambda developer guide, "Defined runtime environment variables".
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from miniλ.runtimes.catalog import in_utf8, workers_directory
from miniλ.sandbox import namespaces

if TYPE_CHECKING:
    from miniλ.model import FunctionConfiguration
    from miniλ.settings import Settings

# The values of AWS_LAMBDA_INITIALIZATION_TYPE: why a worker was started.
ON_DEMAND = "on-demand"
PROVISIONED = "provisioned-concurrency"


def log_stream(function: FunctionConfiguration, worker_id: str, started: float) -> str:
    """Return the name of a worker's log stream; `started` is when it was made, as Unix time.

    The one place that makes such a name: the function's context and the logbook have it from here.
    """
    day = time.strftime("%Y/%m/%d", time.gmtime(started))
    return f"{day}/[{function.version}]{worker_id}"


def visible(function: FunctionConfiguration) -> tuple[str, ...]:
    """Return the directories beside its code that a function of the embedding app imports from."""
    system = (*namespaces.SYSTEM, sys.base_prefix)
    directories: list[str] = []
    for path in sorted({os.path.realpath(path) for path in function.python_path}):
        is_visible = any(namespaces.is_within(path, other) for other in (*system, *directories))
        if not is_visible and os.path.isdir(path):
            directories.append(path)
    return tuple(directories)


def layers(function: FunctionConfiguration, root: str) -> str:
    """Return where a worker finds its layers, by where it finds its code; "" without layers."""
    inside = bool(function.layers_path) and root == namespaces.TASK_ROOT
    return namespaces.LAYERS if inside else function.layers_path


def variables(
    function: FunctionConfiguration,
    settings: Settings,
    *,
    program: str,
    root: str,
    tmp_dir: str,
    stream: str,
    initialization: str,
) -> dict[str, str]:
    """Return the environment variables of a worker's function.

    `program` is its interpreter. `root` and `tmp_dir` are where it finds its code and its /tmp:
    /var/task and /tmp in a mount namespace, and the real paths without one. `stream` is its log
    stream, `initialization` is `ON_DEMAND` or `PROVISIONED`.

    AWS_LAMBDA_RUNTIME_API is absent, since frames come by pipe; `test_python_contract.py` (in
    tests/conformance) asserts that.
    """
    programs = in_utf8(os.path.dirname(os.path.realpath(program)))
    opt = in_utf8(layers(function, root) or namespaces.LAYERS)
    root, tmp_dir = in_utf8(root), in_utf8(tmp_dir)
    environment = {
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
        # Placeholders that no service accepts: clients of AWS cannot be constructed without keys.
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
        "AWS_LAMBDA_INITIALIZATION_TYPE": initialization,
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "LAMBDA_TASK_ROOT": root,
        "LAMBDA_RUNTIME_DIR": f"{namespaces.RUNTIME}/python"
        if root == namespaces.TASK_ROOT
        else in_utf8(str(workers_directory() / "python")),
    }
    logging = function.passthrough.get("LoggingConfig", {})
    if logging.get("LogFormat") == "JSON":
        environment["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
        environment["AWS_LAMBDA_LOG_LEVEL"] = logging.get("ApplicationLogLevel", "INFO")
    if not environment["PYTHONPATH"]:
        del environment["PYTHONPATH"]
    return environment
