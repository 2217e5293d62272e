"""Data keys: what values are sealed under, wrapped by master keys.

Whoever destroys one must know that nothing is under it (`shredding`): `destroyable` names those that nobody seals under
any more, and `destroy` keeps the row without its key. What a running process has unwrapped it forgets when it ends.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook.crypto import DataKey
from webhook.models import data_keys
from webhook.store.text import upsert

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from webhook.db import Session

_SETTLED = timedelta(days=1)  # after which no transaction is open that was sealing as the next key was made


def list_data_keys(session: Session) -> list[DataKey]:
    """Return all data keys, oldest first, the destroyed ones among them."""
    return [DataKey(**row._mapping) for row in session.execute(sa.select(data_keys).order_by(data_keys.c.id))]  # noqa: SLF001


def data_key(session: Session, key_id: int) -> DataKey | None:
    """Return one data key."""
    row = session.execute(sa.select(data_keys).where(data_keys.c.id == key_id)).first()
    return None if row is None else DataKey(**row._mapping)  # noqa: SLF001


def newest_data_key(session: Session, *, suite: str, master_key_ids: Collection[str]) -> DataKey | None:
    """Return the newest data key of a suite that one of these master keys unwraps."""
    statement = sa.select(data_keys).where(
        data_keys.c.suite == suite, data_keys.c.master_key_id.in_(master_key_ids), data_keys.c.wrapped.is_not(None)
    )
    row = session.execute(statement.order_by(data_keys.c.id.desc()).limit(1)).first()
    return None if row is None else DataKey(**row._mapping)  # noqa: SLF001


def next_id(session: Session) -> int:
    """Return the number of the next data key; another process may take it first."""
    return 1 + (session.execute(sa.select(sa.func.max(data_keys.c.id))).scalar() or 0)


def insert_data_key(session: Session, made: DataKey) -> bool:
    """Insert a data key; return False where its number is taken, be it by a transaction that has just ended."""
    return upsert(session, data_keys, msgspec.structs.asdict(made), keep=True)


def replace_wrapping(session: Session, before: DataKey, after: DataKey) -> bool:
    """Keep a data key as it is wrapped now; return False where it has changed meanwhile."""
    statement = sa.update(data_keys).where(data_keys.c.id == before.id, data_keys.c.wrapped == before.wrapped)
    values = {"wrapped": after.wrapped, "master_key_id": after.master_key_id}
    return session.execute(statement.values(values)).rowcount == 1


def destroyable(session: Session, *, now: datetime) -> list[DataKey]:
    """Return the data keys that no process seals under any more: they and a later one's first day are over.

    A process that could use none of the later ones looks whether its own is destroyed before it seals. Something may be
    sealed under them still.
    """
    live = [one for one in list_data_keys(session) if one.wrapped is not None]
    settled = [one for one in live if one.created_at <= now - _SETTLED]
    return [one for one in settled if one.expires_at <= now - _SETTLED and any(later.id > one.id for later in settled)]


def is_destroyed(session: Session, key_id: int) -> bool:
    """Return whether a data key was destroyed."""
    found = data_key(session, key_id)
    return found is not None and found.wrapped is None


def destroy(session: Session, key_id: int, *, now: datetime) -> bool:
    """Destroy a data key: what was sealed under it never opens again. Return whether there was one to destroy."""
    statement = sa.update(data_keys).where(data_keys.c.id == key_id, data_keys.c.wrapped.is_not(None))
    return session.execute(statement.values(wrapped=None, destroyed_at=now)).rowcount == 1
