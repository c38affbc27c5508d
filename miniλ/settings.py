"""Settings: what the operator may choose. A function's own limits are in its configuration.

`load` takes each value from the last of these that has it: the default, a TOML file, a MINILAMBDA_*
variable. `Supervisor(settings=...)` replaces file and variables altogether: a field that this
`Settings` does not name has its default. A value that is not allowed is refused, with its name and
what is allowed.
"""

from __future__ import annotations

import math
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from miniλ.errors import InvalidParameterValue

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "MINILAMBDA_"

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
            value = getattr(self, field.name)
            try:
                msgspec.convert(value, field.type)
            except msgspec.ValidationError as exc:
                msg = f"Settings: {field.name}: {exc}, got {value!r}"
                raise InvalidParameterValue(msg) from exc
            if isinstance(value, float) and not math.isfinite(value):
                msg = f"Settings: {field.name}: Expected a finite number, got {value!r}"
                raise InvalidParameterValue(msg)


def load(file: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of a TOML file and of MINILAMBDA_* variables, which win.

    Raises `InvalidParameterValue` that names the key and what is allowed.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            values = tomllib.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            msg = f"The settings file {file} cannot be read: {exc}"
            raise InvalidParameterValue(msg) from exc
    environ = os.environ if environ is None else environ
    for field in msgspec.structs.fields(Settings):
        value = environ.get(PREFIX + field.name.upper())
        if value is not None:
            values[field.name] = value
    try:
        # strict=False lets "4" be a number: an environment has strings only.
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        msg = f"Settings: {exc}"
        raise InvalidParameterValue(msg) from exc
