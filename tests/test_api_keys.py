"""API keys: found by a keyed hash, at most two of a client live, and those of before taken over."""

from __future__ import annotations

import hashlib
import hmac
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from tests.clients import AppClient
from webhook import bootstrap, clock, models
from webhook.app import create_app
from webhook.crypto import Keyring
from webhook.errors import Conflict, DecryptionError, NotFound
from webhook.roles import Role
from webhook.store import keys as key_store
from webhook.store.keys import ApiKey

if TYPE_CHECKING:
    from tests.conftest import MakeService
    from webhook.bootstrap import Service

NOW = clock.now()
DAY = timedelta(days=1)


def create(
    service: Service, name: str = "a", role: Role = Role.READER, *, days: int | None = None
) -> tuple[ApiKey, str]:
    with service.database.transaction() as session:
        lifetime = None if days is None else days * DAY
        return service.api_keys.create(session, name=name, role=role, lifetime=lifetime, now=NOW)


def revoke(service: Service, key: ApiKey) -> None:
    with service.database.transaction() as session:
        assert key_store.revoke_api_key(session, key.id, now=NOW)


def found(service: Service, key: str) -> ApiKey | None:
    with service.database.read() as session:
        return service.api_keys.find(session, service.api_keys.digest(key.encode()))


def pepper(service: Service) -> bytes:
    with service.database.read() as session:
        sealed = key_store.meta_value(session, "api_key_pepper")
    assert sealed
    return service.keyring.open(sealed, table="meta", column="value", row="api_key_pepper")


def test_what_is_kept_is_a_hash_under_a_secret_that_is_sealed(service: Service) -> None:
    row, key = create(service)
    kept = found(service, key)
    assert kept == row
    plain = hashlib.sha256(key.encode()).digest()
    assert row.digest == hmac.new(pepper(service), plain, hashlib.sha256).digest()
    assert row.digest != plain


def test_a_key_of_before_goes_on_working_and_its_plain_hash_is_gone(make_service: MakeService) -> None:
    first = make_service()
    old = "wk_made-by-the-version-before"
    plain = hashlib.sha256(old.encode()).digest()
    with first.database.transaction() as session:  # as that version left it
        session.execute(sa.delete(models.meta).where(models.meta.c.name == "api_key_pepper"))
        key_store.insert_api_key(session, ApiKey(id="key_1", name="old", role="reader", digest=plain, created_at=NOW))
    services = [make_service(), make_service()]
    for service in services:
        assert AppClient(create_app(service)).get("/v1/tasks", key=old).status == 200
    assert pepper(services[0]) == pepper(services[1])
    with first.database.read() as session:
        [key] = key_store.list_api_keys(session)
    assert key.digest not in {plain, b""}


def test_a_pepper_that_does_not_open_is_refused_at_the_start(make_service: MakeService) -> None:
    service = make_service()
    other = Keyring({"k9": b"9" * 32})
    with service.database.transaction() as session:
        sealed = other.seal(b"p" * 32, table="meta", column="value", row="api_key_pepper")
        key_store.set_meta(session, "api_key_pepper", sealed)
    with pytest.raises(DecryptionError, match="WEBHOOK_ENCRYPTION_KEYS"):
        bootstrap.build(service.settings)


def test_a_client_has_two_live_keys_at_the_most(service: Service) -> None:
    first, _ = create(service)
    second, _ = create(service, role=Role.ADMIN)
    create(service, "another")
    with pytest.raises(Conflict, match=f"a has 2 live keys already.*{first.id} or {second.id}"):
        create(service)
    revoke(service, first)
    create(service)


def test_an_expired_key_makes_room(service: Service) -> None:
    create(service)
    create(service, days=1)
    with pytest.raises(Conflict):
        create(service)
    with service.database.transaction() as session:
        assert service.api_keys.create(session, name="a", role=Role.READER, now=NOW + DAY)


def test_the_second_key_is_like_the_first_and_both_work(service: Service) -> None:
    networks = ["10.0.0.0/8"]
    with service.database.transaction() as session:
        old, first = service.api_keys.create(
            session, name="a", role=Role.SUBMITTER, lifetime=30 * DAY, networks=networks, now=NOW
        )
        replaced, new, second = service.api_keys.rotate(session, name="a", now=NOW + DAY)
    assert replaced == old
    assert (new.role, new.networks, new.expires_at) == ("submitter", networks, NOW + 31 * DAY)
    assert found(service, first)
    assert found(service, second)
    with service.database.transaction() as session, pytest.raises(Conflict):
        service.api_keys.rotate(session, name="a", now=NOW)
    revoke(service, old)
    assert found(service, first) is None
    with service.database.transaction() as session:
        _, third, _ = service.api_keys.rotate(session, name="a", lifetime=DAY, now=NOW)
    assert third.expires_at == NOW + DAY


def test_nothing_takes_the_place_of_no_key(service: Service) -> None:
    key, _ = create(service)
    revoke(service, key)
    with service.database.transaction() as session, pytest.raises(NotFound, match="a has no live key"):
        service.api_keys.rotate(session, name="a", now=NOW)


def test_a_hash_alone_plants_no_key(service: Service) -> None:
    planted = "wk_planted"
    digest = hashlib.sha256(planted.encode()).digest()
    with service.database.transaction() as session:
        key_store.insert_api_key(session, ApiKey(id="key_1", name="x", role="admin", digest=digest, created_at=NOW))
    assert AppClient(create_app(service)).get("/v1/tasks", key=planted).status == 401
