"""Both stores keep the same promises: a directory, and a bucket of a real S3 server (moto's)."""

from __future__ import annotations

import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.running import free_port
from tests.s3 import BUCKET, needs_s3, s3_server
from webhook.errors import EvidenceLost, SettingError, StoreUnavailable
from webhook.evidence_stores import Bucket, Directory, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.evidence_stores import EvidenceStore

NAME = "task_1/02ab"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as url:
        yield url


@pytest.fixture(params=["directory", pytest.param("s3", marks=needs_s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> EvidenceStore:
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_store(f"s3://{BUCKET}/some/prefix")
    return open_store(f"file://{tmp_path}/some%20evidence")


def test_what_is_kept_is_given_back(store: EvidenceStore) -> None:
    content = bytes(range(256)) * 5000
    store.put(NAME, content)
    store.put("task_1/03", b"another")
    assert store.get(NAME) == content
    assert store.get("task_1/03") == b"another"


def test_the_newest_content_of_a_name_is_the_one_that_counts(store: EvidenceStore) -> None:
    store.put(NAME, b"old and long")
    store.put(NAME, b"new")
    assert store.get(NAME) == b"new"


def test_what_is_not_there_is_lost(store: EvidenceStore) -> None:
    store.put(NAME, b"x")
    with pytest.raises(EvidenceLost):
        store.get("task_1/99")
    with pytest.raises(EvidenceLost):
        store.get("task_9/99")


def test_several_threads_may_use_it_at_once(store: EvidenceStore) -> None:
    together = threading.Barrier(8)

    def use(number: int) -> bytes:
        together.wait(30)
        store.put(f"task_{number % 2}/{number}", bytes([number]) * 1000)
        store.put("task_0/shared", bytes(1000))
        return store.get(f"task_{number % 2}/{number}")

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(use, range(8))) == [bytes([number]) * 1000 for number in range(8)]
    assert store.get("task_0/shared") == bytes(1000)


def test_files_are_their_owner_s_only(tmp_path: Path) -> None:
    Directory(tmp_path / "evidence").put(NAME, b"x")
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [tmp_path / "evidence", *tmp_path.glob("evidence/**/*")]
    }
    assert modes == {"evidence": 0o700, "task_1": 0o700, "02ab": 0o600}


def test_what_a_writer_left_that_was_killed_goes_with_the_next_one(tmp_path: Path) -> None:
    store = Directory(tmp_path / "evidence")
    store.put("task_1/02abcd", b"another")
    left = tmp_path / "evidence/task_1/02ab.0011223344556677.part"
    left.write_bytes(b"half")
    under_way = left.with_name("02ab.8899aabbccddeeff.part")
    under_way.write_bytes(b"half")
    os.utime(left, (0, 0))
    store.put(NAME, b"whole")
    assert sorted(path.name for path in left.parent.iterdir()) == ["02ab", under_way.name, "02abcd"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Directory(tmp_path / "evidence")
    store.put(NAME, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("webhook.evidence_stores.os.fsync", full)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        store.put(NAME, b"new")
    assert store.get(NAME) == b"old"
    assert [path.name for path in tmp_path.glob("evidence/task_1/*")] == ["02ab"]


def test_a_directory_whose_parent_is_missing_is_our_own_trouble(tmp_path: Path) -> None:
    store = Directory(tmp_path / "disk" / "evidence")
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        store.put(NAME, b"x")
    with pytest.raises(StoreUnavailable, match="mounted"):
        store.get(NAME)


def test_a_file_that_cannot_be_read_is_our_own_trouble(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir(parents=True)
    with pytest.raises(StoreUnavailable, match="cannot be read"):
        Directory(tmp_path).get(NAME)


@needs_s3
def test_objects_lie_under_the_prefix_and_go_without_the_checksums_that_other_stores_refuse(s3: str) -> None:
    sent: list[set[str]] = []

    def note(request: Any, **_: object) -> None:
        sent.append({name.lower() for name in request.headers})

    for prefix in ("", "a/b"):
        store = Bucket(BUCKET, prefix)
        store._client().meta.events.register("before-send.s3", note)
        store.put(NAME, b"sealed")
    assert len(sent) == 2
    assert not any(name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "x-amz-trailer")) for name in sent[0])
    import boto3

    s3_client = boto3.session.Session().client("s3", endpoint_url=s3)
    keys = [entry["Key"] for entry in s3_client.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert {NAME, f"a/b/{NAME}"} <= set(keys)
    answer = s3_client.get_object(Bucket=BUCKET, Key=NAME)
    assert (answer["Body"].read(), answer["ContentType"]) == (b"sealed", "application/octet-stream")


@needs_s3
@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_our_own_trouble() -> None:
    store = Bucket("nowhere", "")
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        store.put(NAME, b"x")
    with pytest.raises(StoreUnavailable, match="NoSuchBucket"):
        store.get(NAME)


@needs_s3
def test_an_s3_server_that_is_away_is_our_own_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    store = Bucket(BUCKET, "")
    with pytest.raises(StoreUnavailable) as trouble:
        store.put(NAME, b"x")
    assert "EndpointConnectionError" in str(trouble.value)
    assert "very-secret" not in str(trouble.value)


def test_s3_without_its_library_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.evidence_stores.importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingError, match=r"webhook\[s3\]"):
        open_store("s3://evidence")
    assert open_store("file:///var/lib/evidence")
