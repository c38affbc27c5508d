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

from miniλ import journal
from miniλ.errors import (
    EntityTooLarge,
    InvalidRequestContent,
    LambdaError,
    RequestTooLarge,
    ResourceNotFound,
    Throttled,
)
from miniλ.gateway import bodies, eventstream, traces
from miniλ.host import Context
from miniλ.invoker import check_event
from miniλ.model import MAX_PAYLOAD, FunctionConfiguration, Response
from miniλ.resources import RECURSION
from miniλ.streams import Stream

if TYPE_CHECKING:
    from miniλ.gateway.call import Api, Call
    from miniλ.supervisor import Supervisor

# Lambda quota: an asynchronous event may have 1 MB (since October 2025).
MAX_EVENT = 1024 * 1024
# So much of the end of a log is told with the answer (API reference, "Invoke", LogType).
TAIL = 4096
# Lambda quota, as base64 (API reference, "Invoke", ClientContext).
MAX_CONTEXT = 3583
# An event waits so long for concurrency, as it would in Lambda's queue.
EVENT_WAIT = 6 * 3600.0
# Events that wait are in memory.
MAX_WAITING = 64 * 1024 * 1024
QUEUE_FULL = "FunctionInvocationRateLimitExceeded"
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
    _accept(call, function, body, context)
    return _plain(202, call.request_id)


async def invoke_async(call: Call, request: web.BaseRequest) -> web.StreamResponse:
    """Accept an event, as the API of 2014 does."""
    body = await _body(call, request, MAX_EVENT, "Event")
    function, context = _resolve(call, request)
    _accept(call, function, body, context)
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
            msg = f"{size} byte payload is too large for the Event invocation type "
            raise RequestTooLarge(f"{msg}(limit {limit} bytes)") from exc
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
    trace_id = followed(call.api, function.name, said_trace, call.request_id)
    return function, Context(None if said is None else _client_context(said), None, trace_id, arn)


def followed(api: Api, function: str, said: str | None, request_id: str) -> str:
    """Return the trace id that a function is given; raises `RecursiveInvocation`."""
    config = api.registry.get(RECURSION, function)
    may_recur = config is not None and config["RecursiveLoop"] == "Allow"
    return traces.followed(traces.of(said, request_id), function, may_recur=may_recur)


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


def _accept(call: Call, function: FunctionConfiguration, body: bytes, context: Context) -> None:
    """Run an event once, in the background."""
    api = call.api
    full = len(api.events) >= api.supervisor.settings.queue_size
    if full or api.event_bytes + len(body) > MAX_WAITING:
        raise Throttled(QUEUE_FULL)

    def over(task: asyncio.Task[None]) -> None:
        api.events.discard(task)
        api.event_bytes -= len(body)

    task = asyncio.get_running_loop().create_task(
        _run_event(call, function, body, context), name=f"event {call.request_id}"
    )
    api.events.add(task)
    api.event_bytes += len(body)
    task.add_done_callback(over)


async def _run_event(
    call: Call, function: FunctionConfiguration, body: bytes, context: Context
) -> None:
    supervisor = call.api.supervisor
    try:
        # Where nothing may run it would wait in vain.
        reserved = call.api.functions.get(function.name).reserved_concurrency
        wait = 0.0 if reserved == 0 else EVENT_WAIT
        await supervisor.run(function, body, context, call.request_id, wait=wait)
    except LambdaError as exc:
        what = f"The event {call.request_id} of {function.qualified} was not run: {exc}"
        supervisor.journal.record(journal.Trouble(what=what))


OPERATIONS: dict[str, Any] = {
    "Invoke": invoke,
    "InvokeWithResponseStream": invoke_with_response_stream,
    "InvokeAsync": invoke_async,
}
