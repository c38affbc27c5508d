"""The nouns: a function's configuration, an invocation's response and report. Frozen, no I/O.

Units are in the names where a client sees them (`duration_ms`, `memory_size_mb`); inside,
seconds are floats and sizes are MB as Lambda counts them (1 MB = 1,048,576 bytes).
"""

from __future__ import annotations

import json
import math
import re
import time
import uuid
from typing import Any, TypedDict

import msgspec

from miniλ import billing
from miniλ.errors import InvalidParameterValue
from miniλ.failures import Failure, parse_failure

LATEST = "$LATEST"
MB = 1024 * 1024

# AWS Lambda quotas, docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MEMORY_MB = (128, 10240)
TIMEOUT_SECONDS = (1, 900)
EPHEMERAL_MB = (512, 10240)
ENVIRONMENT_BYTES = 4096
# A message has at most this many bytes of an environment that is too large; AWS's has all of it.
MEASURED_SHOWN = 2 * ENVIRONMENT_BYTES
MAX_PAYLOAD = 6 * 1024 * 1024
HANDLER_LENGTH = 128
# The repr of a response has at most this many bytes of its body.
REPR_BYTES = 60
NETWORKS = ("share", "none")

# CreateFunction, FunctionName (service model of Lambda).
FUNCTION_NAME = r"[a-zA-Z0-9-_]{1,64}"
_NAME = re.compile(FUNCTION_NAME)
_HANDLER = re.compile(rf"[^\s\ud800-\udfff]{{1,{HANDLER_LENGTH}}}")
_VARIABLE = re.compile(r"[a-zA-Z][a-zA-Z0-9_]+")
_RESERVED = frozenset(
    {
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    }
)


class AttachedLayer(msgspec.Struct, frozen=True):
    """A layer version that a function has: its ARN, the size of its archive, its directory."""

    arn: str
    code_size: int
    path: str


class FunctionOptions(TypedDict, total=False):
    """The keywords of `Supervisor.function`: sizes in MB, times in seconds."""

    memory_size: int
    timeout: int
    ephemeral_storage: int
    environment: dict[str, str]
    reserved_concurrency: int | None
    keep_alive: float
    network: str


class ConfigurationChanges(FunctionOptions, total=False):
    """The keywords of `Supervisor.update_function_configuration`."""

    handler: str
    runtime: str


class FunctionDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A function whose code is not in the store yet: all of a FunctionConfiguration but that.

    `revision` is new at each update. `state` is Pending, Active or Failed, and `update_status`
    InProgress, Successful or Failed; each with its reason, as (code, text).
    """

    name: str
    handler: str
    runtime: str
    revision: str
    memory_size: int = 128
    timeout: int = 3
    ephemeral_storage: int = 512
    environment: dict[str, str] = {}
    reserved_concurrency: int | None = None
    keep_alive: float = 600.0
    # "share" is the host's network, "none" an empty network namespace.
    network: str = "share"
    last_modified: str = ""
    # Functions of the embedding app: the app's sys.path. Empty for others.
    python_path: list[str] = []
    version: str = LATEST
    description: str = ""
    role: str = ""
    layers: list[AttachedLayer] = []
    # The directory that /opt shows: all layers merged. Empty without layers.
    layers_path: str = ""
    state: str = "Active"
    state_reason: tuple[str, str] = ("", "")
    update_status: str = "Successful"
    update_reason: tuple[str, str] = ("", "")
    # Members of the API that have no field of their own: LoggingConfig, DeadLetterConfig, VpcConfig
    # and so on, as the client sent them. The key in the registry is older than the field's name.
    passthrough: dict[str, Any] = msgspec.field(default_factory=dict, name="told")

    def __post_init__(self) -> None:
        """Refuse what Lambda would refuse, and say the value and the bounds."""
        check_name(self.name)
        check_handler(self.handler, self.runtime)
        _check_range("MemorySize", self.memory_size, MEMORY_MB, "MB")
        _check_range("Timeout", self.timeout, TIMEOUT_SECONDS, "seconds")
        _check_range("EphemeralStorage", self.ephemeral_storage, EPHEMERAL_MB, "MB")
        _check_environment(self.environment)
        reserved = self.reserved_concurrency
        if reserved is not None and (not _is_whole(reserved) or reserved < 0):
            msg = f"ReservedConcurrentExecutions must be a whole number from 0, got {reserved!r}"
            raise InvalidParameterValue(msg)
        if self.network not in NETWORKS:
            msg = f"network must be one of {', '.join(NETWORKS)}, got {self.network!r}"
            raise InvalidParameterValue(msg)
        if not _is_number(self.keep_alive) or self.keep_alive < 0:
            msg = f"keep_alive must be a number of seconds from 0, got {self.keep_alive!r}"
            raise InvalidParameterValue(msg)

    @property
    def qualified(self) -> str:
        """The name by which this version, and no other, is invoked: `hello` or `hello:3`."""
        return self.name if self.version == LATEST else f"{self.name}:{self.version}"


class FunctionConfiguration(FunctionDraft, frozen=True, kw_only=True):
    """One version of a function as Lambda's FunctionConfiguration has it, with its code."""

    code_sha256: str
    code_size: int
    code_path: str


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def check_name(name: object) -> None:
    """Refuse a function name that Lambda would refuse (CreateFunction, FunctionName)."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        msg = f"FunctionName must be 1 to 64 letters, digits, hyphens or underscores, got {name!r}"
        raise InvalidParameterValue(msg)


def check_handler(handler: object, runtime: object) -> None:
    """Refuse a handler that is not `module.function` or `folder/module.function`, for Python.

    Lambda accepts a handler without a dot, and fails each invocation with
    Runtime.MalformedHandlerName; here the deployment fails.
    """
    if not isinstance(handler, str) or not _HANDLER.fullmatch(handler):
        msg = f"Handler must be 1 to {HANDLER_LENGTH} characters without spaces, got {handler!r}"
        raise InvalidParameterValue(msg)
    if isinstance(runtime, str) and not runtime.startswith("python"):
        return  # handlers of other languages have other forms: bootstrap, Hello::run
    module, dot, function = handler.rpartition(".")
    if not (module and dot and function):
        msg = f"Handler must be 'module.function', like app.handler, got {handler!r}"
        raise InvalidParameterValue(msg)


def _check_range(name: str, value: object, bounds: tuple[int, int], unit: str) -> None:
    low, high = bounds
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        msg = f"{name} must be {low} to {high} {unit}, got {value!r}"
        raise InvalidParameterValue(msg)


def _check_environment(environment: object) -> None:
    if not isinstance(environment, dict):
        msg = f"Environment must be a dict of strings, got {environment!r}"
        raise InvalidParameterValue(msg)
    for name, value in environment.items():
        if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
            msg = (
                "Environment variable names are a letter, then one or more letters, digits or "
                f"underscores, got {name!r}"
            )
            raise InvalidParameterValue(msg)
        if not isinstance(value, str):
            msg = f"Environment variable {name} must be text, got {value!r}"
            raise InvalidParameterValue(msg)
        if re.search("[\0\ud800-\udfff]", value):
            msg = f"Environment variable {name} must be text without NUL, got {value!r}"
            raise InvalidParameterValue(msg)
    reserved = sorted(_RESERVED & environment.keys())
    if reserved:
        msg = (
            "Lambda was unable to configure your environment variables because the environment "
            "variables you have provided contains reserved keys that are currently not supported "
            f"for modification. Reserved keys used in this request: {', '.join(reserved)}"
        )
        raise InvalidParameterValue(msg)
    measured = msgspec.json.encode(environment)
    if len(measured) > ENVIRONMENT_BYTES:
        msg = (
            "Lambda was unable to configure your environment variables because the environment "
            "variables you have provided exceeded the 4KB limit. String measured: "
            f"{measured[:MEASURED_SHOWN].decode(errors='ignore')}"
        )
        raise InvalidParameterValue(msg)


class Report(msgspec.Struct, frozen=True, gc=False):
    """The REPORT line of one invocation, and the limits that its worker ran under.

    `cold`: it waited for an init phase. `init_duration_ms` is None if it did not, and, as on
    Lambda, if the init phase had failed and was repeated inside the invocation. `limits` says
    for each resource `hard`, `soft` or `none`, and by which mechanism.
    """

    request_id: str
    duration_ms: float
    billed_duration_ms: int
    init_duration_ms: float | None
    memory_size_mb: int
    max_memory_used_mb: int
    worker_id: str
    limits: dict[str, str]
    cold: bool
    status: str = ""
    error_type: str = ""


class Invoked(msgspec.Struct, frozen=True, gc=False):
    """The measurements of one invocation: the report, the bill and the log are made from them.

    Seconds, but `peak` (bytes). `ended` is time.monotonic(). The report is computed on each
    access: a warm invocation costs microseconds, and most reports are never read.
    """

    ended: float
    function: str
    request_id: str
    seconds: float
    init_seconds: float | None
    memory_size_mb: int
    peak: int
    worker_id: str
    limits: dict[str, str]
    cold: bool
    failed: bool
    book: billing.PriceBook
    status: str = ""
    error_type: str = ""

    @property
    def report(self) -> Report:
        """The report of the invocation."""
        duration_ms = self.seconds * 1000
        init_ms = None if self.init_seconds is None else self.init_seconds * 1000
        return Report(
            request_id=self.request_id,
            duration_ms=duration_ms,
            billed_duration_ms=billing.billed_ms(duration_ms, init_ms, self.book),
            init_duration_ms=init_ms,
            memory_size_mb=self.memory_size_mb,
            max_memory_used_mb=-(-self.peak // MB),  # rounded up: any use is at least 1
            worker_id=self.worker_id,
            limits=self.limits,
            cold=self.cold,
            status=self.status,
            error_type=self.error_type,
        )


class Response(msgspec.Struct, frozen=True, gc=False):
    """The answer of an invocation: `body` as bytes, `payload` decoded, and its `report`.

    A failure of the function is a response too: `failure` is then not None, and `body` is the
    JSON document that an AWS client gets with X-Amz-Function-Error.
    """

    body: bytes
    invoked: Invoked
    printed: bytes
    init_log: bytes = b""
    executed_version: str = LATEST

    def __repr__(self) -> str:
        outcome = "failed " if self.is_failure else ""
        body = self.body if len(self.body) <= REPR_BYTES else self.body[:REPR_BYTES] + b"..."
        return f"<Response {outcome}{self.invoked.seconds * 1000:.1f} ms {body!r}>"

    @property
    def report(self) -> Report:
        """Durations, memory and limits: the REPORT line, and more."""
        return self.invoked.report

    @property
    def is_failure(self) -> bool:
        """Whether the function failed."""
        return self.invoked.failed

    @property
    def payload(self) -> Any:  # noqa: ANN401 - any JSON
        """The answer, decoded from JSON. NaN and Infinity pass, as Lambda's client sends them."""
        return _decode_json(self.body)

    @property
    def failure(self) -> Failure | None:
        """The errorType, errorMessage and stackTrace, as Lambda shapes them; None on success."""
        if not self.invoked.failed:
            return None
        return parse_failure(self.body)

    @property
    def request_id(self) -> str:
        """The id of the invocation: `context.aws_request_id` in the function."""
        return self.invoked.request_id

    @property
    def log(self) -> str:
        """The log: output of the init phase, START, output of the handler, END and REPORT."""
        report = self.report
        start = f"START RequestId: {report.request_id} Version: {self.executed_version}\n"
        printed = self.printed.decode(errors="replace")
        if printed and not printed.endswith("\n"):
            printed += "\n"
        init = self.init_log.decode(errors="replace")
        if init and not init.endswith("\n"):
            init += "\n"
        return f"{init}{start}{printed}END RequestId: {report.request_id}\n{report_line(report)}\n"


