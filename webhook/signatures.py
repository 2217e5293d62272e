"""Checksums of the platform's callbacks, and the signatures of our own deliveries."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec
from cryptography.exceptions import InternalError, UnsupportedAlgorithm

from webhook.errors import ServiceError

CryptType = Literal["SHA256", "SM3"]
Sm3Scheme = Literal["digest", "hmac", "auto"]
Hash = Callable[..., bytes]
"""A hash of the bytes of all its arguments, one after the other."""

_SM3_BLOCK: Final = 64
"""Bytes; GB/T 32905-2016, section 5.2."""

_SM3_ABC: Final = bytes.fromhex("66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0")
"""SM3 of `abc`: voice-moderation.txt, `cryptType`."""

_SLOW_SM3_BYTES: Final = 64 * 1024
"""Longest content that a diagnosis hashes with pure Python's SM3, of which a megabyte takes seconds."""


def hashlib_sm3(*parts: bytes) -> bytes:
    """Return SM3 by the OpenSSL that Python is linked with."""
    digest = hashlib.new("sm3")
    for part in parts:
        digest.update(part)
    return digest.digest()


def cryptography_sm3(*parts: bytes) -> bytes:
    """Return SM3 by the OpenSSL that `cryptography` brings along."""
    from cryptography.hazmat.primitives import hashes

    digest = hashes.Hash(hashes.SM3())
    for part in parts:
        digest.update(part)
    return digest.finalize()


def gmssl_sm3(*parts: bytes) -> bytes:
    """Return SM3 by pure Python: slow (a second or more for each 300 KB), but there where OpenSSL lacks it."""
    from gmssl import sm3 as gmssl

    digest: str = gmssl.sm3_hash(list(b"".join(parts)))  # type: ignore[no-untyped-call]
    return bytes.fromhex(digest)


def choose_sm3(candidates: Iterable[Hash] = (hashlib_sm3, cryptography_sm3, gmssl_sm3)) -> Hash:
    """Return the first that works, found by hashing: under FIPS the listing names algorithms that are refused.

    Raises:
        ServiceError: none of them works.
    """
    for candidate in candidates:
        try:
            if candidate(b"abc") == _SM3_ABC:
                return candidate
        except (ImportError, ValueError, UnsupportedAlgorithm, InternalError):
            continue
    raise ServiceError("No implementation of SM3 works here. Install gmssl, or use cryptType SHA256.")


@functools.cache
def _chosen_sm3() -> Hash:
    return choose_sm3()


def sm3(data: bytes, *, implementation: Hash | None = None) -> bytes:
    """Return SM3 of the data, 32 bytes."""
    return (implementation or _chosen_sm3())(data)


def hmac_sm3(key: bytes, data: bytes, *, implementation: Hash | None = None) -> bytes:
    """Return HMAC-SM3 of the data, 32 bytes."""
    return _hmac_sm3(implementation or _chosen_sm3(), key, data)


_INNER, _OUTER = bytes(byte ^ 0x36 for byte in range(256)), bytes(byte ^ 0x5C for byte in range(256))


def _hmac_sm3(sm3_hash: Hash, key: bytes, *parts: bytes) -> bytes:
    """Build HMAC after RFC 2104, as `hmac` does, for hashes that `hmac` does not know."""
    block = (sm3_hash(key) if len(key) > _SM3_BLOCK else key).ljust(_SM3_BLOCK, b"\0")
    return sm3_hash(block.translate(_OUTER), sm3_hash(block.translate(_INNER), *parts))


class _Algorithm(NamedTuple):
    """One way to make a checksum."""

    crypt_type: CryptType
    scheme: Sm3Scheme | None


_SHA256: Final = _Algorithm("SHA256", None)
_SM3_DIGEST: Final = _Algorithm("SM3", "digest")
_SM3_HMAC: Final = _Algorithm("SM3", "hmac")


def _accepted(crypt_type: CryptType, scheme: Sm3Scheme | None) -> list[_Algorithm]:
    """Return the ways that a task or receiver accepts."""
    if crypt_type == "SHA256":
        return [_SHA256]
    return [algorithm for algorithm in (_SM3_DIGEST, _SM3_HMAC) if scheme in (algorithm.scheme, "auto", None)]


