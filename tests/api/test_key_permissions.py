"""What a key may do, with [auth]: actions, functions, and the many names of each."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.api.conftest import REGION, archive
from tests.api.plain_http import ask, invocation, watched
from tests.api.refusals import refused
from tests.api.signing import (
    ACCOUNT,
    OWN,
    client_of,
    create,
    make_client,
    runs,
    send,
    server,
    settings,
    signed,
    status_and_code,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeClient = Callable[..., BaseClient]

__all__ = ["make_client", "server", "settings"]  # fixtures

QUEUE = f"arn:aws:sqs:{REGION}:{OWN}:queue"


# What a key may do


def denied(action: str, resource: str, key_id: str = "ORDERS") -> tuple[int, str, str]:
    """Return the error for an action that a key may not do."""
    message = (
        f"User: arn:aws:iam::{OWN}:user/{key_id} is not authorized to perform: {action} on "
        f"resource: {resource} because no identity-based policy allows the {action} action"
    )
    return 403, "AccessDeniedException", message


def function_arn(name: str) -> str:
    """Return the ARN of a function."""
    return f"arn:aws:lambda:{REGION}:{OWN}:function:{name}"


def test_a_key_does_only_what_is_allowed(server: Server, make_client: MakeClient) -> None:
    """By action: a reader reads, and changes and runs nothing."""
    client = make_client("READER")
    before = runs(server, "secret")

    assert "secret" == client.get_function_configuration(FunctionName="secret")["FunctionName"]
    assert 2 <= len(client.list_functions()["Functions"])
    expected = denied("lambda:InvokeFunction", function_arn("secret"), "READER")
    assert expected == refused(client.invoke, FunctionName="secret")
    assert expected == refused(client.invoke, FunctionName="secret", Payload=b"x" * 7_000_000)
    expected = denied("lambda:DeleteFunction", function_arn("secret"), "READER")
    assert expected == refused(client.delete_function, FunctionName="secret")
    expected = denied("lambda:CreateFunction", function_arn("more"), "READER")
    assert expected == refused(lambda: create(client, "more"))
    assert before == runs(server, "secret")


NAMES = ["orders-in", "orders-in:prod", "orders-in:1", function_arn("orders-in")]
NAMES += [f"{function_arn('orders-in')}:prod", f"{OWN}:function:orders-in:$LATEST"]
OTHERS = ["secret", "secret:orders-in", "secret:prod", function_arn("secret")]
OTHERS += [f"{function_arn('secret')}:orders-in", f"{ACCOUNT}:secret", "function:secret"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pattern_is_of_the_name_alone(make_client: MakeClient, name: str) -> None:
    """By any reference to the function: alias, version, a part of its ARN or all of it."""
    assert 200 == make_client("ORDERS").invoke(FunctionName=name)["StatusCode"]


@pytest.mark.parametrize("name", OTHERS)
def test_no_name_escapes_a_pattern(server: Server, make_client: MakeClient, name: str) -> None:
    """A qualifier, an account or a part of an ARN that matches does not open another function."""
    client = make_client("ORDERS")
    before = runs(server, "secret")

    expected = denied("lambda:InvokeFunction", function_arn("secret"))
    assert expected == refused(client.invoke, FunctionName=name)
    expected = denied("lambda:GetFunction", function_arn("secret"))
    assert expected == refused(client.get_function, FunctionName=name)
    assert before == runs(server, "secret")


@pytest.mark.parametrize(
    "name",
    [
        "secret%3Aorders-in",
        "%73ecret",
        "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Asecret",
    ],
)
def test_no_escape_escapes_a_pattern(server: Server, name: str) -> None:
    """The name is taken from the decoded path."""
    request = signed(server, "POST", invocation(name), b"{}", key_id="ORDERS")

    assert (403, "AccessDeniedException") == status_and_code(send(server, request))


def test_a_name_in_the_document_is_one_too(server: Server, make_client: MakeClient) -> None:
    """CreateFunction has its name in the body: a key for orders-* makes no other function."""
    creator, orders, admin = make_client("CREATOR"), make_client("ORDERS"), make_client()

    first = create(creator, "orders-made")["FunctionName"]
    second = create(orders, "orders-also")["FunctionName"]
    expected = denied("lambda:CreateFunction", function_arn("evil"), "CREATOR")
    assert expected == refused(lambda: create(creator, "evil"))
    assert expected == refused(lambda: create(creator, function_arn("evil")))
    expected = denied("lambda:CreateFunction", function_arn("evil"))
    assert expected == refused(lambda: create(orders, "evil"))
    assert ["orders-made", "orders-also"] == [first, second]
    names = {function["FunctionName"] for function in admin.list_functions()["Functions"]}
    assert "evil" not in names
    assert [] == list((server.state / "uploads").iterdir())
    for name in (first, second):
        admin.delete_function(FunctionName=name)


def test_a_mapping_is_of_its_function(make_client: MakeClient) -> None:
    """In the document, in the query, by its id, and by the function that an update names."""
    admin, orders = make_client(), make_client("ORDERS")
    theirs = admin.create_event_source_mapping(FunctionName="secret", EventSourceArn=QUEUE)["UUID"]
    expected = denied("lambda:CreateEventSourceMapping", function_arn("secret"))
    creation = {"FunctionName": "secret", "EventSourceArn": QUEUE + "2"}
    assert expected == refused(orders.create_event_source_mapping, **creation)
    own = orders.create_event_source_mapping(FunctionName="orders-in", EventSourceArn=QUEUE)["UUID"]

    assert "orders-in" in orders.get_event_source_mapping(UUID=own)["FunctionArn"]
    listed = orders.list_event_source_mappings(FunctionName="orders-in")["EventSourceMappings"]
    assert [own] == [each["UUID"] for each in listed]
    for operation, action in (
        (orders.get_event_source_mapping, "lambda:GetEventSourceMapping"),
        (orders.delete_event_source_mapping, "lambda:DeleteEventSourceMapping"),
        (orders.update_event_source_mapping, "lambda:UpdateEventSourceMapping"),
    ):
        assert denied(action, function_arn("secret")) == refused(operation, UUID=theirs)
        # The answer does not tell whether a mapping of this id exists.
        assert denied(action, "*") == refused(operation, UUID=theirs[:-1] + "g")
    expected = denied("lambda:UpdateEventSourceMapping", function_arn("secret"))
    update = {"UUID": own, "FunctionName": "secret"}
    assert expected == refused(orders.update_event_source_mapping, **update)
    expected = denied("lambda:ListEventSourceMappings", "*")
    assert expected == refused(orders.list_event_source_mappings)
    arn = f"arn:aws:lambda:{REGION}:{OWN}:event-source-mapping:{theirs}"
    expected = denied("lambda:ListTags", function_arn("secret"))
    assert expected == refused(orders.list_tags, Resource=arn)
    for each in (own, theirs):
        admin.delete_event_source_mapping(UUID=each)


def test_tags_are_of_their_function(make_client: MakeClient) -> None:
    """The ARN in the path is a name too."""
    orders, creator = make_client("ORDERS"), make_client("CREATOR")
    orders.tag_resource(Resource=function_arn("orders-in"), Tags={"a": "b"})
    creator.tag_resource(Resource=function_arn("orders-in"), Tags={"c": "d"})

    assert {"a": "b", "c": "d"} == orders.list_tags(Resource=function_arn("orders-in"))["Tags"]
    expected = denied("lambda:ListTags", function_arn("secret"))
    assert expected == refused(orders.list_tags, Resource=function_arn("secret"))
    expected = denied("lambda:UntagResource", function_arn("secret"))
    assert expected == refused(
        orders.untag_resource, Resource=function_arn("secret"), TagKeys=["a"]
    )
    expected = denied("lambda:TagResource", function_arn("secret"), "CREATOR")
    assert expected == refused(
        creator.tag_resource, Resource=function_arn("secret"), Tags={"a": "b"}
    )


def test_a_key_for_some_functions_does_nothing_to_all(make_client: MakeClient) -> None:
    """A key for some functions may not list all functions, or use layers."""
    orders = make_client("ORDERS")

    assert denied("lambda:ListFunctions", "*") == refused(orders.list_functions)
    assert denied("lambda:ListLayers", "*") == refused(orders.list_layers)
    assert denied("lambda:GetAccountSettings", "*") == refused(orders.get_account_settings)
    assert denied("lambda:PublishLayerVersion", "*") == refused(
        orders.publish_layer_version, LayerName="orders-layer", Content={"ZipFile": archive(a="")}
    )


def test_the_emulators_name_is_no_way_in(settings: str) -> None:
    """With [auth], `function` is a plain name, and no shorthand for the only function."""
    with (
        watched("--config", settings) as lonely,
        contextlib.closing(client_of(lonely)) as admin,
        contextlib.closing(client_of(lonely, "EMULATED")) as emulated,
    ):
        create(admin, "secret")
        admin.get_waiter("function_active_v2").wait(
            FunctionName="secret", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
        )
        status, code, _ = refused(emulated.invoke, FunctionName="function")

    assert (404, "ResourceNotFoundException") == (status, code)


def test_logs_are_of_their_function_too(make_client: MakeClient) -> None:
    """A key reads the logs of its own functions, by actions of logs, and no others."""
    make_client().invoke(FunctionName="orders-in")
    make_client().invoke(FunctionName="secret")
    orders = make_client("ORDERS", "logs")
    group = f"arn:aws:logs:{REGION}:{OWN}:log-group:/aws/lambda"

    assert orders.filter_log_events(logGroupName="/aws/lambda/orders-in")["events"]
    assert orders.filter_log_events(logGroupIdentifier=f"{group}/orders-in")["events"]
    for group_of in (
        {"logGroupName": "/aws/lambda/secret"},
        {"logGroupIdentifier": f"{group}/secret"},
        {"logGroupIdentifier": "/aws/lambda/secret"},
        {"logGroupName": "/aws/lambda/orders-in", "logGroupIdentifier": f"{group}/secret"},
    ):
        status, code, message = refused(orders.filter_log_events, **group_of)
        assert (400, "AccessDeniedException") == (status, code)
        assert "is not authorized to perform: logs:FilterLogEvents on resource: *" in message
    assert "AccessDeniedException" == refused(orders.describe_log_groups)[1]
    assert (
        "AccessDeniedException"
        == refused(
            make_client("READER", "logs").filter_log_events, logGroupName="/aws/lambda/secret"
        )[1]
    )


# Function URLs


def test_a_function_url_asks_only_where_it_is_to(server: Server, make_client: MakeClient) -> None:
    """NONE neither needs nor reads a signature; AWS_IAM takes a key that may call it."""
    admin = make_client()
    admin.add_permission(
        FunctionName="secret",
        StatementId="public",
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
    )
    url = admin.create_function_url_config(FunctionName="secret", AuthType="NONE")["FunctionUrl"]
    path = urlsplit(url).path
    open_ = ask(server, "GET", path)
    bearer = ask(server, "GET", path, None, {"Authorization": "Bearer abc"})
    admin.update_function_url_config(FunctionName="secret", AuthType="AWS_IAM")
    closed = ask(server, "GET", path)
    known = send(server, signed(server, "POST", path, b"{}"))
    swapped = send(server, signed(server, "POST", path, b"{}"), b"[]")
    other = send(server, signed(server, "POST", path, b"{}", key_id="ORDERS"))
    elsewhere = send(server, signed(server, "POST", path, b"{}", service="execute-api"))
    admin.delete_function_url_config(FunctionName="secret")

    assert [200, 200, 403] == [open_.status, bearer.status, closed.status]
    assert [200, 403, 403, 403] == [answer.status for answer in (known, swapped, other, elsewhere)]