def report_line(report: Report) -> str:
    r"""Return the REPORT line byte for byte: each field, also the last one, ends with a tab.

    Source: AWS Lambda developer guide, "Monitoring: CloudWatch logs"; a status, if there is one,
    follows the last tab.
    """
    fields = [
        f"REPORT RequestId: {report.request_id}",
        f"Duration: {report.duration_ms:.2f} ms",
        f"Billed Duration: {report.billed_duration_ms} ms",
        f"Memory Size: {report.memory_size_mb} MB",
        f"Max Memory Used: {report.max_memory_used_mb} MB",
    ]
    if report.init_duration_ms is not None:
        fields.append(f"Init Duration: {report.init_duration_ms:.2f} ms")
    line = "\t".join(fields) + "\t"
    if report.status:
        line += f"Status: {report.status}"
    if report.error_type:
        line += f"\tError Type: {report.error_type}"
    return line


def unfold(log: str) -> str:
    """Return a log for a terminal: a traceback is one record whose lines end with carriage returns.

    AWS folds the lines of such a record in the same way.
    """
    return log.replace("\r\n", "\n").replace("\r", "\n")


def now_iso() -> str:
    """Return the time as Lambda writes LastModified: 2026-01-31T12:00:00.000+0000."""
    seconds = time.time()
    return time.strftime(
        f"%Y-%m-%dT%H:%M:%S.{int(seconds % 1 * 1000):03d}+0000", time.gmtime(seconds)
    )


def new_revision() -> str:
    """Return a RevisionId."""
    return str(uuid.uuid4())


def _decode_json(payload: bytes) -> Any:  # noqa: ANN401 - see Response.payload
    try:
        return msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # NaN and Infinity are not JSON, but Lambda's Python client sends them.
        return json.loads(payload)
