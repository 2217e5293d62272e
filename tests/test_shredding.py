"""Data keys of past periods are destroyed once nothing is under them; whatever is stored opens all the same."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from tests import databases
from tests.conftest import Clock
from tests.test_erasure import Caller
from tests.test_retention import MONTH, some_of_everything, sweep
from tests.test_workers import working
from tests.waiting import until
from webhook import audit, clock, shredding
from webhook.crypto import beginnings
from webhook.errors import DatabaseError, DecryptionError
from webhook.models import audit_log, data_keys, evidence, tasks
from webhook.shredding import Shredding
from webhook.store import data_keys as data_key_store
from webhook.store.keys import forget_answers
from webhook.store.sealed import SEALED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.crypto import DataKey
    from webhook.db import Database, Session

OLD, PRESENT = 1, 2
DAY = timedelta(days=1)


def past(service: Service) -> None:
    """Have a service's data keys be of a period that is over."""
    with service.database.transaction() as session:
        session.execute(sa.update(data_keys).values(created_at=clock.now() - 2 * MONTH, expires_at=clock.now() - MONTH))


@pytest.fixture
def service(make_service: MakeService) -> Service:
    """A service with some of everything under a data key of a past period, and another one begun."""
    first = make_service()
    caller = Caller(first)
    some_of_everything(caller)
    made = caller.client.made("/v1/subscriptions", {"url": "nats://user:password@127.0.0.1:9/x.{type}"})
    caller.client.made(f"/v1/subscriptions/{made['id']}/rotate-secret", None)
    caller.client.receiver()
    past(first)
    return make_service()


def forget(service: Service) -> None:
    """Have retention remove all that it ever removes."""
    sweep(service, days=31, **dict.fromkeys(("callbacks", "quarantined", "transcripts", "evidence", "events"), MONTH))
    service.evidence._now = lambda: clock.now() + MONTH
    while service.evidence.erase_some(service.database):
        pass
    with service.database.transaction() as session:
        forget_answers(session, before=clock.now() + timedelta(days=1))


def look(service: Service, *, days: float) -> None:
    """Take a look as it is taken in so many days."""
    one = Shredding(keyring=service.keyring, now=lambda: clock.now() + timedelta(days=days))
    while one.shred_some(service.database):
        pass


def listed(service: Service) -> list[DataKey]:
    with service.database.read() as session:
        return data_key_store.list_data_keys(session)


def live(service: Service) -> list[int]:
    return [one.id for one in listed(service) if one.wrapped is not None]


def under(service: Service) -> dict[str, set[Any]]:
    """Return what the values of each column are sealed under."""
    with service.database.read() as session:
        heads = {column.label: column.heads(session, after=None, limit=1000) for column in SEALED}
    return {label: {head.under for head in found} for label, found in heads.items() if found}


def entries(service: Service) -> list[Any]:
    with service.database.read() as session:
        return list(session.execute(sa.select(audit_log).where(audit_log.c.action == "data_key.destroyed")))


def seen(service: Service) -> tuple[Any, ...]:
    """Return what clients see of what lasts, and every value that is stored, opened."""
    caller = Caller(service)
    verdicts = caller.client.items("/v1/verdicts")
    slices = [caller.client.items(f"/v1/verdicts/{one['task_id']}/slices") for one in verdicts]
    return slices, {place: opened for place, opened in values(service) if place != "audit_head"}  # it moves


def values(service: Service) -> Iterator[tuple[str, bytes]]:
    with service.database.read() as session:
        for column in SEALED:
            heads = column.heads(session, after=None, limit=1000)
            begin = beginnings(head.under for head in heads if isinstance(head.under, int))
            for value in column.values(session, after=None, until=heads[-1].key, begin=begin) if heads else ():
                name = value.row if column.label == "meta.value" else f"{column.label} {value.row}"
                yield name, service.keyring.open(value.sealed, **column.place(value))


def test_a_key_waits_for_all_that_a_retention_will_remove(service: Service) -> None:
    before = under(service)
    look(service, days=2)
    assert live(service) == [OLD, PRESENT]
    assert under(service) == before, "nothing is sealed anew while its key must wait"
    assert entries(service) == []


def test_a_key_that_must_wait_keeps_another_from_nothing(service: Service, make_service: MakeService) -> None:
    forget(service)
    with service.database.transaction() as session:
        session.execute(sa.update(data_keys).values(created_at=clock.now() - MONTH, expires_at=clock.now() - 9 * DAY))
    Caller(service).done()
    last = make_service()
    assert set().union(*under(last).values()) == {OLD, PRESENT}
    look(last, days=2)
    assert {under_it for label, keys in under(last).items() if label != "meta.value" for under_it in keys} == {
        PRESENT,
        3,
    }
    assert under(last)["tasks.secrets"] == {PRESENT, 3}, "of the one that waits nothing is sealed anew"
    look(last, days=3)
    assert live(last) == [PRESENT, 3]


def test_what_lasts_is_sealed_anew_and_a_later_look_destroys_the_key(
    service: Service, make_service: MakeService
) -> None:
    forget(service)
    before = seen(service)
    old = next(one for one in listed(service) if one.id == OLD)
    look(service, days=2)
    assert live(service) == [OLD, PRESENT], "nothing is destroyed that something was under a moment ago"
    assert set().union(*under(service).values()) == {PRESENT}
    look(service, days=3)
    assert live(service) == [PRESENT]
    fresh = make_service()
    assert seen(fresh) == before
    with pytest.raises(DecryptionError, match="was destroyed"):
        fresh.keyring.open(b"\x03" + OLD.to_bytes(4) + bytes(40), table="tasks", column="secrets", row="task_1")
    (entry,) = entries(fresh)
    assert (entry.actor, entry.object_id) == ("service", str(OLD))
    assert clock.rfc3339(old.created_at) in entry.details
    with fresh.database.read() as session:
        assert audit.verify(session, fresh.keyring).fault is None


