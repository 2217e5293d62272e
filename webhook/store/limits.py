"""What the platform lets the account do: see `models.limits`."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from webhook.models import limits

if TYPE_CHECKING:
    from webhook.db import Session


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `limits`.

    Attributes:
        spent_until: the time up to which its rate is used.
        closed_until: no call before; past it, one call tries whether it is open again.
        reason: why it was closed, a word of `codes`; None while it is open.
        closed_count: how often it was closed since a call last passed.
    """

    name: str
    spent_until: datetime | None = None
    closed_until: datetime | None = None
    reason: str | None = None
    closed_count: int = 0


def limit(session: Session, name: str) -> Limit:
    """Return a limit, open and unused where nothing was noted of it."""
    row = session.execute(sa.select(limits).where(limits.c.name == name)).first()
    return Limit(name=name) if row is None else Limit(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def all_limits(session: Session) -> list[Limit]:
    """Return the limits of which something was noted."""
    return [Limit(**row._mapping) for row in session.execute(sa.select(limits).order_by(limits.c.name))]  # noqa: SLF001


def save_limit(session: Session, changed: Limit) -> None:
    """Note a limit as it is now."""
    values = msgspec.structs.asdict(changed)
    session.execute(insert(limits).values(values).on_conflict_do_update(index_elements=["name"], set_=values))
