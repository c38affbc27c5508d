"""The operations on asynchronous invocations: retries, maximum age, and destinations.

An EVENT_INVOKE document has the members of the service model that the client has set, and
`LastModified` in seconds since 1970. Its part is the version or alias that it is for; "" is
$LATEST, which a request without a qualifier means too. `events.outcomes` acts on it.

Source: Lambda API reference, "PutFunctionEventInvokeConfig", and messages as the service has them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from miniλ import names
from miniλ.errors import InvalidParameterValue, LambdaError, ResourceNotFound
from miniλ.gateway.call import page
from miniλ.gateway.sources import service
from miniλ.model import LATEST
from miniλ.store.registry import Change
from miniλ.store.resources import EVENT_INVOKE

if TYPE_CHECKING:
    from miniλ.gateway.call import Call
    from miniλ.store.resources import Document

# The services of destinations, as an ARN names them. Amazon S3 takes failures only.
SUCCESSES = ("sqs", "sns", "lambda", "events")
FAILURES = (*SUCCESSES, "s3")


async def put_function_event_invoke_config(call: Call) -> dict[str, Any]:
    """Set what becomes of events; members that the request leaves out are reset."""
    name, part = _owner(call)
    config = _requested(call)
    async with call.api.functions.changing:
        try:
            call.api.functions.get(name, part)
        except ResourceNotFound as exc:
            msg = "The function doesn't exist."
            raise ResourceNotFound(msg) from exc
        return await _write(call, config)


async def update_function_event_invoke_config(call: Call) -> dict[str, Any]:
    """Change some members; the others stay."""
    changes = _requested(call)
    async with call.api.functions.changing:
        return await _write(call, {**_find(call), **changes})


async def get_function_event_invoke_config(call: Call) -> dict[str, Any]:
    """Return what becomes of the events of a version or an alias."""
    return _document(call, *_owner(call), _find(call))


async def delete_function_event_invoke_config(call: Call) -> None:
    """Return to Lambda's defaults: two retries, six hours."""
    async with call.api.functions.changing:
        _find(call)
        await call.api.registry.write(Change(EVENT_INVOKE, *_owner(call), None))


async def list_function_event_invoke_configs(call: Call) -> dict[str, Any]:
    """List the settings of a function's events, by version and alias."""
    name, _ = call.function()
    call.api.functions.get(name)
    return page(
        call,
        sorted(call.api.registry.parts(EVENT_INVOKE, name).items()),
        "FunctionEventInvokeConfigs",
        lambda each: _document(call, name, *each),
    )


def _owner(call: Call) -> tuple[str, str]:
    """Return name and part of the version or alias in the request."""
    name, qualifier = call.function()
    return name, "" if qualifier == LATEST else qualifier


def _find(call: Call) -> Document:
    name, part = _owner(call)
    config = call.api.registry.get(EVENT_INVOKE, name, part)
    if config is None:
        arn = call.place.function(name, part or LATEST)
        msg = f"The function {arn} doesn't have an EventInvokeConfig"
        raise ResourceNotFound(msg)
    return config


async def _write(call: Call, config: Document) -> dict[str, Any]:
    config["LastModified"] = round(time.time(), 3)
    name, part = _owner(call)
    await call.api.registry.write(Change(EVENT_INVOKE, name, part, config))
    return _document(call, name, part, config)


def _document(call: Call, name: str, part: str, config: Document) -> dict[str, Any]:
    return {
        "FunctionArn": call.place.function(name, part or LATEST),
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
        **config,
    }


def _requested(call: Call) -> Document:
    """Return the members that the request sets, checked."""
    members = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds", "DestinationConfig")
    config = {member: call.params[member] for member in members if member in call.params}
    if not config:
        msg = "You must specify at least one of error handling or destination setting."
        raise InvalidParameterValue(msg)
    if "DestinationConfig" in config:
        destinations = config["DestinationConfig"]
        config["DestinationConfig"] = {
            "OnSuccess": destination(call, destinations.get("OnSuccess", {}), SUCCESSES),
            "OnFailure": destination(call, destinations.get("OnFailure", {}), FAILURES),
        }
        _check_other(call, config["DestinationConfig"])
    return config


def _check_other(call: Call, destinations: Document) -> None:
    """Refuse a function as its own destination: its events would never end."""
    name, _ = call.function()
    for each in destinations.values():
        arn = each.get("Destination", "")
        if service(arn) == "lambda" and names.function(arn, None, call.place)[0] == name:
            msg = "You can't specify the function as a destination for itself."
            raise InvalidParameterValue(msg)


def destination(call: Call, requested: Document, services: tuple[str, ...]) -> Document:
    """Return an OnSuccess or OnFailure, checked; an empty document for an empty ARN.

    Raises `InvalidParameterValue` for another service, or a function that does not exist.
    """
    arn = requested.get("Destination", "")
    if not arn:
        return {}
    if service(arn) not in services:
        msg = f"The destination ARN {arn} is invalid: it must be of {', '.join(services)}"
        raise InvalidParameterValue(msg)
    if service(arn) == "lambda":
        try:
            call.api.functions.get(*names.function(arn, None, call.place))
        except LambdaError as exc:
            msg = f"The destination ARN {arn} is invalid: {exc}"
            raise InvalidParameterValue(msg) from exc
    return {"Destination": arn}


OPERATIONS = {
    "PutFunctionEventInvokeConfig": put_function_event_invoke_config,
    "UpdateFunctionEventInvokeConfig": update_function_event_invoke_config,
    "GetFunctionEventInvokeConfig": get_function_event_invoke_config,
    "DeleteFunctionEventInvokeConfig": delete_function_event_invoke_config,
    "ListFunctionEventInvokeConfigs": list_function_event_invoke_configs,
}
