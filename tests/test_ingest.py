"""Verified results into the store: once, in any order, none failing its neighbours."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from itertools import count, pairwise, permutations
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import databases
from webhook import models, payloads
from webhook.crypto import Keyring
from webhook.db import open_database
from webhook.errors import Unreadable
from webhook.ingest import Arrival, Ingest
from webhook.store import callbacks as callback_store
from webhook.store import events as event_store
from webhook.store import lists as list_store
from webhook.store import slices as slice_store
from webhook.store import tasks as task_store
from webhook.store.lists import TaskQuery
from webhook.store.tasks import Address, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from webhook.payloads import Slice
    from webhook.store.events import EventRow

NOW = datetime(2026, 11, 21, 7, 41, tzinfo=UTC)
KEYRING = Keyring({"k1": bytes(32)})
RECEIVER = Address(id="rcv_1", receiver=True, crypt_type="SHA256", uid=None, secrets=b"")


class Store:
    """A database, the ingest over it, and a look at what it wrote."""

    def __init__(self, directory: Path) -> None:
        self.database = open_database(databases.fresh_url(directory))
        self.ingest = Ingest(KEYRING, now=lambda: NOW)
        self._numbers = count(1)

    def new_task(self, **values: Any) -> Address:
        task_id = f"task_{next(self._numbers)}"
        row = task(task_id, **values)
        with self.database.transaction() as session:
            task_store.insert_tasks(session, [row])
        return Address(id=task_id, receiver=False, crypt_type="SHA256", uid=None, secrets=b"")

    def accept(self, *arrivals: Arrival) -> list[str | None]:
        with self.database.transaction() as session:
            return self.ingest.accept(session, arrivals)

    def task(self, task_id: str) -> Task:
        with self.database.read() as session:
            found = task_store.task(session, task_id)
        assert found
        return found

    def slices(self, task_id: str) -> list[Slice]:
        with self.database.read() as session:
            pages = list(slice_store.pages(session, task_id))
        return [piece for page in pages for piece in self.ingest.open_slices(page)]

    def events(self, task_id: str) -> list[EventRow]:
        with self.database.read() as session:
            found = event_store.events_after(session, 0, limit=100_000)
        return [event for event in found if event.task_id == task_id]

    def event_data(self, event: EventRow) -> Any:
        return msgspec.json.decode(KEYRING.open(event.data, table="events", column="data", row=event.id))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.database.close()


def task(task_id: str, **values: Any) -> Task:
    row: dict[str, Any] = dict.fromkeys(Task.__struct_fields__) | {
        "id": task_id,
        "origin": "submitted",
        "kind": "audio",
        "service": "audio_detection_byllm_global",
        "state": "processing",
        "source": {"url": "https://audio.example.com/a.mp3"},
        "crypt_type": "SHA256",
        "token_digest": task_id.encode(),
        "secrets": b"",
        "labels": (),
        "slice_count": 0,
        "flagged_slice_count": 0,
        "created_at": NOW,
        "submitted_at": NOW,
        "updated_at": NOW,
        "attempt_count": 0,
    }
    return Task(**row | values)


def arrival(address: Address, content: Any, *, stated_task_id: str | None = None) -> Arrival:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    result, problem = None, None
    try:
        result = payloads.parse(raw)
    except Unreadable as error:
        problem = str(error)
    return Arrival(
        address=address,
        content=raw,
        digest=hashlib.sha256(raw).digest(),
        checksum="c",
        stated_task_id=stated_task_id,
        result=result,
        problem=problem,
        received_at=NOW,
    )


def piece(start: int, level: str = "none", *, labels: Sequence[str] = (), text: str = "") -> dict[str, Any]:
    return {
        "StartTime": start,
        "EndTime": start + 1,
        "RiskLevel": level,
        "Text": text,
        "Result": [{"Label": label, "RiskLevel": level, "Confidence": 50} for label in labels],
    }


def content(*pieces: dict[str, Any], code: int = 200, **data: Any) -> dict[str, Any]:
    return {"Code": code, "Data": {"TaskId": "vm_1", "SliceDetails": list(pieces), **data}}


# What a task ends as


def test_a_result_completes_its_task_and_raises_its_events_in_order(store: Store) -> None:
    address = store.new_task()
    (callback_id,) = store.accept(
        arrival(address, content(piece(0), piece(1, "high", labels=["political_entity"]), RiskLevel="high"))
    )
    assert callback_id
    after = store.task(address.id)
    assert (after.state, after.risk_level, after.slice_count, after.flagged_slice_count) == ("completed", "high", 2, 1)
    assert [(each.label, each.risk_level, each.slices) for each in after.labels] == [("political_entity", "high", 1)]
    flagged, completed = store.events(address.id)
    assert (flagged.type, completed.type) == ("slice.flagged", "task.completed")
    assert store.event_data(flagged)["slice"]["start_time"] == 1
    assert store.event_data(flagged)["slice"]["action"] == "block"
    assert store.event_data(completed)["verdict"]["risk_level"] == "high"


def test_a_callback_keeps_its_very_bytes_sealed(store: Store) -> None:
    address = store.new_task()
    raw = b'{ "Code": 200, "Data": {"SliceDetails": []}}'
    (callback_id,) = store.accept(arrival(address, raw))
    assert callback_id
    with store.database.read() as session:
        kept = callback_store.callback(session, callback_id)
    assert kept
    assert raw not in kept.content
    assert KEYRING.open(kept.content, table="callbacks", column="content", row=callback_id) == raw


def test_a_callback_that_overtakes_the_submit_answer_is_taken_and_tells_of_the_submission(store: Store) -> None:
    address = store.new_task(state="queued", submitted_at=None, next_attempt_at=NOW)
    store.accept(arrival(address, content(piece(0))))
    after = store.task(address.id)
    assert (after.state, after.submitted_at, after.platform_task_id, after.next_attempt_at) == (
        "completed",
        NOW,
        "vm_1",
        None,
    )
    assert [event.type for event in store.events(address.id)] == ["task.submitted", "task.completed"]


@pytest.mark.parametrize("state", ["failed", "expired"])
def test_a_result_completes_a_task_that_was_given_up(store: Store, state: str) -> None:
    address = store.new_task(state=state, finished_at=NOW, error={"code": 500})
    store.accept(arrival(address, content(piece(0))))
    assert (store.task(address.id).state, store.task(address.id).error) == ("completed", None)


def test_a_download_error_fails_the_task_with_its_reason(store: Store) -> None:
    address = store.new_task()
    store.accept(arrival(address, {"Code": 404, "Message": "secret of the vendor"}))
    after = store.task(address.id)
    assert after.error
    assert (after.state, after.error["reason"], after.risk_level) == ("failed", "source_unreachable", None)
    assert "secret of the vendor" not in str(after.error)


def test_code_200_does_not_end_a_stream(store: Store) -> None:
    address = store.new_task(kind="live", live_id="room-1")
    store.accept(arrival(address, content(piece(0), LiveId="room-1")))
    assert store.task(address.id).state == "processing"


def test_a_code_that_says_wait_changes_no_verdict(store: Store) -> None:
    address = store.new_task()
    store.accept(arrival(address, {"Code": 280, "Data": {"TaskId": "vm_1"}}))
    after = store.task(address.id)
    assert (after.state, after.risk_level) == ("processing", None)


def test_none_found_yet_is_not_known_to_be_none(store: Store) -> None:
    address = store.new_task(kind="live", live_id="room-1")
    store.accept(arrival(address, {"Code": 280, "Data": {"RiskLevel": "none", "SliceDetails": []}}))
    assert (store.task(address.id).state, store.task(address.id).risk_level) == ("processing", None)
    store.accept(arrival(address, {"Code": 404, "Message": "broken"}))
    assert (store.task(address.id).state, store.task(address.id).risk_level) == ("failed", None)


def test_a_slice_that_gets_worse_is_flagged_once_and_its_labels_follow(store: Store) -> None:
    address = store.new_task()
    store.accept(arrival(address, content(piece(0, "low", labels=["a", "b"]), piece(1, "low", labels=["b"]))))
    store.accept(arrival(address, content(piece(0, "medium", labels=["c"]))))
    store.accept(arrival(address, content(piece(0, "high", labels=["c"]))))
    after = store.task(address.id)
    assert [(each.label, each.risk_level, each.slices) for each in after.labels] == [("c", "high", 1), ("b", "low", 1)]
    assert (after.slice_count, after.flagged_slice_count, after.risk_level) == (2, 1, "high")
    assert [event.type for event in store.events(address.id)].count("slice.flagged") == 1
    assert [each.risk_level for each in store.slices(address.id)] == ["high", "low"]


def test_many_slices_are_cut_into_pages_and_stay_in_time_order(store: Store) -> None:
    address = store.new_task()
    even, odd = ([piece(start) for start in range(first, 1000, 2)] for first in (0, 1))
    store.accept(arrival(address, content(*even)))
    store.accept(arrival(address, content(*odd)))
    assert [each.start_time for each in store.slices(address.id)] == list(range(1000))
    with store.database.read() as session:
        pages = list(slice_store.pages(session, address.id))
    assert all(before.last_key < after.first_key for before, after in pairwise(pages))


# Once


def test_the_same_callback_twice_changes_nothing_in_one_batch_or_two(store: Store) -> None:
    address = store.new_task()
    one = arrival(address, content(piece(0, "high")))
    again = msgspec.structs.replace(one, stated_task_id="another")
    first, second = store.accept(one, again)
    before = (store.task(address.id), store.slices(address.id), store.events(address.id))
    assert first
    assert (second, store.accept(again, one)) == (None, [None, None])
    assert (store.task(address.id), store.slices(address.id), store.events(address.id)) == before


def test_a_batch_tells_the_new_ones_from_those_that_came_before(store: Store) -> None:
    address = store.new_task()
    old, new, newer = (arrival(address, content(piece(start))) for start in range(3))
    store.accept(old)
    assert [callback_id is not None for callback_id in store.accept(new, old, newer, new)] == [True, False, True, False]
    assert store.task(address.id).slice_count == 3


def test_the_same_content_at_two_addresses_is_two_callbacks(store: Store) -> None:
    one, other = store.new_task(), store.new_task()
    assert None not in store.accept(arrival(one, content(piece(0))), arrival(other, content(piece(0))))


# Unreadable content


def test_unreadable_content_is_kept_and_rejected_beside_good_neighbours(store: Store) -> None:
    bad, good = store.new_task(), store.new_task()
    kept, accepted = store.accept(arrival(bad, b"not json"), arrival(good, content(piece(0))))
    assert kept
    assert accepted
    with store.database.read() as session:
        row = callback_store.callback(session, kept)
    assert row
    assert (row.state, row.reason) == ("unreadable", "unreadable")
    assert [event.type for event in store.events(bad.id)] == ["callback.rejected"]
    assert (store.task(bad.id).state, store.task(good.id).state) == ("processing", "completed")


def test_unreadable_content_at_a_receiver_makes_no_task(store: Store) -> None:
    assert store.accept(arrival(RECEIVER, b""))[0]
    with store.database.read() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(models.tasks)).scalar() == 0


# Receivers


def external(store: Store) -> list[Task]:
    with store.database.read() as session:
        return list_store.list_tasks(session, TaskQuery(limit=200))


def test_a_receiver_makes_one_task_for_each_task_id_of_the_signed_content(store: Store) -> None:
    arrivals = [
        arrival(RECEIVER, content(piece(start), TaskId=f"vm_{number}"), stated_task_id="a hint")
        for number in range(3)
        for start in range(2)
    ]
    store.accept(*arrivals[:3])
    store.accept(*arrivals[3:])
    found = external(store)
    assert {(each.platform_task_id, each.slice_count) for each in found} == {("vm_0", 2), ("vm_1", 2), ("vm_2", 2)}
    assert {(each.origin, each.kind, each.receiver_id, each.state) for each in found} == {
        ("external", "audio", "rcv_1", "completed")
    }


def test_a_receiver_takes_the_forms_task_id_only_where_the_content_has_none(store: Store) -> None:
    bare = {"Code": 200, "Data": {"SliceDetails": [piece(0)]}}
    first, second = store.accept(
        arrival(RECEIVER, bare, stated_task_id="vm_a"), arrival(RECEIVER, bare, stated_task_id="vm_b")
    )
    assert first
    assert second is None
    assert [each.platform_task_id for each in external(store)] == ["vm_a"]


def test_content_with_a_live_id_makes_an_external_stream(store: Store) -> None:
    store.accept(arrival(RECEIVER, content(piece(0), LiveId="room-1")))
    (stream,) = external(store)
    assert (stream.kind, stream.live_id, stream.state) == ("live", "room-1", "processing")


def test_names_of_whatever_length_cost_no_result(store: Store) -> None:
    """PostgreSQL's indexes take 2,704 bytes, after compression."""
    long = "".join(hashlib.sha512(bytes([number])).hexdigest() for number in range(40))
    names: dict[str, Any] = {"TaskId": long, "LiveId": long, "DataId": long}
    assert store.accept(arrival(RECEIVER, content(piece(0, long, labels=[long]), RiskLevel=long, **names))) != [None]
    (stream,) = external(store)
    assert (stream.kind, stream.live_id, stream.risk_level) == ("live", long[:256], "medium")
    assert [label.label for label in stream.labels] == [long[:256]]


