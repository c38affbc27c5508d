"""This module is the Python worker: it loads one handler and runs invocations, one at a time.

Rule 1: standard library only, from Python 3.9, and nothing of asyncio: a function brings its
own packages, and gets its own. This file is imported once, in the zygote, so what it imports
is shared by every worker.

Rule 2: seven functions, under the same names in the worker of every language: `main`,
`read_frame`, `write_frame`, `load_handler`, `make_context`, `run_handler`, `describe_failure`.
The wire is in ../PROTOCOL.md.

Rule 3: what a client sees (error shapes, log lines, JSON) is what AWS's own client for Python
makes of it; the names of its behaviours are kept so that they can be looked up there.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import re
import resource
import struct
import sys
import time
import traceback

REQUEST_FD = 3
ANSWER_FD = 4
PREFIX = struct.Struct("<II")
PIECE = 65536

# 6 MB and 100 bytes: what Lambda's runtime API lets a function answer.
MAX_RESPONSE = 6 * 1024 * 1024 + 100
# A piece of a streamed answer is sent in frames of so much.
CHUNK = 256 * 1024
# What an answer is that begins with status and headers, as Lambda's client for Node.js says it.
PRELUDE = "application/vnd.awslambda.http-integration-response"
# What the head of every invoke has: type, id, deadline_ms.
ALWAYS = 3
# A failure's message (characters) and trace (frames) are for people: beyond this they are cut.
MAX_MESSAGE = 256 * 1024
MAX_FRAMES = 2000

# Kept from the start, so that a handler that patches them breaks only itself.
_read, _write = os.read, os.write
_dumps, _loads = json.dumps, json.loads
_usage = resource.getrusage
_here = os.path.dirname(__file__)
_let_go = os.sched_setaffinity
_pack, _unpack = PREFIX.pack, PREFIX.unpack_from
_quote = json.encoder.encode_basestring_ascii


def prepare() -> None:
    """Do, once and in the zygote, what every worker would do: what it writes here, they share."""
    for stream in (sys.stdout, sys.stderr):
        # Half a character in a message must not cost the message.
        stream.reconfigure(errors="backslashreplace")
    logging.Formatter.converter = time.gmtime
    logging.getLogger().addHandler(_log_handler)
    os.environ.clear()
    # A function's code is compiled as it is imported, and the first `compile` of a process makes
    # the types of the syntax tree: 200 kB and a millisecond.
    compile("", "", "exec")


def stand_by() -> None:
    """Do what is the same for every function, before it is known which: ahead of `main`.

    It is a rehearsal: a fork copies a page when it is first written to, and a copy costs
    microseconds. Loading and running a handler once, ahead, takes them off the cold start.
    """
    here, path = os.getcwd(), list(sys.path)
    _settle(_here, "", {"TZ": ":UTC", "LANG": "en_US.UTF-8"})
    head = {"type": "invoke", "id": "", "deadline_ms": 0}
    run_handler(load_handler("rehearsal.handler"), head, b'{"stand": ["by", 1.5, null]}')
    # Nothing of it stays.
    del sys.modules["rehearsal"]
    sys.path[:] = path
    os.environ.clear()
    os.chdir(here)
    gc.enable()


def main() -> int:
    """Serve invocations until the supervisor closes the request pipe; return the exit status.

    Runs in the forked worker, inside its sandbox.
    """
    frame = read_frame()
    if frame is None:
        return 0
    head, environment = frame
    os.register_at_fork(after_in_child=_mark_child)
    _settle(head["task_root"], head["arn"], _decode(environment), head.get("layers", ""))
    try:
        handler = load_handler(head["handler"])
    except _Fault as fault:
        return _fail_init(describe_failure(fault.type, fault.message, fault.trace))
    except Exception as exc:  # noqa: BLE001 - the module's own code raised: that is its failure
        return _fail_init(_describe_exception(exc))
    if _is_child:
        os._exit(0)
    _flush()
    write_frame('{"type": "ready"}')

    _serve(handler, measures=head.get("measure_rss", False))
    return 0


def _mark_child() -> None:
    """Know that this is a process that the function forked: if it comes back, it leaves."""
    global _is_child  # noqa: PLW0603 - one process
    _is_child = True


_is_child = False


# A worker that was held to one core to be woken goes back to what it had.
_cores = os.sched_getaffinity(0)


def _serve(handler, *, measures: bool) -> None:  # noqa: ANN001 - whatever callable it is
    """Run one invocation after the other until the end of the pipe."""
    while True:
        frame = read_frame()
        if frame is None:
            return
        head, body = frame
        if head.pop("pinned", False):
            _let_go(0, _cores)
        kind, answer = run_handler(handler, head, body)
        if _is_child:
            os._exit(0)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - closed or replaced by the handler
            _flush()
        # By hand: an encoder for an object of two strings would cost more than the rest of it.
        text = f'{{"type": "{kind}", "id": {_quote(head["id"])}'
        if measures:
            text += f', "max_rss_kb": {_usage(resource.RUSAGE_SELF).ru_maxrss}'
        write_frame(text + "}", answer)


# The wire


def read_frame() -> tuple[dict, bytes] | None:
    """Return the head and the body of the next frame, or None at the end of the pipe."""
    data = _read(REQUEST_FD, PIECE)
    while len(data) < PREFIX.size:
        more = _read(REQUEST_FD, PIECE)
        if not more:
            return None
        data += more
    head_length, body_length = _unpack(data)
    body_start = PREFIX.size + head_length
    missing = body_start + body_length - len(data)
    if missing > 0:
        pieces = [data]
        while missing > 0:
            piece = _read(REQUEST_FD, min(missing, 1 << 20))
            if not piece:
                return None
            pieces.append(piece)
            missing -= len(piece)
        data = b"".join(pieces)
    if not head_length:
        return read_frame()  # a frame that says nothing: we were woken to see a signal
    # The head is our supervisor's: one JSON object, whole and without white space.
    return _scan(data[PREFIX.size : body_start].decode(), 0)[0], data[body_start:]


def write_frame(head: str, body: bytes = b"") -> None:
    """Write one frame; a frame that fits PIPE_BUF goes in one write and arrives whole."""
    encoded = head.encode()
    data = _pack(len(encoded), len(body)) + encoded + body
    written = _write(ANSWER_FD, data)
    while written < len(data):
        written += _write(ANSWER_FD, memoryview(data)[written:])


# JSON. `json.loads` and `JSONEncoder.encode` make their C scanner and encoder ready anew for
# each call, which costs more than the work on a small document: here they are made once.

_scan = json.JSONDecoder().scan_once


def _decode(data: bytes):  # noqa: ANN202 - any JSON
    """Return what `json.loads` returns, and raise what it raises."""
    try:
        text = data.decode()
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError):
        pass  # white space around it, another encoding, or no JSON: json.loads tells
    return _loads(data)


def _encoder(*, ascii_only: bool):  # noqa: ANN202 - a function from an object to text
    """Return what `json.JSONEncoder(...).encode` does, with its C encoder made once."""
    plain = json.JSONEncoder(ensure_ascii=ascii_only, default=_encode_decimal)
    make = json.encoder.c_make_encoder
    if make is None:
        return plain.encode
    escape = json.encoder.encode_basestring_ascii if ascii_only else json.encoder.encode_basestring
    markers: dict = {}
    encode = make(markers, plain.default, escape, None, ": ", ", ", False, False, True)  # noqa: FBT003

    def encode_once(value):  # noqa: ANN001, ANN202 - as JSONEncoder.encode
        try:
            return "".join(encode(value, 0))
        except BaseException:
            markers.clear()  # what it was in the middle of would look circular next time
            raise

    return encode_once


# Init phase


def _settle(task_root: str, arn: str, environment: dict[str, str], layers: str = "") -> None:
    """Take on the function's identity: environment, directory, import path, logging."""
    # Not `update`: it asks abstract classes, and each page that they write to is copied.
    for name, value in environment.items():
        os.environ[name] = value
    time.tzset()
    os.chdir(task_root)
    extra = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [task_root, *(_layers_path(layers) if layers else ()), *extra]
    sys.argv = [sys.executable]
    _reseed()
    _name_function(environment, arn)
    _set_up_logging(environment)


