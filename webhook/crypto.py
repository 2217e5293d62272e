"""Encryption at rest: values under data keys, data keys under master keys, each bound to the row it belongs to.

A sealed value is `version (1) | key | nonce (12) | ciphertext and tag (16)`. Its associated data is `table|column|row`,
so a value moved to another row or column does not open. The version tells which kind of key sealed it, and whether it
was compressed before:

| version | key |
|---|---|
| 1, compressed 2 | `length (1)` and id of the master key that sealed it directly, by AES-256-GCM |
| 3, compressed 4 | id of the data key that sealed it, four bytes, the highest first |

A data key is itself a value that a master key sealed directly. What was sealed so before there were data keys opens as
ever.

Nonces are random, so one key may seal 2^32 values (NIST SP 800-38D, 8.3: two of them are then alike with a probability
of less than 2^-32). A process seals at most 2^26 under a data key before it asks for the next one, which the others
take over when they have come as far: so 64 processes stay within the bound, whatever the period. At 500 values a second
a process gets there in a day and a half, and data keys are cheap.
"""

from __future__ import annotations

import itertools
import math
import os
import time
from datetime import datetime  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from webhook.compression import compress, decompress
from webhook.errors import DecryptionError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

DIRECT = (b"\x01", b"\x02")  # as it is, compressed
ENVELOPED = (b"\x03", b"\x04")
_COMPRESSED = frozenset({DIRECT[1], ENVELOPED[1]})
_ID_BYTES = 4
ENVELOPED_BYTES = 1 + _ID_BYTES
HEAD_BYTES = 2 + 32  # the longest version and key: a master key's id has up to 32 characters
_NONCE_BYTES = 12  # NIST SP 800-38D, 8.2: the length GCM is made for
_TAG_BYTES = 16
_WORTH_COMPRESSING_BYTES = 256  # secrets and links are shorter
_MOST_VALUES = 2**26  # by this process under one data key


class Aead(Protocol):
    """One key of an authenticated cipher; safe to use from several threads."""

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return ciphertext and tag."""

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return the plaintext.

        Raises:
            InvalidTag: it was altered, or sealed otherwise.
        """


class Sm4Gcm:
    """SM4-GCM (GB/T 32907, RFC 8998), which `cryptography` has without the convenience of AESGCM.

    Raises:
        UnsupportedAlgorithm: its OpenSSL was made without SM4.
    """

    def __init__(self, key: bytes) -> None:
        self._algorithm = algorithms.SM4(key)
        Cipher(self._algorithm, modes.GCM(bytes(_NONCE_BYTES))).encryptor()

    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return ciphertext and tag."""
        encryptor = Cipher(self._algorithm, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated_data)
        return encryptor.update(data) + encryptor.finalize() + encryptor.tag

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes, /) -> bytes:
        """Return the plaintext."""
        mode = modes.GCM(nonce, data[-_TAG_BYTES:])
        decryptor = Cipher(self._algorithm, mode).decryptor()
        decryptor.authenticate_additional_data(associated_data)
        return decryptor.update(data[:-_TAG_BYTES]) + decryptor.finalize()


class _Suite(NamedTuple):
    key_bytes: int
    cipher: Callable[[bytes], Aead]


_SUITES = {"aes-256-gcm": _Suite(32, AESGCM), "sm4-gcm": _Suite(16, Sm4Gcm)}
SUITES = frozenset(_SUITES)


def check_suite(suite: str) -> None:
    """Refuse a suite that this machine's OpenSSL lacks.

    Raises:
        SettingError: it does.
    """
    key_bytes, cipher = _SUITES[suite]
    try:
        cipher(bytes(key_bytes))
    except UnsupportedAlgorithm:
        raise SettingError(
            "WEBHOOK_CIPHER_SUITE",
            f"is, or was, {suite}, which the OpenSSL that `cryptography` uses here does not have",
            "Install `cryptography` with one that has it; or set aes-256-gcm, if nothing was encrypted by it yet.",
        ) from None


class DataKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a period's values are sealed under.

    Attributes:
        id: a small number, never used again.
        suite: `aes-256-gcm` or `sm4-gcm`.
        master_key_id: of the master key that wraps it.
        wrapped: the key, sealed directly under that master key; None once it is destroyed.
        expires_at: from when on nothing is sealed under it, as long as there is a newer one.
    """

    id: int
    suite: str
    master_key_id: str
    wrapped: bytes | None
    created_at: datetime
    expires_at: datetime
    destroyed_at: datetime | None = None


