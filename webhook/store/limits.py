"""What the platform lets the account do: see `models.limits`."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook.db import alone, is_writing
from webhook.models import limits
from webhook.store.text import upsert

if TYPE_CHECKING:
    from webhook.db import Session


ALL = "limits"  # what is done alone


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `limits`.

    Attributes:
        spent_until: the time up to which its rate is used.
        closed_at: when it was closed last.
        closed_until: no call before; past it, one call tries whether it is open again.
        reason: why it was closed, a word of `codes`; None while it is open.
        closed_count: how often it was closed since a call last passed.
    """

    name: str
    spent_until: datetime | None = None
    closed_at: datetime | None = None
    closed_until: datetime | None = None
    reason: str | None = None
    closed_count: int = 0

    @property
    def is_closed(self) -> bool:
        """Whether calls wait; not where a probe has passed, and the next task may try."""
        return self.reason is not None and self.closed_until is not None


def limit(session: Session, name: str) -> Limit:
    """Return a limit, open and unused where nothing was noted of it; whoever may change it has all of them alone."""
    if is_writing(session):
        alone(session, ALL)
    row = session.execute(sa.select(limits).where(limits.c.name == name)).first()
    return Limit(name=name) if row is None else Limit(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def all_limits(session: Session) -> list[Limit]:
    """Return the limits of which something was noted."""
    return [Limit(**row._mapping) for row in session.execute(sa.select(limits).order_by(limits.c.name))]  # noqa: SLF001


def save_limit(session: Session, changed: Limit) -> None:
    """Note a limit as it is now."""
    upsert(session, limits, msgspec.structs.asdict(changed))
