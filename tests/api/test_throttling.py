"""Invocations that do not run, or not yet: throttled, of a function that failed, recursive."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from tests.api.refusals import CONFLICT, refused
from tests.api.test_functions import ELSEWHERE, new, settled
from tests.api.test_invocations import ABLE, error_of, path_of, post, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

    from tests.api.conftest import Listener, Server


def test_a_throttled_invocation_says_why_and_when(
    server: Server, client: BaseClient, make_function: Callable[..., str], listener: Listener
) -> None:
    """429 with Reason and Retry-After: nothing is reserved, or all that is reserved is in use."""
    name = make_function(ABLE, Timeout=30)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    none = post(server, path_of(name))
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    event = json.dumps({"call": [listener.port, "busy"]}).encode()
    running = threading.Thread(target=post, args=(server, path_of(name), event))
    running.start()
    connection, _ = listener.accept()
    busy = post(server, path_of(name))
    connection.close()
    running.join()

    document = {
        "Reason": "ReservedFunctionConcurrentInvocationLimitExceeded",
        "Type": "User",
        "message": "Rate Exceeded.",
    }
    for answer in (none, busy):
        assert (429, "TooManyRequestsException", document) == error_of(answer)
        assert int(answer.headers["Retry-After"]) > 0
    assert 200 == post(server, path_of(name)).status


def test_a_function_that_failed_is_not_run(client: BaseClient) -> None:
    """Nor accepts it events, and a dry run says so too."""
    client.create_function(**new("unable", Runtime=ELSEWHERE))
    settled(client, "unable")
    message = (
        "The operation cannot be performed at this time. The function is currently in the "
        "following state: Failed"
    )
    got = [
        refused(client.invoke, FunctionName="unable", InvocationType=kind)
        for kind in ("RequestResponse", "Event", "DryRun")
    ]
    client.delete_function(FunctionName="unable")

    assert [(409, CONFLICT, message)] * 3 == got


CALLER = """
import json, os, urllib.error, urllib.request

def handler(event, context):
    request = urllib.request.Request(
        event["url"],
        data=json.dumps({**event, "depth": event["depth"] + 1}).encode(),
        headers={"X-Amzn-Trace-Id": os.environ["_X_AMZN_TRACE_ID"]},
    )
    if event["depth"] >= event["most"]:
        return ["enough", event["depth"]]
    try:
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        return [exc.headers["x-amzn-ErrorType"], event["depth"]]
"""


def test_a_function_that_calls_itself_is_stopped(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """B45: after 16 invocations in one chain, unless that is allowed; others are not disturbed."""
    name = make_function(CALLER, Timeout=60)
    event = {"url": server.url + path_of(name), "depth": 1, "most": 20}
    for _ in range(2):  # cold, and warm
        answer = post(server, path_of(name), json.dumps(event).encode())
        assert ["RecursiveInvocationException", 16] == json.loads(answer.body)

    client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")

    answer = post(server, path_of(name), json.dumps(event).encode())
    assert ["enough", 20] == json.loads(answer.body)


def test_events_wait_for_concurrency_and_none_is_lost(
    client: BaseClient, server: Server, make_function: Callable[..., str]
) -> None:
    """B41: with one at a time, all are accepted, and all run."""
    name = make_function("def handler(event, context):\n    print('event', event)\n")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)

    for number in range(30):
        answer = client.invoke(
            FunctionName=name, InvocationType="Event", Payload=str(number).encode()
        )
        assert 202 == answer["StatusCode"]

    logs = server.client("logs")
    group = f"/aws/lambda/{name}"
    until(lambda: 30 == len(printed(logs, group)))
    assert {f"event {number}" for number in range(30)} == set(printed(logs, group))
    logs.close()


def printed(logs: BaseClient, group: str) -> list[str]:
    """Return what the function printed so far."""
    try:
        answer = logs.filter_log_events(logGroupName=group, filterPattern='"event "')
    except logs.exceptions.ResourceNotFoundException:
        return []  # it has not run yet
    return [each["message"].strip() for each in answer["events"]]


def test_events_of_a_function_that_may_not_run_do_not_wait(
    client: BaseClient, server: Server, make_function: Callable[..., str]
) -> None:
    """B42: with a reservation of 0 a call is throttled; an event is accepted, and goes at once."""
    name = make_function()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    answer = client.invoke(FunctionName=name, InvocationType="Event")
    throttled = post(server, path_of(name))

    assert 202 == answer["StatusCode"]
    assert (429, "TooManyRequestsException") == (
        throttled.status,
        throttled.headers["x-amzn-ErrorType"],
    )
    client.delete_function_concurrency(FunctionName=name)
    assert 200 == post(server, path_of(name)).status
