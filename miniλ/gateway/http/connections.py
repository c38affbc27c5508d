"""Connections: how many there are, how slow each may be, and what is not HTTP.

aiohttp parses requests, and gives each client unlimited time. Here the head of a request has
`HEAD_SECONDS`, an idle connection `IDLE_SECONDS` and a client that does not read `READER_SECONDS`,
and there are at most `MAX_CONNECTIONS`. Bodies have limits of their own: see `bodies`.

Rule 1: nothing is scheduled per request. All connections are polled every `POLL_SECONDS`.

Rule 2: a request has one answer. When an answer breaks off, or the end of a request is ambiguous,
the connection ends, and nothing that follows on it is read.

A connection reads private attributes of aiohttp's: tests/unit/gateway/http/test_aiohttp.py lists
them.
"""

from __future__ import annotations

import asyncio
import heapq
import resource
import socket
import struct
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web, web_protocol
from aiohttp.http import RawRequestMessage

from miniλ.gateway.http.answers import SERVER
from miniλ.gateway.http.bodies import BrokenBody, first_line

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from miniλ.gateway.http.fast_path import FastPath
    from miniλ.model import Response

# From the first byte of a request to the end of its headers.
HEAD_SECONDS = 10.0
# From the end of an answer to the next request: as long as clients usually keep a connection.
IDLE_SECONDS = 120.0
# A client that reads nothing of its answer for this long is dropped.
READER_SECONDS = 30.0
# After an answer that did not wait for all of the body, the rest is read for this long: closing a
# socket with unread data is a reset (RFC 9112, 9.6), and the client would lose the answer.
LINGER_SECONDS = 2.0
POLL_SECONDS = 1.0
# At most, and no more than half of the descriptors of the process: a worker takes three.
MAX_CONNECTIONS = 4096
# With all of them taken, this share is closed at once: the idle ones, longest idle first.
EVICTED_SHARE = 1 / 16

# On, for 0 s: close sends a reset and drops unsent data (socket(7), SO_LINGER).
_NO_LINGER = struct.pack("ii", 1, 0)


