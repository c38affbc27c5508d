"""Tests of the nouns: what Lambda refuses, and what it prints, byte for byte."""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
import pytest

from miniλ import model
from miniλ.billing import BOOKS
from miniλ.errors import InvalidParameterValue
from miniλ.failures import Failure
from miniλ.model import FunctionConfiguration, Invoked, Report, Response

LIMITS = {"memory": "hard: cgroup2 memory.max"}


def function(**changes: Any) -> FunctionConfiguration:
    """Return a function that is fine but for the changes."""
    fine: dict[str, Any] = {
        "name": "hello",
        "handler": "app.handler",
        "runtime": "python3.12",
        "revision": "r1",
        "code_sha256": "c2hh",
        "code_size": 12,
        "code_path": "/code/1",
    }
    return FunctionConfiguration(**{**fine, **changes})


def report(**changes: Any) -> Report:
    """Return the report of a warm invocation but for the changes."""
    warm: dict[str, Any] = {
        "request_id": "8f5ab0a2-0000-4000-8000-000000000001",
        "duration_ms": 12.345,
        "billed_duration_ms": 13,
        "init_duration_ms": None,
        "memory_size_mb": 128,
        "max_memory_used_mb": 33,
        "worker_id": "w1",
        "limits": LIMITS,
        "cold": False,
    }
    return Report(**{**warm, **changes})


def invoked(**changes: Any) -> Invoked:
    """Return how a warm invocation went but for the changes: `report()` is of it."""
    warm: dict[str, Any] = {
        "ended": 1.0,
        "function": "hello",
        "request_id": "8f5ab0a2-0000-4000-8000-000000000001",
        "seconds": 0.012345,
        "init_seconds": None,
        "memory_size_mb": 128,
        "peak": 33 << 20,
        "worker_id": "w1",
        "limits": LIMITS,
        "cold": False,
        "failed": False,
        "book": BOOKS["2025"],
    }
    return Invoked(**{**warm, **changes})


def response(
    body: bytes = b"null", printed: bytes = b"", *, is_failure: bool = False, **changes: Any
) -> Response:
    """Return the response of a warm invocation."""
    return Response(body, invoked(failed=is_failure), printed, **changes)


# Functions


def test_a_function_has_the_defaults_of_lambda() -> None:
    """128 MB, 3 s and 512 MB of /tmp, unless the caller sets them."""
    got = function()

    assert (got.memory_size, got.timeout, got.ephemeral_storage) == (128, 3, 512)
    assert got.environment == {}
    assert got.reserved_concurrency is None


@pytest.mark.parametrize("name", ["a", "A-b_9", "-", "0", "x" * 64])
def test_names_that_lambda_takes(name: str) -> None:
    """Letters, digits, hyphens and underscores, 1 to 64 of them."""
    assert name == function(name=name).name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "a b",
        "a.b",
        "a/b",
        "..",
        "a\n",
        "a\0",
        "é",
        "λ",
        "arn:x",
        None,
        7,
        b"a",
    ],
)
def test_names_that_lambda_refuses(name: object) -> None:
    """The message shows the name as it came."""
    with pytest.raises(InvalidParameterValue, match=re.escape("FunctionName must be 1 to 64")):
        function(name=name)


@pytest.mark.parametrize(
    ("field", "what", "good", "bad"),
    [
        ("memory_size", "MemorySize must be 128 to 10240 MB", [128, 129, 10240],
         [0, 64, 127, 10241, 20000, -128, 128.5, 128.0, True, "128", None, math.nan]),
        ("timeout", "Timeout must be 1 to 900 seconds", [1, 900],
         [0, 901, -1, 1.5, True, "3", None]),
        ("ephemeral_storage", "EphemeralStorage must be 512 to 10240 MB", [512, 10240],
         [0, 511, 10241, 512.5, True, "512", None]),
        ("reserved_concurrency", "ReservedConcurrentExecutions must be", [None, 0, 1, 1000],
         [-1, 1.0, True, "1"]),
        ("keep_alive", "keep_alive must be", [0, 0.5, 600],
         [-1, math.nan, math.inf, True, "600", None]),
    ],
)  # fmt: skip
def test_numbers_have_the_bounds_of_lambda(
    field: str, what: str, good: list[object], bad: list[object]
) -> None:
    """What is inside is kept, what is outside is refused with bounds and value."""
    for value in good:
        assert value == getattr(function(**{field: value}), field)
    for value in bad:
        message = f"{re.escape(what)}.*got {re.escape(repr(value))}$"
        with pytest.raises(InvalidParameterValue, match=message):
            function(**{field: value})


@pytest.mark.parametrize(
    "handler", ["app.handler", "a.b.c", "folder/app.handler", "x" * 126 + ".y"]
)
def test_handlers_that_are_a_module_and_a_function(handler: str) -> None:
    """A handler may be in a folder and in a package, and has at most 128 characters."""
    assert handler == function(handler=handler).handler


