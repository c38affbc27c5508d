"""The command line: it runs functions, asks a server, and checks a host.

Rule 1: payloads and documents go to stdout. Logs, REPORT lines, progress and messages go to stderr.

Rule 2: a message is one line: what happened, the value that was refused, and what to do. An error
never shows a traceback; it is an exit code, and `main` lists them all.

Rule 3: a command runs functions on this host or asks a server, never both, and refuses options that
would have no effect.

Rule 4: --json prints documents that programs rely on: their keys stay.

Reading order:

- `exit_codes`: the exit codes, and the message that goes with them.
- `options`: the options that several commands share.
- `run_loop`: one event loop for one command, and what SIGTERM and SIGINT do.
- `invoke`: one function, here or on a server; percentiles of many invocations.
- `local_commands`: `serve`, `doctor`, `bill`, `events`.
- `doctor`: what this host enforces, tried by the function in `probes/app.py`.
- `client`: Lambda's HTTP API, and a small client of it.
- `remote_commands`: `deploy`, `ls`, `rm`, `logs`, and the server's half of `invoke`.
- `main`: the group of all commands.
"""
