"""Functions with a URL, and plain HTTP to them."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.api.conftest import ROLE, RUNTIME, archive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

    MakeUrl = Callable[..., tuple[str, str]]


# Returns its event and context, raises, or returns the JSON of the body, by path.
MIRROR = """
import json

def handler(event, context):
    if event["rawPath"] == "/raise":
        raise ValueError("for our own eyes")
    if event["rawPath"] == "/return":
        return json.loads(event["body"])
    return {
        "event": event,
        "arn": context.invoked_function_arn,
        "version": context.function_version,
        "request_id": context.aws_request_id,
    }
"""
FORBIDDEN = {
    "Message": "Forbidden. For troubleshooting Function URL authorization issues, see: "
    "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
}


class Answer(NamedTuple):
    """The answer to a request."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event that `MIRROR` got."""
        event: dict[str, Any] = json.loads(self.body)["event"]
        return event


def ask(
    url: str,
    path: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    **headers: str,
) -> Answer:
    """Send a request to a path of a URL; names of headers have underscores for hyphens."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, parts.path.removesuffix("/") + path, body, fields)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def returning(url: str, document: object, method: str = "POST", **headers: str) -> Answer:
    """Have a `MIRROR` return a document."""
    body = json.dumps(document).encode()
    return ask(url, "/return", method, body, Content_Type="application/json", **headers)


def open_to_all(client: BaseClient, name: str, **parameters: str) -> None:
    """Open the URL of a function to all callers."""
    client.add_permission(
        FunctionName=name,
        StatementId="public",
        Action="lambda:InvokeFunctionUrl",
        Principal="*",
        FunctionUrlAuthType="NONE",
        **parameters,
    )


@pytest.fixture
def make_url(client: BaseClient, make_function: Callable[..., str]) -> MakeUrl:
    """Return a maker of functions with a URL that is open to all: (name, URL).

    Takes CreateFunctionUrlConfig's parameters, and the `source` of the function.
    """

    def make(source: str = MIRROR, **parameters: Any) -> tuple[str, str]:
        name = make_function(source)
        open_to_all(client, name)
        config = client.create_function_url_config(
            **{"FunctionName": name, "AuthType": "NONE", **parameters}
        )
        return name, config["FunctionUrl"]

    return make


@pytest.fixture(scope="module")
def mirror(client: BaseClient) -> Iterator[str]:
    """Return the URL of a `MIRROR` that is open to all, for tests that do not change it."""
    client.create_function(
        FunctionName="mirror",
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": archive(app=MIRROR)},
    )
    client.get_waiter("function_active_v2").wait(
        FunctionName="mirror", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    open_to_all(client, "mirror")
    yield client.create_function_url_config(FunctionName="mirror", AuthType="NONE")["FunctionUrl"]
    client.delete_function(FunctionName="mirror")