AUDIO, LIVE = "audio_detection_byllm_global", "live_detection_byllm_global"


@pytest.mark.parametrize(
    ("told", "described"),
    [
        (
            [
                content(piece(0)),
                content(piece(1, "low"), DataId="d-2"),
                content(DataId="d-1", Url="https://b/"),
                content(piece(3), Url="https://a/"),
            ],
            ("audio", AUDIO, "completed", "d-1", None, {"url": "https://a/"}),
        ),
        (
            [
                content(piece(0)),
                content(piece(1, "low"), DataId="d-2"),
                content(piece(3, "high"), LiveId="room-2", Url="https://c/"),
                content(LiveId="room-1", DataId="d-3"),
            ],
            ("live", LIVE, "processing", "d-2", "room-1", {"url": "https://c/"}),
        ),
        (
            [content(piece(0)), content(code=280, LiveId="room-3"), content(piece(1))],
            ("live", LIVE, "processing", None, "room-3", {}),
        ),
    ],
)
def test_an_external_task_is_what_its_callbacks_say_together_in_whatever_order(
    store: Store, told: list[dict[str, Any]], described: tuple[Any, ...]
) -> None:
    for number, order in enumerate(permutations(told)):
        for size in (1, len(told)):  # one by one, and in one batch
            receiver = msgspec.structs.replace(RECEIVER, id=f"rcv_{number}_{size}")
            for start in range(0, len(order), size):
                store.accept(*(arrival(receiver, each) for each in order[start : start + size]))
            (after,) = (each for each in external(store) if each.receiver_id == receiver.id)
            assert (after.kind, after.service, after.state, after.data_id, after.live_id, after.source) == described


