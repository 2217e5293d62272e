"""What is erased is nowhere any more: not in the API, the database's file, its log, a backup, or the evidence store."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from tests import databases, signed
from tests.clients import FORM, AppClient
from tests.s3 import BUCKET, needs_s3, s3_server
from tests.segment_server import Answer, SegmentServer
from tests.test_workers import working
from tests.waiting import until
from webhook import clock, models
from webhook.app import create_app
from webhook.db import sqlite
from webhook.ingest import Arrival
from webhook.progress import Report
from webhook.quarantine import Claim
from webhook.store import deliveries as delivery_store
from webhook.store import evidence as evidence_store
from webhook.store import tasks as task_store
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.store.tasks import Address

SAID = "a-canary-sang-in-the-coal-mine"


class Caller:
    """An app with its tasks, and the platform that calls back."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = AppClient(create_app(service))

    def submit(self, **fields: Any) -> str:
        source = {"url": "https://audio.example.com/a.mp3", "data_id": "user-7"}
        return str(self.client.made("/v1/tasks", source | fields)["id"])

    def address(self, task_id: str) -> tuple[Address, str, str]:
        """Return a task's address, its URL and its seed."""
        with self.service.database.read() as session:
            address = task_store.address_of(session, task_id)
        assert address is not None
        own = open_secrets(self.service.keyring, address.secrets, table="tasks", row=task_id)
        return address, f"http://x/callbacks/{own.token}", own.seed

    def done(self, *, text: str = SAID, slices: int = 3, **fields: Any) -> str:
        """Return a task that is over, with slices of high risk."""
        task_id = self.submit(**fields)
        _, url, seed = self.address(task_id)
        pieces = [
            signed.piece(10 * n, risk="high", label="political_entity", text=f"{text} {secrets.token_hex(400)}")
            for n in range(slices)
        ]
        assert self.client.callback(url, signed.form(signed.content(*pieces), seed=seed)) == 200
        return task_id

    def finish(self) -> None:
        """Do what the worker does of an erasure."""
        database = self.service.database
        while self.service.erasure.finish_some(database) or self.service.evidence.erase_some(database):
            pass
        self.service.erasure.finish_some(database)

    def rows(self, table: sa.Table, *which: Any) -> list[Any]:
        with self.service.database.read() as session:
            return list(session.execute(sa.select(table).where(*which)))

    def count(self) -> dict[str, int]:
        """Return how many rows the tables have in which a task leaves something."""
        tables = (models.tasks, models.task_labels, models.callbacks, models.slice_pages, models.evidence)
        return {table.name: len(self.rows(table)) for table in tables}

    def buried(self, task_id: str) -> Any:
        [row] = self.rows(models.tombstones, models.tombstones.c.task_id == task_id)
        return row


@pytest.fixture
def caller(service: Service) -> Caller:
    return Caller(service)


def test_an_erased_task_is_gone_for_everybody_and_a_tombstone_says_when_and_by_whom(caller: Caller) -> None:
    task_id = caller.done()
    assert caller.client.delete(f"/v1/tasks/{task_id}").status == 204
    for path in (f"tasks/{task_id}", f"verdicts/{task_id}", f"verdicts/{task_id}/slices", f"tasks/{task_id}/hold"):
        reply = caller.client.get(f"/v1/{path}")
        assert (reply.status, reply.json["status"]) == (410, 410), path
        assert reply.headers["Content-Type"] == "application/problem+json"
    assert caller.client.post(f"/v1/tasks/{task_id}/refresh").status == 410
    assert caller.client.items("/v1/tasks") == caller.client.items("/v1/verdicts?label=political_*") == []
    assert set(caller.count().values()) == {0}
    assert caller.buried(task_id).erased_by == "bootstrap"
    assert caller.buried(task_id).finished_at is None
    caller.finish()
    assert caller.buried(task_id).finished_at is not None
    assert caller.client.delete(f"/v1/tasks/{task_id}").status == 204, "erased is erased"
    assert caller.client.delete("/v1/tasks/task_nobodys").status == 404


