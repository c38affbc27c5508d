"""This module is the command line: minilambda (and miniλ, and python -m miniλ).

Exit codes: 0, 1 the function failed, 2 usage, 3 the runtime is not here, 69 miniλ could not do
its part, 75 the state directory is in use, 78 the host falls short of --require, 124 timed out, 137
killed. Payloads go to stdout; logs, REPORT and everything for people to stderr.

The commands in here run functions themselves; those that ask a server are in `commands`, and have
the same codes: 2 is also what a server refuses, 69 that it is not there or could not, and 1 that a
function did not become Active (deploy), or was not there to be deleted (rm).
"""

from __future__ import annotations

import click

import miniλ
from miniλ.cli import invoke, local_commands, remote_commands


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(miniλ.__version__, prog_name="minilambda")
def main() -> None:
    """Run functions the way AWS Lambda does, as plain supervised processes."""


for _command in (
    invoke.invoke,
    local_commands.serve,
    local_commands.doctor_command,
    local_commands.bill,
    local_commands.events,
    remote_commands.deploy,
    remote_commands.ls,
    remote_commands.rm,
    remote_commands.logs,
):
    main.add_command(_command)
