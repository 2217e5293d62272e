"""API keys: made, found again, replaced.

A key is 256 random bits. What is kept of it is HMAC-SHA-256 of its SHA-256, under a secret of this installation's own
that is sealed in the database: whoever reads or writes the table alone can neither test a key nor plant one.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING

from webhook import clock
from webhook.db import alone
from webhook.errors import Conflict, NotFound
from webhook.roles import Role
from webhook.store import keys as key_store
from webhook.store.keys import LIVE, ApiKey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from webhook.crypto import Keyring
    from webhook.db import Session

MOST_LIVE_KEYS = 2  # of a client: the one in use, and the one that takes its place
_PREFIX = "wk_"
_KEY_BYTES = 32
_PEPPER = "api_key_pepper"
_PEPPER_BYTES = 32
_PEPPER_PLACE = {"table": "meta", "column": "value", "row": _PEPPER}


class ApiKeys:
    """Makes keys and knows them again.

    Args:
        pepper: the secret that they are hashed under; see `pepper`.
    """

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper

    def digest(self, key: bytes) -> bytes:
        """Return what is kept of a key."""
        return _keyed(self._pepper, hashlib.sha256(key).digest())

    def create(
        self,
        session: Session,
        *,
        name: str,
        role: Role,
        lifetime: timedelta | None = None,
        networks: Sequence[str] | None = None,
        now: datetime,
    ) -> tuple[ApiKey, str]:
        """Make a key; return its row, and the key itself, which is shown this once.

        Args:
            name: the client's.
            lifetime: after which it expires; None is never.
            networks: CIDRs from which it may be used; None is from anywhere.

        Raises:
            Conflict: the client has two live keys already.
        """
        alone(session, f"api keys of {name}")
        live = _live(session, name, now=now)
        if len(live) >= MOST_LIVE_KEYS:
            raise Conflict(f"{name} has {len(live)} live keys already. Revoke one of them first: {_ids(live)}.")
        text = _PREFIX + secrets.token_urlsafe(_KEY_BYTES)
        key = ApiKey(
            id=clock.new_id("key", now),
            name=name,
            role=role.value,
            digest=self.digest(text.encode()),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
            networks=list(networks) if networks else None,
        )
        key_store.insert_api_key(session, key)
        return key, text

    def rotate(
        self, session: Session, *, name: str, lifetime: timedelta | None = None, now: datetime
    ) -> tuple[ApiKey, ApiKey, str]:
        """Make a client's second key, like its first; return the rows of both, and the new key.

        Args:
            lifetime: of the new key; None is as long as the first one's.

        Raises:
            NotFound: the client has no live key.
            Conflict: it has two.
        """
        live = _live(session, name, now=now)
        if not live:
            raise NotFound(f"{name} has no live key; `webhook keys create` makes one.")
        old = live[-1]
        if lifetime is None and old.expires_at is not None:
            lifetime = old.expires_at - old.created_at
        new, text = self.create(
            session, name=name, role=Role(old.role), lifetime=lifetime, networks=old.networks, now=now
        )
        return old, new, text

    def find(self, session: Session, digest: bytes) -> ApiKey | None:
        """Return the key of a digest, unless it was revoked."""
        found = key_store.api_key(session, digest)
        # the index compares as fast as bytes differ, which tells nothing of a keyed digest; this compares all of them
        return found if found is not None and hmac.compare_digest(found.digest, digest) else None


def pepper(session: Session, keyring: Keyring) -> bytes:
    """Return the secret that keys are hashed under, and make it the first time.

    What was kept of keys before is their SHA-256, and becomes the keyed one now, so they go on working.

    Raises:
        DecryptionError: it was sealed with a key that is not in the ring.
    """
    alone(session, _PEPPER)
    sealed = key_store.meta_value(session, _PEPPER)
    if sealed is not None:
        return keyring.open(sealed, **_PEPPER_PLACE)
    made = secrets.token_bytes(_PEPPER_BYTES)
    key_store.set_meta(session, _PEPPER, keyring.seal(made, **_PEPPER_PLACE))
    for key in key_store.list_api_keys(session):
        key_store.set_api_key_digest(session, key.id, _keyed(made, key.digest))
    return made


def _keyed(secret: bytes, digest: bytes) -> bytes:
    return hmac.digest(secret, digest, "sha256")


def _live(session: Session, name: str, *, now: datetime) -> list[ApiKey]:
    return [key for key in key_store.api_keys_of_client(session, name) if key.state(now) == LIVE]


def _ids(keys: Sequence[ApiKey]) -> str:
    return " or ".join(key.id for key in keys)