def test_an_uploaded_file_that_nobody_took_goes_with_its_task(caller: Caller) -> None:
    reply = caller.client.upload(("file", "talk.mp3", SAID.encode()))
    task_id, directory = reply.json["id"], caller.service.uploads.directory
    with caller.service.database.transaction() as session:
        task = task_store.task(session, task_id)
        assert task is not None
        caller.service.tasks.finish(session, task, state="failed")
    assert (directory / task_id).exists()
    assert caller.client.delete(f"/v1/tasks/{task_id}").status == 204
    assert not (directory / task_id).exists()


def test_only_what_is_asked_for_is_erased(caller: Caller) -> None:
    kept, gone = caller.done(text="kept"), caller.done()
    before = caller.client.shown(f"/v1/verdicts/{kept}/slices")
    assert caller.client.delete(f"/v1/tasks/{gone}").status == 204
    caller.finish()
    assert caller.client.shown(f"/v1/verdicts/{kept}/slices") == before
    assert [task["id"] for task in caller.client.items("/v1/tasks")] == [kept]
    assert {row.task_id for row in caller.rows(models.callbacks)} == {kept}
    assert [item["type"] for item in caller.client.feed() if "erased" not in item["data"]].count("slice.flagged") == 3


def test_a_task_that_is_not_over_is_not_erased(caller: Caller) -> None:
    task_id = caller.submit()
    reply = caller.client.delete(f"/v1/tasks/{task_id}")
    assert (reply.status, reply.json["title"]) == (409, "Conflict")
    assert caller.client.get(f"/v1/tasks/{task_id}").status == 200


def test_a_late_callback_of_an_erased_task_is_answered_200_and_stores_nothing(caller: Caller) -> None:
    task_id = caller.done()
    _, url, seed = caller.address(task_id)
    caller.client.delete(f"/v1/tasks/{task_id}")
    events = len(caller.client.feed())
    late = signed.content(signed.piece(0, risk="high", text=SAID), TaskId="p-1")
    for body in (signed.form(late, seed=seed), signed.form(late, seed="forged"), b"nonsense"):
        assert caller.client.callback(url, body) == 200
    assert set(caller.count().values()) == {0}
    assert len(caller.client.feed()) == events
    counted = caller.client.get("/metrics").body.decode()
    assert 'webhook_callbacks_total{outcome="erased"} 3.0' in counted


def test_what_was_verified_before_the_erasure_and_comes_after_it_stores_nothing(caller: Caller) -> None:
    service, task_id = caller.service, caller.done()
    address, _, seed = caller.address(task_id)
    caller.client.delete(f"/v1/tasks/{task_id}")
    events = len(caller.client.feed())
    for content in (signed.content(signed.piece(50, text=SAID)), "not understood"):
        claim = Claim(
            address=address,
            checksum=signed.checksum(content, seed=seed),
            content=content.encode(),
            stated_task_id=None,
            received_at=clock.now(),
        )
        arrival = service.quarantine.verify(claim)
        assert isinstance(arrival, Arrival)
        with service.database.transaction() as session:
            assert service.ingest.accept(session, [arrival]) == [None]
        service.quarantine.keep(service.database, claim)
    with service.database.transaction() as session:
        service.ingest.accept_polled(session, task_id, Report(result=None, received_at=clock.now()))
    assert set(caller.count().values()) == {0}
    assert len(caller.client.feed()) == events


def test_a_neighbour_in_the_batch_of_an_erased_task_is_stored(caller: Caller) -> None:
    gone, kept = caller.done(), caller.submit()
    arrivals = []
    for task_id in (gone, kept):
        address, _, seed = caller.address(task_id)
        content = signed.content(signed.piece(70, risk="high"))
        claim = Claim(
            address=address,
            checksum=signed.checksum(content, seed=seed),
            content=content.encode(),
            stated_task_id=None,
            received_at=clock.now(),
        )
        arrivals.append(caller.service.quarantine.verify(claim))
    caller.client.delete(f"/v1/tasks/{gone}")
    with caller.service.database.transaction() as session:
        dropped, stored = caller.service.ingest.accept(session, [one for one in arrivals if one is not None])
    assert dropped is None
    assert stored is not None
    assert caller.client.shown(f"/v1/verdicts/{kept}")["risk_level"] == "high"


