"""This module is links: addresses that let whoever has them download one file for a while.

GetFunction and GetLayerVersion answer with such a one. It carries when it ends and a code that
only this process can have made of both, so it needs no key, and no other file can be had by it.
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

# As long as Lambda's own (API reference, "GetFunction": 10 minutes).
SECONDS = 600
PREFIX = "/_code/"

_FILE = re.compile(r"[0-9a-f]{64}\.zip")


class DownloadLinks:
    """The links of one gateway; those of an earlier one are of no use."""

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
