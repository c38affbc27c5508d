"""This module is the express lane: a warm, plain invocation, from bytes to bytes.

Most requests to a server of functions are the same: POST this event to that function, on a
connection that is kept, and a worker is idle. What aiohttp does for each request in general costs
as much as all of the rest then, so these are taken before it sees them.

Rule 1: only what is certain. A request is taken if it came whole and alone, in a grammar that is
far narrower than HTTP's, with headers that are known to change nothing; if its event is JSON; and
if a worker is idle. Everything else is aiohttp's, and `invocations`' to answer.

Rule 2: an answer is the same, byte for byte in what it says, whichever way it took.
"""

from __future__ import annotations

import re
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, NamedTuple

from miniλ import traces
from miniλ.errors import LambdaError
from miniλ.gateway.http.connections import SERVER
from miniλ.invoker import check_payload, new_request_id
from miniλ.model import FUNCTION_NAME
from miniλ.worker.equipment import InvocationContext

if TYPE_CHECKING:
    import asyncio

    from miniλ.model import Response
    from miniλ.parts import Parts

# What comes at once, as a rule; a larger request is in no hurry.
MOST = 64 * 1024
# Heads of clients that say the same each time are looked at once.
KNOWN_HEADS, KNOWN_BYTES = 1024, 1024

_HEAD = re.compile(
    rb"POST /2015-03-31/functions/(%b)/invocations HTTP/1\.1\r\n"
    rb"((?:[A-Za-z][A-Za-z0-9-]{0,63}: [!-~](?:[ -~]{0,2000}[!-~])?\r\n){1,32})\r\n"
    % FUNCTION_NAME.encode()
)
_HOST = re.compile(rb"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"[0-9]{1,7}")
# Signed by a key id that names an account: see `auth`.
_ACCOUNT = re.compile(rb"Credential=[0-9]{12}/")
# Headers that say what is so without them.
_AS_USUAL = {b"x-amz-invocation-type": b"RequestResponse", b"x-amz-log-type": b"None"}
# Headers that change nothing about an invocation where nobody is asked for a key.
_IDLE_TALK = frozenset(
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


class _Plain(NamedTuple):
    """What the head of a plain invocation says."""

    function: str
    length: int


class FastPath:
    """The express lane of one gateway, where nobody is asked for a key."""

    def __init__(self, parts: Parts) -> None:
        self._invoker = parts.invoker
        self._live = parts.functions.live
        self._heads: dict[bytes, _Plain | None] = {}
        self._date = (0, "")

    def begin(self, data: bytes) -> tuple[asyncio.Future[Response], str, str] | None:
        """Begin the invocation that these bytes are: its future, request id and trace id.

        None if they are anything else, or no worker is idle.
        """
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or len(data) > MOST:  # noqa: PLR2004 - not found
            return None
        head = data[:end]
        try:
            plain = self._heads[head]
        except KeyError:
            plain = self._learn(head)
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
        context = InvocationContext(trace_id=traces.begun(trace_id, plain.function))
        future = self._invoker.invoke_warm(function, payload, context, request_id)
        return None if future is None else (future, request_id, trace_id)

    def _learn(self, head: bytes) -> _Plain | None:
        if len(self._heads) >= KNOWN_HEADS:
            self._heads.clear()
        plain = _parse(head)
        if len(head) <= KNOWN_BYTES:
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
        failed = "X-Amz-Function-Error: Unhandled\r\n" if response.invoked.failed else ""
        return (
            "HTTP/1.1 200 OK\r\n"
            f"Server: {SERVER}\r\n"
            "Content-Type: application/json\r\n"
            f"x-amzn-RequestId: {request_id}\r\n"
            "x-amzn-Remapped-Content-Length: 0\r\n"
            f"X-Amz-Executed-Version: {response.executed_version}\r\n"
            f"X-Amzn-Trace-Id: {trace_id.lower()}\r\n"
            f"{failed}"
            f"Content-Length: {len(body)}\r\n"
            f"Date: {date}\r\n\r\n"
        ).encode() + body


def _parse(head: bytes) -> _Plain | None:
    """Return what a head says, or None if it may say more than that."""
    found = _HEAD.fullmatch(head)
    if found is None:
        return None
    headers: dict[bytes, bytes] = {}
    for line in found[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        headers[name.lower()] = value
    lines = found[2].count(b"\r\n")
    if len(headers) != lines:
        return None
    for name, value in headers.items():
        if name not in _IDLE_TALK and _AS_USUAL.get(name) != value:
            return None
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        return None
    if _ACCOUNT.search(headers.get(b"authorization", b"")):
        return None
    length = headers.get(b"content-length", b"")
    return _Plain(found[1].decode(), int(length)) if _LENGTH.fullmatch(length) else None
