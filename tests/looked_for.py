"""What a service with years behind it is asked, and asks itself: by name, for the test of plans and the benchmark."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests import history
from webhook import clock
from webhook.store import audit as audit_store
from webhook.store import callbacks as callback_store
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store
from webhook.store import evidence as evidence_store
from webhook.store import lists as list_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.store import tombstones as tombstone_store
from webhook.store.audit import AuditQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients import AppClient
    from webhook.db import Session


def routes(tasks: int) -> dict[str, str]:
    """Return the paths of all lists, with each filter and the usual ones together."""
    middle, end = (clock.rfc3339(history.made_at(number)) for number in (tasks // 2, tasks // 2 + 1000))
    cursor = f"{clock.to_microseconds(history.made_at(tasks // 2))}_{history.task_id(tasks // 2)}"
    verdicts = (
        "",
        "risk_level=high",
        "risk_level=high,medium",
        "risk_level=terrible",
        "risk_level=unheard-of",
        "action=block",
        "action=pass",
        "kind=live",
        "kind=live&risk_level=high",
        "service=rare_detection",
        "service=unheard-of",
        "service=live_detection_byllm_global&action=review",
        "label=political_n",
        "label=political_*",
        "label=unheard-of",
        "label=political_*&risk_level=high",
        "label=political_*&risk_level=low",
        "label=sexual_terms&kind=live",
        "label=*",
        "data_id=upload-100",
        f"data_id={history.HOT_DATA_ID}",
        f"data_id={history.HOT_DATA_ID}&risk_level=none",
        f"live_id={history.HOT_LIVE_ID}",
        f"live_id={history.HOT_LIVE_ID}&kind=live",
        "live_id=unheard-of",
    )
    windows = (f"since={middle}", f"until={middle}", f"since={middle}&until={end}", f"cursor={cursor}")
    windowed = ("", "risk_level=high,medium", "label=political_*", f"data_id={history.HOT_DATA_ID}")
    lists = [f"/v1/verdicts?{query}" for query in verdicts]
    lists += [f"/v1/verdicts?{query}&{window}" for query in windowed for window in windows]
    states = ("queued", "processing", "completed", "failed", "canceled", "expired")
    contents = (f"data_id={history.HOT_DATA_ID}", f"live_id={history.HOT_LIVE_ID}", "data_id=upload-100")
    ours = ["", "kind=live", *(f"state={state}" for state in states), *contents, *windows]
    lists += [f"/v1/tasks?{query}" for query in (*ours, "state=failed&kind=live", f"state=failed&{windows[0]}")]
    lists += [f"/v1/streams?{query}" for query in ("", "active=true", "active=false", "state=canceled", *contents[1:])]
    lists += [f"/v1/tasks/{history.task_id(tasks)}", f"/v1/streams/{history.task_id(tasks)}"]
    lists += [f"/v1/callbacks?{query}" for query in ("", "state=accepted", "state=unreadable", "state=quarantined")]
    lists += [f"/v1/callbacks?task_id={history.task_id(number)}" for number in (1, 300)]
    of_subscription = f"/v1/subscriptions/{history.SUBSCRIPTION}/deliveries"
    lists += [f"{of_subscription}?{query}" for query in ("", "state=pending", "state=delivered", "state=dead")]
    return {path.rstrip("?&").replace("?&", "?"): path for path in lists}


def asked(client: AppClient, path: str) -> int:
    """Get one of `routes`, and return how many rows it shows; not everything is there."""
    reply = client.get(path.replace("+", "%2B"))
    assert reply.status in {200, 404}, reply.body[:500]
    return len(reply.json.get("items", ()))


def own(tasks: int, *, limit: int = 100) -> dict[str, Callable[[Session], object]]:
    """Return what the service asks of its database by itself, and lists whose contents are sealed.

    Args:
        tasks: how many there are.
        limit: rows of a list.
    """
    now = history.made_at(2 * tasks)
    long, middle = history.LONG_STREAM, history.key(history.LONG_STREAM_PAGES // 2)
    until = now + timedelta(minutes=1)

    some = history.task_id(tasks // 2)

    def third(prefix: str) -> str:
        return f"{prefix}_{10000000000 + tasks // 3}"

    def some_pages(session: Session) -> None:
        pages = slice_store.pages(session, long, after=middle)
        for _ in range(5):
            next(pages)

    def audited(**wanted: Any) -> Callable[[Session], object]:
        return lambda session: audit_store.newest(session, AuditQuery(**wanted, limit=limit))

    def due_files(session: Session, *, to_hand_over: bool) -> None:
        task_store.due_files(session, now=now, handed_over_since=now, to_hand_over=to_hand_over, limit=5)

    return {
        "slices of a long stream": some_pages,
        "pages that a callback touches": lambda session: slice_store.overlapping_pages(
            session, long, first_key=middle, last_key=middle
        ),
        "later pages": lambda session: slice_store.has_later(session, long, middle),
        "feed": lambda session: event_store.events_after(session, tasks // 2, limit=limit),
        "feed of a type": lambda session: event_store.events_after(session, 10, types=("task.failed",), limit=limit),
        "feed of types": lambda session: event_store.events_after(
            session, 10, types=("slice.flagged", "stream.silent", "task.canceled", "task.completed"), limit=limit
        ),
        "feed's end": lambda session: event_store.behind(session, "fan_out"),
        "whether a call is due": lambda session: task_store.has_due(session, now=now),
        "due streams": lambda session: task_store.due_streams(session, now=now, limit=5),
        "due files": lambda session: due_files(session, to_hand_over=False),
        "due uploads": lambda session: due_files(session, to_hand_over=True),
        "due queries": lambda session: task_store.due_later(session, now=now, limit=5),
        "due cancels": lambda session: task_store.due_cancels(session, now=now, limit=5),
        "running streams": lambda session: task_store.running_streams(session, now=now),
        "quiet streams": lambda session: task_store.quiet_streams(session, since=now),
        "active stream": lambda session: task_store.active_stream(
            session, service="live_detection_byllm_global", live_id=history.HOT_LIVE_ID
        ),
        "places in the queue": lambda session: list_store.queue_places(
            session, task_store.tasks_by_id(session, [history.task_id(tasks), history.task_id(tasks - 2)]).values()
        ),
        "subscriptions with due deliveries": lambda session: delivery_store.subscriptions_with_due(session, now=now),
        "due deliveries": lambda session: delivery_store.claim_deliveries(
            session, {history.SUBSCRIPTION: 5}, now=now, lease="lease", lease_until=until
        ),
        "whether evidence is due": lambda session: evidence_store.has_due(session, now=now),
        "due evidence": lambda session: evidence_store.claim_evidence(
            session, now=now, lease="lease", lease_until=until, limit=5
        ),
        "audit log": audited(),
        "audit log since": audited(since=history.made_at(tasks // 2), until=history.made_at(tasks // 2 + 1000)),
        "audit log until": audited(until=history.made_at(tasks // 2)),
        "audit log on": audited(after=(history.made_at(tasks // 2), tasks // 2)),
        "audit log of an actor": audited(actor="key_rare"),
        "audit log of a busy actor": audited(actor="key_1", until=history.made_at(tasks // 2)),
        "audit log of an action": audited(action="callback.read"),
        "audit log of both": audited(actor="key_0", action="callback.read"),
        "audit log of neither": audited(actor="key_rare", action="callback.read"),
        "audit log of an object": audited(object_id=history.task_id(tasks // 2), actor="key_1"),
        "tombstones of tasks": lambda session: tombstone_store.erased_tasks(session, ["gone_1", "nobody"]),
        "tombstones of tokens": lambda session: tombstone_store.erased_addresses(
            session, [history.key(1), b"nobody's"]
        ),
        "erasures to be finished": lambda session: tombstone_store.unfinished(session, limit=limit),
        "what an erased task's events say": lambda session: event_store.erase_events(session, some, limit=limit),
        "an erased task's callbacks": lambda session: callback_store.erase_callbacks(session, some, limit=limit),
        "an erased task's slices": lambda session: slice_store.erase_pages(session, long, limit=limit),
        "an erased task's evidence": lambda session: evidence_store.erase_evidence(session, some, now=now, limit=limit),
        "evidence to be deleted": lambda session: evidence_store.erased_evidence(session, now=now, limit=limit),
        "what is owed of an erased task": lambda session: delivery_store.owed_of(
            session, [f"evt_{10000000000 + tasks - number}" for number in range(20)]
        ),
        "tasks of a data_id to be erased": lambda session: task_store.erasable_tasks(
            session, history.HOT_DATA_ID, limit=limit
        ),
        "old callbacks": lambda session: callback_store.drop_contents(
            session, after=third("cb"), before="cb_2", limit=limit
        ),
        "old quarantined callbacks": lambda session: callback_store.delete_quarantined(
            session, before="cb_2", limit=limit
        ),
        "old transcripts": lambda session: slice_store.old_pages(session, before=now, limit=limit),
        "old evidence": lambda session: evidence_store.erase_old(session, before=now, now=now, limit=limit),
        "old events": lambda session: event_store.delete_events(
            session, after=tasks // 3, upto=tasks, before=now, limit=limit
        ),
        "old deliveries": lambda session: delivery_store.delete_deliveries(
            session, after=third("dlv"), before="dlv_2", limit=limit
        ),
        "late evidence": lambda session: evidence_store.expire_evidence(session, due_before=now, now=now),
    }