def _layers_path(layers: str) -> list[str]:
    """Return where layers have modules, as Lambda looks for them (developer guide, "Layers")."""
    python = os.path.join(layers, "python")
    version = "python%d.%d" % sys.version_info[:2]
    packages = os.path.join(python, "lib", version, "site-packages")
    return [path for path in (packages, python) if os.path.isdir(path)]


def _reseed() -> None:
    """Part from what fork shares: a random state that the zygote may have loaded."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            module.seed()


class _Fault(Exception):
    """The handler cannot be loaded, or its event or answer is not what it must be."""

    def __init__(self, type_: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.type, self.message, self.trace = type_, message, trace or []


def load_handler(name: str):  # noqa: ANN201 - whatever callable the function brings
    """Import the handler's module and return the handler; raises _Fault as AWS names it."""
    module_name, dot, function = name.rpartition(".")
    if not dot:
        message = f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
        raise _Fault("Runtime.MalformedHandlerName", message)
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = f"Cannot use built-in module {module_name} as a handler module"
        raise _Fault("Runtime.BuiltInModuleConflict", message)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as exc:
        message = f"Unable to import module '{module_name}': {exc}"
        raise _Fault("Runtime.ImportModuleError", message) from None
    except SyntaxError as exc:
        trace = [f'  File "{exc.filename}" Line {exc.lineno}\n    {exc.text}']
        message = f"Syntax error in module '{module_name}': {exc}"
        raise _Fault("Runtime.UserCodeSyntaxError", message, trace) from None
    try:
        return getattr(module, function)
    except AttributeError:
        message = f"Handler '{function}' missing on module '{module_name}'"
        raise _Fault("Runtime.HandlerNotFound", message) from None


