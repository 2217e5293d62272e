"""Every sealed column is known to whoever is concerned with all of them."""

from __future__ import annotations

from sqlalchemy.types import LargeBinary

from webhook import models
from webhook.store.sealed import SEALED

NOT_SEALED = {
    "api_keys.digest",
    "audit_log.hash",
    "callbacks.digest",
    "data_keys.wrapped",  # by a master key, as it should be
    "evidence.slice_key",
    "idempotency_keys.request_digest",
    "receivers.token_digest",
    "slice_pages.first_key",
    "slice_pages.last_key",
    "tasks.token_digest",
    "tombstones.token_digest",
}


def test_every_column_of_bytes_is_sealed_or_known_to_hold_nothing_secret() -> None:
    held = {
        f"{table.name}.{column.name}"
        for table in models.metadata.tables.values()
        for column in table.columns
        if isinstance(column.type, LargeBinary)
    }
    assert held == {column.label for column in SEALED} | NOT_SEALED
