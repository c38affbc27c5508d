"""Tests of Signature Version 4: what AWS's own signer signs is taken, and nothing else is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.credentials import Credentials
from botocore.session import Session
from hypothesis import assume, given
from hypothesis import strategies as st

from miniλ import sigv4
from miniλ.errors import AccessDenied
from tests.unit.signatures import (
    HEADER_SIGNERS,
    HOST,
    KEY_ID,
    QUERY_SIGNERS,
    SECRET,
    Sent,
    plain,
    quick,
    refused,
    requests,
    requests_to_presign,
    seconds,
    signed_by_aws,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.awsrequest import AWSRequest


@pytest.mark.parametrize(("signer", "service"), HEADER_SIGNERS)
@quick
@given(request=requests, token=st.sampled_from([None, "a/session+token=="]))
def test_what_botocore_signs_is_taken(
    signer: type[SigV4Auth], service: str, request: Sent, token: str | None
) -> None:
    """Any method, path, query, headers and body: the claim names the key, and it is true."""
    signed = signed_by_aws(request, signer, service, token=token)

    signed.check()
    claim = signed.parse()
    assert (KEY_ID, "eu-west-3", service) == (claim.key_id, claim.region, claim.service)
    assert token == claim.token
    assert claim.expires is None


@pytest.mark.parametrize(("signer", "service"), QUERY_SIGNERS)
@quick
@given(
    request=requests_to_presign,
    token=st.sampled_from([None, "a/session+token=="]),
    expires=st.integers(1, sigv4.MAX_EXPIRES),
)
def test_what_botocore_presigns_is_taken(
    signer: type[SigV4Auth], service: str, request: Sent, token: str | None, expires: int
) -> None:
    """The same with the signature in the query, to the last second of its life."""
    signed = signed_by_aws(request, signer, service, token=token, expires=expires)

    signed.check(after=expires)
    assert (expires, token) == (signed.parse().expires, signed.parse().token)
    assert "Signature expired" in refused(signed, "InvalidSignatureException", after=expires + 1)


@pytest.mark.parametrize(("signer", "service"), HEADER_SIGNERS)
@quick
@given(request=requests, token=st.sampled_from([None, "a/session+token=="]))
def test_we_sign_as_botocore_does(
    signer: type[SigV4Auth], service: str, request: Sent, token: str | None
) -> None:
    """The headers that `sign` returns are those of botocore, to the last character."""
    unique = tuple({name.lower(): (name, value) for name, value in request.headers}.values())
    request = request.replace(headers=unique)
    theirs = signed_by_aws(request, signer, service, token=token)

    ours = sigv4.sign(
        request.method,
        f"http://{HOST}{request.path}?{request.query}",
        dict(request.headers),
        request.sha256(),
        KEY_ID,
        SECRET,
        "eu-west-3",
        service,
        seconds(theirs.header("X-Amz-Date")) + 0.9,
        token,
    )

    assert {name: theirs.header(name) for name in ours} == ours
    assert {"Authorization", "Host", "X-Amz-Date"} <= set(ours)
    assert (service == "s3") == ("X-Amz-Content-Sha256" in ours)


# One change


def another(text: str, at: int) -> str:
    """Return the text with one more letter in it."""
    place = at % (len(text) + 1)
    return f"{text[:place]}x{text[place:]}"


def _path(request: Sent, at: int) -> Sent:
    return request.replace(path="/" + another(request.path[1:], at))


def _query(request: Sent, at: int) -> Sent:
    return request.replace(query=another(request.query, at))


def _more_query(request: Sent, _at: int) -> Sent:
    return request.replace(query=f"{request.query}&a=1" if request.query else "a=1")


def _method(request: Sent, _at: int) -> Sent:
    return request.replace(method="PUT" if request.method != "PUT" else "POST")


def _body(request: Sent, at: int) -> Sent:
    place = at % (len(request.body) + 1)
    return request.replace(body=request.body[:place] + b"x" + request.body[place:])


def _header(request: Sent, at: int) -> Sent:
    names = request.parse().signed_headers
    name = names[at % len(names)]
    assume(name not in {"x-amz-date", "x-amz-content-sha256"})
    at_name = [index for index, pair in enumerate(request.headers) if pair[0].lower() == name]
    place = at_name[at % len(at_name)]
    changed = (request.headers[place][0], another(request.headers[place][1], at))
    return request.replace(
        headers=(*request.headers[:place], changed, *request.headers[place + 1 :])
    )


CHANGES: dict[str, Callable[[Sent, int], Sent]] = {
    "path": _path,
    "query": _query,
    "more query": _more_query,
    "method": _method,
    "body": _body,
    "header": _header,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("signer", "service"), HEADER_SIGNERS)
@quick
@given(request=requests, at=st.integers(0, 1000))
def test_one_change_is_refused(
    signer: type[SigV4Auth], service: str, change: str, request: Sent, at: int
) -> None:
    """Path, query, method, body or a signed header: one letter more is not what was signed."""
    signed = signed_by_aws(request, signer, service)
    changed = CHANGES[change](signed, at)
    # What AWS reads as the same path is the same: "/x/.." and "/".
    aws = SigV4Auth(Credentials(KEY_ID, SECRET), service, "eu-west-3")
    assume(
        change != "path"
        or service == "s3"
        or aws._normalize_url_path(changed.path) != aws._normalize_url_path(signed.path)
    )

    assert sigv4.MISMATCH == refused(changed, "InvalidSignatureException")


@pytest.mark.parametrize("change", ["path", "more query", "method"])
@pytest.mark.parametrize(("signer", "service"), QUERY_SIGNERS)
def test_one_change_of_a_presigned_request_is_refused(
    signer: type[SigV4Auth], service: str, change: str
) -> None:
    """A presigned URL is good for what it was made for."""
    changed = CHANGES[change](signed_by_aws(plain(), signer, service), 7)

    assert sigv4.MISMATCH == refused(changed, "InvalidSignatureException")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Amz-Expires=300", "X-Amz-Expires=301"),
        ("Qualifier=live", "Qualifier=Live"),
        ("Qualifier=live", "Qualifier=live&Qualifier=live"),
        ("eu-west-3", "eu-west-1"),
        ("%2Flambda%2F", "%2Fs3%2F"),
        (KEY_ID, "AKIDOTHER"),
    ],
)
def test_what_a_presigned_request_says_of_itself_is_signed(name: str, value: str) -> None:
    """A longer life, another scope or another parameter is not what was signed."""
    signed = signed_by_aws(plain(), SigV4QueryAuth, expires=300)
    changed = signed.replace(query=signed.query.replace(name, value))
    if value == "AKIDOTHER":
        # The id is not in what is signed: it chooses the secret.
        assert sigv4.MISMATCH == refused(changed, "InvalidSignatureException", secret="other")
    else:
        assert sigv4.MISMATCH == refused(changed, "InvalidSignatureException")


@quick
@given(secret=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_another_secret_is_refused(secret: str) -> None:
    """A client without the secret cannot sign; any text may be a secret."""
    assume(secret != SECRET)

    assert sigv4.MISMATCH == refused(
        signed_by_aws(plain()), "InvalidSignatureException", secret=secret
    )


@pytest.mark.parametrize("at", range(0, 64, 7))
def test_a_signature_is_compared_to_its_end(at: int) -> None:
    """One digit of it, at any place, is enough to be wrong."""
    signed = signed_by_aws(plain())
    authorization = signed.header("Authorization")
    place = len(authorization) - 64 + at
    digit = "0" if authorization[place] != "0" else "1"
    changed = authorization[:place] + digit + authorization[place + 1 :]

    refused(signed.with_header("Authorization", changed), "InvalidSignatureException")


@pytest.mark.parametrize("signature", ["é", "\udcff", "0", "0" * 64, "A" * 64])
def test_any_text_may_be_sent_as_signature(signature: str) -> None:
    """Letters beyond ASCII, and bytes that are none, are a wrong signature as any other."""
    signed = signed_by_aws(plain())
    changed = signed.header("Authorization")[:-64] + signature

    assert sigv4.MISMATCH == refused(
        signed.with_header("Authorization", changed), "InvalidSignatureException"
    )


# The body


@pytest.mark.parametrize("body", [b"", b'{"a":2}', b'{"a":1} '])
def test_a_body_is_held_against_the_hash_that_was_declared(body: bytes) -> None:
    """Headers are checked before the body is here; then the body must be the declared one."""
    signed = signed_by_aws(plain(), S3SigV4Auth, "s3")
    claim = signed.parse()
    now = seconds(claim.date)

    sigv4.check(claim, signed.method, signed.path, signed.query, signed.headers, SECRET, None, now)
    sigv4.check_body(claim, signed.sha256())
    with pytest.raises(AccessDenied) as caught:
        sigv4.check_body(claim, hashlib.sha256(body).hexdigest())
    assert sigv4.MISMATCH == str(caught.value)


def test_a_declared_hash_cannot_be_taken_back() -> None:
    """A swapped body cannot be declared unsigned, nor its own hash be declared."""
    signed = signed_by_aws(plain(), S3SigV4Auth, "s3").replace(body=b"other")

    for declared in (sigv4.UNSIGNED, hashlib.sha256(b"other").hexdigest(), None):
        changed = signed.with_header("X-Amz-Content-Sha256", declared)
        refused(changed, "InvalidSignatureException")


def test_a_claim_without_a_hash_is_not_checked_before_the_body() -> None:
    """Without a declared hash there is nothing to check yet: that is a mistake of the caller."""
    signed = signed_by_aws(plain())
    claim = signed.parse()
    assert claim.payload_sha256 is None

    with pytest.raises(ValueError, match="after the body was read"):
        sigv4.check(claim, "POST", signed.path, signed.query, signed.headers, SECRET, None, 0)


def test_an_unsigned_body_says_so() -> None:
    """UNSIGNED-PAYLOAD is in the claim: whether to take it is for the caller to say."""
    aws = signed_by_aws(plain().replace(headers=(("X-Amz-Content-Sha256", sigv4.UNSIGNED),)))
    presigned = signed_by_aws(plain(), S3SigV4QueryAuth, "s3")

    for request in (aws, presigned):
        request.replace(body=b"any").check()
        assert sigv4.UNSIGNED == request.parse().payload_sha256


def test_a_presigned_request_may_declare_its_body_in_a_signed_header() -> None:
    """Then the hash is that of the header, for S3 too."""
    declared = hashlib.sha256(b"late").hexdigest()
    header = (("X-Amz-Content-Sha256", declared),)
    for signer, service in QUERY_SIGNERS:
        signed = signed_by_aws(plain().replace(headers=header), signer, service)

        signed.replace(body=b"late").check()
        assert declared == signed.parse().payload_sha256
        refused(signed.replace(body=b"other"), "InvalidSignatureException")


class UnsignedQueryAuth(SigV4QueryAuth):
    """A signer that leaves out the body, as the JavaScript SDK's does on request."""

    def payload(self, _request: AWSRequest) -> str:
        """Return what stands for the body."""
        return sigv4.UNSIGNED


