"""Streams watched: one that brings nothing for a while is silent, whatever the platform says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from webhook.store import events as event_store
from webhook.store import tasks as task_store

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from webhook.db import Session
    from webhook.ingest import Ingest


def note_silence(session: Session, ingest: Ingest, *, now: datetime, after: timedelta) -> int:
    """Note the running streams that have brought no slice for so long, and raise `stream.silent`, once a silence.

    Returns:
        How many there are.
    """
    quiet = task_store.quiet_streams(session, since=now - after)
    for stream in quiet:
        since = stream.last_slice_at or stream.started_at
        task_store.update_task(session, stream.id, silent_since=since)
        silent = msgspec.structs.replace(stream, silent_since=since)
        event_store.insert_events(session, [ingest.stream_event("stream.silent", silent)])
    return len(quiet)