@pytest.mark.parametrize(
    "handler",
    ["", "handler", ".", ".handler", "app.", "app .handler", "app.handler\n",
     "x" * 127 + ".y", None, 7],
)  # fmt: skip
def test_a_handler_that_cannot_be_one_is_refused(handler: object) -> None:
    """We say it when the function is made, where Lambda says it at each invocation."""
    with pytest.raises(InvalidParameterValue, match="Handler must be"):
        function(handler=handler)


@pytest.mark.parametrize(
    ("runtime", "handler"),
    [("provided.al2023", "bootstrap"), ("java21", "Hello::run"), ("nodejs22.x", "index.handler")],
)
def test_a_handler_is_one_of_its_language(runtime: str, handler: str) -> None:
    """Only Python's have to have a dot; spaces have no place in any."""
    assert handler == function(runtime=runtime, handler=handler).handler
    with pytest.raises(InvalidParameterValue, match="Handler must be"):
        function(handler="bootstrap")
    with pytest.raises(InvalidParameterValue, match="without spaces"):
        function(runtime=runtime, handler=f"{handler} x")


def test_a_handler_that_cannot_be_utf_8_is_refused() -> None:
    """A handler goes to the worker as JSON: a lone surrogate has no way there."""
    with pytest.raises(InvalidParameterValue, match="Handler must be"):
        function(handler="\udc80.b")


def test_an_environment_is_kept() -> None:
    """Names are letters, digits and underscores; a value may be empty, long or Greek."""
    environment = {"AB": "", "a_1": "λ", "PATH_2": "x" * 1000}

    assert environment == function(environment=environment).environment


@pytest.mark.parametrize("name", ["", "A", "1A", "_A", "A-B", "A B", "A=B", "ÄB", "AB\0", 7])
def test_a_variable_that_lambda_refuses(name: object) -> None:
    """Two characters at least, the first one a letter: Lambda's own pattern."""
    expected = "names are a letter, then one or more letters, digits or underscores, got "
    with pytest.raises(InvalidParameterValue, match=expected):
        function(environment={name: "x"})


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "text"), (1, "text"), (b"x", "text"), ("a\0b", "text without NUL")],
)
def test_a_value_that_no_process_can_have_is_refused(value: object, kind: str) -> None:
    """The message names the variable."""
    expected = f"Environment variable AB must be {kind}, got {value!r}"
    with pytest.raises(InvalidParameterValue, match=re.escape(expected)):
        function(environment={"AB": value})


@pytest.mark.parametrize("value", ["\udc80", "a\ud800b"])
def test_a_value_that_cannot_be_utf_8_is_refused(value: str) -> None:
    """A caller's os.environ may hold undecodable bytes: they have no way to the worker."""
    with pytest.raises(InvalidParameterValue, match="variable AB must be text"):
        function(environment={"AB": value})


@pytest.mark.parametrize("environment", [None, [], "A=B", [("AB", "x")]])
def test_an_environment_is_a_dict(environment: object) -> None:
    """Anything else is refused, shown as it came."""
    with pytest.raises(InvalidParameterValue, match="Environment must be a dict"):
        function(environment=environment)


@pytest.mark.parametrize(
    "name",
    ["AWS_REGION", "AWS_LAMBDA_RUNTIME_API", "AWS_ACCESS_KEY_ID", "LAMBDA_TASK_ROOT",
     "AWS_LAMBDA_FUNCTION_NAME", "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR"],
)  # fmt: skip
def test_reserved_keys_are_refused_in_the_words_of_lambda(name: str) -> None:
    """The keys are named, sorted."""
    end = f"Reserved keys used in this request: {name}, LAMBDA_TASK_ROOT$"
    if name == "LAMBDA_TASK_ROOT":
        end = "Reserved keys used in this request: LAMBDA_TASK_ROOT$"
    if name == "LAMBDA_RUNTIME_DIR":
        end = "Reserved keys used in this request: LAMBDA_RUNTIME_DIR, LAMBDA_TASK_ROOT$"
    with pytest.raises(InvalidParameterValue, match=end):
        function(environment={"LAMBDA_TASK_ROOT": "x", name: "x", "AB": "y"})


@pytest.mark.parametrize("name", ["TZ", "PATH", "LANG", "PYTHONPATH", "AWS_PROFILE"])
def test_keys_that_are_not_reserved_may_be_set(name: str) -> None:
    """Lambda lets a function choose its own path, language and time zone."""
    assert {name: "x"} == function(environment={name: "x"}).environment


