"""Checksums and signatures, against vectors of others.

Origins: `abc` is printed on the vendor's page voice-moderation.txt (`cryptType`) and in GB/T 32905-2016,
A.1, the 64 bytes in A.2; vectors marked "openssl" were made by `openssl dgst` 3.0 and are made again here
where the command is; Standard Webhooks by the `standardwebhooks` package; random data by gmssl.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import shutil
import struct
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from webhook import payloads, signatures
from webhook.errors import ServiceError, Unreadable
from webhook.signatures import CryptType, Hash, cryptography_sm3, diagnose, gmssl_sm3, hashlib_sm3, sign, verify

IMPLEMENTATIONS = [hashlib_sm3, cryptography_sm3, gmssl_sm3]

UID, OTHER_UID, SEED = "100000", "200000", "seed_1"
CONTENT = b'{"Code":200}'
LONG_KEY = b"k" * 80

SM3_VECTORS = [
    (b"abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),  # vendor, GB/T 32905 A.1
    (b"abcd" * 16, "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"),  # GB/T 32905 A.2
    (b'100000seed_1{"Code":200}', "f116008919bdf699cc251f0aedccb59ee67ddb63790535717130323e8f5aa413"),  # openssl
]
HMAC_SM3_VECTORS = [  # openssl
    (b"seed_1", b'100000seed_1{"Code":200}', "077e34b0a538c91739282132bbaf3317f204faa99ee4edce8e357cce560042d7"),
    (LONG_KEY, b'100000seed_1{"Code":200}', "14c4649a039ec63d703d4b5a52ca66917b789cafd193a31e2938581100a284eb"),
]
CHECKSUMS = {  # of UID, SEED and CONTENT; openssl
    ("SHA256", "digest"): "bc4ede4e678bb8d7f7e5fa2e8b7fb603751832161f18fff7d8a12ed1355e8c9d",
    ("SM3", "digest"): "f116008919bdf699cc251f0aedccb59ee67ddb63790535717130323e8f5aa413",
    ("SM3", "hmac"): "077e34b0a538c91739282132bbaf3317f204faa99ee4edce8e357cce560042d7",
}
SHA256, SM3_DIGEST, SM3_HMAC = CHECKSUMS.values()


def openssl(*arguments: str, data: bytes) -> str:
    run = subprocess.run(["openssl", "dgst", *arguments], input=data, capture_output=True, check=True)
    return run.stdout.split()[-1].decode()


def openssl_has_sm3() -> bool:
    return shutil.which("openssl") is not None and (
        subprocess.run(["openssl", "dgst", "-sm3"], input=b"", capture_output=True, check=False).returncode == 0
    )


with_openssl = pytest.mark.skipif(not openssl_has_sm3(), reason="no openssl command, or one without SM3")


def works(implementation: Hash) -> bool:
    try:
        return implementation(b"") is not None
    except (ValueError, UnsupportedAlgorithm):
        return False


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.__name__)
def implementation(request: pytest.FixtureRequest) -> Hash:
    if not works(request.param):
        pytest.skip("this OpenSSL has no SM3")
    chosen: Hash = request.param
    return chosen


@pytest.mark.parametrize(("data", "digest"), SM3_VECTORS)
def test_sm3_is_the_standards(data: bytes, digest: str, implementation: Hash) -> None:
    assert signatures.sm3(data, implementation=implementation).hex() == digest
    assert signatures.sm3(data).hex() == digest


@pytest.mark.parametrize(("key", "data", "digest"), HMAC_SM3_VECTORS)
def test_hmac_sm3_is_openssls(key: bytes, data: bytes, digest: str, implementation: Hash) -> None:
    assert signatures.hmac_sm3(key, data, implementation=implementation).hex() == digest
    assert signatures.hmac_sm3(key, data).hex() == digest


@with_openssl
@pytest.mark.parametrize("length", [0, 1, 55, 56, 63, 64, 65, 119, 128, 1000])
def test_the_openssl_command_agrees_today(length: int, implementation: Hash) -> None:
    data = bytes(index % 251 for index in range(length))
    assert implementation(data).hex() == openssl("-sm3", data=data)
    for key in ("k", "k" * 64, "k" * 65):
        made = signatures.hmac_sm3(key.encode(), data, implementation=implementation)
        assert made.hex() == openssl("-sm3", "-hmac", key, data=data)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=100), st.integers(0, 200))
def test_all_implementations_agree_with_gmssl_however_the_data_is_cut(data: bytes, key: bytes, cut: int) -> None:
    for implementation in filter(works, IMPLEMENTATIONS):
        assert implementation(data[:cut], data[cut:]) == gmssl_sm3(data)
        made = signatures.hmac_sm3(key, data, implementation=implementation)
        assert made == signatures.hmac_sm3(key, data, implementation=gmssl_sm3)


def test_hmac_is_built_as_the_standard_librarys() -> None:
    def sha256(*parts: bytes) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()

    for key in (b"", b"k", b"k" * 64, b"k" * 65):
        assert signatures.hmac_sm3(key, CONTENT, implementation=sha256) == hmac.digest(key, CONTENT, "sha256")


def test_sm3_is_chosen_by_hashing_since_a_listing_may_name_what_is_refused() -> None:
    def refused(*_: bytes) -> bytes:
        raise UnsupportedAlgorithm("FIPS")

    def wrong(*_: bytes) -> bytes:
        return b"\0" * 32

    assert signatures.choose_sm3([refused, wrong, gmssl_sm3]) is gmssl_sm3
    with pytest.raises(ServiceError, match="gmssl"):
        signatures.choose_sm3([refused, wrong])


def test_without_openssls_sm3_gmssl_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def new(name: str) -> None:
        raise ValueError(f"unsupported hash type {name}")

    monkeypatch.setattr(hashlib, "new", new)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    assert signatures.choose_sm3() is gmssl_sm3


@pytest.mark.parametrize(
    ("crypt_type", "scheme", "accepted"),
    [
        ("SHA256", "digest", {SHA256}),
        ("SHA256", "hmac", {SHA256}),
        ("SHA256", "auto", {SHA256}),
        ("SM3", "digest", {SM3_DIGEST}),
        ("SM3", "hmac", {SM3_HMAC}),
        ("SM3", "auto", {SM3_DIGEST, SM3_HMAC}),
    ],
)
def test_a_checksum_is_accepted_by_the_algorithm_and_scheme_stored_and_no_other(
    crypt_type: CryptType, scheme: Any, accepted: set[str]
) -> None:
    for checksum in CHECKSUMS.values():
        answer = verify(crypt_type=crypt_type, scheme=scheme, checksum=checksum, uid=UID, seed=SEED, content=CONTENT)
        assert answer is (checksum in accepted)


def test_a_checksum_is_verified_by_any_implementation_of_sm3(implementation: Hash) -> None:
    for checksum in (SM3_DIGEST, SM3_HMAC):
        assert verify(
            crypt_type="SM3",
            scheme="auto",
            checksum=checksum,
            uid=UID,
            seed=SEED,
            content=CONTENT,
            sm3_hash=implementation,
        )


@pytest.mark.parametrize(
    ("crypt_type", "scheme", "checksum"), [(*key, checksum) for key, checksum in CHECKSUMS.items()]
)
def test_anything_else_is_refused(crypt_type: CryptType, scheme: Any, checksum: str) -> None:
    right: dict[str, Any] = {"uid": UID, "seed": SEED, "content": CONTENT}
    for wrong in ({"uid": OTHER_UID}, {"seed": "seed_2"}, {"content": CONTENT + b" "}):
        assert not verify(crypt_type=crypt_type, scheme=scheme, checksum=checksum, **{**right, **wrong})
    for altered in (checksum.upper(), checksum[:-1], checksum + "0", f" {checksum}", f"{checksum}\n", ""):
        assert not verify(crypt_type=crypt_type, scheme=scheme, checksum=altered, **right)


@settings(deadline=None)
@given(
    st.text(st.characters(categories=None), max_size=80),
    st.sampled_from(["SHA256", "SM3"]),
    st.sampled_from(["digest", "hmac", "auto"]),
)
def test_no_string_given_as_a_checksum_raises(checksum: str, crypt_type: CryptType, scheme: Any) -> None:
    assert not verify(crypt_type=crypt_type, scheme=scheme, checksum=checksum, uid=UID, seed=SEED, content=CONTENT)
    found = diagnose(crypt_type=crypt_type, checksum=checksum, uids=[UID], seed=SEED, content=CONTENT)
    assert found is not None
    assert found.reason == "malformed"


@pytest.mark.parametrize("checksum", ["\ud800" * 64, "é" * 64, "٣" * 64, "\uff10" * 64, SHA256[:-1] + "\udcff"])
def test_look_alikes_and_half_characters_are_no_hexadecimal_digits(checksum: str) -> None:
    assert not verify(crypt_type="SHA256", scheme="auto", checksum=checksum, uid=UID, seed=SEED, content=CONTENT)


def checksum_of(content: bytes, *, uid: str = UID) -> str:
    return hashlib.sha256(uid.encode() + SEED.encode() + content).hexdigest()


@pytest.mark.parametrize(
    ("crypt_type", "scheme", "checksum", "reason"),
    [
        ("SHA256", "auto", SHA256.upper(), "upper_case"),
        ("SM3", "auto", SM3_HMAC.upper(), "upper_case"),
        ("SM3", None, SM3_HMAC.upper(), "upper_case"),
        ("SHA256", "auto", SM3_DIGEST, "other_algorithm"),
        ("SHA256", "auto", SM3_HMAC, "other_algorithm"),
        ("SM3", "auto", SHA256, "other_algorithm"),
        ("SM3", "digest", SM3_HMAC, "other_scheme"),
        ("SM3", "hmac", SM3_DIGEST, "other_scheme"),
        ("SM3", None, SM3_HMAC, "other_scheme"),
        ("SM3", None, SM3_DIGEST, "other_scheme"),
        ("SHA256", "auto", checksum_of(CONTENT, uid=OTHER_UID), "other_uid"),
        ("SHA256", "auto", "00", "malformed"),
        ("SHA256", "auto", "g" * 64, "malformed"),
        ("SHA256", "auto", f"{SHA256}\n", "malformed"),
    ],
)
def test_a_wrong_checksum_is_diagnosed(crypt_type: CryptType, scheme: Any, checksum: str, reason: str) -> None:
    found = diagnose(
        crypt_type=crypt_type,
        scheme=scheme,
        checksum=checksum,
        uids=[UID, "150000", OTHER_UID],
        seed=SEED,
        content=CONTENT,
    )
    assert found is not None
    assert found.reason == reason
    assert found.message == signatures.REASONS[reason]


def test_every_diagnosis_leads_to_a_mended_configuration_that_verifies() -> None:
    assert verify(
        crypt_type="SM3", scheme="hmac", checksum=SM3_HMAC, uid=UID, seed=SEED, content=CONTENT
    )  # after other_algorithm and other_scheme
    assert verify(
        crypt_type="SHA256",
        scheme="auto",
        checksum=checksum_of(CONTENT, uid=OTHER_UID),
        uid=OTHER_UID,
        seed=SEED,
        content=CONTENT,
    )  # after other_uid


@pytest.mark.parametrize(
    ("signed", "received", "reason"),
    [
        (b'{"a":"1+1"}', b'{"a":"1 1"}', "plus_as_space"),
        (b'{"a":"1 1"}', b'{"a":"1+1"}', "space_as_plus"),
        (b'{"a":"1 1"}', b"%7B%22a%22%3A%221+1%22%7D", "percent_encoded"),
        (b'{"a":"1 1"}', b"%257B%2522a%2522%253A%25221%2B1%2522%257D", "percent_encoded"),
        (b'{"a":"1 1"}', b"%7b%22a%22%3a%221%201%22%7d", "percent_encoded"),
    ],
)
def test_a_content_garbled_on_the_way_is_diagnosed(signed: bytes, received: bytes, reason: str) -> None:
    found = diagnose(crypt_type="SHA256", checksum=checksum_of(signed), uids=[UID], seed=SEED, content=received)
    assert found is not None
    assert found.reason == reason


def test_several_faults_at_once_are_all_told() -> None:
    checksum = hashlib_sm3((OTHER_UID + SEED).encode(), b'{"a":"1+1"}').hex().upper()
    found = diagnose(crypt_type="SHA256", checksum=checksum, uids=[UID, OTHER_UID], seed=SEED, content=b'{"a":"1 1"}')
    assert found is not None
    assert found.reason == "other_algorithm"
    for reason in ("other_algorithm", "other_uid", "plus_as_space", "upper_case"):
        assert signatures.REASONS[reason] in found.message


@pytest.mark.parametrize("crypt_type", ["SHA256", "SM3"])
@pytest.mark.parametrize("content", [b'{"a": 1}', b"%257B%257D", b"%7B+%7D"])
def test_nothing_is_made_up_where_nothing_matches(crypt_type: CryptType, content: bytes) -> None:
    found = diagnose(crypt_type=crypt_type, checksum="0" * 64, uids=[UID, OTHER_UID, UID], seed=SEED, content=content)
    assert found is None


@pytest.mark.parametrize(("crypt_type", "scheme"), [("SHA256", "auto"), ("SM3", "hmac")])
def test_a_right_checksum_has_no_diagnosis(crypt_type: CryptType, scheme: Any) -> None:
    checksum = SHA256 if crypt_type == "SHA256" else SM3_HMAC
    assert (
        diagnose(crypt_type=crypt_type, scheme=scheme, checksum=checksum, uids=[UID], seed=SEED, content=CONTENT)
        is None
    )


def test_the_seed_of_another_receiver_is_diagnosed() -> None:
    checksum = hashlib.sha256(f"{OTHER_UID}another".encode() + CONTENT).hexdigest()
    for uids, reasons in (([OTHER_UID], ["other_seed"]), ([UID, OTHER_UID], ["other_seed", "other_uid"])):
        found = diagnose(
            crypt_type="SHA256",
            checksum=checksum,
            uids=uids,
            seed=SEED,
            other_seeds=["an older one", "another"],
            content=CONTENT,
        )
        assert found is not None
        assert (found.reason, found.message) == (
            reasons[0],
            " ".join(signatures.REASONS[reason] for reason in reasons),
        )


def test_a_diagnosis_ends_when_it_has_hashed_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    uids = [f"{number}" for number in range(20_000)]
    right = checksum_of(CONTENT, uid=uids[-1])
    assert diagnose(crypt_type="SHA256", checksum=right, uids=uids, seed=SEED, content=CONTENT) is not None
    monkeypatch.setattr(signatures, "_MOST_HASHED_BYTES", 4096 * 1000)
    assert diagnose(crypt_type="SHA256", checksum=right, uids=uids, seed=SEED, content=CONTENT) is None
    near = checksum_of(CONTENT, uid=uids[999])
    assert diagnose(crypt_type="SHA256", checksum=near, uids=uids, seed=SEED, content=CONTENT) is not None
    large = b"[" + b"1" * 4096 * 100 + b"]"
    beyond = checksum_of(large, uid=uids[99])
    assert diagnose(crypt_type="SHA256", checksum=beyond, uids=uids, seed=SEED, content=large) is None


@pytest.mark.parametrize(
    ("uid", "reason"),
    [("1234567890123456", "checksum_wrong"), ("201234567890123456", "unlikely_uid"), ("me", "unlikely_uid")],
)
def test_where_nothing_matches_the_uid_s_own_form_may_tell(uid: str, reason: str) -> None:
    found = signatures.undiagnosed(uid)
    assert (found.reason, found.message) == (reason, signatures.REASONS[reason])
    assert found.reason in signatures.UNKNOWN


def test_without_any_known_uid_there_is_nothing_to_diagnose_with() -> None:
    assert diagnose(crypt_type="SHA256", checksum=SHA256, uids=[], seed=SEED, content=CONTENT) is None


def test_no_diagnosis_names_a_secret() -> None:
    told = " ".join(signatures.REASONS.values())
    assert not any(secret in told for secret in (UID, OTHER_UID, SEED, SHA256))
    assert "%" not in told
    assert "{" not in told


def test_a_diagnosis_does_not_hash_large_contents_in_pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def spy(*parts: bytes) -> bytes:
        hashed.append(sum(map(len, parts)))
        return b"\0" * 32

    monkeypatch.setattr(signatures, "gmssl_sm3", spy)
    large = b"[" + b"1" * 70_000 + b"]"
    for content in (CONTENT, large):
        checksum = checksum_of(content).upper()
        found = diagnose(
            crypt_type="SM3", scheme="auto", checksum=checksum, uids=[UID], seed=SEED, content=content, sm3_hash=spy
        )
        assert found is not None
        assert found.reason == "other_algorithm"
    assert hashed
    assert max(hashed) < len(large)


# FIPS 180-4: the compression function, which goes on from any digest as if it were a state of its own.
ROUNDS = [
    int.from_bytes(bytes.fromhex(word))
    for word in """\
