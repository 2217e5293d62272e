"""The steps at which a process of the service can be killed: the entries and exits of its functions, by flow."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Point(NamedTuple):
    """A step.

    Attributes:
        target: a function of the service, `module:name`.
        side: whether the process dies before it or after it.
    """

    target: str
    side: Literal["enter", "leave"]


POINTS: dict[str, Point] = {
    # a callback is received
    "callback.read": Point("webhook.callbacks:CallbackReceiver._verify", "enter"),
    "callback.verified": Point("webhook.callbacks:CallbackReceiver._verify", "leave"),
    "callback.storing": Point("webhook.callbacks:CallbackReceiver._commit", "enter"),
    "callback.before_commit": Point("webhook.ingest:Ingest.accept", "leave"),
    "callback.after_commit": Point("webhook.callbacks:CallbackReceiver._commit", "leave"),
    "callback.before_answer": Point("webhook.callbacks:CallbackReceiver._outcome", "leave"),
    "callback.quarantined": Point("webhook.quarantine:Quarantine.keep", "leave"),
    # a task is created, once for an idempotency key
    "create.admitted": Point("webhook.api.routing:_once", "enter"),
    "create.written": Point("webhook.tasks:Tasks.submit", "leave"),
    "create.before_commit": Point("webhook.api.routing:_once", "leave"),
    "create.after_commit": Point("webhook.api.http:respond", "leave"),
    # it is submitted
    "submit.claiming": Point("webhook.claims:Claims.claim", "leave"),
    "submit.claimed": Point("webhook.workers:Worker._claim_calls", "leave"),
    "submit.before_call": Point("webhook.platform_client:PlatformClient.submit", "enter"),
    "submit.after_call": Point("webhook.platform_client:PlatformClient.submit", "leave"),
    "submit.before_commit": Point("webhook.calls:Calls._settle_submitted", "leave"),
    "submit.settled": Point("webhook.calls:Calls._submit", "leave"),
    # an uploaded file is handed over
    "upload.begun": Point("webhook.uploads:Uploads.begin", "leave"),
    "upload.before_adoption": Point("webhook.uploads:Uploads.adopt", "enter"),
    "upload.adopted": Point("webhook.uploads:Uploads.adopt", "leave"),
    "upload.before_call": Point("webhook.platform_client:PlatformClient.upload", "enter"),
    "upload.after_call": Point("webhook.platform_client:PlatformClient.upload", "leave"),
    "upload.settled": Point("webhook.calls:Calls._upload", "leave"),
    "upload.before_discard": Point("webhook.uploads:Uploads.discard", "enter"),
    "upload.discarded": Point("webhook.uploads:Uploads.discard", "leave"),
    # its result is asked for
    "query.before_call": Point("webhook.platform_client:PlatformClient.query", "enter"),
    "query.after_call": Point("webhook.platform_client:PlatformClient.query", "leave"),
    "query.before_commit": Point("webhook.ingest:Ingest.accept_polled", "leave"),
    "query.settled": Point("webhook.calls:Calls._query", "leave"),
    # events are delivered
    "delivery.turn": Point("webhook.deliveries:Deliveries.turn", "enter"),
    "delivery.fanned_out": Point("webhook.deliveries:Deliveries._fan_out", "leave"),
    "delivery.before_commit": Point("webhook.deliveries:Deliveries.turn", "leave"),
    "delivery.claimed": Point("webhook.workers:Worker._take_turn", "leave"),
    "delivery.before_send": Point("webhook.transports:Transports.send", "enter"),
    "delivery.after_send": Point("webhook.transports:Transports.send", "leave"),
    "delivery.attempted": Point("webhook.deliveries:Deliveries.attempt", "leave"),
    "delivery.settling": Point("webhook.deliveries:Deliveries._settle", "leave"),
    # a stream is canceled
    "cancel.before_commit": Point("webhook.tasks:Tasks.cancel", "leave"),
    "cancel.before_call": Point("webhook.platform_client:PlatformClient.cancel", "enter"),
    "cancel.after_call": Point("webhook.platform_client:PlatformClient.cancel", "leave"),
    "cancel.settling": Point("webhook.tasks:Tasks.finish", "leave"),
    "cancel.settled": Point("webhook.calls:Calls._cancel", "leave"),
    # the audio of a flagged slice is saved
    "evidence.claimed": Point("webhook.captures:Captures._claim", "leave"),
    "evidence.before_fetch": Point("webhook.segments:Segments.fetch", "enter"),
    "evidence.fetched": Point("webhook.segments:Segments.fetch", "leave"),
    "evidence.before_store": Point("webhook.evidence_stores:Directory.put", "enter"),
    "evidence.stored": Point("webhook.evidence_stores:Directory.put", "leave"),
    "evidence.before_commit": Point("webhook.evidence:Evidence.settle", "leave"),
    "evidence.settled": Point("webhook.captures:Captures._settle", "leave"),
    # a subscription's signing secret is rotated
    "rotation.begun": Point("webhook.subscriptions:rotate_secret", "enter"),
    "rotation.before_commit": Point("webhook.subscriptions:rotate_secret", "leave"),
}

START_POINTS: dict[str, Point] = {
    "start.migrated": Point("webhook.processes:migrate", "leave"),
    "start.keys_checked": Point("webhook.bootstrap:check_keys", "leave"),
    "start.built": Point("webhook.bootstrap:build", "leave"),
}

MIGRATION_POINTS: dict[str, Point] = {
    "migration.begun": Point("webhook.migrations:upgrade", "enter"),
    "migration.step": Point("alembic.runtime.migration:HeadMaintainer.update_to_step", "leave"),
    "migration.before_commit": Point("webhook.migrations:upgrade", "leave"),
    "migration.after_commit": Point("webhook.bootstrap:upgrade", "leave"),
}

ALL_POINTS = POINTS | START_POINTS | MIGRATION_POINTS

# What a run does not wait for as long as production does: the waits are the same in kind, and only shorter.
HURRIED: dict[str, str] = {
    "webhook.platform_client:_CONNECT_TIMEOUT_MS": "1_000",
    "webhook.platform_client:_READ_TIMEOUT_MS": "1_500",
    "webhook.platform_client:_PROBE_TIMEOUT_MS": "1_000",
    "webhook.claims:LEASE": "timedelta(seconds=6)",  # a cancel is two calls
    "webhook.claims:UPLOAD_LEASE": "timedelta(seconds=6)",
    "webhook.calls:UPLOAD_LEASE": "timedelta(seconds=6)",
    "webhook.calls:_RENEW_SECONDS": "1.0",
    "webhook.limits:_TRIAL": "timedelta(seconds=3)",
    "webhook.backoff:MAX_SUBMIT_DELAY_SECONDS": "2.0",
    "webhook.backoff:LONGEST_POLL_GAP": "timedelta(seconds=2)",
    "webhook.backoff:MAX_CLOSED": "timedelta(seconds=2)",
    "webhook.backoff:FIRST_PAUSE": "timedelta(seconds=0.5)",
    "webhook.backoff:LONGEST_PAUSE": "timedelta(seconds=1)",
    "webhook.backoff:DELIVERY_SCHEDULE": "(timedelta(0),) + (timedelta(seconds=1),) * 60",
    "webhook.backoff:CAPTURE_SCHEDULE": "(timedelta(seconds=1),)",
    "webhook.store.keys:HEARTBEAT": "timedelta(seconds=1)",
}
