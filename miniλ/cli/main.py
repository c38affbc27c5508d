"""This module is the command line: minilambda (and miniλ, and python -m miniλ).

Exit codes: 0, 1 the function failed, 2 usage, 3 the runtime is not here, 69 miniλ could not do
its part, 75 the state directory is in use, 78 the host falls short of --require, 124 timed out, 137
killed. Payloads go to stdout; logs, REPORT and everything for people to stderr.

The commands in here run functions themselves; those that ask a server are in `commands`, and have
the same codes: 2 is also what a server refuses, 69 that it is not there or could not, and 1 that a
function did not become Active (deploy), or was not there to be deleted (rm).
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from click.core import ParameterSource

import miniλ
from miniλ import billing, journal, model
from miniλ.cli import client, doctor, remote_commands
from miniλ.cli.exit_codes import FAILED, KILLED, TIMED_OUT, fail, usage
from miniλ.errors import LambdaError, ResourceConflict
from miniλ.events import queue
from miniλ.invoker import check_payload
from miniλ.runtimes import catalog
from miniλ.sandbox import levels
from miniλ.settings import Settings
from miniλ.settings import load as load_settings
from miniλ.store import registry
from miniλ.supervisor import Supervisor
from miniλ.sync import new_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from miniλ.model import Response

# So much of a bad event is repeated to its author.
SHOWN = 200
# The options of `invoke` that are for a function on a server, and those that are for any.
OF_SERVER = frozenset({"endpoint_url", "kind", "qualifier"})
OF_BOTH = frozenset({"target", "event", "as_json"})

# A name or an ARN, with a qualifier or without: neither has the dot of a handler or of a path.
_NAMED = re.compile(r"[a-zA-Z0-9-_:$]+")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(miniλ.__version__, prog_name="minilambda")
def main() -> None:
    """Run functions the way AWS Lambda does, as plain supervised processes."""


def sandbox_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what may be said of the sandbox to a command; it arrives as `settings`."""

    @click.option("--sandbox", type=click.Choice(["auto", *levels.LEVELS]), help="At most this.")
    @click.option("--config", type=click.Path(path_type=Path), help="Settings, a TOML file.")
    @click.option("--without", help=f"Leave out, parted by commas: {', '.join(levels.MECHANISMS)}.")
    @click.option("--require", help="Refuse to start unless, as in memory:hard,files:hard.")
    @functools.wraps(command)
    def with_settings(
        config: Path | None,
        sandbox: str | None,
        without: str | None,
        require: str | None,
        **others: Any,  # noqa: ANN401 - the command's own
    ) -> None:
        said = {"sandbox": sandbox, "without": without, "require": require}
        try:
            settings = msgspec.structs.replace(
                load_settings(config),
                **{name: value for name, value in said.items() if value is not None},
            )
        except LambdaError as exc:
            fail(exc)
        command(settings=settings, **others)

    return with_settings


@main.command()
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
@remote_commands.endpoint_option
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

    sys.exit(_run(run()))


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


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9001,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--state", type=click.Path(path_type=Path), help="Keep functions, logs and the ledger here."
)
@click.option("--json", "as_json", is_flag=True, help="Say the address as JSON.")
@sandbox_options
def serve(host: str, port: int, state: Path | None, settings: Settings, *, as_json: bool) -> None:
    """Be Lambda for AWS clients: `aws lambda ... --endpoint-url`. SIGTERM ends it.

    Invocations that run then are answered first; nothing of them is left.
    """
    from miniλ.gateway.server import Gateway  # noqa: PLC0415 - aiohttp costs the others 0.1 s

    stop = asyncio.Event()
    settings = msgspec.structs.replace(settings, keep_logs=True)

    async def run() -> int:
        async with Supervisor(state, settings) as supervisor, Gateway(supervisor, host, port) as up:
            if as_json:
                said = {"address": up.address, "state": str(supervisor.state), "pid": os.getpid()}
                click.echo(msgspec.json.encode(said))
            else:
                click.echo(f"listening on {up.address}")
                click.echo(f"try: aws lambda list-functions --endpoint-url {up.address}", err=True)
            telling = asyncio.create_task(_tell(supervisor.journal))
            await stop.wait()
            telling.cancel()
        return 0

    sys.exit(_run(run(), stop))


async def _tell(facts: journal.Journal) -> None:
    """Say on stderr what an operator should read, as it happens."""
    last = 0.0

    def is_new(fact: journal.Trouble) -> bool:
        return fact.at > last

    while True:
        trouble = await facts.until(journal.Trouble, is_new)
        click.echo(f"trouble: {trouble.what}", err=True)
        last = trouble.at