def test_a_presigned_request_may_declare_its_body_in_the_query() -> None:
    """X-Amz-Content-Sha256 is signed there as every parameter is."""
    unsigned = plain().replace(query=f"X-Amz-Content-Sha256={sigv4.UNSIGNED}")
    signed = signed_by_aws(unsigned, UnsignedQueryAuth)

    signed.replace(body=b"any").check()
    assert sigv4.UNSIGNED == signed.parse().payload_sha256


@pytest.mark.parametrize(
    "declared",
    [
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
    ],
)
def test_a_body_in_signed_chunks_is_refused(declared: str) -> None:
    """Chunk signatures are not supported: the message says so, and what to send."""
    signed = signed_by_aws(plain().replace(headers=(("X-Amz-Content-Sha256", declared),)))

    assert refused(signed, "IncompleteSignatureException") == (
        "a body of signed chunks, or with a trailer, is not taken: x-amz-content-sha256 must be "
        f"UNSIGNED-PAYLOAD or a valid sha256 value, got '{declared}'."
    )


@pytest.mark.parametrize("declared", ["", "abc", "g" * 64, "a" * 65, "unsigned-payload"])
def test_what_is_no_hash_is_not_one(declared: str) -> None:
    """x-amz-content-sha256 is 64 hex digits or AWS's word."""
    signed = signed_by_aws(plain().replace(headers=(("X-Amz-Content-Sha256", declared),)))

    assert refused(signed, "IncompleteSignatureException").startswith("x-amz-content-sha256 must")


