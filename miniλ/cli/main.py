"""`minilambda`, also `miniλ` and `python -m miniλ`: the group of all commands.

Exit codes of commands that run on this host: 0; 1 the function failed; 2 usage; 3 the runtime is
not installed; 69 miniλ could not do its part; 75 the state directory is in use; 78 the host falls
short of --require; 124 the function timed out; 137 it was killed; 130 and 143 a signal ended the
command, SIGINT or SIGTERM.

Commands that ask a server have the same codes: 2 is also a request that the server refused, 69 a
server that does not answer or could not do its part, and 1 a function that did not become Active
(`deploy`) or that did not exist (`rm`).
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
