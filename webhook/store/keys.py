"""API keys, idempotency keys, and what the installation knows of itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook.models import api_keys, heartbeats, idempotency_keys, meta
from webhook.store.text import upsert

if TYPE_CHECKING:
    from webhook.db import Session


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `api_keys`; the key itself is nowhere."""

    id: str
    name: str
    role: str
    digest: bytes
    created_at: datetime
    revoked_at: datetime | None


class StoredAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a request that came with an `Idempotency-Key`; the body is sealed."""

    client: str
    route: str
    key: str
    request_digest: bytes
    status: int
    body: bytes
    created_at: datetime


def insert_api_key(session: Session, key: ApiKey) -> None:
    """Insert an API key."""
    session.execute(sa.insert(api_keys).values(msgspec.structs.asdict(key)))


def api_key(session: Session, digest: bytes) -> ApiKey | None:
    """Return the live key of this digest."""
    statement = sa.select(api_keys).where(api_keys.c.digest == digest, api_keys.c.revoked_at.is_(None))
    row = session.execute(statement).first()
    return None if row is None else ApiKey(**row._mapping)  # noqa: SLF001


def list_api_keys(session: Session) -> list[ApiKey]:
    """Return all API keys, oldest first."""
    rows = session.execute(sa.select(api_keys).order_by(api_keys.c.id))
    return [ApiKey(**row._mapping) for row in rows]  # noqa: SLF001


def revoke_api_key(session: Session, key_id: str, *, now: datetime) -> bool:
    """Revoke a key; return whether it was live."""
    statement = sa.update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
    return session.execute(statement.values(revoked_at=now)).rowcount == 1


def stored_answer(session: Session, *, client: str, route: str, key: str, since: datetime) -> StoredAnswer | None:
    """Return the answer given to this idempotency key since a time."""
    statement = sa.select(idempotency_keys).where(
        idempotency_keys.c.client == client,
        idempotency_keys.c.route == route,
        idempotency_keys.c.key == key,
        idempotency_keys.c.created_at >= since,
    )
    row = session.execute(statement).first()
    return None if row is None else StoredAnswer(**row._mapping)  # noqa: SLF001


def store_answer(session: Session, answer: StoredAnswer) -> None:
    """Keep an answer, in place of an older one that has expired."""
    upsert(session, idempotency_keys, msgspec.structs.asdict(answer))


def forget_answers(session: Session, *, before: datetime) -> None:
    """Drop the answers that are too old to be given again."""
    session.execute(sa.delete(idempotency_keys).where(idempotency_keys.c.created_at < before))


def meta_value(session: Session, name: str) -> bytes | None:
    """Return what is noted under a name."""
    return session.execute(sa.select(meta.c.value).where(meta.c.name == name)).scalar()


WORKER = "worker"  # the process that beats
HEARTBEAT = timedelta(seconds=10)  # and how often


def beat(session: Session, process: str, *, now: datetime) -> None:
    """Note that a process is alive."""
    upsert(session, heartbeats, {"process": process, "at": now})


def last_beat(session: Session, process: str) -> datetime | None:
    """Return when a process was last known to be alive."""
    return session.execute(sa.select(heartbeats.c.at).where(heartbeats.c.process == process)).scalar()
