"""This module is the S3 reader: one object of the endpoint that the operator configured, to a file.

Rule 1: only that endpoint is ever asked. Redirects are not followed and the environment's proxies
are not used: where the request goes is never up to who sent us a bucket's name.

Rule 2: bytes are counted as they come, whatever their announced length was.

Source: Amazon S3 API reference, "GetObject" and "Error responses".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree as ET

import aiohttp
import yarl

from miniλ import sigv4
from miniλ.errors import AccessDenied, InvalidParameterValue, LambdaError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An endpoint is near (its name is looked up within `connect` too); an object is up to 250 MB, and
# all of it has to be here within the total.
TIMEOUT = aiohttp.ClientTimeout(total=600, connect=10, sock_read=30)
# S3's own error documents have a few hundred bytes.
MAX_ERROR = 64 * 1024
# How much of a code or a message is passed on.
MAX_WORDS = 500
CHUNK = 256 * 1024

# A host or an IPv6 address; no user, no query. What is in here is sent and signed as it stands.
_LABEL = "[A-Za-z0-9_-]{1,63}"
_ENDPOINT = re.compile(
    rf"https?://({_LABEL}(\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?(/[A-Za-z0-9._~-]+)*/?"
)


async def fetch(
    endpoint: str,
    bucket: str,
    key: str,
    version: str | None,
    target: Path,
    *,
    key_id: str,
    secret: str,
    region: str,
    limit: int,
) -> None:
    """Write an object of at most `limit` bytes to `target`, a new file; else nothing is left there.

    Raises `InvalidParameterValue` or `AccessDenied` with Lambda's words for what S3 says no to,
    `ServiceError` for an endpoint that cannot be reached or fails, and for a file that cannot
    be written.
    """
    url = _url(endpoint, bucket, key, version)
    # The object as it was put there, also where it was put with a Content-Encoding.
    headers = {"Accept-Encoding": "identity"}
    headers |= sigv4.sign(
        "GET", url, {}, sigv4.EMPTY_SHA256, key_id, secret, region, "s3", time.time()
    )
    try:
        async with (
            aiohttp.ClientSession(timeout=TIMEOUT, auto_decompress=False) as session,
            session.get(
                yarl.URL(url, encoded=True), headers=headers, allow_redirects=False
            ) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise await _error(response, f"{bucket}/{key}")
            _check_size(response.content_length or 0, limit)
            with _new_file(target) as file:
                size = 0
                async for chunk in response.content.iter_chunked(CHUNK):
                    size += len(chunk)
                    _check_size(size, limit)
                    # On a thread: a disk that is busy holds up whoever writes to it.
                    await asyncio.to_thread(file.write, chunk)
    except (aiohttp.ClientError, TimeoutError) as exc:
        msg = f"The S3 endpoint {endpoint} does not answer: {str(exc) or type(exc).__name__}"
        raise ServiceError(msg) from exc
    except OSError as exc:
        msg = f"An object of S3 cannot be written to {target}: {exc.strerror}"
        raise ServiceError(msg) from exc


def _url(endpoint: str, bucket: str, key: str, version: str | None) -> str:
    path = f"{bucket}/{key}"
    # Path style is a path: dots would leave the bucket, or the endpoint's own path.
    if not bucket or "/" in bucket or not key or {".", ".."} & set(path.split("/")):
        msg = f"S3Bucket and S3Key name no object: {path[:1100]!r}"
        raise InvalidParameterValue(msg)
    try:
        good = _ENDPOINT.fullmatch(endpoint) is not None and urlsplit(endpoint).port != 0
    except ValueError:
        good = False
    if not good:
        # It is not shown: there may be a password in it.
        msg = "The S3 endpoint must be http:// or https://, a host, and perhaps a port and a path"
        raise InvalidParameterValue(msg)
    query = "" if version is None else f"?versionId={quote(version, safe='')}"
    return f"{endpoint.rstrip('/')}/{quote(path, safe='/')}{query}"


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        msg = f"Zipped size must be smaller than {limit} bytes"
        raise InvalidParameterValue(msg)


@contextlib.contextmanager
def _new_file(target: Path) -> Iterator[BinaryIO]:
    file = target.open("xb")
    try:
        with file:
            yield file
    except BaseException:
        # Also when who asked has left: half an object is none.
        target.unlink(missing_ok=True)
        raise


async def _error(response: aiohttp.ClientResponse, path: str) -> LambdaError:
    code, message = _words(await _beginning(response))
    code, message = code or str(response.status), message or response.reason or "no message"
    words = f"S3 Error Code: {code}. S3 Error Message: {message}"
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServiceError(f"Error occurred while GetObject. {words}")
    if code == "AccessDenied":
        return AccessDenied(
            "Your access has been denied by S3, please make sure your request credentials have "
            f"permission to GetObject for {path}. {words}"
        )
    return InvalidParameterValue(f"Error occurred while GetObject. {words}")


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an error, or nothing of it where it is too large to be one."""
    body = b""
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > MAX_ERROR:
            return b""
    return body


def _words(body: bytes) -> tuple[str, str]:
    """Return Code and Message of an error document; both are empty where it is none."""
    try:
        text = body.decode()
        # Entities that blow up, and those that read files, are declared in a DTD: S3 has none.
        if "<!DOCTYPE" in text:
            return "", ""
        document = ET.fromstring(text)  # noqa: S314 - small, and without a DTD
    except (UnicodeDecodeError, ET.ParseError):
        return "", ""
    code, message = document.findtext("Code") or "", document.findtext("Message") or ""
    # It becomes one of our messages: one line, and not a page.
    return " ".join(code.split())[:MAX_WORDS], " ".join(message.split())[:MAX_WORDS]
