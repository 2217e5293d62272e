"""Lists of tasks and of verdicts, newest first, and the queue: each reads about as many rows as it shows.

A list is a range of an index that is in the list's own order, or a few such ranges, merged. What is not asked for is
among them: a list of verdicts of any service is the merger of those of each kind, service and risk level there is.
"""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec

from webhook import clock
from webhook.db import is_postgresql
from webhook.store.tasks import ACTIVE_STATES, COLUMNS, FINAL_STATES, KINDS, NO_LEVEL, Task, task_of
from webhook.store.text import fetch, marks, merged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from webhook.db import Session

_STATES = (*ACTIVE_STATES, *FINAL_STATES)
_MOST_RANGES = 100  # in one statement: SQLite takes 500 (https://sqlite.org/limits.html)
_END = "\U0010ffff"


class TaskQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks or verdicts to list; None is any.

    Attributes:
        label: exact, or with `*` at its end.
        since, until: of `created_at`, or of `updated_at` for verdicts; until is exclusive.
        order_by_update: newest verdict first, instead of newest task.
        after: `sort key, id` of the last one shown.
    """

    states: tuple[str, ...] | None = None
    kind: str | None = None
    service: str | None = None
    data_id: str | None = None
    live_id: str | None = None
    risk_levels: tuple[str, ...] | None = None
    label: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    order_by_update: bool = False
    after: tuple[datetime, str] | None = None
    limit: int


class _Part(msgspec.Struct, frozen=True):
    """A piece of SQL, such as some conditions, and the values of their placeholders."""

    text: str
    values: tuple[Any, ...] = ()

    def __and__(self, other: _Part) -> _Part:
        return _Part(f"{self.text} AND {other.text}", self.values + other.values)

    def after(self, head: str) -> _Part:
        """Return the statement with these conditions."""
        return _Part(f"{head} WHERE {self.text}", self.values)


def list_tasks(session: Session, query: TaskQuery) -> list[Task]:
    """Return up to `limit` tasks, newest first."""
    by = "updated_at" if query.order_by_update else "created_at"
    if query.data_id is not None or query.live_id is not None:
        return _of_content(session, query, by=by)
    if query.label is not None:
        return _labelled(session, query)
    if query.order_by_update:
        return _verdicts(session, query)
    states = _STATES if query.states is None else query.states
    ranges = [
        _Part("kind = ? AND state = ?", (kind, state))
        for kind in KINDS
        if query.kind in {None, kind}
        for state in states
    ]
    return _merged(session, query, [_rows(session, "tasks_listed", each, query, by=by) for each in ranges], by=by)


def _of_content(session: Session, query: TaskQuery, *, by: str) -> list[Task]:
    """List by the client's own name for what is moderated: so few are it that all else is looked at in each."""
    column, other = ("live_id", "data_id") if query.data_id is None else ("data_id", "live_id")
    part = _Part(f"{column} = ?", (getattr(query, column),))
    for name, value in ((other, getattr(query, other)), ("kind", query.kind), ("service", query.service)):
        if value is not None:
            part &= _Part(f"{name} = ?", (value,))
    for name, values in (("state", query.states), ("risk_level", query.risk_levels)):
        if values is not None:
            part &= _Part(f"{name} IN ({marks(len(values))})" if values else "1 = 0", values)
    if query.label is not None:
        labels = sorted({label for label, *_ in _label_groups(session, query.label)})
        part &= _Part(_HAS_LABEL.format(marks=marks(len(labels))) if labels else "1 = 0", tuple(labels))
    index = f"tasks_{column}_verdicts" if query.order_by_update else f"tasks_{column}"
    return _merged(session, query, [_rows(session, index, part, query, by=by)], by=by)


_HAS_LABEL = f"""EXISTS (
    SELECT 1 FROM task_labels
    WHERE label IN ({{marks}}) AND kind = tasks.kind AND service = tasks.service
      AND risk_level = coalesce(tasks.risk_level, '{NO_LEVEL}') AND updated_at = tasks.updated_at AND task_id = tasks.id
)"""  # noqa: S608 - our own words


