"""Tests of Signature Version 4: what AWS's own signer signs is taken, and nothing else is."""

from __future__ import annotations

import calendar
import hashlib
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.session import Session
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from miniλ import sigv4
from miniλ.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "lambda.example:8080"

# On a machine that is busy with other things, slow is no finding.
quick = settings(
    deadline=None,
    database=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Sent(msgspec.Struct, frozen=True):
    """A request as it comes in: nothing of it is decoded."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def sha256(self) -> str:
        """Return the hash of the body that came."""
        return hashlib.sha256(self.body).hexdigest()

    def parse(self) -> sigv4.Claim:
        """Return what it claims."""
        return sigv4.parse(self.query, self.headers)

    def check(self, secret: str = SECRET, after: float = 0.0) -> None:
        """Check it so many seconds after it was signed."""
        claim = self.parse()
        now = seconds(claim.date) + after
        sigv4.check(
            claim, self.method, self.path, self.query, self.headers, secret, self.sha256(), now
        )

    def replace(self, **changes: Any) -> Sent:
        """Return this request with something else in it."""
        return msgspec.structs.replace(self, **changes)

    def header(self, name: str) -> str:
        """Return the value of a header."""
        return next(value for key, value in self.headers if key.lower() == name.lower())

    def with_header(self, name: str, value: str | None) -> Sent:
        """Return this request with another value of a header, or without it."""
        others = tuple(pair for pair in self.headers if pair[0].lower() != name.lower())
        return self.replace(headers=others if value is None else (*others, (name, value)))


def seconds(date: str) -> int:
    """Return seconds since 1970 of a date as it is signed."""
    return calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))


def refused(request: Sent, code: str, *, secret: str = SECRET, after: float = 0.0) -> str:
    """Return the message with which a request is refused; the code is as given."""
    with pytest.raises(AccessDenied) as caught:
        request.check(secret, after)
    assert caught.value.code == code
    assert caught.value.status == 403
    return str(caught.value)


def signed_by_aws(
    request: Sent, signer: type[SigV4Auth] = SigV4Auth, service: str = "lambda", **options: Any
) -> Sent:
    """Return the request as botocore signs it, and as its HTTP client then sends it."""
    token = options.pop("token", None)
    if issubclass(signer, SigV4QueryAuth):
        # It would move a body into the query.
        request = request.replace(body=b"")
    url = f"http://{HOST}{request.path}" + (f"?{request.query}" if request.query else "")
    aws = AWSRequest(method=request.method, url=url, data=request.body)
    for name, value in request.headers:
        aws.headers.add_header(name, value)
    signer(Credentials(KEY_ID, SECRET, token), service, "eu-west-3", **options).add_auth(aws)
    parts = urlsplit(aws.url)
    headers = (("Host", HOST), *((name, str(value)) for name, value in aws.headers.items()))
    return request.replace(path=parts.path, query=parts.query, headers=headers)


def plain(path: str = "/2015-03-31/functions/hello/invocations") -> Sent:
    """Return an invocation that nobody has signed yet."""
    return Sent("POST", path, "Qualifier=live", (("X-Amz-Log-Type", "Tail"),), b'{"a":1}')


# Requests of any kind: paths and queries are encoded as clients do it, or half of it.

letters = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
segments = st.one_of(
    letters.map(lambda text: quote(text, safe="")),
    letters.map(lambda text: quote(text, safe=":,$()!*'+=@;&")),
    st.sampled_from(["", "", ".", "..", "a%20b", "a%2Fb", "%2e%2e", "%c3%a9", "$LATEST", "a~b"]),
    st.just("arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Ahello%3Alive"),
)
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts))
encoded = letters.map(lambda text: quote(text, safe="-_.~"))
names = encoded.filter(lambda name: not name.startswith("X-Amz"))
pairs = st.one_of(
    st.tuples(names, encoded).map("=".join),
    names.filter(bool),
    st.sampled_from(["a=1", "a=2", "a=", "b=1", "A=1", "a.b=%20", "tagKeys=x%2By", "="]),
)
queries = st.lists(pairs, max_size=5).map("&".join)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
spaced = st.lists(values, max_size=3).map("   ".join)
headers = st.lists(
    st.tuples(
        st.sampled_from(["X-Amz-Client-Context", "x-amz-log-type", "X-Amz-Meta-A", "Accept", "b"]),
        spaced,
    ),
    max_size=4,
).map(tuple)
requests = st.builds(
    Sent,
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH"]),
    paths,
    queries,
    headers,
    st.binary(max_size=20),
)
# botocore makes a dictionary of a query before it presigns it: names that repeat are lost there.
requests_to_presign = st.builds(
    Sent, st.just("GET"), paths, st.tuples(names.filter(bool), encoded).map("=".join), headers
)
HEADER_SIGNERS = [(SigV4Auth, "lambda"), (S3SigV4Auth, "s3")]
QUERY_SIGNERS = [(SigV4QueryAuth, "lambda"), (S3SigV4QueryAuth, "s3")]


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
    """Path, query, method, body or a signed header: one letter more, and nobody signed this."""
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
    """Who does not have the secret cannot sign; any text may be one."""
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
    """Who swaps the body cannot say that it was never signed, nor declare the new one's hash."""
    signed = signed_by_aws(plain(), S3SigV4Auth, "s3").replace(body=b"other")

    for declared in (sigv4.UNSIGNED, hashlib.sha256(b"other").hexdigest(), None):
        changed = signed.with_header("X-Amz-Content-Sha256", declared)
        refused(changed, "InvalidSignatureException")


def test_a_claim_without_a_hash_is_not_checked_before_the_body() -> None:
    """Without a declared hash there is nothing to check yet: that is a mistake of the caller."""
    signed = signed_by_aws(plain())
    claim = signed.parse()
    assert claim.payload is None

    with pytest.raises(ValueError, match="after the body was read"):
        sigv4.check(claim, "POST", signed.path, signed.query, signed.headers, SECRET, None, 0)


def test_an_unsigned_body_says_so() -> None:
    """UNSIGNED-PAYLOAD is in the claim: whether to take it is for the caller to say."""
    aws = signed_by_aws(plain().replace(headers=(("X-Amz-Content-Sha256", sigv4.UNSIGNED),)))
    presigned = signed_by_aws(plain(), S3SigV4QueryAuth, "s3")

    for request in (aws, presigned):
        request.replace(body=b"any").check()
        assert sigv4.UNSIGNED == request.parse().payload


def test_a_presigned_request_may_declare_its_body_in_a_signed_header() -> None:
    """Then the hash is that of the header, for S3 too."""
    declared = hashlib.sha256(b"late").hexdigest()
    header = (("X-Amz-Content-Sha256", declared),)
    for signer, service in QUERY_SIGNERS:
        signed = signed_by_aws(plain().replace(headers=header), signer, service)

        signed.replace(body=b"late").check()
        assert declared == signed.parse().payload
        refused(signed.replace(body=b"other"), "InvalidSignatureException")


class UnsignedQueryAuth(SigV4QueryAuth):
    """A signer that leaves out the body, as the JavaScript SDK's does on request."""

    def payload(self, _request: AWSRequest) -> str:
        """Return what stands for the body."""
        return sigv4.UNSIGNED


def test_a_presigned_request_may_declare_its_body_in_the_query() -> None:
    """X-Amz-Content-Sha256 is signed there as every parameter is."""
    asked = plain().replace(query=f"X-Amz-Content-Sha256={sigv4.UNSIGNED}")
    signed = signed_by_aws(asked, UnsignedQueryAuth)

    signed.replace(body=b"any").check()
    assert sigv4.UNSIGNED == signed.parse().payload


@pytest.mark.parametrize(
    "declared",
    [
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
        "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
    ],
)
def test_a_body_in_signed_chunks_is_refused(declared: str) -> None:
    """We read no chunk signatures: the message says so, and what to send."""
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


# Time


@pytest.mark.parametrize("after", [-300, -1, 0, 299, 300.9])
def test_clocks_may_differ_by_five_minutes(after: float) -> None:
    """To the second, to both sides."""
    signed_by_aws(plain()).check(after=after)


def test_an_old_signature_is_refused_in_aws_words() -> None:
    """The message has three times: the signature's, the oldest that is taken, and ours."""
    claim = sigv4.Claim(
        key_id="A",
        date="20261124T120000Z",
        region="r",
        service="lambda",
        signed_headers=("host",),
        signature="",
    )

    def message(now: str) -> str:
        with pytest.raises(AccessDenied) as caught:
            sigv4.check(claim, "GET", "/", "", [], SECRET, sigv4.EMPTY_SHA256, seconds(now))
        assert caught.value.code == "InvalidSignatureException"
        return str(caught.value)

    assert message("20261124T121000Z") == (
        "Signature expired: 20261124T120000Z is now earlier than 20261124T120500Z "
        "(20261124T121000Z - 5 min.)"
    )
    assert message("20261124T115459Z") == (
        "Signature not yet current: 20261124T120000Z is still later than 20261124T115959Z "
        "(20261124T115459Z + 5 min.)"
    )


def test_a_presigned_url_is_not_good_before_its_time() -> None:
    """A long life of a URL does not begin earlier."""
    signed = signed_by_aws(plain(), SigV4QueryAuth, expires=86_400)
    signed.check(after=-300)

    assert "not yet current" in refused(signed, "InvalidSignatureException", after=-301)


@pytest.mark.parametrize("expires", ["604801", "0", "-1", "x", "1e3", "²", "9" * 5000, "", "60 "])
def test_a_presigned_url_lives_a_week_at_most(expires: str) -> None:
    """X-Amz-Expires is a number of seconds, up to seven days."""
    signed = signed_by_aws(plain(), SigV4QueryAuth, expires=expires)

    assert "X-Amz-Expires" in refused(signed, "IncompleteSignatureException")


@pytest.mark.parametrize(
    "date",
    [
        "20261324T120000Z",
        "20261124T250000Z",
        "20261124",
        "00000101T000000Z",
        "2026-11-24",
        "²" * 16,
    ],
)
def test_a_date_is_one_of_the_calendar(date: str) -> None:
    """A date that is none is refused in AWS's words, wherever it stands."""
    in_header = signed_by_aws(plain()).with_header("X-Amz-Date", date)
    presigned = signed_by_aws(plain(), SigV4QueryAuth)
    own = f"X-Amz-Date={presigned.parse().date}"
    in_query = presigned.replace(query=presigned.query.replace(own, f"X-Amz-Date={quote(date)}"))

    for request in (in_header, in_query):
        assert refused(request, "IncompleteSignatureException") == (
            f"Date must be in ISO-8601 'basic format', as 20261124T120000Z. Got '{date}'."
        )


# Headers


def test_a_header_that_was_added_on_the_way_is_refused() -> None:
    """An x-amz-* header that nobody signed does not count, and does not pass."""
    signed = signed_by_aws(plain())
    changed = signed.replace(headers=(*signed.headers, ("X-Amz-Invocation-Type", "Event")))

    assert refused(changed, "InvalidSignatureException") == (
        "'x-amz-invocation-type' must be a 'SignedHeader' in the AWS Authorization."
    )


def test_one_more_of_a_signed_header_is_refused() -> None:
    """Values of the same name are signed together, in their order."""
    signed = signed_by_aws(plain())
    more = signed.replace(headers=(*signed.headers, ("x-amz-log-type", "None")))

    assert sigv4.MISMATCH == refused(more, "InvalidSignatureException")


@pytest.mark.parametrize("name", ["X-Amzn-Trace-Id", "User-Agent", "Via"])
def test_headers_of_the_way_may_be_added(name: str) -> None:
    """What proxies and tracing add is signed by nobody, and hurts nobody."""
    signed = signed_by_aws(plain())

    signed.replace(headers=(*signed.headers, (name, "x"))).check()


def test_the_order_and_the_case_of_header_names_do_not_matter() -> None:
    """Proxies reorder headers and write their names as they like."""
    signed = signed_by_aws(plain())

    signed.replace(headers=tuple((n.upper(), v) for n, v in reversed(signed.headers))).check()


@pytest.mark.parametrize("name", ["host", "x-amz-date"])
def test_host_and_date_must_be_signed(name: str) -> None:
    """A signature that would hold for every host or every day is none."""
    signed = signed_by_aws(plain())
    authorization = signed.header("Authorization").replace(f"{name};", "").replace(f";{name}", "")
    changed = signed.with_header("Authorization", authorization)
    assert name not in changed.parse().signed_headers

    assert refused(changed, "InvalidSignatureException") == (
        f"'{name}' must be a 'SignedHeader' in the AWS Authorization."
    )


def test_a_presigned_url_must_sign_its_host() -> None:
    """The query has its date and is signed whole; the host is a header."""
    signed = signed_by_aws(plain(), SigV4QueryAuth)
    changed = signed.replace(query=signed.query.replace("SignedHeaders=host%3B", "SignedHeaders="))

    assert "'host' must be a" in refused(changed, "InvalidSignatureException")


def test_a_signed_header_must_be_there() -> None:
    """A proxy that takes a signed header away is named by the header."""
    signed = signed_by_aws(plain())

    assert refused(signed.with_header("X-Amz-Log-Type", None), "InvalidSignatureException") == (
        "The signed header 'x-amz-log-type' is not in the request."
    )


def test_bytes_that_are_no_utf_8_are_signed_as_they_are() -> None:
    """What aiohttp gives as lone surrogates is checked, and breaks nothing."""
    headers = {"X-Amz-Meta": "caf\udce9"}
    added = sigv4.sign(
        "GET", f"http://{HOST}/a", headers, sigv4.EMPTY_SHA256, KEY_ID, SECRET, "r", "lambda", 0
    )
    signed = Sent("GET", "/a", "", (*headers.items(), *added.items()))

    signed.check()
    assert sigv4.MISMATCH == refused(
        signed.with_header("X-Amz-Meta", "caf\udce8"), "InvalidSignatureException"
    )


# What is no signature, or half of one


def test_a_request_without_a_signature_is_refused_in_aws_words() -> None:
    """No Authorization and no X-Amz-Signature: nobody says who asks."""
    assert refused(plain(), "MissingAuthenticationTokenException") == "Missing Authentication Token"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer secret-of-another-scheme",
        "secret-of-another-scheme",
        "AWS4-ECDSA-P256-SHA256 Credential=secret-of-another-scheme",
        "AWS AKIDEXAMPLE:secret-of-another-scheme",
    ],
)
def test_another_scheme_is_refused_and_not_repeated(authorization: str) -> None:
    """What stands in Authorization may be a secret: the message does not show it."""
    message = refused(
        plain().replace(headers=(("Authorization", authorization),)),
        "IncompleteSignatureException",
    )

    assert message == "Authorization header must begin with 'AWS4-HMAC-SHA256'."