def test_a_task_of_another_system_is_not_made_again_by_what_comes_late(caller: Caller) -> None:
    receiver = caller.client.receiver()

    def tell(start: int, name: str = "p-1") -> int:
        told = signed.content(signed.piece(start, risk="high", text=SAID), TaskId=name)
        return caller.client.callback(receiver["callback_url"], signed.form(told, seed=receiver["seed"]))

    assert tell(0) == tell(0, "p-2") == 200
    forged = signed.form(signed.content(TaskId="p-1"), seed="forged", task_id="p-1")
    assert caller.client.callback(receiver["callback_url"], forged) == 403
    first = min(caller.client.items("/v1/tasks"), key=lambda task: task["platform_task_id"])
    assert caller.client.delete(f"/v1/tasks/{first['id']}").status == 204
    assert tell(0) == tell(10) == 200
    assert tell(20, "p-2") == 200
    [kept] = caller.client.items("/v1/tasks")
    assert (kept["platform_task_id"], kept["slice_count"]) == ("p-2", 2)
    assert {row.task_id for row in caller.rows(models.callbacks)} == {kept["id"]}
    assert caller.client.get(f"/v1/tasks/{first['id']}").status == 410


def test_nothing_of_an_erased_task_is_left_whatever_comes_at_the_same_time(caller: Caller) -> None:
    service, receiver = caller.service, caller.client.receiver()
    with service.database.read() as session:
        address = task_store.address_of(session, receiver["id"])
    assert address is not None
    over = threading.Event()

    def tell(name: str) -> None:
        for number in range(40):
            content = signed.content(signed.piece(number, risk="high", text=SAID), TaskId=f"p-{number % 4}", Tell=name)
            claim = Claim(
                address=address,
                checksum=signed.checksum(content, seed=receiver["seed"]),
                content=content.encode(),
                stated_task_id=None,
                received_at=clock.now(),
            )
            arrival = service.quarantine.verify(claim)
            assert arrival is not None
            with service.database.transaction() as session:
                service.ingest.accept(session, [arrival])

    def erase() -> int:
        erased = 0
        while not over.is_set():
            for row in caller.rows(models.tasks):
                with service.database.transaction() as session:
                    task = task_store.task(session, row.id)
                    if task is not None and task.platform_task_id != "p-3":
                        service.erasure.erase(session, task, by="nobody")
                        erased += 1
        return erased

    with ThreadPoolExecutor(3) as threads:
        erasing = threads.submit(erase)
        for done in [threads.submit(tell, name) for name in "ab"]:
            done.result()
        over.set()
        assert erasing.result() == 3, "each once: none was made again"
    [kept] = caller.rows(models.tasks)
    assert (kept.platform_task_id, kept.slice_count) == ("p-3", 10)
    for table in (models.callbacks, models.slice_pages, models.task_labels):
        assert {row.task_id for row in caller.rows(table)} == {kept.id}, table.name
    assert {row.task_id for row in caller.rows(models.events) if row.data} == {kept.id}


def test_events_keep_their_place_in_the_feed_and_say_no_more_than_that(caller: Caller) -> None:
    task_id = caller.done()
    before = caller.client.feed()
    caller.client.delete(f"/v1/tasks/{task_id}")
    after = caller.client.feed()
    assert [(item["id"], item["type"], item["timestamp"]) for item in after] == [
        (item["id"], item["type"], item["timestamp"]) for item in before
    ]
    assert all(item["data"] == {"task": {"id": task_id}, "erased": True} for item in after)
    assert SAID not in json.dumps(after)


