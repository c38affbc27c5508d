"""Tests of verdicts: the end of an invocation without an answer, in Lambda's words."""

from __future__ import annotations

import json
import signal

import pytest

from miniλ.failures import FAILED, Outcome
from miniλ.worker import verdicts
from miniλ.worker.zygote import Exit

KILLED = Exit(int(signal.SIGKILL), 0.1)


def error_of(end: tuple[bytes, Outcome]) -> tuple[str, str]:
    """Return errorType and errorMessage of an end; each end has failed."""
    payload, outcome = end
    assert outcome.failed
    failure = json.loads(payload)
    return failure["errorType"], failure["errorMessage"]


@pytest.mark.parametrize(
    ("exit_", "ended_by", "expected"),
    [
        (
            Exit(1 << 8, 0.1),
            "",
            ("Runtime.ExitError", "Runtime exited with error: exit status 1"),
        ),
        (KILLED, "", ("Runtime.ExitError", "Runtime exited with error: signal: killed")),
        (None, "", ("Sandbox.Failure", "The sandbox was lost: its zygote died")),
        (
            KILLED,
            "the supervisor closed",
            ("Sandbox.Failure", "The sandbox was lost: the supervisor closed"),
        ),
        (
            None,
            "the supervisor closed",
            ("Sandbox.Failure", "The sandbox was lost: the supervisor closed"),
        ),
    ],
    ids=["exit", "signal", "zygote", "ended by the supervisor", "both"],
)
def test_an_exit_is_the_functions_unless_the_supervisor_ended_it(
    exit_: Exit | None, ended_by: str, expected: tuple[str, str]
) -> None:
    """A SIGKILL of the supervisor is not the function's failure."""
    kind, text = expected

    assert expected == verdicts.of_exit(exit_, ended_by)
    assert (kind, f"RequestId: r1 Error: {text}") == error_of(
        verdicts.exited("r1", exit_, ended_by, oom=False)
    )


@pytest.mark.parametrize("ended_by", ["", "the supervisor closed"])
def test_an_oom_kill_is_out_of_memory(ended_by: str) -> None:
    """The kernel's count of OOM kills wins: the log and REPORT name it."""
    payload, outcome = verdicts.exited("r1", KILLED, ended_by, oom=True)

    assert verdicts.out_of_memory("r1") == (payload, outcome)
    message = "RequestId: r1 Error: Runtime exited with error: signal: killed"
    assert ("Runtime.ExitError", message) == error_of((payload, outcome))
    assert outcome.note == f"Runtime.OutOfMemory\n{message}\nRuntime.ExitError\n"
    assert (outcome.status, outcome.error_type) == ("error", "Runtime.ExitError")


def test_a_full_tmp_says_how_full() -> None:
    """Lambda has no such failure: its words are those of a kill, and the reason follows."""
    text = "Runtime exited with error: signal: killed (/tmp holds 600 MB of 512 MB)"
    end = verdicts.tmp_full("r1", "/tmp holds 600 MB of 512 MB")

    assert ("Runtime.ExitError", f"RequestId: r1 Error: {text}") == error_of(end)


def test_a_broken_protocol_says_what_was_sent() -> None:
    """Runtime.TruncatedResponse, with the reason of the supervisor."""
    end = verdicts.truncated("r1", "the worker closed its answer pipe")

    expected = "RequestId: r1 Error: the worker closed its answer pipe"
    assert ("Runtime.TruncatedResponse", expected) == error_of(end)


def test_a_stream_that_is_too_large_has_no_request_id() -> None:
    """As the same failure of a whole answer, which Lambda itself makes; REPORT has no status."""
    payload, outcome = verdicts.too_large(10)

    text = "Response payload size exceeded maximum allowed payload size (10 bytes)."
    assert ("Function.ResponseSizeTooLarge", text) == error_of((payload, outcome))
    assert outcome is FAILED
