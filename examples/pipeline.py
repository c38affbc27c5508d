"""An asynchronous pipeline: an event is accepted now, runs later, and its record goes on.

    pip install PATH/TO/CLONE boto3       # miniλ is installed from a clone
    python pipeline.py

The supervisor is embedded, and has a front door in the same process: destinations are set as on
AWS, by PutFunctionEventInvokeConfig.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import boto3

import minilambda
from minilambda import journal
from minilambda.gateway.server import Gateway

HANDLERS = Path(__file__).parent / "handlers"


def send_records(endpoint: str, function: str, destination: str) -> None:
    """Have the record of each event of a function sent to another one, however it ended."""
    client = boto3.client(
        "lambda",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    arn = client.get_function(FunctionName=destination)["Configuration"]["FunctionArn"]
    client.put_function_event_invoke_config(
        FunctionName=function,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnSuccess": {"Destination": arn}, "OnFailure": {"Destination": arn}},
    )
    client.close()


async def end_of(facts: journal.Journal, request_id: str) -> str:
    """Wait until an event is over; return of which function, and how it ended."""
    over = await facts.until(journal.EventEnded, lambda fact: fact.request_id == request_id)
    return f"{over.function} {over.condition}"


async def main(state: str) -> None:
    """Accept two events, one of which fails, and wait until their records are archived."""
    # Lambda waits a minute before an event runs again; the example waits 50 ms.
    settings = minilambda.Settings(event_retry=0.05)
    async with minilambda.Supervisor(state, settings) as supervisor:
        await supervisor.create_function("price", HANDLERS, "orders.price")
        await supervisor.create_function("archive", HANDLERS, "orders.archive")
        async with Gateway(supervisor, "127.0.0.1", 0) as gateway:
            await asyncio.to_thread(send_records, gateway.address, "price", "archive")

            # Returned means: on disk. After a kill -9 the next supervisor of this state directory
            # runs them.
            good = await supervisor.invoke_async("price", {"order": 1, "items": ["tea"]})
            bad = await supervisor.invoke_async("price", {"order": 2, "items": ["coal"]})

            print(await end_of(supervisor.journal, good))
            print(await end_of(supervisor.journal, bad))
            # Each record is an event of `archive`, which has to end as well.
            archived: set[str] = set()

            def is_last(fact: journal.EventEnded) -> bool:
                if fact.function == "archive":
                    archived.add(fact.request_id)
                return len(archived) == 2

            await supervisor.journal.until(journal.EventEnded, is_last)
            print("archived", len(archived))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(main(directory))
