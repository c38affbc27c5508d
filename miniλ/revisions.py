"""What a change makes of a function's configuration: a new revision. Pure.

A revision is one state of one version; its RevisionId is new with each update, and the pool tells
old workers from current ones by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from miniλ import model
from miniλ.errors import PreconditionFailed
from miniλ.model import FunctionConfiguration, FunctionDraft, new_revision

if TYPE_CHECKING:
    from miniλ.store.packages import Package

READY: dict[str, Any] = {
    "state": "Active",
    "state_reason": ("", ""),
    "update_status": "Successful",
    "update_reason": ("", ""),
}
# The fields in which two versions may differ and still be the same to PublishVersion.
_INCIDENTAL: dict[str, Any] = {
    "version": "",
    "revision": "",
    "description": "",
    "last_modified": "",
    "reserved_concurrency": None,
    **READY,
}


def replace(function: FunctionConfiguration, **changes: Any) -> FunctionConfiguration:  # noqa: ANN401
    """Return a function with some fields changed; the same revision."""
    return msgspec.structs.replace(function, **changes)


def next_revision(
    before: FunctionConfiguration, changes: Mapping[str, Any]
) -> FunctionConfiguration:
    """Return the next revision: some fields changed, and members of `passthrough` merged."""
    merged = dict(changes)
    if "passthrough" in merged:
        merged["passthrough"] = {**before.passthrough, **merged["passthrough"]}
    if isinstance(merged.get("environment"), Mapping):
        # A copy: the caller's later changes to its own dict do not reach workers.
        merged["environment"] = dict(merged["environment"])
    return replace(before, revision=new_revision(), last_modified=model.now_iso(), **merged)


def with_package(draft: FunctionDraft, package: Package) -> FunctionConfiguration:
    """Return a function with this code."""
    code = {
        "code_sha256": package.sha256,
        "code_size": package.size,
        "code_path": package.path,
    }
    return FunctionConfiguration(**{**msgspec.structs.asdict(draft), **code})


def as_version(
    latest: FunctionConfiguration, number: int, description: str | None = None
) -> FunctionConfiguration:
    """Return $LATEST as version `number`; `description` replaces its own if given."""
    return replace(
        latest,
        version=str(number),
        revision=new_revision(),
        description=latest.description if description is None else description,
        reserved_concurrency=None,
    )


def are_same(one: FunctionConfiguration, other: FunctionConfiguration) -> bool:
    """Return whether two versions run the same code with the same configuration."""
    return replace(one, **_INCIDENTAL) == replace(other, **_INCIDENTAL)


def check_revision(
    expected: str | None, current: str, read_by: str = "GetFunction/GetAlias"
) -> None:
    """Refuse a change by a client that has not seen the current revision; `read_by` returns it."""
    if expected and expected != current:
        msg = (
            f"The Revision Id provided does not match the latest Revision Id. Call the {read_by} "
            "API to retrieve the latest Revision Id"
        )
        raise PreconditionFailed(msg)