def test_what_is_owed_of_an_erased_task_ends_and_is_not_sent_again(caller: Caller) -> None:
    subscription = caller.client.made("/v1/subscriptions", {"url": "http://127.0.0.1:9/hook"})["id"]
    path = f"/v1/subscriptions/{subscription}/deliveries"
    task_id = caller.done()
    with working(caller.service):
        until(lambda: len([one for one in caller.client.items(path) if one["attempts"]]) == 5)
    other = caller.done(text="kept")
    caller.client.delete(f"/v1/tasks/{task_id}")
    deliveries = [one for one in caller.client.items(path) if one["state"] == "dead"]
    assert len(deliveries) == 5
    for one in deliveries:
        assert (one["attempts"][-1]["error"], one["attempts"][-1]["status"]) == ("erased", None)
        assert caller.client.post(f"/v1/deliveries/{one['id']}/retry").status == 410
    recovered = caller.client.post(f"/v1/subscriptions/{subscription}/recover", {"since": "2020-01-01T00:00:00Z"})
    assert recovered.json == {"recovered": 0}
    gone = caller.done()
    caller.client.delete(f"/v1/tasks/{gone}")
    with working(caller.service):
        until(lambda: len(caller.client.items(path)) == 10)
    owed = {row.event_id for row in caller.rows(models.deliveries)}
    assert {row.task_id for row in caller.rows(models.events) if row.id in owed} == {task_id, other}


def test_a_delivery_whose_event_says_nothing_any_more_ends_when_it_is_due(caller: Caller) -> None:
    subscription = caller.client.made("/v1/subscriptions", {"url": "http://127.0.0.1:9/hook"})["id"]
    caller.done()
    path = f"/v1/subscriptions/{subscription}/deliveries"
    with working(caller.service):
        until(lambda: len([one for one in caller.client.items(path) if one["attempts"]]) == 5)
    with caller.service.database.transaction() as session:
        session.execute(sa.delete(models.events))
        session.execute(sa.update(models.deliveries).values(next_attempt_at=clock.now(), lease=None, lease_until=None))
        delivery_store.update_subscription(session, subscription, failures=0, paused_until=None)
    with working(caller.service):
        until(lambda: {one["state"] for one in caller.client.items(path)} == {"dead"})
    assert {one["attempts"][-1]["error"] for one in caller.client.items(path)} == {"erased"}


