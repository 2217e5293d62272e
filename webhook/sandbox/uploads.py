"""The object store behind DescribeUploadToken: temporary credentials, and the objects put with them.

Credentials are checked as the vendor's object storage checks them: signature version 4 in full (the
canonical form of `alibabacloud_oss_v2.signer.v4`), of version 1 the AccessKey and the security token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .magic import marked_source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from .control import Control

BUCKET = "sandbox-uploads"
# "Audio file size": 500 MB
MAX_OBJECT_BYTES = 500_000_000
# what all objects may take on disk; the oldest go first
MAX_STORED_BYTES = 4_000_000_000
TOKEN_SECONDS = 3600
# where a file says what it is; the magic comment stands there too
START_BYTES = 64 * 1024

_V4 = re.compile(
    r"OSS4-HMAC-SHA256 Credential=(?P<key_id>[^/,\s]+)/(?P<scope>(?P<date>\d{8})/(?P<region>[a-z0-9-]*)/oss/"
    r"aliyun_v4_request),(?:AdditionalHeaders=(?P<additional>[a-z0-9;-]+),)?Signature=(?P<signature>[0-9a-f]{64})"
)
_V1 = re.compile(r"OSS (?P<key_id>[^:\s]+):(?P<signature>\S+)")


class ObjectRefusal(Exception):
    """The object store refuses a request with an XML error.

    Args:
        status: HTTP status.
        code: the store's word.
        message: its sentence.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Token:
    """Temporary credentials, good for objects under one prefix."""

    key_id: str
    key_secret: str
    security_token: str
    prefix: str
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One uploaded object: where its bytes lie, and the magic they carry."""

    path: Path
    bytes_stored: int
    etag: str
    source: str | None
    stored_at: float


@dataclass(frozen=True, kw_only=True)
class Put:
    """A request to put an object, without its body; header names in lower case."""

    bucket: str
    name: str
    query: str
    headers: Mapping[str, str]


class ObjectStore:
    """Issues upload tokens and keeps what is put with them in a temporary directory; `close` it."""

    def __init__(self, control: Control, *, clock: Callable[[], float]) -> None:
        self._control = control
        self._clock = clock
        self._directory = tempfile.TemporaryDirectory(prefix="webhook-sandbox-")
        self._tokens: OrderedDict[str, Token] = OrderedDict()
        self._objects: OrderedDict[str, StoredObject] = OrderedDict()

    def issue(self, endpoint: str) -> dict[str, Any]:
        """Return the `Data` of DescribeUploadToken with new credentials.

        Args:
            endpoint: the store's address as the asking client reaches it.
        """
        now = self._clock()
        while self._tokens and next(iter(self._tokens.values())).expires_at <= now:
            self._tokens.popitem(last=False)
        token = Token(
            key_id=f"STS.{secrets.token_hex(12)}",
            key_secret=secrets.token_urlsafe(24),
            security_token=secrets.token_urlsafe(48),
            prefix=f"upload/{secrets.token_hex(6)}/",
            expires_at=now + TOKEN_SECONDS,
        )
        self._tokens[token.key_id] = token
        return {
            "AccessKeyId": token.key_id,
            "AccessKeySecret": token.key_secret,
            "SecurityToken": token.security_token,
            "BucketName": BUCKET,
            "FileNamePrefix": token.prefix,
            "OssInternetEndPoint": endpoint,
            "OssInternalEndPoint": endpoint,
            "Expiration": int(token.expires_at),
        }

    def find(self, name: str) -> StoredObject | None:
        """Return an object of the upload bucket, None where it was never put or is too old."""
        self._forget_old()
        return self._objects.get(name)

    async def put(self, request: Put, body: AsyncIterator[bytes]) -> StoredObject:
        """Check the credentials, then store the object.

        Raises:
            ObjectRefusal: the credentials are not ours, or the object is none of theirs, or too large.
        """
        self._authorize(request)
        path = Path(self._directory.name) / secrets.token_hex(16)
        digest, size, start = hashlib.md5(usedforsecurity=False), 0, b""
        try:
            with path.open("wb") as file:
                async for chunk in body:
                    size += len(chunk)
                    _check_size(size)
                    start += chunk[: START_BYTES - len(start)]
                    digest.update(chunk)
                    file.write(chunk)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        stored = StoredObject(
            path=path,
            bytes_stored=size,
            etag=digest.hexdigest().upper(),
            source=marked_source(start),
            stored_at=self._clock(),
        )
        self._drop(request.name)
        self._objects[request.name] = stored
        self._forget_old()
        return stored

    def close(self) -> None:
        """Delete every object."""
        self._directory.cleanup()

    def _drop(self, name: str) -> None:
        known = self._objects.pop(name, None)
        if known is not None:
            known.path.unlink()

    def _forget_old(self) -> None:
        total = sum(known.bytes_stored for known in self._objects.values())
        lifetime = self._control.config.upload_ttl_seconds
        for name, known in list(self._objects.items()):
            if total <= MAX_STORED_BYTES and not self._control.is_over(lifetime, since=known.stored_at):
                break
            total -= known.bytes_stored
            self._drop(name)

    def _authorize(self, request: Put) -> None:
        authorization = request.headers.get("authorization", "")
        found = _V4.fullmatch(authorization) or _V1.fullmatch(authorization)
        if found is None:
            raise ObjectRefusal(403, "AccessDenied", "You have no right to access this object.")
        token = self._tokens.get(found["key_id"])
        if token is None:
            raise ObjectRefusal(403, "InvalidAccessKeyId", "The OSS Access Key Id you provided does not exist.")
        if self._clock() >= token.expires_at:
            raise ObjectRefusal(403, "SecurityTokenExpired", "The security token you provided has expired.")
        given = request.headers.get("x-oss-security-token") or request.headers.get("security-token", "")
        if not hmac.compare_digest(given.encode(), token.security_token.encode()):
            raise ObjectRefusal(403, "InvalidSecurityToken", "The security token you provided is invalid.")
        if found.re is _V4 and not hmac.compare_digest(_v4_signature(request, found, token), found["signature"]):
            raise ObjectRefusal(
                403, "SignatureDoesNotMatch", "The request signature we calculated does not match yours."
            )
        if request.bucket != BUCKET:
            raise ObjectRefusal(404, "NoSuchBucket", "The specified bucket does not exist.")
        if not request.name.startswith(token.prefix) or request.name == token.prefix:
            raise ObjectRefusal(403, "AccessDenied", "The object is outside of the prefix of your token.")


def _check_size(size: int) -> None:
    if size > MAX_OBJECT_BYTES:
        raise ObjectRefusal(400, "EntityTooLarge", "Your proposed upload exceeds the maximum size.")


def _v4_signature(request: Put, credential: re.Match[str], token: Token) -> str:
    additional = (credential["additional"] or "").split(";") if credential["additional"] else []
    lines = "".join(
        f"{name}:{value}\n"
        for name, value in sorted(request.headers.items())
        if name.startswith("x-oss-") or name in {"content-type", "content-md5"} or name in additional
    )
    pairs = sorted(pair.partition("=") for pair in request.query.split("&") if pair)
    query = "&".join(f"{name}={value}" if value else name for name, _, value in pairs)
    canonical = "\n".join(
        (
            "PUT",
            quote(f"/{request.bucket}/{request.name}", safe="/"),
            query,
            lines,
            ";".join(additional),
            request.headers.get("x-oss-content-sha256", "UNSIGNED-PAYLOAD"),
        )
    )
    string_to_sign = "\n".join(
        (
            "OSS4-HMAC-SHA256",
            request.headers.get("x-oss-date", ""),
            credential["scope"],
            hashlib.sha256(canonical.encode()).hexdigest(),
        )
    )
    key = f"aliyun_v4{token.key_secret}".encode()
    for part in (credential["date"], credential["region"], "oss", "aliyun_v4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, string_to_sign.encode(), hashlib.sha256).hexdigest()
