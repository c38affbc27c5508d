"""This module is what is answered beside Lambda's operations, on the same port.

GET  /                                    who we are, as JSON: also what a health check asks
GET  /_minilambda/enforcement             what this host holds, per resource
GET  /_code/SHA256.zip?...                a package, by a link of GetFunction
any  /_url/ID/...                         a function URL; also by Host ID.lambda-url.*
POST / with X-Amz-Target: Logs_20140328.* CloudWatch Logs, read-only
POST / with Action=...                    STS GetCallerIdentity, IAM GetRole

Where keys are asked for, the first three take none; logs take one that may read them (an action
such as logs:FilterLogEvents, and the function they are of); who one is and what a role is called
anybody with a key may ask, as on AWS.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aiohttp import web

import miniλ
from miniλ import sigv4
from miniλ.errors import LambdaError, MethodNotAllowed, ResourceNotFound, UnknownOperation
from miniλ.gateway import downloads
from miniλ.gateway.aws import logs, sts_iam
from miniλ.gateway.aws.logs_request import parse
from miniλ.gateway.http import answers, bodies, loopback
from miniλ.gateway.http.auth import NOBODY, named
from miniλ.gateway.urls import serve
from miniλ.model import MAX_PAYLOAD
from miniλ.store import packages
from miniλ.store.logbook import PREFIX as GROUP_PREFIX

if TYPE_CHECKING:
    from miniλ.gateway.call import Api
    from miniλ.gateway.http.auth import Auth, Caller

URL_PREFIX = "/_url/"
ENFORCEMENT = "/_minilambda/enforcement"
MAX_CALL = 64 * 1024

_URL_HOST = re.compile(r"([a-z0-9]{32})\.lambda-url\.")


def is_url(request: web.BaseRequest) -> bool:
    """Return whether a request is to a host that is a function URL's, whatever its path is."""
    return ".lambda-url." in request.headers.get("Host", "")


async def answer(
    api: Api, auth: Auth | None, host: str, request: web.BaseRequest, request_id: str
) -> web.StreamResponse:
    """Answer a request that is none of Lambda's operations. `host` is what we listen on."""
    path, _, query = request.raw_path.partition("?")
    by_host = _URL_HOST.match(request.headers.get("Host", "")) if is_url(request) else None
    if by_host is not None:
        return await _serve_url(api, auth, request, by_host[1], path)
    if path.startswith(URL_PREFIX):
        url_id, slash, rest = path.removeprefix(URL_PREFIX).partition("/")
        return await _serve_url(api, auth, request, url_id, slash + rest or "/")
    if auth is None:
        loopback.check_visitor(request.headers, host)
    if path.startswith(downloads.PREFIX):
        return await _download(api, request, path, query, request_id)
    if path == "/" and request.method == "POST":
        return await _call(api, auth, request, query, request_id)
    if path not in {"/", ENFORCEMENT}:
        msg = f"There is nothing at {path[:200]}"
        raise UnknownOperation(msg)
    if request.method not in {"GET", "HEAD"}:
        msg = f"{request.method} is not allowed for {path}: use GET"
        raise MethodNotAllowed(msg)
    if path == ENFORCEMENT:
        if auth is not None:
            # What this host cannot hold is for those who may run something here.
            verify = auth.admit(request, path, query).verify
            if verify is not None:
                verify(sigv4.EMPTY_SHA256)
        return answers.document(200, api.parts.equipment.limits, request_id)
    about = {"service": "minilambda", "version": miniλ.__version__}
    return answers.document(200, about, request_id)


async def _serve_url(
    api: Api, auth: Auth | None, request: web.BaseRequest, url_id: str, path: str
) -> web.StreamResponse:
    """Answer a function URL. A signature, where there is one, is of the path as it was sent."""
    sent, _, query = request.raw_path.partition("?")
    visitor: Caller = NOBODY
    signed = "Authorization" in request.headers or "X-Amz-Signature=" in query
    if signed and serve.asks_who(api, url_id):
        visitor = named(request) if auth is None else auth.admit(request, sent, query)
    body = await bodies.read(request, MAX_PAYLOAD, "InvokeFunctionUrl")
    if visitor.verify is not None:
        visitor.verify(hashlib.sha256(body).hexdigest())
    return await serve.serve(api, request, url_id, path, query, body, visitor)


async def _download(
    api: Api, request: web.BaseRequest, path: str, query: str, request_id: str
) -> web.StreamResponse:
    sha256 = api.links.check(path, dict(parse_qsl(query)))
    store = api.parts.state.code
    kept = store / f"{sha256}.zip"
    headers = {"Content-Type": "application/zip", "x-amzn-RequestId": request_id}
    if kept.is_file():
        return web.FileResponse(kept, headers=headers)
    if not (store / sha256).is_dir():
        msg = "The package is not there any more: ask GetFunction for another link"
        raise ResourceNotFound(msg)
    # A function of a directory has no archive before somebody asks for one.
    made = api.uploads / f"{uuid.uuid4().hex}.zip"
    try:
        await asyncio.to_thread(packages.archive, store / sha256, made)
        response = web.FileResponse(made, headers=headers)
        await response.prepare(request)
        await response.write_eof()
    finally:
        made.unlink(missing_ok=True)
    return response


async def _call(
    api: Api, auth: Auth | None, request: web.BaseRequest, query: str, request_id: str
) -> web.StreamResponse:
    """Answer CloudWatch Logs, STS and IAM."""
    target = request.headers.get("X-Amz-Target", "")
    try:
        services = ("logs",) if target else ("sts", "iam")
        visitor = named(request) if auth is None else auth.admit(request, "/", query, services)
        body = await bodies.read(request, MAX_CALL, "service")
        if visitor.verify is not None:
            visitor.verify(hashlib.sha256(body).hexdigest())
            if target:
                _check_logs(visitor, target, body)
    except LambdaError as exc:
        return (answers.target_error if target else answers.query_error)(exc, request_id)
    place = api.functions.place
    account = visitor.account or place.account
    headers = {"x-amzn-RequestId": request_id}
    if target:
        names = [function.name for function in api.functions.all()]
        status, content = await logs.answer(
            api.parts.logbook, names, target, body, region=place.region, account=account
        )
        headers["Content-Type"] = "application/x-amz-json-1.1"
    else:
        form = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True))
        status, content = sts_iam.answer(
            form,
            account=account,
            region=place.region,
            key_id=visitor.key_id,
            request_id=request_id,
        )
        headers["Content-Type"] = "text/xml"
    return web.Response(status=status, body=content, headers=headers)


def _check_logs(visitor: Caller, target: str, body: bytes) -> None:
    """Refuse to show logs to a key that may not see them, or not those of this function."""
    asked = parse(body)
    action = f"logs:{target.removeprefix(logs.TARGET)}"
    said = (asked.log_group_name, asked.log_group_identifier, asked.resource_arn)
    groups = [text.rpartition("log-group:")[2].removesuffix(":*") for text in said if text]
    for group in groups or [""]:
        name = group.removeprefix(GROUP_PREFIX) if group.startswith(GROUP_PREFIX) else None
        visitor.check_action(action, name)
