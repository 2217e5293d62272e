"""A file sent along: to disk as it arrives, within its limits, and never twice for one key."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.clients import BOUNDARY, AppClient, multipart
from webhook.app import create_app
from webhook.uploads import EXTENSIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients import Part
    from tests.conftest import MakeService
    from webhook.bootstrap import Service

SOUND = bytes(range(256)) * 40 + b"\r\n--a-bound" + b"\r\n" * 100


def kept(service: Service) -> list[Path]:
    directory = service.uploads.directory
    return sorted(directory.iterdir()) if directory.exists() else []


def test_a_file_is_kept_until_it_is_handed_over_with_the_fields_beside_it(client: AppClient, service: Service) -> None:
    reply = client.upload(
        ("data_id", None, b"d-1"),
        ("file", "Talk Show.WAV", SOUND),
        ("referer", None, "прив.example".encode()),
        ("crypt_type", None, b"SM3"),
    )
    assert reply.status == 201
    task = reply.json
    assert reply.headers["Location"] == f"/v1/tasks/{task['id']}"
    assert task["source"] == {"file": {"name": "Talk Show.WAV", "size": len(SOUND)}}
    assert (task["data_id"], task["referer"], task["crypt_type"]) == ("d-1", "прив.example", "SM3")
    assert (task["state"], task["queue_position"]) == ("queued", 1)
    (file,) = kept(service)
    assert hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(SOUND).digest()
    assert file.stat().st_mode & 0o077 == 0
    assert client.shown(f"/v1/tasks/{task['id']}") == task


@pytest.mark.parametrize("name", [f"a.{extension}" for extension in EXTENSIONS] + ["b.Mp3", "C:\\sounds\\c.m4a"])
def test_each_kind_that_the_platform_takes_is_taken(client: AppClient, name: str) -> None:
    assert client.upload(("file", name.replace("\\", "\\\\"), b"x")).status == 201


@pytest.mark.parametrize("name", ["a.txt", "mp3", "a.mp3.exe", "", "."])
def test_another_kind_is_refused(client: AppClient, service: Service, name: str) -> None:
    assert client.upload(("file", name, b"x")).fields == ["file"]
    assert kept(service) == []


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([("data_id", None, b"d")], "file"),
        ([("file", None, b"x")], "file"),
        ([("file", "a.mp3", b"")], "file"),
        ([("file", "a.mp3", b"x"), ("file", "b.mp3", b"x")], "file"),
        ([("file", "a.mp3", b"x"), ("sound", "b.mp3", b"x")], "sound"),
        ([("file", "a.mp3", b"x"), ("data_id", None, b"d"), ("data_id", None, b"d")], "data_id"),
        ([("file", "a.mp3", b"x"), ("data_id", None, b"!")], "data_id"),
        ([("file", "a.mp3", b"x"), ("referer", None, b"r" * 257)], "referer"),
        ([("file", "a.mp3", b"x"), ("referer", None, b"a\r\nX: y")], "referer"),
        ([("file", "a.mp3", b"x"), ("service", None, b"live_detection_byllm_global")], "service"),
        ([("file", "a.mp3", b"x"), ("url", None, b"https://example.com/a.mp3")], "url"),
        ([("file", "a.mp3", b"x"), ("crypt_type", None, b"MD5")], "crypt_type"),
    ],
)
def test_a_field_that_is_wrong_is_named_and_nothing_stays(
    client: AppClient, service: Service, parts: list[Part], field: str
) -> None:
    assert client.upload(*parts).fields == [field]
    assert kept(service) == []


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "not announced"])
def test_a_file_over_the_limit_is_refused(make_service: MakeService, chunked: bool) -> None:  # noqa: FBT001
    service = make_service(WEBHOOK_UPLOAD_LIMIT_BYTES="100000")
    client = AppClient(create_app(service))
    assert client.upload(("file", "a.mp3", b"x" * 100_000)).status == 201
    over = b"x" * (100_001 if chunked else 200_000)
    assert client.upload(("file", "a.mp3", over)).status == 413
    assert len(kept(service)) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        multipart(("file", "a.mp3", SOUND))[:-20],
        multipart(("file", "a.mp3", SOUND))[:500],
        multipart(("data_id", None, b"\xff"), ("file", "a.mp3", b"x")),
        b"--" + BOUNDARY.encode() + b"\r\n" + b"X: " + b"y" * 100_000,
        multipart(("file", "a.mp3", SOUND), ("data_id", None, b"d")).replace(b' name="data_id"', b""),
    ],
    ids=["nonsense", "no end", "cut off", "not UTF-8", "endless head", "no name"],
)
def test_a_broken_form_is_refused_and_nothing_stays(client: AppClient, service: Service, body: bytes) -> None:
    assert client.upload(body=body).status in {400, 413}
    assert kept(service) == []


def test_a_form_without_a_boundary_is_refused(client: AppClient) -> None:
    reply = client.post("/v1/tasks", body=b"x", headers={"Content-Type": "multipart/form-data"})
    assert reply.status == 400


def test_nothing_is_read_of_who_may_not_submit(client: AppClient, service: Service) -> None:
    assert client.upload(("file", "a.mp3", SOUND), Authorization="Bearer nobody").status == 401
    assert kept(service) == []


def test_the_same_key_and_form_get_the_same_task_and_another_form_does_not(client: AppClient, service: Service) -> None:
    first = client.upload(("file", "a.mp3", SOUND), Idempotency_Key="k-1")
    again = client.upload(("file", "a.mp3", SOUND), Idempotency_Key="k-1")
    assert (first.status, again.status) == (201, 201)
    assert first.json["id"] == again.json["id"]
    assert len(kept(service)) == 1
    for other in (("file", "b.mp3", SOUND), ("file", "a.mp3", SOUND + b"x")):
        assert client.upload(other, Idempotency_Key="k-1").fields == ["Idempotency-Key"]
    assert len(kept(service)) == 1


def test_a_disk_that_takes_nothing_is_our_own_trouble(make_service: MakeService, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file where the directory should be")
    service = make_service(WEBHOOK_UPLOAD_DIRECTORY=str(tmp_path / "occupied"))
    assert AppClient(create_app(service)).upload(("file", "a.mp3", b"x")).status == 503