# Keys


def test_an_unknown_key_id_is_refused_after_the_same_work() -> None:
    """With UNKNOWN_SECRET the signature is calculated, and the answer is AWS's for no such key."""
    signed = signed_by_aws(plain())
    sigv4._key.cache_clear()

    message = refused(signed, "UnrecognizedClientException", secret=sigv4.UNKNOWN_SECRET)

    assert message == "The security token included in the request is invalid."
    assert sigv4._key.cache_info().misses == 1


def test_derived_keys_are_kept_and_bounded() -> None:
    """A key is derived once a day and scope; made-up scopes do not fill the memory."""
    signed = signed_by_aws(plain())
    sigv4._key.cache_clear()
    for _ in range(3):
        signed.check()
    assert (1, 2) == (sigv4._key.cache_info().misses, sigv4._key.cache_info().hits)

    for number in range(400):
        sigv4._key(SECRET, "20261124", f"r{number}", "lambda")
    assert sigv4._key.cache_info().currsize == 256


def test_a_new_secret_of_the_same_key_id_counts_at_once() -> None:
    """A key id that was unknown, or had another secret, is not remembered with it."""
    signed = signed_by_aws(plain())
    refused(signed, "UnrecognizedClientException", secret=sigv4.UNKNOWN_SECRET)
    refused(signed, "InvalidSignatureException", secret="old")

    signed.check()