428a2f98 71374491 b5c0fbcf e9b5dba5 3956c25b 59f111f1 923f82a4 ab1c5ed5 d807aa98 12835b01 243185be 550c7dc3
72be5d74 80deb1fe 9bdc06a7 c19bf174 e49b69c1 efbe4786 0fc19dc6 240ca1cc 2de92c6f 4a7484aa 5cb0a9dc 76f988da
983e5152 a831c66d b00327c8 bf597fc7 c6e00bf3 d5a79147 06ca6351 14292967 27b70a85 2e1b2138 4d2c6dfc 53380d13
650a7354 766a0abb 81c2c92e 92722c85 a2bfe8a1 a81a664b c24b8b70 c76c51a3 d192e819 d6990624 f40e3585 106aa070
19a4c116 1e376c08 2748774c 34b0bcb5 391c0cb3 4ed8aa4a 5b9cca4f 682e6ff3 748f82ee 78a5636f 84c87814 8cc70208
90befffa a4506ceb bef9a3f7 c67178f2""".split()  # noqa: SIM905 - as the standard lists them
]


def rotated(word: int, by: int) -> int:
    return (word >> by | word << (32 - by)) & 0xFFFFFFFF


def compressed(state: tuple[int, ...], block: bytes) -> tuple[int, ...]:
    words = list(struct.unpack(">16I", block))
    for at in range(16, 64):
        near, far = words[at - 2], words[at - 15]
        sigma_1 = rotated(near, 17) ^ rotated(near, 19) ^ near >> 10
        sigma_0 = rotated(far, 7) ^ rotated(far, 18) ^ far >> 3
        words.append((words[at - 16] + sigma_0 + words[at - 7] + sigma_1) & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = state
    for constant, word in zip(ROUNDS, words, strict=True):
        sum_1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
        sum_0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
        one = h + sum_1 + (e & f ^ ~e & g) + constant + word
        two = sum_0 + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (one + two) & 0xFFFFFFFF, a, b, c, (d + one) & 0xFFFFFFFF, e, f, g
    return tuple((old + new) & 0xFFFFFFFF for old, new in zip(state, (a, b, c, d, e, f, g, h), strict=True))


def padding(length: int) -> bytes:
    return b"\x80" + b"\0" * (-(length + 9) % 64) + struct.pack(">Q", length * 8)


def extended(checksum: str, *, length: int, suffix: bytes) -> tuple[str, bytes]:
    """Forge, from the checksum of `length` bytes that are not known, that of those bytes, padding and a suffix."""
    state = struct.unpack(">8I", bytes.fromhex(checksum))
    glue = padding(length)
    tail = suffix + padding(length + len(glue) + len(suffix))
    for at in range(0, len(tail), 64):
        state = compressed(state, tail[at : at + 64])
    return struct.pack(">8I", *state).hex(), glue + suffix


@pytest.mark.parametrize("suffix", [b"", b"}", b'{"Code":200,"Data":{"RiskLevel":"none"}}', b" " * 100])
@pytest.mark.parametrize("blanks", range(0, 64, 7))
def test_a_suffix_forged_by_length_extension_has_a_right_checksum_and_is_refused_all_the_same(
    suffix: bytes, blanks: int
) -> None:
    content = b'{"Code":200,"Data":{"RiskLevel":"high"}}' + b" " * blanks
    assert payloads.parse(content).risk_level == "high"
    signed = len(UID + SEED) + len(content)
    checksum, appended = extended(checksum_of(content), length=signed, suffix=suffix)
    forged = content + appended
    assert verify(crypt_type="SHA256", scheme="auto", checksum=checksum, uid=UID, seed=SEED, content=forged)
    with pytest.raises(UnicodeDecodeError):
        forged.decode()
    with pytest.raises(Unreadable):
        payloads.parse(forged)
    # and were it let through as text, the whole document is not one
    with pytest.raises(Unreadable):
        payloads.parse(forged.decode("latin-1").encode())


SECRETS = [b"0123456789abcdef01234567", b"\xff" * 32]


@settings(deadline=None)
@given(
    st.binary(min_size=1, max_size=64),
    st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True),
    st.integers(0, 2**32),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_deliveries_are_signed_as_the_standardwebhooks_package_does(
    secret: bytes, message_id: str, timestamp: int, body: str
) -> None:
    oracle = Webhook(signatures.encode_secret(secret))
    expected = oracle.sign(message_id, datetime.fromtimestamp(timestamp, tz=UTC), body)
    assert sign(secrets=[secret], message_id=message_id, timestamp=timestamp, body=body.encode()) == expected


def test_after_a_rotation_the_old_secret_and_the_new_one_both_sign() -> None:
    signed_at, body = datetime(2026, 1, 1, tzinfo=UTC), '{"type":"task.completed"}'
    signature = sign(secrets=SECRETS, message_id="msg_1", timestamp=int(signed_at.timestamp()), body=body.encode())
    assert signature.split(" ") == [
        Webhook(signatures.encode_secret(secret)).sign("msg_1", signed_at, body) for secret in SECRETS
    ]


@pytest.mark.parametrize("secrets", [[], [b""], [b"good", b""]])
def test_nothing_goes_out_unsigned(secrets: list[bytes]) -> None:
    with pytest.raises(ValueError, match="secret"):
        sign(secrets=secrets, message_id="msg_1", timestamp=0, body=b"")


@given(st.binary(min_size=1))
def test_a_secret_survives_its_spelling(secret: bytes) -> None:
    text = signatures.encode_secret(secret)
    assert text == "whsec_" + base64.b64encode(secret).decode()
    assert signatures.decode_secret(text) == secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "whsec_a",
        "whsec_YWJj\n",
        "whsec_YW Jj",
        "whsec_YWJj=",
        "WHSEC_YWJj",
        "YWJj",
        "whsec_é",
        "whsec_\ud800",
    ],
)
def test_what_is_no_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^A signing secret is whsec_ and then base64\.$"):
        signatures.decode_secret(text)
