"""The caller of a request: the key that it names, and whether its signature proves it.

With [auth] in the settings every request is signed (AWS Signature Version 4) with a key of the keys
file. What a request claims is checked before its body is read. Whether the claim is true is known
at that point only if it contains the body's hash; otherwise after the body was read, since the
signature covers the body. No operation starts before that.

Without [auth] no signature is asked for or verified. A key id of 12 digits still names the account
of the caller, a convention of Lambda emulators.
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
# Global services: clients sign for this region, or for the one that they are configured with.
_GLOBAL_REGIONS = {"iam": "us-east-1", "sts": "us-east-1"}

_CREDENTIAL = re.compile(r"Credential=([0-9]{12})/")


class Caller:
    """The caller of a request: a key id and its account, both "" without a signature.

    `verify` must be called with the sha256 (hex) of the body before an operation starts. It is
    None for a caller without a claim to prove, whose checks all pass: any caller without [auth].
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
        """Refuse an operation, by the model's name, that the keys file does not allow this key.

        `function` is as the client wrote it, perhaps an ARN; None for an operation that is not of
        one function. Raises `AccessDenied`.
        """
        if self._place is None:
            return
        name = None
        if function is not None:
            name, _ = names.function(function, None, self._place)
        self.check_action(keys.action_of(operation), name)

    def check_params(self, operation: str, params: Mapping[str, Any], registry: Registry) -> None:
        """Refuse an operation whose path has no function, by the functions of its parameters."""
        if self._keys is not None:
            for function in _functions_of(params, registry):
                self.check_may(operation, function)

    def check_action(self, action: str, name: str | None) -> None:
        """Refuse an action, by IAM's name, on a function, by its plain name; None as above."""
        if self._keys is None or self._place is None or self._keys.may(self.key_id, action, name):
            return
        raise keys.denied(
            self.key_id,
            action,
            name if action.startswith("lambda:") else None,
            self._place._replace(account=self.account or self._place.account),
        )


ANONYMOUS = Caller()


def _functions_of(params: Mapping[str, Any], registry: Registry) -> list[str | None]:
    """Return the functions that parameters mention: by name, by ARN, or by a mapping's id.

    None stands for parameters of no one function, and for a mapping that does not exist.
    """
    functions: list[str | None] = []
    if "FunctionName" in params:
        functions.append(params["FunctionName"])
    kind, name = names.resource(params.get("Resource", ""))
    if kind == "function":
        functions.append(params["Resource"])
    mapping_id = name if kind == "event-source-mapping" else params.get("UUID", "")
    if mapping_id:
        mapping = registry.get(MAPPING, mapping_id)
        functions.append(None if mapping is None else mapping["FunctionArn"])
    return functions or [None]


def unverified(request: web.BaseRequest) -> Caller:
    """Return the caller that a request names, without proof: for a gateway without [auth]."""
    match = _CREDENTIAL.search(request.headers.get("Authorization", ""))
    return ANONYMOUS if match is None else Caller(match[1], match[1])


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
        """Return the caller that a request claims to be from. Raises `AccessDenied`.

        `services` are those that a request to this path may be signed for. The claim is proved
        when `Caller.verify` has been called.
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
            # An unknown key: the same work and message for any body, and none of it is read.
            verify(claim.payload_sha256 or sigv4.EMPTY_SHA256)
        elif claim.payload_sha256 is not None:
            verify(None)
        account = self._keys.account_of(claim.key_id) or ""
        return Caller(claim.key_id, account, self._keys, self._place, verify)

    def _check_scope(self, claim: sigv4.Claim, services: tuple[str, ...]) -> None:
        """Refuse a signature for another region or service: it was made for another server."""
        problems = []
        if claim.region not in {self._place.region, _GLOBAL_REGIONS.get(claim.service)}:
            problems.append("Credential should be scoped to a valid region.")
        if claim.service not in services:
            problems.append(f"Credential should be scoped to correct service: '{services[0]}'.")
        if problems:
            raise AccessDenied(" ".join(problems), "InvalidSignatureException")
