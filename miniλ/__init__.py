"""miniλ runs functions the way AWS Lambda does, as plain supervised processes.

    import miniλ

    async with miniλ.Supervisor() as supervisor:
        await supervisor.create_function("hello", code="functions/hello", handler="app.handler")
        response = await supervisor.invoke("hello", {"name": "Ada"})

The names a user needs are imported when they are first asked for (PEP 562): the far side of
fork imports `miniλ.sandbox` in a small process that must stay small.
"""

from __future__ import annotations

__version__ = "0.1.0"

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

__all__ = ["__version__", *_WHERE]  # noqa: PLE0604 - the keys are the names


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
