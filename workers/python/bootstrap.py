"""The Python worker: it loads one handler and runs invocations, one at a time.

Rule 1: standard library only, from Python 3.9 on, and without asyncio: a function imports its own
packages, and none of miniλ's. This file is imported once, in the zygote, so every worker shares the
memory of what it imports.

Rule 2: seven functions, under the same names in the worker of every language: `main`,
`read_frame`, `write_frame`, `load_handler`, `make_context`, `run_handler`, `describe_failure`.
The wire is in ../PROTOCOL.md.

Rule 3: what a client sees (error shapes, log lines, JSON) is what AWS's own client for Python
sends: github.com/aws/aws-lambda-python-runtime-interface-client.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
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
# The most that one frame of a streamed answer carries.
CHUNK = 256 * 1024
# The Content-Type of an answer that begins with status and headers, as Node.js clients send it.
STREAM_HEAD = "application/vnd.awslambda.http-integration-response"
# The number of fields in the head of every invoke: type, id, deadline_ms.
ALWAYS = 3
# A failure's message (characters) and trace (frames) are cut beyond this: people read them.
MAX_MESSAGE = 256 * 1024
MAX_FRAMES = 2000

# Bound at the start, so that a handler that patches the modules does not break its worker.
_read, _write = os.read, os.write
_dumps, _loads = json.dumps, json.loads
_usage = resource.getrusage
_here = os.path.dirname(__file__)
_set_affinity = os.sched_setaffinity
_pack, _unpack = PREFIX.pack, PREFIX.unpack_from
_quote = json.encoder.encode_basestring_ascii


def _load(name: str):  # noqa: ANN202 - a module that only exists at run time
    """Import a file beside this one, under a name that no function imports."""
    path = os.path.join(_here, f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"minilambda_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_logs = _load("logs")


def prepare() -> None:
    """Do once, in the zygote, what every worker would do: they share the memory of its results."""
    for stream in (sys.stdout, sys.stderr):
        # A lone surrogate in a message must not cost the message.
        stream.reconfigure(errors="backslashreplace")
    logging.Formatter.converter = time.gmtime
    logging.getLogger().addHandler(_logs.handler)
    os.environ.clear()
    # Code without a .pyc is compiled at its import, and the first `compile` of a process makes the
    # types of the syntax tree: 200 kB and a millisecond.
    compile("", "", "exec")


def stand_by() -> None:
    """Run a handler once, before `main` and before it is known which function this worker is of.

    After a fork the kernel copies each page that is written to, which costs microseconds. This
    rehearsal writes to the pages ahead of the cold start.
    """
    here, path = os.getcwd(), list(sys.path)
    _settle(_here, "", {"TZ": ":UTC", "LANG": "en_US.UTF-8"})
    head = {"type": "invoke", "id": "", "deadline_ms": 0}
    run_handler(load_handler("rehearsal.handler"), head, b'{"stand": ["by", 1.5, null]}')
    # The function must find no trace of the rehearsal.
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
    except _Failure as exc:
        return _fail_init(describe_failure(exc.type, exc.message, exc.trace))
    except Exception as exc:  # noqa: BLE001 - the module's own code raised: that is its failure
        return _fail_init(_describe_exception(exc))
    if _is_child:
        os._exit(0)
    _flush()
    write_frame('{"type": "ready"}')

    _serve(handler, measures=head.get("measure_rss", False))
    return 0


def _mark_child() -> None:
    """Remember that this is a child that the handler forked: it exits when the handler returns."""
    global _is_child  # noqa: PLW0603 - one process
    _is_child = True


_is_child = False


# The affinity at the start, for a worker that was pinned to be woken.
_cores = os.sched_getaffinity(0)


def _serve(handler, *, measures: bool) -> None:  # noqa: ANN001 - any callable
    """Run one invocation after the other until the end of the pipe."""
    while True:
        frame = read_frame()
        if frame is None:
            return
        head, payload = frame
        if head.pop("pinned", False):
            _set_affinity(0, _cores)
        kind, answer = run_handler(handler, head, payload)
        if _is_child:
            os._exit(0)
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except Exception:  # noqa: BLE001 - closed or replaced by the handler
            _flush()
        # By hand: a JSON encoder costs more than the rest of this function.
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
        return read_frame()  # an empty frame only ends read(2), for a signal to be handled
    # The head is the supervisor's: one JSON object, whole and without white space around it.
    return _scan(data[PREFIX.size : body_start].decode(), 0)[0], data[body_start:]


def write_frame(head: str, body: bytes = b"") -> None:
    """Write one frame; a frame that fits PIPE_BUF goes in one write and arrives whole."""
    encoded = head.encode()
    data = _pack(len(encoded), len(body)) + encoded + body
    written = _write(ANSWER_FD, data)
    while written < len(data):
        written += _write(ANSWER_FD, memoryview(data)[written:])


# JSON. `json.loads` and `JSONEncoder.encode` set up their C scanner and encoder for each call: that
# costs more than the work on a small document. Here they are set up once.

_scan = json.JSONDecoder().scan_once


def _decode(data: bytes):  # noqa: ANN202 - any JSON
    """Return what `json.loads` returns, and raise what it raises."""
    try:
        text = data.decode()
        value, end = _scan(text, 0)
        if end == len(text):
            return value
    except (StopIteration, ValueError):
        pass  # white space around it, another encoding, or no JSON: json.loads decides
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
            markers.clear()  # else objects that it was encoding look circular next time
            raise

    return encode_once


# Init phase


def _settle(task_root: str, arn: str, environment: dict[str, str], layers: str = "") -> None:
    """Become the function's: environment, directory, import path, logging."""
    # Not `update`: its isinstance checks write to abstract classes' caches, and pages are copied.
    for name, value in environment.items():
        os.environ[name] = value
    time.tzset()
    os.chdir(task_root)
    extra = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [task_root, *(_layers_path(layers) if layers else ()), *extra]
    sys.argv = [sys.executable]
    _reseed()
    _name_function(environment, arn)
    _logs.set_up(environment)


