"""Receivers: callback addresses for tasks that another system submits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook import clock
from webhook.store import receivers as receiver_store
from webhook.store.receivers import Receiver
from webhook.tokens import Secrets, new_secrets, seal_secrets, token_digest

if TYPE_CHECKING:
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Session


def open_receiver(
    session: Session,
    keyring: Keyring,
    *,
    name: str,
    crypt_type: str,
    seed: str | None,
    uid: str | None,
    now: datetime,
) -> tuple[Receiver, Secrets]:
    """Make a receiver.

    Args:
        seed: what its checksums contain; None draws one.
        uid: the account that submits its tasks; None is the configured one.

    Returns:
        The receiver, and its secrets, which are shown this once.
    """
    receiver_id = clock.new_id("rcv", now)
    own = new_secrets(seed)
    receiver = Receiver(
        id=receiver_id,
        name=name,
        crypt_type=crypt_type,
        uid=uid,
        token_digest=token_digest(own.token),
        secrets=seal_secrets(keyring, own, table="receivers", row=receiver_id),
        created_at=now,
        deleted_at=None,
    )
    receiver_store.insert_receiver(session, receiver)
    return receiver, own
