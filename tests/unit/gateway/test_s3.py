"""Tests of the S3 reader, against a server that checks every signature."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import time
from pathlib import PosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web

from miniλ import sigv4
from miniλ.errors import AccessDenied, InvalidParameterValue, LambdaError, ServiceError
from miniλ.gateway import s3

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

KEY_ID = "AKIAS3"
SECRET = "secret/of+s3"
REGION = "eu-west-3"
NO_SUCH_KEY = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>The specified '
    "key does not exist.</Message><Key>x</Key><RequestId>1</RequestId></Error>"
)
NO_SUCH_KEY_WORDS = (
    "Error occurred while GetObject. S3 Error Code: NoSuchKey. "
    "S3 Error Message: The specified key does not exist."
)

if TYPE_CHECKING:
    Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """Serve on 127.0.0.1, and tell the endpoint's URL."""
    # A handler that never ends is cancelled when its client has left.
    server = web.Server(handler, handler_cancellation=True)  # type: ignore[arg-type]
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def store(objects: dict[str, bytes], secret: str = SECRET) -> Handler:
    """Return an S3 with these objects, by path and query as they are on the wire."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        headers = request.headers.items()
        claim = sigv4.parse(query, headers)
        assert (KEY_ID, REGION, "s3") == (claim.key_id, claim.region, claim.service)
        body = sigv4.EMPTY_SHA256
        try:
            sigv4.check(claim, request.method, path, query, headers, secret, body, time.time())
        except AccessDenied as exc:
            return web.Response(status=403, text=error("SignatureDoesNotMatch", str(exc)))
        if request.raw_path not in objects:
            return web.Response(status=404, text=NO_SUCH_KEY, content_type="application/xml")
        return web.Response(body=objects[request.raw_path])

    return handle


def error(code: str, message: str) -> str:
    """Return an error document as S3 writes it."""
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"


def always(status: int, body: str | bytes, **headers: str) -> Handler:
    """Return a server that has this one answer."""

    async def handle(_request: web.BaseRequest) -> web.StreamResponse:
        data = body if isinstance(body, bytes) else body.encode()
        return web.Response(status=status, body=data, headers=headers)

    return handle


def fetched(handler: Handler, target: Path, **changes: Any) -> bytes:
    """Return the object that was fetched from a server with this handler."""

    async def scenario() -> None:
        async with serving(handler) as endpoint:
            await fetch(endpoint, target, **changes)

    asyncio.run(scenario())
    return target.read_bytes()


async def fetch(endpoint: str, target: Path, **changes: Any) -> None:
    """Fetch code/app.zip, or what is given otherwise."""
    named: dict[str, Any] = {"bucket": "code", "key": "app.zip", "version": None, **changes}
    limit = named.pop("limit", 1000)
    await s3.fetch(
        endpoint,
        target=target,
        key_id=KEY_ID,
        secret=SECRET,
        region=REGION,
        limit=limit,
        **named,
    )


def refused(
    handler: Handler, target: Path, kind: type[LambdaError] = InvalidParameterValue, **changes: Any
) -> str:
    """Return the message of what was not fetched; nothing is left where it would be."""
    with pytest.raises(LambdaError) as caught:
        fetched(handler, target, **changes)
    assert kind is type(caught.value)
    assert not target.exists()
    return str(caught.value)


def test_an_object_is_fetched(tmp_path: Path) -> None:
    """The bytes are as they are there, and the request is signed."""
    assert b"PK..." == fetched(store({"/code/app.zip": b"PK..."}), tmp_path / "a.zip")


@pytest.mark.parametrize(
    "version", ["3/L4kqtJlcpXroDTDmJ+rmSpXd3dIbrHY+MTRCxf3vjVBH40Nr8X8g", "a b"]
)
def test_a_version_of_an_object_is_fetched(tmp_path: Path, version: str) -> None:
    """The version is a parameter of the query, with any characters."""
    path = f"/code/app.zip?versionId={quote(version, safe='')}"

    assert b"old" == fetched(store({path: b"old"}), tmp_path / "a.zip", version=version)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a b+c.zip", "a%20b%2Bc.zip"),
        ("dir/sub//x", "dir/sub//x"),
        ("/x", "/x"),
        ("é/λ~.zip", "%C3%A9/%CE%BB~.zip"),
        ("a%2Fb?c#d&e=f", "a%252Fb%3Fc%23d%26e%3Df"),
        ("...", "..."),
        ("arn:aws:s3@x,(1)*'!$;", "arn%3Aaws%3As3%40x%2C%281%29%2A%27%21%24%3B"),
        ("a\\b\tc\n", "a%5Cb%09c%0A"),
    ],
)
def test_a_key_may_have_any_letters(tmp_path: Path, key: str, path: str) -> None:
    """It is encoded once, and sent as it was signed."""
    assert b"x" == fetched(store({f"/code/{path}": b"x"}), tmp_path / "a.zip", key=key)


def test_an_endpoint_may_have_a_path(tmp_path: Path) -> None:
    """Buckets are below it, with or without a slash at its end."""

    async def scenario() -> None:
        async with serving(store({"/s3/code/app.zip": b"x"})) as endpoint:
            await fetch(f"{endpoint}/s3", tmp_path / "a.zip")
            await fetch(f"{endpoint}/s3/", tmp_path / "b.zip")

    asyncio.run(scenario())
    assert [b"x", b"x"] == [(tmp_path / name).read_bytes() for name in ("a.zip", "b.zip")]


def test_an_object_with_an_encoding_stays_as_it_is(tmp_path: Path) -> None:
    """What was put there compressed is not inflated here: its size would be anything."""
    body = gzip.compress(bytes(100_000))
    handler = always(200, body, **{"Content-Encoding": "gzip"})

    assert body == fetched(handler, tmp_path / "a.zip")


def test_a_large_object_comes_in_pieces(tmp_path: Path) -> None:
    """Three megabytes are the same three megabytes afterwards."""
    body = bytes(range(256)) * (3 * 4096)

    assert body == fetched(store({"/code/app.zip": body}), tmp_path / "a.zip", limit=len(body))


# What S3 says no to


def test_what_is_not_there_is_said_in_lambda_words(tmp_path: Path) -> None:
    """Code and message are S3's own."""
    assert NO_SUCH_KEY_WORDS == refused(store({}), tmp_path / "a.zip")


