"""This module is what a worker is given: by its supervisor, by its caller, by its init phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from miniλ.journal import Journal
    from miniλ.sandbox.hierarchies import Hierarchy
    from miniλ.sandbox.levels import Choice
    from miniλ.sandbox.users import Users
    from miniλ.scratch import Scratches
    from miniλ.settings import Settings
    from miniλ.zygote import Zygotes


class Init(msgspec.Struct, frozen=True):
    """How an init phase went. `status` is "", "error" or "timeout"; `body` the failure if any."""

    status: str
    seconds: float
    log: bytes
    body: bytes = b""
    error_type: str = ""


class Context:
    """What a caller may say beside the event: JSON texts for `client_context` and `identity`."""

    __slots__ = ("client_context", "identity", "trace_id")

    def __init__(
        self,
        client_context: str | None = None,
        identity: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        self.client_context = client_context
        self.identity = identity
        self.trace_id = trace_id


NO_CONTEXT = Context()


class Host(msgspec.Struct, frozen=True):
    """What every worker of a supervisor needs from it."""

    settings: Settings
    journal: Journal
    zygotes: Zygotes
    hierarchy: Hierarchy
    choice: Choice
    users: Users | None
    scratches: Scratches
    instance: str
    limits: dict[str, str]
    process_limit: int | None
