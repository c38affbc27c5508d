"""Cross-origin resource sharing: the headers that the Cors of a function URL adds to its answers.

Rule: the Cors of a URL is the only source of CORS headers. Preflights do not reach the function,
and CORS headers that it returns are dropped, for allowed origins and for others.

Source: Lambda API reference, "Cors"; developer guide, "Cross-origin resource sharing (CORS)";
Fetch standard, "CORS protocol". An allowed origin is spelled out in full, or `*` for any.
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

    An origin that is not allowed gets a 200 without CORS headers: the browser refuses then.
    """
    values = {name.lower(): value for name, value in headers}
    origin = values.get("origin")
    requested_method = values.get("access-control-request-method")
    if config is None or method != "OPTIONS" or origin is None or requested_method is None:
        return None
    origin_headers = _allow(config, origin)
    if not origin_headers:
        return _vary(config)
    requested_headers = values.get("access-control-request-headers", "")
    return (
        *origin_headers,
        *_list("Access-Control-Allow-Methods", config.allow_methods, requested_method),
        *_list("Access-Control-Allow-Headers", config.allow_headers, requested_headers),
        ("Access-Control-Max-Age", str(config.max_age)),
        *_vary(config),
    )


def response_headers(config: Cors, origin: str | None) -> Headers:
    """Return the headers to add to an answer; `origin` is the request's, None without one."""
    allow = _allow(config, origin)
    expose = _list("Access-Control-Expose-Headers", config.expose_headers) if allow else ()
    return (*allow, *expose, *_vary(config))


def applied(config: Cors | None, origin: str | None, headers: Headers) -> Headers:
    """Return the headers of a function's answer, their CORS headers replaced by the config's."""
    if config is None:
        return headers
    others = [pair for pair in headers if not pair[0].lower().startswith("access-control-")]
    return (*others, *response_headers(config, origin))


def _allow(config: Cors, origin: str | None) -> Headers:
    # Credentials never with `*`: any site could then act in the name of a user who is logged in.
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


def _list(name: str, configured: tuple[str, ...], requested: str = "") -> Headers:
    # With credentials, and for Authorization, browsers do not take * for every name: `*` is
    # replaced by the names that the preflight requested. For Expose-Headers there are none.
    names = requested.split(",") if requested and "*" in configured else configured
    tokens = [token for token in (each.strip() for each in names) if TOKEN.fullmatch(token)]
    return ((name, ",".join(tokens)),) if tokens else ()


def _vary(config: Cors) -> Headers:
    """Return the header that keeps a cache from serving one origin's answer to another."""
    return () if "*" in config.allow_origins else (("Vary", "Origin"),)
