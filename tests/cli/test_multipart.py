"""A file in a form: what another's parser reads of it, and how it is read from disk."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.formparser import parse_form_data

from webhook.cli.multipart import FileBody, FileUnreadable

NAMES = st.text(st.characters(exclude_characters="\0/\\", exclude_categories=["Cs"]), min_size=1, max_size=60)


def no_progress(_sent: int, _total: int) -> None:
    pass


@given(
    name=NAMES.filter(lambda name: name not in {".", ".."}),
    content=st.binary(max_size=200_000),
    data_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_another_s_parser_reads_the_fields_and_the_file(name: str, content: bytes, data_id: str) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory, name)
        path.write_bytes(content)
        body = FileBody(path, {"data_id": data_id}, progress=no_progress)
        raw = b"".join(body.pieces())
        assert raw == b"".join(body.pieces()), "sent again it is the same"
    assert len(raw) == body.length
    environ = {
        "wsgi.input": io.BytesIO(raw),
        "CONTENT_TYPE": body.content_type,
        "CONTENT_LENGTH": str(len(raw)),
        "REQUEST_METHOD": "POST",
    }
    _, form, files = parse_form_data(environ)
    assert form["data_id"] == data_id
    with files["file"].stream as file:
        assert file.read() == content
    escaped = {"%22": '"', "%0D": "\r", "%0A": "\n"}
    seen = files["file"].filename or ""
    for code, character in escaped.items():
        seen, name = seen.replace(code, character), name.replace(code, character)
    assert seen == name


def test_a_large_file_is_never_whole_in_memory_and_its_progress_is_told(tmp_path: Path) -> None:
    path = tmp_path / "large.mp3"
    size = 64 * 1024 * 1024
    with path.open("wb") as file:
        file.truncate(size)
    told: list[tuple[int, int]] = []
    body = FileBody(path, {}, progress=lambda sent, total: told.append((sent, total)))
    tracemalloc.start()
    try:
        sent = sum(len(piece) for piece in body.pieces())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent == body.length > size
    assert peak < 1024 * 1024
    assert (told[0], told[-1]) == ((0, size), (size, size))
    assert told == sorted(told)
    assert len(told) > 100


@pytest.mark.parametrize("now", [b"short", b"much longer than before"])
def test_a_file_that_changes_while_it_is_sent_is_not_sent_as_if_it_were_whole(tmp_path: Path, now: bytes) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"as it was once")
    body = FileBody(path, {}, progress=no_progress)
    path.write_bytes(now)
    sent: list[bytes] = []
    with pytest.raises(FileUnreadable, match="changed while it was sent"):
        sent.extend(body.pieces())
    assert len(b"".join(sent)) < body.length
    path.unlink()
    with pytest.raises(FileUnreadable, match="cannot be read"):
        b"".join(body.pieces())


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="is no file"):
        FileBody(tmp_path, {}, progress=no_progress)
    with pytest.raises(FileUnreadable, match="No such file"):
        FileBody(tmp_path / "nothing.mp3", {}, progress=no_progress)
