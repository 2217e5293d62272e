"""`webhook sandbox`: every field of the configuration is an option, shown by group."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from msgspec import Meta

from .config import ConfigError, SandboxConfig, changed

if TYPE_CHECKING:
    from collections.abc import Iterator


class GroupedOption(click.Option):
    """An option that is shown under the heading of its group."""

    def __init__(self, *arguments: Any, group: str, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.group = group


class GroupedCommand(click.Command):
    """A command whose help shows its options by group."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, those of each group under its heading."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for group, records in groups.items():
            with formatter.section(group):
                formatter.write_dl(records)


def _options() -> Iterator[click.Option]:
    defaults = SandboxConfig()
    for name, hint in get_type_hints(SandboxConfig, include_extras=True).items():
        default = getattr(defaults, name)
        told = next(meta for meta in get_args(hint) if isinstance(meta, Meta) and meta.extra)
        flag = "--" + name.replace("_", "-")
        yield GroupedOption(
            [f"{flag}/--no-{flag.removeprefix('--')}" if isinstance(default, bool) else flag],
            group=(told.extra or {})["group"],
            help=told.description,
            default=default,
            show_default=default is not None,
            type=_type(hint),
        )


def _type(hint: Any) -> Any:
    """Return what click takes for a field's type; whether a value is right, the configuration itself says."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _type(get_args(hint)[0])
    if origin in {Union, types.UnionType}:
        return _type(next(choice for choice in get_args(hint) if choice is not types.NoneType))
    return click.Choice(get_args(hint)) if origin is Literal else hint


@click.command(cls=GroupedCommand, params=list(_options()))
@click.option("--magic", is_flag=True, help="Print the inputs that choose outcomes, and end.")
def sandbox(*, magic: bool, **settings: Any) -> None:
    """Run a stand-in for the moderation platform, for trying things out and for tests of your own.

    It takes the calls of the official SDK and sends callbacks. The name of a file or stream chooses what comes of it
    (--magic lists the names); its own address shows what it did under /sandbox/ledger, and under /sandbox/control
    most of these options can be changed while it runs.
    """
    from . import server

    if magic:
        click.echo(server.MAGIC)
        return
    try:
        config = changed(SandboxConfig(), settings)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    try:
        server.run(config)
    except OSError as error:
        raise click.ClickException(f"{config.host}:{config.port} cannot be listened on ({error.strerror}).") from None
