"""Tombstones: what is left of erased tasks; and holds, which keep tasks from being erased."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from webhook.models import holds, tombstones
from webhook.store.text import fetch, one_of, upsert

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from webhook.db import Session


class Tombstone(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `tombstones`.

    Attributes:
        token_digest: of the task's own address; None where it had none.
        erased_by: id of the API key.
        finished_at: when nothing of the task was left; None while the worker is at it.
    """

    task_id: str
    token_digest: bytes | None
    erased_at: datetime
    erased_by: str
    finished_at: datetime | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `holds`."""

    task_id: str
    placed_at: datetime
    placed_by: str


def insert_tombstone(session: Session, tombstone: Tombstone) -> None:
    """Note that a task was erased."""
    session.execute(sa.insert(tombstones).values(msgspec.structs.asdict(tombstone)))


def tombstone(session: Session, task_id: str) -> Tombstone | None:
    """Return what is left of a task, None where it was not erased."""
    row = session.execute(sa.select(tombstones).where(tombstones.c.task_id == task_id)).first()
    return None if row is None else Tombstone(**row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def erased_tasks(session: Session, task_ids: Collection[str]) -> set[str]:
    """Return which of these tasks were erased."""
    return {task_id for (task_id,) in fetch(session, *ask_erased(task_ids))}


def ask_erased(task_ids: Collection[str]) -> tuple[str, Sequence[Any]]:
    """Return what to ask for the ids of those of these tasks that were erased."""
    among, values = one_of("task_id", [*task_ids])
    return f"SELECT task_id FROM tombstones WHERE {among}", values  # noqa: S608 - our own words


def erased_addresses(session: Session, token_digests: Collection[bytes]) -> set[bytes]:
    """Return which of these tokens were those of tasks that were erased."""
    among, values = one_of("token_digest", [*token_digests])
    found = fetch(session, f"SELECT token_digest FROM tombstones WHERE {among}", values)  # noqa: S608 - our own words
    return {bytes(token_digest) for (token_digest,) in found}


def unfinished(session: Session, *, limit: int) -> list[str]:
    """Return erased tasks of which something may be left, the first erased first."""
    statement = sa.select(tombstones.c.task_id).where(tombstones.c.finished_at.is_(None))
    return list(session.execute(statement.order_by(tombstones.c.erased_at).limit(limit)).scalars())


def backlog(session: Session) -> tuple[int, datetime | None]:
    """Return of how many erased tasks something may be left, and when the first of them was erased."""
    statement = sa.select(sa.func.count(), sa.func.min(tombstones.c.erased_at)).where(
        tombstones.c.finished_at.is_(None)
    )
    number, first = session.execute(statement).one()
    return number, first


def held(session: Session) -> tuple[int, datetime | None]:
    """Return how many tasks are held, and since when the first of them is."""
    number, first = session.execute(sa.select(sa.func.count(), sa.func.min(holds.c.placed_at))).one()
    return number, first


def finish(session: Session, task_ids: Collection[str], *, now: datetime) -> None:
    """Note that nothing is left of these tasks."""
    statement = sa.update(tombstones).where(tombstones.c.task_id.in_(task_ids))
    session.execute(statement.values(finished_at=now))


def place_hold(session: Session, hold: Hold) -> bool:
    """Hold a task; return whether it was not held before."""
    return upsert(session, holds, msgspec.structs.asdict(hold), keep=True)


def hold(session: Session, task_id: str) -> Hold | None:
    """Return a task's hold."""
    row = session.execute(sa.select(holds).where(holds.c.task_id == task_id)).first()
    return None if row is None else Hold(**row._mapping)  # noqa: SLF001


def release_hold(session: Session, task_id: str) -> bool:
    """End a task's hold; return whether there was one."""
    return session.execute(sa.delete(holds).where(holds.c.task_id == task_id)).rowcount == 1
