"""Function URLs: their configs through boto3, and what is served there through plain HTTP."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import miniλ
from miniλ import journal
from miniλ.gateway.server import Gateway
from miniλ.gateway.urls import serve
from miniλ.gateway.urls.payloads import UrlAnswer
from miniλ.store.registry import Change
from miniλ.store.resources import POLICY, URL
from tests.api.conftest import REGION, ROLE, RUNTIME, archive, serving, updated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeUrl = Callable[..., tuple[str, str]]

# Tells what it was given, raises, or returns the JSON that it was sent.
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
PNG = b"\x89PNG\r\n\x1a\n\0\0"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The event that `MIRROR` was given."""
        found: dict[str, Any] = json.loads(self.body)["event"]
        return found


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
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, parts.path.removesuffix("/") + path, body, named)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def returning(url: str, document: object, method: str = "POST", **headers: str) -> Answer:
    """Have a `MIRROR` return a document."""
    body = json.dumps(document).encode()
    return ask(url, "/return", method, body, Content_Type="application/json", **headers)


def conversation(url: str, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the server closes."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def open_to_all(client: BaseClient, name: str, **parameters: str) -> None:
    """Let everybody call the URL of a function."""
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
    """Return the URL of a `MIRROR` that is open to all, for who changes nothing of it."""
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


# The operations


def test_a_url_is_created_told_and_listed_the_same(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Create, Get and List tell one config; a Cors comes back as it was given."""
    name = make_function()
    cors = {"AllowOrigins": ["https://example.com"], "MaxAge": 60, "AllowCredentials": False}

    created = client.create_function_url_config(FunctionName=name, AuthType="AWS_IAM", Cors=cors)
    told = client.get_function_url_config(FunctionName=name)
    listed = client.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"]

    assert 201 == created["ResponseMetadata"]["HTTPStatusCode"]
    prefix, url_id, end = created["FunctionUrl"].rsplit("/", 2)
    assert (f"{server.url}/_url", "") == (prefix, end)
    assert 32 == len(url_id)
    assert set(url_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789")
    assert f"arn:aws:lambda:{REGION}:000000000000:function:{name}" == told["FunctionArn"]
    assert ("AWS_IAM", cors, "BUFFERED") == (told["AuthType"], told["Cors"], told["InvokeMode"])
    assert "LastModifiedTime" not in created
    assert {**created, "LastModifiedTime": told["CreationTime"]} == {
        **told,
        "ResponseMetadata": created["ResponseMetadata"],
    }
    assert [{key: told[key] for key in told if key != "ResponseMetadata"}] == listed


def test_an_update_changes_what_is_given_and_keeps_the_url(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The id is the same for the life of a config; a Cors is replaced, and an empty one is none."""
    name = make_function()
    before = client.create_function_url_config(
        FunctionName=name, AuthType="NONE", Cors={"AllowOrigins": ["*"], "MaxAge": 60}
    )

    mode = client.update_function_url_config(FunctionName=name, InvokeMode="RESPONSE_STREAM")
    cors = client.update_function_url_config(FunctionName=name, Cors={"AllowMethods": ["PUT"]})
    client.update_function_url_config(FunctionName=name, AuthType="AWS_IAM", Cors={})
    after = client.get_function_url_config(FunctionName=name)

    assert ("RESPONSE_STREAM", before["Cors"]) == (mode["InvokeMode"], mode["Cors"])
    assert {"AllowMethods": ["PUT"]} == cors["Cors"]
    assert ("RESPONSE_STREAM", "AWS_IAM") == (after["InvokeMode"], after["AuthType"])
    assert "Cors" not in after
    assert before["FunctionUrl"] == after["FunctionUrl"]
    assert before["CreationTime"] == after["CreationTime"] < after["LastModifiedTime"]


def test_a_function_has_one_url_and_one_per_alias(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """A second config is a conflict, also by ARN; that of an alias is another, and pages say so."""
    name = make_function()
    client.publish_version(FunctionName=name)
    for alias in ("blue", "green"):
        client.create_alias(FunctionName=name, Name=alias, FunctionVersion="1")
    arn = f"arn:aws:lambda:{REGION}:000000000000:function:{name}"
    client.create_function_url_config(FunctionName=name, AuthType="NONE")
    client.create_function_url_config(FunctionName=name, Qualifier="green", AuthType="NONE")
    client.create_function_url_config(FunctionName=f"{name}:blue", AuthType="NONE")

    with pytest.raises(client.exceptions.ResourceConflictException) as conflict:
        client.create_function_url_config(FunctionName=f"{arn}:blue", AuthType="NONE")
    first = client.list_function_url_configs(FunctionName=name, MaxItems=2)
    second = client.list_function_url_configs(FunctionName=name, Marker=first["NextMarker"])

    assert (
        f"Failed to create function url config for [functionArn = {arn}:blue]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function"
    ) == conflict.value.response["Error"]["Message"]
    pages = [
        [each["FunctionArn"] for each in page["FunctionUrlConfigs"]] for page in (first, second)
    ]
    assert [[arn, f"{arn}:blue"], [f"{arn}:green"]] == pages
    assert "NextMarker" not in second


@pytest.mark.parametrize("qualifier", ["$LATEST", "1"])
def test_a_version_has_no_url(
    client: BaseClient, make_function: Callable[..., str], qualifier: str
) -> None:
    """Only a function and its aliases have URLs; a version is refused by the model's pattern."""
    name = make_function()

    with pytest.raises(client.exceptions.ClientError) as refused:
        client.create_function_url_config(FunctionName=name, Qualifier=qualifier, AuthType="NONE")

    error = refused.value.response["Error"]
    assert "ValidationException" == error["Code"]
    assert (
        f"1 validation error detected: Value '{qualifier}' at 'qualifier' failed to satisfy "
        r"constraint: Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)"
    ) == error["Message"]


def test_what_has_no_url_says_so(client: BaseClient, make_function: Callable[..., str]) -> None:
    """No config, no alias and no function are each 404, in AWS's words."""
    name = make_function()
    said = []

    for operation, parameters in (
        (client.get_function_url_config, {"FunctionName": name}),
        (client.update_function_url_config, {"FunctionName": name, "AuthType": "NONE"}),
        (client.delete_function_url_config, {"FunctionName": name}),
        (client.get_function_url_config, {"FunctionName": "nobody"}),
        (client.delete_function_url_config, {"FunctionName": "nobody"}),
        (client.create_function_url_config, {"FunctionName": "nobody", "AuthType": "NONE"}),
        (client.create_function_url_config, {"FunctionName": f"{name}:no", "AuthType": "NONE"}),
        (client.update_function_url_config, {"FunctionName": "nobody"}),
        (client.list_function_url_configs, {"FunctionName": "nobody"}),
    ):
        with pytest.raises(client.exceptions.ResourceNotFoundException) as missing:
            operation(**parameters)
        said.append(missing.value.response["Error"]["Message"])

    assert ["The resource you requested does not exist."] * 5 == said[:5]
    assert ["Function does not exist"] * 4 == said[5:]


# Who may call


def test_nobody_is_let_in_by_the_url_alone(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """AuthType NONE without a statement in the policy is 403; with one for everybody 200."""
    name = make_function(MIRROR)
    url = client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]
    client.add_permission(
        FunctionName=name,
        StatementId="other",
        Action="lambda:InvokeFunctionUrl",
        Principal="123456789012",
        FunctionUrlAuthType="NONE",
    )

    before = ask(url)
    open_to_all(client, name)
    during = ask(url)
    client.remove_permission(FunctionName=name, StatementId="public")
    after = ask(url)

    assert [403, 200, 403] == [each.status for each in (before, during, after)]
    assert FORBIDDEN == json.loads(before.body)
    assert "AccessDeniedException" == before.headers["x-amzn-ErrorType"]
    assert before.headers["x-amzn-RequestId"]


def test_an_update_switches_who_is_asked(client: BaseClient, make_url: MakeUrl) -> None:
    """With AWS_IAM who does not sign is refused; with NONE nobody is asked any more."""
    name, url = make_url(AuthType="AWS_IAM")

    asked = ask(url)
    client.update_function_url_config(FunctionName=name, AuthType="NONE")
    open_now = ask(url)
    client.update_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    again = ask(url)

    assert [403, 200, 403] == [each.status for each in (asked, open_now, again)]
    assert FORBIDDEN == json.loads(asked.body)


def test_without_keys_any_signature_will_do(client: BaseClient, make_url: MakeUrl) -> None:
    """A gateway without [auth] cannot verify: who signs is whom they say."""
    _, url = make_url(AuthType="AWS_IAM")

    answer = ask(url, "/who", **signed(url, "/who", key="AKIAANY", secret="whatever"))
    garbled = ask(url, "/who", Authorization="AWS4-HMAC-SHA256 Credential=AKIAANY")

    context = answer.event["requestContext"]
    assert "AKIAANY" == context["authorizer"]["iam"]["accessKey"]
    assert "000000000000" == context["accountId"] == context["authorizer"]["iam"]["accountId"]
    assert "authorization" not in answer.event["headers"]
    assert (403, FORBIDDEN) == (garbled.status, json.loads(garbled.body))


def signed(
    url: str, path: str, key: str, secret: str, method: str = "GET", body: bytes = b""
) -> dict[str, str]:
    """Return the headers of a signature by botocore, for `ask`."""
    request = AWSRequest(method, url.removesuffix("/") + path, data=body)
    SigV4Auth(Credentials(key, secret), "lambda", REGION).add_auth(request)
    return {name.replace("-", "_"): value for name, value in request.headers.items()}


def test_with_keys_a_signature_is_verified(tmp_path: Path) -> None:
    """With [auth] AWS_IAM takes a true signature of a key that may; NONE leaves tokens alone."""
    keys, settings = tmp_path / "keys.toml", tmp_path / "settings.toml"
    keys.touch(0o600)
    keys.write_text(
        '[keys.test]\nsecret = "test"\nallow = ["*"]\n'
        '[keys.READER]\nsecret = "reader"\nallow = ["lambda:Get*"]\n'
    )
    settings.write_text(f'auth = {{ keys = "{keys}" }}\n')

    with serving("--config", str(settings)) as server:
        client = server.client()
        client.create_function(
            FunctionName="f",
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": archive(app=MIRROR)},
        )
        updated(client, "f")
        config = client.create_function_url_config(FunctionName="f", AuthType="AWS_IAM")
        url, path = config["FunctionUrl"], "/a%20b?x=1"
        true = ask(url, path, "POST", b"body", **signed(url, path, "test", "test", "POST", b"body"))
        refused = [
            ask(url, path),
            ask(url, path, **signed(url, path, "test", "another")),
            ask(url, path, **signed(url, path, "NOBODY", "test")),
            ask(url, path, **signed(url, path, "READER", "reader")),
            ask(url, path, "POST", b"other", **signed(url, path, "test", "test", "POST", b"body")),
            ask(url, path, Authorization="Bearer token"),
        ]
        client.update_function_url_config(FunctionName="f", AuthType="NONE")
        open_to_all(client, "f")
        token = ask(url, path, Authorization="Bearer token")
        client.close()

    iam = true.event["requestContext"]["authorizer"]["iam"]
    assert ("test", "000000000000") == (iam["accessKey"], iam["accountId"])
    assert [403] * 6 == [each.status for each in refused]
    assert (200, "Bearer token") == (token.status, token.event["headers"]["authorization"])
    assert "authorizer" not in token.event["requestContext"]


def test_who_calls_an_unknown_url_hears_nothing(
    server: Server, client: BaseClient, make_url: MakeUrl
) -> None:
    """An id that nobody has, and one whose config or function was deleted, is 403 with null."""
    first, url = make_url()
    second, another = make_url()
    before = [ask(url).status, ask(another).status]
    client.delete_function_url_config(FunctionName=first)
    client.delete_function(FunctionName=second)

    answers = [ask(each) for each in (url, another, f"{server.url}/_url/{'a' * 32}/")]

    assert [200, 200] == before
    assert [403] * 3 == [each.status for each in answers]
    assert [b'{"Message":null}'] * 3 == [each.body for each in answers]
    assert ["AccessDeniedException"] * 3 == [each.headers["x-amzn-ErrorType"] for each in answers]


def test_a_new_config_has_a_new_url(
    client: BaseClient, make_function: Callable[..., str], make_url: MakeUrl
) -> None:
    """Whatever took a URL away, another one has another id, and the old one stays dead."""
    name, first = make_url()
    client.delete_function_url_config(FunctionName=name)
    second = client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]
    client.delete_function(FunctionName=name)
    make_function(MIRROR, FunctionName=name)
    open_to_all(client, name)
    third = client.create_function_url_config(FunctionName=name, AuthType="NONE")["FunctionUrl"]

    statuses = [ask(url).status for url in (first, second, third)]

    assert 3 == len({first, second, third})
    assert [403, 403, 200] == statuses


def test_urls_survive_the_server(tmp_path: Path) -> None:
    """A server that is started again serves the same ids."""
    with serving("--state", str(tmp_path)) as server:
        client = server.client()
        client.create_function(
            FunctionName="f",
            Runtime=RUNTIME,
            Role=ROLE,
            Handler="app.handler",
            Code={"ZipFile": archive(app=MIRROR)},
        )
        updated(client, "f")
        open_to_all(client, "f")
        config = client.create_function_url_config(FunctionName="f", AuthType="NONE")
        path = urlsplit(config["FunctionUrl"]).path
        client.close()
    with serving("--state", str(tmp_path)) as server:
        answer = ask(server.url + path, "/still")

    assert (200, "/still") == (answer.status, answer.event["rawPath"])


# Requests


def test_a_request_is_an_event_of_version_2(mirror: str) -> None:
    """Method, path, query, headers and body arrive; the ids are those of the answer."""
    answer = ask(
        mirror,
        "/orders/7?a=1&a=2&b=",
        "PUT",
        b'{"x": 1}',
        Content_Type="application/json",
        User_Agent="tests",
    )

    event, parts = answer.event, urlsplit(mirror)
    context = event["requestContext"]
    assert ("2.0", "/orders/7", "a=1&a=2&b=") == (
        event["version"],
        event["rawPath"],
        event["rawQueryString"],
    )
    assert {"a": "1,2", "b": ""} == event["queryStringParameters"]
    assert ('{"x": 1}', False) == (event["body"], event["isBase64Encoded"])
    assert {
        "method": "PUT",
        "path": "/orders/7",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tests",
    } == context["http"]
    assert "anonymous" == context["accountId"]
    assert parts.path.split("/")[2] == context["apiId"] == context["domainPrefix"]
    assert f"{context['apiId']}.lambda-url.{REGION}.localhost" == context["domainName"]
    assert ("127.0.0.1", str(parts.port), "http") == (
        event["headers"]["x-forwarded-for"],
        event["headers"]["x-forwarded-port"],
        event["headers"]["x-forwarded-proto"],
    )
    assert (
        answer.headers["x-amzn-RequestId"]
        == context["requestId"]
        == json.loads(answer.body)["request_id"]
    )
    assert answer.headers["x-amzn-trace-id"] == event["headers"]["x-amzn-trace-id"]
    assert answer.headers["x-amzn-trace-id"].startswith("Root=1-")


def test_what_a_client_says_of_its_way_is_added_to_or_overwritten(mirror: str) -> None:
    """X-Forwarded-For grows, port and scheme are ours, and a trace goes on if it is one."""
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"

    kept = ask(
        mirror,
        X_Forwarded_For="203.0.113.9",
        X_Forwarded_Proto="https",
        X_Forwarded_Port="443",
        X_Amzn_Trace_Id=trace,
    )
    replaced = ask(mirror, X_Amzn_Trace_Id="Root=1-no;x")

    headers = kept.event["headers"]
    assert "203.0.113.9, 127.0.0.1" == headers["x-forwarded-for"]
    assert ("http", str(urlsplit(mirror).port)) == (
        headers["x-forwarded-proto"],
        headers["x-forwarded-port"],
    )
    assert trace == headers["x-amzn-trace-id"] == kept.headers["x-amzn-trace-id"]
    assert "Root=1-no;x" != replaced.headers["x-amzn-trace-id"]


def test_a_path_stays_as_it_was_sent(mirror: str) -> None:
    """Slashes, letters and dots that are encoded stay so, and nothing is tidied away."""
    path = "/a%2Fb/%CE%BB//../%2e/20?q=%CE%BB+%2F"

    event = ask(mirror, path).event

    assert path == f"{event['rawPath']}?{event['rawQueryString']}"
    assert {"q": "λ /"} == event["queryStringParameters"]


def test_a_url_is_reached_by_its_host_too(mirror: str) -> None:
    """Where the id is the beginning of the Host the whole path is the function's."""
    parts = urlsplit(mirror)
    host = f"{parts.path.split('/')[2]}.lambda-url.{REGION}.localhost:{parts.port}"

    event = ask(f"http://{parts.netloc}", "/_url/x", Host=host).event

    assert ("/_url/x", host) == (event["rawPath"], event["headers"]["host"])


def test_a_path_like_one_of_the_api_is_the_functions(mirror: str) -> None:
    """By Host also /2015-03-31/... belongs to the function."""
    parts = urlsplit(mirror)
    host = f"{parts.path.split('/')[2]}.lambda-url.{REGION}.localhost:{parts.port}"

    answer = ask(f"http://{parts.netloc}", "/2015-03-31/functions", Host=host)

    assert "/2015-03-31/functions" == answer.event["rawPath"]


def test_binary_passes_both_ways(mirror: str) -> None:
    """A picture arrives as base64; base64 that says so leaves as a picture."""
    sent = ask(mirror, "/", "POST", PNG, Content_Type="image/png").event
    got = returning(
        mirror,
        {
            "statusCode": 200,
            "headers": {"content-type": "image/png"},
            "body": base64.b64encode(PNG).decode(),
            "isBase64Encoded": True,
        },
    )

    assert (base64.b64encode(PNG).decode(), True) == (sent["body"], sent["isBase64Encoded"])
    assert (PNG, ["image/png"]) == (got.body, got.headers.get_all("Content-Type"))


def test_cookies_pass_both_ways(mirror: str) -> None:
    """A Cookie header arrives as a list of cookies; each of an answer's is a Set-Cookie."""
    event = ask(mirror, Cookie="a=1; b=2").event
    answer = returning(mirror, {"statusCode": 200, "cookies": ["c=3; Path=/", "d=4"]})

    assert ["a=1", "b=2"] == event["cookies"]
    assert "cookie" not in event["headers"]
    assert ["c=3; Path=/", "d=4"] == answer.headers.get_all("Set-Cookie")


def test_a_get_may_have_a_body(mirror: str) -> None:
    """A body is passed on whatever the method."""
    event = ask(mirror, "/", "GET", b"why not", Content_Type="text/plain").event

    assert ("GET", "why not") == (event["requestContext"]["http"]["method"], event["body"])


def test_a_request_above_6_mb_is_refused(mirror: str) -> None:
    """7 MB are 413 by their length; 5 MB that are not text are more than 6 as an event."""
    by_length = ask(mirror, "/", "POST", b"x" * 7_000_000, Content_Type="text/plain")
    as_base64 = ask(mirror, "/", "POST", b"\xff" * 5_000_000)
    fits = ask(mirror, "/return", "POST", b'"' + b"x" * 5_000_000 + b'"', Content_Type="text/json")

    assert [413, 413] == [by_length.status, as_base64.status]
    assert {
        "Message": "Request must be smaller than 6291456 bytes for the InvokeFunctionUrl operation"
    } == json.loads(as_base64.body)
    assert (200, 5_000_000) == (fits.status, len(fits.body))


# Answers


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ("hello", 200, "application/json", b"hello"),
        (3, 200, "application/json", b"3"),
        (3.1, 200, "application/json", b"3.1"),
        (True, 200, "application/json", b"true"),
        (None, 200, "application/json", b"null"),
        ([1, 2], 200, "application/json", b"[1, 2]"),
        ({"a": "b"}, 200, "application/json", b'{"a": "b"}'),
        ({"statusCode": 201}, 201, "application/json", b""),
        ({"statusCode": 404, "body": "gone"}, 404, "application/json", b"gone"),
        (
            {"statusCode": 200, "headers": {"Content-Type": "text/html"}, "body": "<p>"},
            200,
            "text/html",
            b"<p>",
        ),
    ],
)
def test_what_a_function_returns_is_inferred(
    mirror: str, result: object, status: int, kind: str, body: bytes
) -> None:
    """An object with a statusCode says it all, anything else is a 200; one type, one length."""
    answer = returning(mirror, result)

    assert (status, [kind], body) == (
        answer.status,
        answer.headers.get_all("Content-Type"),
        answer.body,
    )
    assert [str(len(body))] == answer.headers.get_all("Content-Length")
    assert answer.headers["Date"]


