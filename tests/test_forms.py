"""Bodies of callbacks, as the platform sends them and as it would never."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any
from urllib.parse import quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from webhook import forms
from webhook.errors import MalformedBody
from webhook.forms import JSON, URLENCODED

MULTIPART = "multipart/form-data; boundary=edge"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def part(name: str, value: str | bytes, *, more: str = "") -> bytes:
    raw = value if isinstance(value, bytes) else value.encode()
    return (
        b'--edge\r\nContent-Disposition: form-data; name="'
        + name.encode()
        + b'"'
        + more.encode()
        + (b"\r\n\r\n" + raw + b"\r\n")
    )


@given(checksum=TEXTS, content=TEXTS, task_id=TEXTS)
def test_the_three_kinds_of_body_give_the_very_characters_that_were_sent(
    checksum: str, content: str, task_id: str
) -> None:
    fields = {"checksum": checksum, "content": content, "taskId": task_id}
    multipart, multipart_type = encode_multipart_formdata(fields, boundary="4f0c9a")
    for body, content_type in (
        (urlencode(fields).encode(), URLENCODED),
        (multipart, multipart_type),
        (json.dumps(fields).encode(), JSON),
        (json.dumps(fields, ensure_ascii=False).encode(), JSON),
    ):
        form = forms.decode(body, content_type)
        assert (form.checksum, form.content, form.task_id or "") == (checksum, content.encode(), task_id)


@given(st.binary(max_size=300), st.sampled_from([URLENCODED, MULTIPART, JSON, "multipart/form-data"]))
def test_garbage_is_malformed_and_raises_nothing_else(body: bytes, content_type: str) -> None:
    with pytest.raises(MalformedBody):
        forms.decode(body, content_type)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_form_with_garbage_in_it_decodes_or_is_malformed(checksum: bytes, content: bytes) -> None:
    bodies = (
        (b"checksum=" + checksum + b"&content=" + content, URLENCODED),
        (part("checksum", checksum) + part("content", content) + b"--edge--\r\n", MULTIPART),
        (b'{"checksum": "' + checksum + b'", "content": "' + content + b'"}', JSON),
    )
    for body, content_type in bodies:
        try:
            form = forms.decode(body, content_type)
        except MalformedBody:
            continue
        assert form.content.decode().encode() == form.content


def test_field_names_are_matched_without_regard_to_case() -> None:
    form = forms.decode(b"CheckSum=a&CONTENT=b&taskID=c", URLENCODED)
    assert (form.checksum, form.content, form.task_id) == ("a", b"b", "c")


def test_other_fields_are_let_be() -> None:
    assert forms.decode(b"x=1&x=2&checksum=a&content=b", URLENCODED).content == b"b"


@pytest.mark.parametrize(
    "body",
    [
        b"checksum=a&content=",
        part("checksum", "a") + part("content", "") + b"--edge--",
        b'{"checksum":"a","content":""}',
    ],
    ids=["urlencoded", "multipart", "json"],
)
def test_an_empty_content_is_a_content(body: bytes) -> None:
    kind = MULTIPART if body[:1] == b"-" else JSON if body[:1] == b"{" else URLENCODED
    form = forms.decode(body, kind)
    assert (form.content, form.task_id) == (b"", None)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"checksum=a&content=%7B+%7D%2B", b"{ }+"),
        (b"checksum=a&content=%", b"%"),
        (b"checksum=a&content=%zz%4", b"%zz%4"),
        (b"checksum=a&content=a=b", b"a=b"),
        (b"checksum=a&content=a;b", b"a;b"),
        (b"&&checksum=a&&content=b&", b"b"),
        (b"checksum=a&content=%00", b"\0"),
        (b"checksum=a&content=\xef\xbf\xbd%ef%bf%BD", b"\xef\xbf\xbd\xef\xbf\xbd"),
        (b"checksum=a&content=%25EF%25BF%25BD", b"%EF%BF%BD"),
        (b"checksum=a&content=\xc3%A9", None),
        (b"checksum=a&content=%FF", None),
        (b"checksum=a&content=%EF%BF%BD%C3", None),
        (b"checksum=a&content=%C0%AF", None),
        (b"checksum=a&content=%ED%A0%80", None),
        (b"checksum=a&content=\xff", None),
        (b"checksum=%FF&content=b", None),
        (b"checksum=a&content=b&%FF=c", None),
        (b"checksum=a", None),
        (b"content=b", None),
        (b"checksum=a&content=b&content=b", None),
        (b"checksum=a&content=b&Content=c", None),
        (b"checksum=a&checksum=a&content=b", None),
        (b"checksum=a&content=b&taskId=1&taskid=2", b"b"),
        (b"checksum=a&content=b" + b"&x=1" * 100, None),
        (b"", None),
    ],
)
def test_urlencoded_bodies_are_read_strictly(body: bytes, content: bytes | None) -> None:
    if content is None:
        with pytest.raises(MalformedBody):
            forms.decode(body, URLENCODED)
    else:
        assert forms.decode(body, URLENCODED).content == content


@given(TEXTS)
def test_a_replacement_character_that_was_sent_is_no_sign_of_broken_utf8(text: str) -> None:
    content = text + "\N{REPLACEMENT CHARACTER}"
    body = b"checksum=a&content=" + quote_plus(content).encode()
    assert forms.decode(body, URLENCODED).content == content.encode()


PADDINGS = [b"", b" " * 300_000]


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b'{"checksum": "a"}',
        b'{"checksum": "a", "content": {}}',
        b'{"checksum": "a", "content": null}',
        b'{"checksum": 1, "content": "b"}',
        b'{"checksum": "a", "content": "b", "content": "b"}',
        b'{"checksum": "a", "Checksum": "a", "content": "b"}',
        b'{"checksum": "a", "content": "\\ud800"}',
        b'{"checksum": "a", "content": "\xff"}',
        b'{"checksum": "a", "content": "b"} {}',
        b"[" * 100_000,
    ],
)
@pytest.mark.parametrize("padding", PADDINGS, ids=["short", "long"])
def test_broken_json_is_malformed(body: bytes, padding: bytes) -> None:
    with pytest.raises(MalformedBody):
        forms.decode(body + padding, JSON)


@pytest.mark.parametrize(
    ("sent", "task_id"), [("null", None), ("42", "42"), ("[1]", None), ("true", None), ('""', None)]
)
@pytest.mark.parametrize("padding", PADDINGS, ids=["short", "long"])
def test_a_task_id_in_json_is_a_text_or_a_number_or_none(sent: str, task_id: str | None, padding: bytes) -> None:
    body = b'{"checksum": "a", "content": "b", "taskId": %s}' % sent.encode()
    assert forms.decode(body + padding, JSON).task_id == task_id


@pytest.mark.parametrize("each", [b"[],", b"{},", b'"",', b"1.5,"])
def test_json_takes_memory_for_its_fields_alone(each: bytes) -> None:
    body = b'{"checksum": "a", "content": "b", "more": [' + each * 1_000_000 + b"0]}"
    tracemalloc.start()
    try:
        forms.decode(body, JSON)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
    finally:
        tracemalloc.stop()


def test_long_json_has_no_more_fields_than_other_forms() -> None:
    more = "".join(f'"{number}": 1, ' for number in range(100))
    with pytest.raises(MalformedBody):
        forms.decode(b'{%s"checksum": "a", "content": "b"}' % more.encode() + b" " * 300_000, JSON)


WHOLE = part("checksum", "a") + part("content", "b")


@pytest.mark.parametrize(
    "body",
    [
        WHOLE,
        WHOLE[:-10],
        WHOLE + b"--edge",
        WHOLE + part("content", "c") + b"--edge--\r\n",
        part("checksum", "a") + part("content", b"\xff") + b"--edge--\r\n",
        part("checksum", "a") + b"--edge--\r\n",
        b"".join(part(f"x{number}", "") for number in range(100)) + WHOLE + b"--edge--\r\n",
        part("x", "", more="; y=" + "z" * 10_000) + WHOLE + b"--edge--\r\n",
        b"--edge\r\n\r\n\r\n" + WHOLE + b"--edge--\r\n",
        b"--edges\r\n" + WHOLE.removeprefix(b"--edge\r\n") + b"--edge--\r\n",
        b"--edge\r\nContent-Disposition: form-data; name\r\n\r\n",
        b"--edge--\r\n",
    ],
)
def test_broken_multipart_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        forms.decode(body, MULTIPART)


def test_multipart_without_a_boundary_is_malformed() -> None:
    with pytest.raises(MalformedBody):
        forms.decode(WHOLE + b"--edge--\r\n", "multipart/form-data")


def test_a_field_sent_as_a_file_counts_as_well() -> None:
    body = part("checksum", "a") + part("content", "b", more='; filename="c.json"') + b"--edge--\r\n"
    assert forms.decode(body, MULTIPART).content == b"b"


def test_a_long_multipart_content_comes_whole() -> None:
    content = "x" * 1_000_000
    body = part("checksum", "a") + part("content", content) + b"--edge--\r\n"
    assert forms.decode(body, MULTIPART).content == content.encode()


def test_what_is_nearly_a_boundary_belongs_to_the_content() -> None:
    content = "\r\n--edg\r\n-edge\r--edge\n--edge--\r\n\r\n"
    whole = part("checksum", "") + part("content", content)
    for before, padding in ((b"", b""), (b"a preamble\r\n\r\n--edg\r\n", b" \t")):
        body = (
            before + whole.replace(b"--edge\r\n", b"--edge" + padding + b"\r\n") + b"--edge--\r\n--edge\r\nan epilogue"
        )
        assert forms.decode(body, MULTIPART).content == content.encode()


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/x-www-form-urlencoded", URLENCODED),
        ("Application/X-WWW-Form-Urlencoded; charset=UTF-8", URLENCODED),
        ("application/json;charset=utf8", JSON),
        ("multipart/form-data; boundary=x", "multipart/form-data"),
        ("application/x-www-form-urlencoded; charset=gbk", None),
        ("text/plain", None),
        ("", None),
    ],
)
def test_three_media_types_are_known_and_only_in_utf8(content_type: str, kind: Any) -> None:
    assert forms.media_type(content_type) == kind
