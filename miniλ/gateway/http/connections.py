"""This module is the edges: connections that are slow, too many, or never ask for anything.

aiohttp reads requests, and gives each as long as it likes. Here a connection has so many seconds
for the head of a request, and there is an end to how many there are; bodies are `bodies`'.

Rule 1: nothing is set up per request. One look, every second, goes through the connections.

Rule 2: a request has one answer. Where half of one is out, or nobody knows where the request
ends, the connection ends, and nothing that follows on it is read.
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

from miniλ.gateway.http.bodies import BrokenBody, first_line

if TYPE_CHECKING:
    from aiohttp.streams import StreamReader

    from miniλ.gateway.http.fast_path import FastPath
    from miniλ.model import Response

# From the first byte of a request to the end of its headers.
HEAD_SECONDS = 10.0
# A connection that asks for nothing is kept as long as clients usually keep theirs.
IDLE_SECONDS = 120.0
# Who takes nothing of an answer for so long does not want it.
READER_SECONDS = 30.0
# What comes after an answer that did not wait for it is read so long, so that the client hears it.
LINGER_SECONDS = 2.0
LOOK_SECONDS = 1.0
# Half of the descriptors that we may have are for others: workers have three each.
MOST_CONNECTIONS = 4096
# When there are so many, this share of them makes room: those that ask for nothing.
ROOM = 1 / 16

# Who answers. AWS does not say; aiohttp would say aiohttp.
SERVER = "minilambda"

# On, for 0 s: closing is a reset (socket(7), SO_LINGER).
_NO_LINGER = struct.pack("ii", 1, 0)


class Connection(web_protocol.RequestHandler):
    """A connection that knows since when it waits: for the rest of a head, for its reader."""

    __slots__ = (
        "_answering",
        "_express",
        "_held",
        "body",
        "is_half",
        "unread",
        "unread_since",
        "waits_since",
    )

    def __init__(self, server: Server, **options: Any) -> None:  # noqa: ANN401 - as aiohttp's
        self._express = server.express
        # The invocation that the express lane has begun, and what has come since.
        self._answering: asyncio.Future[Response] | None = None
        self._held = b""
        self.waits_since = self.unread_since = 0.0
        self.unread = 0
        # Of the last request that came.
        self.body: StreamReader | None = None
        # Whether the client has said all that it will say.
        self.is_half = False
        super().__init__(server, **options)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, unless there are too many that are being answered."""
        server = self._manager
        if isinstance(server, Server) and not server.has_room():
            server.refused += 1
            self._force_close = True
            transport.close()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Read; note when the head of a request has begun, and has not ended."""
        if self._answering is not None:
            self._hold(data)
            return
        if self._express is not None and self._is_at_rest():
            begun = self._express.begin(data)
            if begun is not None:
                self._answer_when_done(*begun)
                return
        super().data_received(data)
        if self._messages:
            self._note(*self._messages[-1])
        if not self.is_unasked:
            self.waits_since = 0.0
        elif not self.waits_since:
            self.waits_since = self._loop.time()

    def _note(self, message: object, body: StreamReader) -> None:
        if self.body is None or self.body.is_eof() or isinstance(message, RawRequestMessage):
            self.body = body
            return
        # What is no HTTP is in the midst of a body. Whoever waits for that hears of it, and has
        # the only answer.
        self._messages.pop()
        self.body.set_exception(BrokenBody(getattr(message, "message", "")))

    def eof_received(self) -> bool:  # type: ignore[override] # aiohttp's returns nothing
        """Answer also who has said all that they will say, as `nc -N` does; then it is over."""
        if self._answering is not None:
            self.is_half = True
            return True
        if self.is_unasked or self.body is None or not self.body.is_eof():
            return False  # the transport closes, and who waits for a body hears of it
        self.is_half = True
        return True

    @property
    def is_unasked(self) -> bool:
        """Whether there is no request here: none is being answered, none is about to be."""
        if self._answering is not None or self._close or self._force_close:
            return False
        waiter = self._waiter
        if waiter is None:
            # Nobody has looked yet, or one is being answered.
            return self.body is None
        return not waiter.done()

    # The express lane: see `express`. While it answers, aiohttp waits for a request as before.

    def _is_at_rest(self) -> bool:
        """Return whether a request may begin here: no other has, and all answers were taken."""
        transport = self.transport
        return (
            self.is_unasked
            and not self.waits_since
            and transport is not None
            and not transport.get_write_buffer_size()
        )

    def _answer_when_done(
        self, future: asyncio.Future[Response], request_id: str, trace_id: str
    ) -> None:
        self._answering = future
        future.add_done_callback(lambda done: self._answer(done, request_id, trace_id))

    def _answer(self, future: asyncio.Future[Response], request_id: str, trace_id: str) -> None:
        self._answering = None
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        transport = self.transport
        if transport is None:
            return  # the client has left: the function ran to its end
        if future.cancelled() or future.exception() is not None or self._express is None:
            self.drop()
            return
        try:
            content = self._express.answer(future.result(), request_id, trace_id)
        except Exception:
            self.drop()  # rather than a client that waits for ever
            raise
        transport.write(content)
        if self.is_half or self._close:
            self.close()
            transport.close()
            return
        held, self._held = self._held, b""
        if held:
            transport.resume_reading()
            self.data_received(held)

    def _process_keepalive(self) -> None:
        if self._answering is None:
            super()._process_keepalive()
        else:
            # Not idle, however long the function takes, though aiohttp has nothing to do.
            self._keepalive_handle = self._loop.call_later(
                self._keepalive_timeout, self._process_keepalive
            )

    def _hold(self, data: bytes) -> None:
        """Keep what came too early, and take no more."""
        if not self._held and self.transport is not None:
            self.transport.pause_reading()
        self._held += data

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's
        """Wait for what is being answered, and end."""
        if self._answering is not None:
            await asyncio.wait([self._answering], timeout=timeout)
        await super().shutdown(timeout)

    @property
    def since(self) -> float:
        """When it was made or its last request was over, whichever is later."""
        return self._next_keepalive_close_time

    def is_late(self, now: float) -> bool:
        """Return whether its client has had its time: to send a head, to read an answer."""
        if self.waits_since and now - self.waits_since > HEAD_SECONDS:
            return True
        transport = self.transport
        unread = transport.get_write_buffer_size() if transport is not None else 0
        if not unread or unread != self.unread:
            self.unread, self.unread_since = unread, now
            return False
        return now - self.unread_since > READER_SECONDS

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what is left of an answer."""
        if request.writer.output_size and not resp.prepared:
            # Whoever began another answer failed: this one would be taken for its rest.
            msg = "An answer broke off"
            raise ConnectionAbortedError(msg)
        resp.headers.setdefault("Server", SERVER)
        is_broken = request.content.exception() is not None
        if is_broken or (self.is_half and not self._messages):
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
        """Answer what is no HTTP, and mistakes of ours, as JSON; the connection ends with it."""
        if isinstance(exc, ConnectionError):
            raise exc  # there is nobody to be answered
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
        """End it now, whoever waits for whom."""
        if self.transport is not None:
            # Else the kernel keeps what it was given until somebody reads it.
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER
            )
            self.transport.abort()
        self.force_close()


