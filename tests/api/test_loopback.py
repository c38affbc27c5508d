"""Without [auth]: the server listens on loopback only, and refuses web pages and other Hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from miniλ.gateway.http import loopback
from tests.api.plain_http import ask, ended
from tests.api.watched_servers import RUN, quiet, reports, server, status_and_code

if TYPE_CHECKING:
    from tests.api.conftest import Server

__all__ = ["quiet", "server"]  # fixtures


# Browsers


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:{port}",
        "127.0.0.1:80",
        "127.9.9.9",
        "localhost",
        "LOCALHOST:{port}",
        "x.localhost:{port}",
        "[::1]",
        "[::1]:{port}",
    ],
)
def test_names_of_this_machine_are_ours(server: Server, host: str) -> None:
    """B51: a client may use any name of loopback."""
    headers = {"Host": host.format(port=server.port)}

    assert 200 == ask(server, "GET", "/", None, headers).status
    assert 200 == ask(server, "GET", "/2015-03-31/functions", None, headers).status


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:80",
        "evil.localhost.com",
        "127.0.0.1.evil.com",
        "127.0.0.1evil.com",
        "127.0.0.1:80@evil.com",
        "127.0.0.1:evil.com",
        "127.0.0.1:",
        "localhost.",
        "localhost.evil.com",
        "[::1].evil.com",
        "[::1",
        "[::2]",
        "evil.com#.localhost",
        "evil.com/.localhost",
        "0.0.0.0",
        "2130706433",
        "127.1",
        ".localhost\xff",
        "",
    ],
)
def test_other_names_are_not(server: Server, quiet: str, host: str) -> None:
    """B51: each request of a page whose name was pointed at us (DNS rebinding) is refused."""
    requests = [
        ("GET", "/", None),
        ("GET", "/2015-03-31/functions", None),
        ("POST", RUN, b"{}"),
        ("POST", "/", b"Action=GetCallerIdentity"),
    ]
    answers = [
        status_and_code(ask(server, method, path, body, {"Host": host}))
        for method, path, body in requests
    ]

    assert [(403, "AccessDeniedException")] * 4 == answers
    assert 0 == reports(server, quiet)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        # A page of a function URL has the origin of the gateway.
        {"Sec-Fetch-Site": "same-origin"},
    ],
)
def test_web_pages_are_refused(server: Server, quiet: str, headers: dict[str, str]) -> None:
    """B51: also simple POSTs of text, which a browser sends without a preflight."""
    text = {**headers, "Content-Type": "text/plain"}
    document = b'{"FunctionName": "evil"}'
    requests = [
        ("POST", "/2015-03-31/functions", document, text),
        ("POST", RUN, b"{}", text),
        ("POST", "/2014-11-13/functions/quiet/invoke-async/", b"{}", text),
        ("POST", "/", b"Action=GetCallerIdentity", text),
        ("GET", "/2015-03-31/functions", None, headers),
        ("OPTIONS", RUN, None, {**headers, "Access-Control-Request-Method": "POST"}),
        ("GET", "/", None, headers),
        ("GET", "/_minilambda/enforcement", None, headers),
    ]
    answers = [ask(server, *each) for each in requests]

    assert [(403, "AccessDeniedException")] * 8 == [status_and_code(answer) for answer in answers]
    assert not any("Access-Control-Allow-Origin" in answer.headers for answer in answers)
    assert 0 == reports(server, quiet)


def test_an_address_that_was_typed_is_answered(server: Server) -> None:
    """A person may type the address into a browser."""
    answer = ask(server, "GET", "/", None, {"Sec-Fetch-Site": "none"})

    assert (200, "minilambda") == (answer.status, answer.document["service"])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_a_server_without_auth_listens_on_loopback_only(host: str) -> None:
    """Without [auth] an address that other machines reach is a usage error: exit code 2."""
    code, stderr = ended("--host", host)

    assert 2 == code
    assert stderr.startswith(f"InvalidParameterValueException: Listening on {host} without [auth] ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_all_of_loopback_may_be_listened_on(host: str) -> None:
    """By each of its names."""
    loopback.check_listening(host, has_auth=False)
