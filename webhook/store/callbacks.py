"""Callbacks as they came: accepted, unreadable, or quarantined for their checksum."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook import clock
from webhook.models import callbacks
from webhook.store.text import insert_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.db import Session


class Callback(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `callbacks`, as it is shown and verified again."""

    id: str
    address_id: str
    task_id: str | None
    state: str
    digest: bytes
    checksum: str
    stated_task_id: str | None
    reason: str | None
    message: str | None
    content: bytes
    size: int
    received_at: datetime


_INSERT = f"{insert_text(callbacks, Callback.__struct_fields__)} ON CONFLICT DO NOTHING"
_SHOWN = [column for column in callbacks.c if column is not callbacks.c.content]


def insert_callbacks(session: Session, rows: Sequence[Callback]) -> set[str]:
    """Insert callbacks and return the ids of those that are new; the others came before."""
    values = [(*msgspec.structs.astuple(row)[:-1], clock.to_microseconds(row.received_at)) for row in rows]
    ids = [row.id for row in rows]
    if not ids:
        return set()
    if session.exec_driver_sql(_INSERT, values).rowcount == len(ids):
        return set(ids)
    return set(session.execute(sa.select(callbacks.c.id).where(callbacks.c.id.in_(ids))).scalars())


def delete_callback(session: Session, callback_id: str) -> None:
    """Forget a callback."""
    session.execute(sa.delete(callbacks).where(callbacks.c.id == callback_id))


def callback(session: Session, callback_id: str) -> Callback | None:
    """Return one callback."""
    row = session.execute(sa.select(callbacks).where(callbacks.c.id == callback_id)).first()
    return None if row is None else Callback(**row._mapping)  # noqa: SLF001


def callback_of_content(session: Session, *, address_id: str, digest: bytes) -> Callback | None:
    """Return the authentic callback of an address with this content."""
    statement = sa.select(callbacks).where(
        callbacks.c.address_id == address_id, callbacks.c.digest == digest, callbacks.c.state != "quarantined"
    )
    row = session.execute(statement).first()
    return None if row is None else Callback(**row._mapping)  # noqa: SLF001


def list_callbacks(
    session: Session, *, state: str | None, task_id: str | None, after: str | None, limit: int
) -> list[Callback]:
    """Return up to `limit` callbacks, newest first, without their content."""
    statement = sa.select(*_SHOWN).order_by(callbacks.c.id.desc()).limit(limit)
    if state is not None:
        statement = statement.where(callbacks.c.state == state)
    if task_id is not None:
        statement = statement.where(callbacks.c.task_id == task_id)
    if after is not None:
        statement = statement.where(callbacks.c.id < after)
    return [Callback(content=b"", **row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def trim_quarantine(session: Session, *, address_id: str, per_address: int, rows: int, total_bytes: int) -> None:
    """Drop the oldest quarantined callbacks beyond the bounds: of one address, and of all in rows and bytes."""
    quarantined = callbacks.c.state == "quarantined"
    newest_first = sa.select(callbacks.c.id).where(quarantined).order_by(callbacks.c.id.desc())
    of_address = newest_first.where(callbacks.c.address_id == address_id).offset(per_address).limit(-1)
    running_bytes = sa.func.sum(sa.func.length(callbacks.c.content)).over(order_by=callbacks.c.id.desc())
    sizes = sa.select(callbacks.c.id, running_bytes.label("running")).where(quarantined).subquery()
    for surplus in (
        of_address,
        newest_first.offset(rows).limit(-1),
        sa.select(sizes.c.id).where(sizes.c.running > total_bytes),
    ):
        session.execute(sa.delete(callbacks).where(callbacks.c.id.in_(surplus)))


def count_by_state(session: Session) -> dict[str, int]:
    """Return how many callbacks are kept as unreadable and as quarantined."""
    statement = (
        sa.select(callbacks.c.state, sa.func.count()).where(callbacks.c.state != "accepted").group_by(callbacks.c.state)
    )
    return {"unreadable": 0, "quarantined": 0} | {row[0]: row[1] for row in session.execute(statement)}