def test_a_function_cannot_say_how_its_answer_is_framed(mirror: str) -> None:
    """Lengths, encodings and ids are the server's, whatever a function says of them."""
    answer = returning(
        mirror,
        {
            "statusCode": 200,
            "headers": {
                "Content-Length": "1",
                "transfer-encoding": "chunked",
                "Connection": "upgrade",
                "x-amzn-requestid": "mine",
                "X-Custom": "kept",
            },
            "body": "four",
        },
    )

    assert (b"four", ["4"]) == (answer.body, answer.headers.get_all("Content-Length"))
    assert answer.headers.get_all("Transfer-Encoding") is None
    assert answer.headers.get_all("Connection") is None
    assert 36 == len(answer.headers["x-amzn-RequestId"])
    assert "kept" == answer.headers["X-Custom"]


@pytest.mark.parametrize(
    "result",
    [
        {"statusCode": 200, "headers": {"X-A": "1\r\nSet-Cookie: owned=1"}},
        {"statusCode": 200, "headers": {"X-A: 1\r\nX-B": "2"}},
        {"statusCode": 200, "cookies": ["a=1\nX-B: 2"]},
        {"statusCode": 101},
        {"statusCode": "many"},
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
    ],
)
def test_what_is_no_answer_is_a_bad_gateway(mirror: str, result: object) -> None:
    """A header that would begin another, and whatever else cannot be sent, is 502 and no more."""
    answer = returning(mirror, result)

    assert (502, b"Internal Server Error") == (answer.status, answer.body)
    assert not {"Set-Cookie", "X-A", "X-B"} & set(answer.headers.keys())


