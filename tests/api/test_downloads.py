"""Download links: the package behind GetFunction's Location, and the requests that get it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.api.conftest import Server, archive
from tests.api.plain_http import ask
from tests.api.watched_servers import hasty, hasty_client, server, status_and_code

if TYPE_CHECKING:
    from collections.abc import Callable

    from botocore.client import BaseClient

    MakeFunction = Callable[..., str]

__all__ = ["hasty", "hasty_client", "server"]  # fixtures


def located(client: BaseClient, name: str) -> str:
    """Return path and query of the link to the code of a function."""
    location: str = client.get_function(FunctionName=name)["Code"]["Location"]
    return location[location.index("/_code/") :]


def test_a_link_gives_the_package_and_nothing_else(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """GetFunction's link returns the archive as it was sent; a changed link is refused."""
    code = archive(app="def handler(event, context):\n    return 'one'\n")
    name = make_function(Code={"ZipFile": code})
    other = make_function("def handler(event, context):\n    return 'two'\n")
    path, theirs = located(client, name), located(client, other)
    sha256 = path[7:71]

    good = ask(server, "GET", path)
    changed = {
        "another file": path.replace(sha256, theirs[7:71]),
        "a later end": re.sub(r"expires=\d+", "expires=9999999999", path),
        "no code": path.partition("&code=")[0],
        "another code": path[:-1] + ("0" if path[-1] != "0" else "1"),
        "bytes for a code": path.partition("code=")[0] + "code=%ff%fe",
        "no query": path.partition("?")[0],
        "out of it": path.replace(sha256, "../registry.db?"),
        "out of it, encoded": path.replace(sha256, "..%2fregistry.db"),
        "the directory": path.replace(".zip", ""),
        "upper case": path.replace(sha256, sha256.upper())
        if sha256.upper() != sha256
        else "/_code/",
        "digits of others": path.replace("expires=", "expires=\u0663".encode().decode("latin-1")),
        "nothing": "/_code/",
    }
    answers = {}
    for what, link in changed.items():
        if not link.isascii():
            link = quote(link, safe="/?=&", encoding="latin-1")  # noqa: PLW2901 - as it is sent
        answers[what] = status_and_code(ask(server, "GET", link))

    assert (200, code) == (good.status, good.body)
    assert "application/zip" == good.headers["Content-Type"]
    assert dict.fromkeys(changed, (403, "AccessDeniedException")) == answers


def test_a_link_that_has_expired_gives_nothing(hasty: Server, hasty_client: BaseClient) -> None:
    """The links of the hasty server have expired when they are made."""
    answer = ask(hasty, "GET", located(hasty_client, "slow"))

    assert (403, "AccessDeniedException") == status_and_code(answer)
    assert answer.message.startswith("The link has expired")


def test_a_web_page_has_no_package(
    server: Server, client: BaseClient, make_function: MakeFunction
) -> None:
    """A link does not exempt a web page from the check of `loopback`."""
    path = located(client, make_function())

    assert 403 == ask(server, "GET", path, None, {"Origin": "https://evil.com"}).status
    assert 403 == ask(server, "GET", path, None, {"Host": "evil.com"}).status
