"""A database with years behind it, made in bulk: most of it is over and clean, and some of everything is rare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from webhook import clock

if TYPE_CHECKING:
    from datetime import datetime

FIRST = 1_700_000_000_000_000  # microseconds since 1970, when the first task was made
SECOND = 1_000_000
LONG_STREAM = "task_of-long-stream"
LONG_STREAM_PAGES = 2000
SUBSCRIPTION = "sub_0"
HOT_DATA_ID, HOT_LIVE_ID = "the-same-for-many", "room-0"

_LABELS = ("political_entity", "political_n", "sexual_terms")
_GENERATED = "(SELECT n::bigint AS n FROM generate_series(1, {rows}) AS n) AS series"
_COUNTED = """(
    WITH RECURSIVE counted (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {rows}) SELECT n FROM counted
) AS series"""
_SERVICE = """CASE WHEN n % 1009 = 0 THEN 'rare_detection' WHEN n % 100 = 0 THEN 'live_detection_byllm_global'
    ELSE 'audio_detection_byllm_global' END"""
# the platform has few streams run at once; other systems' are under way for ever, as far as we hear
_RUNS = "(n % 2000 = 100 AND n > {tasks} - 8000)"
# n counts from 1 to the number of tasks; `is_new` are those that are under way
_IS_NEW = "n > {tasks} - 40"
_TASKS = f"""
    INSERT INTO tasks (id, origin, kind, service, state, source, data_id, live_id, crypt_type, risk_level, labels,
        slice_count, flagged_slice_count, created_at, updated_at, attempt_count, next_attempt_at, started_at, secrets)
    SELECT {{task_id}}, CASE WHEN n % 300 = 0 THEN 'external' ELSE 'submitted' END,
        CASE WHEN n % 100 = 0 THEN 'live' ELSE 'audio' END, {_SERVICE},
        CASE WHEN {_IS_NEW} AND n % 2 = 0 THEN 'queued' WHEN {_IS_NEW} OR n % 300 = 0 OR {_RUNS}
            THEN 'processing' WHEN n % 50 = 2 THEN 'failed' WHEN n % 5000 = 7 THEN 'expired' ELSE 'completed' END,
        '{{{{"url":"https://audio.example.com/a.mp3"}}}}',
        CASE WHEN n % 10 = 1 THEN '{HOT_DATA_ID}' WHEN n % 2 = 0 THEN 'upload-' || n END,
        CASE WHEN {_RUNS} OR n % 100 = 0 AND {_IS_NEW} THEN 'room-now-' || n
            WHEN n % 100 = 0 THEN 'room-' || (n % 400) END, 'SHA256',
        CASE WHEN {_IS_NEW} THEN NULL WHEN n % 200 = 3 OR n % 500 = 0 THEN 'high' WHEN n % 100 = 4 THEN 'medium'
            WHEN n % 10 = 5 THEN 'low' WHEN n % 9973 = 1 THEN 'terrible' ELSE 'none' END,
        CASE WHEN {_IS_NEW} THEN '[]' WHEN n % 200 = 3 OR n % 500 = 0 THEN
            '[{{{{"label":"political_entity","risk_level":"high","confidence":90.0,"slices":1}}}},'
            || '{{{{"label":"political_n","risk_level":"high","confidence":90.0,"slices":1}}}}]'
            WHEN n % 10 = 5 THEN '[{{{{"label":"sexual_terms","risk_level":"low","confidence":90.0,"slices":1}}}}]'
            ELSE '[]' END,
        10, 1, {FIRST} + n * {SECOND}, {FIRST} + (n + n * 7919 % 600) * {SECOND}, 0,
        CASE WHEN {_IS_NEW} THEN {FIRST} + n * {SECOND}
            WHEN {_RUNS} THEN {FIRST} + CAST({{tasks}} AS bigint) * {SECOND} END,
        CASE WHEN n % 100 = 0 THEN {FIRST} + n * {SECOND} END, {{blob}}
    FROM series
"""  # noqa: S608 - our own words
_NOTED = """
    INSERT INTO task_labels (label, kind, service, risk_level, updated_at, task_id)
    SELECT '{label}', kind, service, coalesce(risk_level, ''), updated_at, id FROM tasks
    WHERE labels LIKE '%"{label}"%'
"""
_PAGES = """
    INSERT INTO slice_pages (task_id, first_key, last_key, slice_count, body, written_at)
    SELECT {task_id}, {key}, {key}, 10, {blob}, {first} + n * {second} FROM series
"""
_LONG = f"""
    INSERT INTO slice_pages (task_id, first_key, last_key, slice_count, body, written_at)
    SELECT '{LONG_STREAM}', {{key}}, {{key}}, 10, {{blob}}, {FIRST} + n * {SECOND} FROM series
"""  # noqa: S608
_CALLBACKS = """
    INSERT INTO callbacks (id, address_id, task_id, state, digest, checksum, content, size, received_at)
    SELECT 'cb_' || (10000000000 + n), CASE WHEN n % 300 = 0 THEN 'rcv_1' ELSE {task_id} END, {task_id},
        CASE WHEN n % 1000 = 9 THEN 'unreadable' WHEN n % 5000 = 8 THEN 'quarantined' ELSE 'accepted' END,
        {key}, 'checksum', {blob}, 100, {first} + n * {second}
    FROM series