def test_another_algorithm_of_a_presigned_request_is_refused() -> None:
    """Version 4a signs with other keys: we have none."""
    signed = signed_by_aws(plain(), SigV4QueryAuth)
    changed = signed.replace(query=signed.query.replace("AWS4-HMAC", "AWS4-ECDSA-P256"))

    assert refused(changed, "IncompleteSignatureException") == (
        "X-Amz-Algorithm must be 'AWS4-HMAC-SHA256', got 'AWS4-ECDSA-P256-SHA256'."
    )


@pytest.mark.parametrize("name", ["Credential", "SignedHeaders", "Signature"])
@pytest.mark.parametrize("value", [None, ""])
def test_each_part_of_authorization_must_be_there(name: str, value: str | None) -> None:
    """The message names what is missing, as AWS's does."""
    signed = signed_by_aws(plain())
    algorithm, _, rest = signed.header("Authorization").partition(" ")
    parts = dict(part.split("=", 1) for part in rest.split(", "))
    parts.pop(name)
    if value is not None:
        parts[name] = value
    text = ", ".join(f"{name}={value}" for name, value in parts.items())

    assert refused(
        signed.with_header("Authorization", f"{algorithm} {text}"), "IncompleteSignatureException"
    ) == (f"Authorization header requires '{name}' parameter.")


