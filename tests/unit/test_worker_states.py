"""Tests of the life of a worker as a table, and how its end is put into words."""

from __future__ import annotations

import os
import signal
from typing import get_args

import msgspec
import pytest

from miniλ import worker
from miniλ.worker import TRANSITIONS, State, describe_status

STATES = set(get_args(State))


def reachable(start: State) -> set[State]:
    """Return every state that a worker may get to from `start`."""
    seen: set[State] = set()
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state not in seen:
            seen.add(state)
            waiting += TRANSITIONS[state].values()
    return seen


def test_every_state_has_its_row() -> None:
    """The table is as long as the list of states."""
    assert set(TRANSITIONS) == STATES


def test_every_fact_leads_to_a_state() -> None:
    """No transition ends in a word that is no state."""
    targets = {target for row in TRANSITIONS.values() for target in row.values()}

    assert targets <= STATES


def test_a_worker_may_get_to_every_state() -> None:
    """No state is there for nobody."""
    assert reachable("starting") == STATES


def test_gone_is_final() -> None:
    """Nothing happens to a worker that is gone."""
    assert TRANSITIONS["gone"] == {}


@pytest.mark.parametrize("state", sorted(STATES - {"gone"}))
def test_every_state_ends_in_gone(state: State) -> None:
    """A process may exit at any time: one fact leads from every state to the end."""
    assert TRANSITIONS[state]["exited"] == "gone"
    assert "gone" in reachable(state)


@pytest.mark.parametrize("state", sorted(STATES - {"gone"}))
def test_every_worker_can_be_stopped(state: State) -> None:
    """Whatever it does, and also if it is being stopped already."""
    assert TRANSITIONS[state]["stopped"] == "stopping"


def test_a_stopping_worker_does_not_come_back() -> None:
    """An answer that arrives late makes nobody idle again."""
    assert {"stopping", "gone"} == reachable("stopping")


def test_only_an_idle_worker_is_given_an_invocation() -> None:
    """A frozen one is thawed first, a busy one has one already."""
    assert [state for state, row in TRANSITIONS.items() if "invoked" in row] == ["idle"]
    assert [state for state, row in TRANSITIONS.items() if "frozen" in row] == ["idle"]


def test_a_fact_means_one_thing() -> None:
    """Wherever a fact is possible, it leads to the same state."""
    for fact in {fact for row in TRANSITIONS.values() for fact in row}:
        assert len({row[fact] for row in TRANSITIONS.values() if fact in row}) == 1


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
    """Whatever waitpid(2) returns for a process that ended is one sentence."""
    assert os.WIFSIGNALED(status) or os.WIFEXITED(status)
    assert describe_status(status).startswith("Runtime exited with")


def test_the_type_of_an_error_is_read_from_its_failure() -> None:
    """INIT_REPORT names it."""
    body = b'{"errorType":"Runtime.ImportModuleError","errorMessage":"m","stackTrace":[]}'

    assert worker._error_type(body) == "Runtime.ImportModuleError"


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[1]", b'{"errorType":"\xff"}', b'{"errorType":7}',
     b'{"stackTrace":' + b"[" * 100_000],
    ids=["nothing", "text", "list", "bad utf-8", "number", "deep"],
)  # fmt: skip
def test_a_failure_of_any_bytes_has_a_type(body: bytes) -> None:
    """A worker may write anything as its failure: the supervisor goes on."""
    assert worker._error_type(body) == "Runtime.Unknown"


def test_a_message_that_is_no_utf_8_does_not_hide_the_type() -> None:
    """Exception(os.fsdecode(...)): a lone surrogate is in the message, not in the type."""
    message = msgspec.json.encode("x").replace(b"x", b"\\udcff")
    body = b'{"errorType":"ValueError","errorMessage":' + message + b"}"

    assert worker._error_type(body) == "ValueError"
