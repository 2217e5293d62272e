"""`webhook keys`: API keys, made, listed, revoked; and the master keys of encryption, rotated."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from webhook.cli.service import load_settings, prepare_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.bootstrap import Service

_KEY_PREFIX = "wk_"


@click.group()
def keys() -> None:
    """Make, list and revoke API keys; rotate the master keys of encryption."""


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


@keys.command("rotate-master")
def rotate_master() -> None:
    """Bring all that is encrypted under the first of WEBHOOK_ENCRYPTION_KEYS, while the service runs.

    Killed, it is just run again. In the end it tells which of the other keys are no longer needed; the exit status is 1
    if one still is.
    """
    from webhook.cli.screen import counting
    from webhook.rotation import rotate

    with _service() as service, counting() as progress:
        active, *others = service.keyring.masters
        rotated = rotate(service, progress=progress)
    click.echo(f"Data keys wrapped by {active} now: {rotated.wrapped:,}. Values sealed anew: {rotated.sealed:,}.")
    for key_id in others:
        if key_id not in rotated.needed:
            click.echo(f"{key_id} is no longer needed: take it out of WEBHOOK_ENCRYPTION_KEYS, in every process.")
    for key_id, number in sorted(rotated.needed.items()):
        held = "" if key_id in others else ", which WEBHOOK_ENCRYPTION_KEYS does not hold,"
        click.echo(f"{key_id}{held} is still needed; values or data keys under it: {number:,}.")
    if rotated.needed:
        raise click.ClickException(
            f"Have every process started with {active} as the first key, then run this again. What is left after that "
            "does not open: its row was altered, or its key is missing."
        )


@contextmanager
def _service() -> Iterator[Service]:
    """Put the parts together for a command; the database is migrated where it was not."""
    from webhook import bootstrap

    settings = load_settings()
    prepare_database(settings)
    service = bootstrap.build(settings)
    try:
        yield service
    finally:
        service.database.close()
