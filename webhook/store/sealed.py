"""Every sealed column, and what its rows are called by whoever seals them: for what concerns all of them alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from webhook import models
from webhook.crypto import HEAD_BYTES, sealed_under
from webhook.store.text import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from webhook.db import Session

KEY_CHECK = "key_check"  # noted in `meta` by versions before there were data keys
_SEALED_META = (KEY_CHECK, "api_key_pepper", "audit_head", "audit_verified")  # of which `meta` holds more

Key = tuple[Any, ...]  # a row's primary key


class Head(NamedTuple):
    """What is known of a value that was not read.

    Attributes:
        under: what sealed it, as `crypto.sealed_under` has it.
        size: its bytes.
        lasting: whether no retention ever removes it.
    """

    key: Key
    under: int | str | None
    size: int
    lasting: bool = False


class SealedValue(NamedTuple):
    """One value.

    Attributes:
        row: what the row is called by whoever sealed it.
    """

    key: Key
    row: str
    sealed: bytes


class SealedColumn:
    """One column of sealed values, in the order of its table's key.

    Args:
        named_by: the columns that a row's name is made of; its id where none are given.
        name: makes it of their values.
        where: which of the rows are sealed.
        lasting: which of the values no retention ever removes.

    Attributes:
        label: what people know it by.
        lasts: whether any of them is such a value.
    """

    def __init__(
        self,
        column: sa.Column[Any],
        *,
        named_by: Sequence[sa.Column[Any]] = (),
        name: Callable[..., str] = str,
        where: sa.ColumnElement[bool] | None = None,
        lasting: sa.ColumnElement[bool] | None = None,
    ) -> None:
        self.column = column
        self.lasts = lasting is not None
        self._lasting = sa.false() if lasting is None else lasting
        self.label = f"{column.table.name}.{column.name}"
        self._key = tuple(column.table.primary_key)
        self._named_by = tuple(named_by) or (column.table.c.id,)
        self._row = name
        self._sealed = sa.func.length(column) > 0 if where is None else where
        same = " AND ".join(f"{one.name} = ?" for one in (*self._key, column))
        self._update = f"UPDATE {column.table.name} SET {column.name} = ? WHERE {same}"  # noqa: S608 - our own names

    def place(self, value: SealedValue) -> dict[str, str]:
        """Return the place that a value is bound to."""
        return {"table": self.column.table.name, "column": self.column.name, "row": value.row}

    def count(self, session: Session) -> int:
        """Return how many values there are."""
        return session.execute(
            sa.select(sa.func.count()).select_from(self.column.table).where(self._sealed)
        ).scalar_one()

    def heads(self, session: Session, *, after: Key | None, limit: int) -> list[Head]:
        """Return what tells the keys that some rows' values were sealed by."""
        head, size = sa.func.substr(self.column, 1, HEAD_BYTES), sa.func.length(self.column)
        statement = sa.select(*self._key, head, size, self._lasting).where(*self._beyond(after))
        rows = session.execute(statement.order_by(*self._key).limit(limit))
        return [
            Head(key=tuple(row[:-3]), under=sealed_under(row[-3]), size=row[-2], lasting=bool(row[-1])) for row in rows
        ]

    def values(
        self, session: Session, *, after: Key | None, until: Key, begin: Sequence[bytes], lasting: bool = False
    ) -> list[SealedValue]:
        """Return values after one row and up to another.

        Args:
            begin: with what they begin, all of the same length.
            lasting: of those only that no retention ever removes.
        """
        statement = sa.select(*self._key, *self._named_by, self.column).where(
            *self._beyond(after),
            sa.tuple_(*self._key) <= self._at(until),
            sa.func.substr(self.column, 1, len(begin[0])).in_(begin),
            *([self._lasting] if lasting else []),
        )
        rows = session.execute(statement.order_by(*self._key))
        named = len(self._key)
        return [SealedValue(key=tuple(row[:named]), row=self._row(*row[named:-1]), sealed=row[-1]) for row in rows]

    def versions(self, session: Session, *, limit: int | None) -> dict[bytes, int]:
        """Return how many values begin with each byte, which tells how they are sealed.

        Args:
            limit: of rows that are looked at, those of the highest keys; None is all.
        """
        descending = [one.desc() for one in self._key]
        newest = sa.select(self.column.label("value"), self._sealed.label("sealed")).order_by(*descending)
        rows = (newest if limit is None else newest.limit(limit)).subquery()
        first = sa.func.substr(rows.c.value, 1, 1)
        found = session.execute(sa.select(first, sa.func.count()).where(rows.c.sealed).group_by(first))
        return {bytes(version): number for version, number in found}

    def replace(self, session: Session, anew: Sequence[tuple[SealedValue, bytes]]) -> int:
        """Put values in place of what was read, but for what has changed meanwhile; return how many."""
        if not anew:
            return 0
        return run(session, self._update, [(sealed, *before.key, before.sealed) for before, sealed in anew])

    def _beyond(self, after: Key | None) -> tuple[sa.ColumnElement[bool], ...]:
        return (self._sealed,) if after is None else (self._sealed, sa.tuple_(*self._key) > self._at(after))

    def _at(self, key: Key) -> sa.ColumnElement[Any]:
        return sa.tuple_(*[sa.literal(value, column.type) for value, column in zip(key, self._key, strict=True)])


def ranges(heads: Sequence[Head], *, wanted: Callable[[Head], bool]) -> Iterator[Key]:
    """Cut rows into ranges with some values that are wanted, but few, and few bytes; yield the last row of each."""
    values = size = 0
    for head in heads:
        if wanted(head):
            values, size = values + 1, size + head.size
        if values == _VALUES or size > _BYTES or (values and head is heads[-1]):
            yield head.key
            values = size = 0


_VALUES = 50  # sealed anew in a transaction, of a few milliseconds
_BYTES = 4 * 1024 * 1024  # and no more than one value beyond so much


def _of_slice(task_id: str, slice_key: bytes) -> str:
    return f"{task_id}/{slice_key.hex()}"


def _of_answer(client: str, route: str, key: str) -> str:
    return f"{client}|{route}|{key}"


_answers, _pages, _meta = models.idempotency_keys.c, models.slice_pages.c, models.meta.c

CALLBACKS = SealedColumn(models.callbacks.c.content)
SEALED = (
    SealedColumn(models.tasks.c.secrets, lasting=sa.true()),
    SealedColumn(models.receivers.c.secrets, lasting=sa.true()),
    SealedColumn(models.subscriptions.c.secret, lasting=sa.true()),
    SealedColumn(models.subscriptions.c.previous_secret, lasting=sa.true()),
    SealedColumn(models.subscriptions.c.sealed_url, lasting=sa.true()),
    CALLBACKS,
    # once the text is gone, risk, labels and times stay
    SealedColumn(
        _pages.body, named_by=(_pages.task_id, _pages.first_key), name=_of_slice, lasting=_pages.written_at.is_(None)
    ),
    SealedColumn(models.events.c.data),
    SealedColumn(
        models.evidence.c.url, named_by=(models.evidence.c.task_id, models.evidence.c.slice_key), name=_of_slice
    ),
    SealedColumn(_answers.body, named_by=(_answers.client, _answers.route, _answers.key), name=_of_answer),
    # the last, and by its name the last of these: it tells at the start that a key is missing which others need still
    SealedColumn(_meta.value, named_by=(_meta.name,), where=_meta.name.in_(_SEALED_META), lasting=sa.true()),
)
