"""`webhook audit`: the audit log, verified, listed, exported."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from webhook.cli.service import open_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.audit import Head
    from webhook.db import Session
    from webhook.store.audit import AuditRow


def _time(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value} is no time such as 2026-01-31T12:00:00Z.") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _head(_ctx: click.Context, _option: click.Parameter, value: str | None) -> Head | None:
    from webhook.audit import Head

    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,18}):([0-9a-f]{64})", value)
    if found is None:
        raise click.BadParameter(f"{value} is not what `webhook audit verify` prints as the head.")
    return Head(int(found[1]), bytes.fromhex(found[2]))


_SINCE = click.option(
    "--since", metavar="TIME", callback=_time, help="At this time or later, such as 2026-01-31T12:00:00Z."
)
_UNTIL = click.option("--until", metavar="TIME", callback=_time, help="Before this time.")


@click.group()
def audit() -> None:
    """Verify, list and export the audit log."""


@audit.command("verify")
@click.option(
    "--noted",
    metavar="NUMBER:HASH",
    callback=_head,
    help="A head that was printed before: all up to it must be the same still.",
)
def verify_log(*, noted: Head | None) -> None:
    """Find the first row that was altered, removed or moved; exit status 1 where there is one.

    Prints the head, which stands for all there is: noted elsewhere, it shows later even what somebody
    with all keys changed since.
    """
    from webhook import audit as log
    from webhook import clock

    with open_service() as service:
        with service.database.read() as session:
            report = log.verify(session, service.keyring, noted=noted)
        with service.database.transaction() as session:
            log.note_verified(session, service.keyring, report, now=clock.now())
    if report.fault is not None:
        raise click.ClickException(report.fault.sentence)
    click.echo(f"{report.head.number:,} rows, none altered, removed or moved. The head is {report.head}.")


@audit.command("list")
@click.option("--actor", help="Id of an API key, bootstrap, or cli:USER.")
@click.option("--action", help="Such as callback.read.")
@click.option("--object-id", help="What it was done to.")
@_SINCE
@_UNTIL
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="How many to show.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def list_log(*, as_json: bool, **filters: Any) -> None:
    """List the rows there are, newest first.

    Each is a line of fields with tabs between them: number, time, actor, its name, role, address, action, object,
    status.
    """
    from webhook.audit import shape
    from webhook.cli.screen import Screen
    from webhook.pictures import plain
    from webhook.store import audit as audit_store

    screen = Screen(as_json=as_json)
    with open_service() as service, service.database.read() as session:
        found = audit_store.newest(session, audit_store.AuditQuery(**filters))
    for row in found:
        if as_json:
            screen.json(shape(row))
            continue
        one = shape(row)
        fields = [one[name] for name in ("number", "at", "actor", "actor_name", "role", "address", "action")]
        fields += [one["object_id"], one["status"]]
        screen.raw_line("\t".join("-" if field is None else plain(str(field)) for field in fields))


@audit.command("export")
@click.argument("file", metavar="FILE")
@click.option("--format", "format_", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@_SINCE
@_UNTIL
def export_log(*, file: str, format_: str, since: datetime | None, until: datetime | None) -> None:
    """Write the rows to FILE, oldest first; `-` is standard output.

    In CSV an apostrophe stands before what a spreadsheet would take for a formula; Parquet has the values as they are.
    """
    from webhook.cli.exports import export

    with open_service() as service, service.database.read() as session:
        count = export(_between(session, since, until), file, format=format_)
    click.echo(f"webhook: {count:,} rows are in {file}.", err=True)


def _between(session: Session, since: datetime | None, until: datetime | None) -> Iterator[AuditRow]:
    from webhook.store import audit as audit_store

    for values in audit_store.in_order(session):
        row = audit_store.row_of(values)
        if (since is None or row.at >= since) and (until is None or row.at < until):
            yield row
