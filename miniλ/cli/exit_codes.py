"""This module is exits: the exit codes of the command line, and what is said on the way out.

They are listed in `cli`, for those who call it. What is said goes to stderr, on one line.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from miniλ.errors import LambdaError, NotEnforced, RuntimeMissing, StateInUse, Throttled

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
    """Say an error, ours or one that a server answered, and exit with its code."""
    click.echo(f"{error.code}: {error}", err=True)
    match error:
        case RuntimeMissing():
            sys.exit(NO_RUNTIME)
        case StateInUse():
            sys.exit(IN_USE)
        case NotEnforced():
            sys.exit(NOT_ENFORCED)
    # Who is throttled may come again; what is wrong with the others is the caller's to mend.
    mended = not error.is_ours and error.status != Throttled.status
    sys.exit(USAGE if mended else UNAVAILABLE)


def usage(text: str) -> NoReturn:
    """Say what is wrong with how we were called, and exit."""
    click.echo(f"Error: {text}", err=True)
    sys.exit(USAGE)
