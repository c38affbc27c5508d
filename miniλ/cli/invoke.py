"""`minilambda invoke`: one function, run here or by a server; with --repeat, percentiles.

A target whose last part has a dot (DIR:module.function) runs here, in a supervisor that lives as
long as the command. Any other target (NAME, NAME:QUALIFIER, an ARN) is a function on a server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

from miniλ import model
from miniλ.cli import client, remote_commands, run_loop
from miniλ.cli.exit_codes import FAILED, KILLED, TIMED_OUT, usage
from miniλ.cli.options import endpoint_option, sandbox_options
from miniλ.errors import InvalidRequestContent, LambdaError, ResourceConflict
from miniλ.invoker import check_payload
from miniλ.runtimes import catalog
from miniλ.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from miniλ.model import Response
    from miniλ.settings import Settings


# Characters of a bad event that the message repeats.
SHOWN = 200
# The options for a function on a server, and those for a function in either place.
OF_SERVER = frozenset({"endpoint_url", "kind", "qualifier"})
OF_BOTH = frozenset({"target", "event", "as_json"})

# A name or an ARN, with or without a qualifier: it has neither the dot of a handler nor a slash.
_NAMED = re.compile(r"[a-zA-Z0-9-_:$]+")


@click.command()
@click.argument("target", metavar="DIR:HANDLER|NAME[:QUALIFIER]")
@click.option("-e", "--event", default="{}", help="A file, - for stdin, or the JSON itself.")
@click.option("--memory-size", type=int, default=128, show_default=True, help="Memory size in MB.")
@click.option("--timeout", type=int, default=3, show_default=True, help="Timeout in seconds.")
@click.option(
    "--ephemeral-storage", type=int, default=512, show_default=True, help="Size of /tmp in MB."
)
@click.option("--env", "environment", multiple=True, metavar="K=V", help="A variable; repeatable.")
@click.option("--runtime", help="python3.9 to python3.14.  [default: this Python]")
@click.option("--repeat", type=click.IntRange(1), default=1, help="The number of invocations.")
@click.option("--concurrency", type=click.IntRange(1), default=1, help="Invocations at once.")
@click.option(
    "--state", type=click.Path(path_type=Path), help="A state directory that keeps the ledger."
)
@click.option(
    "--network",
    type=click.Choice(model.NETWORKS),
    default="share",
    show_default=True,
    help="Share the host's network, or have none but a loopback.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print payload, log and report as one document."
)
@click.option("--qualifier", help="Server only: a version or an alias.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["RequestResponse", "Event", "DryRun"]),
    default="RequestResponse",
    show_default=True,
    help="Server only: the invocation type.",
)
@endpoint_option
@sandbox_options
def invoke(
    target: str,
    event: str,
    environment: tuple[str, ...],
    repeat: int,
    concurrency: int,
    state: Path | None,
    settings: Settings,
    qualifier: str | None,
    kind: str,
    endpoint_url: str,
    *,
    as_json: bool,
    **limits: Any,  # noqa: ANN401 - as Supervisor.create_function's
) -> None:
    """Invoke a function: here, from code on disk, or on a server.

    DIR:HANDLER runs here: DIR is a directory or a .zip, HANDLER is module.function. NAME and
    NAME:QUALIFIER are functions on a server (`minilambda serve`).

    The payload goes to stdout, the log with its REPORT line to stderr.
    """
    directory, colon, handler = target.rpartition(":")
    is_local = bool(colon) and "." in handler
    if not (directory if is_local else _NAMED.fullmatch(target)):
        if directory and ("/" in directory or os.path.exists(directory)):
            usage(f"HANDLER must be module.function like app.handler, got {handler!r}")
        usage(
            "DIR:HANDLER is a directory or .zip, a colon and module.function; "
            f"NAME or NAME:QUALIFIER is a function on a server; got {target!r}"
        )
    _check_options(target, is_local=is_local)
    if not is_local:
        with remote_commands.explaining(), _hint_of_directory(directory, handler):
            endpoint = client.endpoint(endpoint_url)
            payload = _payload(event, is_local=False)
            sys.exit(
                remote_commands.invoke(
                    endpoint, target, payload, kind=kind, qualifier=qualifier, as_json=as_json
                )
            )
    variables = remote_commands.variables(environment)
    payload = _payload(event, is_local=True)

    async def run() -> int:
        async with Supervisor(state, settings) as supervisor:
            name = _name(directory)
            options = {"environment": variables, **limits}
            try:
                await supervisor.create_function(name, directory, handler, **options)
            except ResourceConflict:
                # The state directory has it from an earlier run. An update that is refused
                # leaves it as it was; deleting it first would not.
                options["runtime"] = options["runtime"] or catalog.own()
                await supervisor.update_function_code(name, directory)
                await supervisor.update_function_configuration(name, handler=handler, **options)
            if repeat == 1:
                response = await supervisor.invoke(name, payload=payload)
                _print(response, as_json=as_json)
                return _exit_code(response)
            return await _repeat(supervisor, name, payload, repeat, concurrency, as_json=as_json)

    sys.exit(run_loop.run(run()))


@contextlib.contextmanager
def _hint_of_directory(directory: str, handler: str) -> Iterator[None]:
    """Print a line before the error if no server has the function, and DIR exists here."""
    try:
        yield
    except (client.NoServer, LambdaError) as exc:
        is_unknown = isinstance(exc, client.NoServer) or client.is_missing(exc)
        if directory and is_unknown and os.path.exists(directory):
            click.echo(
                f"{directory} is also here on disk: to run it, HANDLER must be module.function "
                f"like app.handler, got {handler!r}",
                err=True,
            )
        raise


def _check_options(target: str, *, is_local: bool) -> None:
    """Exit with 2 if an option on the command line would have no effect."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        of_server = name in OF_SERVER
        is_explicit = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_explicit and name not in OF_BOTH and of_server == is_local:
            runs = "runs here" if is_local else "is a function on a server"
            place = (
                "a function on a server, NAME" if of_server else "code that runs here, DIR:HANDLER"
            )
            usage(f"{option.opts[0]} is for {place}, but {target!r} {runs}")


