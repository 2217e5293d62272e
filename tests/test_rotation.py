"""Another master key while the service runs: everything opens under it alone, however often it was interrupted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa

from tests.clients import AppClient
from tests.running import ENCRYPTION_KEYS
from tests.signed import content, form, piece
from webhook import clock
from webhook.app import create_app
from webhook.crypto import DIRECT, Keyring
from webhook.errors import DecryptionError, SettingError, StoreUnavailable
from webhook.evidence import name_of
from webhook.evidence_stores import Directory
from webhook.models import meta
from webhook.rotation import rotate
from webhook.store import evidence as evidence_store
from webhook.store.evidence import SAVED, EvidenceRow
from webhook.store.sealed import KEY_CHECK, SEALED, SealedColumn, SealedValue
from webhook.store.text import upsert

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.db import Session

NEW = f"k2:{'A' * 43}="
BOTH = f"{NEW},{ENCRYPTION_KEYS}"
AUDIO = b"RIFF and what was said"


def quiet(_what: str, _done: int, _total: int) -> None:
    """Show no progress."""


def as_before_data_keys(service: Service) -> None:
    """Have a service seal as older versions did: under the active master key itself."""
    service.keyring._current = service.keyring._direct


@pytest.fixture
def old(make_service: MakeService, tmp_path: Path) -> Service:
    """A service with something in every sealed column, written by a version without data keys."""
    service = make_service()
    as_before_data_keys(service)
    client = AppClient(create_app(service))
    client.made("/v1/tasks", {"url": "https://example.com/a.mp3"}, headers={"Idempotency-Key": "one"})
    made = client.made("/v1/subscriptions", {"url": "nats://user:password@127.0.0.1:9/x.{type}"})
    client.made(f"/v1/subscriptions/{made['id']}/rotate-secret", None)
    receiver = client.receiver()
    flagged = [piece(at * 10, risk="high") | {"Url": f"https://example.com/{at}.wav"} for at in range(3)]
    for one in flagged:
        assert (
            client.callback(
                receiver["callback_url"], form(content(one, TaskId="p-1", LiveId="room-1"), seed=receiver["seed"])
            )
            == 200
        )
    assert client.callback(receiver["callback_url"], form("{}", seed="forged")) == 403
    place = {"table": "meta", "column": "value", "row": KEY_CHECK}
    with service.database.transaction() as session:
        upsert(session, meta, {"name": KEY_CHECK, "value": service.keyring.seal(b"webhook", **place)})
        place["row"] = "api_key_pepper"
        sealed = session.execute(sa.select(meta.c.value).where(meta.c.name == place["row"])).scalar_one()
        pepper = service.keyring.open(sealed, **place)
        upsert(session, meta, {"name": place["row"], "value": service.keyring.seal(pepper, **place)})
        session.exec_driver_sql("DELETE FROM data_keys")
    save_audio(service, pending(service), tmp_path)
    return service


def pending(service: Service) -> list[EvidenceRow]:
    with service.database.transaction() as session:
        return evidence_store.claim_evidence(
            session, now=clock.now(), lease="l", lease_until=clock.now() + timedelta(hours=1), limit=10
        )


def save_audio(service: Service, rows: list[EvidenceRow], directory: Path) -> None:
    """Keep the audio of slices as older versions did."""
    store = Directory(directory / "webhook.db.evidence")
    for row in rows:
        sealed = service.keyring.seal(AUDIO, table="evidence", column="audio", row=name_of(row))
        store.put(name_of(row), sealed)
        with service.database.transaction() as session:
            evidence_store.settle_evidence(session, row, state=SAVED, object=name_of(row), size=len(AUDIO))


def saved(service: Service) -> list[EvidenceRow]:
    with service.database.read() as session:
        rows = session.exec_driver_sql("SELECT task_id, slice_key FROM evidence ORDER BY slice_key").all()
        found = [evidence_store.find_evidence(session, task_id, bytes(key)) for task_id, key in rows]
    return [row for row in found if row is not None]


def values(service: Service, column: SealedColumn) -> list[SealedValue]:
    """Return all values of a column that a master key sealed directly."""
    with service.database.read() as session:
        heads = column.heads(session, after=None, limit=100)
        return column.values(session, after=None, until=heads[-1].key, begin=DIRECT) if heads else []


def direct(service: Service) -> dict[str, int]:
    return {column.label: len(found) for column in SEALED if (found := values(service, column))}


def seen(service: Service) -> list[Any]:
    """Return what clients see of everything that is encrypted."""
    client = AppClient(create_app(service))
    verdicts = client.items("/v1/verdicts")
    return [
        client.items("/v1/tasks"),
        client.feed(),
        [client.items(f"/v1/verdicts/{one['task_id']}/slices") for one in verdicts],
        [client.shown(f"/v1/callbacks/{one['id']}") for one in client.items("/v1/callbacks")],
        client.post("/v1/tasks", {"url": "https://example.com/a.mp3"}, headers={"Idempotency-Key": "one"}).json,
        [service.evidence.load(row) for row in saved(service)],
    ]


def test_everything_that_an_older_version_sealed_opens_under_the_new_master_key_alone(
    old: Service, make_service: MakeService
) -> None:
    before = seen(old)
    assert direct(old).keys() == {column.label for column in SEALED}
    both = make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH)
    expected = sum(direct(old).values()) + len(saved(old))
    told: list[tuple[str, int, int]] = []
    rotated = rotate(both, progress=lambda *what: told.append(what))
    assert (rotated.wrapped, rotated.sealed, rotated.needed) == (0, expected, {})
    assert direct(both) == {}
    assert {what for what, _, _ in told} == {column.label for column in SEALED} | {
        "data_keys.wrapped",
        "evidence, audio",
    }
    assert all(0 < done <= total for _, done, total in told)
    new = make_service(WEBHOOK_ENCRYPTION_KEYS=NEW)
    assert seen(new) == before
    for column in SEALED:
        with new.database.read() as session:
            assert {head.under for head in column.heads(session, after=None, limit=100)} == {1}, column.label
    again = rotate(new, progress=quiet)
    assert (again.wrapped, again.sealed, again.needed) == (0, 0, {})


def test_every_value_opens_at_its_place_after_it_was_sealed_anew(old: Service, make_service: MakeService) -> None:
    plain = {
        (column.label, value.row): old.keyring.open(value.sealed, **column.place(value))
        for column in SEALED
        for value in values(old, column)
    }
    rotate(make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH), progress=quiet)
    new = make_service(WEBHOOK_ENCRYPTION_KEYS=NEW)
    with new.database.read() as session:
        for column in SEALED:
            key, row = column._key, column._named_by
            for found in session.execute(column.column.table.select().where(column._sealed)):
                name = column._row(*[getattr(found, one.name) for one in row])
                sealed = getattr(found, column.column.name)
                value = SealedValue(key=tuple(getattr(found, one.name) for one in key), row=name, sealed=sealed)
                assert new.keyring.open(sealed, **column.place(value)) == plain.pop((column.label, name))
    assert plain == {}


def test_with_data_keys_a_rotation_is_a_handful_of_rows(make_service: MakeService) -> None:
    service = make_service()
    client = AppClient(create_app(service))
    client.made("/v1/tasks", {"url": "https://example.com/a.mp3"}, headers={"Idempotency-Key": "one"})
    before = seen(service)
    rotated = rotate(make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH), progress=quiet)
    assert (rotated.wrapped, rotated.sealed, rotated.needed) == (1, 0, {})
    assert seen(make_service(WEBHOOK_ENCRYPTION_KEYS=NEW)) == before
    assert seen(service) == before, "a process that was started before goes on"
    with pytest.raises(SettingError, match="lacks k2"):
        make_service()


class Killed(Exception):
    """The rotation ends here."""


def test_a_rotation_that_is_killed_at_any_step_is_just_run_again(
    old: Service, make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhook.store.sealed._VALUES", 1)
    before, both, kills = seen(old), make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH), 0
    replace = SealedColumn.replace
    while True:
        allowed = 1

        def one_only(column: SealedColumn, session: Session, anew: Sequence[tuple[SealedValue, bytes]]) -> int:
            nonlocal allowed
            if not allowed:
                raise Killed
            allowed -= 1
            return replace(column, session, anew)

        monkeypatch.setattr(SealedColumn, "replace", one_only)
        assert seen(both) == before
        left = sum(direct(both).values())
        try:
            rotated = rotate(both, progress=quiet)
        except Killed:
            kills += 1
            assert sum(direct(both).values()) == left - 1
        else:
            break
    assert kills > len(SEALED)
    assert rotated.needed == {}
    assert seen(make_service(WEBHOOK_ENCRYPTION_KEYS=NEW)) == before


@pytest.mark.usefixtures("old")
def test_until_a_rotation_is_through_the_service_does_not_start_without_the_old_key(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH)
    replace = SealedColumn.replace

    def all_but_the_last(column: SealedColumn, session: Session, anew: Sequence[tuple[SealedValue, bytes]]) -> int:
        if column is SEALED[-1]:
            raise Killed
        return replace(column, session, anew)

    with monkeypatch.context() as patched:
        patched.setattr(SealedColumn, "replace", all_but_the_last)
        with pytest.raises(Killed):
            rotate(both, progress=quiet)
    with pytest.raises(SettingError, match="holds no key that opens"):
        make_service(WEBHOOK_ENCRYPTION_KEYS=NEW)
    rotate(both, progress=quiet)
    make_service(WEBHOOK_ENCRYPTION_KEYS=NEW)


@pytest.mark.usefixtures("old")
def test_a_value_that_changes_meanwhile_is_not_overwritten(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH)
    [subscription] = AppClient(create_app(both)).items("/v1/subscriptions")
    place = {"table": "subscriptions", "column": "secret", "row": subscription["id"]}
    changed: list[int] = []
    replace = SealedColumn.replace

    def after_a_change(column: SealedColumn, session: Session, anew: Sequence[tuple[SealedValue, bytes]]) -> int:
        if column.label == "subscriptions.secret" and not changed:
            [(value, _)] = anew
            changed.append(replace(column, session, [(value, both.keyring.seal(b"newer", **place))]))
            changed.append(replace(column, session, anew))
            return changed[-1]
        return replace(column, session, anew)

    monkeypatch.setattr(SealedColumn, "replace", after_a_change)
    assert rotate(both, progress=quiet).needed == {}
    assert changed == [1, 0]
    with both.database.read() as session:
        [[sealed]] = session.exec_driver_sql("SELECT secret FROM subscriptions").all()
    assert both.keyring.open(bytes(sealed), **place) == b"newer"


def test_what_an_older_process_writes_meanwhile_is_found(old: Service, make_service: MakeService) -> None:
    both = make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH)
    written: list[Any] = []

    def meanwhile(what: str, _done: int, _total: int) -> None:
        if what == "tasks.secrets" and not written:
            written.append(AppClient(create_app(old)).made("/v1/tasks", {"url": "https://example.com/b.mp3"}))

    assert rotate(both, progress=meanwhile).needed == {}
    assert direct(both) == {}


def test_what_does_not_open_is_told_by_its_key(old: Service, make_service: MakeService, tmp_path: Path) -> None:
    stranger = Keyring({"k0": b"0" * 32})
    store = Directory(tmp_path / "webhook.db.evidence")
    altered, lost, *_ = saved(old)
    store.put(name_of(altered), stranger.seal(AUDIO, table="evidence", column="audio", row=name_of(altered)))
    (tmp_path / "webhook.db.evidence" / name_of(lost)).unlink()
    with old.database.transaction() as session:
        sealed = old.keyring.seal(b"{}", table="tasks", column="secrets", row="another")
        session.execute(SEALED[0].column.table.update().where(SEALED[0].column.is_not(None)).values(secrets=sealed))
    both = make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH)
    for _ in range(2):
        assert rotate(both, progress=quiet).needed == {"k0": 1, "k1": 1}


@pytest.mark.usefixtures("old")
def test_a_store_that_cannot_be_read_ends_the_rotation(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH)

    def away(_store: Directory, _name: str) -> bytes:
        raise StoreUnavailable("The evidence store does not exist.")

    with monkeypatch.context() as patched:
        patched.setattr(Directory, "get", away)
        with pytest.raises(StoreUnavailable):
            rotate(both, progress=quiet)
    assert rotate(both, progress=quiet).needed == {}


def test_audio_that_is_saved_now_tells_its_data_key(old: Service, make_service: MakeService) -> None:
    assert [row.data_key_id for row in saved(old)] == [None] * 3
    rotate(make_service(WEBHOOK_ENCRYPTION_KEYS=BOTH), progress=quiet)
    assert [row.data_key_id for row in saved(old)] == [1] * 3
    with pytest.raises(DecryptionError):
        old.evidence.load(msgspec.structs.replace(saved(old)[0], slice_key=b"other"))
