"""API keys, idempotency keys, and what the installation knows of itself."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from webhook.models import api_keys, heartbeats, idempotency_keys, meta
from webhook.store.text import upsert

if TYPE_CHECKING:
    from webhook.db import Session


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `api_keys`; the key itself is nowhere.

    Attributes:
        name: the client's; one that changes its key has two of them for a while.
        networks: CIDRs from which it may be used; None is from anywhere.
    """

    id: str
    name: str
    role: str
    digest: bytes
    created_at: datetime
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    networks: list[str] | None = None

    def state(self, now: datetime) -> str:
        """Return `live`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return LIVE if self.expires_at is None or now < self.expires_at else "expired"


LIVE = "live"  # the only state in which a key opens anything


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
    """Return the key of this digest, unless it was revoked."""
    return _one(session, api_keys.c.digest == digest, api_keys.c.revoked_at.is_(None))


def api_key_of(session: Session, key_id: str) -> ApiKey | None:
    """Return the key of this id."""
    return _one(session, api_keys.c.id == key_id)


def _one(session: Session, *where: sa.ColumnElement[bool]) -> ApiKey | None:
    row = session.execute(sa.select(api_keys).where(*where)).first()
    return None if row is None else ApiKey(**row._mapping)  # noqa: SLF001


def api_keys_of_client(session: Session, name: str) -> list[ApiKey]:
    """Return a client's keys, oldest first."""
    return _several(session, sa.select(api_keys).where(api_keys.c.name == name).order_by(api_keys.c.id))


def list_api_keys(session: Session) -> list[ApiKey]:
    """Return all API keys, oldest first."""
    return _several(session, sa.select(api_keys).order_by(api_keys.c.id))


def api_keys_page(session: Session, *, after: str | None, limit: int) -> list[ApiKey]:
    """Return up to `limit` API keys, newest first."""
    statement = sa.select(api_keys).order_by(api_keys.c.id.desc()).limit(limit)
    return _several(session, statement if after is None else statement.where(api_keys.c.id < after))


def _several(session: Session, statement: sa.Select[tuple[Any, ...]]) -> list[ApiKey]:
    return [ApiKey(**row._mapping) for row in session.execute(statement)]  # noqa: SLF001


def set_api_key_digest(session: Session, key_id: str, digest: bytes) -> None:
    """Keep another digest of a key."""
    session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(digest=digest))


def note_use(session: Session, key_id: str, *, now: datetime) -> None:
    """Note when a key was last used."""
    session.execute(sa.update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now))


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


def hold(session: Session) -> None:
    """Lock a row until the transaction ends, which only a database that takes writes does."""
    session.execute(sa.select(meta.c.name).limit(1).with_for_update())


def meta_value(session: Session, name: str) -> bytes | None:
    """Return what is noted under a name."""
    return session.execute(sa.select(meta.c.value).where(meta.c.name == name)).scalar()


def set_meta(session: Session, name: str, value: bytes) -> None:
    """Note a value under a name."""
    upsert(session, meta, {"name": name, "value": value})


WORKER = "worker"  # the process that beats
HEARTBEAT = timedelta(seconds=10)  # and how often


def beat(session: Session, process: str, *, now: datetime) -> None:
    """Note that a process is alive."""
    upsert(session, heartbeats, {"process": process, "at": now})


def last_beat(session: Session, process: str) -> datetime | None:
    """Return when a process was last known to be alive."""
    return session.execute(sa.select(heartbeats.c.at).where(heartbeats.c.process == process)).scalar()
