"""Requests to function URLs: each becomes an event, and the function's result becomes the answer.

Rule 1: as on AWS, knowing a URL is not enough. AuthType NONE needs a statement of the resource
policy that allows `lambda:InvokeFunctionUrl` to Principal "*"; AWS_IAM needs the signature of a key
that may do it. Without [auth] the gateway has no keys to verify a signature with: it takes any
that it can parse, and believes the key id.

Rule 2: web pages may call a URL, and nothing else of the gateway. The Cors of the URL decides which
pages may read the answer. A page that does not know the id, 160 random bits, reaches nothing.

Rule 3: the caller is a stranger. The text of an error of ours goes to the journal only.

Source: Lambda developer guide, "Control access to Lambda function URLs" and "Invoking Lambda
function URLs"; messages of errors: recorded answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from miniλ import journal, sigv4, traces
from miniλ.errors import AccessDenied, LambdaError, Throttled
from miniλ.gateway import invocations, policies
from miniλ.gateway.http import bodies
from miniλ.gateway.http.answers import JSON, RETRY_AFTER
from miniλ.gateway.urls import configs, cors, payloads
from miniλ.gateway.urls.payloads import BAD_GATEWAY, FORBIDDEN, UNKNOWN_URL, IamIdentity, UrlAnswer
from miniλ.gateway.urls.stream_head import StreamHead
from miniλ.invoker import new_request_id
from miniλ.model import MAX_PAYLOAD
from miniλ.store.resources import POLICY
from miniλ.worker.answer_stream import AnswerStream
from miniλ.worker.equipment import InvocationContext

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator

    from miniλ.gateway.call import Api
    from miniλ.gateway.http.auth import Caller
    from miniλ.gateway.urls.payloads import Headers
    from miniλ.model import Response

OPERATION = "InvokeFunctionUrl"

# An answer with one of these has no body, also if the function returned one (RFC 9110, 15.3.5
# and 15.4.5).
_BODILESS = frozenset({204, 304})


class _UrlRequest(NamedTuple):
    """One request to one URL: its parts, its caller and its ids."""

    api: Api
    request: web.BaseRequest
    url_id: str
    raw_path: str
    raw_query: str
    body: bytes
    caller: Caller
    request_id: str
    trace_id: str


def needs_signature(api: Api, url_id: str) -> bool:
    """Return whether a URL takes signed requests only: AuthType AWS_IAM.

    For any other URL an Authorization header is not for us: the function may read it.
    """
    url = configs.find(api.registry, url_id)
    return url is not None and url[2]["AuthType"] == "AWS_IAM"


async def serve(
    api: Api,
    request: web.BaseRequest,
    url_id: str,
    raw_path: str,
    raw_query: str,
    body: bytes,
    caller: Caller,
) -> web.StreamResponse:
    """Answer a request to a function URL; an error is an answer too.

    `raw_path` and `raw_query` are as they were sent, without the prefix that leads to this URL.
    `caller` is the signer, with [auth] verified together with this body; `ANONYMOUS` without a
    signature.
    """
    request_id = new_request_id()
    trace_id = traces.of(request.headers.get(traces.HEADER), request_id)
    ids = {"x-amzn-RequestId": request_id, "x-amzn-trace-id": trace_id}
    url = configs.find(api.registry, url_id)
    if url is None:
        return _whole(UNKNOWN_URL, ids)
    function, alias, config = url
    rules = msgspec.convert(config["Cors"], cors.Cors) if config["Cors"] else None
    preflight_headers = cors.preflight(rules, request.method, request.headers.items())
    if preflight_headers is not None:
        # Before the caller is checked: browsers do not sign preflights.
        return _whole(UrlAnswer(200, preflight_headers), ids)
    incoming = _UrlRequest(
        api, request, url_id, raw_path, raw_query, body, caller, request_id, trace_id
    )
    stream = AnswerStream() if config["InvokeMode"] == "RESPONSE_STREAM" else None
    result = await _run(incoming, function, alias, config["AuthType"], stream)
    origin = request.headers.get("Origin")
    if isinstance(result, UrlAnswer):
        return _whole(_with_cors(result, rules, origin), ids)
    if stream is None:
        return _whole(_with_cors(payloads.answer((await result).body), rules, origin), ids)
    try:
        pieces = _pieces(stream, result)
        head, start = await _read_head(StreamHead(stream.content_type), pieces)
        head = _with_cors(head, rules, origin)
        if head.body:
            return _whole(head, ids)
        return await _streamed(request, head, ids, start, pieces)
    finally:
        stream.drop()  # a client that leaves does not block the function


# From a request to a result


async def _run(
    incoming: _UrlRequest, function: str, alias: str, auth_type: str, stream: AnswerStream | None
) -> asyncio.Future[Response] | UrlAnswer:
    """Return the response of the function, or the answer of a request that has none.

    Without a `stream` the response is complete; with one, its first bytes are there.
    """
    api = incoming.api
    try:
        if auth_type == "NONE":
            identity = None
            _check_public(api, function, alias)
        else:
            identity = _identify(incoming, function)
        payload = _payload(incoming, identity)
        if len(payload) > MAX_PAYLOAD:
            raise bodies.too_large(MAX_PAYLOAD, OPERATION)
        version = api.functions.resolve(function, alias)
        arn = api.functions.place.function(function, alias) if alias else None
        trace_id = api.functions.extend_trace(function, incoming.trace_id, incoming.request_id)
        context = InvocationContext(trace_id=trace_id, arn=arn)
        running = api.parts.invoker.invoke(
            version, payload, context, incoming.request_id, stream=stream
        )
        result = invocations.begin(api.parts.invocations, running, stream)
        if stream is None:
            await result
        else:
            await stream.wait_for_first_piece()
        is_failure = result.done() and result.result().is_failure
    except LambdaError as exc:
        return _error(incoming, exc)
    return BAD_GATEWAY if is_failure else result


def _check_public(api: Api, function: str, alias: str) -> None:
    """Refuse the caller, unless the resource policy allows the URL to Principal "*"."""
    policy = api.registry.get(POLICY, function, alias)
    if not policies.allows(policy, action=f"lambda:{OPERATION}", principal="*", url_auth="NONE"):
        msg = f"No statement of a policy opens the URL of {function} to all callers"
        raise AccessDenied(msg)


def _identify(incoming: _UrlRequest, function: str) -> IamIdentity:
    """Return the identity of a signer that may call this function; raises `AccessDenied`."""
    caller, parts = incoming.caller, incoming.api.parts
    key_id = caller.key_id
    if parts.settings.auth is None:
        key_id = sigv4.parse(incoming.raw_query, incoming.request.headers.items()).key_id
    elif not key_id:
        msg = "The request is not signed"
        raise AccessDenied(msg)
    caller.check_may(OPERATION, function)
    account = caller.account or parts.functions.place.account
    return IamIdentity(
        access_key=key_id,
        account_id=account,
        caller_id=key_id,
        user_arn=f"arn:aws:iam::{account}:root",
        user_id=key_id,
    )


def _payload(incoming: _UrlRequest, identity: IamIdentity | None) -> bytes:
    request = incoming.request
    # With AWS_IAM the header was a signature for us; otherwise it is for the function.
    headers = [
        (name, value)
        for name, value in request.headers.items()
        if identity is None or name.lower() != "authorization"
    ]
    version = request.version
    return payloads.request_payload(
        method=request.method,
        raw_path=incoming.raw_path,
        raw_query=incoming.raw_query,
        protocol=f"HTTP/{version.major}.{version.minor}",
        headers=headers,
        body=incoming.body,
        source_ip=request.remote or "",
        scheme=request.scheme,
        port=urlsplit(incoming.api.base_url).port or 0,
        url_id=incoming.url_id,
        domain_name=f"{incoming.url_id}.lambda-url.{incoming.api.functions.place.region}.localhost",
        request_id=incoming.request_id,
        trace_id=incoming.trace_id,
        now=time.time(),
        identity=identity,
    )


def _error(incoming: _UrlRequest, exc: LambdaError) -> UrlAnswer:
    """Return the answer for an error; the text of one of ours goes to the journal instead."""
    if isinstance(exc, AccessDenied):
        return FORBIDDEN
    headers: Headers = (("Content-Type", JSON), ("x-amzn-ErrorType", exc.code))
    text = str(exc)
    if isinstance(exc, Throttled):
        text = "Rate Exceeded."
        headers = (*headers, ("Retry-After", RETRY_AFTER))
    elif exc.is_ours:
        request = f"Request {incoming.request_id} to the function URL {incoming.url_id}"
        what = f"{request} was answered with {exc.status}: {exc}"
        incoming.api.parts.journal.record(journal.Trouble(what=what))
        text = "An error occurred and the request cannot be processed."
    return UrlAnswer(exc.status, headers, msgspec.json.encode({"Message": text}))


# From a result to an answer


async def _pieces(stream: AnswerStream, result: asyncio.Future[Response]) -> AsyncIterator[bytes]:
    """Yield an answer as it comes; one that fails in the middle just ends, as on AWS."""
    async for piece in stream:
        yield piece
    response = await result
    if response.body and not response.is_failure:
        yield response.body


async def _read_head(
    stream_head: StreamHead, pieces: AsyncIterator[bytes]
) -> tuple[UrlAnswer, bytes]:
    """Return the head of a streamed answer, and the start of its body."""
    async for piece in pieces:
        result = stream_head.feed(piece)
        if result is not None:
            return result
    return stream_head.end(), b""


def _with_cors(answer: UrlAnswer, rules: cors.Cors | None, origin: str | None) -> UrlAnswer:
    headers = cors.applied(rules, origin, answer.headers)
    return msgspec.structs.replace(answer, headers=headers)


def _headers(answer: UrlAnswer, ids: dict[str, str]) -> CIMultiDict[str]:
    headers = CIMultiDict(answer.headers)
    headers.update(ids)
    return headers


def _whole(answer: UrlAnswer, ids: dict[str, str]) -> web.Response:
    return web.Response(status=answer.status, headers=_headers(answer, ids), body=answer.body)


async def _streamed(
    request: web.BaseRequest,
    head: UrlAnswer,
    ids: dict[str, str],
    start: bytes,
    pieces: AsyncIterator[bytes],
) -> web.StreamResponse:
    response = web.StreamResponse(status=head.status, headers=_headers(head, ids))
    await response.prepare(request)
    has_body = request.method != "HEAD" and head.status not in _BODILESS
    if has_body and start:
        await response.write(start)
    # All pieces are taken, also of an answer without a body: the function runs to its end.
    async for piece in pieces:
        if has_body and piece:
            await response.write(piece)
    await response.write_eof()
    return response
