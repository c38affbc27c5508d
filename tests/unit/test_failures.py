"""Tests of failures: any bytes are read as one, and an exit has Lambda's words."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from miniλ.failures import Failure, describe_status, failure_payload, parse_failure

# Reading


def test_the_type_of_an_error_is_read_from_its_failure() -> None:
    """INIT_REPORT names it."""
    payload = b'{"errorType":"Runtime.ImportModuleError","errorMessage":"m","stackTrace":[]}'

    assert parse_failure(payload) == Failure("Runtime.ImportModuleError", "m")


@pytest.mark.parametrize(
    "payload",
    [b"", b"no json", b"[1]", b'{"errorType":"\xff"}', b'{"errorType":7}', b"{}", b"null",
     b'{"errorType":""}', b'{"errorType":null}', b"\xff\xfe{", b"9" * 5000,
     b'{"stackTrace":' + b"[" * 100_000],
    ids=["nothing", "text", "list", "bad utf-8", "number", "object", "null",
         "empty", "null type", "bytes", "digits", "deep"],
)  # fmt: skip
def test_a_failure_of_any_bytes_has_a_type(payload: bytes) -> None:
    """A worker may write anything as its failure: the supervisor goes on."""
    assert parse_failure(payload) == Failure("Runtime.Unknown")


def test_a_failure_without_a_type_keeps_the_rest() -> None:
    """Missing fields are filled in; fields of another type are ignored."""
    payload = b'{"errorMessage":"m","requestId":"r1","stackTrace":["a"]}'
    odd = b'{"errorType":["E"],"errorMessage":7,"requestId":{},"stackTrace":"a"}'

    assert parse_failure(payload) == Failure("Runtime.Unknown", "m", "r1", ["a"])
    assert parse_failure(odd) == Failure("Runtime.Unknown")


def test_a_message_that_is_no_utf_8_does_not_hide_the_type() -> None:
    """Exception(os.fsdecode(...)): a lone surrogate is in the message, not in the type."""
    payload = b'{"errorType":"ValueError","errorMessage":"a\\udcffb"}'

    assert parse_failure(payload) == Failure("ValueError", "a?b")


def test_a_failure_can_be_told_on() -> None:
    """A lone surrogate anywhere does not get into a log line or another document."""
    lone = rb'"\udcff"'
    payload = b'{"errorType":%b,"errorMessage":%b,"stackTrace":[[%b,{%b:1}]]}' % ((lone,) * 4)

    failure = parse_failure(payload)

    assert failure == Failure("?", "?", None, [["?", {"?": 1}]])
    assert msgspec.json.decode(msgspec.json.encode(failure), type=Failure) == failure


def test_a_failure_of_the_sandbox_is_a_failure() -> None:
    """What `failure_payload` writes, `parse_failure` reads, and its order is Lambda's."""
    payload = failure_payload("Runtime.ExitError", "RequestId: r1 Error: é")

    expected = '{"errorType":"Runtime.ExitError","errorMessage":"RequestId: r1 Error: é"}'
    assert expected == payload.decode()
    assert Failure("Runtime.ExitError", "RequestId: r1 Error: é") == parse_failure(payload)


# Words


@pytest.mark.parametrize("code", [1, 2, 42, 127, 255])
def test_an_exit_status_is_put_as_lambda_puts_it(code: int) -> None:
    """Runtime.ExitError in Go's words."""
    assert f"Runtime exited with error: exit status {code}" == describe_status(code << 8)


def test_an_exit_without_error_gives_no_reason() -> None:
    """sys.exit(0) in a handler is a failure all the same."""
    assert describe_status(0) == "Runtime exited without providing a reason"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "killed"),
        (signal.SIGSEGV, "segmentation fault"),
        (signal.SIGTERM, "terminated"),
        (signal.SIGABRT, "aborted"),
        (signal.SIGPIPE, "broken pipe"),
        (signal.SIGXFSZ, "file size limit exceeded"),
        (signal.SIGSYS, "bad system call"),
    ],
)
def test_a_signal_is_put_as_lambda_puts_it(number: signal.Signals, words: str) -> None:
    """With a core dump or without, in Go's words."""
    expected = f"Runtime exited with error: signal: {words}"

    assert expected == describe_status(int(number))
    assert expected == describe_status(int(number) | 0x80)


def test_a_signal_without_a_name_is_a_number() -> None:
    """Real-time signals have none."""
    assert describe_status(40) == "Runtime exited with error: signal: 40"


@pytest.mark.parametrize("status", [*range(1, 65), *(code << 8 for code in range(256))])
def test_every_wait_status_has_words(status: int) -> None:
    """Any wait status of waitpid(2) is one sentence."""
    assert os.WIFSIGNALED(status) or os.WIFEXITED(status)
    assert describe_status(status).startswith("Runtime exited with")
