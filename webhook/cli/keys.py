"""`webhook keys`: API keys, made, listed, revoked."""

from __future__ import annotations

import hashlib
import secrets

import click

from webhook.cli.service import note, open_service

_KEY_PREFIX = "wk_"


@click.group()
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
    key_id = clock.new_id("key", now)
    with open_service() as service, service.database.transaction() as session:
        key_store.insert_api_key(
            session,
            key_store.ApiKey(
                id=key_id,
                name=name,
                role=role,
                digest=hashlib.sha256(key.encode()).digest(),
                created_at=now,
                revoked_at=None,
            ),
        )
        note(session, service, "key.created", key_id, now=now, name=name, role=role)
    click.echo(key)


@keys.command("list")
def list_keys() -> None:
    """List the API keys; the keys themselves are not kept."""
    from webhook.clock import rfc3339
    from webhook.store import keys as key_store

    with open_service() as service, service.database.read() as session:
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

    with open_service() as service, service.database.transaction() as session:
        now = clock.now()
        revoked = key_store.revoke_api_key(session, key_id, now=now)
        if revoked:
            note(session, service, "key.revoked", key_id, now=now)
    if not revoked:
        raise click.ClickException(f"There is no live key of the id {key_id}; `webhook keys list` shows them.")
    click.echo(f"{key_id} is revoked.")
