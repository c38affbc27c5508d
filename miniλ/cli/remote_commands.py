"""This module is commands: those of the command line that ask a server, over HTTP.

`deploy`, `ls`, `rm`, `logs`, and `invoke` of a function that is there. Rule: nothing is run here,
and nothing is looked up here either: what a name means, and what is allowed, the server says.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from miniλ import failures
from miniλ.cli import client
from miniλ.cli.exit_codes import FAILED, INTERRUPTED, KILLED, TIMED_OUT, UNAVAILABLE, fail, usage
from miniλ.cli.options import endpoint_option
from miniλ.errors import EntityTooLarge, LambdaError
from miniλ.runtimes import catalog
from miniλ.store import packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from miniλ.cli.client import Endpoint, InvokeResult

# Lambda wants one; nothing here looks at it.
ROLE = "arn:aws:iam::000000000000:role/minilambda"
FOLLOW_SECONDS = 1.0
# What an invocation printed is told when it ends, with the times at which it was printed: so much
# older than what was told before it may be, beyond the function's timeout. For the init phase.
LATE_SECONDS = 60
LONGEST_SECONDS = 900


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turn what may happen while a server is asked into a line on stderr and an exit code."""
    try:
        yield
    except client.NoServer as exc:
        click.echo(str(exc), err=True)
        sys.exit(UNAVAILABLE)
    except LambdaError as exc:
        fail(exc)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def asks(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command one that asks a server, which arrives as `server`; it has --json too."""

    @endpoint_option
    @click.option("--json", "as_json", is_flag=True, help="For programs.")
    @functools.wraps(command)
    def asking(endpoint_url: str, **others: Any) -> None:  # noqa: ANN401 - the command's own
        with explaining():
            command(server=client.server(endpoint_url), **others)

    return asking


def variables(items: tuple[str, ...]) -> dict[str, str]:
    """Return the environment that a repeated --env K=V says; the last one wins."""
    for item in items:
        if "=" not in item:
            usage(f"--env is K=V, got {item!r}")
    parted = [item.partition("=") for item in items]
    return {name: value for name, _, value in parted}


# deploy


@click.command()
@click.argument("code", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Of the function.")
@click.option("--handler", help="module.function; needed for a new function.")
@click.option(
    "--runtime", help="python3.9 to python3.14; of a new function the one that runs this."
)
@click.option("--memory-size", type=int, help="MB.")
@click.option("--timeout", type=int, help="Seconds.")
@click.option("--env", "environment", multiple=True, metavar="K=V", help="Repeated; replaces all.")
@click.option("--description")
@click.option("--role", help="An ARN. Any will do.")
@click.option("--layers", multiple=True, metavar="ARN", help="Repeated; replaces all.")
@click.option("--publish", is_flag=True, help="Make a version of it.")
@click.option("--alias", help="Publish, and point this alias to the version.")
@asks
def deploy(
    server: Endpoint,
    code: Path,
    name: str,
    environment: tuple[str, ...],
    layers: tuple[str, ...],
    alias: str | None,
    *,
    publish: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - None where it was not given
) -> None:
    """Make a function of DIR (or a .zip), or give it to the function that has this name.

    An option that is not given is left as it is. Says the ARN, the version and the state once the
    change is through.
    """
    said = {
        "Handler": options["handler"],
        "Runtime": options["runtime"],
        "MemorySize": options["memory_size"],
        "Timeout": options["timeout"],
        "Environment": {"Variables": variables(environment)} if environment else None,
        "Description": options["description"],
        "Role": options["role"],
        "Layers": list(layers) or None,
    }
    changes = {key: value for key, value in said.items() if value is not None}
    _deploy(server, name, _zipped(code), changes)
    found = _succeeded(client.settled(server, name))
    if publish or alias is not None:
        version = client.call(server, "POST", client.path_of(name, "versions"), {})["Version"]
        found = client.settled(server, f"{name}:{version}")
    lines = [f"{found['FunctionArn']} {found['Version']} {found['State']}"]
    if alias is not None:
        lines.append(f"{_point(server, name, alias, found['Version'])} -> {found['Version']}")
    click.echo(_formatted(found) if as_json else "\n".join(lines))


def _deploy(server: Endpoint, name: str, code: bytes, changes: dict[str, Any]) -> None:
    """Create the function or update it, and leave the last change to be waited for."""
    zip_file = base64.b64encode(code).decode()
    size = f"{name}, {len(code):,} bytes of zip"
    if client.find(server, name) is None:
        if "Handler" not in changes:
            usage(f"There is no function {name!r} yet: --handler is needed to create it")
        _progress(f"creating {size}")
        fresh = {"FunctionName": name, "Runtime": catalog.own(), "Role": ROLE, **changes}
        client.call(server, "POST", client.FUNCTIONS, {**fresh, "Code": {"ZipFile": zip_file}})
        return
    client.settled(server, name)  # somebody else's change
    if changes:
        # Before the code: it is likelier to be the new one that cannot do without the other.
        _progress(f"configuring {name}")
        client.call(server, "PUT", client.path_of(name, "configuration"), changes)
        _succeeded(client.settled(server, name))
    _progress(f"updating {size}")
    client.call(server, "PUT", client.path_of(name, "code"), {"ZipFile": zip_file})


def _zipped(path: Path) -> bytes:
    """Return a .zip as it is, or one of a directory, always the same for the same code.

    It is made of what a supervisor would take of the directory: without .git and caches.
    """
    if path.is_file():
        try:
            with path.open("rb") as file:
                code = file.read(packages.MAX_ZIPPED + 1)
        except OSError as exc:
            usage(f"The code {path} cannot be read: {exc.strerror}")
    else:
        with tempfile.TemporaryDirectory(prefix="minilambda-") as scratch:
            store, archive = Path(scratch, "code"), Path(scratch, "zip")
            store.mkdir()
            package = packages.publish(path, store, durable=False)
            packages.archive(Path(package.path), archive)
            code = archive.read_bytes()
    if len(code) > packages.MAX_ZIPPED:
        msg = f"Zipped size must be smaller than {packages.MAX_ZIPPED} bytes ({path})"
        raise EntityTooLarge(msg)
    return code


def _succeeded(found: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that is as it was asked for; exit with the reason if it is not."""
    # The update first: of a function that never was Active, the State tells an older reason.
    for what in ("LastUpdateStatus", "State"):
        if found.get(what) == "Failed":
            reason = found.get(f"{what}Reason", "the server gives no reason")
            click.echo(f"{found['FunctionArn']} Failed: {reason}", err=True)
            sys.exit(FAILED)
    return found


def _point(server: Endpoint, name: str, alias: str, version: str) -> str:
    """Point an alias to a version and no other, whether it is there already or not."""
    document = {"FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": {}}}
    try:
        found = client.call(server, "PUT", client.path_of(name, "aliases", alias), document)
    except LambdaError as exc:
        if not client.is_missing(exc):
            raise
        path = client.path_of(name, "aliases")
        found = client.call(server, "POST", path, {**document, "Name": alias})
    return str(found["AliasArn"])


