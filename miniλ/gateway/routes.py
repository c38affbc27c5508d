"""Routes beside Lambda's operations, on the same port.

GET  /                                    name and version as JSON, for health checks
GET  /_minilambda/enforcement             the limits that this host enforces, per resource
GET  /_code/SHA256.zip?...                a package, by a download link of GetFunction
any  /_url/ID/...                         a function URL; also by Host ID.lambda-url.*
POST / with X-Amz-Target: Logs_20140328.* CloudWatch Logs, read-only
POST / with Action=...                    STS GetCallerIdentity, IAM GetRole

With the settings' [auth] section, / and /_code need no key (a link is signed by us), and a function
URL has its own AuthType. Enforcement takes any key; so do STS and IAM, as on AWS. Logs take a key
that may read them, by action (logs:FilterLogEvents) and by the function that a group is of.
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
from miniλ.gateway.http.auth import ANONYMOUS, unverified
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
    """Return whether a request is to the host of a function URL; its path does not matter then."""
    return ".lambda-url." in request.headers.get("Host", "")


async def answer(
    api: Api, auth: Auth | None, host: str, request: web.BaseRequest, request_id: str
) -> web.StreamResponse:
    """Answer a request that is not for an operation of Lambda. `host` is what we listen on."""
    path, _, query = request.raw_path.partition("?")
    by_host = _URL_HOST.match(request.headers.get("Host", "")) if is_url(request) else None
    if by_host is not None:
        return await _serve_url(api, auth, request, by_host[1], path)
    if path.startswith(URL_PREFIX):
        url_id, slash, rest = path.removeprefix(URL_PREFIX).partition("/")
        return await _serve_url(api, auth, request, url_id, slash + rest or "/")
    if auth is None:
        loopback.check_caller(request.headers, host)
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
            # The limits that this host cannot enforce are shown only to callers with a key.
            verify = auth.admit(request, path, query).verify
            if verify is not None:
                verify(sigv4.EMPTY_SHA256)
        return answers.document(200, api.parts.equipment.limits, request_id)
    about = {"service": "minilambda", "version": miniλ.__version__}
    return answers.document(200, about, request_id)


async def _serve_url(
    api: Api, auth: Auth | None, request: web.BaseRequest, url_id: str, path: str
) -> web.StreamResponse:
    """Answer a function URL. A signature covers the path as it was sent, `/_url/ID` included."""
    raw_path, _, query = request.raw_path.partition("?")
    caller: Caller = ANONYMOUS
    has_signature = "Authorization" in request.headers or "X-Amz-Signature=" in query
    if has_signature and serve.needs_signature(api, url_id):
        caller = unverified(request) if auth is None else auth.admit(request, raw_path, query)
    body = await bodies.read(request, MAX_PAYLOAD, "InvokeFunctionUrl")
    if caller.verify is not None:
        caller.verify(hashlib.sha256(body).hexdigest())
    return await serve.serve(api, request, url_id, path, query, body, caller)


async def _download(
    api: Api, request: web.BaseRequest, path: str, query: str, request_id: str
) -> web.StreamResponse:
    sha256 = api.links.check(path, dict(parse_qsl(query)))
    store = api.parts.state.code
    archive = store / f"{sha256}.zip"
    headers = {"Content-Type": "application/zip", "x-amzn-RequestId": request_id}
    if archive.is_file():
        return web.FileResponse(archive, headers=headers)
    if not (store / sha256).is_dir():
        msg = "The package is not there any more: ask GetFunction for another link"
        raise ResourceNotFound(msg)
    # A function that was created from a directory has no archive: one is made for this request.
    temporary = api.uploads / f"{uuid.uuid4().hex}.zip"
    try:
        await asyncio.to_thread(packages.archive, store / sha256, temporary)
        response = web.FileResponse(temporary, headers=headers)
        await response.prepare(request)
        await response.write_eof()
    finally:
        temporary.unlink(missing_ok=True)
    return response


async def _call(
    api: Api, auth: Auth | None, request: web.BaseRequest, query: str, request_id: str
) -> web.StreamResponse:
    """Answer a call of CloudWatch Logs, STS or IAM."""
    target = request.headers.get("X-Amz-Target", "")
    try:
        services = ("logs",) if target else ("sts", "iam")
        caller = unverified(request) if auth is None else auth.admit(request, "/", query, services)
        body = await bodies.read(request, MAX_CALL, "service")
        if caller.verify is not None:
            caller.verify(hashlib.sha256(body).hexdigest())
            if target:
                _check_logs(caller, target, body)
    except LambdaError as exc:
        return (answers.target_error if target else answers.query_error)(exc, request_id)
    place = api.functions.place
    account = caller.account or place.account
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
            key_id=caller.key_id,
            request_id=request_id,
        )
        headers["Content-Type"] = "text/xml"
    return web.Response(status=status, body=content, headers=headers)


def _check_logs(caller: Caller, target: str, body: bytes) -> None:
    """Refuse a key that may not do this with the logs of each function in the request."""
    params = parse(body)
    action = f"logs:{target.removeprefix(logs.TARGET)}"
    mentioned = (params.log_group_name, params.log_group_identifier, params.resource_arn)
    groups = [text.rpartition("log-group:")[2].removesuffix(":*") for text in mentioned if text]
    for group in groups or [""]:
        name = group.removeprefix(GROUP_PREFIX) if group.startswith(GROUP_PREFIX) else None
        caller.check_action(action, name)
