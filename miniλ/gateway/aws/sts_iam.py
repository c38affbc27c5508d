"""STS and IAM as far as Lambda's clients call them: GetCallerIdentity and GetRole.

What a caller may do is in the operator's keys file, and there are no users or roles. So each caller
is the root of its account, and every role exists and trusts Lambda. POST / with a form, AWS's query
protocol; answers are XML.
Source: API references of AWS STS, GetCallerIdentity, and AWS IAM, GetRole.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import quote
from xml.sax.saxutils import escape

from miniλ.gateway.service_model.constraints import detected, violation

if TYPE_CHECKING:
    from collections.abc import Mapping

_STS = "https://sts.amazonaws.com/doc/2011-06-15/"
_IAM = "https://iam.amazonaws.com/doc/2010-05-08/"
_ROLE_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]+")
_MAX_ROLE_NAME = 64
# Characters that XML 1.0 cannot represent.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_TRUST = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow",'
    '"Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}'
)
# All roles are as old as Lambda: the day that it was announced.
_CREATED = "2014-11-13T00:00:00Z"


def answer(
    form: Mapping[str, str], *, account: str, region: str, key_id: str, request_id: str
) -> tuple[int, bytes]:
    """Return status and XML of one request. `key_id` is the access key that signed it."""
    del region  # answers of STS and IAM are the same in every region
    action = form.get("Action", "")
    if action == "GetCallerIdentity":
        return 200, _caller(account, key_id, request_id)
    if action == "GetRole":
        return _role(form.get("RoleName"), account, request_id)
    namespace = _IAM if form.get("Version") == "2010-05-08" else _STS
    if not action:
        message = "The request must contain the parameter Action"
        return _error(namespace, "MissingAction", message, request_id)
    # The beginning of an action is enough to recognise it by.
    message = f"The action {action[:128]} is not valid for this endpoint."
    return _error(namespace, "InvalidAction", message, request_id)


def _caller(account: str, key_id: str, request_id: str) -> bytes:
    result = (
        f"<Arn>arn:aws:iam::{_text(account)}:root</Arn>"
        # On AWS the id of root is the account's; the key id tells an operator more.
        f"<UserId>{_text(key_id or account)}</UserId>"
        f"<Account>{_text(account)}</Account>"
    )
    return _result(_STS, "GetCallerIdentity", result, request_id)


def _role(name: str | None, account: str, request_id: str) -> tuple[int, bytes]:
    problem = _problem(name)
    if name is None or problem:
        return _error(_IAM, "ValidationError", problem, request_id)
    digest = hashlib.sha256(f"{account}/{name}".encode()).digest()
    role_id = "AROA" + base64.b32encode(digest).decode()[:17]
    result = (
        "<Role>"
        "<Path>/</Path>"
        f"<RoleName>{_text(name)}</RoleName>"
        f"<RoleId>{role_id}</RoleId>"
        f"<Arn>arn:aws:iam::{_text(account)}:role/{_text(name)}</Arn>"
        f"<CreateDate>{_CREATED}</CreateDate>"
        f"<AssumeRolePolicyDocument>{quote(_TRUST, safe='')}</AssumeRolePolicyDocument>"
        "<MaxSessionDuration>3600</MaxSessionDuration>"
        "</Role>"
    )
    return 200, _result(_IAM, "GetRole", result, request_id)


def _problem(name: str | None) -> str:
    """Return IAM's message for the name of a role that it would refuse, else ""."""
    if name is not None and 1 <= len(name) <= _MAX_ROLE_NAME:
        if _ROLE_NAME.fullmatch(name):
            return ""
        return (
            "The specified value for roleName is invalid. It must contain only alphanumeric "
            "characters and/or the following: +=,.@_-"
        )
    if name is None:
        value, member = "null", "not be null"
    elif not name:
        value, member = "''", "have length greater than or equal to 1"
    else:
        value, member = f"'{name[:1024]}'", f"have length less than or equal to {_MAX_ROLE_NAME}"
    return detected(violation(value, "roleName", f"Member must {member}"))


def _result(namespace: str, action: str, result: str, request_id: str) -> bytes:
    return (
        f'<{action}Response xmlns="{namespace}">'
        f"<{action}Result>{result}</{action}Result>"
        f"<ResponseMetadata><RequestId>{_text(request_id)}</RequestId></ResponseMetadata>"
        f"</{action}Response>"
    ).encode()


def _error(namespace: str, code: str, message: str, request_id: str) -> tuple[int, bytes]:
    document = (
        f'<ErrorResponse xmlns="{namespace}">'
        f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{_text(message)}</Message></Error>"
        f"<RequestId>{_text(request_id)}</RequestId>"
        "</ErrorResponse>"
    )
    return 400, document.encode()


def _text(value: str) -> str:
    return escape(_UNWRITABLE.sub("\ufffd", value))
