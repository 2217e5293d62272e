"""Encryption at rest: AES-256-GCM under named keys, bound to the row the value belongs to.

A sealed value is `version (1) | length of key id (1) | key id | nonce (12) | ciphertext and tag`; the version tells
whether it was compressed before. The associated data is `table|column|row`, so a value moved to another row or column
does not open.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.compression import compress, decompress
from webhook.errors import DecryptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PLAIN, _COMPRESSED = b"\x01", b"\x02"
_NONCE_BYTES = 12  # NIST SP 800-38D, 8.2: the length GCM is made for
_WORTH_COMPRESSING_BYTES = 256  # secrets and links are shorter


class Keyring:
    """Seals with the active key, opens with any.

    Args:
        keys: key id to 32 bytes; the first is the active one.
        random_bytes: replaceable in tests.
    """

    def __init__(self, keys: Mapping[str, bytes], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self._ciphers = {key_id.encode(): AESGCM(key) for key_id, key in keys.items()}
        active = next(iter(keys)).encode()
        self._active = self._ciphers[active]
        self._prefix = bytes([len(active)]) + active
        self._random_bytes = random_bytes

    def seal(self, plaintext: bytes, *, table: str, column: str, row: str) -> bytes:
        """Encrypt a value for its place; longer ones are compressed first."""
        version = _PLAIN
        if len(plaintext) >= _WORTH_COMPRESSING_BYTES:
            plaintext = compress(plaintext)
            version = _COMPRESSED
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = self._active.encrypt(nonce, plaintext, f"{table}|{column}|{row}".encode())
        return version + self._prefix + nonce + sealed

    def open(self, sealed: bytes, *, table: str, column: str, row: str) -> bytes:
        """Decrypt a value from its place.

        Raises:
            DecryptionError: the key is not in the ring, or the value or its place was altered.
        """
        key_end = 2 + sealed[1] if len(sealed) > 1 else 0
        cipher = self._ciphers.get(bytes(sealed[2:key_end]))
        if cipher is None or sealed[:1] not in {_PLAIN, _COMPRESSED}:
            raise DecryptionError(
                f"{table}.{column} of {row} was sealed with a key that WEBHOOK_ENCRYPTION_KEYS does not hold. "
                "Put the old key back, after the active one."
            )
        nonce, body = sealed[key_end : key_end + _NONCE_BYTES], sealed[key_end + _NONCE_BYTES :]
        try:
            plaintext = cipher.decrypt(nonce, body, f"{table}|{column}|{row}".encode())
        except InvalidTag:
            raise DecryptionError(
                f"{table}.{column} of {row} does not open: the row was altered, "
                "or a key was replaced by another of the same id."
            ) from None
        return decompress(plaintext) if sealed[:1] == _COMPRESSED else plaintext