def _layers_path(layers: str) -> list[str]:
    """Return where layers have modules, as Lambda looks for them (developer guide, "Layers")."""
    python = os.path.join(layers, "python")
    version = "python%d.%d" % sys.version_info[:2]
    packages = os.path.join(python, "lib", version, "site-packages")
    return [path for path in (packages, python) if os.path.isdir(path)]


def _reseed() -> None:
    """Seed anew what a fork copies: the random state of modules that the zygote has loaded."""
    for name in ("random", "numpy.random"):
        module = sys.modules.get(name)
        if module is not None:
            module.seed()


class _Failure(Exception):
    """The handler cannot be loaded, or its event or answer cannot be converted."""

    def __init__(self, type_: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.type, self.message, self.trace = type_, message, trace or []


def load_handler(name: str):  # noqa: ANN201 - any callable
    """Import the handler's module and return the handler; raises _Failure as AWS names it."""
    module_name, dot, function = name.rpartition(".")
    if not dot:
        message = f"Bad handler '{name}': not enough values to unpack (expected 2, got 1)"
        raise _Failure("Runtime.MalformedHandlerName", message)
    if module_name.split(".")[0] in sys.builtin_module_names:
        message = f"Cannot use built-in module {module_name} as a handler module"
        raise _Failure("Runtime.BuiltInModuleConflict", message)
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as exc:
        message = f"Unable to import module '{module_name}': {exc}"
        raise _Failure("Runtime.ImportModuleError", message) from None
    except SyntaxError as exc:
        trace = [f'  File "{exc.filename}" Line {exc.lineno}\n    {exc.text}']
        message = f"Syntax error in module '{module_name}': {exc}"
        raise _Failure("Runtime.UserCodeSyntaxError", message, trace) from None
    try:
        return getattr(module, function)
    except AttributeError:
        message = f"Handler '{function}' missing on module '{module_name}'"
        raise _Failure("Runtime.HandlerNotFound", message) from None


def _fail_init(failure: dict) -> int:
    _logs.log_failure(failure)
    _flush()
    write_frame('{"type": "failure"}', _dumps(failure).encode())
    return 1


# Invoke phase


def run_handler(handler, head: dict, payload: bytes) -> tuple[str, bytes]:  # noqa: ANN001
    """Run one invocation; return ("response" or "failure", the payload of the answer)."""
    request_id = _logs.request_id = head["id"]
    if "trace_id" in head or _traced:
        _set_trace_id(head.get("trace_id"))
    try:
        context = make_context(head)
        try:
            event = _decode(payload)
        except Exception as exc:  # noqa: BLE001 - whichever it is, Lambda names it so
            raise _Failure("Runtime.UnmarshalError", f"Unable to unmarshal input: {exc}") from None
        result = handler(event, context)
        if "stream" in head and hasattr(result, "send"):
            answer = _stream(result, request_id)
        else:
            answer = result if isinstance(result, bytes) else _to_json(result)
    except _Failure as exc:
        failure = describe_failure(exc.type, exc.message, exc.trace, request_id)
    except Exception as exc:  # noqa: BLE001 - the handler raised: that is the answer
        failure = _describe_exception(exc, request_id)
    else:
        if len(answer) <= MAX_RESPONSE:
            return "response", answer
        # Lambda itself refuses this answer, not its client: no requestId, no trace.
        message = (
            f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
        )
        failure = {"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"}
        return "failure", _dumps(failure).encode()
    _logs.log_failure(failure)
    return "failure", _dumps(failure).encode()


def _stream(pieces, request_id: str) -> bytes:  # noqa: ANN001 - a generator
    """Send what a generator yields as it comes; return the rest of the answer, which is empty.

    Lambda streams from Node.js and custom runtimes only: a Python handler that yields is an
    extension of miniλ. For a function URL the first piece may be a dict with statusCode, headers
    and cookies.
    """
    head = f'{{"type": "chunk", "id": {_quote(request_id)}}}'
    is_first = True
    for piece in pieces:
        if _is_child:
            os._exit(0)
        data = piece if isinstance(piece, bytes) else _piece(piece)
        if is_first and isinstance(piece, dict) and "statusCode" in piece:
            write_frame(f'{head[:-1]}, "content_type": "{STREAM_HEAD}"}}', data + bytes(8))
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


_traced = False
_decimals_seen = False
# A decimal passes the encoder as a string that begins with a random mark, which is removed after.
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
    except Exception as exc:  # noqa: BLE001 - whichever it is, Lambda names it so
        raise _Failure("Runtime.MarshalError", f"Unable to marshal response: {exc}") from None


def _encode_decimal(value: object) -> object:
    """Encode a decimal.Decimal as a number with all its digits; raise TypeError for all else."""
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
    # As tuples, as AWS's client does: without the ^^^^ markers of Python 3.11 and newer.
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
    """`context.client_context.client`: the app that a mobile SDK is in."""

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
    """`context`. Attributes that are the same for every invocation are set on the class, by init.

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
        """Make the identity when it is first read: few invocations have one or read it."""
        if name == "identity":
            self.identity = CognitoIdentity()
            return self.identity
        message = f"{type(self).__name__!r} object has no attribute {name!r}"
        raise AttributeError(message)

    def get_remaining_time_in_millis(self) -> int:
        """Return how many milliseconds are left before the timeout, never below 0."""
        return max(0, self._deadline_ms - int(time.time() * 1000))

    def log(self, message: object) -> None:
        """Print without a newline, as AWS's does."""
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
    except Exception as exc:  # noqa: BLE001 - whichever it is, Lambda names it so
        message = f"Unable to parse {what} JSON: {exc}"
        raise _Failure("Runtime.LambdaContextUnmarshalError", message) from None


# AWS sends non-ASCII characters as they are from Python 3.12 on.
_encode = _encoder(ascii_only=sys.version_info < (3, 12))


def _flush() -> None:
    """Write out what was printed, before the answer: a log is complete when its answer is."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001, S112 - closed or replaced by the handler
            continue
