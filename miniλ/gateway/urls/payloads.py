"""Payloads of function URLs: an HTTP request as an event, a result of the function as an answer.

Rule 1: no I/O in this file. The server has read the whole request, and sends the answer.

Rule 2: any result of a function becomes an answer that an HTTP server can send. A result that is
no HTTP answer becomes `BAD_GATEWAY`, as on AWS, and never an exception.

Source: Lambda developer guide, "Invoking Lambda function URLs", payload format version 2.0. Where
it is silent: a path stays percent-encoded, and a body is text only by its content type; the type
of a form is not one of text.
"""

from __future__ import annotations

import base64
import re
import time
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qsl

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers: TypeAlias = tuple[tuple[str, str], ...]

# RFC 9110, 5.6.2: the name of a header, and a method.
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# Headers between two hops, which concern neither the function nor its client (RFC 9110, 7.6.1).
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# Not among the headers of an event: cookies are a field of their own.
_NOT_IN_EVENT = _HOP_BY_HOP | {"cookie"}
# Not among the headers of an answer: the server sets the length.
_NOT_IN_ANSWER = _HOP_BY_HOP | {"content-length"}
# RFC 9110, 15: a status below 200 is interim, and the client would wait for another answer.
_FINAL = range(200, 600)
# strftime would write them in the locale of the application that embeds us.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TEXT = re.compile(r"text/.+|application/(json|xml|javascript)|[^/]+/.+\+(json|xml)")
# RFC 9110, 5.5: no control character but the tab; CR and LF would begin another header.
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_JSON: Headers = (("Content-Type", "application/json"),)
_DENIED: Headers = (*_JSON, ("x-amzn-ErrorType", "AccessDeniedException"))


class UrlAnswer(msgspec.Struct, frozen=True):
    """The answer of a function URL; the server adds its framing (Content-Length)."""

    status: int
    headers: Headers
    body: bytes = b""


# The function failed, or its result is no HTTP answer.
BAD_GATEWAY = UrlAnswer(502, _JSON, b"Internal Server Error")
# The URL exists, and the caller may not use it.
FORBIDDEN = UrlAnswer(
    403,
    _DENIED,
    b'{"Message":"Forbidden. For troubleshooting Function URL authorization issues, see: '
    b'https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"}',
)
# No function has this URL.
UNKNOWN_URL = UrlAnswer(403, _DENIED, b'{"Message":null}')


