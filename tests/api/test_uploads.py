"""Archives as base64 inside JSON: what may be in them, what is left of them, what they cost."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from miniλ.gateway.uploads import LIMIT, MAX_REST
from miniλ.store import packages
from tests.api.conftest import ECHO, ROLE, RUNTIME, archive
from tests.api.plain_http import Answer, ask, connect, head, memory, rest, until, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from botocore.client import BaseClient

    from tests.api.conftest import Server

FUNCTIONS = "/2015-03-31/functions"
# None of these is an archive, so nothing is ever made of them.
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server that never says anything is wrong with it, and keeps no upload."""
    with watched() as running:
        yield running
        assert [] == uploads(running)
        code = running.stop()

    assert 0 == code


@pytest.fixture(autouse=True)
def nothing_is_left(server: Server) -> Iterator[None]:
    """Whatever a test does, no half of an upload is there after it."""
    yield

    until(lambda: uploads(server) == [])


def uploads(server: Server) -> list[str]:
    """Return what is on its way in."""
    return sorted(os.listdir(server.state / "uploads"))


def document(zip_file: str, name: str = "made") -> bytes:
    """Return a CreateFunction whose ZipFile is as it stands in JSON."""
    rest_of_it = json.dumps(
        {"FunctionName": name, "Runtime": RUNTIME, "Role": ROLE, "Handler": "app.handler"}
    )
    return f'{rest_of_it[:-1]}, "Code": {{"ZipFile": {zip_file}}}}}'.encode()


def quoted(code: bytes) -> str:
    """Return an archive as a string of JSON."""
    return f'"{base64.b64encode(code).decode()}"'


def told(answer: Answer) -> tuple[int, str]:
    """Return status and code."""
    return answer.status, answer.code


def escaped(text: str, characters: str) -> str:
    """Return a text with some of its characters as JSON can also write them."""
    return "".join(rf"\u{ord(each):04x}" if each in characters else each for each in text)


WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "a slash as PHP has it": lambda text: text.replace("/", r"\/"),
    "a plus as .NET has it": lambda text: text.replace("+", r"\u002B"),
    "an end as Gson has it": lambda text: text.replace("=", r"\u003d"),
    "all of it": lambda text: '"' + escaped(text[1:-1], text[1:-1]) + '"',
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN.keys())
def test_base64_is_a_string_of_json(
    server: Server, client: BaseClient, written: Callable[[str], str]
) -> None:
    """However a client writes its characters, the archive arrives as it was."""
    # What does not shrink, and is larger than what is decoded at a time.
    code = archive(app=ECHO, noise=f'"{base64.b64encode(os.urandom(900_000)).decode()}"')
    size = len(code)
    answer = ask(server, "POST", FUNCTIONS, document(written(quoted(code))))
    client.get_waiter("function_active_v2").wait(
        FunctionName="made", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
    )
    location = client.get_function(FunctionName="made")["Code"]["Location"]
    downloaded = ask(server, "GET", location[location.index("/_code/") :]).body
    client.delete_function(FunctionName="made")

    assert 201 == answer.status
    assert size == answer.document["CodeSize"]
    assert code == downloaded


@pytest.mark.parametrize(
    ("zip_file", "reason"),
    [
        ('"UEsDBA"', "Incorrect padding"),
        ('"UEsDB"', "Invalid base64-encoded string"),
        ('"UEs="UEs="', None),
        ('"UEs=UEs="', "Excess data after padding"),
        ('"UE sD"', "Only base64 data is allowed"),
        (r'"UEsD\nUEsD"', "Only base64 data is allowed"),
        ('"UEsD-_"', "Only base64 data is allowed"),
        ('"=UEs"', "Leading padding not allowed"),
        (r'"UEsD\u00e9"', "Only base64 data is allowed"),
        ('"UEsDé"', "Only base64 data is allowed"),
        (r'"UEsD\\"', "Only base64 data is allowed"),
        (r'"UEsD\q"', None),
        (r'"UEsD\ud800"', None),
    ],
)
def test_what_is_no_base64_is_no_archive(server: Server, zip_file: str, reason: str | None) -> None:
    """400 SerializationException: of the blob, or of JSON that is none."""
    answer = ask(server, "POST", FUNCTIONS, document(zip_file))
    again = ask(server, "PUT", f"{FUNCTIONS}/none/code", f'{{"ZipFile": {zip_file}}}'.encode())

    assert (400, "SerializationException") == told(answer) == told(again)
    blob = "STRING_VALUE can not be converted to an Blob: "
    words = blob + reason if reason else "Could not parse request body into json: "
    assert answer.message.startswith(words)
    assert again.message.startswith(words)


