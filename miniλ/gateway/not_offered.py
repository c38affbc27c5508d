"""This module is the operations that are not offered here, and what they answer instead.

There are no durable executions here, no capacity providers, no code signing configurations. Rule:
an answer is the one that an account without any gives, where that is the truth: a list of them is
empty, one of them is not found. What would make or change one is refused in a sentence.

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
    """Return an operation that lists nothing; of a function, if there is one."""

    async def answer(call: Call) -> dict[str, Any]:
        if "FunctionName" in call.params:
            call.api.functions.get(call.function()[0])
        return {member: []}

    return answer


def _fails(kind: type[LambdaError], words: str) -> _Operation:
    """Return an operation that fails; in the words, parameters of the path stand in braces."""

    async def answer(call: Call) -> None:
        raise kind(words.format_map(call.params))

    return answer


async def delete_function_code_signing_config(call: Call) -> None:
    """Leave a function as it is: without."""
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
    # Resource policies: there may be one, so it would be a lie that there is none.
    "GetResourcePolicy": _fails(InvalidParameterValue, BY_ARN),
    "PutResourcePolicy": _fails(InvalidParameterValue, BY_ARN),
    "DeleteResourcePolicy": _fails(InvalidParameterValue, BY_ARN),
}
