"""Fetches one object from the S3 endpoint that the operator configured, into a file.

Rule 1: requests go to that endpoint only. Redirects are not followed and the environment's proxies
are not used: the client that names a bucket never chooses the host.

Rule 2: bytes are counted as they come; Content-Length is only a first check.

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

# `connect` includes the look-up of the name. An object has up to 250 MB, and must arrive within
# the total.
TIMEOUT = aiohttp.ClientTimeout(total=600, connect=10, sock_read=30)
# S3's error documents have a few hundred bytes.
MAX_ERROR = 64 * 1024
# The most characters of S3's code, or of its message, that our message repeats.
MAX_WORDS = 500
CHUNK = 256 * 1024

# A host or an IPv6 address; no user, no query. Characters that are sent and signed unencoded.
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
    """Write an object of at most `limit` bytes to `target`, a new file; on failure no file is left.

    Raises `InvalidParameterValue` or `AccessDenied` with Lambda's words for what S3 refuses,
    `ServiceError` for an endpoint that cannot be reached or fails, and for a file that cannot
    be written.
    """
    url = _url(endpoint, bucket, key, version)
    # The bytes that were put, also if the object has a Content-Encoding.
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
                    # On a thread: a write to a busy disk blocks.
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
        is_valid = _ENDPOINT.fullmatch(endpoint) is not None and urlsplit(endpoint).port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        # Not repeated in the message: there may be a password in it.
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
        # Also if the client has left: half an object is useless.
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
    """Return the body of an error; empty if it is too large to be an error document."""
    body = b""
    async for chunk in response.content.iter_chunked(CHUNK):
        body += chunk
        if len(body) > MAX_ERROR:
            return b""
    return body


def _words(body: bytes) -> tuple[str, str]:
    """Return Code and Message of an error document; both are empty for another body."""
    try:
        text = body.decode()
        # Entities that expand without end, or read files, need a DTD; S3's documents have none.
        if "<!DOCTYPE" in text:
            return "", ""
        document = ET.fromstring(text)  # noqa: S314 - small, and without a DTD
    except (UnicodeDecodeError, ET.ParseError):
        return "", ""
    code, message = document.findtext("Code") or "", document.findtext("Message") or ""
    # It becomes part of one of our messages: one line.
    return " ".join(code.split())[:MAX_WORDS], " ".join(message.split())[:MAX_WORDS]
