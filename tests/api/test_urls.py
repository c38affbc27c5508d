"""Function URLs: their configs through boto3, and the callers that each admits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.api.conftest import REGION, ROLE, RUNTIME, archive, serving, updated
from tests.api.function_urls import FORBIDDEN, MIRROR, ask, make_url, open_to_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeUrl = Callable[..., tuple[str, str]]

__all__ = ["make_url"]  # fixtures


# The operations


def test_create_get_and_list_return_the_same(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """Create, Get and List return the same config; a Cors is returned as it was sent."""
    name = make_function()
    cors = {"AllowOrigins": ["https://example.com"], "MaxAge": 60, "AllowCredentials": False}

    created = client.create_function_url_config(FunctionName=name, AuthType="AWS_IAM", Cors=cors)
    current = client.get_function_url_config(FunctionName=name)
    listed = client.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"]

    assert 201 == created["ResponseMetadata"]["HTTPStatusCode"]
    prefix, url_id, end = created["FunctionUrl"].rsplit("/", 2)
    assert (f"{server.url}/_url", "") == (prefix, end)
    assert 32 == len(url_id)
    assert set(url_id) <= set("abcdefghijklmnopqrstuvwxyz0123456789")
    assert f"arn:aws:lambda:{REGION}:000000000000:function:{name}" == current["FunctionArn"]
    assert ("AWS_IAM", cors, "BUFFERED") == (
        current["AuthType"],
        current["Cors"],
        current["InvokeMode"],
    )
    assert "LastModifiedTime" not in created
    assert {**created, "LastModifiedTime": current["CreationTime"]} == {
        **current,
        "ResponseMetadata": created["ResponseMetadata"],
    }
    assert [{key: current[key] for key in current if key != "ResponseMetadata"}] == listed


def test_an_update_changes_the_members_it_has_and_keeps_the_url(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The id stays for the life of a config; a Cors is replaced, and an empty one is removed."""
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
    """A second config is a conflict, also by ARN; an alias has its own, and lists have pages."""
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


def test_a_missing_url_is_404(client: BaseClient, make_function: Callable[..., str]) -> None:
    """No config, no alias and no function are each 404, in AWS's words."""
    name = make_function()
    messages = []

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
        messages.append(missing.value.response["Error"]["Message"])

    assert ["The resource you requested does not exist."] * 5 == messages[:5]
    assert ["Function does not exist"] * 4 == messages[5:]


# Callers


def test_the_url_alone_admits_no_caller(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """AuthType NONE without a statement for all callers in the policy is 403; with it 200."""
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


def test_an_update_changes_whether_a_signature_is_needed(
    client: BaseClient, make_url: MakeUrl
) -> None:
    """With AWS_IAM an unsigned request is refused; after a change to NONE it is answered."""
    name, url = make_url(AuthType="AWS_IAM")

    unsigned = ask(url)
    client.update_function_url_config(FunctionName=name, AuthType="NONE")
    open_now = ask(url)
    client.update_function_url_config(FunctionName=name, AuthType="AWS_IAM")
    again = ask(url)

    assert [403, 200, 403] == [each.status for each in (unsigned, open_now, again)]
    assert FORBIDDEN == json.loads(unsigned.body)


def test_without_keys_any_signature_will_do(client: BaseClient, make_url: MakeUrl) -> None:
    """A gateway without [auth] cannot verify a signature, and believes its key id."""
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
    """With [auth] AWS_IAM takes a valid signature of a key that may; NONE passes tokens on."""
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


def test_an_unknown_url_is_403_with_null(
    server: Server, client: BaseClient, make_url: MakeUrl
) -> None:
    """An unknown id, and one whose config or function was deleted, is 403 with null."""
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
    """After the deletion of a config or its function, a new URL has a new id; the old is 403."""
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
    """After a restart the server serves the same ids."""
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


# Aliases


def test_the_url_of_an_alias_runs_its_version(
    client: BaseClient, make_function: Callable[..., str]
) -> None:
    """The version is the alias', the ARN has the alias, and the policy is the alias' own."""
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
