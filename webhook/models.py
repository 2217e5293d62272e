"""The tables. Times are microseconds since 1970; blobs marked sealed are opened by `crypto.Keyring`."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa
from sqlalchemy.types import BigInteger, Integer, LargeBinary, TypeDecorator
from typing_extensions import override

from webhook import clock

if TYPE_CHECKING:
    from typing import Any

    from sqlalchemy.engine import Dialect

REVISION = "0010"  # the newest of migrations/versions

# Text in the order of its bytes on both databases: ids are sorted, and labels looked for by prefix.
String = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_Serial = BigInteger().with_variant(Integer, "sqlite")


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time, kept as microseconds since 1970."""

    impl = BigInteger
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else clock.to_microseconds(value)

    @override
    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else clock.from_microseconds(value)


def to_json(value: Any) -> str:
    """Write a small JSON value as the database keeps it."""
    return msgspec.json.encode(value).decode()


class Json(TypeDecorator["Any"]):
    """A small JSON value, kept as text."""

    impl = String
    cache_ok = True

    @override
    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else to_json(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else msgspec.json.decode(value)


def _partial(where: sa.ColumnElement[bool] | sa.TextClause) -> dict[str, Any]:
    """Return what limits an index to some rows."""
    return {"sqlite_where": where, "postgresql_where": where}


metadata = sa.MetaData()

meta = sa.Table(
    "meta",
    metadata,
    sa.Column("name", String, primary_key=True),
    sa.Column("value", LargeBinary, nullable=False),
)

# What values are sealed under. A row stays when its key is destroyed: its number is never used again.
data_keys = sa.Table(
    "data_keys",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("suite", String, nullable=False),  # aes-256-gcm | sm4-gcm
    sa.Column("master_key_id", String, nullable=False),  # of the master key that wraps it
    sa.Column("wrapped", LargeBinary),  # sealed under that master key; none once it is destroyed
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("destroyed_at", UtcTime),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", String, primary_key=True),
    sa.Column("name", String, nullable=False),
    sa.Column("role", String, nullable=False),
    sa.Column("digest", LargeBinary, nullable=False, unique=True),  # keyed: api_keys.ApiKeys.digest
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("revoked_at", UtcTime),
    sa.Column("expires_at", UtcTime),
    sa.Column("last_used_at", UtcTime),  # to the minute
    sa.Column("networks", Json),  # from which it may be used; none is from anywhere
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("client", String, primary_key=True),  # id of the API key
    sa.Column("route", String, primary_key=True),
    sa.Column("key", String, primary_key=True),
    sa.Column("request_digest", LargeBinary, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("body", LargeBinary, nullable=False),  # sealed: it may show a secret
    sa.Column("created_at", UtcTime, nullable=False, index=True),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", String, primary_key=True),
    sa.Column("origin", String, nullable=False),
    sa.Column("kind", String, nullable=False),
    sa.Column("service", String, nullable=False),
    sa.Column("state", String, nullable=False),
    sa.Column("source", Json, nullable=False),
    sa.Column("data_id", String),
    sa.Column("live_id", String),
    sa.Column("referer", String),
    sa.Column("crypt_type", String, nullable=False),
    sa.Column("token_digest", LargeBinary, unique=True),  # SHA-256; none for external tasks
    sa.Column("secrets", LargeBinary),  # sealed JSON {token, seed}
    sa.Column("receiver_id", String),
    sa.Column("platform_task_id", String),
    sa.Column("error", Json),
    sa.Column("risk_level", String),
    sa.Column("stated_risk_level", String),  # the highest Data.RiskLevel that came
    sa.Column("labels", Json, nullable=False),
    sa.Column("slice_count", sa.Integer, nullable=False),
    sa.Column("flagged_slice_count", sa.Integer, nullable=False),
    sa.Column("last_slice_at", UtcTime),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("submitted_at", UtcTime),
    sa.Column("finished_at", UtcTime),
    sa.Column("updated_at", UtcTime, nullable=False),
    sa.Column("cancel_requested_at", UtcTime),
    sa.Column("attempt_count", sa.Integer, nullable=False),  # calls of the platform in this state
    sa.Column("next_attempt_at", UtcTime),  # when a worker should call the platform; none when it need not
    sa.Column("lease", String),
    sa.Column("lease_until", UtcTime),
    sa.Column("upload_size", BigInteger),  # bytes of the file on our disk, none once it is handed over
    sa.Column("uploaded", Json),  # where it lies at the platform: {bucket, object}
    sa.Column("uploaded_at", UtcTime),
    sa.Column("started_at", UtcTime),  # when the platform first told that a stream runs
    sa.Column("answered_at", UtcTime),  # when the platform last told of it, by callback or query
    sa.Column("silent_since", UtcTime),
)
sa.Index(
    "tasks_active_live_id",
    tasks.c.service,
    tasks.c.live_id,
    unique=True,
    **_partial(sa.text("origin = 'submitted' AND kind = 'live' AND state IN ('queued', 'processing')")),
)
sa.Index("tasks_waiting", tasks.c.next_attempt_at, **_partial(tasks.c.state == sa.literal_column("'queued'")))
sa.Index(
    "tasks_uploads",
    tasks.c.created_at,
    tasks.c.id,
    **_partial(sa.text("state = 'queued' AND upload_size IS NOT NULL")),
)
sa.Index(
    "tasks_due",
    tasks.c.next_attempt_at,
    tasks.c.id,
    **_partial(sa.text("next_attempt_at IS NOT NULL AND state != 'queued'")),
)
# Each list is one range of one index, or a few that are merged: `store.lists`. Those with `updated_at` are rewritten
# with every result, so all that verdicts are looked for by stands in one.
sa.Index("tasks_listed", tasks.c.kind, tasks.c.state, tasks.c.created_at, tasks.c.id)
sa.Index("tasks_verdicts", tasks.c.kind, tasks.c.service, tasks.c.risk_level, tasks.c.updated_at, tasks.c.id)
for _name in ("data_id", "live_id"):
    _given = _partial(tasks.c[_name].is_not(None))
    sa.Index(f"tasks_{_name}", tasks.c[_name], tasks.c.created_at, tasks.c.id, **_given)
    sa.Index(f"tasks_{_name}_verdicts", tasks.c[_name], tasks.c.updated_at, tasks.c.id, **_given)

# What verdicts are looked for by beside a label stands in it, too, as it is in the task: a list is a range of the key.
task_labels = sa.Table(
    "task_labels",
    metadata,
    sa.Column("label", String, primary_key=True),
    sa.Column("kind", String, primary_key=True),
    sa.Column("service", String, primary_key=True),
    sa.Column("risk_level", String, primary_key=True),  # empty where the task has none
    sa.Column("updated_at", UtcTime, primary_key=True),
    sa.Column("task_id", String, primary_key=True),
    sqlite_with_rowid=False,
)

receivers = sa.Table(
    "receivers",
    metadata,
    sa.Column("id", String, primary_key=True),
    sa.Column("name", String, nullable=False),
    sa.Column("crypt_type", String, nullable=False),
    sa.Column("uid", String),
    sa.Column("token_digest", LargeBinary, nullable=False, unique=True),
    sa.Column("secrets", LargeBinary, nullable=False),  # sealed JSON {token, seed}
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("deleted_at", UtcTime),
)

callbacks = sa.Table(
    "callbacks",
    metadata,
    sa.Column("id", String, primary_key=True),
    sa.Column("address_id", String, nullable=False),  # the task's or receiver's whose token was called
    sa.Column("task_id", String),
    sa.Column("state", String, nullable=False),  # accepted | unreadable | quarantined
    sa.Column("digest", LargeBinary, nullable=False),  # SHA-256 of the content
    sa.Column("checksum", String, nullable=False),
    sa.Column("stated_task_id", String),  # the form's taskId: a hint, not covered by the checksum
    sa.Column("reason", String),
    sa.Column("message", String),
    sa.Column("content", LargeBinary, nullable=False),  # sealed; empty where it is not kept
    sa.Column("size", sa.Integer, nullable=False),  # bytes of the content as it came
    sa.Column("received_at", UtcTime, nullable=False),
)
sa.Index(
    "callbacks_once",
    callbacks.c.address_id,
    callbacks.c.digest,
    unique=True,
    **_partial(callbacks.c.state != sa.literal_column("'quarantined'")),
)
sa.Index(
    "callbacks_quarantined_once",
    callbacks.c.address_id,
    callbacks.c.digest,
    callbacks.c.checksum,
    unique=True,
    **_partial(callbacks.c.state == sa.literal_column("'quarantined'")),
)
sa.Index(
    "callbacks_not_accepted",
    callbacks.c.state,
    callbacks.c.id,
    **_partial(callbacks.c.state != sa.literal_column("'accepted'")),
)

# a task's own callbacks are found by its address
sa.Index(
    "callbacks_of_external",
    callbacks.c.task_id,
    callbacks.c.id,
    **_partial(sa.text("task_id != address_id")),
)

# The slices of a task in time order, cut into pages whose ranges do not overlap. Few large rows
# cost a third of one row a slice, and compress; the order lets a reader open only the pages it shows.
slice_pages = sa.Table(
    "slice_pages",
    metadata,
    sa.Column("task_id", String, primary_key=True),
    sa.Column("first_key", LargeBinary, primary_key=True),  # payloads.slice_key of the first slice
    sa.Column("last_key", LargeBinary, nullable=False),
    sa.Column("slice_count", sa.Integer, nullable=False),
    sa.Column("body", LargeBinary, nullable=False),  # sealed JSON array of slices
    sa.Column("written_at", UtcTime),  # none once only risk, labels and times are left
)
sa.Index("slice_pages_text", slice_pages.c.written_at, **_partial(slice_pages.c.written_at.is_not(None)))

# The audio of flagged slices of streams, whose links end after half an hour; the bytes lie in a store.
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("task_id", String, primary_key=True),
    sa.Column("slice_key", LargeBinary, primary_key=True),  # payloads.slice_key
    sa.Column("state", String, nullable=False),  # pending | saved | expired | failed | erased
    sa.Column("url", LargeBinary, nullable=False),  # sealed
    sa.Column("content_type", String),
    sa.Column("size", BigInteger),  # bytes of the audio
    sa.Column("object", String),  # its name in the store
    sa.Column("data_key_id", sa.Integer),  # what it is sealed under there; none where that is a master key
    sa.Column("reason", String),  # why the last attempt did not save it
    sa.Column("attempt_count", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", UtcTime),
    sa.Column("lease", String),
    sa.Column("lease_until", UtcTime),
    sa.Column("created_at", UtcTime, nullable=False),
)
sa.Index("evidence_due", evidence.c.next_attempt_at, **_partial(evidence.c.next_attempt_at.is_not(None)))
sa.Index("evidence_kept", evidence.c.created_at, **_partial(evidence.c.state != sa.literal_column("'erased'")))

# What the platform lets the account do, shared by all workers: calls a second, and whether any pass at all.
limits = sa.Table(
    "limits",
    metadata,
    sa.Column("name", String, primary_key=True),  # submits | queries | streams
    sa.Column("spent_until", UtcTime),  # the time up to which the rate is used (GCRA's theoretical arrival time)
    sa.Column("closed_until", UtcTime),  # no call before
    sa.Column("closed_at", UtcTime),
    sa.Column("reason", String),  # why it was closed; none while it is open
    sa.Column("closed_count", sa.Integer, nullable=False),  # in a row
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("seq", _Serial, primary_key=True, autoincrement=True),
    sa.Column("id", String, nullable=False, unique=True),
    sa.Column("type", String, nullable=False),
    sa.Column("task_id", String),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("data", LargeBinary, nullable=False),  # sealed JSON; empty once its task is erased
    sqlite_autoincrement=True,  # a number is never used again: the feed's cursors stay true
)
sa.Index("events_type", events.c.type, events.c.seq)
sa.Index("events_task", events.c.task_id, **_partial(events.c.task_id.is_not(None)))

cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("name", String, primary_key=True),
    sa.Column("seq", BigInteger, nullable=False),  # events up to this one are done
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    sa.Column("id", String, primary_key=True),
    sa.Column("url", String, nullable=False),  # as it is shown
    sa.Column("sealed_url", LargeBinary),  # sealed, where the URL has a password
    sa.Column("event_types", Json, nullable=False),
    sa.Column("filter", Json, nullable=False),
    sa.Column("format", String, nullable=False),
    sa.Column("description", String),
    sa.Column("state", String, nullable=False),  # active | disabled
    sa.Column("disabled_reason", String),
    sa.Column("secret", LargeBinary, nullable=False),  # sealed
    sa.Column("previous_secret", LargeBinary),  # sealed
    sa.Column("previous_secret_until", UtcTime),
    sa.Column("failing_since", UtcTime),
    sa.Column("ordering", String),  # task | none
    sa.Column("max_in_flight", sa.Integer),
    sa.Column("max_per_second", sa.Integer),
    sa.Column("spent_until", UtcTime),  # the time up to which the rate is used
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),  # in a row; what a pause ends is one
    sa.Column("paused_until", UtcTime),
    sa.Column("stamp", BigInteger, nullable=False, server_default="0"),  # another with every change
    sa.Column("created_at", UtcTime, nullable=False),
)

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", String, primary_key=True),
    sa.Column("event_id", String, nullable=False),
    sa.Column("event_type", String, nullable=False),
    sa.Column("subscription_id", String, nullable=False),
    sa.Column("state", String, nullable=False),  # pending | delivered | dead
    sa.Column("attempt_count", sa.Integer, nullable=False),
    sa.Column("schedule_from", sa.Integer, nullable=False),  # attempts made before it was last owed anew
    sa.Column("next_attempt_at", UtcTime),
    sa.Column("lease", String),
    sa.Column("lease_until", UtcTime),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("order_key", String),  # the task, where its events keep their order
    sa.Column("event_seq", BigInteger),  # then the event's place in the feed
    sa.UniqueConstraint("subscription_id", "event_id"),
)
sa.Index(
    "deliveries_in_order",
    deliveries.c.subscription_id,
    deliveries.c.order_key,
    deliveries.c.event_seq,
    **_partial(sa.text("order_key IS NOT NULL AND state = 'pending'")),
)
sa.Index(
    "deliveries_due",
    deliveries.c.subscription_id,
    deliveries.c.next_attempt_at,
    deliveries.c.id,
    **_partial(deliveries.c.state == sa.literal_column("'pending'")),
)
sa.Index("deliveries_of_subscription", deliveries.c.subscription_id, deliveries.c.state, deliveries.c.id)

