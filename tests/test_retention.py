"""What is past its time goes, a kind of data at a time, and what a hold keeps stays; zero retention stores no words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests import signed
from tests.test_erasure import SAID, Caller
from tests.test_workers import working
from tests.waiting import until
from webhook import clock, models
from webhook.crypto import Keyring
from webhook.ingest import Ingest
from webhook.payloads import Slice, parse, slice_key, without_words
from webhook.retention import Periods, Retention
from webhook.store import evidence as evidence_store
from webhook.store.evidence import EvidenceRow

if TYPE_CHECKING:
    from tests.conftest import MakeService
    from webhook.bootstrap import Service

KINDS = ("callbacks", "quarantined", "transcripts", "evidence", "events", "deliveries")
FOR_EVER = Periods(**dict.fromkeys(KINDS))
MONTH = timedelta(days=30)


@pytest.fixture
def caller(service: Service) -> Caller:
    return Caller(service)


def sweep(service: Service, *, days: float, ingest: Any = None, **periods: Any) -> None:
    """Sweep as it is done in so many days, where only these kinds are not kept for ever."""
    retention = Retention(
        periods=Periods(**dict.fromkeys(KINDS) | periods),
        ingest=ingest or service.ingest,
        now=lambda: clock.now() + timedelta(days=days),
    )
    while retention.sweep_some(service.database):
        pass


def fan_out(caller: Caller) -> str:
    """Have the events so far owed to a subscription, and tried once; return its id."""
    subscription = str(caller.client.made("/v1/subscriptions", {"url": "http://127.0.0.1:9/hook"})["id"])
    path = f"/v1/subscriptions/{subscription}/deliveries"
    with working(caller.service):
        until(lambda: len([one for one in caller.client.items(path) if one["attempts"]]) >= 5)
    return subscription


def audio_of(caller: Caller, task_id: str) -> None:
    key = bytes.fromhex(caller.client.items(f"/v1/verdicts/{task_id}/slices")[0]["id"])
    row = EvidenceRow(
        task_id=task_id, slice_key=key, state="saved", url=b"u", next_attempt_at=None, created_at=clock.now()
    )
    with caller.service.database.transaction() as session:
        evidence_store.insert_evidence(session, [row])


def left(caller: Caller) -> dict[str, int]:
    """Return how much of each kind there is."""
    content = sa.func.length(models.callbacks.c.content) > 0
    quarantined = models.callbacks.c.state == "quarantined"
    return {
        "callbacks": len(caller.rows(models.callbacks, content, ~quarantined)),
        "quarantined": len(caller.rows(models.callbacks, quarantined)),
        "transcripts": len(caller.rows(models.slice_pages, models.slice_pages.c.written_at.is_not(None))),
        "evidence": len(caller.rows(models.evidence, models.evidence.c.state == "saved")),
        "events": len(caller.rows(models.events)),
        "deliveries": len(caller.rows(models.deliveries)) + len(caller.rows(models.delivery_attempts)),
    }


def some_of_everything(caller: Caller) -> tuple[str, dict[str, int]]:
    task_id = caller.done()
    _, url, _ = caller.address(task_id)
    assert caller.client.callback(url, signed.form(SAID, seed="forged")) == 403
    fan_out(caller)
    audio_of(caller, task_id)
    found = left(caller)
    assert min(found.values()) > 0
    return task_id, found


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_kept_for_its_own_time(caller: Caller, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.retention._ROWS_AT_ONCE", 2)
    _, before = some_of_everything(caller)
    sweep(caller.service, days=3650)
    sweep(caller.service, days=29, **{kind: MONTH})
    assert left(caller) == before
    sweep(caller.service, days=31, **{kind: MONTH})
    # what repeats transcripts goes with them
    gone = {"transcripts": {"transcripts", "callbacks", "quarantined", "events", "deliveries"}}.get(kind, {kind})
    gone |= {"callbacks": {"quarantined"}, "events": {"deliveries"}}.get(kind, set())
    assert left(caller) == {name: 0 if name in gone else count for name, count in before.items()}


def test_what_repeats_another_kind_is_kept_no_longer() -> None:
    week, month, year = timedelta(days=7), timedelta(days=30), timedelta(days=365)
    told = Periods(
        callbacks=year, quarantined=None, transcripts=month, evidence=year, events=week, deliveries=month
    ).aligned()
    assert told == Periods(
        callbacks=month, quarantined=month, transcripts=month, evidence=year, events=week, deliveries=week
    )
    assert FOR_EVER.aligned() == FOR_EVER


def test_of_old_transcripts_risk_labels_and_times_are_left(caller: Caller) -> None:
    task_id = caller.done()
    path = f"/v1/verdicts/{task_id}"
    before, verdict = caller.client.items(f"{path}/slices"), caller.client.shown(path)
    sweep(caller.service, days=31, transcripts=MONTH)
    after = caller.client.items(f"{path}/slices")
    assert caller.client.shown(path) == verdict
    assert [one["text"] for one in before] != [one["text"] for one in after] == [None] * 3
    for one in (*before, *after):
        del one["text"]
    assert before == after
    assert caller.client.items(f"{path}/slices", label="political_entity") == caller.client.items(f"{path}/slices")


def test_a_slice_without_words_is_known_by_its_times() -> None:
    finding = {"Label": "x", "Description": SAID, "Confidence": 5, "RiskLevel": "high", "RiskWords": SAID, "Odd": SAID}
    finding |= {"CustomizedHit": [{"LibName": "l", "KeyWords": SAID}], "RiskPositions": [{"RiskWord": SAID}]}
    sent = {
        "StartTime": SAID,
        "endtime": {"blake2b": SAID},
        "EndTimestamp": {"blake2b": 7},
        "EndTime": 7,
        "Text": SAID,
        "Url": f"http://x/{SAID}",
        "Odd": SAID,
        "Result": [finding],
    }
    [piece] = parse(signed.content(sent).encode()).slices
    assert SAID in repr(piece.results[0].risk_words)
    bare = without_words(piece)
    assert slice_key(bare) == slice_key(piece) == slice_key(without_words(bare))
    assert without_words(bare) == bare
    assert SAID not in repr(bare)
    assert (bare.risk_level, bare.results[0].label, bare.results[0].risk_level) == ("high", "x", "high")
    assert bare.results[0].confidence == 5
    usual: Slice = parse(signed.content(signed.piece(0)).encode()).slices[0]
    assert slice_key(without_words(usual)) == slice_key(usual)


def test_a_callback_whose_content_is_gone_is_known_when_it_comes_again(caller: Caller) -> None:
    task_id = caller.submit()
    _, url, seed = caller.address(task_id)
    body = signed.form(signed.content(signed.piece(0, risk="high", text=SAID)), seed=seed)
    assert caller.client.callback(url, body) == 200
    [kept] = caller.client.items(f"/v1/callbacks?task_id={task_id}")
    assert SAID in caller.client.shown(f"/v1/callbacks/{kept['id']}")["content"]
    sweep(caller.service, days=31, callbacks=MONTH)
    assert caller.client.shown(f"/v1/callbacks/{kept['id']}")["content"] is None
    events = len(caller.client.feed())
    assert caller.client.callback(url, body) == 200
    assert caller.client.items(f"/v1/callbacks?task_id={task_id}") == [kept]
    assert len(caller.client.feed()) == events


def test_a_reader_of_the_feed_goes_on_at_the_oldest_event_that_is_left(caller: Caller) -> None:
    caller.done()
    fan_out(caller)
    page = caller.client.shown("/v1/events", limit=2)
    sweep(caller.service, days=31, events=MONTH)
    assert caller.client.feed() == []
    caller.done()
    told = caller.client.shown("/v1/events", after=page["next_cursor"])["items"]
    assert [item["type"] for item in told] == [item["type"] for item in caller.client.feed()]
    assert len(told) == 5


def test_events_that_were_not_fanned_out_are_kept(caller: Caller) -> None:
    caller.done()
    sweep(caller.service, days=31, events=MONTH)
    assert len(caller.client.feed()) == 5


def test_what_a_hold_keeps_is_passed_over_until_it_is_released(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.retention._ROWS_AT_ONCE", 2)
    held, _ = some_of_everything(caller)
    before = left(caller)
    hold = f"/v1/tasks/{held}/hold"
    assert caller.client.request("PUT", hold).status == 200
    for number in range(5):
        caller.done(text=f"others {number}")
    with working(caller.service):
        until(lambda: left(caller)["deliveries"] >= before["deliveries"] + 25)
    sweep(caller.service, days=31, **dict.fromkeys(KINDS, MONTH))
    kept = left(caller)
    assert {name: kept[name] for name in KINDS if name != "deliveries"} == {
        name: before[name] for name in KINDS if name != "deliveries"
    }
    assert {row.task_id for row in caller.rows(models.events)} == {held}
    assert len(caller.rows(models.deliveries)) == 5
    assert caller.client.delete(hold).status == 204
    sweep(caller.service, days=31, **dict.fromkeys(KINDS, MONTH))
    assert set(left(caller).values()) == {0}


def test_slices_under_a_key_that_is_lost_stand_in_nobody_s_way(caller: Caller) -> None:
    caller.done()
    stranger = Ingest(Keyring({"k9": bytes(32)}))
    with capture_logs() as logged:
        sweep(caller.service, days=31, ingest=stranger, transcripts=MONTH)
    assert len(logged) == 1
    assert left(caller)["transcripts"] == 1
    with capture_logs() as logged:
        sweep(caller.service, days=32, ingest=stranger, transcripts=MONTH)
    assert logged == []
    sweep(caller.service, days=62, transcripts=MONTH)
    assert left(caller)["transcripts"] == 0


def test_after_the_time_of_transcripts_nothing_that_was_said_is_anywhere(caller: Caller) -> None:
    caller.done()
    fan_out(caller)
    assert SAID in opened(caller)
    sweep(caller.service, days=31, transcripts=MONTH)
    assert SAID not in opened(caller)


def test_what_little_has_come_of_age_waits_for_the_next_sweep(caller: Caller) -> None:
    some_of_everything(caller)
    every = Periods(**dict.fromkeys(KINDS, MONTH))
    later = Retention(periods=every, ingest=caller.service.ingest, now=lambda: clock.now() + timedelta(days=31))
    assert later.sweep_some(caller.service.database) is False, "or the worker would come back for each row"
    assert set(left(caller).values()) == {0}


def test_the_worker_removes_what_is_past_its_time(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    some_of_everything(caller)
    monkeypatch.setattr(caller.service.retention, "_now", lambda: clock.now() + timedelta(days=200))
    with working(caller.service):
        until(lambda: set(left(caller).values()) == {0})


def opened(caller: Caller) -> str:
    """Return all that is stored sealed of what came, opened."""
    contents = [caller.client.shown(f"/v1/callbacks/{row.id}") for row in caller.rows(models.callbacks)]
    slices = [caller.client.items(f"/v1/verdicts/{task['id']}/slices") for task in caller.client.items("/v1/tasks")]
    return repr([contents, slices, caller.client.feed()])


def spoken(start: int, **more: Any) -> dict[str, Any]:
    piece = signed.piece(start, risk="high", label="political_entity", text=SAID) | {
        "Url": f"http://127.0.0.1:1/{SAID}"
    }
    piece["Result"][0] |= {"RiskWords": SAID, "Description": SAID}
    return piece | more


@pytest.mark.parametrize("zero", ["on", "off"])
def test_zero_retention_stores_nothing_that_was_said(make_service: MakeService, zero: str) -> None:
    caller = Caller(make_service(WEBHOOK_ZERO_RETENTION=zero))
    receiver = caller.client.receiver()
    for code, body in (
        (200, signed.form(signed.content(spoken(0), spoken(10), TaskId="p-1", LiveId="l"), seed=receiver["seed"])),
        (200, signed.form(signed.content(spoken(10), spoken(20), TaskId="p-1", LiveId="l"), seed=receiver["seed"])),
        (200, signed.form(f"not understood: {SAID}", seed=receiver["seed"])),
        (403, signed.form(SAID, seed="forged")),
    ):
        assert caller.client.callback(receiver["callback_url"], body) == code
        assert caller.client.callback(receiver["callback_url"], body) == code, "it comes again"
    [task] = caller.client.items("/v1/tasks")
    assert (task["risk_level"], task["slice_count"], task["flagged_slice_count"]) == ("high", 3, 3)
    assert [label["slices"] for label in caller.client.shown(f"/v1/verdicts/{task['id']}")["labels"]] == [3]
    assert len(caller.rows(models.callbacks)) == 4
    assert [event["type"] for event in caller.client.feed()].count("slice.flagged") == 3
    assert (SAID in opened(caller)) == (zero == "off")
    assert {bool(row.content) for row in caller.rows(models.callbacks)} == {zero == "off"}
    assert len(caller.rows(models.evidence)) == (0 if zero == "on" else 3)
    [quarantined] = caller.client.items("/v1/callbacks?state=quarantined")
    assert quarantined["message"].startswith("No known mistake matches")
    verified = caller.client.post(f"/v1/callbacks/{quarantined['id']}/verify")
    assert verified.status == (409 if zero == "on" else 200)
