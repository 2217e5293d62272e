"""The command line: `webhook …`."""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

import webhook
from webhook.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.bootstrap import Service
    from webhook.settings import Settings

_KEY_PREFIX = "wk_"


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


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(webhook.__version__)
def cli() -> None:
    """Voice moderation callbacks, verified, stored and passed on.

    Settings are environment variables; the README lists them all.
    """
    os.umask(0o077)  # the database, its log and its lock concern nobody else on this machine


def _settings() -> Settings:
    from webhook import logs
    from webhook import settings as settings_module

    settings = settings_module.load(os.environ)
    logs.configure(settings.log_level)
    return settings


def _prepare(settings: Settings) -> None:
    from webhook import processes

    made = processes.migrate(settings)
    if made is not None:
        click.echo(
            f"webhook: made an encryption key in {made}. Keep a copy: without it the database cannot be read.", err=True
        )


@cli.command()
def serve() -> None:
    """Migrate the database, then run web and worker together."""
    from webhook import processes

    settings = _settings()
    processes.check_bind(settings)
    processes.check_alone(settings)

    def prepare() -> None:
        _prepare(settings)
        host, port = settings.bind
        click.echo(f"webhook: listening on http://{host}:{port} (API description: /docs)", err=True)

    sys.exit(processes.serve(settings, prepare=prepare))


@cli.command()
def web() -> None:
    """Run the web process alone."""
    from webhook import processes

    settings = _settings()
    processes.check_bind(settings)
    processes.check_alone(settings)
    processes.run_web(settings)


@cli.command()
def worker() -> None:
    """Run the worker process alone."""
    from webhook import processes

    processes.run_worker(_settings())


@cli.command()
def migrate() -> None:
    """Bring the database to this version's schema."""
    _prepare(_settings())
    click.echo("webhook: the database is up to date.", err=True)


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=9000, show_default=True, help="Port to listen on; 0 takes a free one.")
@click.option("--uid", default="1234567890123456", show_default=True, help="Account UID that enters every checksum.")
@click.option("--access-key-id", default="sandbox", show_default=True, help="AccessKey id that clients sign with.")
@click.option("--access-key-secret", default="sandbox-secret", show_default=True, help="Its secret.")
@click.option(
    "--sm3-scheme", type=click.Choice(["digest", "hmac"]), default="digest", show_default=True, help="How SM3 is used."
)
@click.option("--magic", is_flag=True, help="Print the inputs that choose outcomes, and end.")
def sandbox(
    *, host: str, port: int, uid: str, access_key_id: str, access_key_secret: str, sm3_scheme: str, magic: bool
) -> None:
    """Run a stand-in for the moderation platform, for trying things out and for tests."""
    from webhook.sandbox import server

    if magic:
        click.echo(server.MAGIC)
        return
    try:
        server.run(
            server.SandboxConfig(
                host=host,
                port=port,
                uid=uid,
                access_key_id=access_key_id,
                access_key_secret=access_key_secret,
                sm3_scheme=sm3_scheme,  # type: ignore[arg-type] # click has checked it
            )
        )
    except OSError as error:
        raise click.ClickException(f"{host}:{port} cannot be listened on ({error.strerror}).") from None


@cli.command()
@click.option("--keep", is_flag=True, help="Leave everything running until Ctrl-C, and print the URLs and the key.")
def demo(*, keep: bool) -> None:
    """Show it all at work on this machine; no credentials, nothing left behind.

    Starts a stand-in for the platform, the service and a subscriber, and moderates a file and a stream.
    """
    from webhook import demo

    sys.exit(demo.run(keep=keep))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def doctor(*, as_json: bool) -> None:
    """Say what is misconfigured or stuck, and how to mend it; exit status 1 if anything is wrong."""
    from webhook import doctor

    sys.exit(doctor.run(os.environ, as_json=as_json))


@cli.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(["reader", "submitter", "admin"]), required=True, help="What it may do.")
def create_key(name: str, role: str) -> None:
    """Make an API key and print it, this once."""
    from webhook import clock
    from webhook.store import keys as key_store

    key = _KEY_PREFIX + secrets.token_urlsafe(32)
    now = clock.now()
    with _service() as service, service.database.transaction() as session:
        key_store.insert_api_key(
            session,
            key_store.ApiKey(
                id=clock.new_id("key", now),
                name=name,
                role=role,
                digest=hashlib.sha256(key.encode()).digest(),
                created_at=now,
                revoked_at=None,
            ),
        )
    click.echo(key)


@keys.command("list")
def list_keys() -> None:
    """List the API keys; the keys themselves are not kept."""
    from webhook.clock import rfc3339
    from webhook.store import keys as key_store

    with _service() as service, service.database.read() as session:
        found = key_store.list_api_keys(session)
    for key in found:
        state = "live" if key.revoked_at is None else f"revoked {rfc3339(key.revoked_at)}"
        click.echo(f"{key.id}  {key.role:<9}  {rfc3339(key.created_at)}  {state}  {key.name}")


@keys.command("revoke")
@click.argument("key_id")
def revoke_key(key_id: str) -> None:
    """Revoke an API key, by its id."""
    from webhook import clock
    from webhook.store import keys as key_store

    with _service() as service, service.database.transaction() as session:
        revoked = key_store.revoke_api_key(session, key_id, now=clock.now())
    if not revoked:
        raise click.ClickException(f"There is no live key of the id {key_id}; `webhook keys list` shows them.")
    click.echo(f"{key_id} is revoked.")


@contextmanager
def _service() -> Iterator[Service]:
    """Put the parts together for a command; the database is migrated where it was not."""
    from webhook import bootstrap

    settings = _settings()
    _prepare(settings)
    service = bootstrap.build(settings)
    try:
        yield service
    finally:
        service.database.close()
