"""Lambda's HTTP API as a client sees it: what the command line asks a server.

The server is a `minilambda serve`, or any other that speaks the API of 2015-03-31 at a URL.

Rule 1: one request at a time, on a connection of its own, tried once; the call returns when the
answer is there.

Rule 2: an answer that is an error is raised as `LambdaError`, with the server's code, status and
message. `NoServer` means that no connection was made, `ServiceError` that the answer is not one
of Lambda's.

Requests are signed if the environment has an access key, for servers that want one ([auth]).
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
# The longest invocation is 900 s; the init phase before it and a kill after it come on top.
ANSWER_SECONDS = 960.0
# A change is polled every 20 ms at first; each pause is twice the last one, up to 1 s.
FIRST_POLL_SECONDS, MAX_POLL_SECONDS = 0.02, 1.0


class NoServer(ServiceError):
    """No server accepts connections at the URL; the message says how to start one."""


class Endpoint(msgspec.Struct, frozen=True):
    """A server's URL and the key to sign with; requests are not signed if the key id is empty."""

    url: str
    key_id: str = ""
    secret: str = ""
    token: str | None = None
    region: str = "us-east-1"

    def __repr__(self) -> str:
        return f"<Endpoint {self.url}>"


class HttpResponse(NamedTuple):
    """An HTTP response of any status."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class InvokeResult(NamedTuple):
    """The answer to Invoke. `log` is the last 4 KB of the log, "" unless the request wanted it."""

    status: int
    payload: bytes
    failed: bool
    log: str
    executed_version: str
    request_id: str


def endpoint(url: str, environ: Mapping[str, str] | None = None) -> Endpoint:
    """Return the endpoint at a URL, with the key and region of the AWS_* variables.

    Raises `InvalidParameterValue` if the URL is not http or https, or has no host.
    """
    environ = os.environ if environ is None else environ
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        msg = f"The endpoint URL must be like {DEFAULT_URL}, got {url!r}"
        raise InvalidParameterValue(msg)
    key_id, secret = (environ.get(f"AWS_{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    if not key_id or not secret:
        return Endpoint(url, region=region)
    return Endpoint(url, key_id, secret, environ.get("AWS_SESSION_TOKEN") or None, region)


# Operations


def path_of(function: str, *below: str) -> str:
    """Return the path of a function (a name or an ARN), or of a resource below it."""
    return "/".join((FUNCTIONS, *(quote(part, safe="") for part in (function, *below))))


def call(
    endpoint: Endpoint, method: str, path: str, document: object = None, **query: str
) -> dict[str, Any]:
    """Run an operation; return the document of its answer, {} for an empty answer."""
    body = b"" if document is None else msgspec.json.encode(document)
    answer = _checked(endpoint, _send(endpoint, method, path, query, {}, body))
    return _document(endpoint, answer) if answer.body else {}


def find(endpoint: Endpoint, function: str) -> dict[str, Any] | None:
    """Return the configuration of a function or of a version; None if it does not exist."""
    try:
        return call(endpoint, "GET", path_of(function, "configuration"))
    except LambdaError as exc:
        if is_missing(exc):
            return None
        raise


def settled(endpoint: Endpoint, function: str) -> dict[str, Any]:
    """Wait until a function is neither Pending nor InProgress; return its configuration."""
    pause = FIRST_POLL_SECONDS
    while True:
        configuration = call(endpoint, "GET", path_of(function, "configuration"))
        is_pending = configuration.get("State") == "Pending"
        if not is_pending and configuration.get("LastUpdateStatus") != "InProgress":
            return configuration
        time.sleep(pause)
        pause = min(MAX_POLL_SECONDS, pause * 2)


def functions(endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """Yield the configurations of all functions, page by page."""
    marker: dict[str, str] = {}
    while True:
        page = call(endpoint, "GET", FUNCTIONS, **marker)
        yield from page.get("Functions", ())
        if not page.get("NextMarker"):
            return
        marker = {"Marker": page["NextMarker"]}


def invoke(
    endpoint: Endpoint, function: str, payload: bytes, *, kind: str, qualifier: str | None
) -> InvokeResult:
    """Invoke a function; `kind` is an InvocationType. A failure is a result with `failed` set."""
    headers = {"X-Amz-Invocation-Type": kind}
    if kind == "RequestResponse":
        headers["X-Amz-Log-Type"] = "Tail"
    query = {} if qualifier is None else {"Qualifier": qualifier}
    path = path_of(function, "invocations")
    answer = _checked(endpoint, _send(endpoint, "POST", path, query, headers, payload))
    received = answer.headers
    return InvokeResult(
        status=answer.status,
        payload=answer.body,
        failed="X-Amz-Function-Error" in received,
        # The server cuts at 4 KB, possibly within a character.
        log=base64.b64decode(received.get("X-Amz-Log-Result", "")).decode(errors="replace"),
        executed_version=received.get("X-Amz-Executed-Version", ""),
        request_id=received.get("x-amzn-RequestId", ""),
    )


def log_events(endpoint: Endpoint, group: str, start: int) -> Iterator[dict[str, Any]]:
    """Yield the events of a log group from `start` (ms since 1970) on, as FilterLogEvents does."""
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
    """Return whether an error says that the function, alias or log group does not exist."""
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
    all_headers = {"Content-Type": "application/json", **headers}
    if endpoint.key_id:
        all_headers |= sigv4.sign(
            method,
            f"{parts.scheme}://{parts.netloc}{target}",
            all_headers,
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
        except (OSError, UnicodeError) as exc:  # UnicodeError: a host name too long for DNS
            why = getattr(exc, "strerror", None) or exc
            msg = f"No server at {endpoint.url}: start one with `minilambda serve` ({why})"
            raise NoServer(msg) from exc
        connection.sock.settimeout(ANSWER_SECONDS)
        try:
            # A server that refuses a large body answers before it has read it all, and closes.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, target, body, all_headers)
            response = connection.getresponse()
            return HttpResponse(response.status, response.headers, response.read())
        except (OSError, http.client.HTTPException) as exc:
            msg = f"The server at {endpoint.url} gave no answer: {exc!r}"
            raise ServiceError(msg) from exc


def _checked(endpoint: Endpoint, answer: HttpResponse) -> HttpResponse:
    """Return an answer with status 2xx; raise any other as the error that it describes."""
    if 200 <= answer.status < 300:  # noqa: PLR2004 - the statuses of success
        return answer
    document = _document(endpoint, answer)
    # AWS adds a colon and a URL to the code; the JSON 1.1 protocol puts a namespace and a # before
    # it.
    code = answer.headers.get("x-amzn-ErrorType", "").partition(":")[0]
    code = code or str(document.get("__type", "")).rpartition("#")[2]
    if not code:
        raise _not_lambda(endpoint, answer)
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
        raise _not_lambda(endpoint, answer) from exc


def _not_lambda(endpoint: Endpoint, answer: HttpResponse) -> ServiceError:
    return ServiceError(
        f"The server at {endpoint.url} is not Lambda (HTTP status {answer.status}): "
        "check --endpoint-url"
    )