def _fail_init(failure: dict) -> int:
    _log_failure(failure)
    _flush()
    write_frame('{"type": "failure"}', _dumps(failure).encode())
    return 1


# Invoke phase


def run_handler(handler, head: dict, body: bytes) -> tuple[str, bytes]:  # noqa: ANN001
    """Run one invocation; return ("response" or "failure", the body of the answer)."""
    global _request_id  # noqa: PLW0603 - one invocation at a time
    request_id = _request_id = head["id"]
    if "trace_id" in head or _traced:
        _set_trace_id(head.get("trace_id"))
    try:
        context = make_context(head)
        try:
            event = _decode(body)
        except Exception as exc:  # noqa: BLE001 - told as Lambda tells it
            raise _Fault("Runtime.UnmarshalError", f"Unable to unmarshal input: {exc}") from None
        result = handler(event, context)
        if "stream" in head and hasattr(result, "send"):
            answer = _stream(result, request_id)
        else:
            answer = result if isinstance(result, bytes) else _to_json(result)
    except _Fault as fault:
        failure = describe_failure(fault.type, fault.message, fault.trace, request_id)
    except Exception as exc:  # noqa: BLE001 - the handler raised: that is the answer
        failure = _describe_exception(exc, request_id)
    else:
        if len(answer) <= MAX_RESPONSE:
            return "response", answer
        # Lambda itself refuses this answer, not the client: no requestId, no trace.
        message = (
            f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
        )
        failure = {"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"}
        return "failure", _dumps(failure).encode()
    _log_failure(failure)
    return "failure", _dumps(failure).encode()


def _stream(pieces, request_id: str) -> bytes:  # noqa: ANN001 - a generator
    """Send what a generator yields as it comes; return what is left for the answer: nothing.

    Lambda streams for Node.js and its own runtime API; a Python handler that yields is ours. For a
    function URL the first piece may be a dict with statusCode, headers and cookies.
    """
    head = f'{{"type": "chunk", "id": {_quote(request_id)}}}'
    is_first = True
    for piece in pieces:
        if _is_child:
            os._exit(0)
        data = piece if isinstance(piece, bytes) else _piece(piece)
        if is_first and isinstance(piece, dict) and "statusCode" in piece:
            write_frame(f'{head[:-1]}, "content_type": "{PRELUDE}"}}', data + bytes(8))
            data = b""
        is_first = False
        for start in range(0, len(data), CHUNK):
            write_frame(head, data[start : start + CHUNK])
    return b""


