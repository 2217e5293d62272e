"""The command line: `webhook …`."""

from __future__ import annotations

import os
import sys

import click

import webhook
from webhook.cli import audit, clients, keys, service
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
    audit.audit,
    clients.submit,
    clients.watch,
    clients.verdicts,
)


def main() -> None:
    """Run the command line; wrong usage and errors of ours are told in a sentence, and the exit status is 1."""
    try:
        cli(prog_name="webhook", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
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
