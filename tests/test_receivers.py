"""Receivers are opened with secrets of their own, which the database keeps sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.receivers import open_receiver
from webhook.store import receivers as receiver_store
from webhook.store import tasks as task_store
from webhook.tokens import open_secrets, token_digest

if TYPE_CHECKING:
    from tests.conftest import Clock
    from webhook.bootstrap import Service


def test_a_receiver_is_found_by_its_token_until_it_is_closed(service: Service, clock: Clock) -> None:
    with service.database.transaction() as session:
        receiver, own = open_receiver(
            session, service.keyring, name="a", crypt_type="SM3", seed=None, uid="42", now=clock()
        )
        digest = token_digest(own.token)
        address = task_store.addresses(session, [digest, token_digest("another")])[digest]
        assert (address.id, address.receiver, address.crypt_type, address.uid) == (receiver.id, True, "SM3", "42")
        assert open_secrets(service.keyring, address.secrets, table="receivers", row=receiver.id) == own
        assert receiver_store.delete_receiver(session, receiver.id, now=clock())
        assert task_store.addresses(session, [digest]) == {}


def test_tokens_and_seeds_are_each_receiver_s_own(service: Service, clock: Clock) -> None:
    with service.database.transaction() as session:
        own = [
            open_receiver(session, service.keyring, name="a", crypt_type="SHA256", seed=None, uid=None, now=clock())[1]
            for _ in range(20)
        ]
    assert len({each.token for each in own}) == len({each.seed for each in own}) == 20
    assert all(len(each.token) == 32 for each in own)
