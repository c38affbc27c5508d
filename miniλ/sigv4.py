"""AWS Signature Version 4, both ways: requests are signed, and signatures are checked.

Rule 1: no I/O in this file, and no clock: the caller passes the time.

Rule 2: `parse` reads what a request claims. Nothing of it is proven before `check` returns.

Theory of operation: both sides write the same text of a request (the canonical request), and
sign its hash, the time and the scope (day, region, service) with a key derived from the secret:

    check headers (`parse`, `check`) -> read the body, counting its sha256 -> `check_body`

A body is part of the text by its sha256. If the request declares it, the signature can be checked
before the body is read; if not, `check` has to come after the body.

Left to the caller: whether the scope's region and service are its own (they choose how the path is
read), and whether it takes a body that is not signed (`payload_sha256` is UNSIGNED).

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
# Stands in place of the hash of a body that is not signed.
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
# The secret for an unknown key id: `check` does the same work with it, and then refuses.
UNKNOWN_SECRET = secrets.token_hex(20)
# Seconds that a client's clock may be off; and the longest life of a presigned URL.
SKEW = 5 * 60
MAX_EXPIRES = 7 * 24 * 60 * 60

MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your "
    "AWS Secret Access Key and signing method. Consult the service documentation for details."
)

# The parts of a signature, by their names in a query after "X-Amz-".
_IN_HEADER = ("Credential", "Signature", "SignedHeaders")
_IN_QUERY = ("Algorithm", "Credential", "Date", "Expires", "Signature", "SignedHeaders")
_MAY_BE = ("Content-Sha256", "Security-Token")
# A request with any one of these counts as presigned, whether or not it is complete.
_PRESIGNED = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"}

_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_EXPIRES = re.compile(r"[0-9]{1,6}")


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says about its signature; not proven before `check` returns.

    Region and service are named as in the credential's scope.
    """

    key_id: str
    # In the form that is signed: 20261124T120000Z.
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    # The body's sha256 in hex, UNSIGNED, or None: then it must be computed from the body.
    payload_sha256: str | None = None
    # Seconds that a presigned URL is valid, from `date` on.
    expires: int | None = None
    # The session token of temporary credentials.
    token: str | None = None

    @property
    def scope(self) -> str:
        """The scope of the derived key: day/region/service/aws4_request."""
        return "/".join((self.date[:8], self.region, self.service, TERMINATOR))