@main.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@sandbox_options
def doctor_command(settings: Settings, *, as_json: bool) -> None:
    """Say what this host can enforce, by which mechanism, and what to do about each gap.

    Each claim is tried by a worker that is thrown away; one that does not stand exits with 1.
    """
    findings: list[doctor.Finding] = []

    async def run() -> int:
        findings.extend(await doctor.examine(settings))
        return FAILED if any(finding.proved is False for finding in findings) else 0

    if sys.stderr.isatty():
        click.echo("trying what this host can enforce; it takes some seconds ...", err=True)
    status = _run(run())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(findings)).decode())
        sys.exit(status)
    proofs = {True: "proved", False: "WRONG", None: ""}
    width = max(len(finding.resource) for finding in findings)
    for finding in findings:
        proof = f"{proofs[finding.proved]:<6}"
        click.echo(
            f"{finding.resource:<{width}}  {finding.level:<4}  {proof}  {finding.by}".rstrip()
        )
        if finding.seen:
            click.echo(f"{'':<{width}}                tried: {finding.seen}")
        if finding.remedy:
            click.echo(f"{'':<{width}}                to do: {finding.remedy}")
    sys.exit(status)


@main.command()
@click.option(
    "--state", type=click.Path(path_type=Path), required=True, help="The state directory."
)
@click.option("--book", type=click.Choice(list(billing.BOOKS)), default="2025", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def bill(state: Path, book: str, *, as_json: bool) -> None:
    """Say what Lambda would charge for what the functions of a state directory used."""
    path = state / "registry.db"
    if not path.is_file():
        usage(f"There is no ledger in {state}: it is made by running functions with --state")
    try:
        bills = billing.bills(registry.read_usage(path, book), billing.BOOKS[book])
    except LambdaError as exc:
        fail(exc)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(bills)).decode())
        return
    if not bills:
        click.echo("Nothing was used yet.")
    for month in bills:
        click.echo(f"{month.month}, price book {month.book}")
        for line in month.lines:
            click.echo(
                f"  {line.function:<32} {line.requests:>12,} requests "
                f"{line.gb_seconds:>14,.3f} GB-s  ${line.charge:,.6f}"
            )
        click.echo(
            f"  {'total':<32} {month.requests:>12,} requests "
            f"{month.gb_seconds:>14,.3f} GB-s  ${month.total:,.6f}"
        )
        click.echo(
            f"  free tier: {month.free_requests:,} requests and "
            f"{month.free_gb_seconds:,.3f} GB-s of it"
        )


@main.command()
@click.option(
    "--state", type=click.Path(path_type=Path), required=True, help="The state directory."
)
@click.option("--json", "as_json", is_flag=True, help="For programs, with all of each record.")
def events(state: Path, *, as_json: bool) -> None:
    """Say which asynchronous events are not over, and what could be told nobody.

    That is of those that failed for good, or succeeded, and whose destination is not reached from
    here: SQS, SNS, EventBridge, S3.
    """
    path = state / "events.db"
    if not path.is_file():
        usage(f"There is no event queue in {state}: `minilambda serve --state` makes it")
    try:
        left, records = queue.read(path)
    except LambdaError as exc:
        fail(exc)
    if as_json:
        told = [{**record._asdict(), "document": _shown(record.document)} for record in records]
        document = msgspec.json.encode({"events": left, "records": told})
        click.echo(msgspec.json.format(document).decode())
        return
    if not left:
        click.echo("All events are over.")
    for each in left:
        click.echo(
            f"{each.function:<32} {each.waiting:>7,} waiting {each.running:>5,} running "
            f"{each.failed:>7,} failed before; the next in {each.next_seconds:,.0f} s"
        )
    for record in records:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.written))
        click.echo(f"{at}  {record.request_id}  {record.target or '-'}: {record.why}")


def _shown(document: str) -> object:
    """Return a document as JSON; one that is only nearly so (NaN, say) as the text that it is."""
    try:
        return msgspec.json.decode(document, type=msgspec.Raw)
    except msgspec.DecodeError:
        return document


for _command in (
    remote_commands.deploy,
    remote_commands.ls,
    remote_commands.rm,
    remote_commands.logs,
):
    main.add_command(_command)


def _run(work: Coroutine[Any, Any, int], stop: asyncio.Event | None = None) -> int:
    """Run to the end on a loop of our own; SIGTERM and SIGINT close what is open first.

    With `stop` the first of them sets that instead, and the work ends by itself.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        loop = runner.get_loop()

        def end(task: asyncio.Future[int], number: int) -> None:
            if stop is None or stop.is_set():
                task.cancel(number)
            else:
                stop.set()

        async def until_signal() -> int:
            task = asyncio.ensure_future(work)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, end, task, number)
            return await task

        try:
            return runner.run(until_signal())
        except asyncio.CancelledError as exc:
            return 128 + int(exc.args[0] if exc.args else signal.SIGTERM)
        except LambdaError as exc:
            fail(exc)


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
