"""This module is AWS Signature Version 4, both ways: requests are signed, and signatures checked.

Rule 1: no I/O in this file, and no clock: the caller says what time it is.

Rule 2: `parse` only reads what a request claims. Nothing of it is true before `check` returns.

Theory of operation: both sides write the same text of a request (the canonical request), and
sign its hash, the time and the scope (day, region, service) with a key derived from the secret:

    check headers (`parse`, `check`) -> read the body, counting its sha256 -> `check_body`

A body is part of the text by its sha256. Where the request declares it, the signature can be
checked before the body is read; where it does not, `check` has to come after the body.

What is left to the caller: that the scope's region and service are its own (they choose how the
path is read), and whether it takes a body that nobody signed (`payload` is UNSIGNED).

Source: IAM user guide, "Create a signed AWS API request"; the tests hold it against botocore.
"""

from __future__ import annotations

import calendar
import functools
import hashlib
import hmac
import re
import secrets
import time
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, unquote_to_bytes, urlsplit

import msgspec

from miniλ.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
# What stands for the hash of a body that is not signed.
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
# For a key id that nobody has: with it `check` does the same work, and then says so.
UNKNOWN_SECRET = secrets.token_hex(20)
# How far a client's clock may be from ours, in seconds; and the life of a presigned URL.
SKEW = 5 * 60
MAX_EXPIRES = 7 * 24 * 60 * 60

MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)

# The parts of a signature, by the names they have in a query after "X-Amz-".
_IN_HEADER = ("Credential", "Signature", "SignedHeaders")
_IN_QUERY = ("Algorithm", "Credential", "Date", "Expires", "Signature", "SignedHeaders")
_MAY_BE = ("Content-Sha256", "Security-Token")
# Any one of these makes a request a presigned one, if perhaps an incomplete one.
_PRESIGNED = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"}

_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPIRES = re.compile(r"[0-9]{1,6}")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says about its signature. The names are those of the credential's scope."""

    key_id: str
    # As it is signed: 20261124T120000Z.
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    # The body's sha256 in hex, UNSIGNED, or None: then it must be computed from the body.
    payload: str | None = None
    # Seconds from `date` on that a presigned URL holds.
    expires: int | None = None
    # The session token of temporary credentials.
    token: str | None = None

    @property
    def scope(self) -> str:
        """Where and when the derived key holds: day/region/service/aws4_request."""
        return "/".join((self.date[:8], self.region, self.service, TERMINATOR))


def parse(raw_query: str, headers: Iterable[tuple[str, str]]) -> Claim:
    """Return what a request claims; `raw_query` and `headers` are as they came, none left out.

    Raises `AccessDenied` with AWS's codes for no signature and for one that is not whole.
    """
    values = _joined(headers)
    pairs = _pairs(raw_query)
    presigned = any(name in _PRESIGNED for name, _ in pairs)
    if "authorization" in values:
        if presigned:
            raise _incomplete(
                "Only one auth mechanism allowed: the X-Amz-Algorithm query parameter or the "
                "Authorization header."
            )
        return _of_header(values)
    if presigned:
        return _of_query(pairs, values)
    raise AccessDenied("Missing Authentication Token", "MissingAuthenticationTokenException")


def check(
    claim: Claim,
    method: str,
    raw_path: str,
    raw_query: str,
    headers: Iterable[tuple[str, str]],
    secret: str,
    body_sha256: str | None,
    now: float,
) -> None:
    """Return if the claim is true for this request and secret, else raise `AccessDenied`.

    `raw_path`, `raw_query` and `headers` are as they came; `now` is in seconds since 1970.
    `body_sha256` may be None where the claim has a `payload`: then whoever reads the body calls
    `check_body` at its end. For an unknown key id the secret is UNKNOWN_SECRET.
    """
    if claim.payload is None and body_sha256 is None:
        msg = "the claim declares no hash of the body: check it after the body was read"
        raise ValueError(msg)
    _check_time(claim, int(now))
    values = _joined(headers)
    _check_headers(claim, values)
    payload = claim.payload or body_sha256 or ""
    own = _signature(claim, method, raw_path, raw_query, values, secret, payload)
    same = hmac.compare_digest(own.encode(), _bytes(claim.signature))
    if secret == UNKNOWN_SECRET:
        raise AccessDenied(
            "The security token included in the request is invalid.",
            "UnrecognizedClientException",
        )
    if not same:
        raise _invalid(MISMATCH)
    if body_sha256 is not None:
        check_body(claim, body_sha256)