class Connection(web_protocol.RequestHandler):
    """A connection with deadlines: for the head of a request, and for the reader of an answer."""

    __slots__ = (
        "_backlog",
        "_fast_path",
        "_invocation",
        "body",
        "head_since",
        "is_half_closed",
        "unsent",
        "unsent_since",
    )

    def __init__(self, server: Server, **options: Any) -> None:  # noqa: ANN401 - as aiohttp's
        self._fast_path = server.fast_path
        # The invocation that the fast path has begun, and the bytes that came since.
        self._invocation: asyncio.Future[Response] | None = None
        self._backlog = b""
        # When a head began that has not ended, 0 for none; and when `unsent` last changed.
        self.head_since = self.unsent_since = 0.0
        # Bytes of answers that wait in the transport for the client to read.
        self.unsent = 0
        # The body of the latest request.
        self.body: StreamReader | None = None
        # Whether the client has closed its half: it sends nothing more, and may still read.
        self.is_half_closed = False
        super().__init__(server, **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept a connection, unless all places are taken by connections with a request."""
        server = self._manager
        if isinstance(server, Server) and not server.has_room():
            self._force_close = True
            transport.close()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the client; a head that they begin and do not end gets a deadline."""
        if self._invocation is not None:
            self._push_back(data)
            return
        if self._fast_path is not None and self._is_at_rest():
            invocation = self._fast_path.begin(data)
            if invocation is not None:
                self._answer_when_done(*invocation)
                return
        super().data_received(data)
        if self._messages:
            self._check_message(*self._messages[-1])
        if not self.is_idle:
            self.head_since = 0.0
        elif not self.head_since:
            self.head_since = self._loop.time()

    def _check_message(self, message: object, body: StreamReader) -> None:
        if self.body is None or self.body.is_eof() or isinstance(message, RawRequestMessage):
            self.body = body
            return
        # The parser failed within a body. The operation that reads the body gets the error, and
        # its answer is the only one.
        self._messages.pop()
        self.body.set_exception(BrokenBody(getattr(message, "message", "")))

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp's returns nothing
        """Keep the connection for the answer if the client has sent a whole request (`nc -N`)."""
        if self._invocation is not None:
            self.is_half_closed = True
            return True
        if self.is_idle or self.body is None or not self.body.is_eof():
            return False  # the transport closes, and an operation that reads the body gets an error
        self.is_half_closed = True
        return True

    @property
    def is_idle(self) -> bool:
        """Whether no request is here: none is being answered, and none is about to be.

        Half a head is no request. A connection that is closing is not idle.
        """
        if self._invocation is not None or self._close or self._force_close:
            return False
        waiter = self._waiter
        if waiter is None:
            # aiohttp's task has not started yet, or it is answering a request.
            return self.body is None
        return not waiter.done()

    # The fast path, see `fast_path`. Meanwhile aiohttp waits for a request, as when idle.

    def _is_at_rest(self) -> bool:
        """Return whether bytes would begin a request, after answers that the client has read."""
        transport = self.transport
        return (
            self.is_idle
            and not self.head_since
            and transport is not None
            and not transport.get_write_buffer_size()
        )

    def _answer_when_done(
        self, future: asyncio.Future[Response], request_id: str, trace_id: str
    ) -> None:
        self._invocation = future
        future.add_done_callback(lambda done: self._answer(done, request_id, trace_id))

    def _answer(self, future: asyncio.Future[Response], request_id: str, trace_id: str) -> None:
        self._invocation = None
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        transport = self.transport
        if transport is None:
            return  # the client has left: the function ran to its end
        if future.cancelled() or future.exception() is not None or self._fast_path is None:
            self.drop()
            return
        try:
            content = self._fast_path.answer(future.result(), request_id, trace_id)
        except Exception:
            self.drop()  # otherwise the client would wait for ever
            raise
        transport.write(content)
        if self.is_half_closed or self._close:
            self.close()
            transport.close()
            return
        backlog, self._backlog = self._backlog, b""
        if backlog:
            transport.resume_reading()
            self.data_received(backlog)

    def _process_keepalive(self) -> None:
        if self._invocation is None:
            super()._process_keepalive()
        else:
            # aiohttp sees an idle connection; it is not, for as long as the function runs.
            self._keepalive_handle = self._loop.call_later(
                self._keepalive_timeout, self._process_keepalive
            )

    def _push_back(self, data: bytes) -> None:
        """Keep bytes that came before the answer, and stop reading: back-pressure."""
        if not self._backlog and self.transport is not None:
            self.transport.pause_reading()
        self._backlog += data

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Wait for the request that is being answered, then close."""
        if self._invocation is not None:
            await asyncio.wait([self._invocation], timeout=timeout)
        await super().shutdown(timeout)

    @property
    def idle_since(self) -> float:
        """`IDLE_SECONDS` after it was made or its last answer ended; to sort connections by."""
        return self._next_keepalive_close_time

    def is_late(self, now: float) -> bool:
        """Return whether its client has used up its time: to send a head, or to read an answer."""
        if self.head_since and now - self.head_since > HEAD_SECONDS:
            return True
        transport = self.transport
        unsent = transport.get_write_buffer_size() if transport is not None else 0
        if not unsent or unsent != self.unsent:
            self.unsent, self.unsent_since = unsent, now
            return False
        return now - self.unsent_since > READER_SECONDS

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, or the rest of one."""
        if request.writer.output_size and not resp.prepared:
            # Part of an answer is out, and `resp` is a second one: it would look like the rest.
            msg = "An answer broke off"
            raise ConnectionAbortedError(msg)
        resp.headers.setdefault("Server", SERVER)
        is_broken = request.content.exception() is not None
        if is_broken or (self.is_half_closed and not self._messages):
            resp.force_close()
            self.close()
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to bytes that are not HTTP, and to errors of ours, as JSON.

        The connection ends with it.
        """
        if isinstance(exc, ConnectionError):
            raise exc  # the client has left
        if exc is not None and status >= 500:  # noqa: PLR2004 - HTTP's own border
            self.log_exception("A request failed: %s %s", request.method, request.path)
        code = "BadRequestException" if status < 500 else "ServiceException"  # noqa: PLR2004 - as above
        text = first_line(message or "The server could not answer")
        answer = web.Response(
            status=status,
            body=msgspec.json.encode({"message": text}),
            headers={"Content-Type": "application/json", "x-amzn-ErrorType": code},
        )
        answer.force_close()
        return answer

    def drop(self) -> None:
        """Close at once, with a reset; unsent data is dropped."""
        if self.transport is not None:
            # Without it the kernel would keep unsent data until the client reads it.
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER
            )
            self.transport.abort()
        self.force_close()


class Server(web.Server):
    """aiohttp's low-level server, with limits on the number of connections and their time."""

    def __init__(self, handler: Any, fast_path: FastPath | None = None) -> None:  # noqa: ANN401 - a coroutine function of a request
        self.fast_path = fast_path
        self._options = {
            "keepalive_timeout": IDLE_SECONDS,
            "access_log": None,
            "lingering_time": LINGER_SECONDS,
            # A compressed body stays so: no operation takes one, and a zip bomb stays small.
            "auto_decompress": False,
        }
        super().__init__(handler)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.max_connections = max(8, min(MAX_CONNECTIONS, descriptors // 2))
        self._timer = self._loop.call_later(POLL_SECONDS, self._poll)

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._options)

    def has_room(self) -> bool:
        """Return whether there is a place for one more connection, after closing idle ones.

        Longest idle first: otherwise clients that only connect would keep out clients with a
        request. `EVICTED_SHARE` of the places at once, so that the next ones come without a search.
        """
        if len(self._connections) < self.max_connections:
            return True
        idle = [each for each in self._all() if each.is_idle]
        number = max(1, int(self.max_connections * EVICTED_SHARE))
        for connection in heapq.nsmallest(number, idle, key=lambda each: each.idle_since):
            del self._connections[connection]
            connection.force_close()
        return len(self._connections) < self.max_connections

    def _all(self) -> list[Connection]:
        return [each for each in self._connections if isinstance(each, Connection)]

    def _poll(self) -> None:
        now = self._loop.time()
        for connection in self._all():
            if connection.is_late(now):
                connection.drop()
            elif connection.is_half_closed and connection.is_idle:
                connection.force_close()
        self._timer = self._loop.call_later(POLL_SECONDS, self._poll)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's
        """Close all connections, each after its answer."""
        self._timer.cancel()
        await super().shutdown(timeout)
