"""Settings: what the operator may choose. A function's own limits are in its configuration.

`load` takes each value from the last of these that has it: the default, a TOML file, a MINILAMBDA_*
variable. `Supervisor(settings=...)` replaces file and variables altogether: a field that this
`Settings` does not name has its default. A value that is not allowed is refused, with its name and
what is allowed.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import msgspec

from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msgspec.structs import FieldInfo

PREFIX = "MINILAMBDA_"
# Variables with the prefix that are no settings: the command line's, the mark of a worker's
# processes, CI's. Kubernetes sets the others in each pod beside a service called minilambda.
_OTHERS = re.compile(r"ENDPOINT_URL|WORKER|CI_.*|PORT(_.*)?|SERVICE_(HOST|PORT)(_.*)?")

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class AuthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which clients may call over HTTP: the file of their access keys (see `gateway.http.keys`)."""

    keys: str


class S3Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The S3 endpoint that S3Bucket and S3Key of a request are fetched from."""

    endpoint: str
    access_key_id: str = ""
    secret_access_key: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Choices for one supervisor.

    Units: seconds, MB (1,048,576 bytes), bytes where the name says so.
    """

    region: str = "us-east-1"
    account: str = "000000000000"
    # The highest level of sandbox to use; "auto" is the highest of this host: see `sandbox.levels`.
    sandbox: Literal["auto", "bare", "landlock", "userns", "cgroup", "root"] = "auto"
    # Mechanisms to leave out, separated by commas: see MECHANISMS in `sandbox.levels`.
    without: str = ""
    # Limits that the host must enforce, else the supervisor refuses to start, as in
    # "memory:hard,files:hard".
    require: str = ""
    # Which cgroup hierarchy holds the limits. "auto" takes the first that works.
    cgroup: Literal["auto", "v2", "mixed", "v1", "none"] = "auto"
    # Invocations that may run at once, all functions together; None derives it from RAM.
    concurrency: Positive | None = None
    # Invocations that may wait for a worker with `invoke(..., wait=seconds)`.
    queue_size: Count = 1000
    # Lambda gives an init phase 10 s (developer guide, "Lambda runtime environment").
    init_timeout: Seconds = 10.0
    # An idle worker is frozen after this grace, so that back-to-back calls pay no thaw.
    freeze_after: Seconds = 0.05
    # SIGTERM first, SIGKILL after this (Lambda: at most 2 s, "Shutdown phase").
    shutdown_grace: Seconds = 2.0
    # An asynchronous event whose function failed runs again after this, and then after twice this
    # (Lambda: 1 minute and 2, "Error handling for an asynchronous invocation").
    event_retry: Seconds = 60.0
    # Bytes of one invocation's log that are kept; of more, the middle is left out.
    log_bytes: Annotated[int, msgspec.Meta(ge=4096)] = 1024 * 1024
    # Which price book the billed duration and the ledger follow: see `billing`.
    price_book: Literal["2018", "2020", "2025"] = "2025"
    # Keep what functions print, to be read after the response; `minilambda serve` sets it.
    keep_logs: bool = False
    # Over HTTP: the clients that may call (None: all that can reach loopback), and the S3 endpoint.
    auth: AuthSettings | None = None
    s3: S3Settings | None = None
    # Below this share of free RAM idle workers are ended before their keep-alive.
    memory_reserve: Fraction = 0.1

    def __post_init__(self) -> None:
        """Refuse a value that is not allowed; msgspec checks no types of a call in Python."""
        for field in msgspec.structs.fields(Settings):
            _convert(field, getattr(self, field.name), "Settings", strict=True)


def load(file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a TOML file and of MINILAMBDA_* variables, which win.

    Raises `InvalidParameterValue` that names the file or the variable, the key and what is allowed.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            values = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            msg = f"The settings file {file} cannot be read: {exc}"
            raise InvalidParameterValue(msg) from exc
    sources = dict.fromkeys(values, str(file))
    environ = os.environ if environ is None else environ
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if name != variable and not _OTHERS.fullmatch(name):
            if name.lower() not in Settings.__struct_fields__ or name != name.upper():
                nearest = _nearest(name.lower(), Settings.__struct_fields__)[0]
                msg = f"{variable}: there is no such setting; the nearest is {PREFIX}"
                raise InvalidParameterValue(msg + nearest.upper())
            values[name.lower()] = text
            sources[name.lower()] = variable
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    converted: dict[str, Any] = {}
    for name, value in values.items():
        _check_key(name, list(fields), sources[name])
        # A string may be a number: an environment has strings only.
        converted[name] = _convert(fields[name], value, sources[name], strict=False)
    return Settings(**converted)


def _convert(field: FieldInfo, value: object, source: str, *, strict: bool) -> object:
    """Return a value as the type of its field; raises `InvalidParameterValue`."""
    kind = _table(field.type)
    if kind is not None and isinstance(value, dict):
        for key in value:
            _check_key(key, list(kind.__struct_fields__), f"{source}: {field.name}")
    try:
        converted = msgspec.convert(value, field.type, strict=strict)
    except msgspec.ValidationError as exc:
        if kind is not None:  # without the value, which may hold a secret
            msg = f"{source}: {field.name} must be a table: {exc}"
        else:
            allowed = _allowed(field.type, value)
            msg = f"{source}: {field.name} must be {allowed}, got {value!r}"
        raise InvalidParameterValue(msg) from exc
    if isinstance(converted, float) and not math.isfinite(converted):
        msg = f"{source}: {field.name} must be a finite number, got {value!r}"
        raise InvalidParameterValue(msg)
    return converted


def _check_key(key: str, keys: Sequence[str], source: str) -> None:
    """Refuse a key that the settings do not have."""
    if key not in keys:
        msg = f"{source}: there is no setting {key!r}, only {', '.join(_nearest(key, keys))}"
        raise InvalidParameterValue(msg)


def _nearest(key: str, keys: Sequence[str]) -> list[str]:
    """Return the keys, the most similar one first."""
    import difflib  # noqa: PLC0415 - only for a mistake

    return sorted(keys, key=lambda each: -difflib.SequenceMatcher(a=key, b=each).ratio())


def _table(kind: object) -> type[msgspec.Struct] | None:
    """Return the struct of a field that is a table in the file."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _allowed(kind: object, value: object) -> str:
    """Return the values that a field may have, as part of a message."""
    if get_origin(kind) is Literal:
        text = "" if isinstance(value, str) else "text, "
        return f"{text}one of {', '.join(get_args(kind))}"
    allowed = msgspec.inspect.type_info(kind)
    if isinstance(allowed, msgspec.inspect.UnionType):
        allowed = next(
            each for each in allowed.types if not isinstance(each, msgspec.inspect.NoneType)
        )
    match allowed:
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType(ge=low):
            return f"a whole number from {low}"
        case msgspec.inspect.FloatType(ge=low, le=high):
            return f"a number from {low}" + ("" if high is None else f" to {high}")
    return "text"