def sealed_under(head: bytes) -> int | str | None:
    """Return the id of the data key (a number), or of the master key (a text), that sealed a value.

    Args:
        head: the value, or its first `HEAD_BYTES`.

    Returns:
        None for what is no sealed value.
    """
    version = head[:1]
    if version in ENVELOPED and len(head) >= ENVELOPED_BYTES:
        return int.from_bytes(head[1:ENVELOPED_BYTES])
    if version in DIRECT and len(head) > 1:
        return bytes(head[2 : 2 + head[1]]).decode(errors="replace")
    return None


def beginnings(key_ids: Iterable[int]) -> list[bytes]:
    """Return with what the values begin that these data keys sealed."""
    return [version + key_id.to_bytes(_ID_BYTES) for version in ENVELOPED for key_id in key_ids]


class _Sealing:
    """The key that values are sealed under now.

    Attributes:
        as_it_is, compressed: what stands before the nonce.
        expires_at: seconds since 1970.
        sealed: counts the values; its steps are atomic.
    """

    __slots__ = ("as_it_is", "compressed", "encrypt", "expires_at", "sealed")

    def __init__(self, cipher: Aead, *, versions: tuple[bytes, bytes], key: bytes, expires_at: float) -> None:
        self.encrypt = cipher.encrypt
        self.as_it_is, self.compressed = versions[0] + key, versions[1] + key
        self.expires_at = expires_at
        self.sealed: Iterator[int] = itertools.count()


def _find_none(_key_id: int) -> None:
    """Find no data key."""


def _go_on() -> None:
    """Seal under the same key."""


