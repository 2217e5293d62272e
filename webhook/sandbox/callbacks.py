"""Callbacks: what is sent, how it is sealed, and how often it is tried.

Facts (voice-moderation.txt, "callback" and "Callback message format"): a form POST with `checksum` and
`content`; checksum over uid + seed + content; only 200 acknowledges; 16 retries.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import aiohttp
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.hmac import HMAC

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .config import SandboxConfig

Json = dict[str, Any]

# urlencode needs a tenth of a second for so much; more is done beside the event loop
LARGE_CONTENT = 1_000_000


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
        lost: whether magic lets it go missing.
    """

    url: str
    checksum: str
    content: str
    content_bytes: int
    task_id: str
    encoding: str
    lost: bool = False
    attempts: list[Attempt] = field(default_factory=list)


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


class Sender:
    """Sends callbacks until they are acknowledged; `close` it.

    Args:
        config: intervals and timeouts.
        clock: seconds since 1970, for the record.
    """

    def __init__(self, config: SandboxConfig, *, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        # trust_env stays off: http_proxy must not come between us and loopback
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=config.callback_timeout_seconds),
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def resend(self, callback: Callback) -> None:
        """Send a callback again until it is acknowledged or the retries are used up."""
        for _ in range(self._config.callback_retries):
            await asyncio.sleep(self._config.resend_interval_seconds)
            if (await self.attempt(callback)).acknowledged:
                return

    async def attempt(self, callback: Callback) -> Attempt:
        """Send a callback once and record how it went."""
        fields = {"checksum": callback.checksum, "content": callback.content, "taskId": callback.task_id}
        at, started = self._clock(), time.monotonic()
        status, error = None, None
        try:
            if callback.content_bytes > LARGE_CONTENT:
                content_type, body = await asyncio.to_thread(_encoded, fields, callback.encoding)
            else:
                content_type, body = _encoded(fields, callback.encoding)
            async with self._session.post(
                callback.url,
                # from a file, since aiohttp warns of large bytes
                data=io.BytesIO(body),
                headers={"Content-Type": content_type, "Content-Length": str(len(body))},
                allow_redirects=False,
            ) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as fault:
            error = type(fault).__name__
        attempt = Attempt(at=at, status=status, error=error, duration_seconds=time.monotonic() - started)
        callback.attempts.append(attempt)
        return attempt

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _encoded(fields: Mapping[str, str], encoding: str) -> tuple[str, bytes]:
    """Return content type and body."""
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
