"""A grown installation on SQLite, copied into PostgreSQL: the same in both, and the service goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from tests import databases, signed
from tests.clients import AppClient
from tests.running import ENCRYPTION_KEYS
from webhook import audit, bootstrap, clock, processes, transfer
from webhook import settings as settings_module
from webhook.app import create_app
from webhook.errors import DatabaseError
from webhook.models import metadata
from webhook.store import keys as key_store
from webhook.store.text import insert_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeSettings
    from webhook.bootstrap import Service

pytestmark = databases.needs_postgresql


@pytest.fixture
def old(settings: MakeSettings, tmp_path: Path) -> Iterator[Service]:
    """A service on SQLite that has seen something of everything."""
    ours = settings(WEBHOOK_DATABASE_URL=f"sqlite:///{tmp_path}/old.db")
    processes.migrate(ours)
    service = bootstrap.build(ours)
    client = AppClient(create_app(service))
    client.made("/v1/subscriptions", {"url": "http://127.0.0.1:9/hook"})
    receiver = client.receiver()
    for number in range(30):
        pieces = [signed.piece(at * 10, risk="high", label="political_entity") for at in range(number % 7)]
        body = signed.form(signed.content(*pieces, TaskId=f"t-{number}"), seed=receiver["seed"])
        assert client.callback(receiver["callback_url"], body) == 200
    assert client.callback(receiver["callback_url"], signed.form("{}", seed="forged")) == 403
    client.made("/v1/tasks", {"url": "https://example.com/a.mp3"}, headers={"Idempotency-Key": "one"})
    yield service
    service.database.close()


def copy(old: Service, target: str) -> list[transfer.Copied]:
    return transfer.transfer(old.settings.database_url, target, progress=lambda *_: None)


def test_everything_is_copied_and_the_service_goes_on(old: Service, tmp_path: Path) -> None:
    target = databases.fresh_url(tmp_path)
    before = AppClient(create_app(old))
    copied = {one.table: one.rows for one in copy(old, target)}
    assert copied["tasks"] == 31
    assert copied.keys() == metadata.tables.keys()
    assert {name for name, rows in copied.items() if rows} >= {"events", "callbacks", "slice_pages", "subscriptions"}
    service = bootstrap.build(settings_module.load({**_variables(old), "WEBHOOK_DATABASE_URL": target}))
    try:
        after = AppClient(create_app(service))
        for path in ("/v1/tasks", "/v1/verdicts", "/v1/subscriptions", "/v1/receivers", "/v1/callbacks"):
            assert after.items(path) == before.items(path), path
        assert after.feed() == before.feed()
        for verdict in before.items("/v1/verdicts"):
            path = f"/v1/verdicts/{verdict['task_id']}/slices"
            assert after.items(path) == before.items(path)
        after.made("/v1/subscriptions", {"url": "http://127.0.0.1:9/other"})
        with service.database.read() as session:
            report = audit.verify(session, service.keyring)
        assert (report.fault, report.head.number > copied["audit_log"] > 0) == (None, True)
        newer = after.feed()
        after.delete(f"/v1/streams/{after.made('/v1/streams', {'url': 'rtmp://h/1', 'live_id': 'l'})['id']}")
        assert len(after.feed()) == len(newer) + 1, "its number comes after those that were copied"
    finally:
        service.database.close()


def test_a_copy_can_be_copied_back(old: Service, tmp_path: Path) -> None:
    target, back = databases.fresh_url(tmp_path), f"sqlite:///{tmp_path}/back.db"
    there = copy(old, target)
    assert transfer.transfer(target, back, progress=lambda *_: None) == there


def _variables(service: Service) -> dict[str, str]:
    return {
        "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "WEBHOOK_ADMIN_KEY": service.settings.admin_key or "",
        "WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
    }


def test_a_target_that_holds_something_is_refused(old: Service, tmp_path: Path) -> None:
    target = databases.fresh_url(tmp_path)
    copy(old, target)
    with pytest.raises(DatabaseError, match="is not empty"):
        copy(old, target)


def test_a_source_that_is_in_use_is_refused(old: Service, tmp_path: Path) -> None:
    with old.database.transaction() as session:
        key_store.beat(session, key_store.WORKER, now=clock.now())
    with pytest.raises(DatabaseError, match="Stop it"):
        copy(old, databases.fresh_url(tmp_path))


def test_a_difference_keeps_nothing(old: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_a_fault(session: Any, table: sa.Table, columns: Any, rows: Any) -> int:
        return insert_rows(session, table, columns, rows[:-1] if table.name == "callbacks" else rows)

    monkeypatch.setattr("webhook.transfer.insert_rows", with_a_fault)
    target = databases.fresh_url(tmp_path)
    with pytest.raises(DatabaseError, match="callbacks is not the same"):
        copy(old, target)
    engine = sa.create_engine(target)
    with engine.connect() as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(metadata.tables["tasks"])).scalar() == 0
    engine.dispose()
