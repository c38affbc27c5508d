"""In a notebook or a script, without asyncio: `SyncSupervisor`. Each `# %%` is a cell."""

# %% One supervisor for the session. It runs in a thread of its own.
from __future__ import annotations

import contextlib
from pathlib import Path

import minilambda

session = contextlib.ExitStack()
supervisor = session.enter_context(minilambda.SyncSupervisor())

# %% A function is a directory and a handler in it: module.function.
handlers = Path(__file__).parent / "handlers"
supervisor.create_function("price", handlers, "orders.price", memory_size=128, timeout=3)

# %% Invoke it. The first time a worker starts; the second time it is there.
for order in (1, 2):
    response = supervisor.invoke("price", {"order": order, "items": ["tea", "cake"]})
    print(response.payload, "cold start" if response.report.cold else "warm")

# %% A failure is a value, as Lambda shapes it; what the function printed is in the log.
response = supervisor.invoke("price", {"order": 3, "items": ["coal"]})
assert response.failure is not None
print(response.failure.error_type, response.failure.error_message)

# %% Many events, four at a time, answers in order.
orders = [{"order": number, "items": ["tea"] * number} for number in range(1, 6)]
print([each.payload["total"] for each in supervisor.map("price", orders, concurrency=4)])

# %% The last cell: no worker survives it.
session.close()