def _verdicts(session: Session, query: TaskQuery) -> list[Task]:
    ranges = []
    for kind, service, level in fetch(session, _scan("tasks", ("kind", "service", "risk_level"))):
        # none is the last of each service, whether there is such a task or not
        if not _is_wanted(query, kind=kind, service=service, level=level):
            continue
        part = _Part("kind = ? AND service = ?", (kind, service))
        level_is = _Part("risk_level IS NULL") if level is None else _Part("risk_level = ?", (level,))
        ranges.append(_rows(session, "tasks_verdicts", part & level_is, query, by="updated_at"))
    return _merged(session, query, ranges, by="updated_at")


def _labelled(session: Session, query: TaskQuery) -> list[Task]:
    found: dict[tuple[int, str], Task] = {}
    window = _window(query, by="updated_at", id_="task_id")
    ranges = [
        (_Part(_LABEL_IS, group) & window).after("SELECT updated_at, task_id FROM task_labels")
        for group in _label_groups(session, query.label or "")
        if _is_wanted(query, kind=group[1], service=group[2], level=group[3] or None)
    ]
    for part in _in_parts(ranges):
        # a task may have several of these labels, with the same time
        order = "updated_at DESC, task_id DESC"
        newest = merged(session, [each.text for each in part], order=order, limit=query.limit, once=True)
        statement = _BY_LABEL.format(newest=newest)
        for row in fetch(session, statement, tuple(chain.from_iterable(each.values for each in part))):
            task = task_of(row)
            found[clock.to_microseconds(task.updated_at), task.id] = task
    return [found[place] for place in sorted(found, reverse=True)[: query.limit]]


_LABEL_IS = "label = ? AND kind = ? AND service = ? AND risk_level = ?"
_BY_LABEL = f"""
    SELECT {", ".join(f"tasks.{name}" for name in Task.__struct_fields__)}
    FROM ({{newest}}) AS newest
    JOIN tasks ON tasks.id = newest.task_id
    ORDER BY newest.updated_at DESC, newest.task_id DESC
"""  # noqa: S608 - our own names


def _label_groups(session: Session, pattern: str) -> list[tuple[str, str, str, str]]:
    """Return each label that fits, with the kinds, services and risk levels it is found with."""
    exact = pattern.removesuffix("*")
    last = exact + _END if exact != pattern else exact
    statement = _scan("task_labels", ("label", "kind", "service", "risk_level"), between=True)
    return [
        (label, kind, service, level)
        for label, kind, service, level in fetch(session, statement, (exact, last, last))
        if level is not None
    ]


def _is_wanted(query: TaskQuery, *, kind: str, service: str, level: str | None) -> bool:
    return (
        query.kind in {None, kind}
        and query.service in {None, service}
        and (query.risk_levels is None or level in query.risk_levels)
    )


@lru_cache
def _scan(table: str, columns: tuple[str, ...], *, between: bool = False) -> str:
    """Return the statement that finds what values an index's first columns have, by one look for each.

    The values of the last column end with NULL, which stands for rows that have none, whether there are any or not.

    Args:
        between: only with a first column between two values, the second of which is to be given twice.
    """
    scans = []
    for number, column in enumerate(columns):
        known, outer, here = columns[:number], f"found_{number - 1}", f"found_{number}"
        # one lower bound at a time: of two, SQLite goes by the first, and through all that lies between them
        first, further = [], [f"{column} > {here}.{column}"]
        if between and not number:
            first, further = [f"{column} BETWEEN ? AND ?"], [*further, f"{column} <= ?"]

        def look(source: str, where: Sequence[str], *, column: str = column, known: Sequence[str] = known) -> str:
            where = [*(f"{name} = {source}.{name}" for name in known), *where, f"{column} IS NOT NULL"]
            least = f"SELECT min({column}) FROM {table} WHERE {' AND '.join(where)}"  # noqa: S608 - our own names
            return f"SELECT {', '.join((*(f'{source}.{name}' for name in known), f'({least})'))}"

        begin = look(outer, first)
        if number:
            begin += f" FROM {outer} WHERE {outer}.{columns[number - 1]} IS NOT NULL"
        step = f"{look(here, further)} FROM {here} WHERE {here}.{column} IS NOT NULL"
        scans.append(f"{here} ({', '.join((*known, column))}) AS ({begin} UNION ALL {step})")
    return f"WITH RECURSIVE {', '.join(scans)} SELECT {', '.join(columns)} FROM {here}"  # noqa: S608 - our own names


