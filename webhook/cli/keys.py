"""`webhook keys`: API keys, made, replaced, listed, revoked, their roles; the master keys of encryption, rotated."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

import click
from typing_extensions import override

from webhook.cli.service import note, open_service
from webhook.roles import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.bootstrap import Service
    from webhook.rotation import Rotated
    from webhook.store.keys import ApiKey

_LONGEST_NAME = 128
_LONGEST_DAYS = 3650
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


class _Lifetime(click.ParamType[timedelta]):
    """A duration such as 90d, 12h or 30m."""

    name = "duration"

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        match = re.fullmatch(r"([0-9]{1,6})([dhm])", str(value))
        lifetime = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else timedelta()
        if not timedelta() < lifetime <= timedelta(days=_LONGEST_DAYS):
            self.fail(f"{value!r} is not a duration such as 90d, 12h or 30m, of {_LONGEST_DAYS} days at the most.")
        return lifetime


class _Network(click.ParamType[str]):
    """A network such as 10.0.0.0/8."""

    name = "cidr"

    @override
    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(ip_network(str(value), strict=False))
        except ValueError:
            self.fail(f"{value!r} is not a network such as 10.0.0.0/8.")


@click.group()
def keys() -> None:
    """Make, replace, list and revoke API keys; rotate the master keys of encryption."""


@keys.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What it may do.")
@click.option("--expires", "lifetime", type=_Lifetime(), help="After how long, such as 90d; without it, never.")
@click.option("--network", "networks", type=_Network(), multiple=True, help="From where alone it may be used.")
def create_key(name: str, role: str, lifetime: timedelta | None, networks: tuple[str, ...]) -> None:
    """Make an API key for the client NAME and print it, this once."""
    from webhook import clock

    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise click.BadParameter(f"NAME must be 1 to {_LONGEST_NAME} printable characters.")
    now = clock.now()
    with open_service() as service, service.database.transaction() as session:
        made, text = service.api_keys.create(
            session, name=name, role=Role(role), lifetime=lifetime, networks=networks, now=now
        )
        note(session, service, "key.created", made.id, now=now, name=name, role=role)
    click.echo(text)


@keys.command("rotate")
@click.argument("name")
@click.option("--expires", "lifetime", type=_Lifetime(), help="After how long; without it, as the one before it.")
def rotate_key(name: str, lifetime: timedelta | None) -> None:
    """Make a second key for the client NAME, like its first, and print it; both work until one is revoked."""
    from webhook import clock

    now = clock.now()
    with open_service() as service, service.database.transaction() as session:
        old, made, text = service.api_keys.rotate(session, name=name, lifetime=lifetime, now=now)
        note(session, service, "key.created", made.id, now=now, name=name, role=made.role)
    click.echo(text)
    click.echo(f"When {name} uses it: webhook keys revoke {old.id}", err=True)


@keys.command("list")
def list_keys() -> None:
    """List the API keys; the keys themselves are not kept."""
    from webhook import clock
    from webhook.pictures import plain
    from webhook.store import keys as key_store

    with open_service() as service, service.database.read() as session:
        found = key_store.list_api_keys(session)
    now = clock.now()
    rows: list[tuple[str, ...]] = [("ID", "CLIENT", "ROLE", "STATE", "EXPIRES", "LAST USED", "NETWORKS")]
    rows += [(key.id, plain(key.name), key.role, key.state(now), *_rest(key)) for key in found]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _rest(key: ApiKey) -> Iterator[str]:
    for time in (key.expires_at, key.last_used_at):
        yield "never" if time is None else f"{time:%Y-%m-%d %H:%M}Z"
    yield ",".join(key.networks or ["any"])


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


@keys.command("roles")
def print_roles() -> None:
    """Print what each role may do, route by route."""
    from webhook.api import permissions
    from webhook.api.http import ROUTES

    click.echo(permissions.table(ROUTES))


def _note_rotation(service: Service, rotated: Rotated) -> None:
    """Have the audit log tell since when a master key is the active one: by the run that ended what others began."""
    from webhook import clock
    from webhook.store import audit as audit_store

    active, *others = service.keyring.masters
    action = audit_store.ROTATED
    with service.database.transaction() as session:
        before = audit_store.newest(session, audit_store.AuditQuery(action=action, limit=1))
        is_noted = bool(before) and before[0].object_id == active
        if rotated.wrapped or rotated.sealed or (others and not is_noted):
            details = {"wrapped": rotated.wrapped, "sealed": rotated.sealed}
            note(session, service, action, active, now=clock.now(), **details)


@keys.command("rotate-master")
def rotate_master() -> None:
    """Bring all that is encrypted under the first of WEBHOOK_ENCRYPTION_KEYS, while the service runs.

    Killed, it is just run again. In the end it tells which of the other keys are no longer needed; the exit status is 1
    if one still is.
    """
    from webhook.cli.screen import counting
    from webhook.rotation import rotate

    with open_service() as service, counting() as progress:
        active, *others = service.keyring.masters
        rotated = rotate(service, progress=progress)
        _note_rotation(service, rotated)
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
