"""The operations that run functions: Invoke, InvokeWithResponseStream, and InvokeAsync of 2014.

A plain warm Invoke without [auth] is answered before it comes here: `http.fast_path`. Requests to
function URLs are in `urls.serve`.

Rule: a payload is checked to be JSON and not decoded, and a function's answer goes back as it
came.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from miniλ import traces
from miniλ.errors import (
    EntityTooLarge,
    InvalidRequestContent,
    RequestTooLarge,
    ResourceNotFound,
)
from miniλ.events.delivery import MAX_EVENT, too_large
from miniλ.events.queue import AsyncEvent
from miniλ.gateway import eventstream
from miniλ.gateway.http import bodies
from miniλ.invoker import check_payload
from miniλ.model import MAX_PAYLOAD, FunctionConfiguration, Response
from miniλ.worker.answer_stream import AnswerStream
from miniλ.worker.equipment import InvocationContext

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from miniλ.background import Background
    from miniλ.gateway.call import Call

# The end of the log that comes with the answer, in bytes (API reference, "Invoke", LogType).
TAIL = 4096
# Lambda quota, as base64 (API reference, "Invoke", ClientContext).
MAX_CONTEXT = 3583
# The name that the runtime interface emulator gives to the function that it serves.
EMULATED = "function"


async def invoke(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Run a function and return its answer; or accept the event; or, as a dry run, check only."""
    params = call.params
    kind = params.get("InvocationType", "RequestResponse")
    if kind == "RequestResponse":
        payload = await _payload(call, request, MAX_PAYLOAD, kind)
        function, context = _resolve(call, request)
        response = await call.api.parts.invoker.invoke(function, payload, context, call.request_id)
        answer = _answer(response, call.request_id, context.trace_id or "")
        if params.get("LogType") == "Tail":
            answer.headers["X-Amz-Log-Result"] = _tail(response)
        return answer
    if kind == "DryRun":
        await _payload(call, request, MAX_PAYLOAD, kind)
        _resolve(call, request)
        return _plain(204, call.request_id)
    payload = await _payload(call, request, MAX_EVENT, kind)
    await _accept(call, request, payload)
    return _plain(202, call.request_id)


