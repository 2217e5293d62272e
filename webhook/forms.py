"""The body of a callback: a form, urlencoded or multipart, or the same three fields as JSON.

Decoding is strict, since the checksum covers the very characters: UTF-8 or nothing, no field twice.
Percent escapes are undone by yarl's C code: 40 times faster than the framework's form parser, which
also turns invalid bytes into text and takes the first of two fields.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import msgspec
from werkzeug.http import parse_options_header
from yarl import query_to_pairs

from webhook.errors import MalformedBody

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
JSON = "application/json"

_MOST_FIELDS = 64
_LONGEST_HEAD = 8192  # bytes of a part's
_PLAIN = frozenset((b'"', b"-", *(b"%d" % digit for digit in range(10))))  # what texts and numbers of JSON begin with
_SHORT_CHARACTERS = 256 * 1024  # of JSON that is read whole, whatever its fields hold
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_ESCAPED_REPLACEMENT = "%EF%BF%BD"


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a callback.

    Attributes:
        checksum: as sent.
        content: the characters as sent, in UTF-8: what the checksum covers.
        task_id: the hint beside them, which the checksum does not cover.
    """

    checksum: str
    content: bytes
    task_id: str | None


@functools.lru_cache(maxsize=64)
def media_type(content_type: str) -> str | None:
    """Return which of the three bodies a Content-Type announces, None where it is none of them."""
    kind, options = parse_options_header(content_type)
    if options.get("charset", "utf-8").lower() not in {"utf-8", "utf8"}:
        return None
    return kind.lower() if kind.lower() in {URLENCODED, MULTIPART, JSON} else None


def decode(body: bytes, content_type: str) -> Form:
    """Read a callback's body.

    Args:
        body: as it came.
        content_type: the header; `media_type` must know it.

    Raises:
        MalformedBody: it is no such form, not UTF-8, or a field is missing or given twice.
    """
    kind = media_type(content_type)
    if kind == URLENCODED:
        pairs: Iterable[tuple[str, object]] = _urlencoded(body)
    elif kind == JSON:
        pairs = _json(body)
    else:
        pairs = _multipart(body, parse_options_header(content_type)[1].get("boundary", ""))
    fields: dict[str, object] = {}
    for name, value in pairs:
        key = name.lower()
        if key in fields:
            if key in {"checksum", "content"}:
                raise MalformedBody(f"The field {key} is given twice.")
            value = None  # noqa: PLW2901 - two hints are none
        fields[key] = value
    return Form(
        checksum=_required(fields, "checksum").decode(),
        content=_required(fields, "content"),
        task_id=_hint(fields.get("taskid")),
    )


def _hint(value: object) -> str | None:
    """Return the taskId, if it can be one: what the checksum does not cover is never a reason to refuse."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        return None
    return value.encode(errors="replace").decode() or None


def _required(fields: dict[str, object], name: str) -> bytes:
    value = fields.get(name)
    if value is None:
        raise MalformedBody(f"The field {name} is missing.")
    if not isinstance(value, str):
        raise MalformedBody(f"The field {name} is not a text.")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise MalformedBody(f"The field {name} is not UTF-8.") from None


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise MalformedBody("The body is not UTF-8.") from None


def _urlencoded(body: bytes) -> list[tuple[str, str]]:
    text = _text(body)
    try:
        pairs = query_to_pairs(text, max_fields=_MOST_FIELDS)
    except ValueError:
        raise MalformedBody(f"The form has more than {_MOST_FIELDS} fields.") from None
    # yarl writes U+FFFD for escapes that are not UTF-8: more of them than were sent means there are such
    written = sum(name.count(_REPLACEMENT) + value.count(_REPLACEMENT) for name, value in pairs)
    if written and written != text.count(_REPLACEMENT) + text.upper().count(_ESCAPED_REPLACEMENT):
        raise MalformedBody("The form is not UTF-8.")
    return pairs


def _json(body: bytes) -> list[tuple[str, object]]:
    text = _text(body)
    try:
        fields = _short_fields(text) if len(text) <= _SHORT_CHARACTERS else _long_fields(text)
    except (ValueError, RecursionError):
        raise MalformedBody("The body is not a JSON object, or has too many fields.") from None
    return fields


def _short_fields(text: str) -> list[tuple[str, object]]:
    document = json.loads(text, object_pairs_hook=_Pairs)
    if not isinstance(document, _Pairs):
        raise ValueError  # noqa: TRY004 - it is no such document
    return document


class _Pairs(list[tuple[str, object]]):
    """A JSON object as it was written, doubled names and all."""


class _Name:
    """The name of a field, and of no other: so that a doubled one is seen."""

    def __init__(self, name: str) -> None:
        self.name = name


def _long_fields(text: str) -> list[tuple[str, object]]:
    """Return the fields of a long object, of which only texts and numbers are read.

    To read all would take thirty times its bytes of memory, before anybody knows whether the platform has sent it.
    """
    count = 0

    def name(_type: type, given: str) -> _Name:
        nonlocal count
        count += 1
        if count > _MOST_FIELDS:
            raise ValueError
        return _Name(given)

    fields = msgspec.json.decode(text, type=dict[_Name, msgspec.Raw], dec_hook=name)
    written = [(key.name, bytes(raw)) for key, raw in fields.items()]
    return [(key, json.loads(value) if value[:1] in _PLAIN else None) for key, value in written]


def _multipart(body: bytes, boundary: str) -> Iterator[tuple[str, str]]:
    """Yield the parts, found by searches in C: the framework's parser takes seconds for what is nearly a boundary."""
    if not boundary:
        raise MalformedBody("The multipart body has no boundary.")
    delimiter = b"\r\n--" + boundary.encode(errors="replace")
    at = len(delimiter) - 2 if body.startswith(delimiter[2:]) else _after(body, delimiter, 0)
    for _ in range(_MOST_FIELDS + 1):
        if body.startswith(b"--", at):
            return
        head_end = body.find(b"\r\n\r\n", at, at + _LONGEST_HEAD)
        after = _after(body, delimiter, head_end + 2) if head_end >= 0 else 0
        padding, _, head = body[at:head_end].partition(b"\r\n")
        if head_end < 0 or padding.strip(b" \t"):
            break
        yield _part_name(head), _text(body[head_end + 4 : after - len(delimiter)])
        at = after
    raise _broken()


def _after(body: bytes, delimiter: bytes, start: int) -> int:
    found = body.find(delimiter, start)
    if found < 0:
        raise _broken()
    return found + len(delimiter)


def _part_name(head: bytes) -> str:
    for line in _text(head).split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            return parse_options_header(value)[1].get("name", "")
    raise _broken()


def _broken() -> MalformedBody:
    return MalformedBody("The multipart body is broken, cut off, or has too many parts.")
