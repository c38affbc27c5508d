"""This module is the operations that run functions: Invoke, its streaming twin, and invoke-async.

Rule: the body of an event is never opened beyond the question whether it is JSON, and a
function's answer goes back as it came.
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
from miniλ.events.queue import Draft
from miniλ.gateway import eventstream
from miniλ.gateway.http import bodies
from miniλ.invoker import check_event
from miniλ.model import MAX_PAYLOAD, FunctionConfiguration, Response
from miniλ.worker.answer_stream import Stream
from miniλ.worker.equipment import Context

if TYPE_CHECKING:
    from miniλ.gateway.call import Call
    from miniλ.supervisor import Supervisor

# So much of the end of a log is told with the answer (API reference, "Invoke", LogType).
TAIL = 4096
# Lambda quota, as base64 (API reference, "Invoke", ClientContext).
MAX_CONTEXT = 3583
# The name that the runtime interface emulator gives to whatever it serves.
EMULATED = "function"


async def invoke(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Run a function and give its answer; or accept the event; or only see whether it may."""
    params = call.params
    kind = params.get("InvocationType", "RequestResponse")
    if kind == "RequestResponse":
        body = await _body(call, request, MAX_PAYLOAD, kind)
        function, context = _resolve(call, request)
        response = await call.api.supervisor.run(function, body, context, call.request_id)
        answer = _answer(response, call.request_id, context.trace_id or "")
        if params.get("LogType") == "Tail":
            answer.headers["X-Amz-Log-Result"] = _tail(response)
        return answer
    if kind == "DryRun":
        await _body(call, request, MAX_PAYLOAD, kind)
        _resolve(call, request)
        return _plain(204, call.request_id)
    body = await _body(call, request, MAX_EVENT, kind)
    function, context = _resolve(call, request)
    await _accept(call, function, body, context)
    return _plain(202, call.request_id)


async def invoke_async(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Accept an event, as the API of 2014 does."""
    body = await _body(call, request, MAX_EVENT, "Event")
    function, context = _resolve(call, request)
    await _accept(call, function, body, context)
    return web.Response(
        status=202,
        body=b'{"Status":202}',
        headers={"Content-Type": "application/json", "x-amzn-RequestId": call.request_id},
    )


async def invoke_with_response_stream(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Run a function and send what it answers in the frames of an event stream."""
    kind = call.params.get("InvocationType", "RequestResponse")
    body = await _body(call, request, MAX_PAYLOAD, kind)
    function, context = _resolve(call, request)
    if kind == "DryRun":
        return _plain(204, call.request_id)
    pieces = context.stream = Stream()
    invocation = begin(call.api.supervisor, function, body, context, call.request_id)
    # What keeps a function from running at all is an error, and not an answer that begins.
    await pieces.begins()
    if invocation.done():
        invocation.result()
    answer = web.StreamResponse(
        headers={
            "Content-Type": eventstream.CONTENT_TYPE,
            "x-amzn-RequestId": call.request_id,
            "X-Amz-Executed-Version": function.version,
            traces.HEADER: traces.answered(context.trace_id or ""),
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
        pieces.drop()  # a client that leaves does not hold the function
    return answer


def begin(
    supervisor: Supervisor,
    function: FunctionConfiguration,
    body: bytes,
    context: Context,
    request_id: str,
) -> asyncio.Future[Response]:
    """Begin an invocation; where its answer comes through `context.stream`, that ends with it."""
    stream = context.stream
    invocation = asyncio.ensure_future(supervisor.run(function, body, context, request_id))
    if stream is not None:
        invocation.add_done_callback(lambda _: stream.end())
    return invocation


async def _body(call: Call, request: web.BaseRequest, limit: int, kind: str) -> bytes:
    """Return the event of a request; no body is an empty object."""
    try:
        body = await bodies.read(request, limit, "InvokeFunction")
    except EntityTooLarge as exc:
        if kind == "Event":
            size = request.content_length or f"more than {limit}"
            raise too_large(size) from exc
        raise RequestTooLarge(str(exc)) from exc
    if call.verify is not None:
        call.verify(hashlib.sha256(body).hexdigest())
    return check_event(body) if body else b"{}"


def _resolve(call: Call, request: web.BaseRequest) -> tuple[FunctionConfiguration, Context]:
    """Return the version that an invocation is for, and what the caller says beside the event."""
    functions, place = call.api.functions, call.place
    name, qualifier = call.function()
    try:
        function = functions.resolve(name, qualifier)
    except ResourceNotFound:
        served = functions.all()
        # Where keys are asked for, this one may be for functions of that name only.
        if name != EMULATED or len(served) != 1 or call.verify is not None:
            raise
        function = functions.resolve(served[0].name, qualifier)
    arn = None
    if qualifier or place is not functions.place:
        arn = place.function(function.name, qualifier)
    said = call.params.get("ClientContext")
    said_trace = request.headers.get(traces.HEADER)
    trace_id = functions.traced(function.name, said_trace, call.request_id)
    return function, Context(None if said is None else _client_context(said), None, trace_id, arn)


def _client_context(said: str) -> str:
    if len(said) > MAX_CONTEXT:
        msg = f"Client context must be at most {MAX_CONTEXT} characters of Base64, got {len(said)}"
        raise InvalidRequestContent(msg)
    try:
        text = base64.b64decode(said, validate=True).decode()
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
        traces.HEADER: traces.answered(trace_id),
    }
    if response.is_failure:
        headers["X-Amz-Function-Error"] = "Unhandled"
    return web.Response(body=response.body, headers=headers)


def _tail(response: Response) -> str:
    return base64.b64encode(response.log.encode()[-TAIL:]).decode()


def _plain(status: int, request_id: str) -> web.Response:
    headers = {"x-amzn-RequestId": request_id, "x-amzn-Remapped-Content-Length": "0"}
    return web.Response(status=status, headers=headers)


async def _accept(
    call: Call, function: FunctionConfiguration, body: bytes, context: Context
) -> None:
    """Put an event into the queue: it is on disk when the client hears 202."""
    _, qualifier = call.function()
    said = context.client_context, context.identity, context.trace_id, context.arn
    draft = Draft(call.request_id, function.name, qualifier, body, *said)
    await call.api.supervisor.delivery.accept(draft)


OPERATIONS: dict[str, Any] = {
    "Invoke": invoke,
    "InvokeWithResponseStream": invoke_with_response_stream,
    "InvokeAsync": invoke_async,
}
