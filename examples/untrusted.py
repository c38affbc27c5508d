"""Run snippets that you have not read: no network, 128 MB, one second, no file of this host.

    python untrusted.py

It stops accidents and bad dependencies. It is no boundary against people who attack kernels: see
docs/security.md, and `minilambda doctor` for what this host can enforce.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import minilambda

SNIPPETS = {
    "adds": "return sum(range(10))",
    "reads a file of this host": f"return open({__file__!r}).read()",
    "takes a gigabyte": "return len(b'x' * 2**30)",
    "never returns": "while True: pass",
    "calls a server": "import socket\n    socket.create_connection(('127.0.0.1', 80), 1)",
    "leaves Python": "import os\n    os._exit(3)",
}


async def main() -> None:
    """Run each snippet in a function of its own, and show how it ended."""
    async with minilambda.Supervisor() as supervisor:
        for number, (what, snippet) in enumerate(SNIPPETS.items()):
            with tempfile.TemporaryDirectory() as directory:
                code = Path(directory, "app.py")
                code.write_text(f"def handler(event, context):\n    {snippet}\n", encoding="utf-8")
                name = f"snippet-{number}"
                # Raises InvalidParameterValue if this host cannot take the network away.
                await supervisor.create_function(
                    name, directory, "app.handler", memory_size=128, timeout=1, network="none"
                )
            response = await supervisor.invoke(name)
            failure = response.failure
            end = response.payload if failure is None else failure.error_type
            print(f"{what}: {end}")
            await supervisor.delete_function(name)


if __name__ == "__main__":
    asyncio.run(main())