delivery_attempts = sa.Table(
    "delivery_attempts",
    metadata,
    sa.Column("delivery_id", String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("error", String),
    sa.Column("duration_ms", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

# What is left of an erased task.
tombstones = sa.Table(
    "tombstones",
    metadata,
    sa.Column("task_id", String, primary_key=True),
    sa.Column("token_digest", LargeBinary, unique=True),  # of its address; none for external tasks
    sa.Column("erased_at", UtcTime, nullable=False),
    sa.Column("erased_by", String, nullable=False),  # id of the API key
    sa.Column("finished_at", UtcTime),  # when nothing of it was left in tables, store and log
)
sa.Index("tombstones_unfinished", tombstones.c.erased_at, **_partial(tombstones.c.finished_at.is_(None)))

# Tasks that are neither erased nor past any retention.
holds = sa.Table(
    "holds",
    metadata,
    sa.Column("task_id", String, primary_key=True),
    sa.Column("placed_at", UtcTime, nullable=False),
    sa.Column("placed_by", String, nullable=False),  # id of the API key
)

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("process", String, primary_key=True),
    sa.Column("at", UtcTime, nullable=False),
)

# What was done and read, by whom: each row's hash covers the one before it (`audit`). None is ever changed or removed.
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("number", _Serial, primary_key=True, autoincrement=False),  # 1, 2, 3, without a gap
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("actor", String, nullable=False),  # id of the API key | bootstrap | cli:USER | service
    sa.Column("actor_name", String),
    sa.Column("role", String),
    sa.Column("address", String),
    sa.Column("request_id", String),
    sa.Column("action", String, nullable=False),
    sa.Column("object_id", String),
    sa.Column("status", sa.Integer),  # of the answer, none for commands
    sa.Column("details", String, nullable=False),  # JSON, as it was hashed
    sa.Column("hash", LargeBinary, nullable=False),  # SHA-256
)
for _names in (("at",), ("actor", "at"), ("action", "at"), ("actor", "action", "at")):
    sa.Index(f"audit_log_{'_'.join(_names)}", *[audit_log.c[_name] for _name in _names], audit_log.c.number)
sa.Index(
    "audit_log_object_id_at",
    audit_log.c.object_id,
    audit_log.c.at,
    audit_log.c.number,
    **_partial(audit_log.c.object_id.is_not(None)),
)
_REFUSAL = "audit_log is append-only"
_TRIGGERS = {
    "audit_log_no_update": f"BEFORE UPDATE ON audit_log BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
    "audit_log_no_delete": f"BEFORE DELETE ON audit_log BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",
}
_FUNCTION = f"""
    CREATE FUNCTION audit_log_is_append_only() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
"""
_TRIGGER = """
    CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only()
"""
for _dialect, _statements in {
    "sqlite": [f"CREATE TRIGGER {name} {rest}" for name, rest in _TRIGGERS.items()],
    "postgresql": [_FUNCTION, _TRIGGER],
}.items():
    for _statement in _statements:
        _made_with_it = sa.DDL(_statement).execute_if(dialect=_dialect)  # type: ignore[no-untyped-call]
        sa.event.listen(audit_log, "after_create", _made_with_it)