def _checksum(algorithm: _Algorithm, *, uid: str, seed: str, content: bytes, sm3_hash: Hash | None) -> str:
    """Return the checksum of `uid + seed + content`, which are hashed one after the other and never copied."""
    parts = (uid.encode(), seed.encode(), content)
    if algorithm is _SHA256:
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return digest.hexdigest()
    sm3_hash = sm3_hash or _chosen_sm3()
    if algorithm is _SM3_DIGEST:
        return sm3_hash(*parts).hex()
    return _hmac_sm3(sm3_hash, seed.encode(), *parts).hex()


def verify(
    *,
    crypt_type: CryptType,
    scheme: Sm3Scheme,
    checksum: str,
    uid: str,
    seed: str,
    content: bytes,
    sm3_hash: Hash | None = None,
) -> bool:
    """Return whether the checksum, in lowercase hex, is that of the content.

    Args:
        crypt_type: the algorithm stored with the task or receiver, never the sender's choice.
        scheme: what SM3 means: the plain digest, HMAC keyed with the seed, or either of them.
        checksum: as received; anything at all, also what no hash could be.
        uid: the account UID, never a RAM user's.
        seed: the task's or the receiver's.
        content: the field's bytes, decoded once from the form and nothing else done to them.
        sm3_hash: an SM3 of the caller's instead of the one chosen here.
    """
    given = checksum.encode(errors="replace")
    answers = [
        hmac.compare_digest(
            _checksum(algorithm, uid=uid, seed=seed, content=content, sm3_hash=sm3_hash).encode(), given
        )
        for algorithm in _accepted(crypt_type, scheme)
    ]
    return any(answers)


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """Why a checksum is wrong.

    Attributes:
        reason: a stable word, one of the keys of `REASONS`, or the first of them where there are several.
        message: what is wrong and how to mend it; names no secret.
    """

    reason: str
    message: str


REASONS: Final[dict[str, str]] = {
    "malformed": "The checksum is not 64 hexadecimal digits: the sender is not the platform, or something on "
    "the way altered the field.",
    "other_algorithm": "The other algorithm matches: the task was submitted with another cryptType than the "
    "one stored with it.",
    "other_scheme": "The other SM3 scheme matches: set WEBHOOK_SM3_SCHEME to auto, or to the other one.",
    "other_seed": "The seed of another receiver matches: the task was submitted with an older one. Submit with the "
    "seed and the URL of one and the same receiver.",
    "other_uid": "The UID of another known account matches: set WEBHOOK_PLATFORM_UID, or the receiver's uid, "
    "to the account that submits the tasks.",
    "plus_as_space": "The content matches once its spaces are plus signs again: something on the way decoded "
    "the form twice, or never encoded its plus signs.",
    "space_as_plus": "The content matches once its plus signs are spaces again: something on the way encoded the form "
    "anew, or decoded it by another rule.",
    "percent_encoded": "The content matches once it is percent-decoded: something on the way encoded the form more "
    "than once.",
    "upper_case": "The checksum matches but for its case: something on the way turned it to upper case, the "
    "platform sends lower case.",
    "unlikely_uid": "No known mistake matches, but the UID in use has not the 16 digits of an account's, so it may "
    "be a RAM user's: set WEBHOOK_PLATFORM_UID, or the receiver's uid, to the account's.",
    "checksum_wrong": "No known mistake matches: forged, garbled on the way, or another account's. Compare "
    "WEBHOOK_PLATFORM_UID, or the receiver's uid, with the account that submits the tasks.",
}
"""The sentence of each reason, in the order in which they are told."""

UNKNOWN: Final = frozenset({"unlikely_uid", "checksum_wrong"})
"""The reasons of `undiagnosed`."""

_MOST_HASHED_BYTES: Final = 256 * 1024 * 1024
"""What one diagnosis may hash, half a second's work; a small content counts as `_TRY_BYTES`."""

_TRY_BYTES: Final = 4096

_MOST_ENCODINGS: Final = 2
"""Times beyond the first that a form may have been encoded."""

ACCOUNT_UID: Final = re.compile(r"[0-9]{16}")
"""Alibaba Cloud, Account Center, "View your Alibaba Cloud account ID"."""

_HEX: Final = re.compile(r"[0-9a-f]{64}")


