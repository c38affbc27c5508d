"""Tests of CORS: the headers for browsers come from the Cors of the URL, and from nowhere else."""

from __future__ import annotations

import msgspec
import pytest

from miniλ.gateway.urls import cors
from miniλ.gateway.urls.cors import Cors

APP = "https://app.example"
VARY = ("Vary", "Origin")
ORIGIN = "Access-Control-Allow-Origin"
CREDENTIALS = ("Access-Control-Allow-Credentials", "true")

# A Cors in the form of the API.
CONFIG = msgspec.convert(
    {
        "AllowCredentials": True,
        "AllowHeaders": ["content-type", "x-shop"],
        "AllowMethods": ["GET", "POST"],
        "AllowOrigins": [APP, "http://localhost:3000"],
        "ExposeHeaders": ["date", "x-total"],
        "MaxAge": 600,
    },
    Cors,
)


def ask(origin: str = APP, method: str = "POST", headers: str = "") -> list[tuple[str, str]]:
    """Return the headers that a browser sends with a preflight."""
    request_headers = [("Origin", origin), ("Access-Control-Request-Method", method)]
    return (
        [*request_headers, ("access-control-request-headers", headers)]
        if headers
        else request_headers
    )


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_preflight_is_answered_with_what_is_allowed(origin: str) -> None:
    """Each allowed origin gets its own name, and the methods, headers and seconds."""
    expected = (
        (ORIGIN, origin),
        CREDENTIALS,
        ("Access-Control-Allow-Methods", "GET,POST"),
        ("Access-Control-Allow-Headers", "content-type,x-shop"),
        ("Access-Control-Max-Age", "600"),
        VARY,
    )

    assert expected == cors.preflight(CONFIG, "OPTIONS", ask(origin, headers="x-shop"))


@pytest.mark.parametrize(
    "origin",
    [
        "https://other.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example.evil",
        "https://sub.app.example",
        "null",
        "*",
        "",
    ],
)
def test_an_origin_that_is_not_allowed_reads_nothing(origin: str) -> None:
    """Origins are compared in full: another one gets Vary only, for a preflight and an answer."""
    assert (VARY,) == cors.preflight(CONFIG, "OPTIONS", ask(origin))
    assert (VARY,) == cors.response_headers(CONFIG, origin)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", ask()),
        ("OPTIONS", ask()[:1]),
        ("OPTIONS", ask()[1:]),
        ("OPTIONS", []),
    ],
)
def test_any_other_request_goes_to_the_function(
    method: str, headers: list[tuple[str, str]]
) -> None:
    """A preflight is an OPTIONS with an origin and a requested method."""
    assert cors.preflight(CONFIG, method, headers) is None


def test_without_a_cors_everything_goes_to_the_function() -> None:
    """A function may answer preflights itself, and set CORS headers."""
    own = ((ORIGIN, "*"), ("X-A", "b"))

    assert cors.preflight(None, "OPTIONS", ask()) is None
    assert own == cors.applied(None, APP, own)


def test_an_answer_has_the_headers_that_its_origin_may_read() -> None:
    """The exposed headers come with the answer, the allowed ones with the preflight."""
    expected = (
        (ORIGIN, APP),
        CREDENTIALS,
        ("Access-Control-Expose-Headers", "date,x-total"),
        VARY,
    )

    assert expected == cors.response_headers(CONFIG, APP)


def test_an_answer_to_no_origin_says_only_that_origins_differ() -> None:
    """A cache may serve it to a client without an origin."""
    assert (VARY,) == cors.response_headers(CONFIG, None)
    assert () == cors.response_headers(Cors(allow_origins=("*",)), None)


def test_every_origin_is_a_star_without_credentials() -> None:
    """With * no site gets credentials, not even one that is in the list too."""
    config = Cors(allow_origins=("*", APP), allow_methods=("GET",), allow_credentials=True)

    for origin in (APP, "https://other.example", "*"):
        assert ((ORIGIN, "*"),) == cors.response_headers(config, origin)
    assert (
        (ORIGIN, "*"),
        ("Access-Control-Allow-Methods", "GET"),
        ("Access-Control-Max-Age", "0"),
    ) == cors.preflight(config, "OPTIONS", ask())


def test_every_method_and_header_is_the_ones_asked_for() -> None:
    """With credentials a browser reads * as a name, so each name is spelled out."""
    config = Cors(
        allow_origins=(APP,),
        allow_methods=("*",),
        allow_headers=("*",),
        expose_headers=("*",),
        allow_credentials=True,
    )

    assert (
        (ORIGIN, APP),
        CREDENTIALS,
        ("Access-Control-Allow-Methods", "DELETE"),
        ("Access-Control-Allow-Headers", "authorization,x-shop"),
        ("Access-Control-Max-Age", "0"),
        VARY,
    ) == cors.preflight(config, "OPTIONS", ask(method="DELETE", headers="authorization, x-shop"))
    assert ("Access-Control-Expose-Headers", "*") in cors.response_headers(config, APP)


def test_a_name_that_is_no_token_is_left_out() -> None:
    """Neither a client nor a configuration can add a line to the answer."""
    config = Cors(allow_origins=(APP,), allow_methods=("*",), allow_headers=("x-a\r\nx-b", "x-c"))

    assert (
        (ORIGIN, APP),
        ("Access-Control-Allow-Headers", "x-c"),
        ("Access-Control-Max-Age", "0"),
        VARY,
    ) == cors.preflight(config, "OPTIONS", ask(method="GET\r\nX: y"))


def test_a_cors_without_origins_allows_none() -> None:
    """A Cors without members allows no origin."""
    config = msgspec.convert({}, Cors)

    assert (VARY,) == cors.preflight(config, "OPTIONS", ask())
    assert (VARY,) == cors.response_headers(config, APP)


@pytest.mark.parametrize("origin", [APP, "https://other.example", None])
def test_the_function_s_own_cors_headers_are_dropped(origin: str | None) -> None:
    """The URL's headers replace the function's, also those for an origin that is not allowed."""
    own = (
        ("Content-Type", "text/html"),
        ("access-control-allow-origin", "*"),
        ("Access-Control-Allow-Credentials", "true"),
        ("ACCESS-CONTROL-EXPOSE-HEADERS", "x-secret"),
        ("Vary", "Accept"),
    )
    others = (("Content-Type", "text/html"), ("Vary", "Accept"))

    assert (*others, *cors.response_headers(CONFIG, origin)) == cors.applied(CONFIG, origin, own)
