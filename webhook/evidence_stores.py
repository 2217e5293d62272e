"""Where evidence lies: a directory, or any store that speaks S3; both keep sealed bytes under a name.

A name is `task id/slice id`, of letters, digits and underscores: it is a path and a key as it is. Where a store lies is
its operator's to say, in settings alone, and often in a private network: no `AddressPolicy` stands before it.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from webhook.errors import EvidenceLost, SettingError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_OWNER_ONLY_FILE, _OWNER_ONLY_DIRECTORY = 0o600, 0o700
_LEFT_AFTER_SECONDS = 3600  # far beyond what a write can take
_CONNECT_SECONDS, _READ_SECONDS = 5, 10
_TRIES = 2  # of one call; what fails is tried again by whoever called


class EvidenceStore(Protocol):
    """Keeps bytes under names; safe to use from several threads and processes."""

    def put(self, name: str, content: bytes) -> None:
        """Keep some bytes, on disk before it returns; what was under the name is replaced, all at once.

        Raises:
            StoreUnavailable: they could not be kept.
        """

    def get(self, name: str) -> bytes:
        """Return the bytes under a name.

        Raises:
            EvidenceLost: there are none.
            StoreUnavailable: they cannot be had now.
        """

    def delete(self, name: str) -> None:
        """Delete the bytes under a name, for good before it returns; there may be none.

        Raises:
            StoreUnavailable: they could not be deleted.
        """


class Directory:
    """A directory of our own, made when it is first needed; files are their owner's only.

    Args:
        root: absolute.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, name: str, content: bytes) -> None:
        """Write a file beside its place, and move it there once it is on disk."""
        path = self.root / name
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}.part")
        try:
            _make(self.root)
            _make(path.parent)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY_FILE)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync(path.parent)
            _tidy(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise StoreUnavailable(f"The evidence store {self.root} cannot be written: {error.strerror}.") from error

    def get(self, name: str) -> bytes:
        """Read a file."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError as error:
            if self.root.is_dir():
                raise EvidenceLost from error
            raise StoreUnavailable(f"The evidence store {self.root} does not exist: is its disk mounted?") from error
        except OSError as error:
            raise StoreUnavailable(f"The evidence store {self.root} cannot be read: {error.strerror}.") from error

    def delete(self, name: str) -> None:
        """Delete a file, with what killed writers left of it, and its directory with the last one."""
        path = self.root / name
        if not self.root.is_dir():
            raise StoreUnavailable(f"The evidence store {self.root} does not exist: is its disk mounted?")
        try:
            if not path.parent.is_dir():
                return
            for each in (path, *path.parent.glob(f"{path.name}.*.part")):
                each.unlink(missing_ok=True)
            _sync(path.parent)
            with suppress(OSError):  # it is not empty
                path.parent.rmdir()
        except OSError as error:
            raise StoreUnavailable(f"The evidence store {self.root} cannot be written: {error.strerror}.") from error


def _tidy(path: Path) -> None:
    """Take away what writers of this file have left that were killed."""
    for part in path.parent.glob(f"{path.name}.*.part"):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _LEFT_AFTER_SECONDS:
                part.unlink()


def _make(directory: Path) -> None:
    """Make a directory where there is none; the one that it is in must be there."""
    try:
        directory.mkdir(mode=_OWNER_ONLY_DIRECTORY)
    except FileExistsError:
        return
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    """Bring a directory's entries to disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Bucket:
    """A bucket of a store that speaks S3; boto3 reads credentials, region and endpoint from its own variables.

    Args:
        prefix: before each name, without a slash at its end; may be empty.
    """

    def __init__(self, bucket: str, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._lock = threading.Lock()
        self._made: Any = None

    def endpoint(self) -> str:
        """Return the URL that is called; credentials may be looked for.

        Raises:
            StoreUnavailable: there is none.
        """
        with _translated():
            return str(self._client().meta.endpoint_url)

    def put(self, name: str, content: bytes) -> None:
        """Write an object."""
        with _translated():
            self._client().put_object(
                Bucket=self._bucket, Key=self._prefix + name, Body=content, ContentType="application/octet-stream"
            )

    def get(self, name: str) -> bytes:
        """Read an object."""
        with _translated():
            answer = self._client().get_object(Bucket=self._bucket, Key=self._prefix + name)
            return bytes(answer["Body"].read())

    def delete(self, name: str) -> None:
        """Delete an object; S3 says the same where there is none."""
        with _translated():
            self._client().delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def _client(self) -> Any:
        """Return the client, made when it is first needed: in no process that does not, and after every fork."""
        with self._lock:
            if self._made is None:
                import boto3
                from botocore.config import Config

                self._made = boto3.session.Session().client(
                    "s3",
                    config=Config(
                        connect_timeout=_CONNECT_SECONDS,
                        read_timeout=_READ_SECONDS,
                        retries={"total_max_attempts": _TRIES, "mode": "standard"},
                        # newer checksums are Amazon's own, and other stores refuse them; what is sealed proves itself
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
            return self._made


@contextmanager
def _translated() -> Iterator[None]:
    """Translate boto3's errors, whose messages repeat keys and endpoints."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        if code == "NoSuchKey":
            raise EvidenceLost from error
        raise StoreUnavailable(f"The evidence store in S3 answers {code}: mend WEBHOOK_EVIDENCE_STORE.") from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"The evidence store in S3 cannot be reached: {type(error).__name__}.") from error


def open_store(url: str) -> EvidenceStore:
    """Return the store that `file:///path` or `s3://bucket/prefix` names; nothing is written or called yet.

    Raises:
        SettingError: it is in S3, and boto3 is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return Directory(Path(unquote(parts.path)))
    if importlib.util.find_spec("boto3") is None:
        raise SettingError(
            "WEBHOOK_EVIDENCE_STORE",
            "is in S3, and boto3 is not installed",
            "Set it to a directory such as file:///var/lib/webhook/evidence, or install webhook[s3].",
        )
    return Bucket(parts.netloc, parts.path.strip("/"))