def test_an_environment_of_4_kb_is_the_largest() -> None:
    """As JSON it may have 4,096 bytes; one more is refused in the words of Lambda."""
    room = 4096 - len('{"AB":""}')
    expected = (
        "Lambda was unable to configure your environment variables because the environment "
        "variables you have provided exceeded the 4KB limit. String measured: "
        f'{{"AB":"{"x" * (room + 1)}"}}'
    )

    assert function(environment={"AB": "x" * room})
    with pytest.raises(InvalidParameterValue) as refused:
        function(environment={"AB": "x" * (room + 1)})
    assert expected == str(refused.value)


def test_of_an_environment_that_is_much_too_large_the_beginning_is_told() -> None:
    """A message is no copy of a megabyte, and ends with a whole character."""
    with pytest.raises(InvalidParameterValue) as refused:
        function(environment={"AB": "λ" * 1_000_000})

    assert str(refused.value).endswith('String measured: {"AB":"' + "λ" * 4092)


def test_an_environment_is_measured_in_bytes() -> None:
    """2,100 characters of two bytes each are more than 4 KB."""
    with pytest.raises(InvalidParameterValue, match="exceeded the 4KB limit"):
        function(environment={"AB": "λ" * 2100})


def test_environments_are_not_shared() -> None:
    """Two functions that were given none do not have the same one."""
    assert function().environment is not function().environment


def test_a_function_is_the_same_after_a_round_through_json() -> None:
    """The registry keeps functions as JSON documents."""
    before = function(reserved_concurrency=3, keep_alive=1.5, environment={"AB": "λ"})

    after = msgspec.json.decode(msgspec.json.encode(before), type=FunctionConfiguration)

    assert before == after


# The REPORT line and the log


def test_the_report_line_of_a_warm_invocation() -> None:
    """Five fields, each followed by a tab."""
    assert model.report_line(report(duration_ms=12.346)) == (
        "REPORT RequestId: 8f5ab0a2-0000-4000-8000-000000000001\t"
        "Duration: 12.35 ms\t"
        "Billed Duration: 13 ms\t"
        "Memory Size: 128 MB\t"
        "Max Memory Used: 33 MB\t"
    )


def test_the_report_line_of_a_cold_start() -> None:
    """The init duration is the sixth field, with two digits."""
    assert model.report_line(
        report(request_id="r1", duration_ms=1, billed_duration_ms=124, init_duration_ms=122.1)
    ) == (
        "REPORT RequestId: r1\tDuration: 1.00 ms\tBilled Duration: 124 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 33 MB\tInit Duration: 122.10 ms\t"
    )


def test_the_report_line_of_a_timeout() -> None:
    """The status follows the last tab."""
    assert model.report_line(
        report(request_id="r1", duration_ms=3000.0, billed_duration_ms=3000, status="timeout")
    ) == (
        "REPORT RequestId: r1\tDuration: 3000.00 ms\tBilled Duration: 3000 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 33 MB\tStatus: timeout"
    )


def test_the_report_line_of_an_error() -> None:
    """The type of an error follows its status."""
    line = model.report_line(
        report(
            request_id="r1",
            duration_ms=0.004,
            billed_duration_ms=1,
            init_duration_ms=0.0,
            status="error",
            error_type="Runtime.ExitError",
        )
    )

    assert line == (
        "REPORT RequestId: r1\tDuration: 0.00 ms\tBilled Duration: 1 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 33 MB\tInit Duration: 0.00 ms\t"
        "Status: error\tError Type: Runtime.ExitError"
    )


def test_a_log_is_start_what_was_printed_end_and_report() -> None:
    """The layout is that of a CloudWatch log stream."""
    answer = response(printed=b"one\ntwo\n")

    assert (
        f"START RequestId: {answer.request_id} Version: $LATEST\n"
        "one\n"
        "two\n"
        f"END RequestId: {answer.request_id}\n"
        f"{model.report_line(answer.report)}\n"
    ) == answer.log


def test_a_log_of_nothing_printed_has_no_empty_line() -> None:
    """START is followed by END."""
    lines = response().log.splitlines()

    assert [line.split()[0] for line in lines] == ["START", "END", "REPORT"]


def test_a_line_without_its_end_gets_one() -> None:
    """END begins a line of its own, and START does."""
    lines = response(printed=b"three", init_log=b"loading").log.splitlines()

    assert [line.split()[0] for line in lines] == [
        "loading",
        "START",
        "three",
        "END",
        "REPORT",
    ]


def test_the_init_phase_prints_before_the_start() -> None:
    """What the init phase printed, INIT_REPORT included, is above START."""
    log = response(init_log=b"loading\nINIT_REPORT x\n").log

    assert log.startswith("loading\nINIT_REPORT x\nSTART RequestId: ")