def diagnose(
    *,
    crypt_type: CryptType,
    checksum: str,
    uids: Iterable[str],
    seed: str,
    content: bytes,
    scheme: Sm3Scheme | None = None,
    other_seeds: Iterable[str] = (),
    sm3_hash: Hash | None = None,
) -> Diagnosis | None:
    """Tell why `verify` said no; None where nothing that we know of would have made it a yes.

    It hashes the content once for each seed, UID and way of making a checksum, and as often again for each
    way in which it may have been garbled, until it has hashed enough (`_MOST_HASHED_BYTES`).

    Args:
        crypt_type: as for `verify`.
        checksum: as for `verify`.
        uids: the configured UID first, then the other known ones.
        seed: as for `verify`.
        content: as for `verify`.
        scheme: as for `verify`; None where it is not known, so that either may be the wrong one.
        other_seeds: of other receivers.
        sm3_hash: as for `verify`.
    """
    wanted = checksum.lower()
    if not _HEX.fullmatch(wanted):
        return _diagnosis({"malformed"})
    accepted = _accepted(crypt_type, scheme)
    sm3_hash = sm3_hash or _chosen_sm3()
    others = [one for one in (_SHA256, _SM3_DIGEST, _SM3_HMAC) if one not in accepted]
    algorithms = [
        one
        for one in (*accepted, *others)
        if one is _SHA256 or sm3_hash is not gmssl_sm3 or len(content) <= _SLOW_SM3_BYTES
    ]
    known, seeds = list(dict.fromkeys(uids)), list(dict.fromkeys((seed, *other_seeds)))
    left = _MOST_HASHED_BYTES
    tries = (
        (tried, garbled, repaired, algorithm, uid)
        for tried in seeds
        for garbled, repaired in _repairs(content)
        for algorithm in algorithms
        for uid in known
    )
    for tried, garbled, repaired, algorithm, uid in tries:
        left -= max(len(repaired), _TRY_BYTES)
        if left < 0:
            break
        made = _checksum(algorithm, uid=uid, seed=tried, content=repaired, sm3_hash=sm3_hash)
        if not hmac.compare_digest(made, wanted):
            continue
        faults = {garbled} if garbled else set()
        if checksum != wanted:
            faults.add("upper_case")
        if tried != seed:
            faults.add("other_seed")
        if uid != known[0]:
            faults.add("other_uid")
        if algorithm.crypt_type != crypt_type:
            faults.add("other_algorithm")
        elif algorithm not in accepted or (not faults and crypt_type == "SM3" and scheme is None):
            faults.add("other_scheme")
        return _diagnosis(faults)
    return None


def undiagnosed(uid: str) -> Diagnosis:
    """Return what there is to say where `diagnose` knew nothing.

    Args:
        uid: the one that `verify` took.
    """
    reason = "checksum_wrong" if ACCOUNT_UID.fullmatch(uid) else "unlikely_uid"
    return Diagnosis(reason=reason, message=REASONS[reason])


def _repairs(content: bytes) -> Iterator[tuple[str | None, bytes]]:
    """Yield the content as received, then as it may have been before something on the way garbled it."""
    yield None, content
    if b" " in content:
        yield "plus_as_space", content.replace(b" ", b"+")
    if b"+" in content:
        yield "space_as_plus", content.replace(b"+", b" ")
    for _ in range(_MOST_ENCODINGS):
        if not content.startswith((b"%7B", b"%7b", b"%257B", b"%257b")):
            break
        content = unquote_to_bytes(content.replace(b"+", b" "))
        yield "percent_encoded", content


def _diagnosis(faults: set[str]) -> Diagnosis | None:
    """Tell the faults in the order of `REASONS`; None for none."""
    told = [reason for reason in REASONS if reason in faults]
    if not told:
        return None
    return Diagnosis(reason=told[0], message=" ".join(REASONS[reason] for reason in told))


_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the public prefix, Standard Webhooks 1.0, "Signature scheme"


def sign(*, secrets: Sequence[bytes], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` header of a delivery: one signature for each secret.

    Args:
        secrets: raw keys, the current one first; after a rotation the old one signs beside it.
        message_id: the `webhook-id` header.
        timestamp: the `webhook-timestamp` header, Unix seconds of the attempt.
        body: the request's bytes as they go out.

    Raises:
        ValueError: there is no secret, or an empty one.
    """
    if not secrets or not all(secrets):
        raise ValueError("A delivery is signed with at least one secret, none of them empty.")
    signed = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join("v1," + base64.b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in secrets)


def encode_secret(secret: bytes) -> str:
    """Return a raw key as subscribers are shown it, `whsec_…`."""
    return _SECRET_PREFIX + base64.b64encode(secret).decode()


def decode_secret(text: str) -> bytes:
    """Return the raw key of a `whsec_…`.

    Raises:
        ValueError: it is none; the message does not repeat it.
    """
    try:
        secret = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except ValueError:
        secret = b""
    if not secret or encode_secret(secret) != text:
        raise ValueError("A signing secret is whsec_ and then base64.")
    return secret