def test_the_parts_of_authorization_come_in_any_order_and_spacing() -> None:
    """Clients write them with and without spaces."""
    signed = signed_by_aws(plain())
    algorithm, _, rest = signed.header("Authorization").partition(" ")
    text = ",".join(reversed(rest.split(", ")))

    signed.with_header("Authorization", f"{algorithm}  {text}").check()


@pytest.mark.parametrize("more", [", Signature=0", ", x=1", ",", ", AWS4-HMAC-SHA256 Signature=0"])
def test_nothing_else_is_in_authorization(more: str) -> None:
    """A part twice, or one that nobody knows, leaves open which one counts."""
    signed = signed_by_aws(plain())
    changed = signed.with_header("Authorization", signed.header("Authorization") + more)

    assert "once, and nothing else" in refused(changed, "IncompleteSignatureException")


def test_two_authorization_headers_are_refused() -> None:
    """The same header twice is not the first of them."""
    signed = signed_by_aws(plain())
    twice = signed.replace(
        headers=(*signed.headers, ("authorization", signed.header("Authorization")))
    )

    assert "once, and nothing else" in refused(twice, "IncompleteSignatureException")


def test_a_date_header_must_be_there() -> None:
    """X-Amz-Date is needed: Date alone may be rewritten by proxies."""
    changed = signed_by_aws(plain()).with_header("X-Amz-Date", None)

    assert refused(changed, "IncompleteSignatureException") == (
        "Authorization header requires existence of a 'X-Amz-Date' header."
    )


