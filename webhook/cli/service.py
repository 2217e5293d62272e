"""Commands for whoever runs the service: its processes, the demo, the doctor."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import Any

    from webhook.bootstrap import Service
    from webhook.db import Session
    from webhook.settings import Settings


def load_settings() -> Settings:
    """Read the settings, and log as they say."""
    from webhook import logs
    from webhook import settings as settings_module

    settings = settings_module.load(os.environ)
    logs.configure(settings.log_level)
    return settings


def prepare_database(settings: Settings) -> None:
    """Migrate the database; where a key file is made for it, say so."""
    from webhook import processes

    made = processes.migrate(settings)
    if made is not None:
        click.echo(
            f"webhook: made an encryption key in {made}. Keep a copy: without it the database cannot be read.", err=True
        )


@contextmanager
def open_service() -> Iterator[Service]:
    """Put the parts together for a command; the database is migrated where it was not."""
    from webhook import bootstrap

    settings = load_settings()
    prepare_database(settings)
    service = bootstrap.build(settings)
    try:
        yield service
    finally:
        service.database.close()


def note(session: Session, service: Service, action: str, object_id: str, *, now: datetime, **details: Any) -> None:
    """Append to the audit log what a command does, in its transaction and as the last of it."""
    from webhook import audit
    from webhook.store.audit import Entry

    entry = Entry(actor=f"cli:{_user()}", action=action, object_id=object_id, details=audit.details(details))
    audit.append(session, service.keyring, [entry], now=now)


def _user() -> str:
    """Return who runs this process, by the system's word for it and not the environment's."""
    import pwd  # not everywhere, and wanted here alone

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in a container
        return str(os.getuid())


@click.command()
def serve() -> None:
    """Migrate the database, then run web and worker together."""
    settings = load_settings()
    from webhook import processes
    from webhook.settings import authority

    processes.check_uploads(settings)
    processes.check_free(settings)

    def prepare() -> None:
        prepare_database(settings)
        click.echo(f"webhook: listening on http://{authority(*settings.bind)} (API description: /docs)", err=True)
        if settings.callback_bind is not None:
            click.echo(
                f"webhook: listening on http://{authority(*settings.callback_bind)} for callbacks alone", err=True
            )

    sys.exit(processes.serve(settings, prepare=prepare))


@click.command()
def web() -> None:
    """Run the web process alone."""
    settings = load_settings()
    from webhook import processes

    processes.check_uploads(settings)
    processes.check_free(settings)
    sys.exit(processes.run_web(settings))


@click.command()
def worker() -> None:
    """Run the worker process alone."""
    settings = load_settings()
    from webhook import processes

    processes.run_worker(settings)


@click.command()
@click.option("--from", "source", metavar="URL", help="Copy all of this database, which no service may be using.")
@click.option("--to", "target", metavar="URL", help="Into this one, which must be empty.")
def migrate(*, source: str | None, target: str | None) -> None:
    """Bring the database to this version's schema; or copy one into another, and compare them."""
    if (source is None) != (target is None):
        raise click.UsageError("--from and --to go together.")
    if source is None or target is None:
        prepare_database(load_settings())
        click.echo("webhook: the database is up to date.", err=True)
        return
    from webhook import settings as settings_module
    from webhook.cli.screen import counting
    from webhook.transfer import transfer

    urls = [settings_module.load({"WEBHOOK_DATABASE_URL": url}).database_url for url in (source, target)]
    with counting() as progress:
        copied = transfer(urls[0], urls[1], progress=progress)
    for one in copied:
        click.echo(f"{one.table:20} {one.rows:>12,} rows  SHA-256 {one.digest[:16]}…  the same in both")
    click.echo(
        "webhook: all of it is copied. Before the service starts on it, set WEBHOOK_ENCRYPTION_KEYS to what the old "
        "database was written with (its key file's line, if there is one), and move its .uploads and .evidence.",
        err=True,
    )


@click.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and print the URLs and the key.")
def demo(*, keep: bool) -> None:
    """Show it all at work on this machine; no credentials, nothing left behind.

    Starts a stand-in for the platform, the service and a subscriber, and moderates a file and a stream.
    """
    from webhook import demo

    sys.exit(demo.run(keep=keep))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@click.option("--security", is_flag=True, help="Say how each of the vendor's security asks is met, and what shows it.")
def doctor(*, as_json: bool, security: bool) -> None:
    """Say what is misconfigured or stuck, and how to mend it; exit status 1 if anything is wrong."""
    if security:
        from webhook.doctor import security as chosen

        sys.exit(chosen.run(os.environ, as_json=as_json))
    from webhook import doctor

    sys.exit(doctor.run(os.environ, as_json=as_json))