# Any order

LEVELS = st.sampled_from(["none", "low", "medium", "high", "strange"])
PIECES = st.builds(
    piece,
    st.integers(0, 3),
    LEVELS,
    labels=st.lists(st.sampled_from(["a", "b", "c"]), max_size=2),
    text=st.sampled_from(["", "x"]),
)
CONTENTS = st.one_of(
    st.builds(lambda pieces: content(*pieces), st.lists(PIECES, max_size=4)),
    st.builds(lambda pieces, level: content(*pieces, RiskLevel=level), st.lists(PIECES, max_size=2), LEVELS),
    st.builds(
        lambda pieces, code: content(*pieces, code=code), st.lists(PIECES, max_size=2), st.sampled_from([280, 404])
    ),
    st.sampled_from([{"Code": code} for code in (280, 404, 405, 500, 999)]),
    st.just(b"not json"),
)


@st.composite
def two_ways(draw: st.DrawFn) -> tuple[list[list[Any]], list[list[Any]]]:
    """Draw some contents, and two ways to cut them, some of them doubled, into batches."""
    contents = draw(st.lists(CONTENTS, min_size=1, max_size=5))

    def way() -> list[list[Any]]:
        sent = draw(st.permutations(contents + draw(st.lists(st.sampled_from(contents), max_size=2))))
        batches: list[list[Any]] = [[]]
        for each in sent:
            if draw(st.booleans()):
                batches.append([])
            batches[-1].append(each)
        return batches

    return way(), way()