def test_padding_ends_a_large_archive_too(server: Server) -> None:
    """What comes after its end is no part of it, also if the two are far apart."""
    text = "QUJD" * (MEGABYTE // 4 - 1) + "QQ=="
    for more in ("QUJD", "Q", "===="):
        answer = ask(server, "POST", FUNCTIONS, document(f'"{text}{more}"'))

        assert (400, "SerializationException") == told(answer)


@pytest.mark.parametrize("zip_file", ["5", "[]", "{}", "true", '["UEsD"]'])
def test_an_archive_that_is_no_string_is_refused(server: Server, zip_file: str) -> None:
    """As any other member of a wrong type."""
    answer = ask(server, "POST", FUNCTIONS, document(zip_file))

    assert (400, "SerializationException") == told(answer)


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("null", (400, "ValidationException")),
        ("[]", (400, "SerializationException")),
        ('"UEsD"', (400, "SerializationException")),
        ("{}", (400, "InvalidParameterValueException")),
        ('{"ZipFile": null}', (400, "InvalidParameterValueException")),
        ('{"ZipFile": ""}', (400, "InvalidParameterValueException")),
        ('{"zipfile": "UEsD"}', (400, "InvalidParameterValueException")),
    ],
)
def test_no_archive_is_said_as_it_is(server: Server, code: str, wanted: tuple[int, str]) -> None:
    """A null is as if it were not there; an empty archive is none."""
    body = document("0").replace(b'{"ZipFile": 0}', code.encode())
    answer = ask(server, "POST", FUNCTIONS, body)

    assert wanted == told(answer)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xff", id="bytes"),
        pytest.param(document('"UEsD"')[:-1], id="half"),
        pytest.param(document('"UEsD"') + b"}", id="more"),
        pytest.param(b'{"Code":' * 100_000, id="deep"),
        pytest.param(b'{"Other":' + b"[" * 100_000, id="deep elsewhere"),
        pytest.param(b'{"Other":' + b"1" * 5_000 + b"," + document('"UEsD"')[1:], id="a number"),
        pytest.param(b'{"\xff": 1}', id="a name of bytes"),
    ],
)
def test_a_document_that_is_none_is_refused(server: Server, body: bytes) -> None:
    """400, and no mistake of the server's."""
    answer = ask(server, "POST", FUNCTIONS, body)

    assert answer.status == 400
    assert answer.code in {"SerializationException", "ValidationException"}