def test_a_wrong_secret_is_said_in_lambda_words(tmp_path: Path) -> None:
    """The little server calculates another signature."""
    message = refused(store({}, secret="other"), tmp_path / "a.zip")

    assert "S3 Error Code: SignatureDoesNotMatch. S3 Error Message: The request sig" in message


def test_what_may_not_be_read_is_access_denied(tmp_path: Path) -> None:
    """Lambda has words of its own for it, which name the object."""
    handler = always(403, error("AccessDenied", "Access Denied"))

    assert refused(handler, tmp_path / "a.zip", AccessDenied) == (
        "Your access has been denied by S3, please make sure your request credentials have "
        "permission to GetObject for code/app.zip. S3 Error Code: AccessDenied. "
        "S3 Error Message: Access Denied"
    )


def test_a_fault_of_s3_is_worth_another_try(tmp_path: Path) -> None:
    """5xx is the fault of no parameter: the answer is a service error."""
    handler = always(503, error("SlowDown", "Please reduce your request rate."))

    assert refused(handler, tmp_path / "a.zip", ServiceError) == (
        "Error occurred while GetObject. S3 Error Code: SlowDown. "
        "S3 Error Message: Please reduce your request rate."
    )


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(tmp_path: Path, status: int) -> None:
    """Where an endpoint points to was not configured: nothing is asked there."""
    paths: list[str] = []

    async def elsewhere(request: web.BaseRequest) -> web.StreamResponse:
        paths.append(request.path)
        return web.Response(body=b"x")

    async def scenario() -> str:
        async with serving(elsewhere) as other:
            moved = error("PermanentRedirect", "Elsewhere.")
            async with serving(always(status, moved, Location=f"{other}/x")) as endpoint:
                with pytest.raises(InvalidParameterValue) as caught:
                    await fetch(endpoint, tmp_path / "a.zip")
                return str(caught.value)

    assert "S3 Error Code: PermanentRedirect" in asyncio.run(scenario())
    assert [] == paths