def check_body(claim: Claim, body_sha256: str) -> None:
    """Raise `AccessDenied` if this is not the hash of the body that the claim declares."""
    if claim.payload in {None, UNSIGNED}:
        return
    if not hmac.compare_digest(_bytes(body_sha256), _bytes(claim.payload or "")):
        raise _invalid(MISMATCH)


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body_sha256: str,
    key_id: str,
    secret: str,
    region: str,
    service: str,
    now: float,
    token: str | None = None,
) -> dict[str, str]:
    """Return the headers to send with a request beside its own: Authorization, Host, X-Amz-*.

    `url` is encoded as it will be sent. All of `headers` are signed: leave out those that may
    change on the way, such as User-Agent. `now` is in seconds since 1970.
    """
    parts = urlsplit(url)
    added = {"Host": _host(parts), "X-Amz-Date": _stamp(int(now))}
    if service == "s3":
        added["X-Amz-Content-Sha256"] = body_sha256
    if token is not None:
        added["X-Amz-Security-Token"] = token
    values = _joined(headers.items()) | _joined(added.items())
    claim = Claim(
        key_id=key_id,
        date=added["X-Amz-Date"],
        region=region,
        service=service,
        signed_headers=tuple(sorted(values)),
        signature="",
    )
    signature = _signature(claim, method, parts.path, parts.query, values, secret, body_sha256)
    added["Authorization"] = (
        f"{ALGORITHM} Credential={key_id}/{claim.scope}, "
        f"SignedHeaders={';'.join(claim.signed_headers)}, Signature={signature}"
    )
    return added


# What a request claims


def _of_header(values: dict[str, str]) -> Claim:
    algorithm, _, rest = values["authorization"].partition(" ")
    if algorithm != ALGORITHM:
        # It is not shown: it may be a secret of another scheme.
        raise _incomplete(f"Authorization header must begin with '{ALGORITHM}'.")
    given: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _IN_HEADER or name in given:
            raise _incomplete(
                f"Authorization header takes each of {', '.join(_IN_HEADER)} once, "
                f"and nothing else: {name[:100]!r}."
            )
        given[name] = value
    wrong = [
        f"Authorization header requires '{name}' parameter."
        for name in _IN_HEADER
        if not given.get(name)
    ]
    if "x-amz-date" not in values:
        wrong.append("Authorization header requires existence of a 'X-Amz-Date' header.")
    if wrong:
        raise _incomplete(" ".join(wrong))
    for name in ("Date", *_MAY_BE):
        if (header := values.get(f"x-amz-{name.lower()}")) is not None:
            given[name] = header
    return _claim(given)


def _of_query(pairs: list[tuple[str, str]], values: dict[str, str]) -> Claim:
    given: dict[str, str] = {}
    for full_name, value in pairs:
        name = full_name.removeprefix("X-Amz-")
        if name != full_name and (name in _IN_QUERY or name in _MAY_BE):
            if name in given:
                raise _incomplete(f"AWS query-string parameters must include '{full_name}' once.")
            given[name] = unquote(value, errors="surrogateescape")
    missing = [name for name in _IN_QUERY if not given.get(name)]
    if missing:
        words = [f"AWS query-string parameters must include 'X-Amz-{name}'." for name in missing]
        raise _incomplete(" ".join((*words, "Re-examine the query-string parameters.")))
    if given["Algorithm"] != ALGORITHM:
        algorithm = given["Algorithm"][:100]
        raise _incomplete(f"X-Amz-Algorithm must be '{ALGORITHM}', got {algorithm!r}.")
    expires = given["Expires"]
    if not _EXPIRES.fullmatch(expires) or not 1 <= int(expires) <= MAX_EXPIRES:
        raise _incomplete(
            f"X-Amz-Expires must be 1 to {MAX_EXPIRES} seconds (a week), got {expires[:100]!r}."
        )
    if (declared := values.get("x-amz-content-sha256")) is not None:
        given.setdefault("Content-Sha256", declared)
    claim = _claim(given)
    if claim.service == "s3" and claim.payload is None:
        # Who makes a URL for S3 does not know the body yet.
        return msgspec.structs.replace(claim, payload=UNSIGNED)
    return claim


def _claim(given: dict[str, str]) -> Claim:
    elements = given["Credential"].split("/")
    if len(elements) != 5 or not all(elements):  # noqa: PLR2004 - the message names them
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. "
            f"keyid/date/region/service/term, got {given['Credential'][:200]!r}."
        )
    key_id, day, region, service, terminator = elements
    if terminator != TERMINATOR:
        raise _invalid(
            "Credential should be scoped with a valid terminator: "
            f"'{TERMINATOR}', not {terminator[:100]!r}."
        )
    date = given["Date"]
    _seconds(date)
    if day != date[:8]:
        raise _invalid(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
            f"HTTP: {day[:100]!r} != '{date[:8]}', from '{date}'."
        )
    payload = given.get("Content-Sha256")
    if payload is not None and payload != UNSIGNED and not _SHA256.fullmatch(payload):
        chunks = "a body of signed chunks, or with a trailer, is not taken: "
        raise _incomplete(
            f"{chunks if payload.startswith('STREAMING-') else ''}x-amz-content-sha256 must be "
            f"{UNSIGNED} or a valid sha256 value, got {payload[:100]!r}."
        )
    return Claim(
        key_id=key_id,
        date=date,
        region=region,
        service=service,
        signed_headers=tuple(sorted({name.lower() for name in given["SignedHeaders"].split(";")})),
        signature=given["Signature"],
        payload=payload,
        expires=int(given["Expires"]) if "Expires" in given else None,
        token=given.get("Security-Token"),
    )