@pytest.mark.parametrize(
    "name", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"]
)
def test_each_part_of_a_presigned_query_must_be_there_once(name: str) -> None:
    """The message names the parameter that is missing, or that is there twice."""
    signed = signed_by_aws(plain(), SigV4QueryAuth)
    parts = signed.query.split("&")
    own = next(part for part in parts if part.startswith(f"X-Amz-{name}="))

    without = signed.replace(query="&".join(part for part in parts if part != own))
    assert refused(without, "IncompleteSignatureException") == (
        f"AWS query-string parameters must include 'X-Amz-{name}'. "
        "Re-examine the query-string parameters."
    )
    twice = signed.replace(query=f"{signed.query}&{own}")
    assert refused(twice, "IncompleteSignatureException") == (
        f"AWS query-string parameters must include 'X-Amz-{name}' once."
    )


def test_a_request_is_signed_in_one_way() -> None:
    """In the header and in the query, it is not clear which one counts."""
    signed = signed_by_aws(plain())
    both = signed.replace(query=f"{signed.query}&X-Amz-Signature=0")

    assert "Only one auth mechanism allowed" in refused(both, "IncompleteSignatureException")


@pytest.mark.parametrize(
    ("credential", "code", "message"),
    [
        ("A/B", "IncompleteSignatureException", "exactly 5 slash-delimited elements"),
        ("A//r/s/aws4_request", "IncompleteSignatureException", "got 'A//r/s/aws4_request'"),
        ("A/1/r/s/aws4_request/x", "IncompleteSignatureException", "exactly 5 slash-delimited"),
        ("A/20000101/r/s/aws4", "InvalidSignatureException", "'aws4_request', not 'aws4'"),
        ("A/20000101/r/s/aws4_request", "InvalidSignatureException", "does not match YYYYMMDD"),
        ("\udcff", "IncompleteSignatureException", r"got '\udcff'"),
    ],
)
def test_a_credential_is_a_key_id_and_a_scope(credential: str, code: str, message: str) -> None:
    """Five elements, and the day is the day of the date; messages can always be printed."""
    signed = signed_by_aws(plain())
    own = f"{KEY_ID}/{signed.parse().scope}"
    changed = signed.with_header(
        "Authorization", signed.header("Authorization").replace(own, credential)
    )

    got = refused(changed, code)
    assert message in got
    assert got.encode()