"""
_EVENTS = """
    INSERT INTO events (id, type, task_id, created_at, data)
    SELECT 'evt_' || (10000000000 + n), CASE WHEN n % 100 = 0 THEN 'task.failed' WHEN n % 5000 = 1
        THEN 'stream.silent' WHEN n % 20 = 2 THEN 'slice.flagged' ELSE 'task.completed' END,
        {task_id}, {first} + n * {second}, {blob}
    FROM series
"""
_SUBSCRIPTIONS = """
    INSERT INTO subscriptions (id, url, event_types, filter, format, state, secret, created_at)
    SELECT 'sub_' || (n - 1), 'https://hooks.example.com', '[]', '{{}}', 'standard', 'active', {blob}, {first}
    FROM series
"""
_DELIVERIES = """
    INSERT INTO deliveries (id, event_id, event_type, subscription_id, state, attempt_count, schedule_from,
        next_attempt_at, created_at)
    SELECT 'dlv_' || (10000000000 + n), 'evt_' || (10000000000 + n), 'task.completed', 'sub_' || (n % 2),
        CASE WHEN {is_new} THEN 'pending' WHEN n % 1000 < 2 THEN 'dead' ELSE 'delivered' END, 1, 0,
        CASE WHEN {is_new} THEN {first} END, {first} + n * {second}
    FROM series
"""
_ATTEMPTS = """
    INSERT INTO delivery_attempts (delivery_id, number, at, status, duration_ms)
    SELECT 'dlv_' || (10000000000 + n), 1, {first} + n * {second}, 200, 20 FROM series
"""
_EVIDENCE = """
    INSERT INTO evidence (task_id, slice_key, state, url, attempt_count, next_attempt_at, created_at)
    SELECT {task_id}, {key}, CASE WHEN {is_new} THEN 'pending' ELSE 'saved' END, {blob}, 0,
        CASE WHEN {is_new} THEN {first} END, {first} + n * {second}
    FROM series
"""
_AUDIT = """
    INSERT INTO audit_log (number, at, actor, action, object_id, details, hash)
    SELECT n, {first} + n * {second}, CASE WHEN n % 3000 = 5 THEN 'key_rare' ELSE 'key_' || n % 3 END,
        CASE WHEN n % 4000 = 3 THEN 'callback.read' WHEN n % 10 = 1 THEN 'task.created' ELSE 'slices.read' END,
        CASE WHEN n % 10 != 2 THEN {task_id} END, '{{}}', {blob}
    FROM series
"""
_TOMBSTONES = """
    INSERT INTO tombstones (task_id, token_digest, erased_at, erased_by, finished_at)
    SELECT 'gone_' || n, {key}, {first} + n * {second}, 'key_1', CASE WHEN n % 5000 > 1 THEN {first} END FROM series
"""
_HOLDS = """
    INSERT INTO holds (task_id, placed_at, placed_by) SELECT {task_id}, {first}, 'key_1' FROM series
"""


def fill(url: str, *, tasks: int, analyze: bool = True) -> None:
    """Fill a migrated and empty database with so many tasks, and all that has come with them."""
    engine = sa.create_engine(url)
    postgresql = engine.dialect.name == "postgresql"
    with engine.begin() as session:

        def insert(statement: str, rows: int = tasks) -> None:
            series = (_GENERATED if postgresql else _COUNTED).format(rows=rows)
            words = {
                "task_id": "'task_' || '00000000000000000' || (10000000000 + n)",
                "key": _bytes("'key' || (10000000000 + n)", postgresql=postgresql),
                "blob": _bytes("'0123456789012345678901234567890123456789'", postgresql=postgresql),
                "tasks": tasks,
                "first": FIRST,
                "second": SECOND,
                "is_new": _IS_NEW.format(tasks=tasks),
            }
            text = statement.format(**words).replace("FROM series", f"FROM {series}")
            session.exec_driver_sql(text.replace("%", "%%") if postgresql else text)

        insert(_TASKS)
        for label in _LABELS:
            session.execute(sa.text(_NOTED.format(label=label)))
        insert(_PAGES)
        insert(_LONG, LONG_STREAM_PAGES)
        for statement in (_CALLBACKS, _EVENTS, _DELIVERIES, _ATTEMPTS, _EVIDENCE, _TOMBSTONES, _AUDIT):
            insert(statement)
        insert(_SUBSCRIPTIONS, 2)
        insert(_HOLDS, 5)
    if postgresql:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
            session.exec_driver_sql("VACUUM ANALYZE")
    elif analyze:
        with engine.begin() as session:
            session.exec_driver_sql("ANALYZE")
    engine.dispose()


def task_id(number: int) -> str:
    """Return the id of a task, counted from 1."""
    return f"task_{'0' * 17}{10000000000 + number}"


def key(number: int) -> bytes:
    """Return the key of a page of the long stream, counted from 1."""
    return f"key{10000000000 + number}".encode()


def made_at(number: int) -> datetime:
    """Return when a task was made."""
    return clock.from_microseconds(FIRST + number * SECOND)


def _bytes(text: str, *, postgresql: bool) -> str:
    return f"convert_to({text}, 'UTF8')" if postgresql else f"CAST({text} AS BLOB)"
