"""Receivers: callback addresses for tasks that another system submits."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook.models import receivers

if TYPE_CHECKING:
    from webhook.db import Session


class Receiver(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `receivers`; `secrets` is sealed JSON {token, seed}."""

    id: str
    name: str
    crypt_type: str
    uid: str | None
    token_digest: bytes
    secrets: bytes
    created_at: datetime
    deleted_at: datetime | None


def insert_receiver(session: Session, receiver: Receiver) -> None:
    """Insert a receiver."""
    session.execute(sa.insert(receivers).values(msgspec.structs.asdict(receiver)))


def receiver(session: Session, receiver_id: str) -> Receiver | None:
    """Return one receiver that was not deleted."""
    statement = sa.select(receivers).where(receivers.c.id == receiver_id, receivers.c.deleted_at.is_(None))
    row = session.execute(statement).first()
    return None if row is None else Receiver(**row._mapping)  # noqa: SLF001


def list_receivers(session: Session, *, after: str | None, limit: int) -> list[Receiver]:
    """Return up to `limit` receivers, newest first."""
    statement = (
        sa.select(receivers).where(receivers.c.deleted_at.is_(None)).order_by(receivers.c.id.desc()).limit(limit)
    )
    if after is not None:
        statement = statement.where(receivers.c.id < after)
    return [Receiver(**row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def delete_receiver(session: Session, receiver_id: str, *, now: datetime) -> bool:
    """Close an address: its token is unknown from now on. Return whether it was open."""
    statement = sa.update(receivers).where(receivers.c.id == receiver_id, receivers.c.deleted_at.is_(None))
    return session.execute(statement.values(deleted_at=now)).rowcount == 1


def known_uids(session: Session, *, limit: int) -> list[str]:
    """Return the account UIDs that receivers were given last."""
    given = sa.select(receivers.c.uid).where(receivers.c.uid.is_not(None)).group_by(receivers.c.uid)
    statement = given.order_by(sa.func.max(receivers.c.id).desc()).limit(limit)
    return [uid for uid in session.execute(statement).scalars() if uid is not None]


def other_secrets(session: Session, receiver_id: str, *, limit: int) -> list[tuple[str, bytes]]:
    """Return id and sealed secrets of the newest receivers but one, deleted ones among them."""
    others = sa.select(receivers.c.id, receivers.c.secrets).where(receivers.c.id != receiver_id)
    return [(row.id, row.secrets) for row in session.execute(others.order_by(receivers.c.id.desc()).limit(limit))]
