"""The exit codes of the command line, and the one line on stderr that goes with each.

`main` says which commands have which. `run_loop` makes the code of a signal: 128 plus its number.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from miniλ.errors import LambdaError, NotEnforced, RuntimeMissing, StateInUse, Throttled
from miniλ.runtimes import catalog

FAILED = 1
USAGE = 2
NO_RUNTIME = 3
UNAVAILABLE = 69  # sysexits.h: EX_UNAVAILABLE
IN_USE = 75  # sysexits.h: EX_TEMPFAIL
NOT_ENFORCED = 78  # sysexits.h: EX_CONFIG
TIMED_OUT = 124  # as timeout(1)
INTERRUPTED = 130  # as a shell: 128 + SIGINT
KILLED = 137  # as a shell: 128 + SIGKILL


def fail(error: LambdaError) -> NoReturn:
    """Print an error, raised here or by a server, and exit with its code."""
    hint = f"; or use --runtime {catalog.own()}" if isinstance(error, RuntimeMissing) else ""
    click.echo(f"{error.code}: {error}{hint}", err=True)
    match error:
        case RuntimeMissing():
            sys.exit(NO_RUNTIME)
        case StateInUse():
            sys.exit(IN_USE)
        case NotEnforced():
            sys.exit(NOT_ENFORCED)
    # A throttled caller can try the same command again. Of the other errors with a status below 500
    # the caller has to change something first.
    is_mistake = not error.is_ours and error.status != Throttled.status
    sys.exit(USAGE if is_mistake else UNAVAILABLE)


def usage(text: str) -> NoReturn:
    """Print a mistake in the arguments and exit with 2."""
    click.echo(f"Error: {text}", err=True)
    sys.exit(USAGE)
