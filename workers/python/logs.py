"""How a Python worker logs: AWS's two formats, for `logging` and for a failure.

`bootstrap` loads this file once, in the zygote, under a name that no function imports.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback


class _Handler(logging.Handler):
    """Writes records to wherever stdout is now, with the request id of the invocation."""

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = request_id
        text = self.format(record)
        # A trace comes after the newline that the format ends in, and needs its own.
        sys.stdout.write(text if text.endswith("\n") else text + "\n")


class _JsonFormatter(logging.Formatter):
    """AWS_LAMBDA_LOG_FORMAT=JSON: a record is one JSON object on one line."""

    own = frozenset(vars(logging.makeLogRecord({}))) | {"aws_request_id", "message"}

    def format(self, record: logging.LogRecord) -> str:
        plain = isinstance(record.msg, dict) and not record.args
        line = {
            "timestamp": self.formatTime(record, "%Y-%m-%dT%H:%M:%SZ"),
            "level": record.levelname,
            "message": record.msg if plain else record.getMessage(),
            "logger": record.name,
        }
        if record.exc_info and record.exc_info[0]:
            line["stackTrace"] = traceback.format_tb(record.exc_info[2])
            line["errorType"] = record.exc_info[0].__name__
            line["errorMessage"] = str(record.exc_info[1])
            line["location"] = f"{record.pathname}:{record.funcName}:{record.lineno}"
        line["requestId"] = record.aws_request_id
        extra = {k: v for k, v in vars(record).items() if k not in self.own and k not in line}
        return json.dumps({**line, **extra}, ensure_ascii=False, default=str) + "\n"


_json_log = False
# Of the invocation that runs: the worker sets it.
request_id = ""
handler = _Handler()
handler.setFormatter(
    logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n",
        "%Y-%m-%dT%H:%M:%S",
    )
)


def set_up(environment: dict[str, str]) -> None:
    """Set the log format and level that the function is configured with."""
    global _json_log  # noqa: PLW0603 - one process is one function
    _json_log = environment.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    if _json_log:
        handler.setFormatter(_JsonFormatter())
    level = environment.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = "DEBUG" if level == "TRACE" else level
    if level in ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL"):
        logging.getLogger().setLevel(level)


def log_failure(failure: dict) -> None:
    r"""Print a failure as AWS does: one record, its lines parted by \r, indented with NBSP."""
    if _json_log:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = json.dumps({"timestamp": now, "level": "ERROR", **failure})
    else:
        kind, message = failure["errorType"], failure["errorMessage"]
        lines = ["[ERROR]" + (f" {kind}" if kind else "")]
        if message:
            lines[0] += f": {message}" if kind else f" {message}"
        lines.append("Traceback (most recent call last):")
        for element in failure["stackTrace"]:
            for line in element.splitlines() or [""]:
                bare = line.lstrip(" ")
                lines.append("\u00a0" * (len(line) - len(bare)) + bare)
        text = "\r".join(lines)
    try:
        sys.stdout.write(text + "\n")
    except Exception:  # noqa: BLE001 - a handler that closed stdout loses its log, and no more
        return
