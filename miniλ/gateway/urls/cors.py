"""This module is cross-origin resource sharing: what a function URL's Cors answers to browsers.

Rule: where a URL has a Cors, its word is the only one. Preflights do not reach the function, and
CORS headers that the function returns are dropped, also those to an origin that is not allowed.

Source: Lambda API reference, "Cors"; developer guide, "Cross-origin resource sharing (CORS)";
Fetch standard, "CORS protocol". An allowed origin is one in full, or `*` for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from miniλ.gateway.urls.payloads import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from miniλ.gateway.urls.payloads import Headers


class Cors(msgspec.Struct, frozen=True, rename="pascal"):
    """The Cors of a function URL, by the names of the API; MaxAge is in seconds."""

    allow_credentials: bool = False
    allow_headers: tuple[str, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 0


def preflight(
    config: Cors | None, method: str, headers: Iterable[tuple[str, str]]
) -> Headers | None:
    """Return the headers of the 200 that answers a preflight, or None for any other request.

    An origin that is not allowed gets a 200 that does not allow it: the browser refuses.
    """
    received = {name.lower(): value for name, value in headers}
    origin = received.get("origin")
    asked_method = received.get("access-control-request-method")
    if config is None or method != "OPTIONS" or origin is None or asked_method is None:
        return None
    allowed = _allow(config, origin)
    if not allowed:
        return _vary(config)
    asked_headers = received.get("access-control-request-headers", "")
    return (
        *allowed,
        *_list("Access-Control-Allow-Methods", config.allow_methods, asked_method),
        *_list("Access-Control-Allow-Headers", config.allow_headers, asked_headers),
        ("Access-Control-Max-Age", str(config.max_age)),
        *_vary(config),
    )


def response_headers(config: Cors, origin: str | None) -> Headers:
    """Return what is added to an answer to a request from this origin; None if it named none."""
    allowed = _allow(config, origin)
    exposed = _list("Access-Control-Expose-Headers", config.expose_headers) if allowed else ()
    return (*allowed, *exposed, *_vary(config))


def applied(config: Cors | None, origin: str | None, headers: Headers) -> Headers:
    """Return the headers of a function's answer, with the CORS headers of the config only."""
    if config is None:
        return headers
    kept = [pair for pair in headers if not pair[0].lower().startswith("access-control-")]
    return (*kept, *response_headers(config, origin))


def _allow(config: Cors, origin: str | None) -> Headers:
    # Never any origin and its user's cookies: that would be every site in the user's name.
    if "*" in config.allow_origins and origin is not None:
        return (("Access-Control-Allow-Origin", "*"),)
    if origin is None or origin not in config.allow_origins:
        return ()
    if config.allow_credentials:
        return (
            ("Access-Control-Allow-Origin", origin),
            ("Access-Control-Allow-Credentials", "true"),
        )
    return (("Access-Control-Allow-Origin", origin),)


def _list(name: str, configured: tuple[str, ...], asked: str = "") -> Headers:
    # With credentials, and for Authorization, a browser does not take * for everything: what it
    # asked for is spelled out. To expose, there is nothing asked for.
    names = asked.split(",") if asked and "*" in configured else configured
    tokens = [token for token in (each.strip() for each in names) if TOKEN.fullmatch(token)]
    return ((name, ",".join(tokens)),) if tokens else ()


def _vary(config: Cors) -> Headers:
    """Tell caches that another origin gets another answer."""
    return () if "*" in config.allow_origins else (("Vary", "Origin"),)