def test_a_log_of_any_bytes_can_be_read() -> None:
    """Functions print what they like: bytes that are no UTF-8 are replaced."""
    log = response(printed=b"a\xff\n", init_log=b"\xc3").log

    assert "\na\N{REPLACEMENT CHARACTER}\n" in log
    assert log.startswith("\N{REPLACEMENT CHARACTER}\nSTART")


def test_the_repr_of_a_response_is_short() -> None:
    """The outcome, the duration and the beginning of the body."""
    answer = Response(b"1", invoked(seconds=0.0034), b"")
    failed = Response(b"x" * 100, invoked(seconds=1, failed=True), b"")

    assert "<Response 3.4 ms b'1'>" == repr(answer)
    assert f"<Response failed 1000.0 ms b'{'x' * 60}...'>" == repr(failed)


def test_a_response_has_the_id_of_its_report() -> None:
    """`request_id` is what the function saw."""
    answer = response()

    assert answer.report.request_id == answer.request_id


@pytest.mark.parametrize("is_failure", [False, True])
def test_a_response_says_whether_its_function_failed(is_failure: bool) -> None:  # noqa: FBT001
    """As the invocation does."""
    assert response(is_failure=is_failure).is_failure is is_failure


def test_a_report_is_of_its_invocation() -> None:
    """Seconds are ms there, bytes are MB, and the bill is by the book."""
    assert invoked().report == report()

    cold = invoked(seconds=0.25, init_seconds=0.5, cold=True, status="timeout").report
    assert cold == report(
        duration_ms=250.0,
        billed_duration_ms=750,
        init_duration_ms=500.0,
        cold=True,
        status="timeout",
    )
    assert invoked(book=BOOKS["2018"]).report.billed_duration_ms == 100


@pytest.mark.parametrize(("peak", "size"), [(0, 0), (1, 1), (1 << 20, 1), ((1 << 20) + 1, 2)])
def test_who_used_anything_used_a_megabyte(peak: int, size: int) -> None:
    """Memory is rounded up to MB."""
    assert size == invoked(peak=peak).report.max_memory_used_mb


# Payloads and failures


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"null", None),
        (b'{"a":[1,2.5,"\xce\xbb"]}', {"a": [1, 2.5, "λ"]}),
        (b" 7 ", 7),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
        (b'"\\ud83d\\ude00"', "\N{GRINNING FACE}"),
        (b'"\\ud800"', "\ud800"),
        (b"[Infinity, -Infinity]", [math.inf, -math.inf]),
        (b'{"a": 1e400}', {"a": math.inf}),
    ],
)
def test_a_payload_is_what_the_function_returned(body: bytes, payload: object) -> None:
    """Whatever Lambda's Python client writes is read, also where it is no JSON."""
    assert payload == response(body).payload


def test_a_payload_may_hold_nan() -> None:
    """NaN is not JSON, but Lambda's Python client sends it."""
    payload = response(b'{"a": NaN}').payload

    assert math.isnan(payload["a"])


@pytest.mark.parametrize("body", [b"", b"{", b"nope"])
def test_a_payload_that_is_no_json_is_a_value_error(body: bytes) -> None:
    """`payload` raises for such a body; `body` has it."""
    with pytest.raises(ValueError, match="Expecting"):
        _ = response(body).payload


def test_an_answer_is_no_failure() -> None:
    """A body that looks like a failure is none unless the function failed."""
    assert response(b'{"errorType":"E","errorMessage":"m"}').failure is None


def test_a_failure_is_decoded_as_lambda_shapes_it() -> None:
    """errorType, errorMessage, requestId and stackTrace; the rest is passed over."""
    body = (
        b'{"errorMessage":"division by zero","errorType":"ZeroDivisionError",'
        b'"requestId":"r1","stackTrace":["  File a\\n"],"more":1}'
    )

    failure = response(body, is_failure=True).failure

    expected = Failure("ZeroDivisionError", "division by zero", "r1", ["  File a\n"])
    assert expected == failure


@pytest.mark.parametrize(
    "body",
    [
        b'{"errorType":"E","errorMessage":"\\udcff","stackTrace":[]}',
        b'{"errorType":"E","errorMessage":null}',
        b'{"errorType":"E","stackTrace":null}',
        b'{"errorType":"E","errorMessage":"\xff"}',
        b'{"errorType":"E","stackTrace":' + b"[" * 100_000,
        b"[1]",
        b"no json",
        b"",
    ],
    ids=["surrogate", "null", "no trace", "bad utf-8", "deep", "list", "text", "nothing"],
)
def test_a_failure_of_any_bytes_is_a_failure(body: bytes) -> None:
    """A worker may write anything as its failure: a value too, never an exception."""
    assert isinstance(response(body, is_failure=True).failure, Failure)


# Small things


def test_the_time_is_written_as_lambda_writes_it() -> None:
    """LastModified has milliseconds and +0000."""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", model.now_iso())
