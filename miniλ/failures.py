"""Failures: how a function's end reads, in Lambda's shapes and words. Pure.

A failure is an answer, not an error: a JSON document with errorType and errorMessage. The
function's own runtime makes it; for an exit or a timeout, which only the supervisor sees, it is
made here.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import msgspec

# The names of signals in Lambda's messages.
SIGNALS = {
    signal.SIGHUP: "hangup",
    signal.SIGINT: "interrupt",
    signal.SIGQUIT: "quit",
    signal.SIGILL: "illegal instruction",
    signal.SIGTRAP: "trace/breakpoint trap",
    signal.SIGABRT: "aborted",
    signal.SIGBUS: "bus error",
    signal.SIGFPE: "floating point exception",
    signal.SIGKILL: "killed",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGSEGV: "segmentation fault",
    signal.SIGUSR2: "user defined signal 2",
    signal.SIGPIPE: "broken pipe",
    signal.SIGALRM: "alarm clock",
    signal.SIGTERM: "terminated",
    signal.SIGXCPU: "CPU time limit exceeded",
    signal.SIGXFSZ: "file size limit exceeded",
    signal.SIGSYS: "bad system call",
}


class Failure(msgspec.Struct, frozen=True, rename="camel"):
    """How a function failed, in Lambda's shape; a value, since a failure is an answer."""

    error_type: str = ""
    error_message: str = ""
    request_id: str | None = None
    stack_trace: list[Any] = []


def parse_failure(payload: bytes) -> Failure:
    """Return the failure that a worker wrote; `payload` may be any bytes."""
    try:
        failure = msgspec.json.decode(payload, type=Failure)
        if failure.error_type:
            return failure
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # msgspec refuses lone surrogates, nulls in place of texts, and what is no JSON.
    # Surrogates become question marks: neither a log nor an answer can carry them.
    try:
        text = json.dumps(json.loads(payload), ensure_ascii=False)
        document = json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        document = None
    values = document if isinstance(document, dict) else {}
    trace = values.get("stackTrace")
    return Failure(
        error_type=_text(values.get("errorType")) or "Runtime.Unknown",
        error_message=_text(values.get("errorMessage")),
        request_id=_text(values.get("requestId")) or None,
        stack_trace=trace if isinstance(trace, list) else [],
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def failure_payload(error_type: str, message: str) -> bytes:
    """Return the JSON document that Lambda sends for a failure of the sandbox."""
    return msgspec.json.encode({"errorType": error_type, "errorMessage": message})


class Outcome(msgspec.Struct, frozen=True):
    """How an invocation ended: the status and error type of its REPORT, and a note for its log."""

    failed: bool
    status: str = ""
    error_type: str = ""
    note: str = ""


ANSWERED = Outcome(failed=False)
FAILED = Outcome(failed=True)


def init_report(seconds: float, phase: str, status: str, error_type: str) -> bytes:
    """Return Lambda's log line for a failed init phase; `phase` is init or invoke."""
    line = f"INIT_REPORT Init Duration: {seconds * 1000:.2f} ms\tPhase: {phase}\tStatus: {status}"
    if status == "error":
        line += f"\tError Type: {error_type}"
    return line.encode() + b"\n"


def late(request_id: str, timeout: float, now: float) -> tuple[bytes, Outcome]:
    """Return payload and outcome of an invocation that timed out; `now` is Unix time."""
    message = timed_out(timeout)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    note = f"{stamp}.{int(now % 1 * 1000):03d}Z {request_id} {message}\n\n"
    payload = failure_payload("Sandbox.Timedout", f"RequestId: {request_id} Error: {message}")
    return payload, Outcome(failed=True, status="timeout", note=note)


def broken(request_id: str, error_type: str, text: str, note: str = "") -> tuple[bytes, Outcome]:
    """Return payload and outcome of an invocation whose worker exited or was killed during it."""
    message = f"RequestId: {request_id} Error: {text}"
    note = f"{note}{message}\n{error_type}\n"
    outcome = Outcome(failed=True, status="error", error_type=error_type, note=note)
    return failure_payload(error_type, message), outcome


def describe_status(status: int) -> str:
    """Return a wait status (wait(2)) in the words of Lambda's Runtime.ExitError."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"Runtime exited with error: signal: {SIGNALS.get(number, number)}"  # type: ignore[call-overload]
    code = os.WEXITSTATUS(status)
    if code == 0:
        return "Runtime exited without providing a reason"
    return f"Runtime exited with error: exit status {code}"


def exited(status: int | None) -> tuple[str, str]:
    """Return errorType and message for a worker's wait status; None if its zygote died."""
    if status is None:
        return "Sandbox.Failure", "The sandbox was lost: its zygote died"
    return "Runtime.ExitError", describe_status(status)


def timed_out(timeout: float) -> str:
    """Return Lambda's message for a timeout."""
    return f"Task timed out after {timeout:.2f} seconds"
