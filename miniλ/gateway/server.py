"""The gateway's server: from a request to its answer.

A request passes, in this order: the limits of a connection (`connections`); the check that it
comes from this machine (`loopback`), or of its key (`auth`); then it is one of Lambda's
operations, or it is for `routes`: a download of a package, a call of CloudWatch Logs, STS or IAM.

A plain warm Invoke without [auth] is answered before: `http.fast_path`. Function URLs have checks
of their own, by AuthType: `urls.serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import http_parser, web
from multidict import MultiDict

from miniλ import journal, names
from miniλ.errors import (
    LambdaError,
    SerializationFailed,
    ServiceError,
    UnsupportedMediaType,
)
from miniλ.gateway import (
    attributes,
    concurrency,
    downloads,
    event_invoke,
    functions,
    invocations,
    layers,
    mappings,
    not_offered,
    policies,
    routes,
    uploads,
    versions,
)
from miniλ.gateway.call import Api, Call
from miniλ.gateway.http import answers, bodies, connections, loopback
from miniλ.gateway.http.auth import Auth, unverified
from miniλ.gateway.http.fast_path import FastPath
from miniλ.gateway.service_model import inputs, operations, validate
from miniλ.gateway.urls import configs
from miniλ.invoker import new_request_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from miniλ.gateway.http.auth import Caller
    from miniλ.gateway.service_model.operations import Operation
    from miniλ.supervisor import Supervisor

# Requests without an archive: the largest are policies and environments.
MAX_DOCUMENT = 1024 * 1024
# The grace period of requests in flight when the gateway closes.
DRAIN_SECONDS = 30.0

DOCUMENTS: dict[str, Callable[[Call], Awaitable[Any]]] = {
    **functions.OPERATIONS,
    **versions.OPERATIONS,
    **layers.OPERATIONS,
    **configs.OPERATIONS,
    **policies.OPERATIONS,
    **concurrency.OPERATIONS,
    **event_invoke.OPERATIONS,
    **attributes.OPERATIONS,
    **mappings.OPERATIONS,
    **not_offered.OPERATIONS,
}


class Gateway:
    """The HTTP front door of a supervisor. Use it with `async with`, inside the supervisor's.

    `port` 0 takes a free one; `address` says which. Raises `InvalidParameterValue` for an address
    that other machines reach if no keys are configured, `ServiceError` if it cannot be bound.
    """

    def __init__(self, supervisor: Supervisor, host: str = "127.0.0.1", port: int = 9001) -> None:
        self._supervisor = supervisor
        self._host = host
        self._port = port
        self._undo: contextlib.AsyncExitStack | None = None

    def __repr__(self) -> str:
        return f"<Gateway {self._host}:{self._port}>"

    @property
    def address(self) -> str:
        """Where it listens, as http://127.0.0.1:9001."""
        return self._api.base_url

    async def __aenter__(self) -> Self:
        """Listen."""
        if "_http_parser" not in http_parser.HttpRequestParser.__module__:
            # aiohttp's parser in Python has had request smuggling holes that the one in C had not.
            msg = "aiohttp is here without its parser in C: install a wheel of it, or a compiler"
            raise ServiceError(msg)
        parts = self._supervisor.parts
        settings = parts.settings
        self._auth = Auth(settings) if settings.auth is not None else None
        loopback.check_listening(self._host, has_auth=self._auth is not None)
        self._api = Api(parts, downloads.DownloadLinks())
        async with contextlib.AsyncExitStack() as undo:
            fast_path = FastPath(parts) if self._auth is None else None
            server = connections.Server(self._answer, fast_path)
            runner = web.ServerRunner(server, shutdown_timeout=DRAIN_SECONDS)
            await runner.setup()
            undo.push_async_callback(parts.delivery.drain, DRAIN_SECONDS)
            undo.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, self._host, self._port)
            try:
                await site.start()
            except OSError as exc:
                msg = f"Cannot listen on {self._host}:{self._port}: {_bind_failure(exc)}"
                raise ServiceError(msg) from exc
            self._port = runner.addresses[0][1]
            shown = f"[{self._host}]" if ":" in self._host else self._host
            self._api.base_url = f"http://{shown}:{self._port}"
            self._undo = undo.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop listening; requests in flight are answered, and accepted events run."""
        undo, self._undo = self._undo, None
        if undo is not None:
            await undo.aclose()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = new_request_id()
        try:
            return await self._dispatch(request, request_id)
        except LambdaError as exc:
            return answers.error(exc, request_id)
        except (ConnectionError, asyncio.CancelledError):
            raise  # the client has left, or the gateway closes
        except Exception as exc:  # noqa: BLE001 - the gateway's rule 1
            request_line = f"{request.method} {request.path}"
            what = f"A bug of miniλ: {request_line} was answered with 500: {exc!r}"
            self._api.parts.journal.record(journal.Trouble(what=what))
            msg = f"The server made a mistake with request {request_id}: it is in its journal"
            return answers.error(ServiceError(msg), request_id)

    async def _dispatch(self, request: web.BaseRequest, request_id: str) -> web.StreamResponse:
        path, _, query_text = request.raw_path.partition("?")
        if not path.startswith("/20") or routes.is_url(request):
            return await routes.answer(self._api, self._auth, self._host, request, request_id)
        caller = self._admit(request, path, query_text)
        query: Any = MultiDict(parse_qsl(query_text, keep_blank_values=True)) if query_text else {}
        operation, in_path = operations.match(request.method, path, query)
        if "FunctionName" in in_path:
            caller.check_may(operation.name, in_path["FunctionName"])
        run = invocations.OPERATIONS.get(operation.name)
        if run is not None:
            params = validate.parameters(operation, in_path, query, request.headers, None)
            call = self._call(operation, params, caller, request_id)
            answer: web.StreamResponse = await run(call, request)
            return answer
        return await self._operate(request, operation, in_path, query, caller, request_id)

    def _admit(self, request: web.BaseRequest, path: str, query: str) -> Caller:
        if self._auth is not None:
            return self._auth.admit(request, path, query)
        loopback.check_caller(request.headers, self._host)
        return unverified(request)

    def _call(
        self, operation: Operation, params: dict[str, Any], caller: Caller, request_id: str
    ) -> Call:
        place = self._api.functions.place
        account = caller.account
        if account and account != place.account:
            place = names.Place(place.region, account)
        call = Call(self._api, operation, params, place, request_id, caller.key_id)
        call.verify = caller.verify
        return call

    async def _operate(
        self,
        request: web.BaseRequest,
        operation: Operation,
        in_path: dict[str, str],
        query: Any,  # noqa: ANN401 - a dict, or a dict with repeated keys
        caller: Caller,
        request_id: str,
    ) -> web.StreamResponse:
        """Answer an operation that takes a document and gives one."""
        archive = None
        try:
            if operation.name in uploads.PARTS:
                _check_media(request)
                document, archive = await uploads.receive(
                    request, operation.name, self._api.uploads, caller.verify
                )
            else:
                document = await self._document(request, operation.name, caller)
            params = (
                validate.parameters(operation, in_path, query, request.headers, document)
                if operation.name in inputs.INPUTS
                else in_path
            )
            if "FunctionName" not in in_path:
                caller.check_params(operation.name, params, self._api.registry)
            call = self._call(operation, params, caller, request_id)
            call.upload = archive
            try:
                content = await DOCUMENTS[operation.name](call)
            finally:
                archive = archive or call.upload
        finally:
            if archive is not None:
                archive.path.unlink(missing_ok=True)
        return answers.document(operation.status, content, request_id)

    async def _document(self, request: web.BaseRequest, operation: str, caller: Caller) -> object:
        body = await bodies.read(request, MAX_DOCUMENT, operation)
        if caller.verify is not None:
            caller.verify(hashlib.sha256(body).hexdigest())
        if not body:
            return None
        _check_media(request)
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            msg = f"Could not parse request body into json: {exc}"
            raise SerializationFailed(msg) from exc


def _bind_failure(error: OSError) -> str:
    """Return why an address cannot be bound, in the words of the C library."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)  # a name that does not resolve has no errno
    reason = os.strerror(error.errno).lower()
    if error.errno in (errno.EADDRINUSE, errno.EACCES):
        reason += "; take another --port, or 0 for a free one"
    return reason


def _check_media(request: web.BaseRequest) -> None:
    """Refuse a document whose Content-Type says that it is none: a web form, a picture."""
    kind = request.headers.get("Content-Type", "")
    essence = kind.partition(";")[0].strip().lower()
    if essence and "json" not in essence and essence not in _NEUTRAL:
        msg = f"Unsupported Media Type: {essence[:80]}; send application/json"
        raise UnsupportedMediaType(msg)


# Types that tools send by default: curl's -d, and streams of bytes.
_NEUTRAL = frozenset({"application/x-www-form-urlencoded", "application/octet-stream"})
