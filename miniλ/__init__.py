"""miniλ runs functions the way AWS Lambda does, as plain supervised processes.

    import miniλ  # or: import minilambda, which is the same package

    async with miniλ.Supervisor() as supervisor:
        await supervisor.create_function("hello", code="functions/hello", handler="app.handler")
        response = await supervisor.invoke("hello", {"name": "Ada"})

The public names are imported when they are first used (PEP 562): the far side of fork imports
`miniλ.sandbox` in a small process that must stay small. Type checkers and editors read the imports
below instead; tests/unit/test_lazy_import.py keeps the three lists equal.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's own costs 9 ms; type checkers take any of this name for true
if TYPE_CHECKING:
    from miniλ.decorated import Function as Function
    from miniλ.errors import AccessDenied as AccessDenied
    from miniλ.errors import EntityTooLarge as EntityTooLarge
    from miniλ.errors import InvalidParameterValue as InvalidParameterValue
    from miniλ.errors import InvalidRequestContent as InvalidRequestContent
    from miniλ.errors import LambdaError as LambdaError
    from miniλ.errors import MethodNotAllowed as MethodNotAllowed
    from miniλ.errors import NoCodeSigningConfig as NoCodeSigningConfig
    from miniλ.errors import NoProvisioned as NoProvisioned
    from miniλ.errors import NotEnforced as NotEnforced
    from miniλ.errors import PolicyLengthExceeded as PolicyLengthExceeded
    from miniλ.errors import PreconditionFailed as PreconditionFailed
    from miniλ.errors import RecursiveInvocation as RecursiveInvocation
    from miniλ.errors import RequestTimedOut as RequestTimedOut
    from miniλ.errors import RequestTooLarge as RequestTooLarge
    from miniλ.errors import ResourceConflict as ResourceConflict
    from miniλ.errors import ResourceInUse as ResourceInUse
    from miniλ.errors import ResourceNotFound as ResourceNotFound
    from miniλ.errors import RuntimeMissing as RuntimeMissing
    from miniλ.errors import SerializationFailed as SerializationFailed
    from miniλ.errors import ServiceError as ServiceError
    from miniλ.errors import StateInUse as StateInUse
    from miniλ.errors import SupervisorClosed as SupervisorClosed
    from miniλ.errors import Throttled as Throttled
    from miniλ.errors import UnknownOperation as UnknownOperation
    from miniλ.errors import UnsupportedMediaType as UnsupportedMediaType
    from miniλ.errors import ValidationFailed as ValidationFailed
    from miniλ.failures import Failure as Failure
    from miniλ.model import FunctionConfiguration as FunctionConfiguration
    from miniλ.model import Report as Report
    from miniλ.model import Response as Response
    from miniλ.settings import Settings as Settings
    from miniλ.supervisor import Supervisor as Supervisor
    from miniλ.sync import SyncSupervisor as SyncSupervisor

__version__ = "0.1.0"

# Public name -> the module that has it.
_WHERE = {
    "Supervisor": "miniλ.supervisor",
    "SyncSupervisor": "miniλ.sync",
    "Function": "miniλ.decorated",
    "Settings": "miniλ.settings",
    "Response": "miniλ.model",
    "Failure": "miniλ.failures",
    "Report": "miniλ.model",
    "FunctionConfiguration": "miniλ.model",
    "LambdaError": "miniλ.errors",
    "ValidationFailed": "miniλ.errors",
    "SerializationFailed": "miniλ.errors",
    "InvalidParameterValue": "miniλ.errors",
    "InvalidRequestContent": "miniλ.errors",
    "RecursiveInvocation": "miniλ.errors",
    "ResourceInUse": "miniλ.errors",
    "PolicyLengthExceeded": "miniλ.errors",
    "AccessDenied": "miniλ.errors",
    "ResourceNotFound": "miniλ.errors",
    "NoCodeSigningConfig": "miniλ.errors",
    "NoProvisioned": "miniλ.errors",
    "UnknownOperation": "miniλ.errors",
    "MethodNotAllowed": "miniλ.errors",
    "RequestTimedOut": "miniλ.errors",
    "ResourceConflict": "miniλ.errors",
    "PreconditionFailed": "miniλ.errors",
    "EntityTooLarge": "miniλ.errors",
    "UnsupportedMediaType": "miniλ.errors",
    "RequestTooLarge": "miniλ.errors",
    "Throttled": "miniλ.errors",
    "ServiceError": "miniλ.errors",
    "RuntimeMissing": "miniλ.errors",
    "SupervisorClosed": "miniλ.errors",
    "StateInUse": "miniλ.errors",
    "NotEnforced": "miniλ.errors",
}

__all__ = [
    "AccessDenied",
    "EntityTooLarge",
    "Failure",
    "Function",
    "FunctionConfiguration",
    "InvalidParameterValue",
    "InvalidRequestContent",
    "LambdaError",
    "MethodNotAllowed",
    "NoCodeSigningConfig",
    "NoProvisioned",
    "NotEnforced",
    "PolicyLengthExceeded",
    "PreconditionFailed",
    "RecursiveInvocation",
    "Report",
    "RequestTimedOut",
    "RequestTooLarge",
    "ResourceConflict",
    "ResourceInUse",
    "ResourceNotFound",
    "Response",
    "RuntimeMissing",
    "SerializationFailed",
    "ServiceError",
    "Settings",
    "StateInUse",
    "Supervisor",
    "SupervisorClosed",
    "SyncSupervisor",
    "Throttled",
    "UnknownOperation",
    "UnsupportedMediaType",
    "ValidationFailed",
    "__version__",
]


if not TYPE_CHECKING:  # for a type checker, a name that is not in the list is an error

    def __getattr__(name: str) -> object:
        """Import one of the public names."""
        if name not in _WHERE:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        import importlib  # noqa: PLC0415 - not in the zygote

        return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
