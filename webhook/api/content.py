"""Bodies that are not JSON: whole, in ranges, or not again where the client has them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import Response
from typing_extensions import override
from werkzeug.exceptions import RequestedRangeNotSatisfiable

from webhook.errors import RequestError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_PRECONDITION_FAILED = 412
_ENDINGS = {  # the library's own table is the machine's, and knows few of these
    "audio/wav": ".wav",
    "audio/wave": ".wav",
    "audio/x-wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/x-m4a": ".m4a",
    "audio/aac": ".aac",
    "audio/amr": ".amr",
    "audio/ogg": ".ogg",
    "video/mp4": ".mp4",
    "video/mp2t": ".ts",
    "video/x-flv": ".flv",
}


class RangeNotSatisfiable(RequestError):
    """The range lies outside of the content.

    Args:
        length: bytes of the content.
    """

    status = 416
    title = "Range not satisfiable"

    def __init__(self, length: int) -> None:
        super().__init__(f"The content has {length} bytes; ask for one range of them, or for all.")
        self._length = length

    @property
    @override
    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self._length}"}


class PreconditionFailed(RequestError):
    """The content is not the one that the client expects."""

    status = 412
    title = "Precondition failed"


@dataclass(frozen=True, kw_only=True)
class Content:
    """Bytes of a file that never change.

    Attributes:
        content_type: whatever it says, a browser saves the file and neither shows nor runs it.
        name: of the file, without its ending.
        etag: see `Content.of`.
    """

    body: bytes
    content_type: str
    name: str
    etag: str

    @classmethod
    def of(cls, body: bytes, *, content_type: str, name: str) -> Content:
        """Make it with its ETag; a large one takes its time."""
        digest = hashlib.sha256(body).hexdigest()[:32]
        return cls(body=body, content_type=content_type, name=name, etag=digest)

    def response(self, environ: WSGIEnvironment) -> Response:
        """Answer a request, as its `Range`, `If-Range`, `If-Match` and `If-None-Match` want it.

        Raises:
            RangeNotSatisfiable: none of the content is in the range.
            PreconditionFailed: `If-Match` names another content.
        """
        response = Response(self.body, content_type=self.content_type)
        response.set_etag(self.etag)
        response.accept_ranges = "bytes"  # werkzeug 3.1.3 says it of parts only
        ending = _ENDINGS.get(self.content_type.partition(";")[0].strip().lower(), "")
        response.headers.set("Content-Disposition", "attachment", filename=f"{self.name}{ending}")
        asked = {name: value for name, value in environ.items() if name != "HTTP_RANGE"}
        if range_ := _understood(environ.get("HTTP_RANGE", ""), length=len(self.body)):
            asked["HTTP_RANGE"] = range_
        try:
            response.make_conditional(asked, accept_ranges=True, complete_length=len(self.body))
        except RequestedRangeNotSatisfiable as error:
            raise RangeNotSatisfiable(len(self.body)) from error
        if response.status_code == _PRECONDITION_FAILED:
            raise PreconditionFailed("The content is not the one that If-Match names.")
        return response


def _understood(asked: str, *, length: int) -> str:
    """Return what is met of a `Range` (RFC 9110, 14.2): nothing of other units and of several ranges at once.

    A suffix that is longer than the content is all of it, which werkzeug does not know.
    """
    unit, _, ranges = asked.partition("=")
    if unit.strip().lower() != "bytes" or "," in ranges:
        return ""
    start, _, suffix = ranges.strip().partition("-")
    return f"bytes=-{length}" if not start and suffix.isdecimal() and int(suffix) > length else asked
