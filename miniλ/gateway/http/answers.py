"""This module is answers: what goes back over HTTP, documents and errors, as AWS writes them.

An error is its status, its code in X-Amzn-ErrorType and a JSON body. Whether the text is called
`message` or `Message` is each error's own, as the service model has it: clients look there.
Services beside Lambda have protocols of their own, and errors in them.

Rule: a message repeats what a client sent, and may be sent whatever that was.
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

import msgspec
from aiohttp import web

from miniλ.errors import LambdaError, ResourceNotFound, ServiceError, Throttled, ValidationFailed

JSON = "application/json"
# How long who was throttled is asked to wait: somebody else's invocation is over by then, or not.
RETRY_AFTER = "1"

_encode = msgspec.json.Encoder().encode
# `Message` in the model; all others say `message`.
_CAPITAL = (ResourceNotFound, ServiceError)
_CAPITAL_CODES = frozenset({"ResourceInUseException"})
# The codes of signatures, as services of the query protocol have them.
_QUERY_CODES = {
    "AccessDeniedException": "AccessDenied",
    "IncompleteSignatureException": "IncompleteSignature",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
    "UnrecognizedClientException": "InvalidClientTokenId",
}


def document(status: int, content: object, request_id: str) -> web.Response:
    """Return a successful answer; None is no body at all."""
    headers = {"x-amzn-RequestId": request_id}
    if content is None:
        return web.Response(status=status, headers=headers)
    headers["Content-Type"] = JSON
    return web.Response(status=status, body=_encode(content), headers=headers)


def error(failed: LambdaError, request_id: str) -> web.Response:
    """Return the answer for an error of ours."""
    content: dict[str, Any] = {}
    headers = {
        "x-amzn-RequestId": request_id,
        "x-amzn-ErrorType": failed.code,
        "Content-Type": JSON,
    }
    text = _text(failed)
    if isinstance(failed, ValidationFailed):
        content["message"] = text
    elif isinstance(failed, Throttled):
        content = {"Reason": failed.reason, "Type": "User", "message": "Rate Exceeded."}
        headers["Retry-After"] = RETRY_AFTER
    else:
        content["Type"] = "Service" if failed.is_ours else "User"
        capital = isinstance(failed, _CAPITAL) or failed.code in _CAPITAL_CODES
        content["Message" if capital else "message"] = text
    return web.Response(status=failed.status, body=_encode(content), headers=headers)


def target_error(failed: LambdaError, request_id: str) -> web.Response:
    """Return the answer for an error as services with X-Amz-Target have it (JSON 1.1)."""
    status = 500 if failed.is_ours else 400
    content = {"__type": failed.code, "message": _text(failed)}
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "application/x-amz-json-1.1"}
    return web.Response(status=status, body=_encode(content), headers=headers)


def query_error(failed: LambdaError, request_id: str) -> web.Response:
    """Return the answer for an error as STS and IAM have it (the query protocol)."""
    code = _QUERY_CODES.get(failed.code, failed.code)
    sender = "Receiver" if failed.is_ours else "Sender"
    content = (
        f"<ErrorResponse><Error><Type>{sender}</Type><Code>{code}</Code>"
        f"<Message>{escape(_text(failed))}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    )
    headers = {"x-amzn-RequestId": request_id, "Content-Type": "text/xml"}
    return web.Response(status=failed.status, body=content.encode(), headers=headers)


def _text(failed: LambdaError) -> str:
    # Bytes of a header that are no UTF-8 arrive as half characters, which nobody can write.
    return str(failed).encode("utf-8", "backslashreplace").decode()
