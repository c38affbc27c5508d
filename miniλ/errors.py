"""This module is what can go wrong on our side, each with its Lambda code and HTTP status.

A function that raises, exits or times out is not in here: that is a `Failure`, and a value.

    LambdaError
    ├── InvalidParameterValue    400  a configuration that Lambda would refuse
    ├── InvalidRequestContent    400  an event that is not JSON
    ├── ResourceNotFound         404  no function of that name
    ├── ResourceConflict         409  the name is taken, or the function cannot run as it is now
    ├── RequestTooLarge          413  an event above 6 MB
    ├── Throttled                429  every worker the function may have is busy
    ├── ServiceError             500  miniλ itself could not do it
    │   ├── RuntimeMissing       500  the interpreter of this runtime is not on this machine
    │   └── SupervisorClosed     500  used before it was opened or after it was closed
    ├── StateInUse               500  another supervisor holds the state directory
    └── NotEnforced              500  the host falls short of what the settings require

Source of codes and statuses: AWS Lambda API reference, "Invoke" and "CreateFunction", Errors.
"""

from __future__ import annotations


class LambdaError(Exception):
    """What every error of miniλ is. `code` and `status` are Lambda's; str() is the message."""

    code = "ServiceException"
    status = 500


class InvalidParameterValue(LambdaError):
    """One of the parameters is not valid: the message names it, its value and the bounds."""

    code = "InvalidParameterValueException"
    status = 400


class InvalidRequestContent(LambdaError):
    """The event could not be parsed as (or turned into) JSON."""

    code = "InvalidRequestContentException"
    status = 400


class ResourceNotFound(LambdaError):
    """There is no function of that name."""

    code = "ResourceNotFoundException"
    status = 404


class ResourceConflict(LambdaError):
    """The resource already exists, or is in a state that does not allow the operation."""

    code = "ResourceConflictException"
    status = 409


class RequestTooLarge(LambdaError):
    """The event is above Lambda's limit of 6 MB."""

    code = "RequestTooLargeException"
    status = 413


class Throttled(LambdaError):
    """Every worker that the function may have is busy. `reason` is Lambda's `Reason`."""

    code = "TooManyRequestsException"
    status = 429

    def __init__(self, reason: str) -> None:
        """Say no because of `reason`, for instance ConcurrentInvocationLimitExceeded."""
        super().__init__(f"Rate Exceeded. ({reason})")
        self.reason = reason

    def __reduce__(self) -> tuple[type[Throttled], tuple[str]]:
        """Be copied and pickled from the reason, not from the message made of it."""
        return (Throttled, (self.reason,))


class ServiceError(LambdaError):
    """miniλ could not do its part: not the function's fault, and worth another try."""


class RuntimeMissing(ServiceError):
    """The interpreter that this runtime names is not on this machine."""


class SupervisorClosed(ServiceError):
    """The supervisor is not open: use it inside its `async with`."""


class StateInUse(LambdaError):
    """Another supervisor holds this state directory; the message says which process."""


class NotEnforced(LambdaError):
    """The host cannot hold a limit as hard as the settings require; the message says which."""