class IamIdentity(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The caller that signed the request: `requestContext.authorizer.iam` of the event."""

    access_key: str
    account_id: str
    caller_id: str
    cognito_identity: None = None
    principal_org_id: str | None = None
    user_arn: str
    user_id: str


def request_payload(
    *,
    method: str,
    raw_path: str,
    raw_query: str,
    protocol: str,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    source_ip: str,
    scheme: str,
    port: int,
    url_id: str,
    domain_name: str,
    request_id: str,
    trace_id: str,
    now: float,
    identity: IamIdentity | None = None,
) -> bytes:
    """Return the payload of the event that a request to a function URL becomes.

    `raw_path` and `raw_query` are as they were sent, `protocol` is "HTTP/1.1", `now` is seconds
    since the epoch, `identity` is the caller's, for a URL with AWS_IAM. A body that is not text
    grows by a third in base64: check the size of the payload, not of the body.
    """
    event_headers, cookies = _headers_and_cookies(headers)
    hops = event_headers.get("x-forwarded-for")
    event_headers["x-forwarded-for"] = f"{hops}, {source_ip}" if hops else source_ip
    event_headers["x-forwarded-port"] = str(port)
    event_headers["x-forwarded-proto"] = scheme
    event_headers["x-amzn-trace-id"] = _clean(trace_id)
    path, query = _clean(raw_path), _clean(raw_query)
    milliseconds = round(now * 1000)
    context: dict[str, object] = {
        "accountId": identity.account_id if identity else "anonymous",
        "apiId": url_id,
        "authentication": None,
    }
    if identity:
        context["authorizer"] = {"iam": identity}
    context |= {
        "domainName": _clean(domain_name),
        "domainPrefix": url_id,
        "http": {
            "method": method,
            "path": path,
            "protocol": protocol,
            "sourceIp": source_ip,
            "userAgent": event_headers.get("user-agent", ""),
        },
        "requestId": request_id,
        "routeKey": "$default",
        "stage": "$default",
        "time": _clf_time(milliseconds // 1000),
        "timeEpoch": milliseconds,
    }
    fields: dict[str, object] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
    }
    if cookies:
        fields["cookies"] = cookies
    fields["headers"] = event_headers
    if parameters := _joined(parse_qsl(query, keep_blank_values=True)):
        fields["queryStringParameters"] = parameters
    fields |= {"requestContext": context, "pathParameters": None, "stageVariables": None}
    text = _text_of(body, event_headers.get("content-type", ""))
    if body:
        fields["body"] = base64.b64encode(body).decode() if text is None else text
    fields["isBase64Encoded"] = text is None
    return msgspec.json.encode(fields)


def _headers_and_cookies(
    headers: Iterable[tuple[str, str]],
) -> tuple[dict[str, str], list[str]]:
    clean = [(name.lower(), _clean(value)) for name, value in headers]
    cookies = ";".join(value for name, value in clean if name == "cookie").split(";")
    others = _joined((name, value) for name, value in clean if name not in _NOT_IN_EVENT)
    return others, [cookie.strip() for cookie in cookies if cookie.strip()]


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: ",".join(each) for name, each in values.items()}


def _clean(value: str) -> str:
    # aiohttp decodes bytes that are not UTF-8 as surrogates, which JSON cannot carry.
    if value.isascii():
        return value
    return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _clf_time(seconds: int) -> str:
    """Return a time in the Common Log Format: 12/Mar/2020:19:03:58 +0000."""
    utc = time.gmtime(seconds)
    month = _MONTHS[utc.tm_mon - 1]
    clock = f"{utc.tm_hour:02}:{utc.tm_min:02}:{utc.tm_sec:02}"
    return f"{utc.tm_mday:02}/{month}/{utc.tm_year:04}:{clock} +0000"


def _text_of(body: bytes, content_type: str) -> str | None:
    """Return the body as text, or None if its content type or its bytes are not text."""
    if not body:
        return ""
    if not _TEXT.fullmatch(content_type.partition(";")[0].strip().lower()):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


# An absent field is like null: Go's event types encode an unset field as null.
_ABSENT = msgspec.Raw(b"null")


class _Reply(msgspec.Struct, frozen=True, rename="camel"):
    # Raw: without a status code this is any JSON object, and its fields may have any type.
    status_code: msgspec.Raw = _ABSENT
    headers: msgspec.Raw = _ABSENT
    cookies: msgspec.Raw = _ABSENT
    body: msgspec.Raw = _ABSENT
    is_base64_encoded: msgspec.Raw = _ABSENT


_decode_whole = msgspec.json.Decoder(msgspec.Raw).decode
_decode_reply = msgspec.json.Decoder(_Reply).decode
# Not strict: API Gateway takes "200" for 200, and functions written for it return it.
_decode_status = msgspec.json.Decoder(int, strict=False).decode
_decode_headers = msgspec.json.Decoder(dict[str, msgspec.Raw] | None).decode
_decode_cookies = msgspec.json.Decoder(list[str] | None).decode
_decode_flag = msgspec.json.Decoder(bool | None).decode
_decode_text = msgspec.json.Decoder(str).decode


def answer(payload: bytes) -> UrlAnswer:
    """Return the answer of a function URL whose function returned `payload`.

    An object with a `statusCode` describes the whole answer. Any other JSON is a 200: a string is
    the text in it, other JSON is as it came. A payload that is no JSON, or describes no HTTP
    answer, is `BAD_GATEWAY`.
    """
    try:
        whole = bytes(_decode_whole(payload))
        reply = _decode_reply(whole) if whole.startswith(b"{") else _Reply()
        if reply.status_code is _ABSENT:
            return UrlAnswer(200, _JSON, _content(whole))
        headers = _headers(reply, default="application/json")
        return UrlAnswer(_status(reply), headers, _body(reply))
    except (ValueError, RecursionError):
        return BAD_GATEWAY


def streamed_head(document: bytes) -> UrlAnswer:
    """Return the answer, without its body, that the head of a stream describes as JSON."""
    try:
        reply = _decode_reply(document)
        status = 200 if reply.status_code is _ABSENT else _status(reply)
        return UrlAnswer(status, _headers(reply, default="application/octet-stream"))
    except (ValueError, RecursionError):
        return BAD_GATEWAY


def header(name: str, value: str) -> tuple[str, str]:
    """Return a header; raises ValueError for a name or a value that HTTP cannot carry."""
    if not TOKEN.fullmatch(name) or _UNSENDABLE.search(value):
        msg = f"a header must be a token and one line of text, got {name!r}: {value[:80]!r}"
        raise ValueError(msg)
    return name, value.strip(" \t")


def _status(reply: _Reply) -> int:
    status = _decode_status(reply.status_code)
    if status not in _FINAL:
        msg = f"statusCode must be 200 to 599, got {status}"
        raise ValueError(msg)
    return status


def _headers(reply: _Reply, default: str) -> Headers:
    # By lower-case names: of two names that differ in case only, the last one counts.
    headers = {"content-type": ("Content-Type", default)}
    for name, value in (_decode_headers(reply.headers) or {}).items():
        if (content := bytes(value)) != b"null":
            headers[name.lower()] = header(name, _scalar(content))
    cookies = [header("Set-Cookie", cookie) for cookie in _decode_cookies(reply.cookies) or []]
    return (*(headers[name] for name in headers if name not in _NOT_IN_ANSWER), *cookies)


def _scalar(content: bytes) -> str:
    if content.startswith((b"{", b"[")):
        msg = f"a header must be a string, a number or a boolean, got {content[:80]!r}"
        raise ValueError(msg)
    return _content(content).decode()


def _body(reply: _Reply) -> bytes:
    content = bytes(reply.body)
    encoded = _decode_flag(reply.is_base64_encoded)
    if content == b"null":
        return b""
    return base64.b64decode(_decode_text(content), validate=True) if encoded else _content(content)


def _content(document: bytes) -> bytes:
    """Return the text of a JSON string, and any other JSON unchanged."""
    return _decode_text(document).encode() if document.startswith(b'"') else document