def test_a_function_that_raises_is_a_bad_gateway(mirror: str) -> None:
    """What it raised is for its log, and not for who calls."""
    answer = ask(mirror, "/raise")

    assert (502, b"Internal Server Error") == (answer.status, answer.body)
    assert answer.headers["x-amzn-RequestId"]


def test_a_function_that_is_too_busy_is_429(client: BaseClient, make_url: MakeUrl) -> None:
    """No concurrency left is told as it is, and when to come again."""
    name, url = make_url()
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)

    answer = ask(url)

    assert (429, {"Message": "Rate Exceeded."}) == (answer.status, json.loads(answer.body))
    assert "TooManyRequestsException" == answer.headers["x-amzn-ErrorType"]
    assert answer.headers["Retry-After"]


@pytest.mark.parametrize("mode", ["BUFFERED", "RESPONSE_STREAM"])
def test_an_answer_to_head_has_no_body(make_url: MakeUrl, mode: str) -> None:
    """What comes after the head of it is the next answer on the connection."""
    _, url = make_url(InvokeMode=mode)
    parts = urlsplit(url)
    head = f"HEAD {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
    get = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"

    _, first, second = conversation(url, (head + get).encode()).split(b"HTTP/1.1 200 OK\r\n")

    assert b"" == first.partition(b"\r\n\r\n")[2]
    assert b'"rawPath"' in second


