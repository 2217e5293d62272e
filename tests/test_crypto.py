"""Encryption at rest: what opens, and where."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from webhook import crypto
from webhook.crypto import DataKey, Keyring, Sm4Gcm, check_suite, sealed_under
from webhook.errors import DecryptionError, SettingError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import modes

KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
TABLE, COLUMN, ROW = "tasks", "secrets", "task_1"


def seal(keyring: Keyring, plaintext: bytes) -> bytes:
    return keyring.seal(plaintext, table=TABLE, column=COLUMN, row=ROW)


def open_(keyring: Keyring, sealed: bytes) -> bytes:
    return keyring.open(sealed, table=TABLE, column=COLUMN, row=ROW)


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SUITES = ["aes-256-gcm", "sm4-gcm"]


def data_key(keyring: Keyring, number: int = 7, suite: str = "aes-256-gcm") -> DataKey:
    return keyring.new_data_key(number, suite=suite, created_at=NOW, expires_at=NOW + timedelta(days=30))


def enveloped(*data_keys: DataKey, keyring: Keyring | None = None) -> Keyring:
    """Return a ring that seals under the last of some data keys."""
    keyring = keyring or Keyring({"k1": KEY}, now=NOW.timestamp)
    keyring.hold(data_keys)
    keyring.use(data_keys[-1].id, expires_at=data_keys[-1].expires_at.timestamp())
    return keyring


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


# Under data keys


@pytest.mark.parametrize("suite", SUITES)
@given(plaintext=st.binary(max_size=5000))
def test_what_was_sealed_under_a_data_key_opens_at_its_place_and_nowhere_else(suite: str, plaintext: bytes) -> None:
    keyring = enveloped(data_key(Keyring({"k1": KEY}), suite=suite))
    sealed = seal(keyring, plaintext)
    assert open_(keyring, sealed) == plaintext
    assert sealed_under(sealed) == 7
    with pytest.raises(DecryptionError, match="altered"):
        keyring.open(sealed, table=TABLE, column=COLUMN, row="task_2")


@pytest.mark.parametrize("suite", SUITES)
@given(data=st.data())
def test_a_value_under_a_data_key_with_one_bit_changed_or_cut_short_does_not_open(
    suite: str, data: st.DataObject
) -> None:
    keyring = enveloped(data_key(Keyring({"k1": KEY}), suite=suite))
    sealed = bytearray(seal(keyring, b"secret"))
    length = data.draw(st.integers(0, len(sealed) - 1))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    with pytest.raises(DecryptionError):
        open_(keyring, bytes(sealed[:length]))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DecryptionError):
        open_(keyring, bytes(sealed))


def test_a_value_under_a_data_key_is_laid_out_as_documented_and_is_plain_aes_gcm() -> None:
    numbers = iter([OTHER_KEY, b"w" * 12, b"n" * 12])
    keyring = Keyring({"k1": KEY}, random_bytes=lambda _: next(numbers), now=NOW.timestamp)
    wrapped = data_key(keyring)
    sealed = seal(enveloped(wrapped, keyring=keyring), b"secret")
    assert sealed[:17] == b"\x03\x00\x00\x00\x07" + b"n" * 12
    assert AESGCM(OTHER_KEY).decrypt(b"n" * 12, sealed[17:], b"tasks|secrets|task_1") == b"secret"
    assert wrapped.wrapped
    assert wrapped.wrapped[:16] == b"\x01\x02k1" + b"w" * 12
    assert AESGCM(KEY).decrypt(b"w" * 12, wrapped.wrapped[16:], b"data_keys|wrapped|7|aes-256-gcm") == OTHER_KEY


def test_sm4_gcm_is_that_of_rfc_8998() -> None:
    """RFC 8998, A.1."""
    nonce = bytes.fromhex("00001234567800000000ABCD")
    associated = bytes.fromhex("FEEDFACEDEADBEEFFEEDFACEDEADBEEFABADDAD2")
    plaintext = bytes.fromhex(
        "AAAAAAAAAAAAAAAABBBBBBBBBBBBBBBBCCCCCCCCCCCCCCCCDDDDDDDDDDDDDDDD"
        "EEEEEEEEEEEEEEEEFFFFFFFFFFFFFFFFEEEEEEEEEEEEEEEEAAAAAAAAAAAAAAAA"
    )
    ciphertext = bytes.fromhex(
        "17F399F08C67D5EE19D0DC9969C4BB7D5FD46FD3756489069157B282BB200735"
        "D82710CA5C22F0CCFA7CBF93D496AC15A56834CBCF98C397B4024A2691233B8D"
    )
    tag = bytes.fromhex("83DE3541E4C2B58177E065A9BF7B62EC")
    cipher = Sm4Gcm(bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"))
    assert cipher.encrypt(nonce, plaintext, associated) == ciphertext + tag
    assert cipher.decrypt(nonce, ciphertext + tag, associated) == plaintext


def test_a_suite_that_openssl_lacks_is_refused_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    for suite in SUITES:
        check_suite(suite)

    def lacking(_algorithm: object, _mode: modes.GCM) -> None:
        raise UnsupportedAlgorithm("cipher SM4 in GCM mode is not supported by this backend")

    monkeypatch.setattr(crypto, "Cipher", lacking)
    check_suite("aes-256-gcm")
    with pytest.raises(SettingError, match=r"WEBHOOK_CIPHER_SUITE: is, or was, sm4-gcm, which the OpenSSL .* Install"):
        check_suite("sm4-gcm")


def test_what_another_suite_sealed_opens_as_before() -> None:
    ring = Keyring({"k1": KEY})
    keys = [data_key(ring, number, suite) for number, suite in enumerate(SUITES)]
    before = seal(enveloped(keys[0]), b"secret")
    assert open_(enveloped(*keys), before) == b"secret"


def test_a_data_key_opens_under_its_own_number_and_suite_only() -> None:
    keyring = Keyring({"k1": KEY})
    made = data_key(keyring)
    for altered in ({"id": 8}, {"suite": "sm4-gcm"}):
        with pytest.raises(DecryptionError, match="altered"):
            keyring.hold([msgspec.structs.replace(made, **altered)])
    with pytest.raises(DecryptionError, match="rot13"):
        keyring.hold([msgspec.structs.replace(made, suite="rot13")])


def test_a_data_key_that_is_not_held_is_looked_for_once() -> None:
    made = data_key(Keyring({"k1": KEY}))
    sealed = seal(enveloped(made), b"secret")
    asked: list[int] = []

    def find(key_id: int) -> DataKey:
        asked.append(key_id)
        return made

    keyring = Keyring({"k1": KEY}, find=find)
    assert [open_(keyring, sealed) for _ in range(3)] == [b"secret"] * 3
    assert asked == [7]


def test_a_data_key_that_there_is_not_or_no_longer_or_that_does_not_unwrap_is_told() -> None:
    made = data_key(Keyring({"k1": KEY}))
    sealed = seal(enveloped(made), b"secret")
    with pytest.raises(DecryptionError, match="data key 7, which the database does not hold"):
        open_(Keyring({"k1": KEY}), sealed)
    destroyed = msgspec.structs.replace(made, wrapped=None, destroyed_at=NOW)
    keyring = Keyring({"k1": KEY}, find=lambda _: destroyed)
    keyring.hold([destroyed])
    with pytest.raises(DecryptionError, match="data key 7, which was destroyed"):
        open_(keyring, sealed)
    with pytest.raises(DecryptionError, match="Put the old key back"):
        open_(Keyring({"k2": OTHER_KEY}, find=lambda _: made), sealed)


def test_a_data_key_wrapped_anew_opens_what_it_sealed_without_the_old_master_key() -> None:
    made = data_key(Keyring({"k1": KEY}))
    sealed = seal(enveloped(made), b"secret")
    anew = Keyring({"k2": OTHER_KEY, "k1": KEY}).rewrap(made)
    assert (anew.master_key_id, anew.id, anew.expires_at) == ("k2", 7, made.expires_at)
    assert open_(enveloped(anew, keyring=Keyring({"k2": OTHER_KEY})), sealed) == b"secret"


def test_the_next_data_key_is_asked_for_when_one_has_expired_or_has_sealed_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crypto, "_MOST_VALUES", 3)
    asked: list[str] = []
    time = NOW.timestamp()
    keyring = Keyring({"k1": KEY}, overdue=lambda: asked.append("next"), now=lambda: time)
    enveloped(data_key(keyring), keyring=keyring)
    for _ in range(3):
        seal(keyring, b"secret")
    assert asked == []
    assert sealed_under(seal(keyring, b"secret")) == 7, "it goes on under the old one where it is given no other"
    assert asked == ["next"]
    keyring.use(7, expires_at=time + 1)
    seal(keyring, b"secret")
    assert asked == ["next"]
    time += 1
    seal(keyring, b"secret")
    assert asked == ["next", "next"]


def test_it_is_told_by_which_key_a_value_was_sealed() -> None:
    assert sealed_under(seal(Keyring({"k1": KEY}), b"secret")[:34]) == "k1"
    assert [sealed_under(bytes(head)) for head in (b"", b"\x01", b"\x03\x00", b"\x05k1k1k1")] == [None] * 4
