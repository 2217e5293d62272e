"""What the web process counts, for Prometheus; nothing here carries an id, a token or a text."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class Metrics:
    """The counters of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        callbacks = Counter(
            "webhook_callbacks",
            "Callbacks answered, by outcome.",
            ["outcome"],
            registry=self.registry,
        )
        # one child each, made once: looking it up by label costs more than counting
        self.callbacks = {
            outcome: callbacks.labels(outcome)
            for outcome in (
                "accepted",
                "duplicate",
                "unreadable",
                "quarantined",
                "malformed",
                "unknown_token",
                "unavailable",
            )
        }
        self.callback_seconds = Histogram(
            "webhook_callback_seconds",
            "From the callback's body being read to its answer, the commit included.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.requests = Counter(
            "webhook_api_requests",
            "Requests to the REST API, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
