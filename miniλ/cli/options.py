"""Options that several commands share."""

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
    help="The server to ask; also MINILAMBDA_ENDPOINT_URL, AWS_ENDPOINT_URL.",
)


def sandbox_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what may be said of the sandbox to a command; it arrives as `settings`."""

    @click.option("--sandbox", type=click.Choice(["auto", *levels.LEVELS]), help="At most this.")
    @click.option("--config", type=click.Path(path_type=Path), help="Settings, a TOML file.")
    @click.option("--without", help=f"Leave out, parted by commas: {', '.join(levels.MECHANISMS)}.")
    @click.option("--require", help="Refuse to start unless, as in memory:hard,files:hard.")
    @functools.wraps(command)
    def with_settings(
        config: Path | None,
        sandbox: str | None,
        without: str | None,
        require: str | None,
        **others: Any,  # noqa: ANN401 - the command's own
    ) -> None:
        said = {"sandbox": sandbox, "without": without, "require": require}
        try:
            settings = msgspec.structs.replace(
                load_settings(config),
                **{name: value for name, value in said.items() if value is not None},
            )
        except LambdaError as exc:
            fail(exc)
        command(settings=settings, **others)

    return with_settings
