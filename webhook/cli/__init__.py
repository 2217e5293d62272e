"""The command line: `webhook …`."""

from __future__ import annotations

import os
import sys

import click

import webhook
from webhook.cli import keys, service
from webhook.errors import ServiceError
from webhook.sandbox.command import sandbox

_COMMANDS = (
    service.serve,
    service.web,
    service.worker,
    service.migrate,
    sandbox,
    service.demo,
    service.doctor,
    keys.keys,
)


def main() -> None:
    """Run the command line; an error of ours is one sentence and exit status 1."""
    try:
        cli(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ServiceError as error:
        click.echo(f"webhook: {error}", err=True)
        sys.exit(1)


@click.group(commands=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(webhook.__version__)
def cli() -> None:
    """Voice moderation callbacks, verified, stored and passed on.

    Settings are environment variables; the README lists them all.
    """
    os.umask(0o077)  # the database, its log and its lock concern nobody else on this machine
