"""This module is what a worker is given: by its supervisor, by its caller, by its init phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from miniλ.model import MB
from miniλ.names import Place
from miniλ.runtimes import catalog
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


class InitResult(msgspec.Struct, frozen=True):
    """How an init phase went. `status` is "", "error" or "timeout"; `body` the failure if any."""

    status: str
    seconds: float
    log: bytes
    body: bytes = b""
    error_type: str = ""


class WorkerGone(Exception):
    """The worker is not there any more, and has not seen the invocation. Never leaves miniλ."""


class InvocationContext(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a caller sends beside the event; None is what it did not send.

    `client_context` and `identity` are JSON texts, as the handler's `context` shows them;
    `trace_id` is the value of X-Amzn-Trace-Id; `arn` the ARN that the function was invoked by,
    where that is not its unqualified one. It travels whole, from the caller to the frame.
    """

    client_context: str | None = None
    identity: str | None = None
    trace_id: str | None = None
    arn: str | None = None


NO_CONTEXT = InvocationContext()


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
    # Is given each response and when it came (epoch seconds), where logs are kept.
    keep_log: Callable[[Response, float], None] | None = None

    def limits_of(self, function: FunctionConfiguration) -> dict[str, str]:
        """Return what holds the workers of this function, where that is not what holds all."""
        own: dict[str, str] = {}
        if function.network == "none":
            own["network"] = "hard: a network namespace"
        if function.python_path and self.choice.users:
            # A function of the app runs as the app's user: see `TmpDirs.lease`.
            own["siblings"] = levels.siblings(self.choice._replace(users=False))
            if "user of its own" in self.limits["processes"]:
                own["processes"] = self.hierarchy.limits["processes"]
        return {**self.limits, **own} if own else self.limits

    def introduction(
        self, function: FunctionConfiguration, worker_id: str, program: str, tmp_dir: str
    ) -> bytes:
        """Return the first frame for a worker: who it is, and the environment of its function.

        `program` is its interpreter, `tmp_dir` its /tmp as the supervisor sees it.
        """
        inside = bool(self.choice.isolation.namespaces)
        task_root = namespaces.TASK_ROOT if inside else function.code_path
        head = wire.InitFrame(
            handler=function.handler,
            task_root=catalog.in_utf8(task_root),
            arn=Place(self.settings.region, self.settings.account).function(function.name),
            measure_rss=not self.limits["memory"].startswith("hard"),
            layers=catalog.in_utf8(catalog.layers(function, task_root)),
        )
        environment = catalog.environment(
            function,
            self.settings,
            worker_id,
            program,
            task_root,
            namespaces.TMP if inside else tmp_dir,
        )
        return wire.encode(head, msgspec.json.encode(environment))

    def sandbox(
        self,
        function: FunctionConfiguration,
        worker_id: str,
        group: tuple[str, ...],
        tmp_dir: str,
        user: int | None,
    ) -> Sandbox:
        """Return what is to be around a worker of this function, by what was leased for it."""
        tmp_bytes = function.ephemeral_storage * MB
        return Sandbox(
            worker_id=worker_id,
            group=group,
            code=function.code_path,
            tmp=tmp_dir,
            tmp_bytes=tmp_bytes,
            data_bytes=function.memory_size * MB + rlimits.DATA_SLACK,
            # Where /tmp has a size of its own it needs no bound per file.
            file_bytes=None if self.limits["tmp"].startswith("hard") else tmp_bytes,
            descriptors=DESCRIPTORS,
            processes=self.process_limit,
            visible=catalog.visible(function),
            user=user,
            network=function.network != "none",
            layers=function.layers_path,
        )
