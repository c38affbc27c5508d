"""How a Python function fails, as a client sees it: exceptions, init, exits, timeouts."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
from contract import DIVIDE, EVALUATE, NBSP, STAMP, failure_of, printed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from contract import Ask

    Deploy = Callable[..., Path]


def test_an_exception_is_a_failure_with_its_trace(ask: Ask, runtime: str) -> None:
    """Type is the class; the trace is one string per frame of the function's, no more."""
    [response] = ask(DIVIDE, None, runtime=runtime)
    failure = json.loads(response.body)
    assert list(failure) == ["errorMessage", "errorType", "requestId", "stackTrace"]
    assert failure["errorMessage"] == "division by zero"
    assert failure["errorType"] == "ZeroDivisionError"
    assert failure["requestId"] == response.request_id
    frames = [frame.split("\n")[:2] for frame in failure["stackTrace"]]
    assert [code.strip() for _, code in frames] == [
        "return divide(1, 0)",
        "return left / right",
    ]
    places = [re.fullmatch(r'  File "(.+)/app\.py", (line \d, in \w+)', at) for at, _ in frames]
    assert [place and place[2] for place in places] == [
        "line 3, in handler",
        "line 6, in divide",
    ]


def test_a_frame_is_two_lines_without_markers(ask: Ask, runtime: str) -> None:
    """A frame is formatted as place and line, also where Python knows the column."""
    [response] = ask(DIVIDE, None, runtime=runtime)
    *_, last = failure_of(response).stack_trace
    assert re.fullmatch(r'  File "[^"]+", line 6, in divide\n    return left / right\n', last)


def test_a_failure_is_logged_as_one_record(ask: Ask, runtime: str) -> None:
    r"""The log line of a failure folds its lines with \r and indents them with NBSP."""
    [response] = ask(DIVIDE, None, runtime=runtime)
    lines = [
        "[ERROR] ZeroDivisionError: division by zero",
        "Traceback (most recent call last):",
    ]
    for frame in failure_of(response).stack_trace:
        for line in frame.splitlines():
            text = line.lstrip(" ")
            lines.append(NBSP * (len(line) - len(text)) + text)
    assert lines[2].startswith(f'{NBSP}{NBSP}File "')
    assert printed(response) == "\r".join(lines) + "\n"


