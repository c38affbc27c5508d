"""Signatures, with [auth]: boto3 signs, and each kind of refusal is AWS's."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from botocore import auth as signing
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from miniλ import sigv4
from tests.api.conftest import REGION
from tests.api.plain_http import ask, ended, invocation
from tests.api.refusals import refused
from tests.api.signing import (
    ACCOUNT,
    KEYS,
    MISMATCH,
    NO_REGION,
    OWN,
    SECRET,
    UNKNOWN,
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
    from pathlib import Path

    from botocore.client import BaseClient

    from tests.api.conftest import Server

    MakeClient = Callable[..., BaseClient]

__all__ = ["make_client", "server", "settings"]  # fixtures


# Signatures


def test_a_right_key_is_admitted(make_client: MakeClient) -> None:
    """The signatures of boto3 are verified: over paths with ARNs, queries, bodies, archives."""
    client = make_client()
    arn = f"arn:aws:lambda:{REGION}:{OWN}:function:orders-in"

    answers = [
        client.invoke(FunctionName=name, Payload=b'{"a": "\xc3\xa9"}')["Payload"].read()
        for name in ("orders-in", "orders-in:prod", arn, f"{arn}:prod", f"{OWN}:orders-in")
    ]
    marker = client.list_functions(MaxItems=1)["NextMarker"]
    listed = client.list_functions(MaxItems=1, Marker=marker)["Functions"]
    client.tag_resource(Resource=arn, Tags={"a b": "c/d+e"})
    client.untag_resource(Resource=arn, TagKeys=["a b", "c+d=e"])

    assert [{"a": "é"}] * 5 == [json.loads(answer) for answer in answers]
    assert ["secret"] == [function["FunctionName"] for function in listed]


def test_a_wrong_secret_is_refused(server: Server, make_client: MakeClient) -> None:
    """B50: 403 InvalidSignatureException in AWS's words, and nothing runs."""
    client = make_client(secret="another")
    before = runs(server, "secret")

    status, code, message = refused(client.invoke, FunctionName="secret", Payload=b"{}")

    assert (403, "InvalidSignatureException") == (status, code)
    assert message.startswith(MISMATCH)
    assert before == runs(server, "secret")


def test_an_unknown_key_is_refused(make_client: MakeClient) -> None:
    """B50: 403 UnrecognizedClientException, before any of the body is read."""
    client = make_client("NOBODY")
    expected = (403, "UnrecognizedClientException", UNKNOWN)

    assert expected == refused(client.invoke, FunctionName="secret", Payload=b"{}")
    assert expected == refused(client.invoke, FunctionName="secret", Payload=b"x" * 7_000_000)
    assert expected == refused(client.list_functions)


@pytest.mark.parametrize(
    "path", ["/2015-03-31/functions", invocation("secret"), "/2015-03-31/none"]
)
def test_an_unsigned_request_is_refused(server: Server, path: str) -> None:
    """403 MissingAuthenticationTokenException, for paths that exist and others."""
    answer = ask(server, "POST", path, b"{}")

    assert (403, "MissingAuthenticationTokenException") == status_and_code(answer)


def test_the_name_of_the_server_needs_no_key(server: Server) -> None:
    """A health check may ask for the name of the server, with any Host."""
    answer = ask(server, "GET", "/", None, {"Host": "gateway.example.com"})

    assert (200, "minilambda") == (answer.status, answer.document["service"])


