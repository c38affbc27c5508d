"""minilambda invoke: run a function here, or one on a server."""

from __future__ import annotations

import asyncio
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
from miniλ.errors import LambdaError, ResourceConflict
from miniλ.invoker import check_payload
from miniλ.runtimes import catalog
from miniλ.supervisor import Supervisor

if TYPE_CHECKING:
    from miniλ.model import Response
    from miniλ.settings import Settings


# So much of a bad event is repeated to its author.
SHOWN = 200
# The options of `invoke` that are for a function on a server, and those that are for any.
OF_SERVER = frozenset({"endpoint_url", "kind", "qualifier"})
OF_BOTH = frozenset({"target", "event", "as_json"})

# A name or an ARN, with a qualifier or without: neither has the dot of a handler or of a path.
_NAMED = re.compile(r"[a-zA-Z0-9-_:$]+")


@click.command()
@click.argument("target", metavar="DIR:HANDLER|NAME[:QUALIFIER]")
@click.option("-e", "--event", default="{}", help="A file, - for stdin, or JSON itself.")
@click.option("--memory-size", type=int, default=128, show_default=True, help="MB.")
@click.option("--timeout", type=int, default=3, show_default=True, help="Seconds.")
@click.option("--ephemeral-storage", type=int, default=512, show_default=True, help="MB of /tmp.")
@click.option("--env", "environment", multiple=True, metavar="K=V", help="May be repeated.")
@click.option("--runtime", help="python3.9 to python3.14; the one that runs this.")
@click.option("--repeat", type=click.IntRange(1), default=1, help="Invoke so many times.")
@click.option("--concurrency", type=click.IntRange(1), default=1, help="So many at a time.")
@click.option("--state", type=click.Path(path_type=Path), help="Keep the ledger here.")
@click.option("--network", type=click.Choice(model.NETWORKS), default="share", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Payload, log and report as one document.")
@click.option("--qualifier", help="On a server: a version or an alias.")
@click.option(
    "--type",
    "kind",
    type=click.Choice(["RequestResponse", "Event", "DryRun"]),
    default="RequestResponse",
    show_default=True,
    help="On a server: the invocation type.",
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
    """Run HANDLER (module.function) from the code in DIR (or a .zip) on an event.

    Without a dot in it, it is NAME or NAME:QUALIFIER: a function on a server (`minilambda serve`).
    The payload goes to stdout, the log with its REPORT line to stderr.
    """
    directory, colon, handler = target.rpartition(":")
    is_local = bool(colon) and "." in handler
    if not (directory if is_local else _NAMED.fullmatch(target)):
        usage(
            "DIR:HANDLER is a directory or .zip, a colon and module.function; "
            f"NAME or NAME:QUALIFIER is a function on a server; got {target!r}"
        )
    _check_options(target, is_local=is_local)
    if not is_local:
        said: dict[str, Any] = {"kind": kind, "qualifier": qualifier, "as_json": as_json}
        with remote_commands.explaining():
            server = client.server(endpoint_url)
            sys.exit(remote_commands.invoke(server, target, _event(event), **said))
    variables = remote_commands.variables(environment)
    body = _event(event)

    async def run() -> int:
        async with Supervisor(state, settings) as supervisor:
            name = _name(directory)
            options = {"environment": variables, **limits}
            try:
                await supervisor.create_function(name, directory, handler, **options)
            except ResourceConflict:
                # Kept from an earlier run. It is lost to no mistake in this one.
                options["runtime"] = options["runtime"] or catalog.own()
                await supervisor.update_function_code(name, directory)
                await supervisor.update_function_configuration(name, handler=handler, **options)
            if repeat == 1:
                response = await supervisor.invoke(name, payload=body)
                _print(response, as_json=as_json)
                return _exit_code(response)
            return await _repeat(supervisor, name, body, repeat, concurrency, as_json=as_json)

    sys.exit(run_loop.run(run()))


def _check_options(target: str, *, is_local: bool) -> None:
    """Refuse options that were given and would do nothing."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        of_server = name in OF_SERVER
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in OF_BOTH and of_server == is_local:
            runs = "runs here" if is_local else "is a function on a server"
            place = "functions on a server, NAME" if of_server else "what runs here, DIR:HANDLER"
            usage(f"{option.opts[0]} is for {place}, but {target!r} {runs}")


async def _repeat(
    supervisor: Supervisor,
    name: str,
    body: bytes,
    repeat: int,
    concurrency: int,
    *,
    as_json: bool,
) -> int:
    """Invoke many times; print the last payload and, to stderr, how long they took."""
    durations: list[float] = []
    worst, cold = 0, 0
    last: Response | None = None
    turns = iter(range(repeat))
    began = time.perf_counter()

    async def caller(bar: Any) -> None:  # noqa: ANN401 - click's progress bar has no public type
        nonlocal worst, cold, last
        for _ in turns:
            start = time.perf_counter()
            last = await supervisor.invoke(name, payload=body, wait=900.0)
            durations.append(time.perf_counter() - start)
            worst = max(worst, _exit_code(last))
            cold += last.report.cold
            bar.update(1)

    # The bar is for a person at a terminal: on a pipe it prints nothing.
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
        click.echo(response.log, err=True, nl=False)
        click.echo(response.body)  # bytes: as they are, whatever the terminal's encoding


def _event(text: str) -> bytes:
    """Return the event: stdin for "-", the file of that name, else the text itself as JSON."""
    if text == "-":
        return sys.stdin.buffer.read()
    if text.lstrip()[:1] in ("{", "[", '"') or not os.path.exists(text):
        try:
            return check_payload(os.fsencode(text))
        except LambdaError as exc:
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            usage(f"--event is neither a file nor JSON: {shown!r} ({exc})")
    try:
        return Path(text).read_bytes()
    except OSError as exc:
        usage(f"--event: {exc}")


def _name(directory: str) -> str:
    """Return a function name made of the directory's: what Lambda would refuse becomes _."""
    stem = Path(directory).resolve().stem or "function"
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in stem)[:64]
