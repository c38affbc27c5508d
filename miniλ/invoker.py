"""The invoker: from a version of a function and an event to a response.

The warm path is `Pool.lease` and `Worker.invoke`, with nothing between them. The cold path waits
for a worker, and repeats an init phase that failed. Events are checked here, and request ids made.

A failure of the function is a `Response`; only errors of miniλ are raised (`LambdaError`).
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from typing import TYPE_CHECKING

import msgspec

from miniλ import failures, model
from miniλ.errors import InvalidParameterValue, InvalidRequestContent, RequestTooLarge
from miniλ.model import Invoked, Response
from miniλ.worker.equipment import WorkerGone

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from miniλ.model import FunctionConfiguration
    from miniλ.pool.pool import Pool
    from miniλ.worker.answer_stream import AnswerStream
    from miniλ.worker.equipment import InvocationContext
    from miniλ.worker.init_phase import InitResult
    from miniλ.worker.worker import Worker

# Failures of an init phase that the supervisor makes, not the worker. Their message begins with the
# request's id, as Lambda's does.
SUPERVISOR_MADE = frozenset({"Runtime.ExitError", "Sandbox.Failure", "Runtime.TruncatedResponse"})

_ID = re.compile(r"[!-~][ -~]{0,255}")
_encode_event = msgspec.json.Encoder().encode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Invoker:
    """Runs invocations."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def invoke(
        self,
        function: FunctionConfiguration,
        payload: bytes,
        context: InvocationContext,
        request_id: str,
        wait: float = 0.0,
        stream: AnswerStream | None = None,
    ) -> Awaitable[Response]:
        """Begin an invocation, and return its response to be awaited at once. As `invoke_cold`."""
        warm = self.invoke_warm(function, payload, context, request_id, stream)
        return warm or self.invoke_cold(function, payload, context, request_id, wait, stream)

    def invoke_warm(
        self,
        function: FunctionConfiguration,
        payload: bytes,
        context: InvocationContext,
        request_id: str,
        stream: AnswerStream | None = None,
    ) -> asyncio.Future[Response] | None:
        """Begin an invocation if a worker is idle, else return None.

        The warm path: no task, and no coroutine but the caller's.
        """
        worker = self._pool.lease(function)
        if worker is None:
            return None
        try:
            return worker.invoke(request_id, payload, context, stream)
        except WorkerGone:
            return None  # it died while it was idle

    async def invoke_cold(
        self,
        function: FunctionConfiguration,
        payload: bytes,
        context: InvocationContext,
        request_id: str,
        wait: float = 0.0,
        stream: AnswerStream | None = None,
    ) -> Response:
        """Run an invocation once there is a worker. `wait`: seconds to queue for concurrency.

        Raises `Throttled`, and the error that kept a worker from starting. If the caller is
        cancelled once the function runs, it runs on to its end, and is billed, as on Lambda.
        """
        while True:
            worker = await self._pool.wait_for(function, wait)
            init = worker.initialised.result()
            # The first invocation of a worker, on this path, is its cold start.
            first = init if worker.invocations == 0 else None
            try:
                if init.status:
                    return await self._repeat_init(worker, request_id, payload, context, stream)
                return await worker.invoke(request_id, payload, context, stream, first)
            except WorkerGone:
                continue  # it died between the hand-over and now

    async def _repeat_init(
        self,
        failed: Worker,
        request_id: str,
        payload: bytes,
        context: InvocationContext,
        stream: AnswerStream | None,
    ) -> Response:
        """Repeat an init phase that failed or was late, inside this invocation and its timeout."""
        init = failed.initialised.result()
        function = failed.function
        worker = self._pool.restart(failed, function.timeout)
        began = time.monotonic()
        try:
            again = await asyncio.shield(worker.initialised)
        except asyncio.CancelledError:
            self._pool.give_back_later(worker)
            raise
        except BaseException:
            self._pool.give_back(worker)
            raise
        log = init.log + again.log
        seconds = time.monotonic() - began
        if not again.status:
            return await worker.invoke(request_id, payload, context, stream, None, seconds, log)
        failure, status, error_type = _failed_twice(function, request_id, again)
        invoked = Invoked(
            ended=time.monotonic(),
            function=function.name,
            request_id=request_id,
            seconds=seconds,
            init_seconds=None,
            memory_size_mb=function.memory_size,
            peak=worker.peak,
            worker_id=worker.worker_id,
            limits=worker.limits,
            cold=True,
            failed=True,
            book=worker.book,
            status=status,
            error_type=error_type,
        )
        response = Response(failure, invoked, b"", log, function.version)
        worker.record_failed_init(response)
        self._pool.give_back(worker)
        return response


