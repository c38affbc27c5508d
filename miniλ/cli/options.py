"""The options that several commands share: the sandbox's, and the server to ask."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from miniλ.cli import client
from miniλ.cli.exit_codes import fail
from miniλ.errors import LambdaError
from miniλ.sandbox import levels
from miniλ.settings import load as load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

endpoint_option = click.option(
    "--endpoint-url",
    envvar=["MINILAMBDA_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA", "AWS_ENDPOINT_URL"],
    default=client.DEFAULT_URL,
    show_default=True,
    help="URL of the server; else MINILAMBDA_ENDPOINT_URL, AWS_ENDPOINT_URL_LAMBDA or "
    "AWS_ENDPOINT_URL.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
state_option = click.option(
    "--state", type=click.Path(path_type=Path), required=True, help="The state directory."
)


def sandbox_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --sandbox, --config, --without and --require; it gets them as `settings`."""

    @click.option(
        "--sandbox",
        type=click.Choice(["auto", *levels.LEVELS]),
        help="The highest sandbox level to use.",
    )
    @click.option("--config", type=click.Path(path_type=Path), help="A TOML file of settings.")
    @click.option(
        "--without",
        help=f"Mechanisms to leave out, separated by commas: {', '.join(levels.MECHANISMS)}.",
    )
    @click.option(
        "--require",
        help="Refuse to start unless the host enforces this, as in memory:hard,files:hard.",
    )
    @functools.wraps(command)
    def with_settings(
        config: Path | None,
        sandbox: str | None,
        without: str | None,
        require: str | None,
        **others: Any,  # noqa: ANN401 - the command's own
    ) -> None:
        overrides = {"sandbox": sandbox, "without": without, "require": require}
        try:
            settings = msgspec.structs.replace(
                load_settings(config),
                **{name: value for name, value in overrides.items() if value is not None},
            )
        except LambdaError as exc:
            fail(exc)
        command(settings=settings, **others)

    return with_settings
