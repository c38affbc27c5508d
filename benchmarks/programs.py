"""Programs that the benchmarks start: each in a session of its own, which is killed as a whole.

Rule: every program that is started here is ended, also after an error or a signal. A program whose
parent is killed dies with it (PR_SET_PDEATHSIG), or sees its stdin end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

LEAVE_TIMEOUT = 5.0
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.asynccontextmanager
async def program(
    command: Sequence[str],
    *,
    cwd: Path | str | None = None,
    environment: dict[str, str] | None = None,
    talks: bool = False,
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own; kill the whole session afterwards.

    With `talks` its stdin and stdout are pipes; otherwise both are /dev/null, as is its stderr.
    """
    pipe = subprocess.PIPE if talks else subprocess.DEVNULL
    process = subprocess.Popen(  # noqa: ASYNC220 - a wait of a millisecond, and not counted
        command,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=pipe,
        stdout=pipe,
        stderr=None if talks else subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,
        # Safe with threads: the child calls one function of C between fork and exec. A program that
        # talks sees its stdin end instead, and must live to end its own processes.
        preexec_fn=None if talks else _die_with_parent,  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        if process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            # At the end of its stdin it ends its own processes, which may have left our session.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.shield(asyncio.to_thread(process.wait, LEAVE_TIMEOUT))
            process.stdout.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
