"""A worker's equipment: what it gets from its supervisor, and the context of an invocation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from miniλ.errors import ResourceConflict
from miniλ.model import MB
from miniλ.names import Place
from miniλ.runtimes import catalog, environment
from miniλ.sandbox import Sandbox, levels, namespaces, rlimits
from miniλ.worker import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.journal import Journal
    from miniλ.model import FunctionConfiguration, Response
    from miniλ.sandbox.hierarchies import Hierarchy
    from miniλ.sandbox.levels import Choice
    from miniλ.settings import Settings
    from miniλ.worker.affinity import Affinity
    from miniλ.worker.tmp_dirs import TmpDirs
    from miniλ.worker.zygote import Zygotes


# 1,769 MB are one vCPU (developer guide, "Configure Lambda function memory").
MB_PER_CPU = 1769
# 1,024 descriptors and 1,024 processes and threads (developer guide, "Lambda quotas").
DESCRIPTORS = 1024
PROCESSES = 1024


class WorkerGone(Exception):
    """The worker has ended and has not seen the invocation. The invoker takes another worker."""


class InvocationContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a caller sends beside the event; None is what it did not send.

    `client_context` and `identity` are JSON texts, as the handler's `context` shows them;
    `trace_id` is the value of X-Amzn-Trace-Id; `arn` the ARN that the function was invoked by,
    if that is not its unqualified one. It travels whole, from the caller to the frame.
    """

    client_context: str | None = None
    identity: str | None = None
    trace_id: str | None = None
    arn: str | None = None


NO_CONTEXT = InvocationContext()


def check_code(function: FunctionConfiguration) -> None:
    """Raise `ResourceConflict` if the code of a function was deleted from the disk."""
    if not os.path.isdir(function.code_path):
        msg = (
            f"The code of function {function.name} is gone from {function.code_path}: "
            "it was deleted while in use. Deploy it again with update_function_code"
        )
        raise ResourceConflict(msg)


class Equipment(msgspec.Struct, frozen=True):
    """What every worker of a supervisor needs from it."""

    settings: Settings
    journal: Journal
    zygotes: Zygotes
    hierarchy: Hierarchy
    choice: Choice
    tmp_dirs: TmpDirs
    instance: str
    limits: dict[str, str]
    process_limit: int | None
    affinity: Affinity
    # Called with each response, the worker's log stream and the Unix time, if logs are kept.
    keep_log: Callable[[Response, str, float], None] | None = None

    def limits_of(self, function: FunctionConfiguration) -> dict[str, str]:
        """Return how each limit of this function's workers is held: the supervisor's, or its own.

        Its own if the function has no network, or is the embedding app's.
        """
        own: dict[str, str] = {}
        if function.network == "none":
            own["network"] = "hard: a network namespace"
        if function.python_path and self.choice.users:
            # A function of the app runs as the app's user: see `TmpDirs.lease`.
            own["siblings"] = levels.siblings(self.choice._replace(users=False))
            # A user of its own may be what limits processes: without one the cgroup is left.
            own["processes"] = self.hierarchy.limits["processes"]
        return {**self.limits, **own} if own else self.limits

    def init_frame(
        self,
        function: FunctionConfiguration,
        *,
        program: str,
        tmp_dir: str,
        stream: str,
        initialization: str,
    ) -> bytes:
        """Return the first frame for a worker: its function, and the function's environment.

        `program` is its interpreter, `tmp_dir` its /tmp as the supervisor sees it; `stream` and
        `initialization` as `environment.variables` has them.
        """
        inside = bool(self.choice.isolation.namespaces)
        task_root = namespaces.TASK_ROOT if inside else function.code_path
        head = wire.InitFrame(
            handler=function.handler,
            task_root=catalog.in_utf8(task_root),
            arn=Place(self.settings.region, self.settings.account).function(function.name),
            measure_rss=not self.limits["memory"].startswith("hard"),
            layers=catalog.in_utf8(environment.layers(function, task_root)),
        )
        variables = environment.variables(
            function,
            self.settings,
            program=program,
            root=task_root,
            tmp_dir=namespaces.TMP if inside else tmp_dir,
            stream=stream,
            initialization=initialization,
        )
        return wire.encode(head, msgspec.json.encode(variables))

    def sandbox(
        self,
        function: FunctionConfiguration,
        worker_id: str,
        group: tuple[str, ...],
        tmp_dir: str,
        user: int | None,
    ) -> Sandbox:
        """Return the sandbox of a worker of this function, with what was leased for it."""
        tmp_bytes = function.ephemeral_storage * MB
        return Sandbox(
            worker_id=worker_id,
            group=group,
            code=function.code_path,
            tmp=tmp_dir,
            tmp_bytes=tmp_bytes,
            data_bytes=function.memory_size * MB + rlimits.DATA_SLACK,
            # Where /tmp has a size of its own, no single file needs a bound.
            file_bytes=None if self.limits["tmp"].startswith("hard") else tmp_bytes,
            descriptors=DESCRIPTORS,
            processes=self.process_limit,
            visible=environment.visible(function),
            user=user,
            network=function.network != "none",
            layers=function.layers_path,
        )