def _failed_twice(
    function: FunctionConfiguration, request_id: str, init: InitResult
) -> tuple[bytes, str, str]:
    """Return payload, status and error type for an init phase that failed again."""
    if init.status == "timeout":
        message = f"RequestId: {request_id} Error: {failures.timed_out(function.timeout)}"
        return failures.failure_payload("Sandbox.Timedout", message), "timeout", ""
    if init.error_type not in SUPERVISOR_MADE:
        return init.payload, "error", init.error_type
    text = failures.parse_failure(init.payload).error_message
    failure = failures.failure_payload(init.error_type, f"RequestId: {request_id} {text}")
    return failure, "error", init.error_type


def encode_event(event: object) -> bytes:
    """Return an event as JSON; raises `InvalidRequestContent` or `RequestTooLarge`."""
    try:
        payload = _encode_event(event)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as exc:
        msg = f"Could not encode the event as JSON: {exc}"
        raise InvalidRequestContent(msg) from exc
    return payload if len(payload) <= model.MAX_PAYLOAD else check_size(payload)


def check_payload(payload: bytes) -> bytes:
    """Return a JSON text unchanged; raises `InvalidRequestContent` or `RequestTooLarge`."""
    if not isinstance(payload, bytes):
        msg = (
            f"payload must be JSON as bytes, got {type(payload).__name__}; "
            "pass objects as the event"
        )
        raise InvalidRequestContent(msg)
    check_size(payload)
    try:
        _check_json(payload)
        payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        msg = f"Could not parse request body into json: {exc}"
        raise InvalidRequestContent(msg) from exc
    return payload


def check_size(payload: bytes) -> bytes:
    """Return a payload unchanged; raises `RequestTooLarge` above Lambda's 6 MB."""
    if len(payload) > model.MAX_PAYLOAD:
        msg = (
            f"{len(payload)} byte payload is too large for the RequestResponse invocation type "
            f"(limit {model.MAX_PAYLOAD} bytes)"
        )
        raise RequestTooLarge(msg)
    return payload


def check_id(name: str, value: object) -> None:
    """Raise `InvalidParameterValue` for a request id or trace id that a header could not carry."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        msg = f"{name} must be 1 to 256 printable ASCII characters, got {value!r}"
        raise InvalidParameterValue(msg)


def new_request_id() -> str:
    """Return a random UUID (version 4, RFC 9562) as text."""
    while True:
        try:
            return _ids.pop()
        except IndexError:  # also if another thread's supervisor took the last one just now
            _ids.extend(_more_ids())


# How many are made at a time, each at a quarter of the cost of one alone. Those made together have
# the same middle (version, variant and 42 random bits), and each 80 random bits of its own.
_AHEAD = 32
_ids: list[str] = []


def _more_ids() -> list[str]:
    middle = os.urandom(6).hex()
    shared = f"-{middle[:4]}-4{middle[4:7]}-{'89ab'[int(middle[7], 16) & 3]}{middle[8:11]}-"
    heads = os.urandom(4 * _AHEAD).hex(" ", 4).split()
    tails = os.urandom(6 * _AHEAD).hex(" ", 6).split()
    return [head + shared + tail for head, tail in zip(heads, tails, strict=True)]


# A child that the embedding app forks must not hand out the same ids.
os.register_at_fork(after_in_child=_ids.clear)