def test_more_than_70_mb_are_not_read(server: Server) -> None:
    """413 in AWS's words: at once if the length is sent, and at the limit if not."""
    with connect(server) as declaring:
        declaring.sendall(head(FUNCTIONS, f"Content-Length: {LIMIT + 1}", "Connection: close"))
        declared = rest(declaring)
    piece = b" " * MEGABYTE
    pieces = (piece for _ in range(LIMIT // MEGABYTE + 1))
    counted = ask(server, "POST", FUNCTIONS, pieces)
    words = f"Request must be smaller than {LIMIT} bytes for the CreateFunction operation"

    assert declared.startswith(b"HTTP/1.1 413 ")
    assert words.encode() in declared
    assert (413, "RequestEntityTooLargeException") == told(counted)
    assert words == counted.message


class Peak:
    """The most memory that a server has while this is entered, beyond what it had before."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._before = memory(server)
        self._most = self._before
        self._thread = threading.Thread(target=self._look)

    @property
    def grown(self) -> int:
        """How many bytes more there were."""
        return self._most - self._before

    def _look(self) -> None:
        while not self._over.wait(0.002):
            self._most = max(self._most, memory(self._server))

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no longer."""
        self._over.set()
        self._thread.join()
        self._most = max(self._most, memory(self._server))


def bombs() -> Iterator[tuple[str, Callable[[], Iterator[bytes]]]]:
    """Yield documents of 50 MB that would be gigabytes of objects."""
    size = 50 * MEGABYTE

    def many(piece: bytes, before: bytes, after: bytes) -> Iterator[bytes]:
        yield before
        for _ in range(size // MEGABYTE):
            yield piece * (MEGABYTE // len(piece))
        yield after

    yield "objects", lambda: many(b"{},", b'{"Other": [', b"0]}")
    yield "names", lambda: many(b'"a":0,', b"{", b'"a":0}')
    yield "names in the code", lambda: many(b'"a":0,', b'{"Code": {', b'"a":0}}')
    yield "a text", lambda: many(b"aaaa", b'{"Other": "', b'"}')
    yield "spaces", lambda: many(b"    ", b'{"Code": {"ZipFile": "UEsD"}', b"}")
    yield (
        "two archives",
        lambda: many(b"QUJD", b'{"Code": {"ZipFile": "', b'", "ZipFile": "QUJD"}}'),
    )


BOMBS = dict(bombs())


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_document_without_its_archive_is_small(
    server: Server, bomb: Callable[[], Iterator[bytes]]
) -> None:
    """What is not the archive is counted before anything is made of it: 413, and no memory."""
    with Peak(server) as peak:
        answer = ask(server, "POST", FUNCTIONS, bomb())

    assert (413, "RequestEntityTooLargeException") == told(answer)
    assert answer.message.startswith(
        f"Beside its ZipFile a request must be smaller than {MAX_REST} bytes"
    )
    assert 16 * MEGABYTE > peak.grown


def test_a_deployment_of_50_mb_costs_disk_and_no_memory(server: Server, client: BaseClient) -> None:
    """Of an archive of nearly 50 MB, never more than a part is in the server's own memory."""
    noise = base64.b64encode(os.urandom(37 * MEGABYTE)).decode()
    code = archive(app=ECHO, **{f"noise{n}": f'"{noise}"' for n in range(1)})
    text = base64.b64encode(code)
    start, end = document('"|"').split(b"|")

    def pieces() -> Iterator[bytes]:
        yield start
        for at in range(0, len(text), MEGABYTE):
            yield text[at : at + MEGABYTE]
        yield end

    with Peak(server) as peak:
        answer = ask(server, "POST", FUNCTIONS, pieces())
        client.get_waiter("function_active_v2").wait(
            FunctionName="made", WaiterConfig={"Delay": 0.02, "MaxAttempts": 500}
        )
    ran = client.invoke(FunctionName="made", Payload=b"[1]")["Payload"].read()
    client.delete_function(FunctionName="made")

    assert 201 == answer.status
    assert 30 * MEGABYTE < len(code) == answer.document["CodeSize"]
    assert b"[1]" == ran
    assert 16 * MEGABYTE > peak.grown


@pytest.mark.parametrize("lines", [("Content-Length: 2000000",), ("Transfer-Encoding: chunked",)])
def test_who_leaves_half_way_leaves_nothing(server: Server, lines: tuple[str, ...]) -> None:
    """Also of what was written already."""
    piece = document('"' + "QUJD" * 250_000)[: MEGABYTE // 2]
    with connect(server) as leaving:
        leaving.sendall(head(FUNCTIONS, *lines))
        leaving.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if "chunked" in lines[0] else piece)
        until(lambda: bool(uploads(server)))

    until(lambda: uploads(server) == [])


def test_many_leave_at_once(server: Server) -> None:
    """Twenty at a time are as one."""
    with contextlib.ExitStack() as crowd:
        for _ in range(20):
            leaving = crowd.enter_context(connect(server))
            leaving.sendall(head(FUNCTIONS, "Content-Length: 100000") + b"{")
        until(lambda: len(uploads(server)) == 20)

    until(lambda: uploads(server) == [])


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", FUNCTIONS, document(quoted(b"no archive"))),
        ("POST", FUNCTIONS, document(quoted(archive(app=ECHO)), "no name!")),
        ("POST", FUNCTIONS, document(quoted(archive(app=ECHO))).replace(b"Handler", b"Hndler")),
        ("PUT", f"{FUNCTIONS}/none/code", b'{"ZipFile": %b}' % quoted(archive(app=ECHO)).encode()),
        (
            "POST",
            "/2018-10-31/layers/none/versions",
            b'{"Content": {"ZipFile": %b}}' % quoted(b"no archive").encode(),
        ),
    ],
)
def test_what_is_refused_later_leaves_nothing_either(
    server: Server, method: str, path: str, body: bytes
) -> None:
    """An archive that arrived is removed, also if the request is refused."""
    answer = ask(server, method, path, body)

    assert answer.status in {400, 404}
    assert [] == uploads(server)


def test_an_archive_of_a_dry_run_leaves_nothing(
    server: Server, client: BaseClient, make_function: Callable[..., str]
) -> None:
    """DryRun takes all of the archive, and keeps none of it."""
    name = make_function()
    before = client.get_function_configuration(FunctionName=name)
    told_of: dict[str, Any] = client.update_function_code(
        FunctionName=name, ZipFile=archive(app="def handler(event, context): pass\n"), DryRun=True
    )
    after = client.get_function_configuration(FunctionName=name)

    assert before["CodeSha256"] == after["CodeSha256"] != told_of["CodeSha256"]


def test_an_upload_is_moved_into_the_store(tmp_path: Path) -> None:
    """The file that came over the network is the archive of the package: it is written once."""
    store = tmp_path / "code"
    store.mkdir()
    path = tmp_path / "upload.zip"
    path.write_bytes(archive(app=ECHO))
    inode = path.stat().st_ino

    package = packages.publish(packages.Upload(path), store)

    assert not path.exists()
    assert inode == packages.kept_archive(Path(package.path)).stat().st_ino
