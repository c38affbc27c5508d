"""Commands that ask a server over HTTP: `deploy`, `ls`, `rm`, `logs`, its half of `invoke`.

Rule: the server decides what a name means and what is allowed, and it runs the functions. These
commands send requests and print answers.
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
from miniλ.cli.options import endpoint_option, json_option
from miniλ.errors import EntityTooLarge, LambdaError
from miniλ.model import unfold
from miniλ.runtimes import catalog
from miniλ.store import packages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from miniλ.cli.client import Endpoint, InvokeResult

# CreateFunction requires a role; miniλ accepts any ARN of one (--role).
ROLE = "arn:aws:iam::000000000000:role/minilambda"
FOLLOW_SECONDS = 1.0
# An invocation's log is stored when it ends. The times of its lines are the start and the end of
# the invocation; when each line was printed is unknown. A new event can therefore be older than the
# newest one by the function's timeout, and by this for the init phase.
INIT_SECONDS = 60
MAX_TIMEOUT_SECONDS = 900


@contextlib.contextmanager
def explaining() -> Iterator[None]:
    """Turn errors and Ctrl-C inside the block into a line on stderr and an exit code."""
    try:
        yield
    except client.NoServer as exc:
        click.echo(str(exc), err=True)
        sys.exit(UNAVAILABLE)
    except LambdaError as exc:
        fail(exc)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def asks_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --endpoint-url and --json; it gets the former as `endpoint`."""

    @endpoint_option
    @json_option
    @functools.wraps(command)
    def with_endpoint(endpoint_url: str, **others: Any) -> None:  # noqa: ANN401 - the command's own
        with explaining():
            command(endpoint=client.endpoint(endpoint_url), **others)

    return with_endpoint


def variables(items: tuple[str, ...]) -> dict[str, str]:
    """Return the environment of a repeated --env K=V; of two with one name the last one wins."""
    for item in items:
        if "=" not in item:
            usage(f"--env is K=V, got {item!r}")
    parts = [item.partition("=") for item in items]
    return {name: value for name, _, value in parts}


# deploy


@click.command()
@click.argument("code", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="The function's name.")
@click.option("--handler", help="module.function; required for a new function.")
@click.option(
    "--runtime", help="python3.9 to python3.14.  [default for a new function: this Python]"
)
@click.option("--memory-size", type=int, help="Memory size in MB.")
@click.option("--timeout", type=int, help="Timeout in seconds.")
@click.option(
    "--env",
    "environment",
    multiple=True,
    metavar="K=V",
    help="A variable; repeatable. Replaces all variables.",
)
@click.option("--description", help="Text that clients show.")
@click.option("--role", help="The ARN of a role; any ARN is accepted.")
@click.option(
    "--layers",
    multiple=True,
    metavar="ARN",
    help="A layer version; repeatable. Replaces all layers.",
)
@click.option("--publish", is_flag=True, help="Publish a version.")
@click.option("--alias", help="Publish a version and point this alias to it.")
@asks_server
def deploy(
    endpoint: Endpoint,
    code: Path,
    name: str,
    environment: tuple[str, ...],
    layers: tuple[str, ...],
    alias: str | None,
    *,
    publish: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - None for an absent option
) -> None:
    """Create a function from DIR (or a .zip), or update the function of that name.

    Settings of an existing function that have no option on the command line stay as they are.
    Prints the ARN, the version and the state once the change is in force.
    """
    requested = {
        "Handler": options["handler"],
        "Runtime": options["runtime"],
        "MemorySize": options["memory_size"],
        "Timeout": options["timeout"],
        "Environment": {"Variables": variables(environment)} if environment else None,
        "Description": options["description"],
        "Role": options["role"],
        "Layers": list(layers) or None,
    }
    changes = {key: value for key, value in requested.items() if value is not None}
    _deploy(endpoint, name, _zipped(code), changes)
    configuration = _succeeded(client.settled(endpoint, name))
    if publish or alias is not None:
        version = client.call(endpoint, "POST", client.path_of(name, "versions"), {})["Version"]
        configuration = client.settled(endpoint, f"{name}:{version}")
    number = configuration["Version"]
    lines = [f"{configuration['FunctionArn']} {number} {configuration['State']}"]
    if alias is not None:
        lines.append(f"{_point(endpoint, name, alias, number)} -> {number}")
    click.echo(_formatted(configuration) if as_json else "\n".join(lines))


