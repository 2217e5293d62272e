"""Odd values, and what becomes of good ones on a bad way: JSON by its structure, texts, and bytes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

_WRITTEN: Final = "\ue000%d\ue001"
"""What stands for JSON that no value of Python is written as, until the document is."""

_UNWRITABLE: Final = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-0",
    b"-0.0",
    b"1E+2",
    b"0.1e1",
    b"00",
    b"+1",
    b".5",
    b"1.",
    b"9" * 400,
    b"-" + b"9" * 5000,
    b"0." + b"1" * 400,
    b"1" * 299 + b".0",
    b"18446744073709551616",
    b'"\\ud83d"',
    b'"\\udc00\\ud83d"',
    b'"\\u0000"',
    b'"\\ud83d\\ude00\\u0000"',
    b'"a\x00b"',
    b'"\xff\xfe"',
    b'"\xed\xa0\xbd"',
    b'"\xc0\x80"',
    b'"\\x41"',
    b'"unended',
    b"'single'",
    b"tru",
    b"// none\n1",
    b"[" * 40 + b"]" * 40,
    b'{"a":' * 33 + b"{}" + b"}" * 33,
    b"[" * 3000 + b"]" * 3000,
)
_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 0.0, 0.5, -0.5, 1e308, 99.999, 100, 100.0, 101, 4065, 4065.0, 1678854649720),
    *(200, "200", 280, 404, 408, 600, 2**31, 2**53, 2**53 + 1, -(2**53), -(2**53) - 1, 2**63 - 1, 2**63, 2**64),
    *(
        "",
        " ",
        "none",
        "None",
        "low",
        "medium",
        "high",
        "HIGH",
        " high\n",
        "extreme",
        "null",
        "0",
        "1e3",
        "100.0",
        "-5",
    ),
    *(
        "nonLabel",
        "normal",
        "political_*",
        "*",
        "%",
        "_",
        "a,b",
        "a\N{FULLWIDTH COMMA}b,,",
        "a\0b",
        "\ufeff",
        "\ufffd",
        "\u2028",
        "😀",
    ),
    *("词汇", "ﬀ", "İ", "\x1b[31m", "'; DROP TABLE tasks; --", "../../etc/passwd", "{type}", "task_" + "0" * 28),
    *("2026-01-31T12:00:00Z", "9999-12-31T23:59:59.999999+00:00", "0001-01-01T00:00:00+23:59", "2026-02-30T00:00:00Z"),
    *("https://example.com/a.mp3", "http://169.254.169.254/", "https://[::1", "rtmp://a/b", "javascript:1", "a" * 300),
    *([], {}, [[]], [None], [{}], {"": ""}, {"a": {"b": [1, {"c": None}]}}, ["high", 1, None], [[[[]]]]),
)
_TEXTS: Final = tuple(value for value in _VALUES if isinstance(value, str))
_BYTES: Final = (
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\xfe\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc4\xe3\xba\xc3"),
    *(b"%", b"%zz", b"%00", b"%FF", b"%EF%BF%BD", b"%ud83d", b"+", b"&", b"=", b";", b"\r\n", b"\n", b"\r", b"{", b"}"),
    *(b"[", b"]", b'"', b"\\", b",", b":", b" ", b"\t", b"0", b"9" * 50, b"/", b"?", b"#", b"--", b"\x80" + b"\0" * 60),
)
_MOST: Final = 10_000  # fields or entries, once in a while
_MOST_BYTES: Final = 2 * 1024 * 1024  # of a document, however often its parts were multiplied
_OFTEN_MOST: Final = 80  # the store's limit of fields lies below


def number(dice: random.Random, most: int) -> int:
    """Return a number that is mostly small."""
    return int(dice.random() ** 3 * most)


def value(dice: random.Random) -> Any:
    """Return an odd value, fit to be written as JSON."""
    return _own(dice.choice(_VALUES))


def _own(found: Any) -> Any:
    """Return a value that may be broken further."""
    return msgspec.json.decode(msgspec.json.encode(found)) if isinstance(found, list | dict) else found


def text(dice: random.Random) -> str:
    """Return an odd text, without halves of surrogate pairs."""
    found = dice.choice(_TEXTS)
    odd = dice.random()
    if odd < 0.05:
        return found * dice.choice((2, 70, 300, 3000))
    if odd < 0.2:
        return found + "".join(chr(dice.choice((dice.randrange(128), dice.randrange(0xD800)))) for _ in range(4))
    return found


class Document:
    """A JSON document that is to be broken somewhere.

    Args:
        dice: what is drawn from.
        known: names of fields that mean something, which others may be called by.
    """

    def __init__(self, dice: random.Random, root: Any, *, known: Sequence[str]) -> None:
        self._dice = dice
        self._known = known
        self._root = [root]
        self._raw: list[bytes] = []

    def break_(self) -> None:
        """Do one odd thing to one place."""
        place, key = self._place()
        self._dice.choice(_WAYS)(self, place, key)

    def written(self) -> bytes:
        """Return the document as JSON, or what is left of it."""
        dice = self._dice
        spaced = (", ", ": ") if dice.random() < 0.5 else (",", ":")
        done = json.dumps(self._root[0], ensure_ascii=dice.random() < 0.3, separators=spaced)
        encoded = done.encode("utf-8", "surrogatepass")
        for index in range(len(self._raw) - 1, -1, -1):
            mark, raw = _WRITTEN % index, self._raw[index]
            for form in (json.dumps(mark).encode(), json.dumps(mark, ensure_ascii=False).encode()):
                encoded = encoded.replace(form, raw, max(1, _MOST_BYTES // len(raw)))[:_MOST_BYTES]
        return encoded

    def _place(self) -> tuple[Any, Any]:
        """Return a container and the key of one of its values, any depth as likely."""
        dice = self._dice
        place: Any = self._root
        key: Any = 0
        depth = dice.randrange(9)
        for _ in range(depth):
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner:
                break
            place = inner
            key = dice.choice(list(inner)) if isinstance(inner, dict) else dice.randrange(len(inner))
        return place, key

    def _replace(self, place: Any, key: Any) -> None:
        place[key] = value(self._dice)

    def _replace_by_its_like(self, place: Any, key: Any) -> None:
        """Write another value of the same type, as what is understood at once may have."""
        kind = type(place[key])
        place[key] = _own(self._dice.choice([each for each in _VALUES if type(each) is kind] or [None]))

    def _replace_by_text(self, place: Any, key: Any) -> None:
        place[key] = text(self._dice)

    def _replace_by_raw(self, place: Any, key: Any) -> None:
        place[key] = self._mark(self._dice.choice(_UNWRITABLE))

    def _mark(self, raw: bytes) -> str:
        self._raw.append(raw)
        return _WRITTEN % (len(self._raw) - 1)

    def _drop(self, place: Any, key: Any) -> None:
        if len(place) > 1 or place is not self._root:
            del place[key]

    def _rename(self, place: Any, key: Any) -> None:
        if isinstance(place, dict):
            place[self._name(key)] = place.pop(key)

    def _name(self, key: str) -> str:
        dice = self._dice
        way = dice.randrange(6)
        if way == 0:
            return key.lower()
        if way == 1:
            return key.upper()
        if way == 2:
            return key.swapcase()
        if way == 3:
            return text(dice)
        return dice.choice(self._known)

    def _add(self, place: Any, _key: Any) -> None:
        if isinstance(place, dict):
            place[self._name(self._dice.choice(self._known))] = value(self._dice)
        elif place is not self._root:
            place.append(value(self._dice))

    def _double(self, place: Any, key: Any) -> None:
        """Write a field twice, the second time with another value."""
        if isinstance(place, dict):
            first, second = json.dumps(place[key]), json.dumps(value(self._dice))
            place[key] = self._mark(f"{first},{json.dumps(key)}:{second}".encode())

    def _multiply(self, place: Any, key: Any) -> None:
        """Have many of one thing: entries of a list, or fields."""
        dice = self._dice
        count = _MOST if dice.random() < 0.002 else number(dice, _OFTEN_MOST)
        count = min(count, _MOST_BYTES // len(json.dumps(place[key])))
        if isinstance(place, dict):
            name = self._name(key)
            first, each = json.dumps(place[key]), json.dumps(value(dice))
            fields = ",".join(f"{json.dumps(f'{name}{index}')}:{each}" for index in range(count))
            place[key] = self._mark(f"{first}{',' if count else ''}{fields}".encode())
        else:
            written = json.dumps(place[key])
            place[key] = [json.loads(written) for _ in range(count)]  # each its own, or they would grow together

    def _wrap(self, place: Any, key: Any) -> None:
        place[key] = {self._name("Data"): place[key]} if self._dice.random() < 0.4 else [place[key]]

    def _unwrap(self, place: Any, key: Any) -> None:
        inner = place[key]
        if isinstance(inner, dict | list) and inner:
            place[key] = next(iter(inner.values() if isinstance(inner, dict) else inner))

    def _swap(self, place: Any, key: Any) -> None:
        other, at = self._place()
        place[key] = msgspec.json.decode(json.dumps(other[at]))

    def _spell(self, place: Any, key: Any) -> None:
        """Write a value as a text."""
        place[key] = json.dumps(place[key])


_WAYS: Final[Sequence[Callable[[Document, Any, Any], None]]] = (
    *(Document._replace,) * 4,
    *(Document._replace_by_its_like,) * 6,
    *(Document._replace_by_raw,) * 2,
    *(Document._rename,) * 2,
    Document._replace_by_text,
    Document._drop,
    Document._add,
    Document._double,
    Document._multiply,
    Document._wrap,
    Document._unwrap,
    Document._swap,
    Document._spell,
)


def broken_json(dice: random.Random, document: bytes, *, known: Sequence[str]) -> bytes:
    """Return a good document, often with odd things done to its values, and seldom to its bytes."""
    if dice.random() < 0.03:
        return document
    broken = Document(dice, msgspec.json.decode(document), known=known)
    for _ in range(1 + number(dice, 6)):
        broken.break_()
    written = broken.written()
    return broken_bytes(dice, written) if dice.random() < 0.15 else written


def broken_bytes(dice: random.Random, whole: bytes) -> bytes:
    """Return bytes to which odd things were done."""
    for _ in range(1 + number(dice, 4)):
        whole = dice.choice(_BYTE_WAYS)(dice, whole)
    return whole


def _cut(dice: random.Random, whole: bytes) -> bytes:
    return whole[: dice.randrange(len(whole) + 1)]


def _behead(dice: random.Random, whole: bytes) -> bytes:
    return whole[dice.randrange(len(whole) + 1) :]


def _remove(dice: random.Random, whole: bytes) -> bytes:
    at = dice.randrange(len(whole) + 1)
    return whole[:at] + whole[at + 1 + number(dice, 30) :]


def _insert(dice: random.Random, whole: bytes) -> bytes:
    at = dice.randrange(len(whole) + 1)
    return whole[:at] + dice.choice(_BYTES) * (1 + number(dice, 5)) + whole[at:]


def _garble(dice: random.Random, whole: bytes) -> bytes:
    if not whole:
        return whole
    at = dice.randrange(len(whole))
    return whole[:at] + bytes([dice.randrange(256)]) + whole[at + 1 :]


def _repeat(dice: random.Random, whole: bytes) -> bytes:
    at = dice.randrange(len(whole) + 1)
    piece = whole[at : at + 1 + number(dice, 40)]
    return whole[:at] + piece * (1 + number(dice, 200)) + whole[at:]


def _twice(_dice: random.Random, whole: bytes) -> bytes:
    return whole + whole if len(whole) < 100_000 else whole


def _append(dice: random.Random, whole: bytes) -> bytes:
    return whole + dice.choice(_BYTES)


def _mark_order(dice: random.Random, whole: bytes) -> bytes:
    return dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) + whole


def _other_coding(dice: random.Random, whole: bytes) -> bytes:
    coding = dice.choice(("gbk", "gb18030", "utf-16", "utf-16-be", "utf-7", "utf-32", "big5"))
    return whole.decode("utf-8", "replace").encode(coding, "replace")


_BYTE_WAYS: Final = (
    _cut,
    _behead,
    _remove,
    _insert,
    _insert,
    _garble,
    _repeat,
    _twice,
    _append,
    _mark_order,
    _other_coding,
)
