"""A server with [auth], its keys, and signed requests to it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore import auth as signing
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from tests.api.conftest import ECHO, REGION, ROLE, RUNTIME, archive
from tests.api.plain_http import Answer, ask, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeClient = Callable[..., BaseClient]


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
ACCOUNT = "123456789012"
OWN = "000000000000"
KEYS = f"""
[keys.ADMIN]
secret = "{SECRET}"
allow = ["*"]

[keys.{ACCOUNT}]
secret = "{SECRET}"
allow = ["*"]

[keys.READER]
secret = "{SECRET}"
allow = ["lambda:Get*", "lambda:List*"]

[keys.ORDERS]
secret = "{SECRET}"
allow = ["lambda:*", "logs:FilterLogEvents"]
functions = ["orders-*"]

[keys.CREATOR]
secret = "{SECRET}"
allow = ["lambda:CreateFunction", "lambda:CreateEventSourceMapping", "lambda:TagResource"]
functions = ["orders-*"]

[keys.EMULATED]
secret = "{SECRET}"
allow = ["lambda:InvokeFunction"]
functions = ["function"]
"""
MISMATCH = "The request signature we calculated does not match the signature you provided."
UNKNOWN = "The security token included in the request is invalid."
NO_REGION = "Credential should be scoped to a valid region."


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the path of settings with [auth]."""
    directory = tmp_path_factory.mktemp("auth")
    keys = directory / "keys.toml"
    keys.touch(0o600)
    keys.write_text(KEYS, encoding="utf-8")
    path = directory / "settings.toml"
    path.write_text(f'[auth]\nkeys = "{keys}"\n', encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def server(settings: str) -> Iterator[Server]:
    """Return a server with [auth] and two functions."""
    with watched("--config", settings, "--host", "0.0.0.0") as running:
        with contextlib.closing(client_of(running)) as admin:
            for name in ("orders-in", "secret"):
                create(admin, name, Publish=True)
                admin.get_waiter("function_active_v2").wait(
                    FunctionName=name, WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
                )
            admin.create_alias(FunctionName="orders-in", Name="prod", FunctionVersion="1")
        yield running


@pytest.fixture
def make_client(server: Server) -> Iterator[MakeClient]:
    """Return a maker of clients, by key id; they are closed after the test."""
    with contextlib.ExitStack() as clients:

        def make(key_id: str = "ADMIN", service: str = "lambda", **options: Any) -> BaseClient:
            client = client_of(server, key_id, service, **options)
            clients.callback(client.close)
            return client

        yield make


def client_of(
    server: Server,
    key_id: str = "ADMIN",
    service: str = "lambda",
    secret: str = SECRET,
    region: str = REGION,
) -> BaseClient:
    """Return a client that signs with a key."""
    return boto3.client(
        service,
        endpoint_url=f"http://127.0.0.1:{server.port}",
        region_name=region,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}),
    )


def create(client: BaseClient, name: str, **parameters: Any) -> dict[str, Any]:
    """Create a function."""
    configuration: dict[str, Any] = client.create_function(
        FunctionName=name,
        Runtime=RUNTIME,
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": archive(app=ECHO)},
        **parameters,
    )
    return configuration


def signed(
    server: Server,
    method: str,
    path: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    key_id: str = "ADMIN",
    service: str = "lambda",
) -> AWSRequest:
    """Return a request that botocore has signed."""
    url = f"http://127.0.0.1:{server.port}{path}"
    request = AWSRequest(method, url, headers, body)
    signing.SigV4Auth(Credentials(key_id, SECRET), service, REGION).add_auth(request)
    return request


def send(server: Server, request: AWSRequest, body: bytes | None = None, **more: str) -> Answer:
    """Send a signed request, with another body or with more headers than were signed."""
    parts = urlsplit(request.url)
    path = f"{parts.path}?{parts.query}" if parts.query else parts.path
    headers = {**dict(request.headers.items()), **more}
    headers["Host"] = f"127.0.0.1:{server.port}"
    return ask(server, request.method, path, request.data if body is None else body, headers)


def status_and_code(answer: Answer) -> tuple[int, str]:
    """Return the status of an answer and the code of its error."""
    return answer.status, answer.code


def runs(server: Server, name: str) -> int:
    """Return the number of invocations of a function that have ended, by its log."""
    with contextlib.closing(client_of(server, service="logs")) as logs:
        try:
            events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except logs.exceptions.ResourceNotFoundException:
            return 0
    return sum(event["message"].startswith("REPORT ") for event in events)