@quick
@given(query=st.text(max_size=60), authorization=st.text(max_size=80), whole=st.booleans())
def test_any_text_is_a_claim_or_access_denied(
    query: str, authorization: str, *, whole: bool
) -> None:
    """Nothing else is raised, whatever is sent."""
    assume(not any("\ud800" <= letter < "\udc80" for letter in query + authorization))
    text = f"AWS4-HMAC-SHA256 {authorization}" if whole else authorization
    sent = Sent("GET", "/", f"X-Amz-Signature={query}", (("Authorization", text),))
    for request in (sent, sent.replace(headers=()), sent.replace(query="")):
        with pytest.raises(AccessDenied):
            request.check()


# Keys


def test_an_unknown_key_id_is_refused_after_the_same_work() -> None:
    """With UNKNOWN_SECRET the signature is calculated, and the answer is AWS's for no such key."""
    signed = signed_by_aws(plain())
    sigv4._key.cache_clear()

    message = refused(signed, "UnrecognizedClientException", secret=sigv4.UNKNOWN_SECRET)

    assert message == "The security token included in the request is invalid."
    assert sigv4._key.cache_info().misses == 1


def test_derived_keys_are_kept_and_bounded() -> None:
    """A key is derived once a day and scope; who makes up scopes does not fill the memory."""
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
    """Who sends "+" for a space signs "%20", and a plus itself is "%2B"."""
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
