"""Voice moderation callbacks, verified, stored and passed on.

The way of the data, and the modules it passes::

    callback   callbacks -> signatures.verify -> payloads.parse -> ingest (group commit) -> store
    event      written by ingest, tasks and subscriptions in the same transaction as the fact
    delivery   workers -> deliveries.fan_out -> claim -> transport.send -> settle
    task       api -> tasks.submit (the row first) -> workers -> platform_client.submit -> settle

`settings` alone reads the environment; `bootstrap` puts the parts together; `app`, `workers` and
`cli` are the edges. `sandbox` is a separate program that stands in for the platform.
"""

__version__ = "0.1.0"