# Facts from outside


def test_we_sign_as_the_guide_does() -> None:
    """The examples of AWS: get-vanilla of its test suite, and ListUsers of the user guide."""
    now = seconds("20150830T123600Z")
    vanilla = sigv4.sign(
        "GET",
        "https://example.amazonaws.com/",
        {},
        sigv4.EMPTY_SHA256,
        KEY_ID,
        SECRET,
        "us-east-1",
        "service",
        now,
    )
    users = sigv4.sign(
        "GET",
        "https://iam.amazonaws.com/?Version=2010-05-08&Action=ListUsers",
        {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
        sigv4.EMPTY_SHA256,
        KEY_ID,
        SECRET,
        "us-east-1",
        "iam",
        now,
    )

    assert vanilla["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, "
        "Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    )
    assert users["Authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/iam/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    )


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://Example.COM:80/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("https://example.com:80/", "example.com:80"),
        ("http://user:pass@127.0.0.1:9000/", "127.0.0.1:9000"),
        ("http://[::1]:9000/", "[::1]:9000"),
    ],
)
def test_the_host_is_signed_as_clients_send_it(url: str, host: str) -> None:
    """Small letters, no default port, brackets around IPv6."""
    got = sigv4.sign("GET", url, {}, sigv4.EMPTY_SHA256, KEY_ID, SECRET, "r", "s3", 0)

    assert host == got["Host"]


def test_a_plus_in_a_query_is_the_space_that_a_server_reads() -> None:
    """A client that sends "+" for a space signs "%20", and a plus itself is "%2B"."""
    one, other = (
        sigv4.sign("GET", f"http://h/?a={text}", {}, "", KEY_ID, SECRET, "r", "lambda", 0)
        for text in ("x+y", "x%20y")
    )
    third = sigv4.sign("GET", "http://h/?a=x%2By", {}, "", KEY_ID, SECRET, "r", "lambda", 0)

    assert one == other
    assert one != third


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("invoke", {"FunctionName": "hello", "Payload": b'{"a": 1}', "LogType": "Tail"}),
    (
        "invoke",
        {
            "FunctionName": "arn:aws:lambda:us-east-1:123456789012:function:hello:live",
            "InvocationType": "Event",
            "ClientContext": "e30=",
        },
    ),
    ("list_functions", {"Marker": "a b+c/d=é&~*'()", "MaxItems": 5}),
    ("untag_resource", {"Resource": "arn:aws:lambda:r:1:function:f", "TagKeys": ["b", "a", "a b"]}),
    ("get_layer_version_by_arn", {"Arn": "arn:aws:lambda:us-east-1:123456789012:layer:l:1"}),
    ("delete_function", {"FunctionName": "hello", "Qualifier": "$LATEST"}),
]


class Caught(Exception):
    """The request was seen: it need not be sent."""


@pytest.mark.parametrize(("operation", "parameters"), CALLS)
def test_what_a_client_sends_is_taken(operation: str, parameters: dict[str, Any]) -> None:
    """The calls of a real client, as they would go onto the wire."""
    session = Session()
    session.set_credentials(KEY_ID, SECRET)
    client = session.create_client("lambda", "us-east-1", endpoint_url=f"http://{HOST}")
    caught: list[Sent] = []

    def keep(request: Any, **_: Any) -> None:
        parts = urlsplit(request.url)
        headers = [
            (name, value.decode() if isinstance(value, bytes) else str(value))
            for name, value in request.headers.items()
        ]
        body = request.body or b""
        body = body if isinstance(body, bytes) else body.read()
        caught.append(
            Sent(request.method, parts.path, parts.query, (*headers, ("Host", HOST)), body)
        )
        raise Caught

    client.meta.events.register("before-send.lambda", keep)
    with pytest.raises(Caught):
        getattr(client, operation)(**parameters)
    client.close()

    (sent,) = caught
    sent.check()
    refused(sent.replace(path=sent.path + "x"), "InvalidSignatureException")


def test_a_url_that_a_client_presigned_is_taken() -> None:
    """`generate_presigned_url` of the real client, with a life of its own."""
    session = Session()
    session.set_credentials(KEY_ID, SECRET)
    client = session.create_client("lambda", "us-east-1", endpoint_url=f"http://{HOST}")
    url = urlsplit(
        client.generate_presigned_url("get_function", {"FunctionName": "a:b"}, ExpiresIn=60)
    )
    client.close()

    sent = Sent("GET", url.path, url.query, (("host", HOST),))
    sent.check(after=60)
    assert "Signature expired" in refused(sent, "InvalidSignatureException", after=61)
