"""Tests of Signature Version 4: time, headers, and what is no signature, or half of one."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from botocore.auth import SigV4QueryAuth
from hypothesis import assume, given
from hypothesis import strategies as st

from miniλ import sigv4
from miniλ.errors import AccessDenied
from tests.unit.signatures import (
    HOST,
    KEY_ID,
    SECRET,
    Sent,
    plain,
    quick,
    refused,
    seconds,
    signed_by_aws,
)

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
    """An x-amz-* header that is not signed is refused."""
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
    """Headers that proxies and tracing add are not signed, and are allowed."""
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
    """Lone surrogates, as aiohttp decodes such bytes, are checked and break nothing."""
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
    """No Authorization and no X-Amz-Signature: the request has no caller."""
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
    """Authorization may hold a secret: the message does not show it."""
    message = refused(
        plain().replace(headers=(("Authorization", authorization),)),
        "IncompleteSignatureException",
    )

    assert message == "Authorization header must begin with 'AWS4-HMAC-SHA256'."


def test_another_algorithm_of_a_presigned_request_is_refused() -> None:
    """Version 4a signs with keys of another kind, which are not supported."""
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
    """A part twice, or an unknown one, is refused: it is unclear which one counts."""
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
    """Nothing else is raised, for any request."""
    assume(not any("\ud800" <= letter < "\udc80" for letter in query + authorization))
    text = f"AWS4-HMAC-SHA256 {authorization}" if whole else authorization
    sent = Sent("GET", "/", f"X-Amz-Signature={query}", (("Authorization", text),))
    for request in (sent, sent.replace(headers=()), sent.replace(query="")):
        with pytest.raises(AccessDenied):
            request.check()
