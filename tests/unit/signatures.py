"""Requests for tests of Signature Version 4, signed as AWS's own signer does it."""

from __future__ import annotations

import calendar
import hashlib
import time
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from miniλ import sigv4
from miniλ.errors import AccessDenied

KEY_ID = "AKIDEXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "lambda.example:8080"

# No deadline: on a busy machine, slow is no finding.
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
        """Check it `after` seconds after it was signed."""
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
    """Return the message with which a request is refused; its code must be `code`."""
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
    """Return an invocation that is not signed yet."""
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
