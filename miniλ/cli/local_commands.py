"""Commands of this host: `serve`, `doctor`; and of a state directory: `bill`, `events`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from miniλ import billing, journal
from miniλ.cli import doctor, run_loop
from miniλ.cli.exit_codes import FAILED, fail, usage
from miniλ.cli.options import json_option, sandbox_options, state_option
from miniλ.errors import LambdaError
from miniλ.events import queue
from miniλ.store import registry
from miniλ.supervisor import Supervisor

if TYPE_CHECKING:
    from miniλ.settings import Settings


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9001,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="The state directory: keeps functions, events, logs and the ledger.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON.")
@sandbox_options
def serve(host: str, port: int, state: Path | None, settings: Settings, *, as_json: bool) -> None:
    """Serve the HTTP API of AWS Lambda: `aws lambda ... --endpoint-url URL`.

    SIGTERM or Ctrl-C stops it: invocations in flight are answered first, then every worker is
    stopped. A second signal stops it without waiting for answers.
    """
    from miniλ.gateway.server import Gateway  # noqa: PLC0415 - importing aiohttp takes 0.1 s

    stop = asyncio.Event()
    settings = msgspec.structs.replace(settings, keep_logs=True)

    async def run() -> int:
        async with Supervisor(state, settings) as supervisor, Gateway(supervisor, host, port) as up:
            if as_json:
                document = {
                    "address": up.address,
                    "state": str(supervisor.state),
                    "pid": os.getpid(),
                }
                click.echo(msgspec.json.encode(document))
            else:
                click.echo(f"listening on {up.address}")
                click.echo(f"try: aws lambda list-functions --endpoint-url {up.address}", err=True)
                if state is None:
                    click.echo("state: temporary, lost on exit; --state DIR keeps it", err=True)
            printer = asyncio.create_task(_print_trouble(supervisor.journal))
            await stop.wait()
            printer.cancel()
        return 0

    sys.exit(run_loop.run(run(), stop))


async def _print_trouble(facts: journal.Journal) -> None:
    """Print each Trouble of the journal on stderr as it happens; runs until it is cancelled."""
    last = 0.0

    def is_new(fact: journal.Trouble) -> bool:
        return fact.at > last

    while True:
        trouble = await facts.until(journal.Trouble, is_new)
        click.echo(f"trouble: {trouble.what}", err=True)
        last = trouble.at


@click.command("doctor")
@json_option
@sandbox_options
def doctor_command(settings: Settings, *, as_json: bool) -> None:
    """Show what this host enforces, by which mechanism, and what to do about each gap.

    A throw-away worker tries to break each limit. Exit code 1: a limit does not do what it claims.
    """
    checks: list[doctor.Check] = []

    async def run() -> int:
        checks.extend(await doctor.examine(settings))
        return FAILED if any(check.proved is False for check in checks) else 0

    if sys.stderr.isatty():
        click.echo(
            "trying to break each limit of this host; this takes about 10 seconds ...", err=True
        )
    status = run_loop.run(run())
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(checks)).decode())
        sys.exit(status)
    verdicts = {True: "proved", False: "WRONG", None: ""}
    width = max(len(check.resource) for check in checks)
    for check in checks:
        verdict = f"{verdicts[check.proved]:<6}"
        click.echo(f"{check.resource:<{width}}  {check.level:<4}  {verdict}  {check.by}".rstrip())
        if check.seen:
            label = "" if check.seen.startswith(doctor.NOT_TRIED) else "tried: "
            click.echo(f"{'':<{width}}                {label}{check.seen}")
        if check.remedy:
            click.echo(f"{'':<{width}}                to do: {check.remedy}")
    sys.exit(status)


@click.command()
@state_option
@click.option(
    "--book",
    type=click.Choice(list(billing.BOOKS)),
    default="2025",
    show_default=True,
    help="The price book.",
)
@json_option
def bill(state: Path, book: str, *, as_json: bool) -> None:
    """Show what Lambda would charge for the invocations in a state directory's ledger."""
    path = state / "registry.db"
    if not path.is_file():
        usage(f"There is no ledger in {state}: `minilambda invoke --state` makes one")
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


@click.command()
@state_option
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, with each record in full."
)
def events(state: Path, *, as_json: bool) -> None:
    """Show the asynchronous events that are not over, and the records that no destination took.

    A record is kept for an event that succeeded or failed for good if its destination cannot be
    reached from here: SQS, SNS, EventBridge, S3.
    """
    path = state / "events.db"
    if not path.is_file():
        usage(f"There is no event queue in {state}: `minilambda serve --state` makes one")
    try:
        left, records = queue.read(path)
    except LambdaError as exc:
        fail(exc)
    if as_json:
        shown = [{**record._asdict(), "document": _parsed(record.document)} for record in records]
        document = msgspec.json.encode({"events": left, "records": shown})
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


def _parsed(document: str) -> object:
    """Return a document as JSON, or as text if it is not valid JSON (NaN passes in a record)."""
    try:
        return msgspec.json.decode(document, type=msgspec.Raw)
    except msgspec.DecodeError:
        return document
