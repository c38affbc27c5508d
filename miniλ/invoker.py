"""This module is the invoker: from a function and an event to a response.

The warm path is here in full: take a worker, send the frame, wait for its outcome, report.
What a function prints, START, END and REPORT are put together only when somebody reads them.

A failure of the function is a `Response`; raised are only errors of ours (`LambdaError`).
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

import msgspec

from miniλ import billing, journal, model, wire
from miniλ.errors import InvalidRequestContent, RequestTooLarge
from miniλ.model import Outcome, Report, Response
from miniλ.worker import MB

if TYPE_CHECKING:
    from collections.abc import Callable

    from miniλ.model import FunctionConfiguration
    from miniλ.pool import Pool
    from miniλ.worker import Host, Init, Worker

_encode_event = msgspec.json.Encoder().encode
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Context:
    """What a caller may say beside the event: JSON texts for `client_context` and `identity`."""

    __slots__ = ("client_context", "identity", "trace_id")

    def __init__(
        self,
        client_context: str | None = None,
        identity: str | None = None,
        trace_id: str | None = None,
    ) -> None:
        self.client_context = client_context
        self.identity = identity
        self.trace_id = trace_id


_NO_CONTEXT = Context()


class Invoker:
    """Runs invocations on a pool."""

    def __init__(self, host: Host, pool: Pool) -> None:
        self._host = host
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._book = billing.BOOKS[host.settings.price_book]
        self._arn = f"arn:aws:lambda:{host.settings.region}:{host.settings.account}:function:"

    async def invoke(
        self,
        function: FunctionConfiguration,
        body: bytes,
        wait: float = 0.0,
        context: Context = _NO_CONTEXT,
        request_id: str | None = None,
    ) -> Response:
        """Run one invocation. `wait`: how many seconds it may queue for concurrency.

        Raises `Throttled`, and what kept a worker from starting. If the caller is cancelled
        the function runs on to its end, and is billed, as on Lambda.
        """
        request_id = request_id or new_request_id()
        worker = self._pool.take(function)
        if worker is not None:
            self._pool.note_use(worker)
            self._pool.watch()
            return await self._run(worker, request_id, body, context, None)
        worker = await self._pool.wait_for(function, wait)
        init = worker.initialised.result()
        self._pool.note_use(worker)
        self._pool.watch()
        if init.status:
            return await self._run_with_init(worker, request_id, body, context)
        # Whoever is first on a new worker waited for its init phase: a cold start.
        return await self._run(
            worker, request_id, body, context, init if worker.invocations == 0 else None
        )

    def _run(
        self,
        worker: Worker,
        request_id: str,
        body: bytes,
        context: Context,
        init: Init | None,
        spent: float = 0.0,
        log: bytes = b"",
    ) -> asyncio.Future[Response]:
        """Send the invocation; return the future of its response."""
        function = worker.function
        future: asyncio.Future[Response] = self._loop.create_future()

        def done(outcome: Outcome) -> None:
            response = self._respond(worker, request_id, outcome, init, spent, log)
            self._pool.release(worker)
            if not future.done():
                future.set_result(response)

        timeout = function.timeout - spent
        head = wire.Invoke(
            request_id,
            int((time.time() + timeout) * 1000),
            self._arn + function.name,
            context.trace_id,
            context.client_context,
            context.identity,
        )
        worker.begin(wire.encode(head, body), request_id, timeout, done)
        return future

    async def _run_with_init(
        self, failed: Worker, request_id: str, body: bytes, context: Context
    ) -> Response:
        """Repeat an init phase that failed or was late, inside this invocation and its timeout."""
        init = failed.initialised.result()
        function = failed.function
        worker = self._pool.restart(failed, function.timeout)
        began = time.monotonic()
        try:
            again = await asyncio.shield(worker.initialised)
        except BaseException:
            self._pool.release(worker)
            raise
        log = init.log + again.log
        if not again.status:
            return await self._run(
                worker, request_id, body, context, None, time.monotonic() - began, log
            )
        outcome = _init_outcome(function, request_id, again, began)
        response = self._respond(worker, request_id, outcome, None, 0.0, log)
        self._pool.release(worker)
        return response

    def _respond(
        self,
        worker: Worker,
        request_id: str,
        outcome: Outcome,
        init: Init | None,
        spent: float,
        log: bytes,
    ) -> Response:
        """Put report and response together, and bill."""
        function = worker.function
        duration_ms = (outcome.ended - outcome.started + spent) * 1000
        init_ms = None if init is None else init.seconds * 1000
        report = Report(
            request_id,
            duration_ms,
            billing.billed_ms(duration_ms, init_ms, self._book),
            init_ms,
            function.memory_size,
            # Rounded up: a worker that used anything used a megabyte.
            -(-outcome.max_memory // MB),
            worker.worker_id,
            worker.limits,
            init is not None or bool(log),
            outcome.status,
            outcome.error_type,
        )
        failed = outcome.failed
        self._host.journal.record(
            journal.Invoked(
                at=outcome.ended, function=function.name, report=report, failed=failed
            )
        )
        return Response(
            outcome.body, failed, report, outcome.log, log if init is None else init.log
        )


def _init_outcome(
    function: FunctionConfiguration, request_id: str, init: Init, began: float
) -> Outcome:
    """Return how an invocation ended whose repeated init phase failed or was late."""
    ended = time.monotonic()
    body, status, error_type = init.body, "error", init.error_type
    if init.status == "timeout":
        message = f"RequestId: {request_id} Error: Task timed out after {function.timeout:.2f} seconds"
        body, status, error_type = model.failure_body("Sandbox.Timedout", message), "timeout", ""
    elif error_type in ("Runtime.ExitError", "Sandbox.Failure", "Runtime.TruncatedResponse"):
        text = model.parse_failure(body).error_message
        body = model.failure_body(error_type, f"RequestId: {request_id} {text}")
    return Outcome(body, True, began, ended, 0, b"", status, error_type)  # noqa: FBT003


def encode_event(event: object, default: Callable[[object], object] | None = None) -> bytes:
    """Return an event as JSON; raises `InvalidRequestContent` or `RequestTooLarge`."""
    try:
        body = _encode_event(event) if default is None else msgspec.json.encode(event, enc_hook=default)
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as exc:
        msg = f"Could not encode the event as JSON: {exc}"
        raise InvalidRequestContent(msg) from exc
    return check_size(body)


def check_event(body: bytes) -> bytes:
    """Return a JSON text as it is; raises `InvalidRequestContent` or `RequestTooLarge`."""
    check_size(body)
    try:
        _check_json(body)
        body.decode()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        msg = f"Could not parse request body into json: {exc}"
        raise InvalidRequestContent(msg) from exc
    return body


def check_size(body: bytes) -> bytes:
    """Refuse an event above Lambda's 6 MB."""
    if len(body) > model.MAX_PAYLOAD:
        msg = (
            f"{len(body)} byte payload is too large for the RequestResponse invocation type "
            f"(limit {model.MAX_PAYLOAD} bytes)"
        )
        raise RequestTooLarge(msg)
    return body


def new_request_id() -> str:
    """Return a random UUID (version 4) as text."""
    digits = os.urandom(16).hex()
    return (
        f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-"
        f"{'89ab'[int(digits[16], 16) & 3]}{digits[17:20]}-{digits[20:]}"
    )