class Keyring:
    """Seals with the current key, opens with any.

    Without data keys it seals under the active master key itself; `data_keys` makes the ring of a process.

    Args:
        masters: master key id to 32 bytes; the first is the active one.
        random_bytes: replaceable in tests.
        find: returns a data key that is not held yet: another process may have made it.
        overdue: called before a value is sealed under a data key that has expired, or sealed enough; it may give
            another one to `use`, and must wait for nothing that the caller may hold.
        now: seconds since 1970.

    Attributes:
        masters: the ids of the master keys, the active one first.
    """

    def __init__(
        self,
        masters: Mapping[str, bytes],
        random_bytes: Callable[[int], bytes] = os.urandom,
        *,
        find: Callable[[int], DataKey | None] = _find_none,
        overdue: Callable[[], None] = _go_on,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.masters = tuple(masters)
        self._masters = {key_id.encode(): AESGCM(key) for key_id, key in masters.items()}
        self._held: dict[bytes, Aead] = {}
        self._random_bytes = random_bytes
        self._find = find
        self._overdue = overdue
        self._now = now
        active = self.masters[0].encode()
        key = bytes([len(active)]) + active
        self._direct = _Sealing(self._masters[active], versions=DIRECT, key=key, expires_at=math.inf)
        self._current = self._direct

    def seal(self, plaintext: bytes, *, table: str, column: str, row: str) -> bytes:
        """Encrypt a value for its place; longer ones are compressed first.

        Raises:
            DatabaseError: the data key is over, and there is no other yet.
        """
        current = self._current
        if next(current.sealed) >= _MOST_VALUES or self._now() >= current.expires_at:
            self._overdue()
            current = self._current
        head = current.as_it_is
        if len(plaintext) >= _WORTH_COMPRESSING_BYTES:
            plaintext = compress(plaintext)
            head = current.compressed
        nonce = self._random_bytes(_NONCE_BYTES)
        return head + nonce + current.encrypt(nonce, plaintext, f"{table}|{column}|{row}".encode())

    def open(self, sealed: bytes, *, table: str, column: str, row: str) -> bytes:
        """Decrypt a value from its place.

        Raises:
            DecryptionError: the key is not in the ring, or the value or its place was altered.
            DatabaseError: its data key could not be looked for.
        """
        version = sealed[:1]
        if version in ENVELOPED:
            head_end = ENVELOPED_BYTES
            key = bytes(sealed[1:head_end])
            cipher = self._held.get(key) or self._looked_for(key, f"{table}.{column} of {row}")
        else:
            head_end = 2 + sealed[1] if len(sealed) > 1 else 0
            master = self._masters.get(bytes(sealed[2:head_end]))
            if master is None or version not in DIRECT:
                raise DecryptionError(
                    f"{table}.{column} of {row} was sealed with a key that WEBHOOK_ENCRYPTION_KEYS does not hold. "
                    "Put the old key back, after the active one."
                )
            cipher = master
        body = head_end + _NONCE_BYTES
        try:
            plaintext = cipher.decrypt(sealed[head_end:body], sealed[body:], f"{table}|{column}|{row}".encode())
        except (InvalidTag, ValueError):  # the latter where it is cut short
            raise DecryptionError(
                f"{table}.{column} of {row} does not open: the row was altered, "
                "or a key was replaced by another of the same id."
            ) from None
        return decompress(plaintext) if version in _COMPRESSED else plaintext

    def hold(self, data_keys: Iterable[DataKey]) -> None:
        """Unwrap data keys, so that what they sealed opens; those that are destroyed are left out.

        Raises:
            DecryptionError: one of them does not unwrap, or is of a suite that this version does not have.
        """
        for one in data_keys:
            if one.wrapped is None:
                continue
            suite = _SUITES.get(one.suite)
            if suite is None:
                raise DecryptionError(f"Data key {one.id} is for {one.suite}, which this version does not know.")
            cipher = suite.cipher(self.open(one.wrapped, **_place(one)))
            self._held[one.id.to_bytes(_ID_BYTES)] = cipher

    def use(self, key_id: int, *, expires_at: float) -> None:
        """Seal under a data key that is held.

        Args:
            expires_at: from when on `overdue` is asked, in seconds since 1970.
        """
        key = key_id.to_bytes(_ID_BYTES)
        self._current = _Sealing(self._held[key], versions=ENVELOPED, key=key, expires_at=expires_at)

    def new_data_key(self, key_id: int, *, suite: str, created_at: datetime, expires_at: datetime) -> DataKey:
        """Draw a data key, and wrap it under the active master key; it is not held yet."""
        bare = DataKey(
            id=key_id,
            suite=suite,
            master_key_id=self.masters[0],
            wrapped=None,
            created_at=created_at,
            expires_at=expires_at,
        )
        return self._wrapped(bare, self._random_bytes(_SUITES[suite].key_bytes))

    def rewrap(self, data_key: DataKey) -> DataKey:
        """Wrap a data key under the active master key.

        Raises:
            DecryptionError: it does not unwrap.
        """
        return self._wrapped(data_key, self.open(data_key.wrapped or b"", **_place(data_key)))

    def _wrapped(self, data_key: DataKey, key: bytes) -> DataKey:
        place = _place(data_key)
        nonce = self._random_bytes(_NONCE_BYTES)
        sealed = self._direct.encrypt(nonce, key, "{table}|{column}|{row}".format(**place).encode())
        wrapped = self._direct.as_it_is + nonce + sealed
        return msgspec.structs.replace(data_key, wrapped=wrapped, master_key_id=self.masters[0])

    def _looked_for(self, key: bytes, what: str) -> Aead:
        key_id = int.from_bytes(key)
        found = self._find(key_id)
        if found is None:
            raise DecryptionError(f"{what} was sealed with data key {key_id}, which the database does not hold.")
        if found.wrapped is None:
            raise DecryptionError(f"{what} was sealed with data key {key_id}, which was destroyed.")
        self.hold([found])
        return self._held[key]


def _place(data_key: DataKey) -> dict[str, str]:
    """Return where a wrapped data key belongs; the suite is bound to it, too."""
    return {"table": "data_keys", "column": "wrapped", "row": f"{data_key.id}|{data_key.suite}"}
