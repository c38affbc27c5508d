"""Errors of miniλ, each with its Lambda code and HTTP status.

A function that raises, exits or times out is no error of miniλ: that is a `Failure`, and a value.

    LambdaError
    ├── ValidationFailed         400  a parameter breaks the service model's constraints
    ├── SerializationFailed      400  the request is no JSON, or a value has the wrong type
    ├── InvalidParameterValue    400  a configuration that Lambda would refuse
    ├── InvalidRequestContent    400  the event is not JSON
    ├── RecursiveInvocation      400  the function has called itself too often
    ├── ResourceInUse            400  the resource is being changed or deleted
    ├── PolicyLengthExceeded     400  a resource policy above 20 KB
    ├── AccessDenied             403  the caller may not do this, or its signature is wrong
    ├── ResourceNotFound         404  no such function, alias, layer, policy, mapping, log group
    │   ├── NoCodeSigningConfig  404  no code signing configuration
    │   ├── NoProvisioned        404  no provisioned concurrency of that version or alias
    │   └── UnknownOperation     404  no operation of that path
    ├── MethodNotAllowed         405  an operation's path, with another method
    ├── RequestTimedOut          408  the body came too slowly
    ├── ResourceConflict         409  the name is taken, or the state does not allow the operation
    ├── PreconditionFailed       412  the RevisionId is not the current one
    ├── RequestTooLarge          413  an event above 6 MB, or 1 MB for Event
    ├── EntityTooLarge           413  a request above what the operation takes
    ├── UnsupportedMediaType     415  the Content-Type of a request is not JSON
    ├── Throttled                429  every worker the function may have is busy
    ├── ServiceError             500  miniλ itself could not do it
    │   ├── RuntimeMissing       500  the interpreter of this runtime is not on this machine
    │   └── SupervisorClosed     500  used before it was opened or after it was closed
    ├── StateInUse               500  another supervisor holds the state directory
    └── NotEnforced              500  the host falls short of what the settings require

Source of codes and statuses: AWS Lambda API reference, "Invoke" and "CreateFunction", Errors; for
codes that the model does not have (validation, entity size, unknown operation): recorded answers.
"""

from __future__ import annotations

from http import HTTPStatus


class LambdaError(Exception):
    """The base of every error of miniλ: `code` and `status` are Lambda's, str() is the message."""

    code = "ServiceException"
    status = 500

    @property
    def is_ours(self) -> bool:
        """Whether miniλ is at fault, and not its caller: HTTP statuses from 500 on."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


class ValidationFailed(LambdaError):
    """Parameters break the constraints of the service model; the message lists each of them."""

    code = "ValidationException"
    status = 400


class SerializationFailed(LambdaError):
    """The request is no JSON object, or a value of it has a type that its member cannot have."""

    code = "SerializationException"
    status = 400


class InvalidParameterValue(LambdaError):
    """One of the parameters is not valid: the message names it, its value and the bounds."""

    code = "InvalidParameterValueException"
    status = 400


class InvalidRequestContent(LambdaError):
    """The event could not be parsed as (or turned into) JSON."""

    code = "InvalidRequestContentException"
    status = 400


class RecursiveInvocation(LambdaError):
    """The function was in this chain of invocations too often: it is in a recursive loop."""

    code = "RecursiveInvocationException"
    status = 400


class ResourceInUse(LambdaError):
    """The resource is being created, updated or deleted: try again later."""

    code = "ResourceInUseException"
    status = 400


class PolicyLengthExceeded(LambdaError):
    """A resource policy would be larger than Lambda's 20 KB."""

    code = "PolicyLengthExceededException"
    status = 400


class AccessDenied(LambdaError):
    """The caller may not do this; `code` is one of AWS's codes for that."""

    code = "AccessDeniedException"
    status = 403

    def __init__(self, message: str, code: str = code) -> None:
        """Refuse with a message and, for signatures, AWS's code for what is wrong."""
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[AccessDenied], tuple[str, str]]:
        """Copy and pickle it with its code."""
        return (AccessDenied, (str(self), self.code))


class ResourceNotFound(LambdaError):
    """There is no such resource here.

    That is a function, version, alias, layer, policy, event source mapping, log group or log
    stream; or a function of another region.
    """

    code = "ResourceNotFoundException"
    status = 404


class NoCodeSigningConfig(ResourceNotFound):
    """There is no such code signing configuration: miniλ checks no signatures of code."""

    code = "CodeSigningConfigNotFoundException"


class NoProvisioned(ResourceNotFound):
    """The version or alias has no provisioned concurrency."""

    code = "ProvisionedConcurrencyConfigNotFoundException"


class UnknownOperation(ResourceNotFound):
    """No operation has this path."""

    code = "UnknownOperationException"


class MethodNotAllowed(LambdaError):
    """There are operations of this path, and none with this method; the message lists them."""

    code = "MethodNotAllowedException"
    status = 405


class RequestTimedOut(LambdaError):
    """The body of the request did not arrive in time."""

    code = "RequestTimeoutException"
    status = 408


class ResourceConflict(LambdaError):
    """The resource already exists, or is in a state that does not allow the operation."""

    code = "ResourceConflictException"
    status = 409


class PreconditionFailed(LambdaError):
    """The RevisionId of the request is not the resource's current one."""

    code = "PreconditionFailedException"
    status = 412


class EntityTooLarge(LambdaError):
    """The request, or a zip that it brings, is larger than its operation takes."""

    code = "RequestEntityTooLargeException"
    status = 413


class UnsupportedMediaType(LambdaError):
    """The body is not JSON, by the request's own Content-Type."""

    code = "UnsupportedMediaTypeException"
    status = 415


class RequestTooLarge(LambdaError):
    """The event is above Lambda's limit of 6 MB, or of 1 MB for the Event invocation type."""

    code = "RequestTooLargeException"
    status = 413


class Throttled(LambdaError):
    """Every worker that the function may have is busy. `reason` is Lambda's `Reason`."""

    code = "TooManyRequestsException"
    status = 429

    def __init__(self, reason: str) -> None:
        """Throttle because of `reason`, for instance ConcurrentInvocationLimitExceeded."""
        super().__init__(f"Rate Exceeded. ({reason})")
        self.reason = reason

    def __reduce__(self) -> tuple[type[Throttled], tuple[str]]:
        """Copy and pickle it from the reason, not from the message made of it."""
        return (Throttled, (self.reason,))


class ServiceError(LambdaError):
    """miniλ could not do its part: not the function's fault; a retry may succeed."""


class RuntimeMissing(ServiceError):
    """The interpreter that this runtime names is not on this machine."""


class SupervisorClosed(ServiceError):
    """The supervisor is not open: use it inside its `with` or `async with`."""

    def __init__(
        self, message: str = "The supervisor is not open: use it inside its `with` or `async with`"
    ) -> None:
        super().__init__(message)


class StateInUse(LambdaError):
    """Another supervisor holds this state directory; the message says which process."""


class NotEnforced(LambdaError):
    """The host cannot enforce a limit that the settings require; the message says which."""