def test_tasks_are_erased_by_their_data_id(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.erasure._TASKS_AT_ONCE", 2)
    gone = [caller.done() for _ in range(3)]
    held, running, other = caller.done(), caller.submit(), caller.done(data_id="user-8")
    caller.client.request("PUT", f"/v1/tasks/{held}/hold")
    told = {"data_id": "user-7", "held": 1, "running": 1}
    for erased, more in ((2, True), (1, False), (0, False)):
        reply = caller.client.post("/v1/erasures", {"data_id": "user-7"})
        assert (reply.status, reply.json) == (200, told | {"erased": erased, "more": more})
    assert {task["id"] for task in caller.client.items("/v1/tasks")} == {held, running, other}
    assert {row.task_id for row in caller.rows(models.tombstones)} == {*gone}
    assert caller.client.post("/v1/erasures", {"data_id": "user 7"}).fields == ["data_id"]


def test_a_hold_keeps_a_task_until_it_is_released(caller: Caller) -> None:
    task_id = caller.done()
    path = f"/v1/tasks/{task_id}/hold"
    assert caller.client.get(path).status == caller.client.delete(path).status == 404
    placed = caller.client.request("PUT", path)
    assert (placed.status, placed.json["task_id"], placed.json["placed_by"]) == (200, task_id, "bootstrap")
    assert caller.client.request("PUT", path).json == caller.client.shown(path) == placed.json
    reply = caller.client.delete(f"/v1/tasks/{task_id}")
    assert (reply.status, "hold" in reply.json["detail"]) == (409, True)
    assert caller.client.delete(path).status == 204
    assert caller.client.get(path).status == 404
    assert caller.client.delete(f"/v1/tasks/{task_id}").status == 204
    assert caller.client.request("PUT", path).status == 410
    assert caller.client.request("PUT", "/v1/tasks/nobody/hold").status == 404


def test_of_a_long_stream_the_worker_takes_the_rest(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.erasure._ROWS_AT_ONCE", 2)
    receiver = caller.client.receiver()
    for number in range(7):
        told = signed.content(signed.piece(number * 10, risk="high", text=SAID), TaskId="p-1", LiveId="room-1")
        assert caller.client.callback(receiver["callback_url"], signed.form(told, seed=receiver["seed"])) == 200
    [task] = caller.client.items("/v1/tasks")
    caller.client.delete(f"/v1/tasks/{task['id']}")
    assert caller.count()["callbacks"] == 5
    caller.finish()
    assert set(caller.count().values()) == {0}
    assert {bytes(row.data) for row in caller.rows(models.events)} == {b""}
    assert caller.buried(task["id"]).finished_at is not None


@pytest.fixture(params=["directory", pytest.param("s3", marks=needs_s3)])
def stored(
    request: pytest.FixtureRequest, make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Caller]:
    if request.param == "directory":
        yield Caller(make_service(WEBHOOK_EVIDENCE_STORE=f"file://{tmp_path}/kept"))
        return
    with s3_server(monkeypatch):
        yield Caller(make_service(WEBHOOK_EVIDENCE_STORE=f"s3://{BUCKET}/prefix"))


def test_audio_is_erased_in_its_store(stored: Caller) -> None:
    client, receiver = stored.client, stored.client.receiver()
    with SegmentServer() as server:
        url = server.answer("/saved.wav", Answer())
        pieces = [signed.piece(start, risk="high") | {"Url": url} for start in (0, 10)]
        told = signed.content(*pieces, TaskId="p-1", LiveId="room-1")
        assert client.callback(receiver["callback_url"], signed.form(told, seed=receiver["seed"])) == 200
        [task] = client.items("/v1/tasks")
        slices = f"/v1/verdicts/{task['id']}/slices"
        with working(stored.service):
            until(lambda: [one["evidence"] for one in client.items(slices)] == ["saved", "saved"])
            ids = [one["id"] for one in client.items(slices)]
            with stored.service.database.read() as session:
                kept = [
                    row
                    for one in ids
                    if (row := evidence_store.find_evidence(session, task["id"], bytes.fromhex(one))) is not None
                ]
            assert [len(stored.service.evidence.load(row)) > 0 for row in kept] == [True, True]
            assert client.delete(f"/v1/tasks/{task['id']}").status == 204
            assert client.get(f"/v1/tasks/{task['id']}/evidence/{ids[0]}").status == 410
            until(lambda: stored.buried(task["id"]).finished_at is not None)
        for row in kept:
            with pytest.raises(Exception, match="lost"):
                stored.service.evidence.load(row)
    assert stored.rows(models.evidence) == []


def test_a_store_that_cannot_be_reached_is_asked_again(
    make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(make_service(WEBHOOK_EVIDENCE_STORE=f"file://{tmp_path}/away"))
    task_id = caller.done()
    now = clock.now()
    row = evidence_store.EvidenceRow(
        task_id=task_id, slice_key=b"k", state="saved", url=b"u", object="o", next_attempt_at=None, created_at=now
    )
    with caller.service.database.transaction() as session:
        evidence_store.insert_evidence(session, [row])
    caller.client.delete(f"/v1/tasks/{task_id}")
    caller.finish()
    assert caller.buried(task_id).finished_at is None
    (tmp_path / "away").mkdir()
    caller.finish()
    assert caller.buried(task_id).finished_at is None, "not before its time"
    monkeypatch.setattr(caller.service.evidence, "_now", lambda: clock.from_microseconds(2**52))
    caller.finish()
    assert caller.buried(task_id).finished_at is not None


def grown(caller: Caller) -> tuple[str, list[bytes]]:
    """Return a task that is over, and pieces of all that is sealed of it, among others."""
    for _ in range(5):
        caller.done(text="others", slices=30, data_id="user-8")
    task_id = caller.done(slices=30)
    _, url, _ = caller.address(task_id)
    assert caller.client.callback(url, signed.form(SAID, seed="forged"), FORM) == 403
    for _ in range(5):
        caller.done(text="others", slices=30, data_id="user-8")
    sealed = [bytes(row.secrets) for row in caller.rows(models.tasks, models.tasks.c.id == task_id)]
    for table, column in (("callbacks", "content"), ("slice_pages", "body"), ("events", "data")):
        of_task = models.metadata.tables[table].c.task_id == task_id
        sealed += [bytes(row._mapping[column]) for row in caller.rows(models.metadata.tables[table], of_task)]
    assert len(sealed) == 1 + 2 + 1 + 32
    assert max(map(len, sealed)) > 8192, "some lie in overflow pages"
    return task_id, [part for value in sealed for part in (value[20:40], value[-24:])]


def found_in_files(caller: Caller, tmp_path: Path, pieces: list[bytes]) -> set[str]:
    """Return in which of the database's files, and of backups made of it now, any of these pieces is found."""
    path = caller.service.database.path
    assert path is not None
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        source.backup(backup)
        (tmp_path / "vacuumed.db").unlink(missing_ok=True)
        source.execute("VACUUM INTO ?", (str(tmp_path / "vacuumed.db"),))
    files = [path, path.with_name(f"{path.name}-wal"), tmp_path / "backup.db", tmp_path / "vacuumed.db"]
    return {file.name for file in files if file.exists() and any(piece in file.read_bytes() for piece in pieces)}


@databases.needs_sqlite
def test_neither_text_nor_ciphertext_is_left_in_file_log_or_backup(caller: Caller, tmp_path: Path) -> None:
    task_id, pieces = grown(caller)
    assert found_in_files(caller, tmp_path, pieces) > {"backup.db", "vacuumed.db"}
    caller.client.delete(f"/v1/tasks/{task_id}")
    caller.finish()
    assert found_in_files(caller, tmp_path, [SAID.encode(), b"user-7", *pieces]) == set()


@databases.needs_sqlite
@pytest.mark.parametrize("missing", ["secure_delete", "checkpoint"])
def test_without_either_of_the_two_something_would_be_left(
    make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "secure_delete":
        prepare = sqlite._prepare_connection

        def careless(connection: sqlite3.Connection, record: object) -> None:
            prepare(connection, record)
            connection.execute("PRAGMA secure_delete = OFF")

        monkeypatch.setattr(sqlite, "_prepare_connection", careless)
    caller = Caller(make_service())
    task_id, pieces = grown(caller)
    if missing == "checkpoint":
        monkeypatch.setattr(caller.service.database, "scrub", lambda: True)
    caller.client.delete(f"/v1/tasks/{task_id}")
    caller.finish()
    left = found_in_files(caller, tmp_path, pieces)
    assert ("webhook.db" if missing == "secure_delete" else "webhook.db-wal") in left


@databases.needs_sqlite
def test_the_log_is_emptied_later_where_somebody_reads_by_it(caller: Caller) -> None:
    task_id = caller.done()
    path = caller.service.database.path
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tasks").fetchall()
        caller.client.delete(f"/v1/tasks/{task_id}")
        caller.finish()
        assert caller.buried(task_id).finished_at is None
        reader.execute("COMMIT")
    caller.finish()
    assert caller.buried(task_id).finished_at is not None


@databases.needs_postgresql
def test_tables_are_vacuumed(caller: Caller) -> None:
    def vacuums() -> int:
        with caller.service.database.read() as session:
            return int(session.exec_driver_sql("SELECT sum(vacuum_count) FROM pg_stat_user_tables").scalar_one())

    before, task_id = vacuums(), caller.done()
    caller.client.delete(f"/v1/tasks/{task_id}")
    caller.finish()
    until(lambda: vacuums() >= before + 5)  # the statistics come a little later
    assert caller.buried(task_id).finished_at is not None
