"""Tests of settings: the later wins, and what cannot be is refused by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec
import pytest

from miniλ import settings
from miniλ.errors import InvalidParameterValue
from miniλ.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the path of a settings file that is not there yet."""
    return tmp_path / "minilambda.toml"


def test_nothing_chosen_is_the_defaults() -> None:
    """Without file and variables the settings are those of `Settings()`."""
    assert Settings() == settings.load(environ={})


def test_a_file_wins_over_the_defaults(file: Path) -> None:
    """Each key of the TOML file is a field."""
    file.write_text('region = "eu-central-1"\nconcurrency = 12\nfreeze_after = 1\n')

    loaded = settings.load(file, {})

    assert Settings(region="eu-central-1", concurrency=12, freeze_after=1.0) == loaded


def test_a_variable_wins_over_the_file(file: Path) -> None:
    """MINILAMBDA_REGION is later than `region` in the file; the rest of the file stays."""
    file.write_text('region = "eu-central-1"\nqueue_size = 5\n')

    loaded = settings.load(file, {"MINILAMBDA_REGION": "eu-north-1"})

    assert Settings(region="eu-north-1", queue_size=5) == loaded


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a mapping the variables are those of this process."""
    monkeypatch.setenv("MINILAMBDA_ACCOUNT", "123456789012")

    assert settings.load().account == "123456789012"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("concurrency", "4", 4),
        ("queue_size", "0", 0),
        ("init_timeout", "2.5", 2.5),
        ("freeze_after", "1", 1.0),
        ("shutdown_grace", "0", 0.0),
        ("log_bytes", "4096", 4096),
        ("memory_reserve", "0.25", 0.25),
        ("price_book", "2018", "2018"),
        ("cgroup", "none", "none"),
        ("account", "000000000042", "000000000042"),
    ],
)
def test_variables_are_text_and_fields_are_not(name: str, text: str, value: object) -> None:
    """An environment holds nothing but strings; numbers in them are numbers."""
    loaded = settings.load(environ={f"MINILAMBDA_{name.upper()}": text})

    assert value == getattr(loaded, name)
    assert type(value) is type(getattr(loaded, name))


def test_other_variables_are_nobodys_business() -> None:
    """Variables without the prefix, the command line's and those of Kubernetes change nothing."""
    names = ["ENDPOINT_URL", "WORKER", "CI_BUDGET", "PORT", "PORT_9001_TCP_ADDR"]
    names += ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP"]
    environ = {"REGION": "x", "minilambda_region": "x"}
    environ |= {f"MINILAMBDA_{name}": "x" for name in names}

    assert Settings() == settings.load(environ=environ)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("concurrency", "four"),
        ("concurrency", ""),
        ("concurrency", "1.5"),
        ("init_timeout", "soon"),
        ("cgroup", "v3"),
        ("price_book", "1999"),
    ],
)
def test_a_variable_of_the_wrong_kind_is_refused_by_name(name: str, text: str) -> None:
    """The message names the field."""
    with pytest.raises(InvalidParameterValue, match=name):
        settings.load(environ={f"MINILAMBDA_{name.upper()}": text})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("concurrency", "-5"),
        ("concurrency", "0"),
        ("queue_size", "-1"),
        ("init_timeout", "-1"),
        ("init_timeout", "nan"),
        ("freeze_after", "nan"),
        ("shutdown_grace", "-0.1"),
        ("log_bytes", "-1"),
        ("log_bytes", "0"),
        ("log_bytes", "1"),
        ("log_bytes", "4095"),
        ("memory_reserve", "7"),
        ("memory_reserve", "-0.1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(name: str, text: str) -> None:
    """No concurrency below 1, no negative time, no share of RAM above all of it."""
    with pytest.raises(InvalidParameterValue, match=name):
        settings.load(environ={f"MINILAMBDA_{name.upper()}": text})


def test_an_argument_that_cannot_be_is_refused_by_name() -> None:
    """Python is no way round: a hierarchy that does not exist is refused there too."""
    expected = "^Settings: cgroup must be one of auto, v2, mixed, v1, none, got 'v9'$"
    with pytest.raises(InvalidParameterValue, match=expected):
        Settings(cgroup="v9")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("regoin = 'x'", "regoin"),
        ("region = 7", "region"),
        ("concurrency = true", "concurrency"),
        ("account = 123", "account"),
    ],
)
def test_a_file_is_refused_by_the_name_of_the_key(file: Path, text: str, named: str) -> None:
    """A key that no field has, or a value of another kind, is in the message."""
    file.write_text(text)

    with pytest.raises(InvalidParameterValue, match=named):
        settings.load(file, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurrency = 'x'", "concurrency must be a whole number from 1, got 'x'"),
        ("concurrency = 0", "concurrency must be a whole number from 1, got 0"),
        ("memory_reserve = 7", "memory_reserve must be a number from 0 to 1, got 7"),
        ("keep_logs = 'x'", "keep_logs must be true or false, got 'x'"),
        ("init_timeout = inf", "init_timeout must be a finite number, got inf"),
        ("price_book = 2018", "price_book must be text, one of 2018, 2020, 2025, got 2018"),
        ("region = 7", "region must be text, got 7"),
        ("s3 = 'secret'", "s3 must be a table: Expected `object | null`, got `str`"),
        ("[s3]\nsecret = 'x'", "s3: there is no setting 'secret', only secret_access_key, "),
        ("regoin = 'x'", "there is no setting 'regoin', only region, "),
    ],
)
def test_a_key_of_a_file_is_refused_with_what_is_allowed(
    file: Path, text: str, message: str
) -> None:
    """The message has the file, the key, what is allowed and the value; no secret."""
    file.write_text(text)

    with pytest.raises(InvalidParameterValue, match=re.escape(f"{file}: {message}")):
        settings.load(file, {})


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("CONCURRENCY", "four", "concurrency must be a whole number from 1, got 'four'"),
        ("CGROUP", "v3", "cgroup must be one of auto, v2, mixed, v1, none, got 'v3'"),
        ("CONCURENCY", "4", "there is no such setting; the nearest is MINILAMBDA_CONCURRENCY"),
        ("region", "x", "there is no such setting; the nearest is MINILAMBDA_REGION"),
    ],
)
def test_a_variable_is_refused_with_what_is_allowed(variable: str, text: str, message: str) -> None:
    """The message has the variable, the key, what is allowed and the value."""
    expected = f"MINILAMBDA_{variable}: {message}"
    with pytest.raises(InvalidParameterValue, match=f"^{re.escape(expected)}$"):
        settings.load(environ={f"MINILAMBDA_{variable}": text})


@pytest.mark.parametrize("content", [b"= 1", b"a = [", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused_by_its_path(file: Path, content: bytes) -> None:
    """The message names the file."""
    file.write_bytes(content)

    with pytest.raises(InvalidParameterValue, match=file.name):
        settings.load(file, {})


def test_a_file_that_is_not_there_is_refused_by_its_path(file: Path) -> None:
    """A settings file that is named and missing is an error, not the defaults."""
    with pytest.raises(InvalidParameterValue, match=file.name):
        settings.load(str(file), {})


def test_settings_do_not_change() -> None:
    """A supervisor's settings are the same from its start to its end."""
    with pytest.raises(AttributeError, match="immutable"):
        Settings().region = "x"  # type: ignore[misc]


def test_every_default_is_one_that_would_be_accepted() -> None:
    """The defaults pass their own check."""
    assert Settings() == msgspec.convert(msgspec.to_builtins(Settings()), Settings)