def test_an_answer_of_204_has_no_body(mirror: str) -> None:
    """A function that returns one all the same has its body left out."""
    answer = returning(mirror, {"statusCode": 204, "body": "the body"})

    assert (204, b"") == (answer.status, answer.body)
    assert answer.headers.get_all("Content-Length") is None


def test_what_went_wrong_here_is_for_the_journal(
    function_directory: Callable[..., Path],
) -> None:
    """A fault of ours is a 500 that tells a stranger nothing, and a Trouble that tells us all."""
    url_id = "u" * 32
    config = {"UrlId": url_id, "AuthType": "NONE", "Cors": {}, "InvokeMode": "BUFFERED"}
    everybody = {"Sid": "s", "Principal": "*", "Action": "lambda:InvokeFunctionUrl"}

    async def scenario() -> tuple[Answer, list[journal.Trouble]]:
        async with miniλ.Supervisor() as supervisor:
            code = function_directory("f", app=MIRROR)
            await supervisor.create_function("f", code, "app.handler")
            await supervisor.registry.write(
                Change(URL, "f", "", config), Change(POLICY, "f", "", {"Statement": [everybody]})
            )
            async with Gateway(supervisor, port=0) as gateway:
                await supervisor.parts.pool.close()  # as when it is being closed
                answer = await asyncio.to_thread(ask, f"{gateway.address}/_url/{url_id}/")
            return answer, supervisor.journal.story(journal.Trouble)

    answer, troubles = asyncio.run(scenario())

    assert (500, {"Message": "An error occurred and the request cannot be processed."}) == (
        answer.status,
        json.loads(answer.body),
    )
    request_id = answer.headers["x-amzn-RequestId"]
    (trouble,) = troubles
    assert trouble.what.startswith(f"Request {request_id} to the function URL {url_id}: The super")


