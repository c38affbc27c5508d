"""This module is failures: how a function's end reads, in Lambda's shapes and words. Pure.

A failure is an answer, not an error: a JSON document with errorType and errorMessage, made by
the function's own runtime or, for what the sandbox saw (exits, timeouts), made here.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import msgspec

# How a signal reads in Lambda's messages.
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
    """How a function failed, as Lambda shapes it. A failure is an answer, not an error."""

    error_type: str = ""
    error_message: str = ""
    request_id: str | None = None
    stack_trace: list[Any] = []


def parse_failure(body: bytes) -> Failure:
    """Return what a worker says of its failure, whatever it wrote: a document of any kind."""
    try:
        failure = msgspec.json.decode(body, type=Failure)
        if failure.error_type:
            return failure
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    # What msgspec refuses: lone surrogates, nulls where texts should be, no JSON at all.
    # Surrogates become question marks: a log or an answer could not carry them any further.
    try:
        text = json.dumps(json.loads(body), ensure_ascii=False)
        found = json.loads(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        found = None
    values = found if isinstance(found, dict) else {}
    trace = values.get("stackTrace")
    return Failure(
        error_type=_text(values.get("errorType")) or "Runtime.Unknown",
        error_message=_text(values.get("errorMessage")),
        request_id=_text(values.get("requestId")) or None,
        stack_trace=trace if isinstance(trace, list) else [],
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def failure_body(error_type: str, message: str) -> bytes:
    """Return a failure of the sandbox as the JSON document that Lambda sends."""
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
    """Return the line that Lambda logs of an init phase that failed (`phase`: init or invoke)."""
    line = f"INIT_REPORT Init Duration: {seconds * 1000:.2f} ms\tPhase: {phase}\tStatus: {status}"
    if status == "error":
        line += f"\tError Type: {error_type}"
    return line.encode() + b"\n"


def late(request_id: str, timeout: float, now: float) -> tuple[bytes, Outcome]:
    """Return answer and outcome of an invocation whose deadline has come; `now` is Unix time."""
    message = timed_out(timeout)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    note = f"{stamp}.{int(now % 1 * 1000):03d}Z {request_id} {message}\n\n"
    body = failure_body("Sandbox.Timedout", f"RequestId: {request_id} Error: {message}")
    return body, Outcome(failed=True, status="timeout", note=note)


def broken(request_id: str, error_type: str, text: str, note: str = "") -> tuple[bytes, Outcome]:
    """Return answer and outcome of an invocation whose worker ended, or was ended, over it."""
    message = f"RequestId: {request_id} Error: {text}"
    note = f"{note}{message}\n{error_type}\n"
    outcome = Outcome(failed=True, status="error", error_type=error_type, note=note)
    return failure_body(error_type, message), outcome


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
    """Return errorType and message for a worker that ended; None is one whose zygote died."""
    if status is None:
        return "Sandbox.Failure", "The sandbox was lost: its zygote died"
    return "Runtime.ExitError", describe_status(status)


def timed_out(timeout: float) -> str:
    """Return what Lambda says of a timeout."""
    return f"Task timed out after {timeout:.2f} seconds"
