"""Commands that work on this host: serve, doctor, bill, events."""

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
from miniλ.cli.options import sandbox_options
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

    sys.exit(run_loop.run(run(), stop))


async def _tell(facts: journal.Journal) -> None:
    """Say on stderr what an operator should read, as it happens."""
    last = 0.0

    def is_new(fact: journal.Trouble) -> bool:
        return fact.at > last

    while True:
        trouble = await facts.until(journal.Trouble, is_new)
        click.echo(f"trouble: {trouble.what}", err=True)
        last = trouble.at


@click.command("doctor")
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
    status = run_loop.run(run())
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


@click.command()
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


@click.command()
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