@pytest.mark.parametrize("minutes", [-6, 6])
def test_an_old_or_early_signature_is_refused(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    """B50: a signature of more than five minutes ago, or ahead, is refused."""
    client = make_client()
    before = runs(server, "secret")
    shifted = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
    monkeypatch.setattr(
        signing, "get_current_datetime", lambda *_, **__: shifted.replace(tzinfo=None)
    )

    status, code, message = refused(client.invoke, FunctionName="secret", Payload=b"{}")
    monkeypatch.undo()

    assert (403, "InvalidSignatureException") == (status, code)
    words = "Signature expired: " if minutes < 0 else "Signature not yet current: "
    assert message.startswith(words + shifted.strftime("%Y%m%dT%H%M"))
    assert before == runs(server, "secret")


def test_a_body_that_was_swapped_does_not_run(server: Server) -> None:
    """B50: the signature covers the body, one that is read to memory and one to disk."""
    event = signed(server, "POST", invocation("secret"), b'{"n": 1}')
    document = json.dumps({"FunctionName": "swapped", "Code": {"ZipFile": ""}}).encode()
    creation = signed(server, "POST", "/2015-03-31/functions", document)
    tags = f"/2017-03-31/tags/arn:aws:lambda:{REGION}:{OWN}:function:secret"
    tagging = signed(server, "POST", tags, b'{"Tags": {"a": "b"}}')
    before = runs(server, "secret")

    answers = [
        send(server, event, b'{"n": 2}'),
        send(server, event, b'{"n": 1} '),
        send(server, event, b""),
        send(server, creation, document.replace(b"swapped", b"changed")),
        send(server, tagging, b'{"Tags": {"a": "c"}}'),
    ]

    assert [(403, "InvalidSignatureException")] * 5 == [
        status_and_code(answer) for answer in answers
    ]
    assert all(answer.message.startswith(MISMATCH) for answer in answers)
    assert before == runs(server, "secret")
    assert 200 == send(server, event).status
    assert [] == list((server.state / "uploads").iterdir())


def test_a_request_that_was_changed_on_the_way_is_refused(server: Server) -> None:
    """B50: an unsigned header with a meaning, another query and another path are refused."""
    event = signed(server, "POST", f"{invocation('secret')}?Qualifier=$LATEST", b"{}")
    added = send(server, event, **{"X-Amz-Invocation-Type": "Event"})
    event.url = event.url.replace("$LATEST", "1")
    queried = send(server, event)
    event.url = event.url.replace("secret", "orders-in").replace("=1", "=$LATEST")
    elsewhere = send(server, event)

    assert (403, "InvalidSignatureException") == status_and_code(added)
    assert (
        "'x-amz-invocation-type' must be a 'SignedHeader' in the AWS Authorization."
    ) == added.message
    assert [MISMATCH] * 2 == [each.message[: len(MISMATCH)] for each in (queried, elsewhere)]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("Bearer abc", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=ADMIN", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=", ""),
        ("\xff\xfe", "IncompleteSignatureException"),
        ("AWS4-HMAC-SHA256 Credential=\xff/20261124/us-east-1/lambda/aws4_request", ""),
    ],
)
def test_an_incomplete_signature_is_refused(server: Server, header: str, code: str) -> None:
    """403 with the code of the problem; no bytes of a header become an error of ours."""
    answer = ask(
        server,
        "POST",
        invocation("secret"),
        b"{}",
        {"Authorization": header, "X-Amz-Date": "20261124T120000Z"},
    )

    assert 403 == answer.status
    assert answer.code == (code or "IncompleteSignatureException")


def test_a_declared_hash_is_checked_before_the_body(server: Server) -> None:
    """With x-amz-content-sha256 a wrong signature is refused before the body is read."""
    body = b'{"n": 1}'
    sha256 = hashlib.sha256(body).hexdigest()
    request = signed(server, "POST", invocation("secret"), body, {"X-Amz-Content-SHA256": sha256})
    good = send(server, request)
    swapped = send(server, request, b'{"n": 2}')
    request.headers["Authorization"] = re.sub(
        "Signature=.{8}", "Signature=00000000", request.headers["Authorization"]
    )
    # The length is above what is sent: a server that waited for the body would not answer.
    length = str(len(body) + 1)
    early = ask(
        server,
        "POST",
        invocation("secret"),
        None,
        {
            **dict(request.headers.items()),
            "Host": f"127.0.0.1:{server.port}",
            "Content-Length": length,
        },
    )

    assert (200, body.replace(b" ", b"")) == (good.status, good.body.replace(b" ", b""))
    assert (403, "InvalidSignatureException") == status_and_code(swapped) == status_and_code(early)


def test_a_body_may_be_unsigned(server: Server) -> None:
    """UNSIGNED-PAYLOAD is a client's choice, and the header that says so is signed."""
    unsigned = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    request = signed(server, "POST", invocation("secret"), b"1", unsigned)
    answer = send(server, request, b"2")
    headers = dict(request.headers.items())
    del headers["X-Amz-Content-SHA256"]
    request.headers = headers

    assert (200, b"2") == (answer.status, answer.body)
    assert (403, "InvalidSignatureException") == status_and_code(send(server, request, b"2"))


