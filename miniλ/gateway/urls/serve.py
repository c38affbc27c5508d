"""This module is function URLs as they are served: a request becomes an event, a result an answer.

Rule 1: as on AWS, nobody is let in by the URL alone. AuthType NONE takes a statement of the
resource policy that lets everybody (Principal "*") do `lambda:InvokeFunctionUrl`; AWS_IAM takes
the signature of a key that may do it. Where the gateway has no [auth] there is nobody to verify
it against: then any signature that can be read will do, and is whose it says.

Rule 2: web pages may call, which nothing else in the gateway lets them; the Cors of a URL says
which of them may read the answer. Who does not know an id, 160 random bits, reaches nothing.

Rule 3: who calls is a stranger. What went wrong on our side is for the journal.

Source: Lambda developer guide, "Control access to Lambda function URLs" and "Invoking Lambda
function URLs"; what errors say: recorded answers.
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
from miniλ.gateway.urls.payloads import BAD_GATEWAY, FORBIDDEN, UNKNOWN_URL, Identity, UrlAnswer
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

# There is no body in these, whatever the function returned (RFC 9110, 15.3.5 and 15.4.5).
_BODILESS = frozenset({204, 304})


class _Visit(NamedTuple):
    """One request to one URL, and what it is known by."""

    api: Api
    request: web.BaseRequest
    url_id: str
    raw_path: str
    raw_query: str
    body: bytes
    caller: Caller
    request_id: str
    trace_id: str


def asks_who(api: Api, url_id: str) -> bool:
    """Return whether a URL asks who calls: AuthType AWS_IAM.

    For any other, an Authorization header is no signature of ours but the function's own affair.
    """
    found = configs.find(api.registry, url_id)
    return found is not None and found[2]["AuthType"] == "AWS_IAM"


async def serve(
    api: Api,
    request: web.BaseRequest,
    url_id: str,
    raw_path: str,
    raw_query: str,
    body: bytes,
    caller: Caller,
) -> web.StreamResponse:
    """Answer a request to a function URL, whatever it comes to.

    `raw_path` and `raw_query` are as they were sent, but for what leads to this URL. `caller` is
    who signed: where the gateway has [auth] verified, with this body; NOBODY if nobody did.
    """
    request_id = new_request_id()
    trace_id = traces.of(request.headers.get(traces.HEADER), request_id)
    ids = {"x-amzn-RequestId": request_id, "x-amzn-trace-id": trace_id}
    found = configs.find(api.registry, url_id)
    if found is None:
        return _whole(UNKNOWN_URL, ids)
    function, alias, config = found
    rules = msgspec.convert(config["Cors"], cors.Cors) if config["Cors"] else None
    allowed = cors.preflight(rules, request.method, request.headers.items())
    if allowed is not None:
        # Before anybody is asked who they are: browsers do not sign these.
        return _whole(UrlAnswer(200, allowed), ids)
    visit = _Visit(api, request, url_id, raw_path, raw_query, body, caller, request_id, trace_id)
    stream = AnswerStream() if config["InvokeMode"] == "RESPONSE_STREAM" else None
    result = await _run(visit, function, alias, config["AuthType"], stream)
    origin = request.headers.get("Origin")
    if isinstance(result, UrlAnswer):
        return _whole(_shared(result, rules, origin), ids)
    if stream is None:
        return _whole(_shared(payloads.answer((await result).body), rules, origin), ids)
    try:
        pieces = _pieces(stream, result)
        head, start = await _begun(StreamHead(stream.content_type), pieces)
        head = _shared(head, rules, origin)
        if head.body:
            return _whole(head, ids)
        return await _streamed(request, head, ids, start, pieces)
    finally:
        stream.drop()  # a client that leaves does not hold the function


# From a request to a result


async def _run(
    visit: _Visit, function: str, alias: str, auth_type: str, stream: AnswerStream | None
) -> asyncio.Future[Response] | UrlAnswer:
    """Return what the function answers, or why there is nothing of it to be shown.

    With a `stream` the answer has only begun; without, it is there.
    """
    api = visit.api
    try:
        if auth_type == "NONE":
            identity = None
            _check_public(api, function, alias)
        else:
            identity = _identify(visit, function)
        payload = _payload(visit, identity)
        if len(payload) > MAX_PAYLOAD:
            raise bodies.too_large(MAX_PAYLOAD, OPERATION)
        version = api.functions.resolve(function, alias)
        arn = api.functions.place.function(function, alias) if alias else None
        trace_id = api.functions.traced(function, visit.trace_id, visit.request_id)
        context = InvocationContext(trace_id=trace_id, arn=arn)
        running = api.parts.invoker.invoke(
            version, payload, context, visit.request_id, stream=stream
        )
        result = invocations.begin(running, stream)
        if stream is None:
            await result
        else:
            await stream.begins()
        failed = result.done() and result.result().is_failure
    except LambdaError as exc:
        return _refused(visit, exc)
    return BAD_GATEWAY if failed else result


def _check_public(api: Api, function: str, alias: str) -> None:
    """Refuse everybody, unless the resource policy lets everybody in."""
    policy = api.registry.get(POLICY, function, alias)
    if not policies.allows(policy, action=f"lambda:{OPERATION}", principal="*", url_auth="NONE"):
        msg = f"No policy lets everybody call the URL of {function}"
        raise AccessDenied(msg)


def _identify(visit: _Visit, function: str) -> Identity:
    """Return who signed, if that is somebody who may call this function; raises `AccessDenied`."""
    caller, parts = visit.caller, visit.api.parts
    key_id = caller.key_id
    if parts.settings.auth is None:
        key_id = sigv4.parse(visit.raw_query, visit.request.headers.items()).key_id
    elif not key_id:
        msg = "Nobody signed"
        raise AccessDenied(msg)
    caller.check_may(OPERATION, function)
    account = caller.account or parts.functions.place.account
    return Identity(
        access_key=key_id,
        account_id=account,
        caller_id=key_id,
        user_arn=f"arn:aws:iam::{account}:root",
        user_id=key_id,
    )


def _payload(visit: _Visit, identity: Identity | None) -> bytes:
    request = visit.request
    # A signature was for us; that of another scheme is for the function.
    headers = [
        (name, value)
        for name, value in request.headers.items()
        if identity is None or name.lower() != "authorization"
    ]
    version = request.version
    return payloads.event(
        method=request.method,
        raw_path=visit.raw_path,
        raw_query=visit.raw_query,
        protocol=f"HTTP/{version.major}.{version.minor}",
        headers=headers,
        body=visit.body,
        source_ip=request.remote or "",
        scheme=request.scheme,
        port=urlsplit(visit.api.base_url).port or 0,
        url_id=visit.url_id,
        domain_name=f"{visit.url_id}.lambda-url.{visit.api.functions.place.region}.localhost",
        request_id=visit.request_id,
        trace_id=visit.trace_id,
        now=time.time(),
        identity=identity,
    )


def _refused(visit: _Visit, exc: LambdaError) -> UrlAnswer:
    """Return the answer for an error of ours; of our own faults a stranger hears nothing."""
    if isinstance(exc, AccessDenied):
        return FORBIDDEN
    headers: Headers = (("Content-Type", JSON), ("x-amzn-ErrorType", exc.code))
    text = str(exc)
    if isinstance(exc, Throttled):
        text = "Rate Exceeded."
        headers = (*headers, ("Retry-After", RETRY_AFTER))
    elif exc.is_ours:
        what = f"Request {visit.request_id} to the function URL {visit.url_id}: {exc}"
        visit.api.parts.journal.record(journal.Trouble(what=what))
        text = "An error occurred and the request cannot be processed."
    return UrlAnswer(exc.status, headers, msgspec.json.encode({"Message": text}))


# From a result to an answer


async def _pieces(stream: AnswerStream, result: asyncio.Future[Response]) -> AsyncIterator[bytes]:
    """Yield an answer as it comes; one that fails in the middle only ends, as on AWS."""
    async for piece in stream:
        yield piece
    response = await result
    if response.body and not response.is_failure:
        yield response.body


async def _begun(prelude: StreamHead, pieces: AsyncIterator[bytes]) -> tuple[UrlAnswer, bytes]:
    """Return the head of a streamed answer, and what of its body came with it."""
    async for piece in pieces:
        begun = prelude.feed(piece)
        if begun is not None:
            return begun
    return prelude.end(), b""


def _shared(answer: UrlAnswer, rules: cors.Cors | None, origin: str | None) -> UrlAnswer:
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
    # To its end, also where nobody reads it: the function is not interrupted by who asked.
    async for piece in pieces:
        if has_body and piece:
            await response.write(piece)
    await response.write_eof()
    return response
