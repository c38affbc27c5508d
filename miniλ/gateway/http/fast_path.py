"""The fast path: a warm, plain invocation, from bytes to bytes.

Most requests to a gateway are alike: POST a payload to a function, on a kept connection, while a
worker of it is idle. For these, aiohttp's general work per request costs as much as all the rest
together, so they are answered before aiohttp sees them.

Rule 1: only what is certain. A request is taken if all of it came in one read and nothing after it,
in a grammar far narrower than HTTP's, with headers that are known to change nothing; if its payload
is JSON; and if a worker is idle. Every other request is for aiohttp and `invocations`.

Rule 2: an answer is the same, byte for byte in what it says, on either path.
tests/api/test_fast_path.py compares them.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, NamedTuple

from miniλ import traces
from miniλ.errors import LambdaError
from miniλ.gateway.http.answers import SERVER
from miniλ.invoker import check_payload, new_request_id
from miniλ.model import FUNCTION_NAME
from miniλ.worker.equipment import InvocationContext

if TYPE_CHECKING:
    import asyncio

    from miniλ.model import Response
    from miniλ.parts import Parts

# A larger request seldom comes in one read, and its payload costs more than its head.
MAX_REQUEST = 64 * 1024
# A client sends the same head each time: parsed heads are cached, this many of at most these bytes.
CACHED_HEADS, MAX_CACHED_HEAD = 1024, 1024

_HEAD = re.compile(
    rb"POST /2015-03-31/functions/(%b)/invocations HTTP/1\.1\r\n"
    rb"((?:[A-Za-z][A-Za-z0-9-]{0,63}: [!-~](?:[ -~]{0,2000}[!-~])?\r\n){1,32})\r\n"
    % FUNCTION_NAME.encode()
)
_HOST = re.compile(rb"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,7}")
# A key id that names an account (see `auth`): the function gets an ARN of that account.
_ACCOUNT = re.compile(rb"Credential=[0-9]{12}/")
# Headers with the value that the API takes for an absent one.
_DEFAULTS = {b"x-amz-invocation-type": b"RequestResponse", b"x-amz-log-type": b"None"}
# Headers that change nothing about an invocation without [auth].
_NEUTRAL = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"amz-sdk-invocation-id",
        b"amz-sdk-request",
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"user-agent",
        b"x-amz-content-sha256",
        b"x-amz-date",
        b"x-amz-security-token",
        b"x-amz-user-agent",
    }
)


class _PlainInvocation(NamedTuple):
    """The head of a plain invocation: its function, and the length of its payload."""

    function: str
    length: int


class FastPath:
    """The fast path of one gateway; only for a gateway without [auth]."""

    def __init__(self, parts: Parts) -> None:
        self._invoker = parts.invoker
        self._live = parts.functions.live
        self._heads: dict[bytes, _PlainInvocation | None] = {}
        # The current second, and the Date header of it.
        self._date = (0, "")

    def begin(self, data: bytes) -> tuple[asyncio.Future[Response], str, str] | None:
        """Begin the invocation that these bytes are: its future, request id and trace id.

        None if they are any other request, or if no worker is idle.
        """
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or len(data) > MAX_REQUEST:  # noqa: PLR2004 - not found
            return None
        head = data[:end]
        try:
            plain = self._heads[head]
        except KeyError:
            plain = self._parse_and_cache(head)
        if plain is None or len(data) - end != plain.length:
            return None
        function = self._live.get(plain.function)
        if function is None:
            return None
        try:
            payload = check_payload(data[end:]) if plain.length else b"{}"
        except LambdaError:
            return None
        request_id = new_request_id()
        trace_id = traces.new(request_id)
        context = InvocationContext(trace_id=traces.start_lineage(trace_id, plain.function))
        future = self._invoker.invoke_warm(function, payload, context, request_id)
        return None if future is None else (future, request_id, trace_id)

    def _parse_and_cache(self, head: bytes) -> _PlainInvocation | None:
        if len(self._heads) >= CACHED_HEADS:
            self._heads.clear()
        plain = _parse(head)
        if len(head) <= MAX_CACHED_HEAD:
            self._heads[head] = plain
        return plain

    def answer(self, response: Response, request_id: str, trace_id: str) -> bytes:
        """Return the answer of an invocation, head and body."""
        now = int(time.time())
        second, date = self._date
        if second != now:
            date = formatdate(now, usegmt=True)
            self._date = (now, date)
        body = response.body
        error_header = "X-Amz-Function-Error: Unhandled\r\n" if response.invoked.failed else ""
        return (
            "HTTP/1.1 200 OK\r\n"
            f"Server: {SERVER}\r\n"
            "Content-Type: application/json\r\n"
            f"x-amzn-RequestId: {request_id}\r\n"
            "x-amzn-Remapped-Content-Length: 0\r\n"
            f"X-Amz-Executed-Version: {response.executed_version}\r\n"
            f"X-Amzn-Trace-Id: {trace_id.lower()}\r\n"
            f"{error_header}"
            f"Content-Length: {len(body)}\r\n"
            f"Date: {date}\r\n\r\n"
        ).encode() + body


def _parse(head: bytes) -> _PlainInvocation | None:
    """Return the invocation of a head; None if the head may mean anything more than that."""
    match = _HEAD.fullmatch(head)
    if match is None:
        return None
    headers: dict[bytes, bytes] = {}
    for line in match[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        headers[name.lower()] = value
    lines = match[2].count(b"\r\n")
    if len(headers) != lines:
        return None  # a header that is there twice
    for name, value in headers.items():
        if name not in _NEUTRAL and _DEFAULTS.get(name) != value:
            return None
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        return None
    if _ACCOUNT.search(headers.get(b"authorization", b"")):
        return None
    length = headers.get(b"content-length", b"")
    return _PlainInvocation(match[1].decode(), int(length)) if _LENGTH.fullmatch(length) else None
