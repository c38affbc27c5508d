"""This module is remote: Lambda's HTTP API from the other side, for the command line.

It asks a `minilambda serve`, or whoever else speaks the API of 2015-03-31 at a URL. Rules:

Rule 1: one thing at a time. A request has a connection of its own and is tried once; whoever
calls it waits for the answer.

Rule 2: an answer that is an error is raised as `LambdaError`, with the code, the status and the
words of the server. `NoServer` is where nobody answers at all.

Requests are signed where there is an access key, for a server that asks for one ([auth]).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from miniλ import sigv4
from miniλ.errors import InvalidParameterValue, LambdaError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DEFAULT_URL = "http://127.0.0.1:9001"
FUNCTIONS = "/2015-03-31/functions"
FILTER_LOG_EVENTS = "Logs_20140328.FilterLogEvents"

CONNECT_SECONDS = 10.0
# The longest invocation is 900 s; its init phase and its end come on top.
ANSWER_SECONDS = 960.0
# How often it is asked whether a change is through: at first, and at most.
FIRST_LOOK, LAST_LOOK = 0.02, 1.0


class NoServer(ServiceError):
    """Nobody listens at the URL; the message says how somebody would."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where to ask, and who asks. Without a key id nothing is signed."""

    url: str
    key_id: str = ""
    secret: str = ""
    token: str | None = None
    region: str = "us-east-1"

    def __repr__(self) -> str:
        return f"<Endpoint {self.url}>"


