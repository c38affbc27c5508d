"""This module is the guard: who may speak to a gateway that asks nobody for a key.

Without [auth] whoever reaches the port may run code, so it listens on loopback only, and two
kinds of visitor that reach loopback are kept out. A web page in a browser on this machine can
send simple POSTs anywhere: browsers say so, by Origin and Sec-Fetch-Site, and no client of AWS
does. A page whose name was pointed at 127.0.0.1 (DNS rebinding) comes with its own name as Host.

Function URLs are for browsers and have their own rules: see `serve_url`. Their pages are from the
same origin as all of this, and may not read it either.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from miniλ.errors import AccessDenied, InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Mapping

# All of a Host header: names that are always ours, and whatever else may be one.
_OURS = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)
# The word for an address that somebody typed.
_TYPED = "none"


def is_loopback(host: str) -> bool:
    """Return whether nobody but this machine reaches an address to listen on."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_listening(host: str, *, has_auth: bool) -> None:
    """Refuse to listen where others reach it and nobody is asked for a key."""
    if not has_auth and not is_loopback(host):
        msg = (
            f"Listening on {host} without [auth] would let everybody who reaches it run code: "
            "set [auth] keys in the settings, or listen on 127.0.0.1"
        )
        raise InvalidParameterValue(msg)


def check_visitor(headers: Mapping[str, str], host: str) -> None:
    """Refuse web pages and names that are not ours; `host` is what we listen on."""
    if "Origin" in headers or headers.get("Sec-Fetch-Site", _TYPED) != _TYPED:
        msg = "Requests of web pages are refused: this is for AWS clients. Function URLs take them"
        raise AccessDenied(msg)
    named = headers.get("Host", "")
    if _OURS.fullmatch(named):
        return  # nearly always
    found = _HOST.fullmatch(named)
    name = (found[1] or found[2]).lower() if found else ""
    if not name or not (name == host or name.endswith(".localhost") or is_loopback(name)):
        msg = f"The Host {named[:80]!r} is none of ours: use 127.0.0.1 or localhost"
        raise AccessDenied(msg)