def _piece(piece: object) -> bytes:
    return piece.encode() if isinstance(piece, str) else _to_json(piece)


def _set_trace_id(trace_id: str | None) -> None:
    global _traced  # noqa: PLW0603 - one process has one environment
    _traced = trace_id is not None
    if trace_id is None:
        os.environ.pop("_X_AMZN_TRACE_ID", None)
    else:
        os.environ["_X_AMZN_TRACE_ID"] = trace_id


_request_id = ""
_traced = False
_decimals_seen = False
# A decimal travels through the encoder as a string with a mark that no answer can guess.
_mark = ""


def _to_json(result: object) -> bytes:
    global _decimals_seen  # noqa: PLW0603 - set by _encode_decimal below this call
    _decimals_seen = False
    try:
        text = _encode(result)
        if _decimals_seen:
            text = re.sub(f'"{_mark}([^"]*)"', r"\1", text)
        # A lone surrogate, which only ensure_ascii=False lets through, has no UTF-8.
        return text.encode()
    except Exception as exc:  # noqa: BLE001 - told as Lambda tells it
        raise _Fault("Runtime.MarshalError", f"Unable to marshal response: {exc}") from None


def _encode_decimal(value: object) -> object:
    """Encode decimal.Decimal as the number it is, digit by digit; refuse anything else."""
    global _decimals_seen, _mark  # noqa: PLW0603 - see _to_json
    decimal = sys.modules.get("decimal")
    if decimal is None or not isinstance(value, decimal.Decimal):
        message = f"Object of type {type(value).__name__} is not JSON serializable"
        raise TypeError(message)
    if value.is_nan():
        return float("nan")
    _mark = _mark or os.urandom(8).hex()
    _decimals_seen = True
    return f"{_mark}{value}"


def describe_failure(
    type_: str, message: str, trace: list[str], request_id: str = ""
) -> dict[str, object]:
    """Return a failure in the shape that AWS's client for Python sends."""
    if len(message) > MAX_MESSAGE:
        message = f"{message[:MAX_MESSAGE]}... ({len(message)} characters)"
    return {
        "errorMessage": message,
        "errorType": type_,
        "requestId": request_id,
        "stackTrace": trace,
    }


