"""What the web processes count, for Prometheus; nothing here carries an id, a token or a text.

Where there are several, each keeps its counters in files of a directory that they share, and any of them shows the
sums. prometheus_client decides it when it is loaded, by `SHARED` in the environment (`processes` puts it there).
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.multiprocess import MultiProcessCollector

SHARED = "PROMETHEUS_MULTIPROC_DIR"


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
                "erased",
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

    def show(self, registry: CollectorRegistry) -> None:
        """Add the counters of all web processes to what a registry shows."""
        if SHARED in os.environ:
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call] # it registers itself
        else:
            registry.register(self.registry)