def _progress(text: str) -> None:
    # For a person at a terminal, who waits.
    if sys.stderr.isatty():
        click.echo(f"{text} ...", err=True)


def _formatted(document: object) -> str:
    return msgspec.json.format(msgspec.json.encode(document)).decode()


# ls and rm


@click.command()
@asks
def ls(server: Endpoint, *, as_json: bool) -> None:
    """List the functions."""
    # The list itself leaves out their states, as on Lambda.
    asked = (client.find(server, each["FunctionName"]) for each in client.functions(server))
    found = [function for function in asked if function is not None]
    if as_json:
        click.echo(_formatted(found))
        return
    if not found:
        click.echo("There are no functions yet: `minilambda deploy` makes one.", err=True)
        return
    rows = [("NAME", "RUNTIME", "MEMORY", "TIMEOUT", "STATE", "LAST MODIFIED (UTC)")]
    rows += [
        (
            function["FunctionName"],
            function.get("Runtime", ""),
            f"{function['MemorySize']} MB",
            f"{function['Timeout']} s",
            _state(function),
            function["LastModified"][:19].replace("T", " "),
        )
        for function in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _state(function: dict[str, Any]) -> str:
    update = function.get("LastUpdateStatus", "Successful")
    state = str(function.get("State", ""))
    return state if update == "Successful" else f"{state}, update {update}"


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@asks
def rm(server: Endpoint, names: tuple[str, ...], *, as_json: bool) -> None:
    """Delete functions with all that belongs to them, or one version as in NAME:3.

    One that is not there is exit code 1; the others are deleted all the same.
    """
    deleted: list[str] = []
    for name in names:
        try:
            client.call(server, "DELETE", client.path_of(name))
        except LambdaError as exc:
            if not client.is_missing(exc):
                raise
            click.echo(f"{exc.code}: {exc}", err=True)
            continue
        deleted.append(name)
        if not as_json:
            click.echo(f"deleted {name}")
    if as_json:
        click.echo(_formatted({"deleted": deleted}))
    sys.exit(0 if len(deleted) == len(names) else FAILED)


# invoke


def invoke(
    server: Endpoint, name: str, body: bytes, *, kind: str, qualifier: str | None, as_json: bool
) -> int:
    """Run a function of the server and print as for a local one; return the exit code."""
    invoked = client.invoke(server, name, body, kind=kind, qualifier=qualifier)
    if kind != "RequestResponse":
        if as_json:
            click.echo(
                msgspec.json.encode({"status": invoked.status, "request_id": invoked.request_id})
            )
        else:
            said = {"Event": "accepted, RequestId:", "DryRun": "may be invoked, RequestId:"}[kind]
            click.echo(f"{name} {said} {invoked.request_id}", err=True)
        return 0
    failure = failures.parse_failure(invoked.payload) if invoked.failed else None
    if as_json:
        document = {
            "payload": msgspec.Raw(invoked.payload),
            "failure": failure,
            "log": invoked.log,
            "executed_version": invoked.executed_version,
            "request_id": invoked.request_id,
        }
        click.echo(msgspec.json.encode(document))
    else:
        click.echo(invoked.log, err=True, nl=False)
        click.echo(invoked.payload)
    return 0 if failure is None else _exit_code(invoked, failure.error_type)


def _exit_code(invoked: InvokeResult, error_type: str) -> int:
    if error_type == "Sandbox.Timedout":
        return TIMED_OUT
    if error_type == "Runtime.ExitError" and b"signal: killed" in invoked.payload:
        return KILLED
    return FAILED


# logs


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@asks
def logs(server: Endpoint, name: str, *, follow: bool, as_json: bool) -> None:
    """Print what a function has printed, as far back as it is kept.

    With --json one event a line, as CloudWatch Logs has them.
    """
    late: int | None = None
    newest = 0
    seen: dict[str, int] = {}
    while True:
        start = 0 if late is None else max(0, newest - late)
        for event in _events(server, name, start):
            if event["eventId"] in seen:
                continue
            seen[event["eventId"]] = event["timestamp"]
            newest = max(newest, event["timestamp"])
            # Bytes, whatever the terminal's encoding; a traceback's lines are folded into one.
            line = msgspec.json.encode(event) + b"\n" if as_json else _unfolded(event["message"])
            click.echo(line, nl=False)
        if not follow:
            return
        if late is None:
            late = _late(server, name)
        seen = {key: timestamp for key, timestamp in seen.items() if timestamp >= newest - late}
        time.sleep(FOLLOW_SECONDS)


def _events(server: Endpoint, name: str, start: int) -> Iterator[dict[str, Any]]:
    """Yield the events of a function's log; nothing where it has not run yet."""
    try:
        yield from client.log_events(server, f"/aws/lambda/{name}", start)
    except LambdaError as exc:
        if not client.is_missing(exc):
            raise
        # If it is the function that is missing, the server says so.
        client.call(server, "GET", client.path_of(name, "configuration"))


def _late(server: Endpoint, name: str) -> int:
    """Return how much older than the newest an event may be that was not told yet, in ms."""
    found = client.find(server, name) or {}
    return 1000 * (int(found.get("Timeout", LONGEST_SECONDS)) + LATE_SECONDS)


def _unfolded(message: str) -> bytes:
    return message.rstrip("\n").replace("\r", "\n").encode(errors="replace") + b"\n"
