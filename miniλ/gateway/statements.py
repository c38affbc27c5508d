"""Statements of resource policies: added, removed, and as the JSON text that clients get. Pure.

A policy is {"Statement": [...], "RevisionId": ...}; it is of a function (`policies`) or of a layer
version (`layers`).

Source: Lambda API reference, "AddPermission" and "AddLayerVersionPermission"; messages as the
service has them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from miniλ.errors import PolicyLengthExceeded, ResourceConflict, ResourceNotFound
from miniλ.model import new_revision

if TYPE_CHECKING:
    from miniλ.store.resources import Document

# Developer guide, "Lambda quotas": 20 KB.
MAX_POLICY = 20_480


def check_new(policy: Document | None, sid: str) -> None:
    """Refuse a statement id that the policy has already; raises `ResourceConflict`."""
    if policy is not None and any(each["Sid"] == sid for each in policy["Statement"]):
        msg = (
            f"The statement id ({sid}) provided already exists. Please provide a new statement "
            "id, or remove the existing statement."
        )
        raise ResourceConflict(msg)


def added(policy: Document | None, statement: Document) -> Document:
    """Return a policy with one more statement; raises `PolicyLengthExceeded`."""
    statements = [] if policy is None else policy["Statement"]
    changed = {"Statement": [*statements, statement], "RevisionId": new_revision()}
    size = len(text(changed))
    if size > MAX_POLICY:
        msg = f"The final policy size ({size}) is bigger than the limit ({MAX_POLICY})."
        raise PolicyLengthExceeded(msg)
    return changed


def removed(policy: Document, sid: str) -> Document | None:
    """Return a policy without a statement, None without its last; raises `ResourceNotFound`."""
    left = [each for each in policy["Statement"] if each["Sid"] != sid]
    if len(left) == len(policy["Statement"]):
        msg = f"Statement {sid} is not found in resource policy."
        raise ResourceNotFound(msg)
    return {"Statement": left, "RevisionId": new_revision()} if left else None


def text(policy: Document) -> str:
    """Return a policy as the JSON text that clients get."""
    return to_json({"Version": "2012-10-17", "Id": "default", "Statement": policy["Statement"]})


def to_json(document: Document) -> str:
    """Return a policy or a statement as JSON without spaces."""
    return json.dumps(document, separators=(",", ":"))