# Streams


def test_a_stream_is_the_result_as_it_is(make_url: MakeUrl) -> None:
    """With RESPONSE_STREAM nothing is inferred: bytes and JSON alike are the body of a 200."""
    _, url = make_url(
        "def handler(event, context):\n"
        "    return b'\\x00raw' if event['rawPath'] == '/raw' else {'statusCode': 404}\n",
        InvokeMode="RESPONSE_STREAM",
    )

    raw, document = ask(url, "/raw"), ask(url, "/document")

    assert [200, 200] == [raw.status, document.status]
    assert (b"\0raw", b'{"statusCode": 404}') == (raw.body, document.body)
    assert ["application/octet-stream"] == raw.headers.get_all("Content-Type")
    assert "chunked" == raw.headers["Transfer-Encoding"]
    assert raw.headers["x-amzn-RequestId"]


def test_a_stream_that_never_began_is_a_bad_gateway(make_url: MakeUrl) -> None:
    """A function that fails before its first byte fails as any other."""
    _, url = make_url(InvokeMode="RESPONSE_STREAM")

    answer = ask(url, "/raise")

    assert (502, b"Internal Server Error") == (answer.status, answer.body)


def test_a_stream_is_sent_piece_by_piece() -> None:
    """Pieces leave as they come; those without a place to go are taken all the same, to the end."""
    taken: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one", b"", b"two"):
            yield piece
            taken.append(piece)

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        head = UrlAnswer(int(request.path[1:]), (("Content-Type", "text/plain"),))
        return await serve._streamed(request, head, {"x-id": "7"}, b"start", pieces())

    async def scenario() -> list[tuple[int, bytes]]:
        runner = web.ServerRunner(web.Server(handler, access_log=None))
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            asked = [("GET", "/200"), ("HEAD", "/200"), ("GET", "/204"), ("GET", "/304")]
            answers = [await asyncio.to_thread(ask, url, path, method) for method, path in asked]
        finally:
            await runner.cleanup()
        assert ["7"] * 4 == [answer.headers["x-id"] for answer in answers]
        return [(answer.status, answer.body) for answer in answers]

    answers = asyncio.run(scenario())

    assert [(200, b"startonetwo"), (200, b""), (204, b""), (304, b"")] == answers
    assert [b"one", b"", b"two"] * 4 == taken