class Server(web.Server):
    """aiohttp's low-level server, with an end to patience."""

    def __init__(self, handler: Any, express: FastPath | None = None) -> None:  # noqa: ANN401 - a coroutine function of a request
        self.express = express
        self._options = {
            "keepalive_timeout": IDLE_SECONDS,
            "access_log": None,
            "lingering_time": LINGER_SECONDS,
            # What is compressed stays so: nothing here asks for it, and a bomb stays small.
            "auto_decompress": False,
        }
        super().__init__(handler)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = max(8, min(MOST_CONNECTIONS, descriptors // 2))
        self.refused = 0
        self._look = self._loop.call_later(LOOK_SECONDS, self._look_around)

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._options)

    def has_room(self) -> bool:
        """Return whether there is room for one more, made where all is taken.

        Who asks for nothing goes, longest first: otherwise those who only connect would keep out
        those who ask. Some at a time, so that it is not looked for each time.
        """
        if len(self._connections) < self.most:
            return True
        unasked = [each for each in self._of_ours() if each.is_unasked]
        number = max(1, int(self.most * ROOM))
        for connection in heapq.nsmallest(number, unasked, key=lambda each: each.since):
            del self._connections[connection]
            connection.force_close()
        return len(self._connections) < self.most

    def _of_ours(self) -> list[Connection]:
        return [each for each in self._connections if isinstance(each, Connection)]

    def _look_around(self) -> None:
        now = self._loop.time()
        for connection in self._of_ours():
            if connection.is_late(now):
                connection.drop()
            elif connection.is_half and connection.is_unasked:
                connection.force_close()
        self._look = self._loop.call_later(LOOK_SECONDS, self._look_around)

    async def shutdown(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - aiohttp's
        """End all connections."""
        self._look.cancel()
        await super().shutdown(timeout)
