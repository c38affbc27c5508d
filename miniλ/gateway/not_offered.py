"""The operations that are not offered, and their answers.

A server has no durable executions, capacity providers or code signing configurations. Rule: a
read answers as for an account without any (an empty list, or not found), if that is the truth;
an operation that would make or change one is refused with a sentence.

Their parameters are not checked: a call has those of its path, as they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from miniλ.errors import (
    InvalidParameterValue,
    LambdaError,
    NoCodeSigningConfig,
    ResourceNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from miniλ.gateway.call import Call

_Operation: TypeAlias = "Callable[[Call], Awaitable[Any]]"

DURABLE = "Durable executions are not offered here"
PROVIDERS = "Capacity providers are not offered here: functions run on this machine"
SIGNING = "Code signing is not offered here: deploy without a code signing configuration"
BY_ARN = (
    "Resource policies by ARN are not offered here: use AddPermission, RemovePermission and "
    "GetPolicy"
)
NO_EXECUTION = "There is no durable execution {DurableExecutionArn}"
NO_CALLBACK = "There is no durable execution that waits for {CallbackId}"
NO_PROVIDER = "There is no capacity provider {CapacityProviderName}"
NO_SIGNING = "The Lambda code signing configuration {CodeSigningConfigArn} can not be found."


def _empty(member: str) -> _Operation:
    """Return an operation that answers with an empty list; not found for an unknown function."""

    async def answer(call: Call) -> dict[str, Any]:
        if "FunctionName" in call.params:
            call.api.functions.get(call.function()[0])
        return {member: []}

    return answer


def _fails(kind: type[LambdaError], message: str) -> _Operation:
    """Return an operation that fails with a message; braces in it name parameters of the path."""

    async def answer(call: Call) -> None:
        raise kind(message.format_map(call.params))

    return answer


async def delete_function_code_signing_config(call: Call) -> None:
    """Succeed for any function: none has a code signing configuration."""
    call.api.functions.get(call.function()[0])


OPERATIONS: dict[str, _Operation] = {
    "ListDurableExecutionsByFunction": _empty("DurableExecutions"),
    "ListCapacityProviders": _empty("CapacityProviders"),
    "ListCodeSigningConfigs": _empty("CodeSigningConfigs"),
    # Durable executions: some of these have no "not found" in the model.
    "GetDurableExecution": _fails(ResourceNotFound, NO_EXECUTION),
    "GetDurableExecutionHistory": _fails(ResourceNotFound, NO_EXECUTION),
    "GetDurableExecutionState": _fails(InvalidParameterValue, DURABLE),
    "CheckpointDurableExecution": _fails(InvalidParameterValue, DURABLE),
    "DeleteDurableExecution": _fails(ResourceNotFound, NO_EXECUTION),
    "PauseDurableExecution": _fails(ResourceNotFound, NO_EXECUTION),
    "ResumeDurableExecution": _fails(ResourceNotFound, NO_EXECUTION),
    "StopDurableExecution": _fails(ResourceNotFound, NO_EXECUTION),
    "SendDurableExecutionCallbackFailure": _fails(ResourceNotFound, NO_CALLBACK),
    "SendDurableExecutionCallbackHeartbeat": _fails(ResourceNotFound, NO_CALLBACK),
    "SendDurableExecutionCallbackSuccess": _fails(ResourceNotFound, NO_CALLBACK),
    # Capacity providers
    "CreateCapacityProvider": _fails(InvalidParameterValue, PROVIDERS),
    "GetCapacityProvider": _fails(ResourceNotFound, NO_PROVIDER),
    "UpdateCapacityProvider": _fails(ResourceNotFound, NO_PROVIDER),
    "DeleteCapacityProvider": _fails(ResourceNotFound, NO_PROVIDER),
    "ListFunctionVersionsByCapacityProvider": _fails(ResourceNotFound, NO_PROVIDER),
    "GetFunctionScalingConfig": _fails(InvalidParameterValue, PROVIDERS),
    "PutFunctionScalingConfig": _fails(InvalidParameterValue, PROVIDERS),
    # Code signing
    "CreateCodeSigningConfig": _fails(InvalidParameterValue, SIGNING),
    "GetCodeSigningConfig": _fails(ResourceNotFound, NO_SIGNING),
    "UpdateCodeSigningConfig": _fails(ResourceNotFound, NO_SIGNING),
    "DeleteCodeSigningConfig": _fails(ResourceNotFound, NO_SIGNING),
    "ListFunctionsByCodeSigningConfig": _fails(ResourceNotFound, NO_SIGNING),
    "PutFunctionCodeSigningConfig": _fails(NoCodeSigningConfig, SIGNING),
    "DeleteFunctionCodeSigningConfig": delete_function_code_signing_config,
    # A function may have a policy, so "not found" would be false.
    "GetResourcePolicy": _fails(InvalidParameterValue, BY_ARN),
    "PutResourcePolicy": _fails(InvalidParameterValue, BY_ARN),
    "DeleteResourcePolicy": _fails(InvalidParameterValue, BY_ARN),
}