class HttpResponse(NamedTuple):
    """An HTTP response, whatever it says."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class InvokeResult(NamedTuple):
    """What Invoke answers. `log` is the end of the log, "" where none was asked for."""

    status: int
    payload: bytes
    failed: bool
    log: str
    executed_version: str
    request_id: str


def server(url: str, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Return the server at a URL, asked as the variables AWS_* say.

    Raises `InvalidParameterValue` for what is no URL.
    """
    environ = os.environ if environ is None else environ
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good:
        msg = f"The endpoint URL must be like {DEFAULT_URL}, got {url!r}"
        raise InvalidParameterValue(msg)
    key_id, secret = (environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if not key_id or not secret:
        return Endpoint(url, region=region)
    return Endpoint(url, key_id, secret, environ.get("AWS_SESSION_TOKEN") or None, region)


# Operations


def path_of(function: str, *below: str) -> str:
    """Return the path of a function, given by its name or ARN, or of something below it."""
    return "/".join((FUNCTIONS, *(quote(part, safe="") for part in (function, *below))))


def call(
    endpoint: Endpoint, method: str, path: str, document: object = None, **query: str
) -> dict[str, Any]:
    """Return the document that an operation answers; {} if it answers none."""
    body = b"" if document is None else msgspec.json.encode(document)
    answer = _checked(endpoint, _send(endpoint, method, path, query, {}, body))
    return _document(endpoint, answer) if answer.body else {}


def find(endpoint: Endpoint, function: str) -> dict[str, Any] | None:
    """Return the configuration of a function or of a version, None if there is none."""
    try:
        return call(endpoint, "GET", path_of(function, "configuration"))
    except LambdaError as exc:
        if is_missing(exc):
            return None
        raise


def settled(endpoint: Endpoint, function: str) -> dict[str, Any]:
    """Return the configuration once nothing of it is Pending or InProgress."""
    pause = FIRST_LOOK
    while True:
        found = call(endpoint, "GET", path_of(function, "configuration"))
        if found.get("State") != "Pending" and found.get("LastUpdateStatus") != "InProgress":
            return found
        time.sleep(pause)
        pause = min(LAST_LOOK, pause * 2)


def functions(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """Yield the configurations of all functions, however many pages they are."""
    marker: dict[str, str] = {}
    while True:
        page = call(endpoint, "GET", FUNCTIONS, **marker)
        yield from page.get("Functions", ())
        if not page.get("NextMarker"):
            return
        marker = {"Marker": page["NextMarker"]}


def invoke(
    endpoint: Endpoint, function: str, body: bytes, *, kind: str, qualifier: str | None
) -> InvokeResult:
    """Run a function; `kind` is an InvocationType. That it failed is no error: see `failed`."""
    headers = {"X-Amz-Invocation-Type": kind}
    if kind == "RequestResponse":
        headers["X-Amz-Log-Type"] = "Tail"
    query = {} if qualifier is None else {"Qualifier": qualifier}
    path = path_of(function, "invocations")
    answer = _checked(endpoint, _send(endpoint, "POST", path, query, headers, body))
    said = answer.headers
    return InvokeResult(
        status=answer.status,
        payload=answer.body,
        failed="X-Amz-Function-Error" in said,
        # It begins anywhere, also in the middle of a character.
        log=base64.b64decode(said.get("X-Amz-Log-Result", "")).decode(errors="replace"),
        executed_version=said.get("X-Amz-Executed-Version", ""),
        request_id=said.get("x-amzn-RequestId", ""),
    )


def log_events(endpoint: Endpoint, group: str, start: int) -> Iterator[dict[str, Any]]:
    """Yield what a log group has from `start` on (ms since 1970), as FilterLogEvents has it."""
    headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": FILTER_LOG_EVENTS}
    request: dict[str, Any] = {"logGroupName": group, "startTime": start}
    while True:
        body = msgspec.json.encode(request)
        answer = _checked(endpoint, _send(endpoint, "POST", "/", {}, headers, body, "logs"))
        page = _document(endpoint, answer)
        yield from page.get("events", ())
        if not page.get("nextToken"):
            return
        request["nextToken"] = page["nextToken"]


def is_missing(error: LambdaError) -> bool:
    """Return whether an error says that there is no such thing, function or log group."""
    return error.code == "ResourceNotFoundException"


# Requests and answers


def _send(
    endpoint: Endpoint,
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    body: bytes,
    service: str = "lambda",
) -> HttpResponse:
    parts = urlsplit(endpoint.url)
    target = parts.path.rstrip("/") + path
    if query:
        target += f"?{urlencode(query, quote_via=quote)}"
    said = {"Content-Type": "application/json", **headers}
    if endpoint.key_id:
        said |= sigv4.sign(
            method,
            f"{parts.scheme}://{parts.netloc}{target}",
            said,
            hashlib.sha256(body).hexdigest(),
            endpoint.key_id,
            endpoint.secret,
            endpoint.region,
            service,
            time.time(),
            endpoint.token,
        )
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.connect()
        except (OSError, UnicodeError) as exc:  # a name that is too long for DNS is the latter
            why = getattr(exc, "strerror", None) or exc
            msg = f"No server at {endpoint.url}: start one with `minilambda serve` ({why})"
            raise NoServer(msg) from exc
        connection.sock.settimeout(ANSWER_SECONDS)
        try:
            # Who refuses a large body answers before all of it is there, and hangs up.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, said)
            response = connection.getresponse()
            return HttpResponse(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as exc:
            msg = f"The server at {endpoint.url} gave no answer: {exc!r}"
            raise ServiceError(msg) from exc


def _checked(endpoint: Endpoint, answer: HttpResponse) -> HttpResponse:
    """Return an answer that is no error; raise what the others say."""
    if 200 <= answer.status < 300:  # noqa: PLR2004 - HTTP's own borders
        return answer
    document = _document(endpoint, answer)
    # AWS adds a URL to the code, after a colon; services of the older protocol a namespace.
    code = answer.headers.get("x-amzn-ErrorType", "").partition(":")[0]
    code = code or str(document.get("__type", "")).rpartition("#")[2]
    if not code:
        raise _stranger(endpoint, answer)
    text = str(document.get("message") or document.get("Message") or "")
    if "Reason" in document:
        text += f" ({document['Reason']})"
    if code == "MissingAuthenticationTokenException" and not endpoint.key_id:
        text += ": set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    error = LambdaError(text)
    error.code, error.status = code, answer.status
    raise error


def _document(endpoint: Endpoint, answer: HttpResponse) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _stranger(endpoint, answer) from exc


def _stranger(endpoint: Endpoint, answer: HttpResponse) -> ServiceError:
    return ServiceError(
        f"What answers at {endpoint.url} is not Lambda (HTTP status {answer.status})"
    )
