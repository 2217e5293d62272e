"""A form with a file, read as it arrives: fields into memory, the file to disk, never whole in memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gevent
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from webhook.errors import BodyTooLarge, Invalid, MalformedBody, ServiceError
from webhook.threads import in_thread
from webhook.uploads import EXTENSIONS, extension

if TYPE_CHECKING:
    from pathlib import Path

    from werkzeug import Request

    from webhook.uploads import Uploads

_PIECE_BYTES = 256 * 1024
_LONGEST_PAUSE_SECONDS = 60.0  # between two pieces
_FIELDS_BYTES = 64 * 1024  # of a field, and of what stands around the parts
_MOST_PARTS = 32
_LONGEST_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What a form brought.

    Attributes:
        path: where the file lies; None where there was none.
        name: the file's, as the client calls it.
        digest: SHA-256 of all of it, the same for the same form however it is cut into parts.
    """

    fields: dict[str, str]
    path: Path | None
    name: str
    size: int
    digest: bytes


def read_upload(request: Request, *, uploads: Uploads, limit: int) -> Upload:
    """Read a multipart form, with its file on its way to disk.

    Args:
        limit: bytes the file may have.

    Raises:
        BodyTooLarge: it is larger.
        MalformedBody: it is no such form, was cut off, or came too slowly.
        Invalid: a field is given twice, or the file is of a kind that the platform does not take.
        ServiceError: it cannot be written.
    """
    length = request.content_length
    if length is not None and length > limit + _FIELDS_BYTES:
        raise BodyTooLarge
    boundary = request.mimetype_params.get("boundary", "")
    if not boundary:
        raise MalformedBody("The form has no boundary.")
    reader = _Reader(uploads, limit=limit, boundary=boundary.encode("latin-1", "replace"))
    try:
        return reader.read(request.environ["wsgi.input"], length)
    except BaseException:
        reader.discard()
        raise


class _Reader:
    def __init__(self, uploads: Uploads, *, limit: int, boundary: bytes) -> None:
        self._uploads = uploads
        self._limit = limit
        # what waits to be decoded: a piece of the file at the most, or a part's head
        self._decoder = MultipartDecoder(
            boundary, max_form_memory_size=_PIECE_BYTES + _FIELDS_BYTES, max_parts=_MOST_PARTS
        )
        self._fields: dict[str, str] = {}
        self._part: Field | File | None = None
        self._value = bytearray()
        self._path: Path | None = None
        self._descriptor: int | None = None
        self._name = ""
        self._size = 0
        self._content = hashlib.sha256()

    def read(self, stream: Any, length: int | None) -> Upload:
        left = length
        try:
            while True:
                with gevent.Timeout(_LONGEST_PAUSE_SECONDS, MalformedBody("The body came too slowly.")):
                    piece = stream.read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
                if left is not None:
                    left -= len(piece)
                self._decoder.receive_data(piece or None)
                if self._take_events():
                    break
                if not piece:
                    raise MalformedBody("The body was cut off.")
        except RequestEntityTooLarge:
            raise BodyTooLarge from None
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and self._descriptor is not None and error.errno is not None:
                raise self._no_room(error) from error
            raise MalformedBody("The body is no well-formed multipart form, or was cut off.") from None
        self._close()
        return Upload(
            fields=self._fields, path=self._path, name=self._name, size=self._size, digest=self._whole_digest()
        )

    def discard(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _take_events(self) -> bool:
        """Take what has been decoded so far; return whether it was the end."""
        while True:
            match self._decoder.next_event():
                case NeedData():
                    return False
                case Epilogue():
                    return True
                case File() as part:
                    self._begin_file(part)
                case Field() as part:
                    self._begin_field(part)
                case Data(data=data, more_data=more):
                    self._take_data(bytes(data), more=more)

    def _begin_field(self, part: Field) -> None:
        if part.name is None:
            raise MalformedBody("A part of the form has no name.")
        if part.name == "file":
            raise Invalid(("file", "must be sent as a file, with a name"))
        if part.name in self._fields:
            raise Invalid((part.name, "is given twice"))
        self._part, self._value = part, bytearray()

    def _begin_file(self, part: File) -> None:
        if part.name != "file":
            raise Invalid((part.name or "file", "is not a field of this form that takes a file"))
        if self._path is not None:
            raise Invalid(("file", "is given twice"))
        name = (part.filename or "").replace("\\", "/").rpartition("/")[2]
        if extension(name) not in EXTENSIONS:
            raise Invalid(("file", f"must have a name that ends in one of {', '.join(EXTENSIONS)}"))
        if len(name) > _LONGEST_NAME or "\0" in name:
            raise Invalid(("file", f"must have a name of up to {_LONGEST_NAME} characters, without NUL"))
        self._part, self._name = part, name
        try:
            self._path = in_thread(self._uploads.begin)
            self._descriptor = os.open(self._path, os.O_WRONLY)
        except OSError as error:
            raise self._no_room(error) from error

    def _take_data(self, data: bytes, *, more: bool) -> None:
        if isinstance(self._part, File):
            self._size += len(data)
            if self._size > self._limit:
                raise BodyTooLarge
            in_thread(self._write, data)
        elif self._part is not None:
            self._value += data
            if len(self._value) > _FIELDS_BYTES:
                raise BodyTooLarge
            if not more:
                try:
                    self._fields[self._part.name] = self._value.decode()
                except UnicodeDecodeError:
                    raise MalformedBody("A field is not UTF-8.") from None

    def _write(self, data: bytes) -> None:
        assert self._descriptor is not None  # noqa: S101 - opened with the part
        self._content.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _close(self) -> None:
        if self._descriptor is not None:
            if not self._size:
                raise Invalid(("file", "is empty"))
            try:
                in_thread(os.fsync, self._descriptor)
            except OSError as error:
                raise self._no_room(error) from error
            os.close(self._descriptor)
            self._descriptor = None

    def _no_room(self, error: OSError) -> ServiceError:
        return ServiceError(f"An upload cannot be written to {self._uploads.directory} ({error.strerror}).")

    def _whole_digest(self) -> bytes:
        whole = hashlib.sha256(self._content.digest())
        for name, value in sorted({**self._fields, "file": self._name}.items()):
            whole.update(f"{len(name)}:{name}{len(value)}:{value}".encode())
        return whole.digest()
