"""Encryption at rest: what opens, and where."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from webhook.crypto import Keyring
from webhook.errors import DecryptionError

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
TABLE, COLUMN, ROW = "tasks", "secrets", "task_1"


def seal(keyring: Keyring, plaintext: bytes) -> bytes:
    return keyring.seal(plaintext, table=TABLE, column=COLUMN, row=ROW)


def open_(keyring: Keyring, sealed: bytes) -> bytes:
    return keyring.open(sealed, table=TABLE, column=COLUMN, row=ROW)


@given(st.binary(max_size=5000))
def test_what_was_sealed_opens_at_its_place(plaintext: bytes) -> None:
    keyring = Keyring({"k1": KEY})
    assert open_(keyring, seal(keyring, plaintext)) == plaintext


def test_a_short_value_is_laid_out_as_documented_and_is_plain_aes_gcm() -> None:
    nonce = b"n" * 12
    sealed = seal(Keyring({"k1": KEY}, random_bytes=lambda count: nonce[:count]), b"secret")
    assert sealed[:4] == b"\x01\x02k1"
    assert sealed[4:16] == nonce
    assert AESGCM(KEY).decrypt(nonce, sealed[16:], b"tasks|secrets|task_1") == b"secret"


def test_a_long_value_is_compressed() -> None:
    assert len(seal(Keyring({"k1": KEY}), b"transcript " * 1000)) < 1000


@pytest.mark.parametrize("plaintext", [b"secret", b"transcript " * 1000])
@pytest.mark.parametrize(
    "place",
    [
        {"table": "receivers", "column": COLUMN, "row": ROW},
        {"table": TABLE, "column": "content", "row": ROW},
        {"table": TABLE, "column": COLUMN, "row": "task_2"},
    ],
)
def test_a_value_that_was_moved_does_not_open(plaintext: bytes, place: dict[str, str]) -> None:
    keyring = Keyring({"k1": KEY})
    with pytest.raises(DecryptionError, match="altered"):
        keyring.open(seal(keyring, plaintext), **place)


@given(st.data())
def test_a_value_with_one_bit_changed_does_not_open(data: st.DataObject) -> None:
    keyring = Keyring({"k1": KEY})
    sealed = bytearray(seal(keyring, b"secret"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionError):
        open_(keyring, bytes(sealed))


@given(st.binary(max_size=64))
def test_what_was_never_sealed_is_refused_and_raises_nothing_else(garbage: bytes) -> None:
    with pytest.raises(DecryptionError):
        open_(Keyring({"k1": KEY}), garbage)


def test_an_old_key_opens_and_the_first_one_seals() -> None:
    sealed_before = seal(Keyring({"k1": KEY}), b"secret")
    keyring = Keyring({"k2": OTHER_KEY, "k1": KEY})
    assert open_(keyring, sealed_before) == b"secret"
    assert open_(Keyring({"k2": OTHER_KEY}), seal(keyring, b"secret")) == b"secret"


def test_a_missing_key_is_told_with_the_mend() -> None:
    sealed = seal(Keyring({"k1": KEY}), b"secret")
    with pytest.raises(DecryptionError, match="Put the old key back"):
        open_(Keyring({"k2": OTHER_KEY}), sealed)


def test_another_key_of_the_same_id_does_not_open() -> None:
    with pytest.raises(DecryptionError, match="replaced by another of the same id"):
        open_(Keyring({"k1": OTHER_KEY}), seal(Keyring({"k1": KEY}), b"secret"))


def test_the_same_value_is_never_sealed_the_same() -> None:
    keyring = Keyring({"k1": KEY})
    assert len({seal(keyring, b"secret") for _ in range(100)}) == 100


def test_threads_that_seal_at_once_do_not_disturb_each_other() -> None:
    keyring = Keyring({"k1": KEY})
    values = [os.urandom(8) * 2000 for _ in range(64)]
    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(lambda value: seal(keyring, value), values))
    assert [open_(keyring, value) for value in sealed] == values