BROKEN = {
    "missing module": (
        "import no_such_package",
        "Runtime.ImportModuleError",
        "Unable to import module 'app': No module named 'no_such_package'",
    ),
    "missing name": (
        "from json import no_such_name",
        "Runtime.ImportModuleError",
        r"Unable to import module 'app': cannot import name 'no_such_name' from 'json' .*",
    ),
    "missing handler": (
        "def other(event, context): pass",
        "Runtime.HandlerNotFound",
        "Handler 'handler' missing on module 'app'",
    ),
    "syntax": (
        "def handler(event, context)\n    pass",
        "Runtime.UserCodeSyntaxError",
        r"Syntax error in module 'app': .*\(app\.py, line 1\)",
    ),
    "raises": ("raise ValueError('not today')", "ValueError", "not today"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_handler_that_cannot_be_loaded_says_why(ask: Ask, case: str, runtime: str) -> None:
    """The failure of an init phase has Lambda's type and text, and no request's id."""
    source, error_type, message = BROKEN[case]
    [response] = ask(source, None, runtime=runtime)
    failure = failure_of(response)
    assert failure.error_type == error_type
    assert re.fullmatch(message, failure.error_message)
    assert failure.request_id == ""
    assert f"[ERROR] {error_type}: " in response.log


def test_a_module_that_is_not_there_says_so(ask: Ask, deploy: Deploy) -> None:
    """A handler whose file is missing is an import error that names the module."""
    code = deploy("def handler(event, context): pass")
    [response] = ask(code, None, handler="other.handler")
    failure = failure_of(response)
    assert failure.error_type == "Runtime.ImportModuleError"
    assert failure.error_message == "Unable to import module 'other': No module named 'other'"
    assert failure.stack_trace == []


def test_a_syntax_error_shows_the_line(ask: Ask) -> None:
    """The trace of a syntax error is the file, the line and its text."""
    [response] = ask("x = 1\ndef handler(event, context)\n    pass\n", None)
    [frame] = failure_of(response).stack_trace
    assert re.match(r'  File ".+/app\.py" Line 2\n    def handler\(event, context\)', frame)


def test_a_module_that_raises_shows_where(ask: Ask) -> None:
    """The trace of an exception at import ends in the function's own file."""
    [response] = ask("def start():\n    return {}['a']\n\nstart()\n", None)
    failure = failure_of(response)
    assert failure.error_type == "KeyError"
    assert failure.error_message == "'a'"
    assert 'app.py", line 2, in start' in failure.stack_trace[-1]
    assert 'app.py", line 4, in <module>' in failure.stack_trace[-2]
    assert not any("bootstrap.py" in frame for frame in failure.stack_trace)


def test_an_exception_without_words_is_still_a_failure(ask: Ask) -> None:
    """An exception whose __str__ raises keeps its type and trace; the worker lives on."""
    source = """
        class Mute(Exception):
            def __str__(self):
                raise RuntimeError("no words")

        def handler(event, context):
            if event:
                raise Mute
            return "well"
        """
    mute, well = ask(source, 1, 0)
    failure = failure_of(mute)
    assert failure.error_type == "Mute"
    assert "Mute" in failure.error_message
    assert len(failure.stack_trace) == 1
    assert well.payload == "well"
    assert well.report.worker_id == mute.report.worker_id


def test_a_very_long_message_is_cut(ask: Ask) -> None:
    """Of a message of 1 MB the beginning stays, with its length."""
    source = """
        def handler(event, context):
            raise ValueError("begin" + "x" * (1024 * 1024 - 5))
        """
    [response] = ask(source, None)
    failure = failure_of(response)
    assert failure.error_type == "ValueError"
    assert failure.error_message.startswith("beginxxx")
    assert "1048576" in failure.error_message[-40:]
    assert len(failure.error_message) <= 256 * 1024 + 100


def test_a_very_long_trace_does_not_cost_the_failure(ask: Ask) -> None:
    """A failure with a trace of any length arrives with its type; the worker lives."""
    source = """
        import sys

        def ping(n):
            return pong(n)

        def pong(n):
            return ping(n - 1) if n else 1 / 0

        def handler(event, context):
            sys.setrecursionlimit(200_000)
            return ping(event)
        """
    deep, well = ask(source, 45_000, 0, memory_size=1769)
    assert failure_of(deep).error_type == "ZeroDivisionError"
    assert failure_of(well).error_type == "ZeroDivisionError"
    assert well.report.worker_id == deep.report.worker_id


def test_an_endless_recursion_is_a_failure(ask: Ask, runtime: str) -> None:
    """RecursionError is an exception like another, and its trace arrives."""
    source = """
        def handler(event, context):
            return handler(event, context)
        """
    first, second = ask(source, None, None, memory_size=1769, runtime=runtime)
    for response in (first, second):
        failure = failure_of(response)
        assert failure.error_type == "RecursionError"
        assert "maximum recursion depth exceeded" in failure.error_message
    assert first.report.worker_id == second.report.worker_id


def test_a_message_of_half_a_character_arrives(ask: Ask) -> None:
    """A lone surrogate in a message costs neither the failure nor its line in the log."""
    source = r"""
        def handler(event, context):
            raise ValueError("half \ud83d of a character")
        """
    [response] = ask(source, None)
    assert json.loads(response.body)["errorType"] == "ValueError"
    assert failure_of(response).error_type == "ValueError"
    assert "[ERROR] ValueError: half " in response.log


EXITS = {
    "sys.exit()": "Runtime exited without providing a reason",
    "sys.exit(0)": "Runtime exited without providing a reason",
    "sys.exit(3)": "Runtime exited with error: exit status 3",
    "sys.exit('a reason')": "Runtime exited with error: exit status 1",
    "os._exit(0)": "Runtime exited without providing a reason",
    "os._exit(127)": "Runtime exited with error: exit status 127",
    "os.kill(os.getpid(), 9)": "Runtime exited with error: signal: killed",
    "os.kill(os.getpid(), 15)": "Runtime exited with error: signal: terminated",
    "os.abort()": "Runtime exited with error: signal: aborted",
    "os.kill(os.getpid(), 11)": "Runtime exited with error: signal: segmentation fault",
}


@pytest.mark.parametrize("way", EXITS)
def test_a_handler_that_exits_is_a_runtime_exit_error(ask: Ask, way: str) -> None:
    """Payload, log and report have the worker's exit; the next invocation has another worker."""
    gone, well = ask(EVALUATE, way, "6 * 7")
    reason = f"RequestId: {gone.request_id} Error: {EXITS[way]}"
    assert json.loads(gone.body) == {
        "errorType": "Runtime.ExitError",
        "errorMessage": reason,
    }
    assert printed(gone).endswith(f"{reason}\nRuntime.ExitError\n")
    assert gone.log.endswith("\tStatus: error\tError Type: Runtime.ExitError\n")
    assert well.payload == 42
    assert well.report.worker_id != gone.report.worker_id


def test_an_exit_at_import_is_a_runtime_exit_error(ask: Ask) -> None:
    """sys.exit in the init phase has the same text as in a handler."""
    [response] = ask("import sys\nsys.exit(4)", None)
    failure = failure_of(response)
    assert failure.error_type == "Runtime.ExitError"
    assert failure.error_message == (
        f"RequestId: {response.request_id} Error: Runtime exited with error: exit status 4"
    )


def test_last_words_are_kept(ask: Ask, runtime: str) -> None:
    """What a handler printed before it exits is in the log, whole lines or not."""
    source = """
        import os, sys

        def handler(event, context):
            print("a line")
            print("half a line", end="")
            sys.stderr.write("an error")
            os._exit(1)
        """
    [response] = ask(source, None, runtime=runtime)
    for words in ("a line\n", "half a line", "an error"):
        assert words in printed(response)


def test_sys_exit_says_its_reason_in_the_log(ask: Ask) -> None:
    """sys.exit("text") prints the text to stderr, as Python does."""
    [response] = ask(EVALUATE, "sys.exit('the disk is on fire')")
    assert "the disk is on fire\n" in printed(response)


def test_a_timeout_is_sandbox_timedout(ask: Ask) -> None:
    """Payload, log and REPORT of a timeout are those of Lambda today."""
    source = """
        import signal

        def handler(event, context):
            print("waiting")
            signal.pause()
        """
    [response] = ask(source, None, timeout=1)
    message = "Task timed out after 1.00 seconds"
    assert json.loads(response.body) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {response.request_id} Error: {message}",
    }
    assert re.fullmatch(rf"waiting\n{STAMP} {response.request_id} {message}\n\n", printed(response))
    assert response.log.endswith("\tStatus: timeout\n")
    assert 1000 <= response.report.duration_ms < 2000
