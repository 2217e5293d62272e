"""A file as one part of a multipart form, read from disk while it goes out."""

from __future__ import annotations

import mimetypes
import secrets
import stat
from typing import TYPE_CHECKING

from webhook.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_PIECE_BYTES = 64 * 1024
_ESCAPES = {ord('"'): "%22", ord("\r"): "%0D", ord("\n"): "%0A"}  # WHATWG HTML, "Multipart form data"


class FileUnreadable(ServiceError):
    """The file cannot be read, or is not what it was when it began to be sent."""


class FileBody:
    """A form of some fields and a file, the same bytes each time: a repeated request must be the same.

    Args:
        path: of the file.
        fields: further fields.
        progress: told how many bytes of the file are on their way, and of how many; begins at 0 again when it is
            sent again.

    Attributes:
        size: bytes of the file.

    Raises:
        FileUnreadable: it is none.
    """

    def __init__(self, path: Path, fields: Mapping[str, str], *, progress: Callable[[int, int], None]) -> None:
        try:
            status = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise FileUnreadable(f"{path} is no file that could be sent.")
        self.size = status.st_size
        self._path = path
        self._progress = progress
        boundary = f"webhook-{secrets.token_hex(16)}"
        parts = [f"--{boundary}\r\n{_disposition(name)}\r\n\r\n{value}\r\n" for name, value in fields.items()]
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        name = path.name.translate(_ESCAPES)
        parts.append(f'--{boundary}\r\n{_disposition("file")}; filename="{name}"\r\nContent-Type: {kind}\r\n\r\n')
        self._head = "".join(parts).encode(errors="replace")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.length = len(self._head) + self.size + len(self._tail)

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes.

        Raises:
            FileUnreadable: the file cannot be read any more, or has changed its size.
        """
        yield self._head
        sent = 0
        self._progress(sent, self.size)
        try:
            with self._path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    sent += len(piece)
                    if sent > self.size:
                        break
                    yield piece
                    self._progress(sent, self.size)
        except OSError as error:
            raise _unreadable(self._path, error) from None
        if sent != self.size:
            raise FileUnreadable(f"{self._path} changed while it was sent. Submit it again once it is whole.")
        yield self._tail


def _disposition(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


def _unreadable(path: Path, error: OSError) -> FileUnreadable:
    return FileUnreadable(f"{path} cannot be read ({error.strerror}).")
