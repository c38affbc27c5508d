"""This module is auth: who asks, and whether their signature says so too.

With [auth] in the settings every request is signed (AWS Signature Version 4) by a key of the keys
file. What a request claims is looked at before its body is read. That the claim is true can be
said then only if it has the body's hash in it; else after, since the signature is over the body
as well. Nothing is done in between.

Without it nobody is asked: then a key id of 12 digits still names the account, as clients of
emulators are used to.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from miniλ import names, sigv4
from miniλ.errors import AccessDenied
from miniλ.gateway.http import keys
from miniλ.store.resources import MAPPING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp import web

    from miniλ.gateway.http.keys import Keys
    from miniλ.settings import Settings
    from miniλ.store.registry import Registry

LAMBDA = ("lambda",)
# Where these are everywhere, clients sign for the region that they began in.
_EVERYWHERE = {"iam": "us-east-1", "sts": "us-east-1"}

_CREDENTIAL = re.compile(r"Credential=([0-9]{12})/")


class Caller:
    """Who asks: a key id and its account, "" where nobody was asked.

    `verify` is to be called with the sha256 (hex) of the body, before anything is done; None
    where there is nothing to verify.
    """

    __slots__ = ("_keys", "_place", "account", "key_id", "verify")

    def __init__(
        self,
        key_id: str = "",
        account: str = "",
        keys_: Keys | None = None,
        place: names.Place | None = None,
        verify: Callable[[str], None] | None = None,
    ) -> None:
        self.key_id = key_id
        self.account = account
        self.verify = verify
        self._keys = keys_
        self._place = place

    def check_may(self, operation: str, function: str | None) -> None:
        """Refuse an operation that the keys file does not allow this key; by the model's name.

        `function` is as a client says it, an ARN perhaps; None is no one function.
        """
        if self._place is None:
            return
        name = None
        if function is not None:
            name, _ = names.function(function, None, self._place)
        self.check_action(keys.action_of(operation), name)

    def check_params(self, operation: str, params: Mapping[str, Any], registry: Registry) -> None:
        """Refuse an operation whose function is not in its path, by what its parameters say."""
        if self._keys is not None:
            for function in _about(params, registry):
                self.check_may(operation, function)

    def check_action(self, action: str, name: str | None) -> None:
        """Refuse an action, by IAM's name, on a function, by its own name; None as above."""
        if self._keys is None or self._place is None or self._keys.may(self.key_id, action, name):
            return
        raise keys.denied(
            self.key_id,
            action,
            name if action.startswith("lambda:") else None,
            self._place._replace(account=self.account or self._place.account),
        )


NOBODY = Caller()


def _about(params: Mapping[str, Any], registry: Registry) -> list[str | None]:
    """Return the functions that parameters are about: by name, by ARN, by a mapping to one.

    None is in it for what is of no one function, or does not exist.
    """
    found: list[str | None] = []
    if "FunctionName" in params:
        found.append(params["FunctionName"])
    resource = params.get("Resource", "")
    if ":function:" in resource:
        found.append(resource)
    mapping_id = params.get("UUID", "")
    if ":event-source-mapping:" in resource:
        mapping_id = resource.rpartition(":")[2]
    if mapping_id:
        mapping = registry.get(MAPPING, mapping_id)
        found.append(None if mapping is None else mapping["FunctionArn"])
    return found or [None]


def named(request: web.BaseRequest) -> Caller:
    """Return who says who they are, where nobody is asked for a proof."""
    found = _CREDENTIAL.search(request.headers.get("Authorization", ""))
    return NOBODY if found is None else Caller(found[1], found[1])


class Auth:
    """The keys of one gateway."""

    def __init__(self, settings: Settings) -> None:
        """Read the keys file; raises `InvalidParameterValue`."""
        assert settings.auth is not None
        self._keys = keys.load(Path(settings.auth.keys))
        self._place = names.Place(settings.region, settings.account)

    def admit(
        self, request: web.BaseRequest, path: str, query: str, services: tuple[str, ...] = LAMBDA
    ) -> Caller:
        """Return who a request claims to be from. Raises `AccessDenied`.

        `services`: those that a request to this path may be signed for.
        """
        headers = list(request.headers.items())
        claim = sigv4.parse(query, headers)
        self._check_scope(claim, services)
        secret = self._keys.secret(claim.key_id)

        def verify(body_sha256: str | None) -> None:
            sigv4.check(
                claim,
                request.method,
                path,
                query,
                headers,
                sigv4.UNKNOWN_SECRET if secret is None else secret,
                body_sha256,
                time.time(),
            )

        if secret is None:
            # The same work and the same words whatever the body is, and nothing of it is read.
            verify(claim.payload or sigv4.EMPTY_SHA256)
        elif claim.payload is not None:
            verify(None)
        account = self._keys.account_of(claim.key_id) or ""
        return Caller(claim.key_id, account, self._keys, self._place, verify)

    def _check_scope(self, claim: sigv4.Claim, services: tuple[str, ...]) -> None:
        """Refuse what was signed for another region or service: it was not meant for us."""
        wrong = []
        if claim.region not in {self._place.region, _EVERYWHERE.get(claim.service)}:
            wrong.append("Credential should be scoped to a valid region.")
        if claim.service not in services:
            wrong.append(f"Credential should be scoped to correct service: '{services[0]}'.")
        if wrong:
            raise AccessDenied(" ".join(wrong), "InvalidSignatureException")
