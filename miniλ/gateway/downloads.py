"""Download links: addresses that let their holder download one package for 10 minutes.

GetFunction and GetLayerVersion answer with one. A link has its file, its expiry, and an HMAC of
both under a secret of this process. So it needs no key, and gives access to no other file.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from typing import TYPE_CHECKING

from miniλ.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Mapping

# API reference, "GetFunction": the link is valid for 10 minutes.
SECONDS = 600
PREFIX = "/_code/"

_FILE = re.compile(r"[0-9a-f]{64}\.zip")


class DownloadLinks:
    """The links of one gateway; those of an earlier gateway are refused."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)

    def make(self, sha256: str) -> str:
        """Return path and query of a link to the archive of a package, by its sha256 as hex."""
        name = f"{sha256}.zip"
        expires = str(int(time.time()) + SECONDS)
        return f"{PREFIX}{name}?expires={expires}&code={self._code(name, expires)}"

    def check(self, path: str, query: Mapping[str, str]) -> str:
        """Return the sha256 (hex) that a link is for; raises `AccessDenied`."""
        name, expires = path.removeprefix(PREFIX), query.get("expires", "")
        good = (
            _FILE.fullmatch(name) is not None
            and expires.isascii()
            and expires.isdecimal()
            and hmac.compare_digest(
                self._code(name, expires).encode(), query.get("code", "").encode()
            )
        )
        if not good or int(expires) < time.time():
            msg = "The link has expired, or is none of this server's: ask GetFunction for another"
            raise AccessDenied(msg)
        return name.removesuffix(".zip")

    def _code(self, name: str, expires: str) -> str:
        return hmac.new(self._secret, f"{name} {expires}".encode(), hashlib.sha256).hexdigest()
