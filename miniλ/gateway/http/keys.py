"""The keys file: access keys, and what each of them may do.

    [keys.AKIAEXAMPLE]
    secret = "..."
    allow = ["lambda:Get*", "lambda:InvokeFunction"]  # IAM's actions, any case; * and ? match
    functions = ["orders-*"]                          # names of functions; all without this line
    account = "123456789012"                          # the account that it acts in; optional

Rule 1: an action that no pattern allows is denied. There is no "deny", so the order of patterns
does not matter.

Rule 2: an operation that is of no one function (ListFunctions, layers, GetAccountSettings) shows
or changes all functions. A key for some functions may call it only if `allow` has its exact name:
a pattern is not enough.

Rule 3: secrets stay in this process. A file that other users can read is refused, and no message
or repr has a secret: tests/unit/gateway/http/test_keys.py checks both.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from typing import TYPE_CHECKING, Annotated, TypeAlias

import msgspec

from miniλ.errors import AccessDenied, InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from miniλ.names import Place

# Operations that IAM knows by another name (service authorization reference, "AWS Lambda").
_ACTIONS = {
    "Invoke": "InvokeFunction",
    "InvokeWithResponseStream": "InvokeFunction",
    "GetLayerVersionByArn": "GetLayerVersion",
}

# Characters that fit into a credential's scope, whose parts end at slashes and commas.
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ACCOUNT = re.compile(r"[0-9]{12}")

Action: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^(\*|[A-Za-z0-9*?-]+:[A-Za-z0-9*?]+)\Z")]
FunctionName: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_*?-]+\Z")]
Account: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{12}\Z")]


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One access key: its table in the file."""

    secret: Annotated[str, msgspec.Meta(min_length=1)]
    allow: tuple[Action, ...]
    functions: tuple[FunctionName, ...] = ("*",)
    account: Account | None = None

    def __repr__(self) -> str:
        return f"<Key allow={list(self.allow)} functions={list(self.functions)}>"


class Keys:
    """The access keys of one file, by id."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[str, Key]) -> None:
        self._keys = dict(keys)

    def __repr__(self) -> str:
        return f"<Keys {', '.join(sorted(self._keys))}>"

    def secret(self, key_id: str) -> str | None:
        """Return the secret of a key id; None for an unknown key."""
        key = self._keys.get(key_id)
        return None if key is None else key.secret

    def may(self, key_id: str, action: str, function: str | None) -> bool:
        """Return whether a key may do this: `may("AKIA", "lambda:GetFunction", "orders-in")`.

        `function` is a name without account or qualifier; None for an action of no one function.
        """
        key = self._keys.get(key_id)
        if key is None:
            return False
        action = action.lower()
        patterns = [pattern.lower() for pattern in key.allow]
        if function is None and "*" not in key.functions:
            return action in patterns
        return any(_matches(pattern, action) for pattern in patterns) and (
            function is None or any(_matches(pattern, function) for pattern in key.functions)
        )

    def account_of(self, key_id: str) -> str | None:
        """Return the account of a key: by the file, else a key id of 12 digits, else None."""
        key = self._keys.get(key_id)
        if key is not None and key.account is not None:
            return key.account
        return key_id if _ACCOUNT.fullmatch(key_id) else None


def action_of(operation: str) -> str:
    """Return IAM's action for an operation of Lambda's API: Invoke is lambda:InvokeFunction."""
    return f"lambda:{_ACTIONS.get(operation, operation)}"


def denied(key_id: str, action: str, function: str | None, place: Place) -> AccessDenied:
    """Return the error for an action that a key may not do, in IAM's words."""
    resource = place.function(function) if function else "*"
    return AccessDenied(
        f"User: arn:aws:iam::{place.account}:user/{key_id} is not authorized to perform: {action} "
        f"on resource: {resource} because no identity-based policy allows the {action} action"
    )


def load(path: Path) -> Keys:
    """Return the keys of a TOML file, which must be readable by its owner only.

    Raises `InvalidParameterValue` that names the file, the key and the values that are allowed.
    """
    try:
        document = tomllib.loads(_read(path).decode())
    except (OSError, ValueError) as exc:
        msg = f"The keys file {path} cannot be read: {exc}"
        raise InvalidParameterValue(msg) from exc
    tables = document.get("keys")
    if list(document) != ["keys"] or not isinstance(tables, dict) or not tables:
        msg = (
            f"The keys file {path} must have a table [keys.KEYID] for each key and no other, "
            f"got {', '.join(document) or 'nothing'}"
        )
        raise InvalidParameterValue(msg)
    return Keys({key_id: _key(path, key_id, table) for key_id, table in tables.items()})


def _key(path: Path, key_id: str, table: object) -> Key:
    where = f"The keys file {path}: keys.{key_id}"
    if not _KEY_ID.fullmatch(key_id):
        msg = f"{where}: a key id is 1 to 128 letters, digits, '_' and '-'"
        raise InvalidParameterValue(msg)
    try:
        return msgspec.convert(table, Key)
    except msgspec.ValidationError as exc:
        msg = f"{where}: {exc} (a key has {', '.join(Key.__struct_fields__)})"
        raise InvalidParameterValue(msg) from exc


def _read(path: Path) -> bytes:
    # Opened first, checked by descriptor: the path cannot be switched to another file in between.
    with open(path, "rb", opener=_nonblocking) as file:
        status = os.fstat(file.fileno())
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            msg = f"The keys file {path} is not a regular file"
            raise InvalidParameterValue(msg)
        if status.st_uid not in {os.geteuid(), 0}:
            msg = (
                f"The keys file {path} belongs to user {status.st_uid}, who can change it: "
                f"chown {os.geteuid()} {path}"
            )
            raise InvalidParameterValue(msg)
        if mode & 0o077:
            msg = f"The keys file {path} is open to others (mode {mode:04o}): chmod 600 {path}"
            raise InvalidParameterValue(msg)
        return file.read()


def _nonblocking(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a named pipe waits for its writer (open(2)).
    return os.open(path, flags | os.O_NONBLOCK)


def _matches(pattern: str, name: str) -> bool:
    # IAM's patterns have * and ? only; fnmatch would read brackets too.
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, name, re.DOTALL) is not None