def test_no_proxy_of_the_environment_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy for the rest of the machine is not between us and the endpoint."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert b"x" == fetched(store({"/code/app.zip": b"x"}), tmp_path / "a.zip")


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><Error><Code>&b;</Code></Error>'


@pytest.mark.parametrize(
    "body",
    [
        "",
        "not XML",
        "<html><body>Bad gateway</body></html>",
        "<Error><Code>x",
        BOMB,
        BOMB.encode("utf-16"),
        '<!DOCTYPE x SYSTEM "file:///etc/passwd"><Error><Code>x</Code></Error>',
        error("NoSuchKey", "x" * s3.MAX_ERROR),
        "<a>" * 20_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_is_no_error_of_s3_is_told_by_its_status(tmp_path: Path, body: str | bytes) -> None:
    """A page of a proxy, a document with a DTD, one without an end: the status is what we have."""
    assert refused(always(404, body), tmp_path / "a.zip") == (
        "Error occurred while GetObject. S3 Error Code: 404. S3 Error Message: Not Found"
    )


def test_what_s3_says_is_passed_on_as_one_short_line(tmp_path: Path) -> None:
    """A message of S3 becomes a line of ours: it is not a page, and not two lines."""
    body = error("A\n B" + "x" * 5000, "\r\n".join(["words"] * 1000))

    message = refused(always(400, body), tmp_path / "a.zip")

    assert "S3 Error Code: A Bx" in message
    assert "x. S3 Error Message: words words" in message
    assert "\n" not in message
    assert len(message) < 3 * s3.MAX_WORDS


# Limits


def test_an_object_of_the_limit_is_not_above_it(tmp_path: Path) -> None:
    """The limit is the last size that is taken."""
    handler = store({"/code/app.zip": bytes(1000)})

    assert bytes(1000) == fetched(handler, tmp_path / "a.zip", limit=1000)


def test_an_object_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Its announced length is enough: none of it is waited for."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1001"})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    message = refused(handle, tmp_path / "a.zip")

    assert message == "Zipped size must be smaller than 1000 bytes"


def test_an_object_without_a_length_is_counted(tmp_path: Path) -> None:
    """Chunk after chunk: it ends with the byte above the limit, and leaves nothing."""
    sent = 0

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(bytes(10_000))
            sent += 10_000

    message = refused(handle, tmp_path / "a.zip", limit=100_000)

    assert message == "Zipped size must be smaller than 100000 bytes"
    assert sent >= 90_000


# Endpoints that do not do


def free_port() -> int:
    """Return a port without a listener."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


def unreachable(endpoint: str, target: Path) -> str:
    """Return the message about an endpoint that does not answer; it begins with its name."""
    with pytest.raises(ServiceError) as caught:
        asyncio.run(fetch(endpoint, target))
    assert not target.exists()
    words = f"The S3 endpoint {endpoint} does not answer: "
    assert str(caught.value).startswith(words)
    return str(caught.value).removeprefix(words)


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Nobody listens: it is our side's fault, and the message says which endpoint."""
    assert "Cannot connect" in unreachable(f"http://127.0.0.1:{free_port()}", tmp_path / "a.zip")