@pytest.mark.parametrize(
    ("service", "region", "words"),
    [
        ("lambda", "eu-west-1", NO_REGION),
        ("s3", REGION, "Credential should be scoped to correct service: 'lambda'."),
        ("logs", REGION, "Credential should be scoped to correct service: 'lambda'."),
        (
            "sts",
            "eu-west-1",
            f"{NO_REGION} Credential should be scoped to correct service: 'lambda'.",
        ),
    ],
)
@pytest.mark.parametrize("key_id", ["ADMIN", "NOBODY"])
def test_a_signature_for_another_region_or_service_is_refused(
    server: Server, key_id: str, service: str, region: str, words: str
) -> None:
    """A signature for another region or service is refused, before the key is looked up."""
    url = f"http://127.0.0.1:{server.port}/2015-03-31/functions"
    request = AWSRequest("GET", url)
    signing.SigV4Auth(Credentials(key_id, SECRET), service, region).add_auth(request)
    answer = send(server, request)

    assert (403, "InvalidSignatureException", words) == (*status_and_code(answer), answer.message)


# Presigned


def presigned(
    server: Server, path: str, seconds: int = 60, key_id: str = "ADMIN", region: str = REGION
) -> str:
    """Return path and query of an invocation for any client that has them."""
    request = AWSRequest("POST", f"http://127.0.0.1:{server.port}{path}")
    credentials = Credentials(key_id, SECRET)
    signing.SigV4QueryAuth(credentials, "lambda", region, seconds).add_auth(request)
    parts = urlsplit(request.url)
    return f"{parts.path}?{parts.query}"


def test_a_presigned_invocation_runs(server: Server) -> None:
    """The query has the signature, which is for an empty body."""
    path = presigned(server, f"{invocation('orders-in')}?Qualifier=prod")

    assert (200, b"{}") == ask(server, "POST", path)[::2]
    assert (403, "InvalidSignatureException") == status_and_code(
        ask(server, "POST", path, b'{"n": 1}')
    )
    assert (403, "InvalidSignatureException") == status_and_code(
        ask(server, "POST", path.replace("prod", "%24LATEST"))
    )
    assert (403, "InvalidSignatureException") == status_and_code(
        ask(server, "POST", path, None, {"X-Amz-Invocation-Type": "Event"})
    )
    assert (403, "InvalidSignatureException") == status_and_code(
        ask(server, "GET", path.partition("/invocations")[0] + "?" + path.partition("?")[2])
    )
    assert (403, "IncompleteSignatureException") == status_and_code(
        ask(server, "POST", path.replace("X-Amz-Expires=60", "X-Amz-Expires=604801"))
    )
    assert (403, "InvalidSignatureException") == status_and_code(
        ask(server, "POST", path.replace("X-Amz-Expires=60", "X-Amz-Expires=600"))
    )
    assert (403, "IncompleteSignatureException") == status_and_code(
        ask(server, "POST", f"{path}&X-Amz-Credential=ADMIN")
    )