# Browsers


def test_a_preflight_is_answered_without_the_function(
    client: BaseClient, make_url: MakeUrl
) -> None:
    """Not even who may call is asked: browsers do not sign preflights."""
    name, url = make_url(
        "def handler(event, context):\n    raise SystemExit(1)\n",
        AuthType="AWS_IAM",
        Cors={
            "AllowOrigins": ["https://example.com"],
            "AllowMethods": ["PUT", "GET"],
            "AllowHeaders": ["x-custom"],
            "MaxAge": 300,
        },
    )
    client.remove_permission(FunctionName=name, StatementId="public")

    asked = {"Access_Control_Request_Method": "PUT"}
    ours = ask(url, "/x", "OPTIONS", Origin="https://example.com", **asked)
    foreign = ask(url, "/x", "OPTIONS", Origin="https://example.org", **asked)

    assert [200, 200] == [ours.status, foreign.status]
    assert ("https://example.com", "PUT,GET", "x-custom", "300") == tuple(
        ours.headers[f"Access-Control-{name}"]
        for name in ("Allow-Origin", "Allow-Methods", "Allow-Headers", "Max-Age")
    )
    assert [] == [name for name in foreign.headers if name.startswith("Access-Control-")]
    assert b"" == ours.body == foreign.body


def test_a_cors_is_the_only_word_on_its_url(client: BaseClient, make_url: MakeUrl) -> None:
    """What the function says of origins is dropped, and errors can be read by allowed pages too."""
    cors = {"AllowOrigins": ["https://example.com"], "ExposeHeaders": ["x-custom"]}
    _, url = make_url(Cors=cors)
    result = {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*"}}

    ours = returning(url, result, Origin="https://example.com")
    foreign = returning(url, result, Origin="https://example.org")
    failed = ask(url, "/raise", Origin="https://example.com")

    assert ["https://example.com"] == ours.headers.get_all("Access-Control-Allow-Origin")
    assert "x-custom" == ours.headers["Access-Control-Expose-Headers"]
    assert None is foreign.headers.get_all("Access-Control-Allow-Origin")
    assert (502, "https://example.com") == (
        failed.status,
        failed.headers["Access-Control-Allow-Origin"],
    )


def test_without_a_cors_it_is_the_functions_affair(mirror: str) -> None:
    """Preflights reach the function, and its own headers leave."""
    preflight = ask(
        mirror,
        "/",
        "OPTIONS",
        Origin="https://example.com",
        Access_Control_Request_Method="PUT",
    )
    answer = returning(
        mirror,
        {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*"}},
        Origin="https://example.com",
    )

    assert "OPTIONS" == preflight.event["requestContext"]["http"]["method"]
    assert ["*"] == answer.headers.get_all("Access-Control-Allow-Origin")


# Aliases


def test_the_url_of_an_alias_runs_its_version(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The version is the alias', the ARN is the one that was asked for, the policy its own."""
    name = make_function(MIRROR)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    url = client.create_function_url_config(FunctionName=f"{name}:live", AuthType="NONE")[
        "FunctionUrl"
    ]
    open_to_all(client, name)

    unqualified = ask(url)
    open_to_all(client, name, Qualifier="live")
    one = json.loads(ask(url).body)
    client.update_function_configuration(FunctionName=name, Timeout=9)
    updated(client, name)
    client.publish_version(FunctionName=name)
    client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    two = json.loads(ask(url).body)
    client.delete_alias(FunctionName=name, Name="live")
    gone = ask(url)

    assert 403 == unqualified.status
    assert ["1", "2"] == [one["version"], two["version"]]
    assert f"arn:aws:lambda:{REGION}:000000000000:function:{name}:live" == one["arn"] == two["arn"]
    assert (403, b'{"Message":null}') == (gone.status, gone.body)
