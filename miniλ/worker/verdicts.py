"""The end of an invocation without an answer: a payload and an outcome. Pure.

The words are Lambda's, from `failures`; which of them fit an end is decided here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from miniλ import failures
from miniλ.failures import FAILED

if TYPE_CHECKING:
    from miniλ.failures import Outcome
    from miniλ.worker.zygote import Exit


def of_exit(exit_: Exit | None, ended_by: str) -> tuple[str, str]:
    """Return errorType and message for how a worker's first process ended.

    `ended_by` is why the supervisor ended it, "" if it did not; without an `exit_` the zygote died.
    """
    if ended_by:  # the supervisor closed, or a process is lost: not the function's doing
        return "Sandbox.Failure", f"The sandbox was lost: {ended_by}"
    return failures.exited(None if exit_ is None else exit_.status)


def exited(
    request_id: str, exit_: Exit | None, ended_by: str, *, oom: bool
) -> tuple[bytes, Outcome]:
    """Return the end of an invocation whose worker exited; `oom`: the kernel killed for memory."""
    if oom:
        return out_of_memory(request_id)
    return failures.broken(request_id, *of_exit(exit_, ended_by))


def out_of_memory(request_id: str) -> tuple[bytes, Outcome]:
    """Return the end of an invocation that used more memory than its function has."""
    text = "Runtime exited with error: signal: killed"
    return failures.broken(request_id, "Runtime.ExitError", text, "Runtime.OutOfMemory\n")


def tmp_full(request_id: str, what: str) -> tuple[bytes, Outcome]:
    """Return the end of an invocation that wrote more to /tmp than its function has: `what`."""
    text = f"Runtime exited with error: signal: killed ({what})"
    return failures.broken(request_id, "Runtime.ExitError", text)


def truncated(request_id: str, what: str) -> tuple[bytes, Outcome]:
    """Return the end of an invocation whose worker broke the protocol."""
    return failures.broken(request_id, "Runtime.TruncatedResponse", what)


def too_large(limit: int) -> tuple[bytes, Outcome]:
    """Return the end of an invocation that streamed more than `limit` bytes."""
    text = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
    return failures.failure_payload("Function.ResponseSizeTooLarge", text), FAILED
