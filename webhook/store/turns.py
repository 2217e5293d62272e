"""What a turn of deliveries begins with; a server is asked for all of it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from webhook.db import is_postgresql, try_alone
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store.events import EventRow  # noqa: TC001 - msgspec reads the annotations
from webhook.store.text import fetch_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.db import Session


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """What is there at the beginning of a turn.

    Attributes:
        version: differs when any subscription was made, changed or deleted.
        held: of the deliveries asked for those that are still under the lease, and how many attempts each has had.
        events: those after the reader's place, oldest first; None where another transaction is at them.
    """

    version: tuple[Any, ...]
    held: dict[str, int]
    events: list[EventRow] | None


def begin(session: Session, *, reader: str, limit: int, delivery_ids: Sequence[str], lease: str) -> Beginning:
    """Lock and read what a turn is about.

    Args:
        reader: whose place in the feed, which nobody else moves on until the transaction ends.
        limit: of events.
        delivery_ids: deliveries whose attempts have ended.
    """
    asked: list[tuple[str, Sequence[Any]]] = [(delivery_store.VERSION, ())]
    if delivery_ids:
        asked.append(delivery_store.ask_held(session, delivery_ids, lease=lease))
    if is_postgresql(session):
        asked.append(try_alone(reader))
    [version], *answers = fetch_all(session, [*asked, *event_store.ask_new(session, reader, limit=limit)])
    held = dict(answers.pop(0)) if delivery_ids else {}
    alone = answers.pop(0) == [(True,)] if is_postgresql(session) else True
    return Beginning(version=version, held=held, events=event_store.settled(answers) if alone else None)
