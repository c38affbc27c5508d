"""Answers over HTTP: documents and errors, as AWS writes them.

An error is its status, its code in X-Amzn-ErrorType and a JSON body. Whether the text is called
`message` or `Message` depends on the error, as in the service model: clients read that member.
Services beside Lambda have protocols of their own, and their own form of an error.

Rule: a message may repeat any bytes that a client sent, and can still be encoded.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import msgspec
from aiohttp import web

from miniλ.errors import LambdaError, ResourceNotFound, ServiceError, Throttled, ValidationFailed

JSON = "application/json"
# The Server header. AWS sends none; aiohttp would send its own name and version.
SERVER = "minilambda"
# Seconds after which a throttled client may retry: a guess, as no end of an invocation is known.
RETRY_AFTER = "1"

_encode = msgspec.json.Encoder().encode
# `Message` in the model; all others say `message`.
_CAPITAL = (ResourceNotFound, ServiceError)
_CAPITAL_CODES = frozenset({"ResourceInUseException"})
# Codes of signature errors, as services of the query protocol spell them.
_QUERY_CODES = {
    "AccessDeniedException": "AccessDenied",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "UnrecognizedClientException": "InvalidClientTokenId",
}


def document(status: int, content: object, request_id: str) -> web.Response:
    """Return a successful answer; None is an answer without a body."""
    headers = {"x-amzn-RequestId": request_id}
    if content is None:
        return web.Response(status=status, headers=headers)
    headers["Content-Type"] = JSON
    return web.Response(status=status, body=_encode(content), headers=headers)


def error(exc: LambdaError, request_id: str) -> web.Response:
    """Return the answer for an error, as Lambda writes it (REST JSON)."""
    content: dict[str, Any] = {}
    headers = {
        "x-amzn-RequestId": request_id,
        "x-amzn-ErrorType": exc.code,
        "Content-Type": JSON,
    }
    text = _text(exc)
    if isinstance(exc, ValidationFailed):
        content["message"] = text
    elif isinstance(exc, Throttled):
        content = {"Reason": exc.reason, "Type": "User", "message": "Rate Exceeded."}
        headers["Retry-After"] = RETRY_AFTER
    else:
        content["Type"] = "Service" if exc.is_ours else "User"
        capital = isinstance(exc, _CAPITAL) or exc.code in _CAPITAL_CODES
        content["Message" if capital else "message"] = text
    return web.Response(status=exc.status, body=_encode(content), headers=headers)


def target_error(exc: LambdaError, request_id: str) -> web.Response:
    """Return the answer for an error, as services with X-Amz-Target write it (JSON 1.1)."""
    status = 500 if exc.is_ours else 400
    content = {"__type": exc.code, "message": _text(exc)}
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "application/x-amz-json-1.1"}
    return web.Response(status=status, body=_encode(content), headers=headers)


def query_error(exc: LambdaError, request_id: str) -> web.Response:
    """Return the answer for an error, as STS and IAM write it (the query protocol)."""
    code = _QUERY_CODES.get(exc.code, exc.code)
    sender = "Receiver" if exc.is_ours else "Sender"
    content = (
        f"<ErrorResponse><Error><Type>{sender}</Type><Code>{code}</Code>"
        f"<Message>{escape(_text(exc))}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "text/xml"}
    return web.Response(status=exc.status, body=content.encode(), headers=headers)


def _text(exc: LambdaError) -> str:
    # aiohttp decodes bytes of a header that are not UTF-8 as surrogates, which UTF-8 cannot encode.
    return str(exc).encode("utf-8", "backslashreplace").decode()