def _describe_exception(exc: BaseException, request_id: str = "") -> dict[str, object]:
    try:
        message = str(exc)
    except Exception as second:  # noqa: BLE001 - a __str__ that raises is still only a failure
        message = f"<str() of this {type(exc).__name__} raised {type(second).__name__}>"
    frames = traceback.extract_tb(exc.__traceback__)
    while frames and frames[0].filename == __file__:
        del frames[0]
    cut = len(frames) - MAX_FRAMES
    if cut > 0:
        del frames[MAX_FRAMES // 2 : MAX_FRAMES // 2 + cut]
    # As tuples: AWS's client formats them so, without the markers of Python 3.11 and newer.
    trace = traceback.format_list([(f.filename, f.lineno, f.name, f.line) for f in frames])
    if cut > 0:
        trace.insert(MAX_FRAMES // 2, f"  ... {cut} more frames\n")
    return describe_failure(type(exc).__name__, message, trace, request_id)


# Context


class CognitoIdentity:
    """`context.identity`."""

    cognito_identity_id = cognito_identity_pool_id = None

    def __init__(self, values: dict | None = None) -> None:
        if values is not None:
            self.cognito_identity_id = values.get("cognitoIdentityId")
            self.cognito_identity_pool_id = values.get("cognitoIdentityPoolId")


class Client:
    """`context.client_context.client`: what a mobile SDK says of itself."""

    def __init__(self, values: dict) -> None:
        for name in (
            "installation_id",
            "app_title",
            "app_version_name",
            "app_version_code",
            "app_package_name",
        ):
            setattr(self, name, values.get(name))


class ClientContext:
    """`context.client_context`."""

    def __init__(self, values: dict) -> None:
        self.custom = values.get("custom")
        self.env = values.get("env")
        client = values.get("client")
        self.client = None if client is None else Client(client)


class LambdaContext:
    """`context`: what is the same for every invocation is set on the class, in the init phase.

    Source: AWS Lambda developer guide, "Lambda context object in Python".
    """

    function_name = function_version = memory_limit_in_mb = invoked_function_arn = None
    log_group_name = log_stream_name = client_context = tenant_id = None

    def __init__(self, head: dict) -> None:
        self.aws_request_id = head["id"]
        self._deadline_ms = head["deadline_ms"]
        if len(head) > ALWAYS:
            if "arn" in head:
                self.invoked_function_arn = head["arn"]
            if "client_context" in head:
                text = head["client_context"]
                self.client_context = _parse("Client Context", text, ClientContext)
            if "identity" in head:
                self.identity = _parse("Cognito Identity", head["identity"], CognitoIdentity)

    def __getattr__(self, name: str) -> object:
        """Make the identity when it is first asked for: few have one, and fewer look."""
        if name == "identity":
            self.identity = CognitoIdentity()
            return self.identity
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(message)

    def get_remaining_time_in_millis(self) -> int:
        """Return how many milliseconds are left before the timeout, never below 0."""
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def log(self, message: object) -> None:
        """Print without a line's end, as AWS's does."""
        sys.stdout.write(str(message))
        sys.stdout.flush()

    def __repr__(self) -> str:
        names = (
            "aws_request_id",
            "log_group_name",
            "log_stream_name",
            "function_name",
            "memory_limit_in_mb",
            "function_version",
            "invoked_function_arn",
            "client_context",
            "identity",
            "tenant_id",
        )
        inside = ",".join(f"{name}={getattr(self, name)}" for name in names)
        return f"LambdaContext([{inside}])"


def make_context(head: dict) -> LambdaContext:
    """Return the context object of one invocation."""
    return LambdaContext(head)


def _name_function(environment: dict[str, str], arn: str) -> None:
    for name, value in {
        "invoked_function_arn": arn,
        "function_name": environment.get("AWS_LAMBDA_FUNCTION_NAME"),
        "function_version": environment.get("AWS_LAMBDA_FUNCTION_VERSION"),
        "memory_limit_in_mb": environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE"),
        "log_group_name": environment.get("AWS_LAMBDA_LOG_GROUP_NAME"),
        "log_stream_name": environment.get("AWS_LAMBDA_LOG_STREAM_NAME"),
    }.items():
        setattr(LambdaContext, name, value)


def _parse(what: str, text: str, type_):  # noqa: ANN001, ANN202 - one of the classes above
    try:
        return type_(_loads(text))
    except Exception as exc:  # noqa: BLE001 - told as Lambda tells it
        message = f"Unable to parse {what} JSON: {exc}"
        raise _Fault("Runtime.LambdaContextUnmarshalError", message) from None


# Logging


class _Handler(logging.Handler):
    """Writes records to wherever stdout is now, with the request id of the invocation."""

    def emit(self, record: logging.LogRecord) -> None:
        record.aws_request_id = _request_id
        text = self.format(record)
        # A trace comes after the format's own line end: it needs one too.
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
# AWS sends non-ASCII characters as they are from Python 3.12 on.
_encode = _encoder(ascii_only=sys.version_info < (3, 12))
_log_handler = _Handler()
_log_handler.setFormatter(
    logging.Formatter(
        "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n",
        "%Y-%m-%dT%H:%M:%S",
    )
)


def _set_up_logging(environment: dict[str, str]) -> None:
    """Follow the function's choice of log format and level."""
    global _json_log  # noqa: PLW0603 - one process is one function
    _json_log = environment.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON"
    if _json_log:
        _log_handler.setFormatter(_JsonFormatter())
    level = environment.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
    level = "DEBUG" if level == "TRACE" else level
    if level in ("DEBUG", "INFO", "WARN", "WARNING", "ERROR", "CRITICAL", "FATAL"):
        logging.getLogger().setLevel(level)


def _log_failure(failure: dict) -> None:
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
    except Exception:  # noqa: BLE001 - a handler may have closed stdout: it loses its log, no more
        return


def _flush() -> None:
    """Hand over what was printed before the answer is: a log is complete when its answer is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112 - closed or replaced by the handler
            continue