def test_a_presigned_invocation_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its X-Amz-Expires it is refused, also within five minutes of its signature."""
    earlier = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=30)
    monkeypatch.setattr(
        signing, "get_current_datetime", lambda *_, **__: earlier.replace(tzinfo=None)
    )
    over = presigned(server, invocation("secret"), 20)
    holds = presigned(server, invocation("secret"), 120)
    monkeypatch.undo()

    assert (403, "InvalidSignatureException") == status_and_code(ask(server, "POST", over))
    assert 200 == ask(server, "POST", holds).status


def test_a_presigned_invocation_has_the_rights_of_its_key(server: Server) -> None:
    """An action that a key may not do cannot be presigned with it."""
    path = presigned(server, invocation("secret"), key_id="ORDERS")

    assert (403, "AccessDeniedException") == status_and_code(ask(server, "POST", path))


# Beside Lambda


def test_a_key_of_twelve_digits_is_an_account(make_client: MakeClient) -> None:
    """STS returns the account of a key, and ARNs have it."""
    for key_id, account in (("ADMIN", OWN), (ACCOUNT, ACCOUNT)):
        caller = make_client(key_id, "sts").get_caller_identity()
        arn = make_client(key_id).get_function(FunctionName="secret")["Configuration"][
            "FunctionArn"
        ]

        assert (account, key_id) == (caller["Account"], caller["UserId"])
        assert account == arn.split(":")[4]


@pytest.mark.parametrize("service", ["sts", "iam", "logs"])
def test_services_beside_lambda_have_their_own_errors(
    server: Server, make_client: MakeClient, service: str
) -> None:
    """Each has its own form of an error: XML of STS and IAM, __type of logs."""
    calls: dict[str, Callable[[BaseClient], object]] = {
        "sts": lambda client: client.get_caller_identity(),
        "iam": lambda client: client.get_role(RoleName="lambda"),
        "logs": lambda client: client.describe_log_groups(),
    }
    call = calls[service]
    xml = service != "logs"
    mismatch = "SignatureDoesNotMatch" if xml else "InvalidSignatureException"
    unknown = "InvalidClientTokenId" if xml else "UnrecognizedClientException"
    status = 403 if xml else 400

    assert call(make_client("ADMIN", service))
    wrong = refused(call, client=make_client("ADMIN", service, secret="another"))
    nobody = refused(call, client=make_client("NOBODY", service))
    elsewhere = refused(call, client=make_client("ADMIN", service, region="eu-west-1"))

    assert (status, mismatch, MISMATCH) == (*wrong[:2], wrong[2][: len(MISMATCH)])
    assert (status, unknown, UNKNOWN) == nobody
    assert (status, mismatch, NO_REGION) == elsewhere


def test_a_signature_for_one_service_is_for_no_other(server: Server) -> None:
    """POST / is three services, and each is signed for by its own name."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    caller = b"Action=GetCallerIdentity&Version=2011-06-15"
    with_form = signed(server, "POST", "/", caller, form, service="lambda")
    target = {"X-Amz-Target": "Logs_20140328.DescribeLogGroups"}
    logs = signed(server, "POST", "/", b"{}", target, service="sts")

    xml = send(server, with_form)
    json_ = send(server, logs)

    assert 403 == xml.status
    assert b"<Code>SignatureDoesNotMatch</Code>" in xml.body
    assert b"scoped to correct service: 'sts'." in xml.body
    assert (400, "InvalidSignatureException") == (json_.status, json_.document["__type"])
    assert "Credential should be scoped to correct service: 'logs'." == json_.message


# The keys file


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_keys_that_others_can_read_are_refused(tmp_path: Path, mode: int) -> None:
    """The server does not start, and its message says what to do: exit code 2."""
    keys = tmp_path / "keys.toml"
    keys.write_text(KEYS, encoding="utf-8")
    keys.chmod(mode)
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[auth]\nkeys = "{keys}"\n', encoding="utf-8")

    code, stderr = ended("--config", str(settings))

    assert 2 == code
    assert f"chmod 600 {keys}" in stderr
    assert SECRET not in stderr


def test_a_missing_keys_file_is_an_error(tmp_path: Path) -> None:
    """[auth] without its keys file does not start without keys: exit code 2."""
    settings = tmp_path / "settings.toml"
    settings.write_text(f'[auth]\nkeys = "{tmp_path}/none.toml"\n', encoding="utf-8")

    code, stderr = ended("--config", str(settings))

    assert 2 == code
    assert f"The keys file {tmp_path}/none.toml cannot be read" in stderr


def test_all_wrong_signatures_have_one_answer(server: Server) -> None:
    """B50: signatures that are wrong in one digit and in all digits have the same answer.

    `hmac.compare_digest` takes the same time for both; only the answers are compared here.
    """
    request = signed(server, "POST", invocation("secret"), b"{}")
    good = request.headers["Authorization"]
    signature = good.rpartition("=")[2]
    answers = []
    for length in (0, 1, 32, 63):
        changed = signature[:length] + "".join(
            "0" if each != "0" else "1" for each in signature[length:]
        )
        request.headers["Authorization"] = good.replace(signature, changed)
        answer = send(server, request)
        answers.append((*status_and_code(answer), answer.message))

    assert 1 == len(set(answers))
    assert (403, "InvalidSignatureException") == answers[0][:2]


def test_the_limits_of_the_host_need_a_key(server: Server) -> None:
    """The limits of the host are for signed requests only, with the right secret."""
    path = "/_minilambda/enforcement"
    url = f"http://127.0.0.1:{server.port}{path}"

    def status_and_body(secret: str) -> tuple[int, str]:
        signed = sigv4.sign(
            "GET",
            url,
            {},
            sigv4.EMPTY_SHA256,
            key_id="ADMIN",
            secret=secret,
            region=REGION,
            service="lambda",
            now=time.time(),
        )
        answer = ask(server, "GET", path, None, signed)
        return answer.status, answer.body.decode()

    status, limits = status_and_body(SECRET)
    assert (200, {"memory", "cpu"} - json.loads(limits).keys()) == (status, set())
    assert 403 == status_and_body("another")[0]
    assert 403 == ask(server, "GET", path).status
