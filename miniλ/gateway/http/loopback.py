"""Access without [auth]: loopback only, and no web pages.

Without [auth] every client that reaches the port may run code. So the gateway listens on loopback
only, and refuses two kinds of request that reach loopback all the same. A web page in a browser on
this machine can send simple POSTs to any address: browsers mark them with Origin and
Sec-Fetch-Site, which no client of AWS sends. A page whose own name was pointed at 127.0.0.1 (DNS
rebinding) sends that name as Host.

Function URLs are for browsers and have rules of their own: see `urls.serve`. Their pages have the
same origin as the rest of the gateway, and are refused by it like all others.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from miniλ.errors import AccessDenied, InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Mapping

# A whole Host header: the usual names of loopback; and any other, as an address or as a name.
_USUAL_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]{1,5})?", re.IGNORECASE)
# Sec-Fetch-Site of an address that a person typed into a browser.
_TYPED = "none"


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_listening(host: str, *, has_auth: bool) -> None:
    """Refuse to listen on an address that other machines reach, unless there is [auth].

    Raises `InvalidParameterValue`.
    """
    if not has_auth and not is_loopback(host):
        msg = (
            f"Listening on {host} without [auth] would let any client that reaches it run code: "
            "set [auth] keys in the settings, or listen on 127.0.0.1"
        )
        raise InvalidParameterValue(msg)


def check_caller(headers: Mapping[str, str], host: str) -> None:
    """Refuse requests of web pages, and a Host that is not ours; `host` is what we listen on.

    Raises `AccessDenied`.
    """
    if "Origin" in headers or headers.get("Sec-Fetch-Site", _TYPED) != _TYPED:
        msg = "Requests of web pages are refused: this is for AWS clients. Function URLs take them"
        raise AccessDenied(msg)
    requested = headers.get("Host", "")
    if _USUAL_HOST.fullmatch(requested):
        return  # nearly always
    match = _HOST.fullmatch(requested)
    name = (match[1] or match[2]).lower() if match else ""
    if not name or not (name == host or name.endswith(".localhost") or is_loopback(name)):
        msg = f"The Host {requested[:80]!r} is none of ours: use 127.0.0.1 or localhost"
        raise AccessDenied(msg)
