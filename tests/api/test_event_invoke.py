"""Settings of asynchronous invocations: set, changed in part, read, deleted, checked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.api.refusals import INVALID, MISSING, refused, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

ARN = "arn:aws:lambda:us-east-1:000000000000:function"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:jobs"
TOPIC = "arn:aws:sns:us-east-1:000000000000:news"
BUS = "arn:aws:events:us-east-1:000000000000:event-bus/default"
BUCKET = "arn:aws:s3:::failures"
NOWHERE: dict[str, Any] = {"OnSuccess": {}, "OnFailure": {}}


@pytest.fixture(scope="module", autouse=True)
def _connected(client: BaseClient) -> None:
    """Have the client's connection before the first test, which would seem to leave it behind."""
    client.list_functions()


def put(client: BaseClient, name: str, **parameters: Any) -> dict[str, Any]:
    """Say what becomes of events; return the answer without its time."""
    answer = told(client.put_function_event_invoke_config(FunctionName=name, **parameters))
    del answer["LastModified"]
    return answer


def get(client: BaseClient, name: str, **parameters: Any) -> dict[str, Any]:
    """Return the settings, without their time."""
    answer = told(client.get_function_event_invoke_config(FunctionName=name, **parameters))
    del answer["LastModified"]
    return answer


def to(success: str = "", failure: str = "") -> dict[str, Any]:
    """Return a DestinationConfig."""
    members = {"OnSuccess": success, "OnFailure": failure}
    return {when: {"Destination": arn} if arn else {} for when, arn in members.items()}


def test_what_is_said_is_kept_and_told(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The ARN is that of $LATEST; what was not said is absent, but for the destinations."""
    name = make_function()
    members = {
        "MaximumRetryAttempts": 0,
        "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": to(BUS, BUCKET),
    }
    expected = {"FunctionArn": f"{ARN}:{name}:$LATEST", **members}

    assert expected == put(client, name, **members)
    assert expected == get(client, name)
    modified = client.get_function_event_invoke_config(FunctionName=name)["LastModified"]
    assert abs(modified.timestamp() - time.time()) < 30
    again = put(client, name, MaximumRetryAttempts=1)
    arn = expected["FunctionArn"]
    assert {"FunctionArn": arn, "MaximumRetryAttempts": 1, "DestinationConfig": NOWHERE} == again


def test_a_change_leaves_the_rest(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Update replaces what it says; a destination that is empty is none."""
    name = make_function()
    put(client, name, MaximumRetryAttempts=2, DestinationConfig=to(QUEUE, TOPIC))
    change = client.update_function_event_invoke_config

    answer = told(change(FunctionName=name, MaximumEventAgeInSeconds=100))
    assert (2, 100) == (answer["MaximumRetryAttempts"], answer["MaximumEventAgeInSeconds"])
    assert to(QUEUE, TOPIC) == answer["DestinationConfig"]
    change(FunctionName=name, DestinationConfig={"OnFailure": {"Destination": ""}})
    after = get(client, name)
    assert NOWHERE == after["DestinationConfig"]
    assert (2, 100) == (after["MaximumRetryAttempts"], after["MaximumEventAgeInSeconds"])


def test_latest_is_the_function_itself(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Without a qualifier and with $LATEST is the same; versions and aliases have their own."""
    name = make_function(Publish=True)
    client.create_alias(FunctionName=name, Name="prod", FunctionVersion="1")
    put(client, name, MaximumRetryAttempts=0)
    put(client, name, MaximumRetryAttempts=1, Qualifier="1")
    put(client, f"{name}:prod", MaximumRetryAttempts=2)

    assert 0 == get(client, name, Qualifier="$LATEST")["MaximumRetryAttempts"]
    assert f"{ARN}:{name}:prod" == get(client, name, Qualifier="prod")["FunctionArn"]
    listing = client.list_function_event_invoke_configs(FunctionName=name)
    expected = [("$LATEST", 0), ("1", 1), ("prod", 2)]
    assert expected == [
        (each["FunctionArn"].rpartition(":")[2], each["MaximumRetryAttempts"])
        for each in listing["FunctionEventInvokeConfigs"]
    ]
    put(client, name, MaximumRetryAttempts=1, Qualifier="$LATEST")
    assert 1 == get(client, name)["MaximumRetryAttempts"]
    client.delete_function_event_invoke_config(FunctionName=name, Qualifier="prod")
    listing = client.list_function_event_invoke_configs(FunctionName=name, MaxItems=1)
    assert 1 == len(listing["FunctionEventInvokeConfigs"])
    assert "NextMarker" in listing


def test_where_nothing_was_said_nothing_is_found(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Reading, changing and deleting name the qualified ARN; saying it asks for the function."""
    name = make_function()
    message = f"The function {ARN}:{name}:$LATEST doesn't have an EventInvokeConfig"

    for operation in (
        client.get_function_event_invoke_config,
        client.delete_function_event_invoke_config,
    ):
        assert (404, MISSING, message) == refused(operation, FunctionName=name)
    assert (404, MISSING, message) == refused(
        client.update_function_event_invoke_config, FunctionName=name, MaximumRetryAttempts=1
    )
    for missing in ("nowhere", f"{name}:prod", f"{name}:7"):
        assert (404, MISSING, "The function doesn't exist.") == refused(
            client.put_function_event_invoke_config, FunctionName=missing, MaximumRetryAttempts=1
        )
    gone = f"Function not found: {ARN}:nowhere"
    assert (404, MISSING, gone) == refused(
        client.list_function_event_invoke_configs, FunctionName="nowhere"
    )
    assert (
        []
        == client.list_function_event_invoke_configs(FunctionName=name)[
            "FunctionEventInvokeConfigs"
        ]
    )


def test_something_must_be_said(client: BaseClient, make_function: Callable[..., str]) -> None:
    """Neither error handling nor a destination is no setting."""
    name = make_function()
    message = "You must specify at least one of error handling or destination setting."

    assert (400, INVALID, message) == refused(
        client.put_function_event_invoke_config, FunctionName=name
    )


def test_destinations_are_what_can_be_told(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """ARNs of five services; of a bucket for failures only; of a function that is there."""
    name, other = make_function(), make_function()
    services = "it must be of sqs, sns, lambda, events"

    def refusal(success: str = "", failure: str = "") -> str:
        status, code, message = refused(
            client.put_function_event_invoke_config,
            FunctionName=name,
            DestinationConfig=to(success, failure),
        )
        assert (400, INVALID) == (status, code)
        return message

    mail = "arn:aws:ses:us-east-1:000000000000:identity/a"
    assert f"The destination ARN {mail} is invalid: {services}, s3" == refusal(failure=mail)
    assert f"The destination ARN {BUCKET} is invalid: {services}" == refusal(success=BUCKET)
    missing = f"{ARN}:nowhere"
    assert f"The destination ARN {missing} is invalid: Function not found: {missing}" == refusal(
        success=missing
    )
    own = "You can't specify the function as a destination for itself."
    assert own == refusal(failure=f"{ARN}:{name}")
    assert own == refusal(failure=f"{ARN}:{name}:$LATEST")
    both = to(f"{ARN}:{other}", BUCKET)
    assert both == put(client, name, DestinationConfig=both)["DestinationConfig"]
