"""Callbacks: what they say and how it is sealed.

Facts (voice-moderation.txt, "callback" and "Callback message format"): a form POST with `checksum` and
`content`; checksum over uid + seed + content; only 200 acknowledges.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .outcomes import Way

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One send of a callback: the status it was answered with, or the name of what went wrong."""

    at: float
    status: int | None
    error: str | None
    duration_seconds: float

    @property
    def acknowledged(self) -> bool:
        """Only exactly 200 counts."""
        return self.status == 200  # noqa: PLR2004 - the vendor's word for it


@dataclass(kw_only=True, eq=False)
class Callback:
    """One callback: where it goes, what it says, how it went.

    Attributes:
        url: where it goes.
        content: what is sealed; dropped once it is delivered or given up.
        code: the code in it.
        first_slice: index of the first slice in it.
        slice_count: how many slices are in it.
        way: how it travels.
        by_chance: whether that was drawn, not asked for.
    """

    url: str
    checksum: str
    content: str
    content_bytes: int
    task_id: str
    encoding: str
    code: int
    first_slice: int
    slice_count: int
    way: Way
    by_chance: bool
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def acknowledged(self) -> bool:
        """Whether it was ever answered 200."""
        return any(attempt.acknowledged for attempt in self.attempts)


def checksum(content: str, *, uid: str, seed: str, crypt_type: str, sm3_scheme: str) -> str:
    """Return the lowercase hex checksum of a content.

    Args:
        content: exactly what is sent as `content`, once decoded.
        uid: the account's.
        seed: the task's.
        crypt_type: `SHA256` or `SM3`.
        sm3_scheme: for SM3, `digest` as the vendor's example has it, or `hmac` (key: seed) as its prose says.
    """
    message = f"{uid}{seed}{content}".encode()
    if crypt_type == "SHA256":
        return hashlib.sha256(message).hexdigest()
    if sm3_scheme == "hmac":
        mac = HMAC(seed.encode(), hashes.SM3())
        mac.update(message)
        return mac.finalize().hex()
    digest = hashes.Hash(hashes.SM3())
    digest.update(message)
    return digest.finalize().hex()


def content_of(envelope: Json, shape: str) -> str:
    """Return what stands in `content`.

    Args:
        envelope: `Code`, `Message`, `RequestId` and perhaps `Data`.
        shape: `envelope`; `bare` for `Data` alone (an error has none and stays as it is); `camel` for one
            flat object in camelCase, as Green 1.0 sent it.
    """
    content: Any = envelope
    if shape == "bare" and "Data" in envelope:
        content = envelope["Data"]
    elif shape == "camel":
        content = _camel({**envelope, **envelope.get("Data", {})})
        content.pop("data", None)
    return json.dumps(content, ensure_ascii=False)


def _camel(value: Any) -> Any:
    if isinstance(value, list):
        return [_camel(entry) for entry in value]
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _camel(entry) for key, entry in value.items()}
    return value


def encoded(fields: Mapping[str, str], encoding: str) -> tuple[str, bytes]:
    """Return content type and body of a callback's fields."""
    if encoding == "json":
        return "application/json; charset=utf-8", json.dumps(fields, ensure_ascii=False).encode()
    if encoding == "multipart":
        boundary = secrets.token_hex(16)
        parts = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        return f"multipart/form-data; boundary={boundary}", f"{''.join(parts)}--{boundary}--\r\n".encode()
    return "application/x-www-form-urlencoded", urlencode(fields).encode("ascii")
