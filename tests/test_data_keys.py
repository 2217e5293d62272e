"""Data keys: one for each period, shared by all processes, and refused where a master key is missing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from structlog.testing import capture_logs

from tests.running import ENCRYPTION_KEYS
from tests.waiting import until
from webhook import crypto
from webhook.crypto import DataKey, sealed_under
from webhook.data_keys import DataKeys
from webhook.errors import DatabaseError, DecryptionError, SettingError
from webhook.store import data_keys as data_key_store

if TYPE_CHECKING:
    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.crypto import Keyring
    from webhook.db import Database

PLACE = {"table": "tasks", "column": "secrets", "row": "task_1"}
MASTERS = {"k1": bytes(range(32))}  # those of ENCRYPTION_KEYS
OTHER = f"k2:{'A' * 43}="
DAY = 86_400.0


class Time:
    """Seconds that only move when they are told to."""

    def __init__(self) -> None:
        self.seconds = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def database(service: Service) -> Database:
    """A database whose data keys are made by the test."""
    with service.database.transaction() as session:
        session.exec_driver_sql("DELETE FROM data_keys")
    return service.database


def process(
    database: Database, time: Time, *, suite: str = "aes-256-gcm", masters: dict[str, bytes] = MASTERS
) -> DataKeys:
    """Return the data keys of one process, begun."""
    one = DataKeys(database, masters, suite=suite, period=timedelta(days=30), now=time)
    one.load()
    one.begin()
    return one


def seal(keyring: Keyring) -> int | str | None:
    """Seal a value and return under what."""
    return sealed_under(keyring.seal(b"secret", **PLACE))


def listed(database: Database) -> list[DataKey]:
    with database.read() as session:
        return data_key_store.list_data_keys(session)


def test_processes_that_make_the_first_data_key_at_once_agree_on_it(database: Database, time: Time) -> None:
    together = threading.Barrier(4)

    def begin(_: int) -> Keyring:
        together.wait()
        return process(database, time).keyring

    with ThreadPoolExecutor(4) as pool:
        rings = list(pool.map(begin, range(4)))
    assert [one.id for one in listed(database)] == [1]
    assert all(ring.open(rings[0].seal(b"secret", **PLACE), **PLACE) == b"secret" for ring in rings)


def test_a_process_that_starts_within_the_period_goes_on_with_its_data_key(database: Database, time: Time) -> None:
    process(database, time)
    time.seconds += 29 * DAY
    assert seal(process(database, time).keyring) == 1
    time.seconds += DAY
    assert seal(process(database, time).keyring) == 2


def test_a_running_process_goes_over_to_the_next_data_key_when_the_period_is_over(
    database: Database, time: Time
) -> None:
    ring, other = process(database, time).keyring, process(database, time).keyring
    time.seconds += 30 * DAY
    until(lambda: seal(ring) == 2)
    assert seal(other) == 2, "it finds the one that is there"
    assert [one.id for one in listed(database)] == [1, 2]


def test_the_next_data_key_is_made_while_whoever_seals_has_a_transaction_open(database: Database, time: Time) -> None:
    ring = process(database, time).keyring
    time.seconds += 30 * DAY
    with database.transaction():
        assert seal(ring) == 1
        assert seal(ring) == 1
    until(lambda: seal(ring) == 2)


def test_a_next_data_key_that_cannot_be_made_is_tried_again(
    database: Database, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = process(database, time)
    time.seconds += 30 * DAY

    def fail() -> None:
        raise DatabaseError("the disk is full")

    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(one, "begin", fail)
        assert seal(one.keyring) == 1
        until(lambda: [entry["error"] for entry in logged] == ["the disk is full"])
    assert seal(one.keyring) == 1
    time.seconds += 10
    until(lambda: seal(one.keyring) == 2)


@pytest.mark.parametrize("other", [{"suite": "sm4-gcm"}, {"masters": {"k2": bytes(32), **MASTERS}}])
def test_a_process_that_was_idle_until_its_data_key_was_destroyed_seals_nothing_under_it(
    database: Database, time: Time, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any]
) -> None:
    idle = process(database, time)
    time.seconds += 30 * DAY
    process(database, time, **other)  # whose data key is not for the idle one
    time.seconds += 1.5 * DAY
    at = datetime.fromtimestamp(time(), UTC)
    with database.transaction() as session:
        assert [one.id for one in data_key_store.destroyable(session, now=at)] == [1]
        assert data_key_store.destroy(session, 1, now=at)

    def aside_has_ended() -> bool:
        return idle._aside is not None and not idle._aside.is_alive()

    with monkeypatch.context() as patched:
        patched.setattr(idle, "begin", lambda: None)  # as long as it takes
        for _ in range(3):
            with pytest.raises(DatabaseError, match="Data key 1 was destroyed"):
                seal(idle.keyring)
        until(aside_has_ended)
    with pytest.raises(DatabaseError, match="Data key 1 was destroyed"):
        seal(idle.keyring)
    until(aside_has_ended)
    assert seal(idle.keyring) == 3


def test_a_process_whose_data_key_has_sealed_enough_goes_over_to_the_one_that_another_has_made(
    database: Database, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.crypto._MOST_VALUES", 2)
    ring, other = process(database, time).keyring, process(database, time).keyring
    assert [seal(other), seal(other)] == [1, 1]
    until(lambda: seal(ring) == 2)
    assert seal(other) == 2
    assert [one.id for one in listed(database)] == [1, 2]


def test_what_another_process_sealed_under_a_newer_data_key_opens(database: Database, time: Time) -> None:
    ring = process(database, time).keyring
    time.seconds += 30 * DAY
    newer = process(database, time).keyring
    with database.transaction():
        assert ring.open(newer.seal(b"secret", **PLACE), **PLACE) == b"secret"


def test_another_suite_counts_for_new_values_and_old_ones_open(database: Database, time: Time) -> None:
    before = process(database, time).keyring.seal(b"secret", **PLACE)
    sm4 = process(database, time, suite="sm4-gcm").keyring
    assert (seal(sm4), sm4.open(before, **PLACE)) == (2, b"secret")
    assert seal(process(database, time).keyring) == 1, "each process has its own setting until it is restarted"
    assert [one.suite for one in listed(database)] == ["aes-256-gcm", "sm4-gcm"]


def test_a_process_without_the_newest_master_key_makes_a_data_key_of_its_own(database: Database, time: Time) -> None:
    ring = process(database, time).keyring
    time.seconds += 30 * DAY
    newer = process(database, time, masters={"k2": bytes(32), **MASTERS}).keyring
    until(lambda: seal(ring) == 3)
    assert newer.open(ring.seal(b"secret", **PLACE), **PLACE) == b"secret"
    with pytest.raises(DecryptionError, match="Put the old key back"):
        ring.open(newer.seal(b"secret", **PLACE), **PLACE)
    with pytest.raises(SettingError, match=r"lacks k2, by which data keys of .* are wrapped"):
        process(database, time)


def test_a_wrong_key_of_the_same_id_is_refused_and_nothing_is_made_under_it(database: Database, time: Time) -> None:
    process(database, time)
    time.seconds += 30 * DAY
    with pytest.raises(SettingError, match="holds no key that opens"):
        process(database, time, masters={"k1": bytes(32)})
    assert len(listed(database)) == 1


def test_a_service_does_not_start_without_the_master_key_of_a_data_key(make_service: MakeService) -> None:
    make_service()
    with pytest.raises(SettingError, match=r"WEBHOOK_ENCRYPTION_KEYS: lacks k1, .* Put it back"):
        make_service(WEBHOOK_ENCRYPTION_KEYS=OTHER)
    rotated = make_service(WEBHOOK_ENCRYPTION_KEYS=f"{OTHER},{ENCRYPTION_KEYS}")
    assert seal(rotated.keyring) == 1


def test_a_service_does_not_start_where_a_suite_is_not_to_be_had(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seal(make_service(WEBHOOK_CIPHER_SUITE="SM4-GCM").keyring) == 1

    def lacking(_algorithm: object, _mode: object) -> None:
        raise UnsupportedAlgorithm("cipher SM4 in GCM mode is not supported by this backend")

    monkeypatch.setattr(crypto, "Cipher", lacking)
    with pytest.raises(SettingError, match="WEBHOOK_CIPHER_SUITE: is, or was, sm4-gcm"):
        make_service()


def test_a_data_key_can_be_destroyed_once_nobody_seals_under_it_and_nothing_is_under_it(
    database: Database, time: Time
) -> None:
    def at() -> datetime:
        return datetime.fromtimestamp(time(), UTC)

    def destroyable() -> list[int]:
        with database.read() as session:
            return [one.id for one in data_key_store.destroyable(session, now=at())]

    ring = process(database, time).keyring
    sealed = ring.seal(b"secret", **PLACE)
    time.seconds += 32 * DAY
    assert destroyable() == [], "it is the newest"
    process(database, time)
    assert destroyable() == [], "somebody may be sealing under it still"
    time.seconds += DAY
    assert destroyable() == [1]
    with database.transaction() as session:
        assert data_key_store.destroy(session, 1, now=at())
        assert not data_key_store.destroy(session, 1, now=at())
        assert not data_key_store.destroy(session, 9, now=at())
    assert destroyable() == []
    newer = process(database, time).keyring
    with pytest.raises(DecryptionError, match="was destroyed"):
        newer.open(sealed, **PLACE)
    with database.transaction() as session:
        assert data_key_store.destroy(session, 2, now=at())
    assert seal(process(database, time).keyring) == 3, "a number is never used again"