async def _repeat(
    supervisor: Supervisor,
    name: str,
    payload: bytes,
    repeat: int,
    concurrency: int,
    *,
    as_json: bool,
) -> int:
    """Invoke `repeat` times; print the last payload, and percentiles to stderr."""
    durations: list[float] = []
    worst, cold = 0, 0
    last: Response | None = None
    turns = iter(range(repeat))
    began = time.perf_counter()

    async def caller(bar: Any) -> None:  # noqa: ANN401 - click's progress bar has no public type
        nonlocal worst, cold, last
        for _ in turns:
            start = time.perf_counter()
            last = await supervisor.invoke(name, payload=payload, wait=900.0)
            durations.append(time.perf_counter() - start)
            worst = max(worst, _exit_code(last))
            cold += last.report.cold
            bar.update(1)

    # The bar is for a terminal; on a pipe it is hidden.
    with click.progressbar(
        length=repeat,
        label=name,
        file=sys.stderr,
        update_min_steps=max(1, repeat // 200),
        hidden=not sys.stderr.isatty(),
    ) as bar:
        await asyncio.gather(*(caller(bar) for _ in range(min(repeat, concurrency))))
    elapsed = time.perf_counter() - began
    assert last is not None
    summary = _summary(durations, elapsed, cold)
    if as_json:
        document = {"payload": msgspec.Raw(last.body), "summary": summary}
        click.echo(msgspec.json.encode(document))
    else:
        click.echo(last.body)
        texts = [f"{key} {value:g}" for key, value in summary.items()]
        click.echo(", ".join(texts), err=True)
    return worst


def _summary(durations: list[float], elapsed: float, cold: int) -> dict[str, float]:
    durations.sort()
    last = len(durations) - 1
    return {
        "invocations": len(durations),
        "cold_starts": cold,
        "per_second": round(len(durations) / elapsed, 1),
        **{
            f"p{share}_ms": round(durations[round(last * share / 100)] * 1000, 3)
            for share in (50, 90, 99)
        },
        "max_ms": round(durations[last] * 1000, 3),
    }


def _exit_code(response: Response) -> int:
    report = response.report
    if report.status == "timeout":
        return TIMED_OUT
    if report.error_type == "Runtime.ExitError" and b"signal: killed" in response.body:
        return KILLED
    return FAILED if response.is_failure else 0


def _print(response: Response, *, as_json: bool) -> None:
    if as_json:
        document = {
            "payload": msgspec.Raw(response.body),
            "failure": response.failure,
            "log": response.log,
            "report": response.report,
        }
        click.echo(msgspec.json.encode(document))
    else:
        click.echo(model.unfold(response.log), err=True, nl=False)
        click.echo(response.body)  # bytes: the terminal's encoding does not matter


def _payload(text: str, *, is_local: bool) -> bytes:
    """Return the event's bytes: stdin for "-", the file of that name, else the text as JSON."""
    if text == "-":
        return _checked(sys.stdin.buffer.read(), "--event: stdin is not JSON", is_local=is_local)
    shown = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")
    if text.lstrip()[:1] in ("{", "[", '"', "'"):
        return _checked(os.fsencode(text), f"--event is not JSON: {shown}")
    if not os.path.exists(text):
        what = f"--event: There is no file {shown}, and it is not JSON"
        return _checked(os.fsencode(text), what)
    try:
        payload = Path(text).read_bytes()
    except OSError as exc:
        usage(f"--event cannot be read: {exc}")
    return _checked(payload, f"--event: the file {shown} is not JSON", is_local=is_local)


def _checked(payload: bytes, what: str, *, is_local: bool = True) -> bytes:
    """Return a payload that is JSON, else exit with 2; for a server's function it may be empty."""
    if not payload and not is_local:
        return payload
    try:
        return check_payload(payload)
    except InvalidRequestContent as exc:
        reason = str(exc).removeprefix("Could not parse request body into json: ")
        hint = "; JSON needs double quotes" if b"'" in payload else ""
        usage(f"{what}: {reason}{hint}")
    except LambdaError as exc:
        usage(f"--event: {exc}")


def _name(directory: str) -> str:
    """Return a function name from the directory's: characters that Lambda refuses become _."""
    stem = Path(directory).resolve().stem or "function"
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in stem)[:64]