async def invoke_async(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Accept an event, as the API of 2014 did."""
    payload = await _payload(call, request, MAX_EVENT, "Event")
    await _accept(call, request, payload)
    return web.Response(
        status=202,
        body=b'{"Status":202}',
        headers={"Content-Type": "application/json", "x-amzn-RequestId": call.request_id},
    )


async def invoke_with_response_stream(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Run a function and send its answer in the frames of an event stream."""
    kind = call.params.get("InvocationType", "RequestResponse")
    payload = await _payload(call, request, MAX_PAYLOAD, kind)
    function, context = _resolve(call, request)
    if kind == "DryRun":
        return _plain(204, call.request_id)
    pieces = AnswerStream()
    running = call.api.parts.invoker.invoke(
        function, payload, context, call.request_id, stream=pieces
    )
    invocation = begin(call.api.parts.invocations, running, pieces)
    # If the function cannot run at all, the client gets that error, and no stream.
    await pieces.wait_for_first_piece()
    if invocation.done():
        invocation.result()
    answer = web.StreamResponse(
        headers={
            "Content-Type": eventstream.CONTENT_TYPE,
            "x-amzn-RequestId": call.request_id,
            "X-Amz-Executed-Version": function.version,
            traces.HEADER: traces.for_response(context.trace_id or ""),
        }
    )
    try:
        await answer.prepare(request)
        async for piece in pieces:
            await answer.write(eventstream.payload_chunk(piece))
        response = await invocation
        code = details = ""
        if response.is_failure:
            code, details = "Unhandled", response.body.decode(errors="replace")
        elif response.body:
            await answer.write(eventstream.payload_chunk(response.body))
        log = _tail(response) if call.params.get("LogType") == "Tail" else ""
        await answer.write(eventstream.invoke_complete(code, details, log))
        await answer.write_eof()
    finally:
        pieces.drop()  # if the client has left, the function is not blocked by unread output
    return answer


def begin(
    owner: Background, running: Awaitable[Response], stream: AnswerStream | None
) -> asyncio.Future[Response]:
    """Run what `Invoker.invoke` returned beside the caller; its stream, if any, ends with it.

    If the client leaves, it runs on, and its exception is not lost: a cold invocation is a task of
    `owner`; a warm one is the future of its worker, which sets no exception.
    """
    invocation: asyncio.Future[Response] = (
        owner.start(running) if asyncio.iscoroutine(running) else asyncio.ensure_future(running)
    )
    if stream is not None:
        invocation.add_done_callback(lambda _: stream.end())
    return invocation


async def _payload(call: Call, request: web.BaseRequest, limit: int, kind: str) -> bytes:
    """Return the payload of a request; without a body, an empty object."""
    try:
        payload = await bodies.read(request, limit, "InvokeFunction")
    except EntityTooLarge as exc:
        if kind == "Event":
            size = request.content_length or f"more than {limit}"
            raise too_large(size) from exc
        raise RequestTooLarge(str(exc)) from exc
    if call.verify is not None:
        call.verify(hashlib.sha256(payload).hexdigest())
    return check_payload(payload) if payload else b"{}"


def _resolve(
    call: Call, request: web.BaseRequest
) -> tuple[FunctionConfiguration, InvocationContext]:
    """Return the version that an invocation runs, and its context."""
    name, qualifier = _target(call)
    return call.api.functions.resolve(name, qualifier), _context(call, request, name, qualifier)


def _target(call: Call) -> tuple[str, str]:
    """Return name and qualifier of the function; raises `ResourceNotFound` if there is none."""
    functions = call.api.functions
    name, qualifier = call.function()
    try:
        functions.check_invocable(name, qualifier)
    except ResourceNotFound:
        served = functions.all()
        # Not with keys: this one may be for functions of that name only.
        if name != EMULATED or len(served) != 1 or call.verify is not None:
            raise
        name = served[0].name
        functions.check_invocable(name, qualifier)
    return name, qualifier


def _context(call: Call, request: web.BaseRequest, name: str, qualifier: str) -> InvocationContext:
    """Return the context of an invocation: what the caller sent with the payload."""
    functions, place = call.api.functions, call.place
    client_context = call.params.get("ClientContext")
    trace = request.headers.get(traces.HEADER)
    return InvocationContext(
        client_context=None if client_context is None else _client_context(client_context),
        trace_id=functions.extend_trace(name, trace, call.request_id),
        arn=place.function(name, qualifier) if qualifier or place is not functions.place else None,
    )


def _client_context(encoded: str) -> str:
    if len(encoded) > MAX_CONTEXT:
        size = len(encoded)
        msg = f"Client context must be at most {MAX_CONTEXT} characters of Base64, got {size}"
        raise InvalidRequestContent(msg)
    try:
        text = base64.b64decode(encoded, validate=True).decode()
        msgspec.json.decode(text, type=dict[str, Any])
    except (binascii.Error, UnicodeDecodeError, msgspec.DecodeError, RecursionError) as exc:
        msg = f"Client context must be a valid Base64-encoded JSON object: {exc}"
        raise InvalidRequestContent(msg) from exc
    return text


def _answer(response: Response, request_id: str, trace_id: str) -> web.Response:
    headers = {
        "Content-Type": "application/json",
        "x-amzn-RequestId": request_id,
        "x-amzn-Remapped-Content-Length": "0",
        "X-Amz-Executed-Version": response.executed_version,
        traces.HEADER: traces.for_response(trace_id),
    }
    if response.is_failure:
        headers["X-Amz-Function-Error"] = "Unhandled"
    return web.Response(body=response.body, headers=headers)


def _tail(response: Response) -> str:
    return base64.b64encode(response.log.encode()[-TAIL:]).decode()


def _plain(status: int, request_id: str) -> web.Response:
    headers = {"x-amzn-RequestId": request_id, "x-amzn-Remapped-Content-Length": "0"}
    return web.Response(status=status, headers=headers)


async def _accept(call: Call, request: web.BaseRequest, payload: bytes) -> None:
    """Put an event into the queue: on disk before the client gets 202, if the state is kept."""
    name, qualifier = _target(call)
    context = _context(call, request, name, qualifier)
    event = AsyncEvent(call.request_id, name, qualifier, payload, context)
    await call.api.parts.delivery.accept(event)


OPERATIONS: dict[str, Any] = {
    "Invoke": invoke,
    "InvokeWithResponseStream": invoke_with_response_stream,
    "InvokeAsync": invoke_async,
}
