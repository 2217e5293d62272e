"""Readiness and metrics: what a machine asks of the service's health; nothing in them is secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from webhook import clock, limits
from webhook.deliveries import CURSOR
from webhook.errors import DatabaseError
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import evidence as evidence_store
from webhook.store import keys as key_store
from webhook.store import limits as limit_store
from webhook.store import tasks as task_store

if TYPE_CHECKING:
    from collections.abc import Iterable

    from webhook.bootstrap import Service
    from webhook.metrics import Metrics

_MISSED_BEATS = 3
_WEB = "web"
_SHOWN_LIMITS = {"submissions": limits.SUBMITS, "queries": limits.QUERIES}


def readiness(service: Service) -> tuple[bool, dict[str, Any]]:
    """Return whether callbacks can be taken, and the state of each dependency."""
    settings = service.settings
    worker = "unknown"
    stopped: list[str] = []
    try:
        if service.database.trouble is not None:  # can it be written again?
            with service.database.transaction() as session:
                key_store.beat(session, _WEB, now=clock.now())
        with service.database.read() as session:
            beat = key_store.last_beat(session, key_store.WORKER)
            stopped = [
                f"{name} wait: {found.reason}"
                for name, limit in _SHOWN_LIMITS.items()
                if (found := limit_store.limit(session, limit)).is_closed
            ]
        database = "ok"
        alive = beat is not None and clock.now() - beat < key_store.HEARTBEAT * _MISSED_BEATS
        worker = "ok" if alive else "no sign of life"
    except DatabaseError:
        database = "unavailable"
    platform = "configured" if settings.access_key_id and settings.access_key_secret else "no credentials"
    if stopped:  # callbacks are taken all the same
        platform = ", ".join(stopped)
    body = {
        "status": "ready" if database == "ok" else "not ready",
        "dependencies": {
            "database": database,
            "worker": worker,
            "platform": platform,
            "verification": "ok" if settings.platform_uid else "WEBHOOK_PLATFORM_UID is not set",
        },
    }
    return database == "ok", body


def exposition(service: Service, metrics: Metrics) -> bytes:
    """Return Prometheus' text: the web processes' counters, and what the database knows."""
    registry = CollectorRegistry()
    metrics.show(registry)
    registry.register(_Gauges(service))
    return generate_latest(registry)


class _Gauges(Collector):
    """Counts taken from the database at the time of asking."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the gauges; none but `webhook_database_up` when the database is away."""
        up = GaugeMetricFamily("webhook_database_up", "Whether the database can be read.")
        try:
            found = list(self._read())
        except DatabaseError:
            up.add_metric([], 0)
            return [up]
        up.add_metric([], 1)
        return [up, *found]

    def _read(self) -> Iterable[GaugeMetricFamily]:
        with self._service.database.read() as session:
            tasks = task_store.count_by_state(session, task_store.ACTIVE_STATES)
            kept = callback_store.count_by_state(session)
            pending = delivery_store.count_pending(session)
            audio = evidence_store.count_pending(session)
            behind = event_store.behind(session, CURSOR)
            beat = key_store.last_beat(session, key_store.WORKER)
            closed = {each.name: int(each.is_closed) for each in limit_store.all_limits(session)}
        yield _gauge("webhook_tasks", "Tasks that are not over, by state.", "state", tasks)
        yield _gauge("webhook_callbacks_kept", "Callbacks kept that are not results, by state.", "state", kept)
        yield _gauge("webhook_deliveries_pending", "Deliveries owed, by subscription.", "subscription", pending)
        yield _gauge("webhook_evidence_pending", "Slices whose audio is still to be saved.", None, {"": audio})
        yield _gauge("webhook_events_behind", "Events that were not fanned out yet.", None, {"": behind})
        yield _gauge("webhook_limit_closed", "Whether the platform turns calls away, by limit.", "limit", closed)
        age = (clock.now() - beat).total_seconds() if beat else float("nan")
        yield _gauge("webhook_worker_beat_age_seconds", "Since the worker's last sign of life.", None, {"": age})


def _gauge(name: str, meaning: str, label: str | None, values: dict[str, Any]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=[] if label is None else [label])
    for key, value in values.items():
        family.add_metric([] if label is None else [key], value)
    return family