def _deploy(endpoint: Endpoint, name: str, code: bytes, changes: dict[str, Any]) -> None:
    """Send the change; the caller waits until the last request is in force."""
    zip_file = base64.b64encode(code).decode()
    size = f"{name}, {len(code):,} bytes of zip"
    if client.find(endpoint, name) is None:
        if "Handler" not in changes:
            usage(f"There is no function {name!r} yet: --handler is needed to create it")
        _progress(f"creating {size}")
        request = {"FunctionName": name, "Runtime": catalog.own(), "Role": ROLE, **changes}
        client.call(endpoint, "POST", client.FUNCTIONS, {**request, "Code": {"ZipFile": zip_file}})
        return
    client.settled(endpoint, name)  # another client's change: during it, ours would be refused
    if changes:
        # Before the code: new code is more likely to need the new settings than the reverse.
        _progress(f"configuring {name}")
        client.call(endpoint, "PUT", client.path_of(name, "configuration"), changes)
        _succeeded(client.settled(endpoint, name))
    _progress(f"updating {size}")
    client.call(endpoint, "PUT", client.path_of(name, "code"), {"ZipFile": zip_file})


def _zipped(path: Path) -> bytes:
    """Return the bytes of a .zip, or of a directory as a .zip: the same bytes for the same code.

    A directory is packed as a supervisor would copy it: without .git and caches.
    """
    if path.is_file():
        try:
            with path.open("rb") as file:
                code = file.read(packages.MAX_ZIPPED + 1)
        except OSError as exc:
            usage(f"{path} cannot be read: {exc.strerror}")
    else:
        with tempfile.TemporaryDirectory(prefix="minilambda-") as temporary:
            store, archive = Path(temporary, "code"), Path(temporary, "zip")
            store.mkdir()
            package = packages.publish(path, store, durable=False)
            packages.archive(Path(package.path), archive)
            code = archive.read_bytes()
    if len(code) > packages.MAX_ZIPPED:
        msg = f"Zipped size must be smaller than {packages.MAX_ZIPPED} bytes ({path})"
        raise EntityTooLarge(msg)
    return code