def _rows(session: Session, index: str, part: _Part, query: TaskQuery, *, by: str) -> _Part:
    """Return the statement for the tasks of one range of an index, in whatever order."""
    # PostgreSQL chooses by what it knows of the rows; SQLite knows nothing, unless somebody has it ANALYZE them
    by_index = "" if is_postgresql(session) else f" INDEXED BY {index}"
    return (part & _window(query, by=by)).after(f"SELECT {COLUMNS} FROM tasks{by_index}")  # noqa: S608


def _window(query: TaskQuery, *, by: str, id_: str = "id") -> _Part:
    """Return the stretch of time that is listed, with no more than one upper bound, so that the index has it all."""
    part = _Part("true")
    if query.since is not None:
        part &= _Part(f"{by} >= ?", (clock.to_microseconds(query.since),))
    if query.after is not None and (query.until is None or query.after[0] < query.until):
        return part & _Part(f"({by}, {id_}) < (?, ?)", (clock.to_microseconds(query.after[0]), query.after[1]))
    if query.until is not None:
        part &= _Part(f"{by} < ?", (clock.to_microseconds(query.until),))
    return part


def _merged(session: Session, query: TaskQuery, ranges: Sequence[_Part], *, by: str) -> list[Task]:
    """Return the newest tasks of some ranges: each is read no further than it is needed."""
    found: list[tuple[Any, ...]] = []
    for part in _in_parts(ranges):
        order = f"{by} DESC, id DESC"
        # in the entries for NULL, PostgreSQL sees an order only by all of the index
        orders = [f"risk_level DESC, {order}" if "risk_level IS NULL" in each.text else order for each in part]
        statement = merged(session, [each.text for each in part], order=order, limit=query.limit, orders=orders)
        found += fetch(session, statement, tuple(chain.from_iterable(each.values for each in part)))
    tasks = [task_of(row) for row in found]
    return sorted(tasks, key=lambda task: (getattr(task, by), task.id), reverse=True)[: query.limit]


def _in_parts(ranges: Sequence[_Part]) -> Iterable[Sequence[_Part]]:
    return (ranges[start : start + _MOST_RANGES] for start in range(0, len(ranges), _MOST_RANGES))


def queue_places(session: Session, waiting: Iterable[Task]) -> dict[str, int]:
    """Return the places of tasks that wait to be submitted: 1 is the next, and streams go before files.

    Between them the queue is counted through no more than once, in the index alone.
    """
    last: dict[str, tuple[Any, ...]] = {}
    counts = [_count("live")]
    in_order = sorted(waiting, key=lambda task: (task.kind != "live", task.created_at, task.id))
    for task in in_order:
        here = (clock.to_microseconds(task.created_at), task.id)
        counts.append(_count(task.kind, after=last.get(task.kind), upto=here))
        last[task.kind] = here
    streams, *between = _counted(session, counts) if in_order else [0]
    place = {"live": 0, "audio": streams}
    places = {}
    for task, count in zip(in_order, between, strict=True):
        place[task.kind] += count
        places[task.id] = place[task.kind]
    return places


def _count(kind: str, *, after: tuple[Any, ...] | None = None, upto: tuple[Any, ...] | None = None) -> _Part:
    part = _Part("kind = ? AND state = 'queued'", (kind,))
    if after is not None:
        part &= _Part("(created_at, id) > (?, ?)", after)
    if upto is not None:
        part &= _Part("(created_at, id) <= (?, ?)", upto)
    return part


def _counted(session: Session, parts: Sequence[_Part]) -> list[int]:
    """Return how many tasks there are of each part."""
    counts: dict[int, int] = {}
    numbered = [part.after(f"SELECT {number}, count(*) FROM tasks") for number, part in enumerate(parts)]  # noqa: S608
    for some in _in_parts(numbered):
        statement = " UNION ALL ".join(each.text for each in some)
        counts |= dict(map(tuple, fetch(session, statement, tuple(chain.from_iterable(each.values for each in some)))))
    return [counts[number] for number in range(len(parts))]
