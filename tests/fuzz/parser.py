"""The parser of callbacks: bodies of all kinds into forms, contents into results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

import msgspec
from msgspec import Struct
from typing_extensions import override

from tests.clients import BOUNDARY, FORM, multipart
from tests.fuzz import values
from tests.fuzz.runs import Target, Violation
from tests.signed import UID, checksum
from tests.test_payloads import GREEN_1, SDK_EXAMPLE, VENDOR_EXAMPLE
from webhook import forms, payloads
from webhook.errors import MalformedBody, Unreadable
from webhook.payloads import Slice, better, slice_key
from webhook.payloads.printed import as_printed, from_printed
from webhook.payloads.tolerant import from_document
from webhook.progress import count_labels
from webhook.shapes import slice_shape

if TYPE_CHECKING:
    import random

SEED = "seed_of_the_parser"

_STREAM: Final = {
    "Code": 200,
    "Data": {
        "LiveId": "room-7",
        "SliceDetails": [
            {
                "StartTime": at,
                "EndTime": at + 10,
                "StartTimestamp": 1678854649720 + at * 1000,
                "EndTimestamp": 1678854659720 + at * 1000,
                "RiskLevel": level,
                "Text": "今天我们来聊一聊 🎵",
                "Url": "https://aliyundoc.com/0",
                "Result": [
                    {
                        "Label": "customized",
                        "Confidence": 60.5,
                        "RiskLevel": level,
                        "Riskwords": "A\N{FULLWIDTH COMMA}B",
                        "CustomizedHit": [{"LibName": "lib", "Keywords": "k1,k2"}],
                    }
                ],
            }
            for at, level in ((0, "none"), (10, "medium"), (20, "low"))
        ],
    },
}
CONTENTS: Final = (
    VENDOR_EXAMPLE.encode(),
    json.dumps(SDK_EXAMPLE, ensure_ascii=False).encode(),
    json.dumps(GREEN_1).encode(),
    json.dumps(_STREAM, ensure_ascii=False).encode(),
    json.dumps(_STREAM["Data"]).encode(),
    b'{"Code":200,"Data":{"SliceDetails":[{"StartTime":1,"Result":[{"RiskWords":"a","Riskwords":"b"}]}]}}',
    b'{"Code":404,"Message":"no","RequestId":"R"}',
    b'[{"Code":280,"Data":{"TaskId":"t","SliceDetails":[]}}]',
)
KNOWN: Final = (
    *("Code", "Data", "Message", "RequestId", "TaskId", "LiveId", "DataId", "Url", "RiskLevel", "SliceDetails"),
    *("StartTime", "EndTime", "StartTimestamp", "EndTimestamp", "Text", "Result", "Labels", "Score", "Descriptions"),
    *("Label", "Description", "Confidence", "RiskWords", "Riskwords", "CustomizedHit", "RiskPositions", "LibName"),
    *("Keywords", "KeyWords", "RiskWord", "StartPos", "EndPos", "Results", "Suggestion", "Rate", "Details", "Extend"),
)
_TYPES: Final = (
    *(FORM, "application/x-www-form-urlencoded; charset=UTF-8", "application/json", "application/json; charset=utf8"),
    *(f"multipart/form-data; boundary={BOUNDARY}", f'multipart/form-data; boundary="{BOUNDARY}"'),
)
_ODD_TYPES: Final = (
    *(
        "",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\u00e9",
    ),
    *(
        "application/json; charset=gbk",
        "application/x-www-form-urlencoded;charset",
        "APPLICATION/JSON",
        ";;;",
        "a" * 500,
    ),
    *("multipart/form-data; boundary*=utf-8''x%ff", "multipart/form-data; boundary*0=a; boundary*1=b", 'a/b; c="\\'),
    *(
        "multipart/form-data; boundary=" + "b" * 300,
        "application/json; charset*=x''utf-8",
        "multipart/mixed; boundary=a",
    ),
)
_LONG_BYTES: Final = 260_000  # beyond which JSON is read in another way
_SLICES: Final = msgspec.json.Decoder(tuple[Slice, ...])


class Sent(Struct, kw_only=True):
    """A callback's content and how it is sent.

    Attributes:
        whole: whether nothing was done to the body after the fields were put into it.
    """

    content: bytes
    body: bytes
    content_type: str
    whole: bool


def draw_content(dice: random.Random) -> bytes:
    """Make a content: the vendor's, and what may become of it."""
    return values.broken_json(dice, dice.choice(CONTENTS), known=KNOWN)