def outcome(store: Store, address: Address, batches: list[list[Any]]) -> Any:
    """Return what is stored in the end, but for ids and times, and which events were raised."""
    for batch in batches:
        store.accept(*(arrival(address, each) for each in batch))
    after = store.task(address.id)
    events = store.events(address.id)
    flagged = [store.event_data(event)["slice"]["start_time"] for event in events if event.type == "slice.flagged"]
    assert len(flagged) == len(set(flagged)) == after.flagged_slice_count
    volatile = {"id", "token_digest", "created_at", "updated_at", "submitted_at", "finished_at", "last_slice_at"}
    return (
        {name: value for name, value in msgspec.structs.asdict(after).items() if name not in volatile},
        (after.finished_at is None, after.last_slice_at is None),
        store.slices(address.id),
        sorted(flagged),
        Counter(event.type for event in events if event.type in {"callback.rejected", "task.completed"}),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@pytest.mark.parametrize("kind", ["audio", "live"])
@given(ways=two_ways())
def test_callbacks_in_any_order_and_number_end_in_the_same_state(store: Store, kind: str, ways: Any) -> None:
    one, other = (outcome(store, store.new_task(kind=kind), batches) for batches in ways)
    assert one == other


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=6))
def test_a_tasks_summary_is_that_of_its_slices(store: Store, contents: list[Any]) -> None:
    address = store.new_task()
    outcome(store, address, [contents])
    after, slices = store.task(address.id), store.slices(address.id)
    assert after.slice_count == len(slices) == len({payloads.slice_key(each) for each in slices})
    assert after.flagged_slice_count == sum(payloads.risk_rank(each.risk_level) >= 2 for each in slices)
    assert after.risk_level == payloads.highest([after.stated_risk_level, *(each.risk_level for each in slices)])
    expected = Counter(label for each in slices for label in {finding.label for finding in each.results})
    assert {each.label: each.slices for each in after.labels} == dict(expected)
    with store.database.read() as session:
        noted = session.execute(sa.select(models.task_labels).where(models.task_labels.c.task_id == address.id))
        listed_by = ("audio", after.service, after.risk_level, after.updated_at, after.id)
        assert {tuple(row) for row in noted} == {(label, *listed_by) for label in expected}
