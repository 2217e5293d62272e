"""Tokens and seeds: what only the platform and we know of a callback's address."""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from webhook.crypto import Keyring

_TOKEN_BYTES = 24
_SEED_BYTES = 24  # 48 hex digits; the platform takes up to 64 of [A-Za-z0-9_]


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """The secrets of one address: the token in its URL, the seed in its checksums."""

    token: str
    seed: str


_SECRETS = msgspec.json.Decoder(Secrets)


def new_secrets(seed: str | None = None) -> Secrets:
    """Draw a token of 192 random bits, and a seed of as many unless one is given."""
    return Secrets(token=secrets.token_urlsafe(_TOKEN_BYTES), seed=seed or secrets.token_hex(_SEED_BYTES))


def token_digest(token: str) -> bytes:
    """Return what the database keeps of a token: so many random bits need no key and no salt."""
    return hashlib.sha256(token.encode()).digest()


def seal_secrets(keyring: Keyring, own: Secrets, *, table: str, row: str) -> bytes:
    """Seal an address's secrets for its row."""
    return keyring.seal(msgspec.json.encode(own), table=table, column="secrets", row=row)


def open_secrets(keyring: Keyring, sealed: bytes, *, table: str, row: str) -> Secrets:
    """Open an address's secrets.

    Raises:
        DecryptionError: they do not open.
    """
    return _SECRETS.decode(keyring.open(sealed, table=table, column="secrets", row=row))