def _succeeded(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration whose change is in force; exit with the reason if it failed."""
    # The update first: if the function never was Active, State has the reason of an older failure.
    for field in ("LastUpdateStatus", "State"):
        if configuration.get(field) == "Failed":
            reason = configuration.get(f"{field}Reason", "the server gives no reason")
            click.echo(f"{configuration['FunctionArn']} Failed: {reason}", err=True)
            sys.exit(FAILED)
    return configuration


def _point(endpoint: Endpoint, name: str, alias: str, version: str) -> str:
    """Point an alias to one version, without weights for another; create it if it is missing."""
    document = {"FunctionVersion": version, "RoutingConfig": {"AdditionalVersionWeights": {}}}
    try:
        answer = client.call(endpoint, "PUT", client.path_of(name, "aliases", alias), document)
    except LambdaError as exc:
        if not client.is_missing(exc):
            raise
        path = client.path_of(name, "aliases")
        answer = client.call(endpoint, "POST", path, {**document, "Name": alias})
    return str(answer["AliasArn"])


def _progress(text: str) -> None:
    # For an operator that waits at a terminal; a pipe gets the result only.
    if sys.stderr.isatty():
        click.echo(f"{text} ...", err=True)


def _formatted(document: object) -> str:
    return msgspec.json.format(msgspec.json.encode(document)).decode()


# ls and rm


@click.command()
@asks_server
def ls(endpoint: Endpoint, *, as_json: bool) -> None:
    """List the functions."""
    # ListFunctions leaves out State, as on Lambda, so each function is one more request. A function
    # that was deleted meanwhile is skipped.
    answers = (client.find(endpoint, each["FunctionName"]) for each in client.functions(endpoint))
    configurations = [answer for answer in answers if answer is not None]
    if as_json:
        click.echo(_formatted(configurations))
        return
    if not configurations:
        click.echo("There are no functions yet: `minilambda deploy` creates one.", err=True)
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
        for function in configurations
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
@asks_server
def rm(endpoint: Endpoint, names: tuple[str, ...], *, as_json: bool) -> None:
    """Delete functions with their versions, aliases and settings, or one version as in NAME:3.

    Exit code 1: one of them does not exist. The others are deleted all the same.
    """
    deleted: list[str] = []
    for name in names:
        try:
            client.call(endpoint, "DELETE", client.path_of(name))
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
    endpoint: Endpoint,
    name: str,
    payload: bytes,
    *,
    kind: str,
    qualifier: str | None,
    as_json: bool,
) -> int:
    """Invoke a function of the server; print as for one that runs here; return the exit code."""
    result = client.invoke(endpoint, name, payload, kind=kind, qualifier=qualifier)
    if kind != "RequestResponse":
        if as_json:
            click.echo(
                msgspec.json.encode({"status": result.status, "request_id": result.request_id})
            )
        else:
            outcome = {"Event": "accepted", "DryRun": "may be invoked"}[kind]
            click.echo(f"{name} {outcome}, RequestId: {result.request_id}", err=True)
        return 0
    failure = failures.parse_failure(result.payload) if result.failed else None
    if as_json:
        document = {
            "payload": msgspec.Raw(result.payload),
            "failure": failure,
            "log": result.log,
            "executed_version": result.executed_version,
            "request_id": result.request_id,
        }
        click.echo(msgspec.json.encode(document))
    else:
        click.echo(unfold(result.log), err=True, nl=False)
        click.echo(result.payload)
    return 0 if failure is None else _exit_code(result, failure.error_type)


def _exit_code(result: InvokeResult, error_type: str) -> int:
    if error_type == "Sandbox.Timedout":
        return TIMED_OUT
    if error_type == "Runtime.ExitError" and b"signal: killed" in result.payload:
        return KILLED
    return FAILED


# logs


@click.command()
@click.argument("name")
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Print new lines as they come, polled every second, until Ctrl-C.",
)
@asks_server
def logs(endpoint: Endpoint, name: str, *, follow: bool, as_json: bool) -> None:
    """Print the log of a function, as far back as the server keeps it.

    With --json it is one event per line, in the form of CloudWatch Logs.
    """
    window: int | None = None
    newest = 0
    seen: dict[str, int] = {}
    while True:
        start = 0 if window is None else max(0, newest - window)
        for event in _events(endpoint, name, start):
            if event["eventId"] in seen:
                continue
            seen[event["eventId"]] = event["timestamp"]
            newest = max(newest, event["timestamp"])
            # Bytes: the terminal's encoding does not matter. A traceback is one event whose line
            # breaks are carriage returns.
            line = msgspec.json.encode(event) + b"\n" if as_json else _unfolded(event["message"])
            click.echo(line, nl=False)
        if not follow:
            return
        if window is None:
            window = _window(endpoint, name)
        seen = {key: timestamp for key, timestamp in seen.items() if timestamp >= newest - window}
        time.sleep(FOLLOW_SECONDS)


def _events(endpoint: Endpoint, name: str, start: int) -> Iterator[dict[str, Any]]:
    """Yield the events of a function's log; none if the function has not run yet."""
    try:
        yield from client.log_events(endpoint, f"/aws/lambda/{name}", start)
    except LambdaError as exc:
        if not client.is_missing(exc):
            raise
        # No log group: either it has not run, or it does not exist, and this request says so.
        client.call(endpoint, "GET", client.path_of(name, "configuration"))


def _window(endpoint: Endpoint, name: str) -> int:
    """Return by how many ms a new event can be older than the newest one."""
    configuration = client.find(endpoint, name) or {}
    return 1000 * (int(configuration.get("Timeout", MAX_TIMEOUT_SECONDS)) + INIT_SECONDS)


def _unfolded(message: str) -> bytes:
    return unfold(message).rstrip("\n").encode(errors="replace") + b"\n"
