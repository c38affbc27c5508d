"""A web app with functions: the workers start with the app and are gone when it ends.

    pip install PATH/TO/CLONE fastapi uvicorn       # miniλ is installed from a clone
    uvicorn fastapi_app:app

    curl --json '{"text": "to be or not to be"}' http://localhost:8000/count

What it gains over calling `count_words` in a thread: a text that needs too much memory or time
costs its own worker, not the app.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, HTTPException

import minilambda

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Making a supervisor does nothing; `async with` opens it. A worker that imports this module makes
# one as well, and never opens it.
supervisor = minilambda.Supervisor()


@supervisor.function(memory_size=256, timeout=5)
def count_words(event: dict[str, str], context: Any) -> dict[str, int]:
    """Run in a worker: at most 256 MB and 5 seconds."""
    counts: dict[str, int] = {}
    for word in event["text"].split():
        counts[word] = counts.get(word, 0) + 1
    return counts


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the supervisor on the app's own event loop, and close it at the end."""
    async with supervisor:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/count")
async def count(document: dict[str, str]) -> dict[str, int]:
    """Wait at most 10 s for a free worker; a failure of the function is a value, not a raise."""
    response = await count_words.invoke(document, wait=10)
    if response.failure is not None:
        raise HTTPException(502, response.failure.error_message)
    counts: dict[str, int] = response.payload
    return counts


async def try_it() -> None:
    """Do what a server would: open the app, have one request answered, close it."""
    async with lifespan(app):
        print(await count({"text": "to be or not to be"}))


if __name__ == "__main__":
    asyncio.run(try_it())