def draw_sent(dice: random.Random, content: bytes, *, proof: str) -> Sent:
    """Put a content and its checksum into a body, and often break that."""
    text = content.decode("utf-8", "surrogateescape")
    kind = dice.randrange(6)
    fields = [("checksum", proof), ("content", text)]
    dice.shuffle(fields)
    whole = True
    if dice.random() < 0.3:
        fields.append((_cased(dice, "taskId"), values.text(dice)))
    if dice.random() < 0.1:
        whole = False
        fields = _odd_fields(dice, fields)
    fields = [(_cased(dice, name) if dice.random() < 0.1 else name, value) for name, value in fields]
    encoded = [
        (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape")) for name, value in fields
    ]
    if kind in (0, 1):
        body = b"&".join(_escaped(dice, name) + b"=" + _escaped(dice, value) for name, value in encoded)
    elif kind in (2, 3):
        whole = whole and _is_utf8(content)
        pairs = (json.dumps(name) + ":" + json.dumps(value, ensure_ascii=dice.random() < 0.5) for name, value in fields)
        body = ("{" + ",".join(pairs) + "}").encode("utf-8", "surrogateescape")
        if whole and dice.random() < 0.15:
            body, whole = values.broken_json(dice, body, known=("checksum", "content", "taskId", "Content")), False
        if dice.random() < 0.01:
            body += b" " * _LONG_BYTES
    else:
        file_name = "a" if dice.random() < 0.1 else None
        body = multipart(
            *((_line(name), file_name, value) for name, (_, value) in zip(_names(fields), encoded, strict=True))
        )
        whole = whole and f"--{BOUNDARY}".encode() not in content
    content_type = _TYPES[kind]
    if dice.random() < 0.12:
        body, whole = values.broken_bytes(dice, body), False
    if dice.random() < 0.03:
        content_type, whole = dice.choice((*_TYPES, *_ODD_TYPES)), False
    return Sent(content=content, body=body, content_type=content_type, whole=whole and _is_utf8(content))


def _names(fields: list[tuple[str, str]]) -> list[str]:
    return [name for name, _ in fields]


def _line(name: str) -> str:
    """Return a name as fits between quotes in a head's line."""
    return "".join(each for each in name if each.isprintable() and each not in '"\\')


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cased(dice: random.Random, name: str) -> str:
    return dice.choice((name.upper(), name.lower(), name.capitalize(), name.swapcase()))


def _escaped(dice: random.Random, data: bytes) -> bytes:
    if dice.random() < 0.7:
        return quote_plus(data).encode()
    return quote(data, safe=dice.choice(("", "/", "{}:,'()", '{}[]:," '))).encode()


def _odd_fields(dice: random.Random, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    way = dice.randrange(6)
    if way == 0:
        return fields[1:]
    if way == 1:
        return [*fields, dice.choice(fields)]
    if way == 2:
        return [(name, values.text(dice)) if name == "checksum" else (name, value) for name, value in fields]
    if way == 3:
        return [*fields, *[(f"f{n}", "v") for n in range(dice.choice((10, 62, 63, 64, 10_000)))]]
    if way == 4:
        return [(values.text(dice), values.text(dice)), *fields]
    return []


class Parser(Target[Sent]):
    """Forms, contents, and all that is worked out of a result before it is stored."""

    name = "parser"
    share = 0.6
    case = Sent

    @override
    def draw(self, dice: random.Random) -> Sent:
        content = draw_content(dice)
        return draw_sent(dice, content, proof=checksum(content, seed=SEED, uid=UID))

    @override
    def ask(self, case: Sent) -> str:
        answer = check_form(case)
        return f"{answer}, {check_content(case.content)}"


def check_form(case: Sent) -> str:
    """Decode a body, and compare what comes with what was put into it."""
    if forms.media_type(case.content_type) is None:
        return "other type"
    try:
        form = forms.decode(case.body, case.content_type)
    except MalformedBody:
        if case.whole:
            raise Violation("a form that nothing was done to is malformed") from None
        return "malformed"
    if case.whole and (form.content, form.checksum) != (case.content, checksum(case.content, seed=SEED, uid=UID)):
        raise Violation("a form comes back with other fields")
    form.content.decode()
    form.checksum.encode()
    (form.task_id or "").encode()
    return "form"


def check_content(content: bytes) -> str:
    """Parse a content both ways, and work out of its result what is stored and shown."""
    try:
        result = payloads.parse(content)
    except Unreadable:
        return "unreadable"
    if (envelope := as_printed(content)) is not None:
        tolerant = from_document(msgspec.json.decode(content))
        if not from_printed(envelope) == tolerant == result:
            raise Violation("the fast way and the tolerant way differ")
    stored = msgspec.json.encode(result.slices)
    if _SLICES.decode(stored) != result.slices:
        raise Violation("slices come back from the store as others")
    kept: dict[bytes, Slice] = {}
    for piece in result.slices:
        key = slice_key(piece)
        kept[key] = better(kept[key], piece) if key in kept else piece
        if payloads.slice_key_of(key.hex()) != key:
            raise Violation("a slice's id stands for another slice")
    shown = msgspec.json.encode([slice_shape(piece, evidence=None) for piece in kept.values()])
    shown.decode()
    msgspec.json.encode(count_labels((), list(kept.values())))
    msgspec.json.encode(result)
    labels = [finding.label for piece in result.slices for finding in piece.results]
    if any("\0" in (text or "") for text in (result.task_id, result.live_id, result.data_id, result.url, *labels)):
        raise Violation("NUL is left in what databases keep as texts")
    return "printed" if envelope is not None else "tolerant"