def test_an_endpoint_that_speaks_no_tls_is_named(tmp_path: Path) -> None:
    """An endpoint of https is not asked in the clear."""

    async def scenario() -> None:
        async with serving(always(200, "x")) as endpoint:
            with pytest.raises(ServiceError, match="does not answer"):
                await fetch(endpoint.replace("http:", "https:"), tmp_path / "a.zip")

    asyncio.run(scenario())


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("which", ["sock_read", "total"])
def test_an_endpoint_that_falls_silent_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, *, begun: bool
) -> None:
    """Before its answer, or in the middle of an object: half of one is not kept."""
    monkeypatch.setattr(s3, "TIMEOUT", aiohttp.ClientTimeout(**{which: 0.1}))

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        if begun:
            await response.prepare(request)
            await response.write(bytes(50))
        await asyncio.Event().wait()
        return response

    message = refused(handle, tmp_path / "a.zip", ServiceError)

    assert "does not answer: " in message


def test_an_object_that_ends_too_early_is_not_kept(tmp_path: Path) -> None:
    """A connection that breaks in the middle is no end of an object."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(bytes(50))
        assert request.transport is not None
        request.transport.close()
        return response

    assert "does not answer: " in refused(handle, tmp_path / "a.zip", ServiceError)


class Opened(PosixPath):
    """A path that tells when it was opened."""

    opened: asyncio.Event

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Open it, and say so."""
        self.opened.set()
        return super().open(*args, **kwargs)


def test_who_leaves_leaves_nothing(tmp_path: Path) -> None:
    """A fetch that is cancelled in the middle of an object removes what it has of it."""
    target = Opened(tmp_path / "a.zip")

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(bytes(50))
        await asyncio.Event().wait()
        return response

    async def scenario() -> None:
        Opened.opened = asyncio.Event()
        async with serving(handle) as endpoint:
            fetching = asyncio.create_task(fetch(endpoint, target))
            await Opened.opened.wait()
            assert target.exists()
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching

    asyncio.run(scenario())
    assert not target.exists()


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "127.0.0.1:9000",
        "ftp://127.0.0.1",
        "file:///etc",
        "http://",
        "http://user:s3cr3t@host",
        "http://host/?s3cr3t",
        "http://host/#s3cr3t",
        "http://host:99999",
        "http://host:0",
        "http://ho st",
        "http://host\n",
        "http://[::1",
        "http://a..b",
        f"http://{'a' * 64}",
    ],
)
def test_an_endpoint_is_a_url_of_http(tmp_path: Path, endpoint: str) -> None:
    """Nothing is asked of anything else; what may hold a password is not shown."""
    with pytest.raises(InvalidParameterValue) as caught:
        asyncio.run(fetch(endpoint, tmp_path / "a.zip"))

    assert "The S3 endpoint must be http:// or https://" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        ("..", "x"),
        (".", "x"),
        ("", "x"),
        ("a/b", "x"),
        ("code", ""),
        ("code", "../other/x"),
        ("code", "a/./b"),
        ("code", "a/.."),
    ],
)
def test_a_path_does_not_leave_its_bucket(tmp_path: Path, bucket: str, key: str) -> None:
    """Dots as a segment of a path are read by servers and proxies as another path."""

    async def never(_request: web.BaseRequest) -> web.StreamResponse:
        pytest.fail("it was asked")

    message = refused(never, tmp_path / "a.zip", bucket=bucket, key=key)

    assert f"S3Bucket and S3Key name no object: '{bucket}/{key}'" == message


# The file


def test_a_file_that_is_there_is_not_touched(tmp_path: Path) -> None:
    """The target is a new file: another one's is not overwritten, nor removed."""
    target = tmp_path / "a.zip"
    target.write_bytes(b"other")
    with pytest.raises(ServiceError, match=f"cannot be written to {target}: File exists"):
        fetched(store({"/code/app.zip": b"x"}), target)

    assert b"other" == target.read_bytes()


def test_a_file_that_cannot_be_written_is_a_service_error(tmp_path: Path) -> None:
    """The message has the file and the reason: it is not S3's fault."""
    target = tmp_path / "no" / "a.zip"

    assert refused(store({"/code/app.zip": b"x"}), target, ServiceError) == (
        f"An object of S3 cannot be written to {target}: No such file or directory"
    )