@databases.needs_sqlite
def test_of_a_destroyed_key_nothing_is_in_the_file_or_its_log(service: Service) -> None:
    forget(service)
    wrapped = listed(service)[0].wrapped or b""
    look(service, days=2)
    assert any(wrapped in content for content in stored(service.database))
    one = Shredding(keyring=service.keyring, now=lambda: clock.now() + timedelta(days=3))
    while one.shred_some(service.database):
        pass
    one.shred_some(service.database)
    assert not any(wrapped in content for content in stored(service.database))


def stored(database: Database) -> list[bytes]:
    assert database.path is not None
    return [path.read_bytes() for path in database.path.parent.glob("webhook.db*") if path.is_file()]


def test_saved_audio_keeps_its_key(service: Service) -> None:
    task_id = Caller(service).done()
    forget(service)
    saved = {"state": "saved", "url": b"", "object": "o", "attempt_count": 1, "created_at": clock.now()}
    with service.database.transaction() as session:
        session.execute(sa.insert(evidence).values(task_id=task_id, slice_key=b"1", data_key_id=OLD, **saved))
    for days in (2, 3, 4):
        look(service, days=days)
    assert live(service) == [OLD, PRESENT]
    with service.database.transaction() as session:
        session.execute(sa.update(evidence).values(data_key_id=PRESENT))
    for days in (5, 6):
        look(service, days=days)
    assert live(service) == [PRESENT]


def test_a_value_that_does_not_open_keeps_its_key_and_is_told(service: Service) -> None:
    forget(service)
    with service.database.transaction() as session:
        sealed = session.execute(sa.select(tasks.c.secrets)).scalar_one()
        session.execute(sa.update(tasks).values(secrets=sealed[:-1] + bytes([sealed[-1] ^ 1])))
    with capture_logs() as logged:
        for days in (2, 3, 4):
            look(service, days=days)
    assert live(service) == [OLD, PRESENT]
    assert {entry["event"] for entry in logged if entry["log_level"] == "warning"} == {
        "A value does not open, so its data key is kept."
    }


def test_a_look_is_taken_once_a_day_by_whichever_worker(service: Service) -> None:
    forget(service)
    at = Clock()
    at.time = clock.now() + timedelta(days=2)
    ticks = [0.0]

    def worker() -> Shredding:
        return Shredding(keyring=service.keyring, now=at, ticks=lambda: ticks[0])

    first, second = worker(), worker()
    while first.shred_some(service.database):
        pass
    assert OLD not in set().union(*under(service).values())
    assert not second.shred_some(service.database)
    at.advance(hours=23)
    ticks[0] += 23 * 3600
    assert not first.shred_some(service.database)
    assert not second.shred_some(service.database)
    assert live(service) == [OLD, PRESENT]
    at.advance(hours=1)
    assert not first.shred_some(service.database), "it asked a moment ago"
    ticks[0] += 3600
    while second.shred_some(service.database):
        pass
    assert live(service) == [PRESENT]


def test_it_may_be_killed_at_any_step(
    service: Service, make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.shredding._HEADS", 3)
    monkeypatch.setattr("webhook.store.sealed._VALUES", 1)
    forget(service)
    before = seen(service)
    transaction, allowed, kills = service.database.transaction, 0, 0
    while live(service) != [PRESENT]:
        allowed += 1
        left = allowed

        @contextmanager
        def some_only() -> Iterator[Session]:
            nonlocal left
            if not left:
                raise DatabaseError("killed")
            left -= 1
            with transaction() as session:
                yield session

        monkeypatch.setattr(service.database, "transaction", some_only)
        try:
            look(service, days=1 + allowed)
        except DatabaseError:
            kills += 1
        monkeypatch.setattr(service.database, "transaction", transaction)
        assert seen(make_service()) == before
    assert kills > 3


def test_a_fault_ends_a_look_and_the_next_one_begins_anew(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(service)
    days, ticks = [2.0], [0.0]
    one = Shredding(keyring=service.keyring, now=lambda: clock.now() + timedelta(days=days[0]), ticks=lambda: ticks[0])
    with monkeypatch.context() as patched:

        def fail(*_: object, **__: object) -> None:
            raise DatabaseError("away")

        patched.setattr("webhook.shredding.evidence_store.audio_keys", fail)
        with pytest.raises(DatabaseError, match="away"):
            one.shred_some(service.database)
    assert not one.shred_some(service.database)
    for days[0] in (3.0, 4.0):
        ticks[0] += 3600
        while one.shred_some(service.database):
            pass
    assert live(service) == [PRESENT]


def test_the_worker_does_it(service: Service) -> None:
    forget(service)
    look(service, days=2)
    later = Shredding(keyring=service.keyring, now=lambda: clock.now() + timedelta(days=3))
    with working(dataclasses.replace(service, shredding=later)):
        until(lambda: live(service) == [PRESENT])


def test_when_it_was_looked_for_last_is_known(make_service: MakeService) -> None:
    service = make_service()
    with service.database.read() as session:
        assert shredding.looked_at(session) is None
    look(service, days=2)
    with service.database.read() as session:
        at = shredding.looked_at(session)
    assert at is not None
    assert timedelta(days=1, hours=23) < at - clock.now() <= timedelta(days=2)