def parse(raw_query: str, headers: Iterable[tuple[str, str]]) -> Claim:
    """Return what a request claims; `raw_query` and all `headers` are as they came.

    Raises `AccessDenied` with AWS's codes for no signature and for an incomplete one.
    """
    values = _join(headers)
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
    `body_sha256` may be None if the claim has a `payload_sha256`: the caller then calls
    `check_body` when it has read the body. For an unknown key id the secret is UNKNOWN_SECRET.
    """
    if claim.payload_sha256 is None and body_sha256 is None:
        msg = "the claim declares no hash of the body: check it after the body was read"
        raise ValueError(msg)
    _check_time(claim, int(now))
    values = _join(headers)
    _check_headers(claim, values)
    payload_sha256 = claim.payload_sha256 or body_sha256 or ""
    own = _signature(claim, method, raw_path, raw_query, values, secret, payload_sha256)
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
    if claim.payload_sha256 in {None, UNSIGNED}:
        return
    if not hmac.compare_digest(_bytes(body_sha256), _bytes(claim.payload_sha256 or "")):
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
    """Return the headers to add to a request: Authorization, Host and X-Amz-*.

    `url` is encoded as it will be sent. All of `headers` are signed: leave out headers that may
    change on the way, such as User-Agent. `now` is in seconds since 1970.
    """
    parts = urlsplit(url)
    added = {"Host": _host(parts), "X-Amz-Date": _stamp(int(now))}
    if service == "s3":
        added["X-Amz-Content-Sha256"] = body_sha256
    if token is not None:
        added["X-Amz-Security-Token"] = token
    values = _join(headers.items()) | _join(added.items())
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
        # The message does not show it: it may be a secret of another scheme.
        raise _incomplete(f"Authorization header must begin with '{ALGORITHM}'.")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        if name not in _IN_HEADER or name in parts:
            raise _incomplete(
                f"Authorization header takes each of {', '.join(_IN_HEADER)} once, "
                f"and nothing else: {name[:100]!r}."
            )
        parts[name] = value
    wrong = [
        f"Authorization header requires '{name}' parameter."
        for name in _IN_HEADER
        if not parts.get(name)
    ]
    if "x-amz-date" not in values:
        wrong.append("Authorization header requires existence of a 'X-Amz-Date' header.")
    if wrong:
        raise _incomplete(" ".join(wrong))
    for name in ("Date", *_MAY_BE):
        if (header := values.get(f"x-amz-{name.lower()}")) is not None:
            parts[name] = header
    return _claim(parts)


def _of_query(pairs: list[tuple[str, str]], values: dict[str, str]) -> Claim:
    parts: dict[str, str] = {}
    for full_name, value in pairs:
        name = full_name.removeprefix("X-Amz-")
        if name != full_name and (name in _IN_QUERY or name in _MAY_BE):
            if name in parts:
                raise _incomplete(f"AWS query-string parameters must include '{full_name}' once.")
            parts[name] = unquote(value, errors="surrogateescape")
    missing = [name for name in _IN_QUERY if not parts.get(name)]
    if missing:
        words = [f"AWS query-string parameters must include 'X-Amz-{name}'." for name in missing]
        raise _incomplete(" ".join((*words, "Re-examine the query-string parameters.")))
    if parts["Algorithm"] != ALGORITHM:
        algorithm = parts["Algorithm"][:100]
        raise _incomplete(f"X-Amz-Algorithm must be '{ALGORITHM}', got {algorithm!r}.")
    expires = parts["Expires"]
    if not _EXPIRES.fullmatch(expires) or not 1 <= int(expires) <= MAX_EXPIRES:
        raise _incomplete(
            f"X-Amz-Expires must be 1 to {MAX_EXPIRES} seconds (a week), got {expires[:100]!r}."
        )
    if (declared := values.get("x-amz-content-sha256")) is not None:
        parts.setdefault("Content-Sha256", declared)
    claim = _claim(parts)
    if claim.service == "s3" and claim.payload_sha256 is None:
        # A URL for S3 is signed before its body is known.
        return msgspec.structs.replace(claim, payload_sha256=UNSIGNED)
    return claim


def _claim(parts: dict[str, str]) -> Claim:
    elements = parts["Credential"].split("/")
    if len(elements) != 5 or not all(elements):  # noqa: PLR2004 - the message names them
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. "
            f"keyid/date/region/service/term, got {parts['Credential'][:200]!r}."
        )
    key_id, day, region, service, terminator = elements
    if terminator != TERMINATOR:
        raise _invalid(
            "Credential should be scoped with a valid terminator: "
            f"'{TERMINATOR}', not {terminator[:100]!r}."
        )
    date = parts["Date"]
    _seconds(date)
    if day != date[:8]:
        raise _invalid(
            "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
            f"HTTP: {day[:100]!r} != '{date[:8]}', from '{date}'."
        )
    declared = parts.get("Content-Sha256")
    if declared is not None and declared != UNSIGNED and not _SHA256.fullmatch(declared):
        chunks = "a body of signed chunks, or with a trailer, is not taken: "
        raise _incomplete(
            f"{chunks if declared.startswith('STREAMING-') else ''}x-amz-content-sha256 must be "
            f"{UNSIGNED} or a valid sha256 value, got {declared[:100]!r}."
        )
    return Claim(
        key_id=key_id,
        date=date,
        region=region,
        service=service,
        signed_headers=tuple(sorted({name.lower() for name in parts["SignedHeaders"].split(";")})),
        signature=parts["Signature"],
        payload_sha256=declared,
        expires=int(parts["Expires"]) if "Expires" in parts else None,
        token=parts.get("Security-Token"),
    )


# Whether the claim is true


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
    # An x-amz-* header that is not signed may have been added on the way.
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
    payload_sha256: str,
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
            payload_sha256,
        )
    )
    hashed = hashlib.sha256(_bytes(canonical)).hexdigest()
    text = f"{ALGORITHM}\n{claim.date}\n{claim.scope}\n{hashed}"
    key = _key(secret, claim.date[:8], claim.region, claim.service)
    return hmac.digest(key, _bytes(text), "sha256").hex()


# Cached by secret, not by key id: a key id may get another secret.
@functools.lru_cache(maxsize=256)
def _key(secret: str, *scope: str) -> bytes:
    key = _bytes("AWS4" + secret)
    for part in (*scope, TERMINATOR):
        key = hmac.digest(key, _bytes(part), "sha256")
    return key


def _path(raw: str, service: str) -> str:
    # S3 signs the path as it was sent: a key may have any slashes and dots.
    if service == "s3":
        return raw or "/"
    kept: list[str] = []
    for segment in raw.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in {"", "."}:
            kept.append(segment)
    path = "/" + "/".join(kept) + ("/" if kept and raw.endswith("/") else "")
    # The path is encoded once to be sent, and once more to be signed.
    return quote(_bytes(path), safe="/")


def _pairs(raw_query: str) -> list[tuple[str, str]]:
    # Decoded as a server decodes them ("+" is a space), then encoded as they are signed.
    if not raw_query:
        return []
    parts = (pair.partition("=") for pair in raw_query.split("&"))
    return [(_encode(name), _encode(value)) for name, _, value in parts]


def _encode(text: str) -> str:
    return quote(unquote_to_bytes(_bytes(text.replace("+", " "))), safe="")


def _join(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
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
    # aiohttp decodes headers with surrogateescape: bytes that are no UTF-8 come out as they came.
    return text.encode("utf-8", "surrogateescape")


def _stamp(seconds: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))


def _seconds(date: str) -> int:
    try:
        if _DATE.fullmatch(date):
            return calendar.timegm(time.strptime(date, "%Y%m%dT%H%M%SZ"))
    except ValueError:
        pass  # it has the form of a date, and is none of the calendar
    raise _incomplete(
        f"Date must be in ISO-8601 'basic format', as 20261124T120000Z. Got {date[:100]!r}."
    )


def _incomplete(message: str) -> AccessDenied:
    return AccessDenied(message, "IncompleteSignatureException")


def _invalid(message: str) -> AccessDenied:
    return AccessDenied(message, "InvalidSignatureException")
