"""Resource policies: which principals may invoke a function, a version or an alias.

A POLICY document is as in `statements`. Its part is the qualifier that it belongs to, "" for the
function without one. Rule: a policy without statements does not exist; it is deleted with its last
statement.

`allows` decides what a statement means, and is pure. It knows the statements that AddPermission
makes, and no others.

Source: Lambda API reference, "AddPermission"; IAM user guide, "Condition operators"; messages as
the service has them.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

from miniλ.errors import InvalidParameterValue, ResourceNotFound
from miniλ.gateway import statements
from miniλ.model import LATEST
from miniλ.revisions import check_revision
from miniλ.store.registry import Change
from miniλ.store.resources import ALIAS, POLICY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from miniλ.gateway.call import Call
    from miniλ.store.resources import Document

_INVOKE_URL = "lambda:InvokeFunctionUrl"
_ACCOUNT = re.compile(r"[0-9]{12}")
_SERVICE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.amazon(aws)?\.com(\.cn)?")
_IDENTITY = re.compile(r"arn:aws[a-zA-Z-]*:(iam|sts)::(?P<account>[0-9]{12}|cloudfront):.+")
# The condition that a parameter of AddPermission makes: parameter, operator, key.
_CONDITIONS = (
    ("SourceArn", "ArnLike", "AWS:SourceArn"),
    ("SourceAccount", "StringEquals", "AWS:SourceAccount"),
    ("PrincipalOrgID", "StringEquals", "aws:PrincipalOrgID"),
    ("EventSourceToken", "StringEquals", "lambda:EventSourceToken"),
    ("FunctionUrlAuthType", "StringEquals", "lambda:FunctionUrlAuthType"),
    ("InvokedViaFunctionUrl", "Bool", "lambda:InvokedViaFunctionUrl"),
)


async def add_permission(call: Call) -> dict[str, Any]:
    """Add a statement that lets a principal do an action."""
    name, qualifier = _owner(call)
    statement = _statement(call, name, qualifier)
    async with call.api.functions.changing:
        before = _find(call, name, qualifier)
        _check_revision(call, name, qualifier, before)
        statements.check_new(before, call.params["StatementId"])
        policy = statements.added(before, statement)
        await call.api.registry.write(Change(POLICY, name, qualifier, policy))
    return {"Statement": statements.to_json(statement)}


async def remove_permission(call: Call) -> None:
    """Remove a statement."""
    name, qualifier = _owner(call)
    async with call.api.functions.changing:
        before = _find(call, name, qualifier)
        if before is None:
            msg = "No policy is associated with the given resource."
            raise ResourceNotFound(msg)
        policy = statements.removed(before, call.params["StatementId"])
        _check_revision(call, name, qualifier, before)
        await call.api.registry.write(Change(POLICY, name, qualifier, policy))


async def get_policy(call: Call) -> dict[str, Any]:
    """Return the whole policy, as a JSON text."""
    policy = _find(call, *_owner(call))
    if policy is None:
        msg = "The resource you requested does not exist."
        raise ResourceNotFound(msg)
    return {"Policy": statements.text(policy), "RevisionId": policy["RevisionId"]}


def _owner(call: Call) -> tuple[str, str]:
    """Return name and qualifier of a function, version or alias that may have a policy."""
    name, qualifier = call.function()
    if qualifier == LATEST:
        msg = "We currently do not support adding policies for $LATEST."
        raise InvalidParameterValue(msg)
    return name, qualifier


def _find(call: Call, name: str, qualifier: str) -> Document | None:
    call.api.functions.get(name, qualifier)
    return call.api.registry.get(POLICY, name, qualifier)


def _check_revision(call: Call, name: str, qualifier: str, policy: Document | None) -> None:
    """Refuse a change by a client that has not seen the current policy.

    Before there is a policy, the revision is that of the alias or version it will belong to.
    """
    owner = call.api.registry.get(ALIAS, name, qualifier) or call.api.functions.get(name, qualifier)
    current = owner.revision if policy is None else policy["RevisionId"]
    check_revision(call.params.get("RevisionId"), current, "GetPolicy")


def _statement(call: Call, name: str, qualifier: str) -> Document:
    params = call.params
    if "FunctionUrlAuthType" in params and params["Action"] != _INVOKE_URL:
        msg = f"FunctionUrlAuthType is only supported for {_INVOKE_URL} action"
        raise InvalidParameterValue(msg)
    statement: Document = {
        "Sid": params["StatementId"],
        "Effect": "Allow",
        "Principal": _principal(params["Principal"]),
        "Action": params["Action"],
        "Resource": call.place.function(name, qualifier),
    }
    conditions: dict[str, dict[str, str]] = {}
    for parameter, operator, key in _CONDITIONS:
        value = params.get(parameter)
        if value is not None:
            text = value if isinstance(value, str) else str(value).lower()
            conditions.setdefault(operator, {})[key] = text
    if conditions:
        statement["Condition"] = conditions
    return statement


def _principal(principal: str) -> str | dict[str, str]:
    if principal == "*":
        return principal
    if _ACCOUNT.fullmatch(principal):
        return {"AWS": f"arn:aws:iam::{principal}:root"}
    if _IDENTITY.fullmatch(principal):
        return {"AWS": principal}
    if _SERVICE.fullmatch(principal):
        return {"Service": principal}
    msg = "The provided principal was invalid. Please check the principal and try again."
    raise InvalidParameterValue(msg)


def allows(
    policy: Document | None,
    *,
    action: str,
    principal: str | None,
    url_auth: str | None = None,
    source_arn: str | None = None,
    source_account: str | None = None,
) -> bool:
    """Return whether a policy lets a principal do an action, like lambda:InvokeFunctionUrl.

    `principal` is an account id, an ARN of IAM or a service (`s3.amazonaws.com`); None or "*" is
    an anonymous caller. `url_auth` is the AuthType of the function URL of the request, None for
    another request. A condition with a key that is not in `known` (an organization) does not hold.
    """
    known = {
        "AWS:SourceArn": source_arn,
        "AWS:SourceAccount": source_account,
        "lambda:FunctionUrlAuthType": url_auth,
        "lambda:InvokedViaFunctionUrl": "false" if url_auth is None else "true",
    }
    stated = [] if policy is None else policy["Statement"]
    return any(
        each["Action"] in (action, "lambda:*", "*")
        and _matches(each["Principal"], principal)
        and all(
            _holds(operator, value, known.get(key))
            for operator, pairs in each.get("Condition", {}).items()
            for key, value in pairs.items()
        )
        for each in stated
    )


def _matches(stated: str | Mapping[str, str], principal: str | None) -> bool:
    if isinstance(stated, str):
        return True  # "*": any principal
    if principal is None:
        return False
    arn = stated.get("AWS", "")
    if arn.endswith(":root"):
        # Every principal of the account.
        match = _IDENTITY.fullmatch(principal)
        account = principal if match is None else match["account"]
        return arn.split(":")[4] == account
    return principal in stated.values()


def _holds(operator: str, wanted: str, value: str | None) -> bool:
    if value is None:
        return False
    if operator != "ArnLike":
        return wanted == value
    # Each of the six parts of an ARN is matched with its own pattern; wildcards are "*" and "?"
    # only, so the "[" of fnmatch is escaped.
    wanted_parts, parts = wanted.split(":", 5), value.split(":", 5)
    return len(wanted_parts) == len(parts) and all(
        fnmatch.fnmatchcase(part, pattern.replace("[", "[[]"))
        for pattern, part in zip(wanted_parts, parts, strict=True)
    )


OPERATIONS = {
    "AddPermission": add_permission,
    "RemovePermission": remove_permission,
    "GetPolicy": get_policy,
}