# Whether it is true


def _check_time(claim: Claim, now: int) -> None:
    signed = _seconds(claim.date)
    life, words = SKEW, "5 min."
    if claim.expires is not None:
        life, words = claim.expires, f"{claim.expires} sec."
    if signed < now - life:
        raise _invalid(
            f"Signature expired: {claim.date} is now earlier than {_stamp(now - life)} "
            f"({_stamp(now)} - {words})"
        )
    if signed > now + SKEW:
        raise _invalid(
            f"Signature not yet current: {claim.date} is still later than {_stamp(now + SKEW)} "
            f"({_stamp(now)} + 5 min.)"
        )


def _check_headers(claim: Claim, values: dict[str, str]) -> None:
    # A header that means something to AWS and that is not signed was perhaps added on the way.
    must = ["host", *(name for name in values if name.startswith("x-amz-"))]
    for name in must:
        if name not in claim.signed_headers:
            raise _invalid(f"{name[:100]!r} must be a 'SignedHeader' in the AWS Authorization.")
    for name in claim.signed_headers:
        if name not in values:
            raise _invalid(f"The signed header {name[:100]!r} is not in the request.")


# The text that is signed


def _signature(
    claim: Claim,
    method: str,
    raw_path: str,
    raw_query: str,
    values: dict[str, str],
    secret: str,
    payload: str,
) -> str:
    pairs = sorted(pair for pair in _pairs(raw_query) if pair[0] != "X-Amz-Signature")
    canonical = "\n".join(
        (
            method.upper(),
            _path(raw_path, claim.service),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{values[name]}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            payload,
        )
    )
    hashed = hashlib.sha256(_bytes(canonical)).hexdigest()
    text = f"{ALGORITHM}\n{claim.date}\n{claim.scope}\n{hashed}"
    key = _key(secret, claim.date[:8], claim.region, claim.service)
    return hmac.digest(key, _bytes(text), "sha256").hex()


# By secret, not by key id: an id that gets another secret must not be found under the old one.
@functools.lru_cache(maxsize=256)
def _key(secret: str, *scope: str) -> bytes:
    key = _bytes("AWS4" + secret)
    for part in (*scope, TERMINATOR):
        key = hmac.digest(key, _bytes(part), "sha256")
    return key


def _path(raw: str, service: str) -> str:
    # S3 takes the path as it was sent: a key may have any slashes and dots.
    if service == "s3":
        return raw or "/"
    kept: list[str] = []
    for segment in raw.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    path = "/" + "/".join(kept) + ("/" if kept and raw.endswith("/") else "")
    # What was encoded to be sent is encoded once more to be signed.
    return quote(_bytes(path), safe="/")


def _pairs(raw_query: str) -> list[tuple[str, str]]:
    # Decoded as a server reads them ("+" is a space), then encoded in the one way that is signed.
    if not raw_query:
        return []
    parts = (pair.partition("=") for pair in raw_query.split("&"))
    return [(_encoded(name), _encoded(value)) for name, _, value in parts]


def _encoded(text: str) -> str:
    return quote(unquote_to_bytes(_bytes(text.replace("+", " "))), safe="")


def _joined(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name.lower(), []).append(" ".join(value.split()))
    return {name: ",".join(several) for name, several in values.items()}


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return host if parts.port in {None, usual} else f"{host}:{parts.port}"


def _bytes(text: str) -> bytes:
    # aiohttp decodes headers like this: bytes that are no UTF-8 come out as they came in.
    return text.encode("utf-8", "surrogateescape")


def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _seconds(date: str) -> int:
    try:
        if _DATE.fullmatch(date):
            return calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        pass  # the form of a date, and none of the calendar
    raise _incomplete(
        f"Date must be in ISO-8601 'basic format', as 20261124T120000Z. Got {date[:100]!r}."
    )


def _incomplete(message: str) -> AccessDenied:
    return AccessDenied(message, "IncompleteSignatureException")


def _invalid(message: str) -> AccessDenied:
    return AccessDenied(message, "InvalidSignatureException")
